//! What is refused before anything is done: fields past their limits, bytes that are no message, tokens that are none of ours.

use std::time::Duration;

use base64::{Engine as _, prelude::BASE64_URL_SAFE_NO_PAD};
use bytes::Bytes;
use entente::{
    access::token,
    proto::account::SuspendAccountRequest,
    proto::directory::{
        ChangeEmailRequest, DeleteTenantRequest, GetJwksRequest, Tenant, UpdateTenantRequest,
    },
};
use http_body_util::{BodyExt as _, Full};
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use proptest::{prelude::*, test_runner::TestRunner};
use prost_reflect::{DynamicMessage, FieldDescriptor, Kind, MethodDescriptor, Value};
use serde_json::json;
use tonic::{Code, Status};
use tonic_types::StatusExt as _;
use tower::ServiceExt as _;

use crate::{
    access::{World, cell, claim, names_for, oneself, world},
    dynamic::{self, Names, Place},
    enrolment::{all_in_one, member_tenant, open, whole},
    harness::{Caller, Database, PASSWORD, Site, both, refused, request_id},
    people::{People as _, ask_recovery, eventually, mailed_token, new_identity},
};

const MAX_MESSAGE: usize = 4 * 1_024 * 1_024;
const WHO_AM_I: &str = "/entente.directory.v1.SessionService/WhoAmI";
const ROLE_TABLE: &str = "/entente.access.v1.AccessService/GetRoleTable";

/// Violations of a refusal: field and description.
pub fn violations(answer: &Result<Vec<u8>, Status>) -> Vec<(String, String)> {
    let bad = answer
        .as_ref()
        .err()
        .and_then(|s| s.get_details_bad_request());
    bad.map(|b| {
        b.field_violations
            .into_iter()
            .map(|v| (v.field, v.description))
            .collect()
    })
    .unwrap_or_default()
}

/// A caller that a method is open to, with what its requests name.
pub async fn admitted<'a>(
    world: &'a World,
    method: &MethodDescriptor,
) -> Option<(&'a Caller, Names)> {
    let path = format!("/{}/{}", method.parent_service().full_name(), method.name());
    let rule = entente::access::rules::of_path(&path).unwrap();
    if let Some((_, field)) = rule.token() {
        // Whoever has the token; it is used up by a call that is good, and none of these is.
        let names = names_for(method, &world.names);
        if rule.needs_token() || names.0.contains_key(field) {
            return (names.0.contains_key(field)).then_some((&world.callers["nobody"], names));
        }
    }
    for (column, names) in [
        ("stranger", &world.own),
        ("opadmin", &world.names),
        ("owner", &world.names),
        ("service", &world.names),
        ("global", &world.names),
        ("member", &world.names),
        ("agent", &world.names),
        ("identity", &world.names),
        ("reviewer", &world.names),
    ] {
        let caller = &world.callers[column];
        let mut names = names_for(method, names);
        for alternative in &rule.declared.any_of {
            if let Some(name) = oneself(caller, method, &alternative.self_, world) {
                names = names.with(&alternative.self_, name);
            }
        }
        let request = dynamic::request(method, &names);
        let answer = dynamic::call(caller, method, dynamic::bytes(&request)).await;
        if matches!(cell(method, &answer), "yes" | "past") {
            return Some((caller, names));
        }
    }
    None
}

/// A text of so many characters, of the field's form as far as one can be had.
fn long(place: &Place, chars: usize) -> String {
    match dynamic::takes(place.field()).format {
        2 => {
            let end = "@new.example";
            format!("{}{end}", "a".repeat(chars.saturating_sub(end.len())))
        }
        5 => {
            let start = "https://new.example/";
            format!("{start}{}", "a".repeat(chars.saturating_sub(start.len())))
        }
        6 => format!("urn:a:{}", "a".repeat(chars.saturating_sub(6))),
        // Characters count, not bytes.
        0 | 4 | 8 => "é".repeat(chars),
        _ => "a".repeat(chars),
    }
}

struct Trial {
    label: String,
    request: DynamicMessage,
    /// The field that must be named; None if it must not be named for its length, number or time.
    names: Option<String>,
}

