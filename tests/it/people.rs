//! What tests of the directory do over and over: calls about users and sessions in one line, services that say addresses, SQL for what
//! no RPC shows, and the mails that went out.

use entente::{
    proto::{
        audit::{AuditEvent, ListAuditEventsRequest},
        directory::{
            Application, AssignDirectoryRolesRequest, ChangePasswordRequest,
            CompletePasswordRecoveryRequest, ConfirmIdentityRequest, CreateApplicationRequest,
            CreateKeyRequest, CreateKeyResponse, DeleteUserRequest, DeleteUserResponse,
            DirectoryRole, DisableUserRequest, EnableUserRequest, GetUserRequest, Identity,
            KeyCredential, ListSessionsRequest, ListUsersRequest, PasswordCredential,
            RefreshSessionRequest, ReplaceGlobalAdminRequest, ReplaceGlobalAdminResponse,
            ResetPasswordRequest, ResetPasswordResponse, Session, SignInRequest, SignUpRequest,
            StartPasswordRecoveryRequest, TokenSet, UndeleteUserRequest, UndeleteUserResponse,
            UpdateOwnContactRequest, UpdateUserRequest, User, WakeRightsRequest, WhoAmIRequest,
            WhoAmIResponse, sign_in_request::Credential,
        },
        operator::{AssignOperatorRolesRequest, OperatorRole},
    },
    schedule,
};
use sea_orm::{ConnectionTrait, Statement, Value};
use tonic::{Code, Request, Response, Status};
use uuid::Uuid;

use crate::harness::{Caller, Database, PASSWORD, Person, Site, TenantSite, reconcile, refused};

/// Calls about people.
pub(crate) trait People {
    async fn user(&self, name: &str) -> Result<User, Status>;
    async fn disable(&self, name: &str) -> Result<User, Status>;
    async fn enable(&self, name: &str) -> Result<User, Status>;
    async fn delete(&self, name: &str) -> Result<DeleteUserResponse, Status>;
    async fn undelete(&self, name: &str, new: &str) -> Result<UndeleteUserResponse, Status>;
    async fn reset(&self, name: &str) -> Result<ResetPasswordResponse, Status>;
    async fn assign(&self, name: &str, roles: &[DirectoryRole]) -> Result<User, Status>;
    async fn replace(&self, name: &str, next: &str) -> Result<ReplaceGlobalAdminResponse, Status>;
    async fn update(&self, user: User, mask: &[&str]) -> Result<User, Status>;
    async fn set_contact(&self, name: &str, address: &str) -> Result<User, Status>;
    async fn wake(&self, name: &str) -> Result<User, Status>;
    async fn list(&self, tenant: &str, filter: &str) -> Result<Vec<User>, Status>;
    async fn who_am_i(&self) -> Result<WhoAmIResponse, Status>;
    async fn list_sessions(&self, user: &str) -> Result<Vec<Session>, Status>;
    async fn key(&self, application: &str) -> Result<CreateKeyResponse, Status>;
}

