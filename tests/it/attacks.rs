//! Attacks on credentials and on what has ended (ATK-4, 7, 9, 11, 12, 14, 17).

use entente::proto::{
    access::AccountRole,
    account::{
        AddMembersRequest, AssociateTenantRequest, GetAccountRequest, Member, RemoveMembersRequest,
        RemoveTenantRequest, UpdateMemberRequest, UpdateMembersRequest,
    },
    directory::{
        Application, ChangePasswordRequest, CreateApplicationRequest, DeleteKeyRequest,
        DirectoryRole, SignOutRequest, TokenSet,
    },
};
use tonic::{Code, Status, transport::Endpoint};

use crate::{
    harness::{
        Caller, PASSWORD, Person, Site, both, config, membership, new_user, refused, rights, serve,
    },
    people::{
        People as _, Service, again, application, change, id, number, person_as, refresh,
        second_admin, sign_in_by_key,
    },
};

const NEW: &str = "green chair on a hill";

async fn change_password(caller: &Caller, old: &str) -> Result<TokenSet, Status> {
    let request = ChangePasswordRequest {
        old_password: old.to_owned(),
        new_password: NEW.to_owned(),
        request_id: String::new(),
    };
    let done = caller.sessions().change_password(request).await;
    done.map(|r| r.into_inner().tokens.unwrap())
}

async fn account_of(caller: &Caller, account: &str) -> Result<(), Status> {
    let request = GetAccountRequest {
        name: account.to_owned(),
    };
    caller.accounts().get_account(request).await.map(drop)
}

fn update_of(account: &str, person: &Person, roles: &[AccountRole]) -> UpdateMembersRequest {
    UpdateMembersRequest {
        parent: account.to_owned(),
        requests: vec![UpdateMemberRequest {
            member: Some(Member {
                name: person.member_of(account),
                rights: Some(rights(roles)),
                ..Member::default()
            }),
        }],
        ..UpdateMembersRequest::default()
    }
}

fn removal_of(account: &str, person: &Person) -> RemoveMembersRequest {
    RemoveMembersRequest {
        parent: account.to_owned(),
        names: vec![person.member_of(account)],
        ..RemoveMembersRequest::default()
    }
}

// proves ATK-4, ATK-9
#[tokio::test]
async fn without_the_old_password_nobody_sets_a_first_or_a_next_one() {
    both(async |site| {
        let contoso = site.tenant("contoso").await;
        let bob = site.person(&contoso, "bob").await;
        let admin = &contoso.admin.caller;
        // A credential that is gone is set by nobody's guess, whoever has a session.
        change(
            &site,
            "DELETE FROM credentials WHERE user_id = $1",
            [id(&bob.name).into()],
        )
        .await;
        for guess in [
            PASSWORD,
            "x",
            "hmac$",
            "$argon2id$v=19$m=1024,t=1,p=1$AAAA$AAAA",
        ] {
            refused(
                change_password(&bob.caller, guess).await,
                Code::InvalidArgument,
                "SIGN_IN_FAILED",
            );
            refused(
                site.tokens(&bob.sign_in_name, guess).await,
                Code::Unauthenticated,
                "SIGN_IN_FAILED",
            );
        }
        for caller in [&bob.caller, &site.nobody()] {
            let code = match caller.token {
                Some(_) => (Code::InvalidArgument, "INVALID_FIELDS"),
                None => (Code::Unauthenticated, "CREDENTIALS_MISSING"),
            };
            refused(change_password(caller, "").await, code.0, code.1);
        }
        let sql = "SELECT COUNT(*) AS n FROM credentials WHERE user_id = $1";
        assert_eq!(number(&site, sql, [id(&bob.name).into()]).await, 0);
        // Another's session or an application's token sets nothing either.
        let app = application(admin, &contoso.name, "App").await;
        let secret = admin.key(&app.name).await.unwrap().secret;
        let token = sign_in_by_key(&site, &app.client_id, &secret)
            .await
            .unwrap();
        refused(
            change_password(&site.with_token(&token.access_token), &secret).await,
            Code::PermissionDenied,
            "PEOPLE_ONLY",
        );
        let temporary = admin.reset(&bob.name).await.unwrap().temporary_password;
        site.settle_in(&bob.sign_in_name, &temporary).await;
    })
    .await;
}