/// The world with a token of each kind of mailed link, for the methods that these open.
pub async fn with_links(site: &Site, mut world: World) -> World {
    let mut tokens = Vec::new();
    site.nobody()
        .identities()
        .sign_up(new_identity("newest@new.example"))
        .await
        .unwrap();
    tokens.push(("ConfirmIdentity.token", "newest@new.example"));
    let ida = &world.callers["identity"];
    let request = ChangeEmailRequest {
        name: ida.who_am_i().await.unwrap().principal,
        new_email: "newer@new.example".to_owned(),
        ..ChangeEmailRequest::default()
    };
    ida.identities().change_email(request).await.unwrap();
    tokens.push(("ConfirmEmail.token", "newer@new.example"));
    ask_recovery(site, "target@contoso.partners.localhost")
        .await
        .unwrap();
    tokens.push(("CompletePasswordRecovery.token", "target@contoso.example"));
    let gone = site.tenant("gone").await;
    let request = DeleteTenantRequest {
        name: gone.name.clone(),
        ..DeleteTenantRequest::default()
    };
    let mut tenants = gone.admin.caller.tenants();
    tenants.delete_tenant(request).await.unwrap();
    world.names = world.names.with("UndeleteTenant.tenant", gone.name);
    tokens.push(("UndeleteTenant.token", "ann@gone.example"));
    let northwind = member_tenant(site, "northwind").await;
    let made = open(&northwind.admin.caller, all_in_one(whole("Northwind"))).await;
    // Stopped, so that no call uses up a token: any trial of an optional field would be good otherwise.
    let request = SuspendAccountRequest {
        name: made.unwrap().account.unwrap().name,
        reason: "Stopped.".to_owned(),
        ..SuspendAccountRequest::default()
    };
    let operator = site.operator().await;
    operator.accounts().suspend_account(request).await.unwrap();
    tokens.push(("ConfirmContact.token", "paula@contoso.example"));
    tokens.push(("ConfirmApproval.token", "ada@contoso.example"));
    tokens.push(("GetEnrolmentForApproval.token", "ada@contoso.example"));
    let old = crate::brought::plain("MPN-1");
    crate::brought::import(&operator, vec![old]).await.unwrap();
    crate::brought::ask(&world.callers["identity"], "MPN-1")
        .await
        .unwrap();
    tokens.push(("ConfirmMembership.token", "carla@contoso.example"));
    let case = crate::recovery_cases::unstoppable(site).await;
    tokens.push(("StopRecoveryCase.token", "ann@gone.example.net"));
    world.names = world.names.with("StopRecoveryCase.recovery_case", case);
    for (field, mailbox) in tokens {
        let token = mailed_token(site, mailbox).await.unwrap();
        world.names = world.names.with(field, token);
    }
    let (waiting, begun) = crate::ownership::links(site).await;
    world.names = world.names.with("ConfirmOwnership.token", waiting);
    world.names = world.names.with("StopOwnership.token", begun);
    world
}