impl People for Caller {
    async fn user(&self, name: &str) -> Result<User, Status> {
        let name = name.to_owned();
        let got = self.users().get_user(GetUserRequest { name }).await;
        got.map(Response::into_inner)
    }
    async fn disable(&self, name: &str) -> Result<User, Status> {
        let request = DisableUserRequest {
            name: name.to_owned(),
            ..DisableUserRequest::default()
        };
        let done = self.users().disable_user(request).await;
        done.map(Response::into_inner)
    }
    async fn enable(&self, name: &str) -> Result<User, Status> {
        let request = EnableUserRequest {
            name: name.to_owned(),
            ..EnableUserRequest::default()
        };
        let done = self.users().enable_user(request).await;
        done.map(Response::into_inner)
    }
    async fn delete(&self, name: &str) -> Result<DeleteUserResponse, Status> {
        let request = DeleteUserRequest {
            name: name.to_owned(),
            ..DeleteUserRequest::default()
        };
        let done = self.users().delete_user(request).await;
        done.map(Response::into_inner)
    }
    async fn undelete(&self, name: &str, new: &str) -> Result<UndeleteUserResponse, Status> {
        let request = UndeleteUserRequest {
            name: name.to_owned(),
            user_name: new.to_owned(),
            ..UndeleteUserRequest::default()
        };
        let done = self.users().undelete_user(request).await;
        done.map(Response::into_inner)
    }
    async fn reset(&self, name: &str) -> Result<ResetPasswordResponse, Status> {
        let request = ResetPasswordRequest {
            name: name.to_owned(),
            ..ResetPasswordRequest::default()
        };
        let done = self.users().reset_password(request).await;
        done.map(Response::into_inner)
    }
    async fn assign(&self, name: &str, roles: &[DirectoryRole]) -> Result<User, Status> {
        let request = AssignDirectoryRolesRequest {
            name: name.to_owned(),
            directory_roles: roles.iter().map(|r| *r as i32).collect(),
            ..AssignDirectoryRolesRequest::default()
        };
        let done = self.users().assign_directory_roles(request).await;
        done.map(Response::into_inner)
    }
    async fn replace(&self, name: &str, next: &str) -> Result<ReplaceGlobalAdminResponse, Status> {
        let request = ReplaceGlobalAdminRequest {
            name: name.to_owned(),
            successor: next.to_owned(),
            ..ReplaceGlobalAdminRequest::default()
        };
        let done = self.users().replace_global_admin(request).await;
        done.map(Response::into_inner)
    }
    async fn update(&self, user: User, mask: &[&str]) -> Result<User, Status> {
        let request = UpdateUserRequest {
            user: Some(user),
            update_mask: (!mask.is_empty()).then(|| self::mask(mask)),
            ..UpdateUserRequest::default()
        };
        let done = self.users().update_user(request).await;
        done.map(Response::into_inner)
    }
    async fn set_contact(&self, name: &str, address: &str) -> Result<User, Status> {
        let request = UpdateOwnContactRequest {
            name: name.to_owned(),
            recovery_email: address.to_owned(),
            ..UpdateOwnContactRequest::default()
        };
        let done = self.users().update_own_contact(request).await;
        done.map(Response::into_inner)
    }
    async fn wake(&self, name: &str) -> Result<User, Status> {
        let request = WakeRightsRequest {
            name: name.to_owned(),
            ..WakeRightsRequest::default()
        };
        let done = self.users().wake_rights(request).await;
        done.map(Response::into_inner)
    }
    async fn list(&self, tenant: &str, filter: &str) -> Result<Vec<User>, Status> {
        let request = ListUsersRequest {
            parent: tenant.to_owned(),
            filter: filter.to_owned(),
            ..ListUsersRequest::default()
        };
        let done = self.users().list_users(request).await;
        done.map(|r| r.into_inner().users)
    }
    async fn who_am_i(&self) -> Result<WhoAmIResponse, Status> {
        let done = self.sessions().who_am_i(WhoAmIRequest {}).await;
        done.map(Response::into_inner)
    }
    async fn list_sessions(&self, user: &str) -> Result<Vec<Session>, Status> {
        let request = ListSessionsRequest {
            parent: user.to_owned(),
            ..ListSessionsRequest::default()
        };
        let done = self.sessions().list_sessions(request).await;
        done.map(|r| r.into_inner().sessions)
    }
    async fn key(&self, application: &str) -> Result<CreateKeyResponse, Status> {
        let request = CreateKeyRequest {
            parent: application.to_owned(),
            ..CreateKeyRequest::default()
        };
        let done = self.applications().create_key(request).await;
        done.map(Response::into_inner)
    }
}