// proves ATK-7, PWD-5
#[tokio::test]
async fn temporary_password_and_tokens_end_on_the_dot() {
    both(async |site| {
        let contoso = site.tenant("contoso").await;
        let users = contoso.admin.caller.users();
        let made = users
            .clone()
            .create_user(new_user(&contoso.name, "bob"))
            .await;
        let made = made.unwrap().into_inner();
        let (user, temporary) = (made.user.unwrap(), made.temporary_password);
        let sql = "SELECT expire_time AS n FROM credentials WHERE user_id = $1";
        let end = number(&site, sql, [id(&user.name).into()]).await;
        let to = async |at: i64| {
            let offset = at - (site.app.now().await.unwrap() - offset(&site).await);
            let sql = "UPDATE meta SET value = $1 WHERE key = 'clock_offset'";
            change(&site, sql, [offset.to_string().into()]).await;
        };
        to(end - 20_000_000).await;
        let tokens = site.tokens(&user.sign_in_name, &temporary).await.unwrap();
        let caller = site.with_token(&tokens.access_token);
        to(end).await;
        refused(
            site.tokens(&user.sign_in_name, &temporary).await,
            Code::Unauthenticated,
            "SIGN_IN_FAILED",
        );
        // What was begun in time isn't finished late.
        caller.who_am_i().await.unwrap();
        refused(
            change_password(&caller, &temporary).await,
            Code::InvalidArgument,
            "SIGN_IN_FAILED",
        );
        to(tokens.access_expire_time.unwrap().seconds * 1_000_000).await;
        refused(
            caller.who_am_i().await,
            Code::Unauthenticated,
            "TOKEN_INVALID",
        );
        let sql = "SELECT expire_time AS n FROM sessions WHERE id = $1";
        to(number(&site, sql, [id(&tokens.session).into()]).await).await;
        refused(
            refresh(&site, &tokens.refresh_token).await,
            Code::Unauthenticated,
            "TOKEN_INVALID",
        );
    })
    .await;
}

async fn offset(site: &Site) -> i64 {
    let sql = "SELECT CAST(value AS bigint) AS n FROM meta WHERE key = 'clock_offset'";
    number(site, sql, []).await
}

// proves ATK-11
#[tokio::test]
async fn what_is_made_again_under_the_same_name_inherits_nothing() {
    both(async |site| {
        let contoso = site.tenant("contoso").await;
        let account = site.account(&contoso, "Contoso").await;
        let admin = &contoso.admin.caller;
        let with_role = |r: &mut entente::proto::directory::CreateUserRequest| {
            r.memberships = vec![membership(&account, &[AccountRole::Developer])];
        };
        let bob = site.person_with(&contoso, "bob", with_role).await;
        let tokens = site.tokens(&bob.sign_in_name, PASSWORD).await.unwrap();
        admin.delete(&bob.name).await.unwrap();
        let made = admin
            .users()
            .create_user(new_user(&contoso.name, "bob"))
            .await;
        let made = made.unwrap().into_inner();
        let heir = made.user.unwrap();
        assert_eq!(heir.sign_in_name, bob.sign_in_name);
        assert_eq!(heir.recovery_email, "");
        refused(
            site.tokens(&bob.sign_in_name, PASSWORD).await,
            Code::Unauthenticated,
            "SIGN_IN_FAILED",
        );
        refused(
            refresh(&site, &tokens.refresh_token).await,
            Code::Unauthenticated,
            "TOKEN_INVALID",
        );
        let caller = site
            .settle_in(&heir.sign_in_name, &made.temporary_password)
            .await;
        refused(
            account_of(&caller, &account).await,
            Code::PermissionDenied,
            "PERMISSION_MISSING",
        );
        refused(
            caller.user(&bob.name).await,
            Code::PermissionDenied,
            "PERMISSION_MISSING",
        );

        // A member who is removed and added again has what is given then.
        let carol = site.person_with(&contoso, "carol", with_role).await;
        let removal = removal_of(&account, &carol);
        admin.members().remove_members(removal).await.unwrap();
        let request = AddMembersRequest {
            parent: account.clone(),
            principals: vec![carol.name.clone()],
            ..AddMembersRequest::default()
        };
        admin.members().add_members(request).await.unwrap();
        let me = carol.caller.who_am_i().await.unwrap();
        assert!(me.accounts[0].rights.as_ref().unwrap().roles.is_empty());
    })
    .await;
}