/// Values of a number, a time or a length of time at both ends of what it may be, and one past each: what it is, and whether it is within.
fn ends(field: &FieldDescriptor, min: i64, max: i64) -> Vec<(&'static str, Value, bool)> {
    // As their definitions have them: from the year 1 to 9999, and 10,000 years either way.
    let (year_1, year_9999) = (-62_135_596_800, 253_402_300_799);
    let longest = 315_576_000_000;
    let last = 999_999_999;
    let of = |what, seconds: i64, nanos: i32, within| {
        let Kind::Message(message) = field.kind() else {
            panic!("{} is no message", field.full_name());
        };
        let mut made = DynamicMessage::new(message);
        made.set_field_by_name("seconds", Value::I64(seconds));
        made.set_field_by_name("nanos", Value::I32(nanos));
        (what, Value::Message(made), within)
    };
    match field.kind() {
        _ if field.is_list() => Vec::new(),
        kind @ (Kind::Int32 | Kind::Int64) => {
            let whole = |n: i64| match kind {
                Kind::Int32 => i32::try_from(n).ok().map(Value::I32),
                _ => Some(Value::I64(n)),
            };
            // Without a largest one declared, all that the type has is within.
            let most = match (max, &kind) {
                (0, Kind::Int32) => i64::from(i32::MAX),
                (0, _) => i64::MAX,
                (max, _) => max,
            };
            [
                ("smallest", Some(min), true),
                ("below", min.checked_sub(1), false),
                ("largest", Some(most), true),
                ("above", most.checked_add(1), false),
            ]
            .into_iter()
            .filter_map(|(what, n, within)| Some((what, whole(n?)?, within)))
            .collect()
        }
        Kind::Message(message) if message.full_name() == "google.protobuf.Timestamp" => vec![
            of("earliest", year_1, 0, true),
            of("too early", year_1 - 1, last, false),
            of("latest", year_9999, last, true),
            of("too late", year_9999 + 1, 0, false),
            of("nanoseconds below none", year_1, -1, false),
            of("a second of nanoseconds", 0, last + 1, false),
            of("the least", i64::MIN, i32::MIN, false),
            of("the most", i64::MAX, i32::MAX, false),
        ],
        Kind::Message(message) if message.full_name() == "google.protobuf.Duration" => vec![
            of("longest back", -longest, -last, true),
            of("too long back", -longest - 1, 0, false),
            of("longest", longest, last, true),
            of("too long a time", longest + 1, 0, false),
            of("both ways", 1, -1, false),
            of("both ways back", -1, 1, false),
            of("a second of nanoseconds", 0, last + 1, false),
            of("a second of nanoseconds back", 0, -last - 1, false),
            of("the least", i64::MIN, i32::MIN, false),
            of("the most", i64::MAX, i32::MAX, false),
        ],
        _ => Vec::new(),
    }
}

fn trials(method: &MethodDescriptor, names: &Names) -> Vec<Trial> {
    let mut trials = Vec::new();
    for place in dynamic::places(method) {
        let (_, above) = place.way.split_last().unwrap();
        if above.iter().any(|f| dynamic::takes(f).late_elements)
            && place.path != "entries.external_id"
        {
            // Faults of entries are the entries' own, and don't keep the message back (TEN-5).
            continue;
        }
        let (takes, field) = (dynamic::takes(place.field()), place.field().clone());
        let mut add = |what: &str, value: Value, names_it: Option<&str>| {
            let mut request = dynamic::request(method, names);
            dynamic::set(&mut request, &place.way, names, value);
            trials.push(Trial {
                label: format!("{} {}: {what}", method.full_name(), place.path),
                request,
                names: names_it.map(|suffix| format!("{}{suffix}", place.told())),
            });
        };
        if field.kind() == Kind::String {
            let max = takes.max_chars as usize;
            let element = if field.is_list() { "[0]" } else { "" };
            let whole = |text: String| {
                if field.is_list() {
                    Value::List(vec![Value::String(text)])
                } else {
                    Value::String(text)
                }
            };
            assert!(max > 0, "{} has no limit", field.full_name());
            add("longest", whole(long(&place, max)), None);
            add("too long", whole(long(&place, max + 1)), Some(element));
            add("far too long", whole("a".repeat(max * 20)), Some(element));
            if takes.min_chars > 1 {
                let short = long(&place, takes.min_chars as usize - 1);
                add("too short", whole(short), Some(element));
            }
            if takes.format != 8 {
                let control = format!("a{}", '\u{1}');
                add("a control character", whole(control), Some(element));
                if !takes.multi_line {
                    add("a new line", whole("a\nb".to_owned()), Some(element));
                }
            }
        }
        if field.is_list() {
            let max = takes.max_items as usize;
            assert!(max > 0, "{} has no limit", field.full_name());
            let one = dynamic::value(&field, dynamic::updates(method), &place.path, names);
            add("most", Value::List(vec![one.clone(); max]), None);
            add("too many", Value::List(vec![one; max + 1]), Some(""));
            if takes.min_items > 0 {
                add("none", Value::List(Vec::new()), Some(""));
            }
        }
        for (what, value, within) in ends(&field, takes.min_value, takes.max_value) {
            add(what, value, if within { None } else { Some("") });
        }
        if matches!(field.kind(), Kind::Enum(_)) && !field.is_list() {
            add("no such value", Value::EnumNumber(77), Some(""));
        }
    }
    trials
}