/// A field mask.
pub fn mask(paths: &[&str]) -> prost_types::FieldMask {
    prost_types::FieldMask {
        paths: paths.iter().map(|p| (*p).to_owned()).collect(),
    }
}

/// A user of which only the name is set.
pub fn named(name: &str) -> User {
    User {
        name: name.to_owned(),
        ..User::default()
    }
}

/// The last part of a resource name.
pub fn id(name: &str) -> Uuid {
    name.rsplit('/').next().unwrap().parse().unwrap()
}

/// A session gets new tokens.
pub async fn refresh(site: &Site, refresh_token: &str) -> Result<TokenSet, Status> {
    let request = RefreshSessionRequest {
        refresh_token: refresh_token.to_owned(),
        ..RefreshSessionRequest::default()
    };
    let done = site.nobody().sessions().refresh_session(request).await;
    done.map(Response::into_inner)
}

/// A second global admin of a tenant.
pub async fn second_admin(site: &Site, tenant: &TenantSite, user_name: &str) -> Person {
    site.person_with(tenant, user_name, |r| {
        let user = r.user.as_mut().unwrap();
        user.directory_roles = vec![DirectoryRole::GlobalAdmin as i32];
        user.recovery_email = format!("{user_name}@contoso.example");
    })
    .await
}

/// A user with directory roles.
pub async fn person_as(
    site: &Site,
    tenant: &TenantSite,
    user_name: &str,
    role: DirectoryRole,
) -> Person {
    site.person_with(tenant, user_name, |r| {
        r.user.as_mut().unwrap().directory_roles = vec![role as i32];
    })
    .await
}

/// The operator's own tenant, with its first administrator.
pub async fn operator_tenant(site: &Site) -> TenantSite {
    let caller = site.operator().await;
    let me = caller.who_am_i().await.unwrap();
    TenantSite {
        name: me.tenant.unwrap().name,
        admin: Person {
            name: me.principal,
            sign_in_name: crate::harness::ADMINISTRATOR.to_owned(),
            caller,
        },
    }
}

/// A person of the operator with a role.
pub async fn staff(site: &Site, user_name: &str, role: OperatorRole) -> Person {
    let home = operator_tenant(site).await;
    let person = site
        .person_with(&home, user_name, |r| {
            r.user.as_mut().unwrap().recovery_email = format!("{user_name}@operator.example");
        })
        .await;
    let request = AssignOperatorRolesRequest {
        principal: person.name.clone(),
        roles: vec![role as i32],
        ..AssignOperatorRolesRequest::default()
    };
    home.admin
        .caller
        .staff()
        .assign_operator_roles(request)
        .await
        .unwrap();
    person
}

/// An application of a tenant.
pub async fn application(caller: &Caller, tenant: &str, display_name: &str) -> Application {
    let request = CreateApplicationRequest {
        parent: tenant.to_owned(),
        application: Some(Application {
            display_name: display_name.to_owned(),
            ..Application::default()
        }),
        ..CreateApplicationRequest::default()
    };
    let made = caller.applications().create_application(request).await;
    made.unwrap().into_inner()
}

/// Signs an application in.
pub async fn sign_in_by_key(
    site: &Site,
    client_id: &str,
    secret: &str,
) -> Result<TokenSet, Status> {
    let credential = KeyCredential {
        client_id: client_id.to_owned(),
        secret: secret.to_owned(),
    };
    let request = SignInRequest {
        credential: Some(Credential::Key(credential)),
        ..SignInRequest::default()
    };
    let done = site.nobody().sessions().sign_in(request).await;
    done.map(Response::into_inner)
}

/// An internal service of the operator, which may say for whom it signs in.
pub struct Service {
    pub name: String,
    client_id: String,
    secret: String,
}