/// The same people by way of another replica, if there can be one.
pub(crate) async fn replica(site: &Site) -> (tonic::transport::Channel, Option<tempfile::TempDir>) {
    let Some(url) = &site.url else {
        return (site.nobody().channel, None);
    };
    let folder = tempfile::tempdir().unwrap();
    let mut config = config(folder.path());
    config.database_url = Some(url.clone());
    let (_, address, stop) = serve(config).await;
    // It runs until the test's runtime ends.
    std::mem::forget(stop);
    let endpoint = Endpoint::from_shared(format!("http://{address}")).unwrap();
    (endpoint.connect_lazy(), Some(folder))
}

// proves ATK-12, ROL-10
#[tokio::test]
async fn whatever_is_taken_is_gone_on_every_replica_at_the_next_call() {
    both(async |site| {
        let (channel, _folder) = replica(&site).await;
        let there = |caller: &Caller| Caller {
            channel: channel.clone(),
            ..caller.clone()
        };
        let contoso = site.tenant("contoso").await;
        let account = site.account(&contoso, "Contoso").await;
        let admin = &contoso.admin.caller;
        let bob = site
            .person_with(&contoso, "bob", |r| {
                r.memberships = vec![membership(&account, &[AccountRole::Manager])];
            })
            .await;
        let far = there(&bob.caller);
        let give = |roles: &[AccountRole]| update_of(&account, &bob, roles);

        // A role on an account: what Manager alone may.
        let drop_ann = || removal_of(&account, &contoso.admin);
        let check = async || {
            let mut request = drop_ann();
            request.validate_only = true;
            far.members().remove_members(request).await
        };
        check().await.unwrap();
        admin
            .members()
            .update_members(give(&[AccountRole::Developer]))
            .await
            .unwrap();
        refused(check().await, Code::PermissionDenied, "PERMISSION_MISSING");
        // The membership.
        account_of(&far, &account).await.unwrap();
        let removal = removal_of(&account, &bob);
        admin.members().remove_members(removal).await.unwrap();
        refused(
            account_of(&far, &account).await,
            Code::PermissionDenied,
            "PERMISSION_MISSING",
        );
        // A directory role.
        let hal = person_as(&site, &contoso, "hal", DirectoryRole::HelpdeskAdmin).await;
        there(&hal.caller).user(&bob.name).await.unwrap();
        admin.assign(&hal.name, &[]).await.unwrap();
        refused(
            there(&hal.caller).user(&bob.name).await,
            Code::PermissionDenied,
            "PERMISSION_MISSING",
        );
        // A session, from the other side.
        let signed_in = again(&site, &hal).await;
        there(&signed_in)
            .sessions()
            .sign_out(SignOutRequest::default())
            .await
            .unwrap();
        refused(
            signed_in.who_am_i().await,
            Code::Unauthenticated,
            "TOKEN_INVALID",
        );
        // A key.
        let app = application(admin, &contoso.name, "App").await;
        let key = admin.key(&app.name).await.unwrap();
        let token = sign_in_by_key(&site, &app.client_id, &key.secret).await;
        let program = there(&site.with_token(&token.unwrap().access_token));
        program.who_am_i().await.unwrap();
        let request = DeleteKeyRequest {
            name: key.key.unwrap().name,
            ..DeleteKeyRequest::default()
        };
        admin.applications().delete_key(request).await.unwrap();
        refused(
            program.who_am_i().await,
            Code::Unauthenticated,
            "TOKEN_INVALID",
        );
        // The association.
        let fabrikam = site.tenant("fabrikam").await;
        let eve = &fabrikam.admin;
        let request = AssociateTenantRequest {
            parent: account.clone(),
            tenant_admin_token: eve.caller.token.clone().unwrap(),
            ..AssociateTenantRequest::default()
        };
        let association = admin.associations().associate_tenant(request).await;
        let association = association.unwrap().into_inner();
        let request = AddMembersRequest {
            parent: account.clone(),
            principals: vec![eve.name.clone()],
            ..AddMembersRequest::default()
        };
        eve.caller.members().add_members(request).await.unwrap();
        account_of(&there(&eve.caller), &account).await.unwrap();
        let request = RemoveTenantRequest {
            name: association.name,
            ..RemoveTenantRequest::default()
        };
        admin.associations().remove_tenant(request).await.unwrap();
        refused(
            account_of(&there(&eve.caller), &account).await,
            Code::PermissionDenied,
            "PERMISSION_MISSING",
        );
        // The user itself, from the other side.
        far.who_am_i().await.unwrap();
        there(admin).disable(&bob.name).await.unwrap();
        for caller in [&far, &bob.caller] {
            refused(
                caller.who_am_i().await,
                Code::Unauthenticated,
                "TOKEN_INVALID",
            );
        }
    })
    .await;
}

