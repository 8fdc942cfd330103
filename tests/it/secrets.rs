//! No secret stands where it could be read: not in the log of the real program, however much it tells, nor in audit, events, kept answers,
//! mails or anything else that is stored (COM-10). And what the log says for programs is whole: one object a line, each of a call with its
//! trace.

use std::{
    collections::BTreeSet,
    fs,
    path::Path,
    process::Command,
    time::{Duration, Instant},
};

use base64::{Engine as _, prelude::BASE64_STANDARD};
use entente::{
    env::Env,
    keys,
    proto::{
        audit::ListAuditEventsRequest,
        directory::{
            AcceptInvitationRequest, ChangeEmailRequest, ChangePasswordRequest,
            CompletePasswordRecoveryRequest, ConfirmIdentityRequest, CreateTenantRequest,
            InviteUsersRequest, KeyCredential, PasswordCredential, RefreshSessionRequest,
            StartPasswordRecoveryRequest, TokenSet, WhoAmIRequest, sign_in_request::Credential,
        },
        operator::{AssignOperatorRolesRequest, OperatorRole},
    },
};
use tonic::{Code, Request};

use crate::{
    events::watch,
    harness::{
        ADMINISTRATOR, Caller, PASSWORD, empty_postgres_database, new_tenant, new_user, psql,
        refused,
    },
    people::{People as _, application, new_identity},
    processes::{MASTER_KEY, Server, Setting, home, settle_as, sign_in_with, text},
};

const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const TRACE_OF_STREAM: &str = "0af7651916cd43dd8448eb211c80319c";
/// All that we and those closest to us say; of the others what is worth it.
const LOUD: &str = "debug,entente=trace,tonic=trace,tower=trace,sqlx=trace,sea_orm=trace";