impl Service {
    /// Makes one.
    pub async fn open(site: &Site) -> Self {
        let home = operator_tenant(site).await;
        let admin = &home.admin.caller;
        let made = application(admin, &home.name, "Portal").await;
        let request = AssignOperatorRolesRequest {
            principal: made.name.clone(),
            roles: vec![OperatorRole::OperatorService as i32],
            ..AssignOperatorRolesRequest::default()
        };
        admin.staff().assign_operator_roles(request).await.unwrap();
        let secret = admin.key(&made.name).await.unwrap().secret;
        Self {
            name: made.name,
            client_id: made.client_id,
            secret,
        }
    }

    /// The service, signed in.
    pub async fn caller(&self, site: &Site) -> Caller {
        let tokens = sign_in_by_key(site, &self.client_id, &self.secret).await;
        site.with_token(&tokens.unwrap().access_token)
    }
}

/// Somebody tries to sign in from an address, as a portal's service says it.
pub async fn sign_in_from(
    service: &Caller,
    address: &str,
    sign_in_name: &str,
    password: &str,
) -> Result<TokenSet, Status> {
    let credential = PasswordCredential {
        sign_in_name: sign_in_name.to_owned(),
        password: password.to_owned(),
    };
    let mut request = Request::new(SignInRequest {
        credential: Some(Credential::Password(credential)),
        ..SignInRequest::default()
    });
    let said = address.parse().unwrap();
    request
        .metadata_mut()
        .insert("entente-client-address", said);
    let done = service.sessions().sign_in(request).await;
    done.map(Response::into_inner)
}

/// Signs a person in who reads a language.
pub async fn sign_in_reading(site: &Site, person: &Person, language: &str) -> Caller {
    let credential = PasswordCredential {
        sign_in_name: person.sign_in_name.clone(),
        password: PASSWORD.to_owned(),
    };
    let mut request = Request::new(SignInRequest {
        credential: Some(Credential::Password(credential)),
        ..SignInRequest::default()
    });
    let said = language.parse().unwrap();
    request.metadata_mut().insert("accept-language", said);
    let done = site.nobody().sessions().sign_in(request).await;
    site.with_token(&done.unwrap().into_inner().access_token)
}

/// Signs a person in anew, since tokens don't outlive a moved clock.
pub async fn again(site: &Site, person: &Person) -> Caller {
    site.sign_in(&person.sign_in_name, PASSWORD).await
}

/// One number of the database, named `n`.
pub async fn number(site: &Site, sql: &str, values: impl IntoIterator<Item = Value>) -> i64 {
    let db = &site.app.db;
    let statement = Statement::from_sql_and_values(db.backend, sql, values);
    let row = db.read.query_one_raw(statement).await.unwrap().unwrap();
    row.try_get("", "n").unwrap()
}

/// An ID as SQL has it.
pub fn literal(site: &Site, name: &str) -> String {
    match site.database {
        Database::Sqlite => format!("x'{}'", id(name).simple()),
        Database::Postgres => format!("'{}'::uuid", id(name)),
    }
}

/// Changes the database behind the service's back.
pub async fn change(site: &Site, sql: &str, values: impl IntoIterator<Item = Value>) {
    let db = &site.app.db;
    let statement = Statement::from_sql_and_values(db.backend, sql, values);
    let done = db.write.execute_raw(statement).await.unwrap();
    assert_eq!(done.rows_affected(), 1, "{sql}");
    reconcile(&site.app).await;
}

/// Does something to the database behind the service's back.
pub async fn execute_on(site: &Site, sql: &str) {
    let statement = Statement::from_string(site.app.db.backend, sql);
    site.app.db.write.execute_raw(statement).await.unwrap();
    reconcile(&site.app).await;
}

/// How many events of a type tell of a resource.
pub async fn events(site: &Site, kind: &str, resource: &str) -> i64 {
    let sql = "SELECT COUNT(*) AS n FROM outbox WHERE is_first AND type = $1 AND resource = $2";
    let kind = format!("entente.{kind}");
    number(site, sql, [kind.into(), resource.into()]).await
}

