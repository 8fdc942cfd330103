//! What a rule declares as demanded late is demanded, and what is demanded late is declared (COM-1).

use std::{collections::BTreeSet, fs, path::Path};

use entente::{access::roles::Permission, access::rules};
use prost_reflect::{MethodDescriptor, Value};

use crate::{
    access::{World, claim, names_for, world},
    dynamic,
    harness::{Caller, both},
};

/// Demands that no caller of this world reaches, with the file that makes them. To get shorter, never longer.
const OUT_OF_REACH: &[(&str, Permission, &str)] = &[
    (
        // The world's account keeps its tenants; the owner who removes the last one is in `associations.rs`.
        "entente.account.v1.TenantAssociationService/RemoveTenant",
        Permission::TenantsRemoveLast,
        "src/account/tenant_association.rs",
    ),
    // Nothing is evidence in a case of recovery here.
    (
        "entente.account.v1.VerificationService/DownloadDocument",
        Permission::RecoveryOpen,
        "src/account/document.rs",
    ),
];

/// The permissions that a text names.
fn named(late: &[String]) -> BTreeSet<Permission> {
    late.iter()
        .flat_map(|text| text.split(|c: char| !c.is_alphanumeric() && !matches!(c, '.' | '_')))
        .filter_map(Permission::parse)
        .collect()
}

fn principal(caller: &Caller) -> String {
    let token = caller.token.as_deref().unwrap();
    let kind = match claim(token, "knd").as_str() {
        "app" => "applications",
        _ => "users",
    };
    format!(
        "tenants/{}/{kind}/{}",
        claim(token, "tid"),
        claim(token, "sub")
    )
}

/// Who calls, and what is set, so that the function comes to its demand.
fn occasion(
    method: &MethodDescriptor,
    world: &World,
) -> (&'static str, Vec<(&'static str, Value)>) {
    let developer = || Value::List(vec![Value::EnumNumber(2)]);
    let name = |of: &str| Value::String(principal(&world.callers[of]));
    match method.name() {
        "AddMembers" => ("global", vec![("rights.roles", developer())]),
        "UpdateMembers" => (
            "manager",
            vec![("requests.member.rights.roles", developer())],
        ),
        "RemoveMembers" => (
            "manager",
            vec![("delete_from_directory", Value::Bool(true))],
        ),
        "CreateUser" => {
            let rich = Value::String(world.names.0["group with rights"].clone());
            ("global", vec![("groups", Value::List(vec![rich]))])
        }
        "AddGroupMembers" => {
            let rich = Value::String(world.names.0["group with rights"].clone());
            ("global", vec![("parent", rich)])
        }
        // The service, which is the agent of its tenant's synchronisation too.
        "CreateKey" => ("opadmin", vec![("parent", name("service"))]),
        "UpdateApplication" => ("opadmin", vec![("application.name", name("service"))]),
        "DeleteApplications" => {
            let service = principal(&world.callers["service"]);
            let tenant = service.split("/applications/").next().unwrap().to_owned();
            let names = Value::List(vec![Value::String(service.clone())]);
            (
                "opadmin",
                vec![("parent", Value::String(tenant)), ("names", names)],
            )
        }
        // One who runs the customer's tenant.
        "ResetCustomerUserPassword" => {
            let admin = world.names.0["customer's admin"].clone();
            ("agent", vec![("name", Value::String(admin))])
        }
        "ResetPassword" | "EndUserSessions" => ("helpdesk", vec![("name", name("develop"))]),
        "WakeRights" => ("agent", Vec::new()),
        "AssignOperatorRoles" | "RemoveOperatorRoles" => ("opadmin", Vec::new()),
        "RemoveTenant" => ("manager", Vec::new()),
        "TransferOwnership" => ("owner", Vec::new()),
        // The admin of the tenant, who is no member of the account.
        "CreateAccount"
        | "UpdateAccount"
        | "SubmitAccount"
        | "GetAccount"
        | "ListRequirements"
        | "ListRequiredActions" => ("global", Vec::new()),
        // A membership of the network that is somebody else's.
        "GetMembership" | "UpdateMembership" => ("manager", Vec::new()),
        "CreateTenant" => ("identity", Vec::new()),
        "CheckPublisherName" => {
            let account = Value::String(world.names.0["entente.dev/Account"].clone());
            ("manager", vec![("account", account)])
        }
        "CreateNameClaim" => {
            let account = Value::String(world.names.0["entente.dev/Account"].clone());
            ("manager", vec![("name_claim.account", account)])
        }
        "ListNameClaims" => {
            let account = Value::String(world.names.0["entente.dev/Account"].clone());
            ("manager", vec![("account", account)])
        }
        // One who is of neither side.
        "GetNameClaim" => ("plain", Vec::new()),
        "DownloadDocument" => ("reviewer", Vec::new()),
        other => panic!("say here who calls {other} so that it makes its late demand"),
    }
}

