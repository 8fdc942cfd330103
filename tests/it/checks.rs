//! What is wrong with a request is told at once: what the protos declare, and what only the method's own check finds (COM-3).

use std::collections::BTreeSet;

use prost_reflect::{DynamicMessage, Kind, MethodDescriptor, Value};
use tonic::Code;

use crate::{
    access::world,
    bad_input::{admitted, violations, with_links},
    dynamic::{self, Names},
    harness::{Database, Site},
};

/// A fault in a request: the field that is set, to what, and the field that is named.
struct Fault {
    path: &'static str,
    value: Value,
    named: &'static str,
}

fn text(path: &'static str, value: &str, named: &'static str) -> Fault {
    let value = Value::String(value.to_owned());
    Fault { path, value, named }
}

fn texts(path: &'static str, value: &str, named: &'static str) -> Fault {
    let value = Value::List(vec![Value::String(value.to_owned())]);
    Fault { path, value, named }
}

/// A list whose element stands in it twice.
fn twice(
    method: &MethodDescriptor,
    path: &'static str,
    names: &Names,
    named: &'static str,
) -> Fault {
    let field = method.input().get_field_by_name(path).unwrap();
    let Kind::Message(of) = field.kind() else {
        panic!("{path} is no message");
    };
    // As in an update: the names of what it holds stand in it.
    let one = Value::Message(dynamic::message(&of, true, &format!("{path}."), names));
    let value = Value::List(vec![one.clone(), one]);
    Fault { path, value, named }
}