/// A mail that went out.
#[derive(Debug)]
pub struct Letter {
    /// The one it went to.
    pub to: String,
    /// All of it, lines joined.
    pub text: String,
}

/// All mails that went out, in the order of their causes, once none waits any more.
pub async fn letters(site: &Site) -> Vec<Letter> {
    eventually(async || {
        schedule::settle(&site.app).await.unwrap();
        let waiting = "SELECT (SELECT COUNT(*) FROM mails WHERE state = 1) + (SELECT COUNT(*) FROM recovery_requests) \
                       + (SELECT COUNT(*) FROM membership_claims WHERE is_waiting) + (SELECT COUNT(*) FROM relationship_mails) AS n";
        number(site, waiting, []).await == 0
    })
    .await;
    let Ok(folder) = std::fs::read_dir(site.folder.join("mails")) else {
        return Vec::new();
    };
    let mut files: Vec<_> = folder.flatten().map(|f| f.path()).collect();
    // Their names are in the order in which they were queued.
    files.sort();
    files
        .into_iter()
        .filter(|p| p.extension().is_some_and(|e| e == "eml"))
        .map(|p| {
            let raw = std::fs::read_to_string(p).unwrap();
            let text = raw.replace("=\r\n", "").replace("=3D", "=");
            let to = text.lines().find_map(|l| l.strip_prefix("To: ")).unwrap();
            Letter {
                to: to.trim().to_owned(),
                text: text.clone(),
            }
        })
        .collect()
}

/// The token in the newest mail to an address; None if it shows none.
pub async fn mailed_token(site: &Site, to: &str) -> Option<String> {
    let letters = letters(site).await;
    token_of(letters.iter().rfind(|l| l.to == to)?)
}

/// The token in the newest mail to an address that has one, whatever came with it.
pub async fn mailed_link(site: &Site, to: &str) -> Option<String> {
    let letters = letters(site).await;
    letters
        .iter()
        .rev()
        .filter(|l| l.to == to)
        .find_map(token_of)
}

fn token_of(letter: &Letter) -> Option<String> {
    let (_, rest) = letter.text.split_once("entl_")?;
    let end = rest.find(|c: char| !c.is_ascii_alphanumeric() && c != '-' && c != '_');
    Some(format!("entl_{}", &rest[..end.unwrap_or(rest.len())]))
}

/// The request of a personal identity.
pub fn new_identity(email: &str) -> SignUpRequest {
    SignUpRequest {
        email: email.to_owned(),
        given_name: "Ida".to_owned(),
        family_name: "Noor".to_owned(),
        password: PASSWORD.to_owned(),
        ..SignUpRequest::default()
    }
}

/// Confirms a sign-up by the token of its mail.
pub async fn confirm(site: &Site, token: &str, password: &str) -> Result<Identity, Status> {
    let request = ConfirmIdentityRequest {
        token: token.to_owned(),
        password: password.to_owned(),
        ..ConfirmIdentityRequest::default()
    };
    let done = site.nobody().identities().confirm_identity(request).await;
    done.map(Response::into_inner)
}

/// A personal identity, signed in.
pub async fn identity(site: &Site, email: &str) -> Person {
    let request = new_identity(email);
    site.nobody().identities().sign_up(request).await.unwrap();
    let token = mailed_token(site, email).await.unwrap();
    let made = confirm(site, &token, PASSWORD).await.unwrap();
    Person {
        name: made.name,
        sign_in_name: made.email.clone(),
        caller: site.sign_in(&made.email, PASSWORD).await,
    }
}

/// An ID made of a number of SQL, small ones first: older than all that the service makes.
pub fn numbered_id(site: &Site, number: &str) -> String {
    match site.database {
        Database::Postgres => format!("CAST(lpad(to_hex({number}), 32, '0') AS uuid)"),
        Database::Sqlite => format!("unhex(printf('%032x', {number}))"),
    }
}