// proves COM-9, COM-3
#[tokio::test]
async fn every_field_is_held_to_its_limits_and_named() {
    // The limits are the same code before any database.
    let site = Site::open(Database::Sqlite).await;
    let world = with_links(&site, world(&site).await).await;
    let mut faults = Vec::new();
    let (mut outside, mut count) = (Vec::new(), 0);
    for method in dynamic::methods().into_values() {
        if method.name() == "SignOut" {
            continue;
        }
        let Some((caller, names)) = admitted(&world, &method).await else {
            outside.push(method.name().to_owned());
            continue;
        };
        let path = format!("/{}/{}", method.parent_service().full_name(), method.name());
        let token = entente::access::rules::of_path(&path).unwrap().token();
        for trial in trials(&method, &names) {
            count += 1;
            let answer = dynamic::call(caller, &method, dynamic::bytes(&trial.request)).await;
            let told = violations(&answer);
            let code = answer.as_ref().map_or_else(Status::code, |_| Code::Ok);
            let plain = |field: &str| field.replace("[0]", "");
            match trial.names {
                // What is wrong with the token of a mail is not told.
                Some(field) if token.is_some_and(|(_, of)| of == field) => {
                    if code != Code::PermissionDenied || !told.is_empty() {
                        faults.push(format!("{} gave {code:?} {told:?}", trial.label));
                    }
                }
                Some(field) => {
                    // Names that the proof looks at are told by their path.
                    let named = told.iter().any(|(f, _)| *f == field || *f == plain(&field));
                    if code != Code::InvalidArgument || !named {
                        faults.push(format!("{} gave {code:?} {told:?}", trial.label));
                    }
                }
                None => {
                    let limit = told.iter().any(|(_, d)| {
                        d.contains("at most")
                            && (d.contains(" characters") || d.contains(" elements"))
                            || [
                                " is not from ",
                                " is not at least ",
                                "is no timestamp",
                                "is no duration",
                            ]
                            .iter()
                            .any(|words| d.contains(words))
                    });
                    if limit || matches!(code, Code::Internal | Code::Unknown) {
                        faults.push(format!("{} gave {code:?} {told:?}", trial.label));
                    }
                }
            }
        }
    }
    println!("{count} trials");
    assert!(outside.is_empty(), "nobody may: {outside:?}");
    assert!(faults.is_empty(), "\n{}", faults.join("\n"));
}

// proves COM-9
#[tokio::test]
async fn decomposed_text_comes_back_composed() {
    both(async |site| {
        let contoso = site.tenant("contoso").await;
        let request = UpdateTenantRequest {
            tenant: Some(Tenant {
                name: contoso.name.clone(),
                display_name: "Cafe\u{301} A\u{30a}".to_owned(),
                ..Tenant::default()
            }),
            ..UpdateTenantRequest::default()
        };
        let changed = contoso
            .admin
            .caller
            .tenants()
            .update_tenant(request)
            .await
            .unwrap();
        assert_eq!(changed.into_inner().display_name, "Caf\u{e9} \u{c5}");
    })
    .await;
}

/// A gRPC frame.
pub fn frame(message: &[u8]) -> Vec<u8> {
    let mut frame = vec![0];
    frame.extend_from_slice(&u32::try_from(message.len()).unwrap().to_be_bytes());
    frame.extend_from_slice(message);
    frame
}