/// What the method's own check finds; what the protos declare.
fn faults(method: &MethodDescriptor, names: &Names) -> (Vec<Fault>, Fault) {
    const NOT_HERE: &str = "users.reset_password";
    let tenant = &names.0["entente.dev/Tenant"];
    let nameless = || text("request_id", "no UUID", "request_id");
    let rights = || texts("rights.permissions", NOT_HERE, "rights.permissions[0]");
    let password = || {
        let field = "first_admin.password";
        text(field, "newcomer-blue-gate", field)
    };
    // Nothing is set: what a request is made of by itself has the fault.
    let by_itself = |named| text("", "", named);
    match method.name() {
        "CreateUser" | "CreateCustomerUser" => (
            vec![Fault {
                path: "user.directory_roles",
                value: Value::List(vec![Value::EnumNumber(1)]),
                named: "user.recovery_email",
            }],
            nameless(),
        ),
        "CreateApplication" | "CreateGroup" => {
            let named = "memberships[1].account";
            (vec![twice(method, "memberships", names, named)], nameless())
        }
        "CreateDomain" => {
            let field = "domain.domain_name";
            (vec![text(field, "co.uk", field)], nameless())
        }
        "DeleteApplications" => {
            let name = Value::String(names.0["entente.dev/Application"].clone());
            let value = Value::List(vec![name.clone(), name]);
            let (path, named) = ("names", "names[1]");
            (vec![Fault { path, value, named }], nameless())
        }
        "WakeRights" => {
            let user = &names.0["entente.dev/User"];
            (vec![text("scope", user, "scope")], nameless())
        }
        "UndeleteTenant" => (vec![by_itself("tenant")], nameless()),
        "StopRecoveryCase" => (vec![by_itself("recovery_case")], nameless()),
        "AnswerNameClaim" => (vec![by_itself("text")], nameless()),
        // Neither an address nor a domain, and no role.
        "CreateRelationship" => (
            vec![
                by_itself("relationship.customer_email"),
                by_itself("relationship.requested_roles"),
            ],
            nameless(),
        ),
        "UpdateRelationship" => {
            let field = "relationship.customer_domain";
            (vec![text(field, "co.uk", field)], nameless())
        }
        "SetRelationshipAssignment" => {
            let owner = Fault {
                path: "account_role",
                value: Value::EnumNumber(1),
                named: "account_role",
            };
            (vec![owner], nameless())
        }
        "OpenRecoveryCase" => {
            let owner = Fault {
                path: "recovery_case.role",
                value: Value::EnumNumber(3),
                named: "recovery_case.role",
            };
            // Neither documents nor a domain.
            let user = names.0["entente.dev/User"].clone();
            let person = text("recovery_case.person", &user, "recovery_case.role");
            let bare = by_itself("recovery_case.documents");
            (vec![owner, person, bare], nameless())
        }
        "SetDirectorySynchronization" => {
            let agent = names.0["entente.dev/Application"].clone();
            (vec![text("agent", &agent, "agent")], nameless())
        }
        "SyncDirectory" => {
            let named = "entries[1].external_id";
            (vec![twice(method, "entries", names, named)], nameless())
        }
        "ReplaceGlobalAdmin" => (vec![by_itself("successor")], nameless()),
        "CreateTenant" | "CreateAssociatedTenant" => (vec![password()], nameless()),
        "ChangePassword" => (vec![by_itself("new_password")], nameless()),
        "AddMembers" => {
            let no_principal = texts("principals", tenant, "principals[0]");
            (vec![no_principal, rights()], nameless())
        }
        "UpdateMembers" => {
            let named = "requests[1].member.name";
            (vec![twice(method, "requests", names, named)], nameless())
        }
        "InviteUsers" => (
            vec![
                rights(),
                texts("emails", "no address", "emails[0]"),
                // Rights without an account to hold them on.
                by_itself("account"),
            ],
            nameless(),
        ),
        "SignUp" => {
            let common = text("password", "passwordpassword", "password");
            (vec![common], nameless())
        }
        "CompletePasswordRecovery" => {
            let common = text("new_password", "passwordpassword", "new_password");
            (vec![common], nameless())
        }
        "UploadDocument" => {
            let member = &names.0["entente.dev/Member"];
            (vec![text("parent", member, "parent")], nameless())
        }
        "DropRoles" => (vec![rights()], nameless()),
        "CreateAccount" | "ImportAccount" => {
            let field = "account.address.postal_code";
            (vec![text(field, "7500", field)], nameless())
        }
        "CreateOffer" => {
            let named = "offer.prices[0].currency_code";
            let path = "offer.prices.currency_code";
            (vec![text(path, "XXZ", named)], nameless())
        }
        "DecideOfferReview" => (
            vec![Fault {
                path: "decision",
                value: Value::EnumNumber(2),
                named: "reason",
            }],
            nameless(),
        ),
        "ImportMemberships" => {
            let named = "memberships[1].old_id";
            (vec![twice(method, "memberships", names, named)], nameless())
        }
        "CreatePackageOffer" => {
            let field = "package_offer.currency_code";
            (vec![text(field, "XXZ", field)], nameless())
        }
        "SetPolicy" => {
            let number = Fault {
                path: "policy.number",
                value: Value::I64(5),
                named: "policy.number",
            };
            (vec![number], nameless())
        }
        "RecordUsage" => {
            let (path, named) = ("entries.day", "entries[0].day");
            (vec![text(path, "2026-13-01", named)], nameless())
        }
        "ExportReport" => (
            vec![text("begin_day", "2026-02-30", "begin_day")],
            text("end_day", "2026-01-010", "end_day"),
        ),
        "EnrollProgram" => {
            let (path, named) = (
                "changes.seller_contact.address.postal_code",
                "changes.seller_contact.address.postal_code",
            );
            (vec![text(path, "7500", named)], nameless())
        }
        "ConfirmApproval" | "ConfirmOwnership" | "DecideReview" => (
            vec![Fault {
                path: "decision",
                value: Value::EnumNumber(2),
                named: "reason",
            }],
            nameless(),
        ),
        "PublishAgreement" => {
            let named = "agreement.texts[0].language_code";
            let path = "agreement.texts.language_code";
            (vec![text(path, "no language", named)], nameless())
        }
        "AcceptAgreement" => {
            let customers = Fault {
                path: "kind",
                value: Value::EnumNumber(5),
                named: "kind",
            };
            (vec![customers], nameless())
        }
        "AssignOperatorRoles" => {
            let ceiling = texts("on_behalf_ceiling", "tenant.read", "on_behalf_ceiling");
            let principal = text("principal", tenant, "principal");
            (vec![ceiling, principal], nameless())
        }
        "CheckAccess" => (
            vec![
                text("checks.principal", tenant, "checks[0].principal"),
                text(
                    "checks.resource",
                    &names.0["entente.dev/User"],
                    "checks[0].resource",
                ),
            ],
            text("checks.permission", "nonsense", "checks[0].permission"),
        ),
        "ExplainAccess" => (
            vec![text("principal", tenant, "principal")],
            text("permission", "nonsense", "permission"),
        ),
        "TestMyPermissions" => (
            vec![text("resource", &names.0["entente.dev/User"], "resource")],
            texts("permissions", "nonsense", "permissions[0]"),
        ),
        "WatchEvents" => (
            vec![text("resource", "nonsense", "resource")],
            text("cursor", "\u{1}", "cursor"),
        ),
        "Advance" => (
            vec![Fault {
                path: "by",
                value: Value::Message(DynamicMessage::new(
                    method
                        .input()
                        .get_field_by_name("by")
                        .unwrap()
                        .kind()
                        .as_message()
                        .unwrap()
                        .clone(),
                )),
                named: "by",
            }],
            nameless(),
        ),
        // Masks are checked for every method that takes one.
        "UpdateUser" | "UpdatePackageOffer" | "UpdateOffer" | "UpdateAccount"
        | "UpdateMembership" | "UpdateTenant" | "UpdateGroup" | "UpdateApplication"
        | "UpdateIdentity" => {
            let field = method.input().get_field_by_name("update_mask").unwrap();
            let mut mask = DynamicMessage::new(field.kind().as_message().unwrap().clone());
            let path = Value::String("etag".to_owned());
            mask.set_field_by_name("paths", Value::List(vec![path]));
            let value = Value::Message(mask);
            let (path, named) = ("update_mask", "update_mask");
            (vec![Fault { path, value, named }], nameless())
        }
        _ if method.input().get_field_by_name("order_by").is_some() => (
            vec![
                text("filter", "nonsense=1", "filter"),
                text("order_by", "nonsense", "order_by"),
            ],
            text("page_token", "\u{1}", "page_token"),
        ),
        other => panic!("say here how the check of {other} is made to find something"),
    }
}