// proves ATK-14, ROL-7
#[tokio::test]
async fn every_verb_that_gives_a_role_holds_to_the_same_rule() {
    both(async |site| {
        let contoso = site.tenant("contoso").await;
        let account = site.account(&contoso, "Contoso").await;
        let ann = &contoso.admin.caller;
        // A global admin who may assign on the account, but is no manager there.
        let carol = second_admin(&site, &contoso, "carol").await;
        let bob = site.person(&contoso, "bob").await;
        let dan = site
            .person_with(&contoso, "dan", |r| {
                r.memberships = vec![membership(&account, &[])];
            })
            .await;
        let request = AddMembersRequest {
            parent: account.clone(),
            principals: vec![carol.name.clone()],
            ..AddMembersRequest::default()
        };
        ann.members().add_members(request).await.unwrap();
        ann.members()
            .update_members(update_of(&account, &carol, &[AccountRole::AdminAgent]))
            .await
            .unwrap();
        let carol = &carol.caller;
        let manager = [AccountRole::Manager];
        let mut user = new_user(&contoso.name, "erin");
        user.memberships = vec![membership(&account, &manager)];
        let program = CreateApplicationRequest {
            parent: contoso.name.clone(),
            application: Some(Application {
                display_name: "App".to_owned(),
                ..Application::default()
            }),
            memberships: vec![membership(&account, &manager)],
            ..CreateApplicationRequest::default()
        };
        let members = AddMembersRequest {
            parent: account.clone(),
            principals: vec![bob.name.clone()],
            rights: Some(rights(&manager)),
            ..AddMembersRequest::default()
        };
        let update = update_of(&account, &dan, &manager);
        let tries = [
            carol.users().create_user(user).await.map(drop),
            carol
                .applications()
                .create_application(program)
                .await
                .map(drop),
            carol.members().add_members(members).await.map(drop),
            carol.members().update_members(update).await.map(drop),
            carol
                .members()
                .update_members(update_of(&account, &contoso.admin, &[]))
                .await
                .map(drop),
        ];
        for tried in tries {
            refused(tried, Code::PermissionDenied, "CANNOT_GRANT_WHAT_YOU_LACK");
        }
        // Whoever sets another's password sets a temporary one, by whichever verb.
        ann.delete(&bob.name).await.unwrap();
        let restored = ann
            .undelete(&bob.name, "")
            .await
            .unwrap()
            .temporary_password;
        let reset = ann.reset(&dan.name).await.unwrap().temporary_password;
        for (name, password) in [(&bob.sign_in_name, restored), (&dan.sign_in_name, reset)] {
            let tokens = site.tokens(name, &password).await.unwrap();
            assert!(tokens.password_change_required);
            let caller = site.with_token(&tokens.access_token);
            refused(
                caller.user(&bob.name).await,
                Code::FailedPrecondition,
                "PASSWORD_CHANGE_REQUIRED",
            );
        }
    })
    .await;
}