/// Sends bytes as they are; gives the status that comes back.
pub async fn send(site: &Site, path: &str, headers: &[(&str, &str)], body: Vec<u8>) -> Status {
    let mut request = http::Request::post(path).header("te", "trailers");
    if !headers.iter().any(|(name, _)| *name == "content-type") {
        request = request.header("content-type", "application/grpc");
    }
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let body = tonic::body::Body::new(Full::new(Bytes::from(body)));
    let request = request.body(body).unwrap();
    let answered = async {
        let channel = site.nobody().channel;
        let response = channel
            .oneshot(request)
            .await
            .expect("the connection lives");
        assert_eq!(response.status(), http::StatusCode::OK);
        if let Some(status) = Status::from_header_map(response.headers()) {
            return status;
        }
        let streams =
            response.headers().get("grpc-status").is_none() && path.ends_with("WatchEvents");
        if streams {
            let opened =
                [("grpc-status", "0")].map(|(k, v)| (k.parse().unwrap(), v.parse().unwrap()));
            return Status::from_header_map(&opened.into_iter().collect()).unwrap();
        }
        let collected = response.into_body().collect().await.unwrap();
        collected
            .trailers()
            .and_then(Status::from_header_map)
            .expect("an answer ends with a status")
    };
    tokio::time::timeout(Duration::from_secs(60), answered)
        .await
        .expect("an answer comes")
}

#[track_caller]
fn is(status: Status, code: Code, reason: &str, label: &str) {
    let info = status.get_details_error_info();
    let told = info
        .as_ref()
        .map(|i| (i.reason.as_str(), i.domain.as_str()));
    assert_eq!(
        (status.code(), told),
        (code, Some((reason, "entente"))),
        "{label}: {status:?}"
    );
}

/// The server is there. One that has only just started says so a moment later.
pub async fn serving(site: &Site) {
    let health = tonic_health::pb::health_client::HealthClient::new(site.nobody().channel);
    eventually(async || {
        let request = tonic_health::pb::HealthCheckRequest::default();
        let answer = health.clone().check(request).await.unwrap();
        answer.into_inner().status == 1
    })
    .await;
}

// proves COM-9, COM-3
#[tokio::test]
async fn bytes_that_are_no_message_are_told_so() {
    both(async |site| {
        let contoso = site.tenant("contoso").await;
        let bearer = format!("Bearer {}", contoso.admin.caller.token.as_deref().unwrap());
        let auth = ("authorization", bearer.as_str());
        let get_tenant = "/entente.directory.v1.TenantService/GetTenant";
        let bad_utf8 = frame(&[0x0a, 2, 0xc3, 0x28]);
        let cut_field = frame(&[0x0a, 200, 1]);
        let endless_varint = frame(&[0xff; 12]);
        let wrong_wire_type = frame(&[0x08, 1]);
        for (label, headers, body) in [
            ("bad UTF-8", vec![auth], bad_utf8),
            ("a cut field", vec![auth], cut_field),
            ("an endless varint", vec![auth], endless_varint),
            ("a wrong wire type", vec![auth], wrong_wire_type),
            ("no body", vec![auth], Vec::new()),
            ("a cut frame", vec![auth], vec![0, 0, 0, 0, 10, 1, 2]),
            ("half a frame's head", vec![auth], vec![0, 0, 0]),
            (
                "compressed without saying how",
                vec![auth],
                vec![1, 0, 0, 0, 0],
            ),
            ("a flag that isn't one", vec![auth], vec![7, 0, 0, 0, 0]),
            (
                "compressed",
                vec![auth, ("grpc-encoding", "gzip")],
                vec![1, 0, 0, 0, 1, 0],
            ),
        ] {
            let status = send(&site, get_tenant, &headers, body).await;
            is(status, Code::InvalidArgument, "MALFORMED_MESSAGE", label);
        }
        for path in [
            "/entente.directory.v1.TenantService/Nothing",
            "/entente.directory.v1.NoService/GetTenant",
            "/",
            "/nothing",
            "/a/b/c",
        ] {
            let status = send(&site, path, &[auth], frame(&[])).await;
            is(status, Code::Unimplemented, "UNKNOWN_METHOD", path);
        }
        // A field that nobody knows fills the message to the byte.
        let of_size = |size: usize| {
            let head = [0xc2, 0x3e];
            let fill = size - head.len() - 4;
            let mut message = head.to_vec();
            let mut left = fill;
            for _ in 0..3 {
                message.push(u8::try_from(left & 0x7f).unwrap() | 0x80);
                left >>= 7;
            }
            message.push(u8::try_from(left).unwrap());
            message.resize(size, 0);
            frame(&message)
        };
        let largest = send(&site, ROLE_TABLE, &[], of_size(MAX_MESSAGE)).await;
        assert_eq!(largest.code(), Code::Ok, "{largest:?}");
        for path in [ROLE_TABLE, WHO_AM_I] {
            let status = send(&site, path, &[auth], of_size(MAX_MESSAGE + 1)).await;
            is(status, Code::ResourceExhausted, "MESSAGE_TOO_LARGE", path);
        }
        serving(&site).await;
    })
    .await;
}