fn put(method: &MethodDescriptor, request: &mut DynamicMessage, names: &Names, fault: Fault) {
    if !fault.path.is_empty() {
        let mut places = dynamic::places(method).into_iter();
        let place = places.find(|p| p.path == fault.path).unwrap();
        dynamic::set(request, &place.way, names, fault.value);
    }
}

// proves COM-3, COM-8
#[tokio::test]
async fn what_a_function_checks_is_told_with_what_the_protos_declare() {
    // No database is asked.
    let site = Site::open(Database::Sqlite).await;
    let mut world = with_links(&site, world(&site).await).await;
    // It finds fault with calls that bring neither token nor tenant.
    world.names.0.remove("UndeleteTenant.token");
    world.names.0.remove("UndeleteTenant.tenant");
    world.names.0.remove("StopRecoveryCase.token");
    world.names.0.remove("StopRecoveryCase.recovery_case");
    world.names.0.remove("entente.dev/RecoveryCase");
    let mut checked = 0;
    for (path, method) in dynamic::methods() {
        let rule = entente::access::rules::of_path(&path).unwrap();
        let masked = method.input().get_field_by_name("update_mask").is_some();
        if !rule.declared.checks && !masked {
            continue;
        }
        let admitted = admitted(&world, &method).await;
        let (caller, names) = admitted.unwrap_or_else(|| panic!("nobody may call {path}"));
        let mut request = dynamic::request(&method, &names);
        let (own, declared) = faults(&method, &names);
        let mut expected = BTreeSet::from([declared.named.to_owned()]);
        expected.extend(own.iter().map(|f| f.named.to_owned()));
        for fault in own.into_iter().chain([declared]) {
            put(&method, &mut request, &names, fault);
        }
        let answer = dynamic::call(caller, &method, dynamic::bytes(&request)).await;
        let told: BTreeSet<_> = violations(&answer).into_iter().map(|(f, _)| f).collect();
        assert_eq!(told, expected, "{path}: {answer:?}");
        assert_eq!(answer.unwrap_err().code(), Code::InvalidArgument, "{path}");
        checked += 1;
    }
    assert!(checked > 20, "only {checked} methods were looked at");
}