/// Asks for a way back for somebody.
pub async fn ask_recovery(site: &Site, sign_in_name: &str) -> Result<(), Status> {
    let request = StartPasswordRecoveryRequest {
        sign_in_name: sign_in_name.to_owned(),
        ..StartPasswordRecoveryRequest::default()
    };
    let nobody = site.nobody();
    let asked = nobody.sessions().start_password_recovery(request).await;
    asked.map(drop)
}

/// Sets a new password by the token of a mail; gives how many sessions ended.
pub async fn recover(site: &Site, token: &str, new_password: &str) -> Result<i32, Status> {
    let request = CompletePasswordRecoveryRequest {
        token: token.to_owned(),
        new_password: new_password.to_owned(),
        ..CompletePasswordRecoveryRequest::default()
    };
    let nobody = site.nobody();
    let done = nobody.sessions().complete_password_recovery(request).await;
    done.map(|r| r.into_inner().ended_session_count)
}

/// A guest of a tenant who signs in as somebody from elsewhere; gives its name.
pub async fn guest(site: &Site, tenant: &str, home: &Person) -> String {
    let made: Uuid = crate::harness::request_id().parse().unwrap();
    let home_tenant = match home.name.split('/').collect::<Vec<_>>()[..] {
        ["tenants", tenant, ..] => tenant.parse().unwrap(),
        _ => Uuid::nil(),
    };
    let sql = "INSERT INTO users (id, tenant_id, user_name, user_name_fold, given_name, family_name, display_name, display_name_fold, \
               recovery_email, kind, state, create_time, update_time, home_id, home_tenant_id, external_id, version) \
               VALUES ($1, $2, $3, $3, 'Gwen', 'Ash', 'Gwen Ash', 'gwen ash', '', 2, 1, 0, 0, $4, $5, '', 1)";
    let values: [Value; 5] = [
        made.into(),
        id(tenant).into(),
        home.sign_in_name.clone().into(),
        id(&home.name).into(),
        home_tenant.into(),
    ];
    change(site, sql, values).await;
    format!("{tenant}/users/{made}")
}

/// A person changes its own password; gives the new tokens.
pub async fn change_password(caller: &Caller, old: &str, new: &str) -> Result<TokenSet, Status> {
    let request = ChangePasswordRequest {
        old_password: old.to_owned(),
        new_password: new.to_owned(),
        request_id: String::new(),
    };
    let done = caller.sessions().change_password(request).await;
    done.map(|r| r.into_inner().tokens.unwrap())
}

/// The audit events of a chain, oldest first; all of them for an empty filter.
pub async fn audited(
    caller: &Caller,
    parent: &str,
    filter: &str,
) -> Result<Vec<AuditEvent>, Status> {
    let request = ListAuditEventsRequest {
        parent: parent.to_owned(),
        page_size: 1_000,
        filter: filter.to_owned(),
        order_by: "create_time".to_owned(),
        ..ListAuditEventsRequest::default()
    };
    let page = caller.audit().list_audit_events(request).await?;
    Ok(page.into_inner().audit_events)
}

/// Asserts that a mailed token proved nothing.
#[track_caller]
pub fn link_invalid<T: std::fmt::Debug>(tried: Result<T, Status>) -> Status {
    refused(tried, Code::PermissionDenied, "LINK_INVALID")
}

/// Asserts that a right was missing.
#[track_caller]
pub fn denied<T: std::fmt::Debug>(tried: Result<T, Status>) -> Status {
    refused(tried, Code::PermissionDenied, "PERMISSION_MISSING")
}

/// Waits until something holds that comes about by itself. On a busy machine a job may fail, or a mail not go out, and be tried again only when
/// nobody holds it any more: after two minutes at most.
pub async fn eventually(holds: impl AsyncFn() -> bool) {
    for _ in 0..4_800 {
        if holds().await {
            return;
        }
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    panic!("it never came to hold");
}