// proves COM-9, COM-3
#[tokio::test(flavor = "multi_thread")]
async fn random_bytes_get_a_clear_answer_and_the_server_lives() {
    both(async |site| {
        let contoso = site.tenant("contoso").await;
        let bearer = format!("Bearer {}", contoso.admin.caller.token.as_deref().unwrap());
        let id = request_id();
        let names = Names::default()
            .with("entente.dev/Tenant", &contoso.name)
            .with("child of entente.dev/AuditEvent", &contoso.name)
            .with("entente.dev/Account", format!("accounts/{id}"))
            .with("entente.dev/Member", format!("accounts/{id}/members/{id}"));
        let all = dynamic::methods();
        let methods: Vec<_> = [
            "/entente.access.v1.AccessService/GetRoleTable",
            "/entente.directory.v1.SessionService/SignIn",
            "/entente.directory.v1.UserService/CreateUser",
            "/entente.directory.v1.UserService/ListUsers",
            "/entente.account.v1.MemberService/UpdateMembers",
            "/entente.audit.v1.AuditService/ListAuditEvents",
            "/entente.audit.v1.EventService/WatchEvents",
            "/entente.operator.v1.TestClockService/Advance",
        ]
        .into_iter()
        .map(|path| (path, dynamic::bytes(&dynamic::request(&all[path], &names))))
        .collect();
        let config = ProptestConfig {
            cases: 300,
            failure_persistence: None,
            ..ProptestConfig::default()
        };
        let flips = proptest::collection::vec((any::<u16>(), any::<u8>()), 1..8);
        let bytes = proptest::collection::vec(any::<u8>(), 0..300);
        let handle = tokio::runtime::Handle::current();
        let tried = TestRunner::new(config).run(
            &(0..methods.len(), 0..3_u8, bytes, flips),
            |(at, kind, bytes, flips)| {
                let (path, usual) = &methods[at];
                let body = match kind {
                    0 => bytes,
                    1 => frame(&bytes),
                    _ => {
                        let mut altered = usual.clone();
                        for (place, by) in flips {
                            if let Some(length) = std::num::NonZeroUsize::new(altered.len()) {
                                altered[usize::from(place) % length] ^= by;
                            }
                        }
                        frame(&altered)
                    }
                };
                let headers = [("authorization", bearer.as_str())];
                let status = tokio::task::block_in_place(|| {
                    handle.block_on(send(&site, path, &headers, body))
                });
                if status.code() == Code::Ok {
                    return Ok(());
                }
                let info = status.get_details_error_info();
                let clear = !matches!(
                    status.code(),
                    Code::Internal | Code::Unknown | Code::Cancelled | Code::DataLoss
                );
                prop_assert!(
                    clear && info.is_some_and(|i| i.domain == "entente"),
                    "{path}: {status:?}"
                );
                Ok(())
            },
        );
        tried.unwrap();
        serving(&site).await;
    })
    .await;
}

fn encoded(value: &serde_json::Value) -> String {
    BASE64_URL_SAFE_NO_PAD.encode(value.to_string())
}