/// What nobody may read anywhere, with what it is.
#[derive(Default)]
struct Secrets(Vec<(&'static str, String)>);

impl Secrets {
    fn add(&mut self, what: &'static str, secret: &str) {
        assert!(secret.len() > 8, "{what} is too short to be looked for");
        self.0.push((what, secret.to_owned()));
    }

    fn add_tokens(&mut self, tokens: &TokenSet) {
        self.add("an access token", &tokens.access_token);
        self.add("a refresh token", &tokens.refresh_token);
    }

    /// Those that stand in bytes, as they are or written otherwise.
    fn in_bytes(&self, bytes: &[u8]) -> BTreeSet<&'static str> {
        // All of them are plain ASCII, so what is no text doesn't hide them.
        let all = String::from_utf8_lossy(bytes);
        let found = self.0.iter().filter(|(_, secret)| {
            let in_base64 = BASE64_STANDARD.encode(secret);
            all.contains(secret.as_str())
                || all.contains(&hex::encode(secret))
                || all.contains(in_base64.trim_end_matches('='))
        });
        found.map(|(what, _)| *what).collect()
    }
}

/// The running program, and what is done to it.
struct Stage {
    setting: Setting,
    server: Server,
    secrets: Secrets,
}

impl Stage {
    async fn sign_in(&mut self, name: &str, password: &str) -> Caller {
        let credential = PasswordCredential {
            sign_in_name: name.to_owned(),
            password: password.to_owned(),
        };
        let tokens = sign_in_with(&self.server, Credential::Password(credential)).await;
        let tokens = tokens.unwrap();
        self.secrets.add_tokens(&tokens);
        Caller {
            token: Some(tokens.access_token),
            ..self.server.nobody()
        }
    }

    /// Somebody with a temporary password, who chooses the usual one.
    async fn settle(&mut self, name: &str, temporary: &str) -> Caller {
        self.secrets.add("a temporary password", temporary);
        let caller = settle_as(&self.server, name, temporary).await;
        let token = caller.token.clone().unwrap();
        self.secrets.add("an access token", &token);
        caller
    }

    /// The token in the newest mail to an address.
    async fn mailed(&mut self, what: &'static str, to: &str) -> String {
        let begun = Instant::now();
        loop {
            let mails = mails(&self.setting);
            let newest = mails
                .iter()
                .rfind(|m| m.lines().any(|l| l.trim_end() == format!("To: {to}")));
            if let Some((_, rest)) = newest.and_then(|m| m.split_once("entl_")) {
                let end = rest.find(|c: char| !c.is_ascii_alphanumeric() && !"-_".contains(c));
                let token = format!("entl_{}", &rest[..end.unwrap_or(rest.len())]);
                self.secrets.add(what, &token);
                return token;
            }
            assert!(begun.elapsed().as_secs() < 60, "no mail came to {to}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
}

/// The mails that went out, oldest first, with their lines joined.
fn mails(setting: &Setting) -> Vec<String> {
    let Ok(folder) = fs::read_dir(setting.data().join("mails")) else {
        return Vec::new();
    };
    let mut files: Vec<_> = folder.flatten().map(|f| f.path()).collect();
    files.retain(|f| f.extension().is_some_and(|e| e == "eml"));
    files.sort();
    let read = files.iter().map(|f| fs::read_to_string(f).unwrap());
    read.map(|m| m.replace("=\r\n", "").replace("=3D", "="))
        .collect()
}

/// Passwords: one-time, temporary, chosen, wrong, and one that was typed where the name belongs.
async fn passwords(stage: &mut Stage, admin: &Caller, tenant: &str) {
    let mut new = new_user(tenant, "bob");
    new.user.as_mut().unwrap().recovery_email = "bob@home.example".to_owned();
    let made = admin.users().create_user(new).await.unwrap().into_inner();
    let bob = made.user.unwrap();
    let bobs = stage
        .settle(&bob.sign_in_name, &made.temporary_password)
        .await;
    for (name, password) in [
        (bob.sign_in_name.as_str(), "quite another gate 7"),
        ("shallow green river 8", PASSWORD),
    ] {
        let credential = PasswordCredential {
            sign_in_name: name.to_owned(),
            password: password.to_owned(),
        };
        let tried = sign_in_with(&stage.server, Credential::Password(credential)).await;
        assert!(tried.is_err());
    }
    stage
        .secrets
        .add("a wrong password", "quite another gate 7");
    let misplaced = "shallow green river 8";
    stage
        .secrets
        .add("a password in place of a name", misplaced);
    let request = ChangePasswordRequest {
        old_password: PASSWORD.to_owned(),
        new_password: "steep white harbour 3".to_owned(),
        ..ChangePasswordRequest::default()
    };
    let changed = bobs.sessions().change_password(request).await.unwrap();
    stage
        .secrets
        .add("a chosen password", "steep white harbour 3");
    let tokens = changed.into_inner().tokens.unwrap();
    stage.secrets.add_tokens(&tokens);
    let mut sessions = stage.server.nobody().sessions();
    let request = RefreshSessionRequest {
        refresh_token: tokens.refresh_token,
        ..RefreshSessionRequest::default()
    };
    let fresh = sessions.refresh_session(request).await.unwrap();
    stage.secrets.add_tokens(&fresh.into_inner());

    let start = StartPasswordRecoveryRequest {
        sign_in_name: bob.sign_in_name.clone(),
        ..StartPasswordRecoveryRequest::default()
    };
    sessions.start_password_recovery(start).await.unwrap();
    let token = stage.mailed("a recovery link", "bob@home.example").await;
    let request = CompletePasswordRecoveryRequest {
        token,
        new_password: "narrow old lantern 5".to_owned(),
        ..CompletePasswordRecoveryRequest::default()
    };
    stage
        .secrets
        .add("a recovered password", "narrow old lantern 5");
    let done = sessions.complete_password_recovery(request.clone()).await;
    done.unwrap();
    let again = sessions.complete_password_recovery(request).await;
    refused(again, Code::PermissionDenied, "LINK_INVALID");
    stage
        .sign_in(&bob.sign_in_name, "narrow old lantern 5")
        .await;
    let reset = admin.reset(&bob.name).await.unwrap();
    stage
        .secrets
        .add("a temporary password", &reset.temporary_password);
}

/// Links of mails: invitation, confirmation, change of address.
async fn links(stage: &mut Stage, admin: &Caller, tenant: &str) {
    let request = InviteUsersRequest {
        parent: tenant.to_owned(),
        emails: vec!["gwen@mail.example".to_owned()],
        ..InviteUsersRequest::default()
    };
    admin.invitations().invite_users(request).await.unwrap();
    let token = stage.mailed("an invitation", "gwen@mail.example").await;
    let accept = AcceptInvitationRequest {
        token,
        given_name: "Gwen".to_owned(),
        family_name: "Reed".to_owned(),
        password: "broad silver meadow 2".to_owned(),
        ..AcceptInvitationRequest::default()
    };
    stage
        .secrets
        .add("a guest's password", "broad silver meadow 2");
    let nobody = stage.server.nobody();
    let accepted = nobody.invitations().accept_invitation(accept).await;
    accepted.unwrap();

    let up = new_identity("ida@mail.example");
    nobody.identities().sign_up(up).await.unwrap();
    let token = stage.mailed("a confirmation", "ida@mail.example").await;
    let confirm = ConfirmIdentityRequest {
        token,
        password: PASSWORD.to_owned(),
        ..ConfirmIdentityRequest::default()
    };
    let made = nobody.identities().confirm_identity(confirm).await.unwrap();
    let ida = stage.sign_in("ida@mail.example", PASSWORD).await;
    let change = ChangeEmailRequest {
        name: made.into_inner().name,
        new_email: "ida@other.example".to_owned(),
        ..ChangeEmailRequest::default()
    };
    ida.identities().change_email(change).await.unwrap();
    stage
        .mailed("a change of address", "ida@other.example")
        .await;
}

/// Keys: of an internal service, which acts for a person; a wrong one.
async fn keys_of_programs(stage: &mut Stage, admin: &Caller, tenant: &str) {
    let portal = application(admin, tenant, "Portal").await;
    let roles = AssignOperatorRolesRequest {
        principal: portal.name.clone(),
        roles: vec![OperatorRole::OperatorService as i32],
        ..AssignOperatorRolesRequest::default()
    };
    admin.staff().assign_operator_roles(roles).await.unwrap();
    let secret = admin.key(&portal.name).await.unwrap().secret;
    stage.secrets.add("a key", &secret);
    let credential = |secret: &str| {
        Credential::Key(KeyCredential {
            client_id: portal.client_id.clone(),
            secret: secret.to_owned(),
        })
    };
    let tokens = sign_in_with(&stage.server, credential(&secret)).await;
    let tokens = tokens.unwrap();
    stage
        .secrets
        .add("an application's token", &tokens.access_token);
    let mut wrong = secret.clone();
    let last = if wrong.ends_with('a') { 'b' } else { 'a' };
    wrong.pop();
    wrong.push(last);
    stage.secrets.add("a wrong key", &wrong);
    let tried = sign_in_with(&stage.server, credential(&wrong)).await;
    assert!(tried.is_err());
    let person = stage.sign_in(ADMINISTRATOR, PASSWORD).await;
    let acting = Caller {
        token: Some(tokens.access_token),
        on_behalf: person.token,
        ..stage.server.nobody()
    };
    acting.who_am_i().await.unwrap();
}

/// What a query gives, a line a row.
fn rows(setting: &Setting, url: Option<&str>, sql: &str) -> Vec<String> {
    let printed = match url {
        Some(url) => psql(url, sql),
        None => {
            let program = "import sqlite3, sys\nfor r in sqlite3.connect(sys.argv[1]).execute(sys.argv[2]): print(r[0])";
            let done = Command::new("python3")
                .args(["-c", program])
                .arg(setting.data().join("entente.db"))
                .arg(sql)
                .output()
                .unwrap();
            assert!(done.status.success(), "{}", text(&done.stderr));
            text(&done.stdout)
        }
    };
    printed.lines().map(str::to_owned).collect()
}

/// A column in hex.
fn in_hex(url: Option<&str>, column: &str) -> String {
    match url {
        Some(_) => format!("encode({column}, 'hex')"),
        None => format!("lower(hex({column}))"),
    }
}

/// What the database keeps in a form that only it may have: hashes of passwords, and the seeds of the keys that sign, unsealed.
fn kept(stage: &Stage, url: Option<&str>) -> Secrets {
    let mut kept = Secrets::default();
    for hash in rows(&stage.setting, url, "SELECT hash FROM credentials") {
        kept.add("a password's hash", &hash);
    }
    assert!(kept.0.len() > 2);
    let master = keys::load(
        Some(MASTER_KEY),
        Path::new("/nowhere"),
        false,
        &Env::system(),
    )
    .unwrap();
    let id = match url {
        Some(_) => "CAST(id AS text)".to_owned(),
        None => in_hex(url, "id"),
    };
    let sealed = in_hex(url, "sealed_private_key");
    let sql = format!("SELECT {id} || ' ' || {sealed} FROM signing_keys");
    for row in rows(&stage.setting, url, &sql) {
        let (id, sealed) = row.split_once(' ').unwrap();
        let id: uuid::Uuid = id.parse().unwrap();
        let sealed = hex::decode(sealed).unwrap();
        let place = format!("signing_keys/{id}");
        let private = master.open(&place, &sealed).unwrap();
        // PKCS #8 of Ed25519: the seed comes after a head of 16 bytes.
        kept.add("a signing key", &hex::encode(&private[16..48]));
        kept.add("a signing key", &BASE64_STANDARD.encode(&private[..]));
    }
    kept
}

/// All that is stored, but for the two files that are there to hold a secret.
fn stored(setting: &Setting, url: Option<&str>) -> Vec<u8> {
    let mut all = Vec::new();
    for entry in fs::read_dir(setting.data()).unwrap() {
        let path = entry.unwrap().path();
        let holds = ["first-administrator-password", "master.key"];
        if path.is_file() && !holds.iter().any(|name| path.ends_with(name)) {
            all.extend(fs::read(path).unwrap());
        }
    }
    if let Some(url) = url {
        let tables = psql(
            url,
            "SELECT tablename FROM pg_tables WHERE schemaname = 'public'",
        );
        for table in tables.lines() {
            all.extend(psql(url, &format!("SELECT t FROM {table} t")).into_bytes());
        }
    }
    assert!(all.len() > 10_000);
    all
}

/// Holds each line of the log for what it is to be; gives how many are of a call.
fn read_log(log: &str) -> usize {
    let (mut of_calls, mut traced) = (0, 0);
    for line in log.lines() {
        let line: serde_json::Value =
            serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {line}"));
        for part in ["timestamp", "level", "target"] {
            assert!(line[part].is_string(), "{line} lacks {part}");
        }
        assert!(line["fields"].is_object(), "{line}");
        let spans = line["spans"].as_array().into_iter().flatten();
        for call in spans.filter(|span| span["name"] == "call") {
            let trace = call["trace_id"].as_str().unwrap();
            assert!(
                trace.len() == 32 && trace.bytes().all(|b| b.is_ascii_hexdigit()),
                "{line}"
            );
            assert!(call["path"].as_str().unwrap().starts_with('/'));
            of_calls += 1;
            traced += usize::from(trace == TRACE);
        }
    }
    assert!(traced > 0, "the caller's own trace is not in the log");
    of_calls
}

/// A request under a trace.
fn under<T>(trace: &str, message: T) -> Request<T> {
    let mut request = Request::new(message);
    let header = format!("00-{trace}-00f067aa0ba902b7-01");
    let header = header.parse().unwrap();
    request.metadata_mut().insert("traceparent", header);
    request
}

async fn nothing_leaks(url: Option<String>) {
    // A password in the URL is one of those that may stand nowhere.
    let by_password = |url: &String| url.replace("postgres@", "postgres:quiet-orange-lake@");
    let setting = Setting::new(url.as_ref().map(by_password)).with(vec![
        ("ENTENTE_LOG_FORMAT", "json".to_owned()),
        ("ENTENTE_LOG_FILTER", LOUD.to_owned()),
    ]);
    let server = setting.serve(&[]).await;
    let mut stage = Stage {
        setting,
        server,
        secrets: Secrets::default(),
    };
    stage.secrets.add("the master key", MASTER_KEY);
    stage
        .secrets
        .add("the database's password", "quiet-orange-lake");
    stage.secrets.add("the usual password", PASSWORD);
    let file = stage.setting.data().join("first-administrator-password");
    let one_time = fs::read_to_string(file).unwrap().trim().to_owned();
    stage.secrets.add("the one-time password", &one_time);
    let admin = stage.settle(ADMINISTRATOR, &one_time).await;
    let tenant = home(&admin).await;

    let request: CreateTenantRequest = new_tenant("contoso");
    let made = admin.tenants().create_tenant(request).await.unwrap();
    let made = made.into_inner();
    let ann = made.first_admin.unwrap();
    let anns = stage
        .settle(&ann.sign_in_name, &made.temporary_password)
        .await;
    let contoso = made.tenant.unwrap().name;
    passwords(&mut stage, &anns, &contoso).await;
    links(&mut stage, &anns, &contoso).await;
    keys_of_programs(&mut stage, &admin, &tenant).await;

    // Calls under traces of their caller's: log and audit name them.
    let watched = under(TRACE_OF_STREAM, watch(&contoso, ""));
    let watched = anns.events().watch_events(watched).await.unwrap();
    let new = under(TRACE, new_user(&contoso, "carol"));
    let made = anns.users().create_user(new).await.unwrap();
    stage
        .secrets
        .add("a temporary password", &made.get_ref().temporary_password);
    let carol = made.into_inner().user.unwrap().name;
    let request = ListAuditEventsRequest {
        parent: contoso,
        filter: "action = \"entente.directory.v1.UserService/CreateUser\"".to_owned(),
        ..ListAuditEventsRequest::default()
    };
    let page = anns.audit().list_audit_events(request).await.unwrap();
    let audited = page.into_inner().audit_events;
    let of_carol = audited.iter().find(|e| e.resources.contains(&carol));
    assert_eq!(of_carol.unwrap().trace_id, TRACE);
    admin.sessions().who_am_i(WhoAmIRequest {}).await.unwrap();

    stage.server.signal("-TERM");
    assert_eq!(stage.server.ended().await, Some(0));
    drop(watched);
    let log = stage.setting.log();
    assert!(read_log(&log) > 30);
    // Also what is said of a stream long after it was opened.
    let ended = |line: &str| line.contains("SHUTTING_DOWN") && line.contains(TRACE_OF_STREAM);
    assert!(log.lines().any(ended));
    let nothing = BTreeSet::new();
    let secrets = &stage.secrets;
    assert_eq!(secrets.in_bytes(log.as_bytes()), nothing, "in the log");
    let url = url.as_deref();
    let all = stored(&stage.setting, url);
    assert_eq!(secrets.in_bytes(&all), nothing, "in what is stored");
    // Mails have links, and no other secret.
    let mails = mails(&stage.setting).join("\n");
    let links = [
        "a change of address",
        "a confirmation",
        "a recovery link",
        "an invitation",
    ];
    assert_eq!(secrets.in_bytes(mails.as_bytes()), BTreeSet::from(links));
    let kept = kept(&stage, url);
    let told: Vec<String> = [
        format!("SELECT {} FROM audit_events", in_hex(url, "body")),
        format!("SELECT {} FROM claims", in_hex(url, "reply")),
        format!("SELECT {} FROM outbox", in_hex(url, "payload")),
    ]
    .iter()
    .flat_map(|sql| rows(&stage.setting, url, sql))
    .collect();
    let told = told.join("\n");
    assert!(told.len() > 10_000);
    for (where_, text) in [("log", &log), ("mails", &mails), ("chains", &told)] {
        assert_eq!(kept.in_bytes(text.as_bytes()), nothing, "in the {where_}");
    }
}

// proves COM-10
#[tokio::test]
async fn no_secret_stands_in_log_mails_or_database_on_sqlite() {
    nothing_leaks(None).await;
}

// proves COM-10
#[tokio::test]
async fn no_secret_stands_in_log_mails_or_database_on_postgres() {
    nothing_leaks(Some(empty_postgres_database("secrets"))).await;
}