// proves ATK-17, USR-6
#[tokio::test]
async fn disabled_users_get_a_token_by_no_path() {
    both(async |site| {
        let contoso = site.tenant("contoso").await;
        let fabrikam = site.tenant("fabrikam").await;
        let account = site.account(&fabrikam, "Fabrikam").await;
        let admin = &contoso.admin.caller;
        let carol = second_admin(&site, &contoso, "carol").await;
        let tokens = site.tokens(&carol.sign_in_name, PASSWORD).await.unwrap();
        let live = site.with_token(&tokens.access_token);
        let service = Service::open(&site).await.caller(&site).await;
        site.on_behalf(&service, &live).who_am_i().await.unwrap();
        admin.disable(&carol.name).await.unwrap();
        let temporary = admin.reset(&carol.name).await.unwrap().temporary_password;
        let associate = |caller: &Caller| AssociateTenantRequest {
            parent: account.clone(),
            tenant_admin_token: caller.token.clone().unwrap(),
            ..AssociateTenantRequest::default()
        };
        for password in [PASSWORD, temporary.as_str()] {
            refused(
                site.tokens(&carol.sign_in_name, password).await,
                Code::Unauthenticated,
                "SIGN_IN_FAILED",
            );
            refused(
                change_password(&live, password).await,
                Code::Unauthenticated,
                "TOKEN_INVALID",
            );
        }
        refused(
            refresh(&site, &tokens.refresh_token).await,
            Code::Unauthenticated,
            "TOKEN_INVALID",
        );
        for caller in [&live, &carol.caller, &site.on_behalf(&service, &live)] {
            refused(
                caller.who_am_i().await,
                Code::Unauthenticated,
                "TOKEN_INVALID",
            );
        }
        let eve = fabrikam.admin.caller.associations();
        let tried = eve.clone().associate_tenant(associate(&live)).await;
        assert!(
            tried.as_ref().is_err_and(|s| matches!(
                s.code(),
                Code::InvalidArgument | Code::PermissionDenied | Code::Unauthenticated
            )),
            "{tried:?}"
        );
        // Deleted ones get none either, nor ones replaced as global admin.
        admin.delete(&carol.name).await.unwrap();
        refused(
            site.tokens(&carol.sign_in_name, &temporary).await,
            Code::Unauthenticated,
            "SIGN_IN_FAILED",
        );
        let dave = second_admin(&site, &contoso, "dave").await;
        admin
            .replace(&contoso.admin.name, &dave.name)
            .await
            .unwrap();
        refused(
            site.tokens(&contoso.admin.sign_in_name, PASSWORD).await,
            Code::Unauthenticated,
            "SIGN_IN_FAILED",
        );
        // The person is back once enabled, with the temporary password that was set meanwhile.
        let reset = dave.caller.reset(&contoso.admin.name).await.unwrap();
        dave.caller.enable(&contoso.admin.name).await.unwrap();
        site.settle_in(&contoso.admin.sign_in_name, &reset.temporary_password)
            .await;
    })
    .await;
}