// proves ATK-16, ATK-18, COM-3
#[tokio::test]
async fn tokens_of_every_wrong_kind_are_refused_alike() {
    both(async |site| {
        let contoso = site.tenant("contoso").await;
        let tokens = site
            .tokens(&contoso.admin.sign_in_name, PASSWORD)
            .await
            .unwrap();
        let good = tokens.access_token.clone();
        let asks =
            async |headers: &[(&str, &str)]| send(&site, WHO_AM_I, headers, frame(&[])).await;
        let with = async |token: &str| {
            let value = format!("Bearer {token}");
            asks(&[("authorization", value.as_str())]).await
        };
        assert_eq!(with(&good).await.code(), Code::Ok);

        // What the service itself signs with; a forger may have all but this.
        let rows = token::key_rows(&site.app.db.read).await.unwrap();
        let row = rows.first().unwrap();
        let private = site
            .app
            .keys
            .open(&format!("signing_keys/{}", row.id), &row.sealed_private_key)
            .unwrap();
        let own = EncodingKey::from_ed_der(&private);
        let payload = BASE64_URL_SAFE_NO_PAD
            .decode(good.split('.').nth(1).unwrap())
            .unwrap();
        let claims: serde_json::Value = serde_json::from_slice(&payload).unwrap();
        let mut header = Header::new(Algorithm::EdDSA);
        header.typ = Some("at+jwt".to_owned());
        header.kid = Some(row.id.to_string());
        let signed = |header: &Header, claims: &serde_json::Value, key: &EncodingKey| {
            jsonwebtoken::encode(header, claims, key).unwrap()
        };
        let resigned = signed(&header, &claims, &own);
        assert_eq!(
            with(&resigned).await.code(),
            Code::Ok,
            "the forgery is good but for its fault"
        );

        let altered = |key: &str, value: serde_json::Value| {
            let mut claims = claims.clone();
            claims[key] = value;
            signed(&header, &claims, &own)
        };
        let without = |key: &str| {
            let mut claims = claims.clone();
            claims.as_object_mut().unwrap().remove(key);
            signed(&header, &claims, &own)
        };
        let headed = |change: fn(&mut Header)| {
            let mut header = header.clone();
            change(&mut header);
            signed(&header, &claims, &own)
        };
        let keys = site
            .nobody()
            .sessions()
            .get_jwks(GetJwksRequest {})
            .await
            .unwrap()
            .into_inner();
        let public = keys
            .keys
            .iter()
            .find(|k| k.kid == row.id.to_string())
            .unwrap()
            .x
            .clone();
        let mut hashed = header.clone();
        hashed.alg = Algorithm::HS256;
        let body = good.split('.').nth(1).unwrap();
        let kid = row.id.to_string();
        let unsigned = encoded(&json!({"alg": "none", "typ": "at+jwt", "kid": kid}));
        let no_head = encoded(&json!({"alg": "EdDSA", "typ": "at+jwt"}));
        let signature = good.rsplit('.').next().unwrap();
        let other_pair = aws_lc_rs::signature::Ed25519KeyPair::generate().unwrap();
        let other = other_pair.to_pkcs8v1().unwrap();
        let wrong: Vec<(&str, String)> = vec![
            (
                "HS256 by the public key",
                signed(
                    &hashed,
                    &claims,
                    &EncodingKey::from_secret(public.as_bytes()),
                ),
            ),
            (
                "HS256 by its bytes",
                signed(&hashed, &claims, &EncodingKey::from_secret(&row.public_key)),
            ),
            ("alg none", format!("{unsigned}.{body}.")),
            (
                "alg none with the signature",
                format!("{unsigned}.{body}.{signature}"),
            ),
            ("no key ID", format!("{no_head}.{body}.{signature}")),
            (
                "signed by another key",
                signed(&header, &claims, &EncodingKey::from_ed_der(other.as_ref())),
            ),
            ("typ JWT", headed(|h| h.typ = Some("JWT".to_owned()))),
            ("no typ", headed(|h| h.typ = None)),
            ("an unknown key", headed(|h| h.kid = Some(request_id()))),
            (
                "a key that is a path",
                headed(|h| h.kid = Some("../../dev/null".to_owned())),
            ),
            (
                "another issuer",
                altered("iss", json!("https://elsewhere.example")),
            ),
            ("another audience", altered("aud", json!("elsewhere"))),
            ("no audience", without("aud")),
            ("no issuer", without("iss")),
            ("no expiry", without("exp")),
            ("expired", altered("exp", json!(1_000_000_000))),
            (
                "a subject that isn't there",
                altered("sub", json!(request_id())),
            ),
            ("another tenant", altered("tid", json!(request_id()))),
            ("another session", altered("sid", json!(request_id()))),
            ("another kind", altered("knd", json!("app"))),
            ("no such kind", altered("knd", json!("root"))),
            ("truncated", good[..good.len() - 4].to_owned()),
            (
                "without signature",
                good[..good.rfind('.').unwrap()].to_owned(),
            ),
            ("two in one", format!("{good}.{good}")),
            ("two with a comma", format!("{good},{good}")),
            ("two with a space", format!("{good} {good}")),
            ("a refresh token", tokens.refresh_token.clone()),
            ("5 KiB", "a".repeat(5_120)),
            (
                "5 KiB that looks like one",
                format!("{good}{}", "A".repeat(5_120)),
            ),
            ("dots", "..".to_owned()),
            ("a password", PASSWORD.to_owned()),
        ];
        let mut told = None;
        for (label, token) in &wrong {
            let status = with(token).await;
            // One answer for all, so that nothing is learnt from it.
            let said = (status.message().to_owned(), status.details().to_vec());
            is(status, Code::Unauthenticated, "TOKEN_INVALID", label);
            assert_eq!(
                *told.get_or_insert(said.clone()),
                said,
                "{label} is told otherwise"
            );
        }
        let bearer = format!("Bearer {good}");
        for (label, headers) in [
            (
                "doubled",
                vec![
                    ("authorization", bearer.as_str()),
                    ("authorization", bearer.as_str()),
                ],
            ),
            ("empty", vec![("authorization", "")]),
            ("no scheme", vec![("authorization", good.as_str())]),
            ("only a scheme", vec![("authorization", "Bearer ")]),
            ("basic", vec![("authorization", "Basic YW5uOnB3")]),
            (
                "a bad second one",
                vec![
                    ("authorization", bearer.as_str()),
                    ("authorization", "Basic YW5uOnB3"),
                ],
            ),
            (
                "on behalf, doubled",
                vec![
                    ("authorization", bearer.as_str()),
                    ("entente-on-behalf", bearer.as_str()),
                    ("entente-on-behalf", bearer.as_str()),
                ],
            ),
            (
                "on behalf, empty",
                vec![
                    ("authorization", bearer.as_str()),
                    ("entente-on-behalf", ""),
                ],
            ),
        ] {
            is(
                asks(&headers).await,
                Code::Unauthenticated,
                "TOKEN_INVALID",
                label,
            );
        }
        is(
            asks(&[]).await,
            Code::Unauthenticated,
            "CREDENTIALS_MISSING",
            "none",
        );
        is(
            asks(&[
                ("authorization", bearer.as_str()),
                ("entente-on-behalf", bearer.as_str()),
            ])
            .await,
            Code::PermissionDenied,
            "ON_BEHALF_REFUSED",
            "a person for a person",
        );
        // An access token is no refresh token.
        let request = entente::proto::directory::RefreshSessionRequest {
            refresh_token: good.chars().take(256).collect(),
            request_id: String::new(),
        };
        let refreshed = site.nobody().sessions().refresh_session(request).await;
        refused(refreshed, Code::Unauthenticated, "TOKEN_INVALID");
        assert_eq!(with(&good).await.code(), Code::Ok);
        let expires: i64 = claims["exp"].as_i64().unwrap() - claims["iat"].as_i64().unwrap();
        site.advance(expires + 1).await;
        is(
            with(&good).await,
            Code::Unauthenticated,
            "TOKEN_INVALID",
            "expired by the clock",
        );
        assert!(!claim(&good, "sub").is_empty());
    })
    .await;
}

// proves COM-9
#[tokio::test]
async fn only_grpc_is_spoken() {
    both(async |site| {
        for (kind, taken) in [
            ("application/grpc", true),
            ("application/grpc+proto", true),
            ("application/grpc; charset=utf-8", true),
            ("application/grpc+json", false),
            ("application/grpc-web", false),
            ("application/json", false),
            ("text/plain", false),
        ] {
            let status = send(&site, ROLE_TABLE, &[("content-type", kind)], frame(&[])).await;
            if taken {
                assert_eq!(status.code(), Code::Ok, "{kind}: {status:?}");
            } else {
                is(status, Code::InvalidArgument, "MALFORMED_MESSAGE", kind);
            }
        }
    })
    .await;
}