// proves COM-1
#[tokio::test]
async fn what_is_declared_as_late_is_demanded_and_what_is_demanded_is_declared() {
    both(async |site| {
        let world = world(&site).await;
        crate::applications::make_agent(&site, &principal(&world.callers["service"])).await;
        let mut looked_at = 0;
        for (path, method) in dynamic::methods() {
            let rule = rules::of_path(&path).unwrap();
            if rule.declared.late.is_empty() {
                continue;
            }
            site.app.demanded.lock().unwrap().clear();
            let names = names_for(&method, &world.names);
            let (caller, fields) = occasion(&method, &world);
            let mut request = dynamic::request(&method, &names);
            for (field, value) in fields {
                let mut places = dynamic::places(&method).into_iter();
                let place = places.find(|p| p.path == field).unwrap();
                dynamic::set(&mut request, &place.way, &names, value);
            }
            let caller = &world.callers[caller];
            let answer = dynamic::call(caller, &method, dynamic::bytes(&request)).await;
            let demanded = site.app.demanded.lock().unwrap().clone();
            let named = named(&rule.declared.late);
            for permission in &named {
                let excepted = OUT_OF_REACH
                    .iter()
                    .find(|(m, p, _)| *m == rule.method && p == permission);
                if let Some((_, _, file)) = excepted {
                    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join(file);
                    let source = fs::read_to_string(source).unwrap();
                    let demand = format!(".demand(Permission::{permission:?},");
                    assert!(source.contains(&demand), "{file} lacks {demand}");
                } else {
                    assert!(
                        demanded.contains(&(rule.method, Some(*permission))),
                        "{path} doesn't demand {}: {demanded:?}, {answer:?}",
                        permission.name()
                    );
                }
            }
            assert!(
                !named.is_empty() || demanded.iter().any(|(m, _)| *m == rule.method),
                "{path} demands nothing late: {answer:?}"
            );
            looked_at += 1;
        }
        assert!(looked_at > 5);

        // The other way round, for every method as everybody calls it.
        site.app.demanded.lock().unwrap().clear();
        for (_, method) in dynamic::methods() {
            if method.name() == "SignOut" {
                continue;
            }
            let names = names_for(&method, &world.names);
            let request = dynamic::bytes(&dynamic::request(&method, &names));
            for caller in ["global", "manager", "opadmin", "helpdesk", "stranger"] {
                let caller = &world.callers[caller];
                dynamic::call(caller, &method, request.clone()).await.ok();
            }
        }
        let demanded = site.app.demanded.lock().unwrap().clone();
        assert!(demanded.len() > 5, "{demanded:?}");
        for (method, permission) in demanded {
            // Jobs have no rule and no caller.
            let Some(rule) = rules::of_path(&format!("/{method}")) else {
                continue;
            };
            if let Some(permission) = permission {
                assert!(
                    named(&rule.declared.late).contains(&permission),
                    "{method} demands {} late, and its rule doesn't say so",
                    permission.name()
                );
            }
        }
    })
    .await;
}
