//! Attacks tried on every method that the descriptors show to be open to them, so that no new one is forgotten: masks that name what is the
//! server's own (ATK-10), and all verbs that give a role or set a password (ATK-14).

use std::collections::BTreeSet;

use entente::proto::{
    access::AccountRole,
    account::{
        Account, AddMembersRequest, CreateAccountRequest, CreateAssociatedTenantRequest, NewTenant,
    },
    directory::DirectoryRole,
    operator::OperatorRole,
};
use prost_reflect::{DynamicMessage, FieldDescriptor, Kind, MethodDescriptor, Value};
use tonic::Code;

use crate::{
    access::{names_for, world},
    bad_input::{admitted, violations},
    dynamic::{self, Names},
    enrolment::{draft_of, open},
    harness::{both, membership, new_tenant, new_user, refused, request_id, rights},
    lent::Lending,
    network::{join, new_membership},
    people::{People as _, identity, person_as, second_admin},
};

/// `google.api.field_behavior`: IMMUTABLE.
const IMMUTABLE: i32 = 5;

/// A field that no mask may name, as a mask would.
struct Fixed {
    path: String,
    field: FieldDescriptor,
}

/// The resource that a method changes by a mask, and what of it callers can't change; none of other methods.
fn fixed(method: &MethodDescriptor) -> Option<(FieldDescriptor, Vec<Fixed>)> {
    method.input().get_field_by_name("update_mask")?;
    let resource = method
        .input()
        .fields()
        .find_map(|field| match field.kind() {
            Kind::Message(of) if dynamic::resource_of(&of).is_some() => Some((field, of)),
            _ => None,
        });
    let (resource, of) = resource.unwrap_or_else(|| panic!("{method:?} changes no resource"));
    let is_fixed = |field: &FieldDescriptor| {
        let marks = [dynamic::OUTPUT_ONLY, dynamic::IDENTIFIER, IMMUTABLE];
        marks.iter().any(|mark| dynamic::behaves(field, *mark))
    };
    let mut found = Vec::new();
    for field in of.fields() {
        let path = field.name().to_owned();
        if is_fixed(&field) {
            found.push(Fixed { path, field });
        } else if let Kind::Message(inner) = field.kind() {
            let inner = inner.fields().filter(|f| is_fixed(f));
            found.extend(inner.map(|field| Fixed {
                path: format!("{path}.{}", field.name()),
                field,
            }));
        }
    }
    Some((resource, found))
}

/// A value that isn't the field's own, where one can be had without a name.
fn forged(field: &FieldDescriptor, names: &Names) -> Option<Value> {
    let is_plain = match field.kind() {
        Kind::Message(of) => of.full_name() == "google.protobuf.Timestamp",
        Kind::String => dynamic::reference_of(field).is_none(),
        Kind::Enum(_) | Kind::Bool | Kind::Int32 | Kind::Int64 => true,
        _ => false,
    };
    let one = is_plain.then(|| dynamic::value(field, true, field.name(), names))?;
    Some(if field.is_list() {
        Value::List(vec![one])
    } else {
        one
    })
}

/// A request, not for trial, whose mask names these fields, with other values than they have.
fn masked(
    method: &MethodDescriptor,
    names: &Names,
    resource: &FieldDescriptor,
    fields: &[&Fixed],
) -> DynamicMessage {
    let mut request = dynamic::request(method, names);
    request.set_field_by_name("validate_only", Value::Bool(false));
    let changed = request.get_field_mut(resource).as_message_mut().unwrap();
    for fixed in fields.iter().filter(|f| !f.path.contains('.')) {
        if !dynamic::behaves(&fixed.field, dynamic::IDENTIFIER)
            && let Some(value) = forged(&fixed.field, names)
        {
            changed.set_field(&fixed.field, value);
        }
    }
    let field = method.input().get_field_by_name("update_mask").unwrap();
    let mut mask = DynamicMessage::new(field.kind().as_message().unwrap().clone());
    let paths = fields.iter().map(|f| Value::String(f.path.clone()));
    mask.set_field_by_name("paths", Value::List(paths.collect()));
    request.set_field(&field, Value::Message(mask));
    request
}

// proves ATK-10, COM-8
#[tokio::test]
async fn no_mask_of_any_method_takes_a_field_of_the_servers_own_from_anybody() {
    both(async |site| {
        let world = world(&site).await;
        let (mut methods, mut fields) = (0, 0);
        for (path, method) in dynamic::methods() {
            let Some((resource, all)) = fixed(&method) else {
                continue;
            };
            let admitted = admitted(&world, &method).await;
            let (caller, names) = admitted.unwrap_or_else(|| panic!("nobody may call {path}"));
            for fixed in &all {
                let request = masked(&method, &names, &resource, &[fixed]);
                let answer = dynamic::call(caller, &method, dynamic::bytes(&request)).await;
                let told: BTreeSet<_> = violations(&answer).into_iter().map(|(f, _)| f).collect();
                let expected = BTreeSet::from(["update_mask".to_owned()]);
                assert_eq!(told, expected, "{path} {}: {answer:?}", fixed.path);
                let code = answer.unwrap_err().code();
                assert_eq!(code, Code::InvalidArgument, "{path} {}", fixed.path);
                fields += 1;
            }
            // Nobody else comes further, with all of them at once.
            for (column, caller) in &world.callers {
                let names = names_for(&method, &world.names);
                let all: Vec<&Fixed> = all.iter().collect();
                let request = masked(&method, &names, &resource, &all);
                let answer = dynamic::call(caller, &method, dynamic::bytes(&request)).await;
                assert!(answer.is_err(), "{path} as {column}");
            }
            methods += 1;
        }
        assert!(methods > 5 && fields > 30, "{methods}, {fields}");
    })
    .await;
}

/// What a request asks to be given: the roles of a scope, the highest of which is tried.
fn highest(field: &FieldDescriptor) -> Option<(&'static str, i32)> {
    match field.kind() {
        Kind::Enum(of) => match of.full_name() {
            "entente.access.v1.AccountRole" => Some(("account", AccountRole::Manager as i32)),
            "entente.directory.v1.DirectoryRole" => {
                Some(("tenant", DirectoryRole::GlobalAdmin as i32))
            }
            "entente.operator.v1.OperatorRole" => {
                Some(("operator", OperatorRole::OperatorAdmin as i32))
            }
            _ => None,
        },
        _ => None,
    }
}

// proves ATK-14, ROL-7
#[tokio::test]
async fn no_verb_that_takes_roles_gives_what_its_caller_lacks() {
    both(async |site| {
        let contoso = site.tenant("contoso").await;
        let account = site.account(&contoso, "Contoso").await;
        let ann = &contoso.admin.caller;
        // A global admin who may assign on the account, but is no manager there; and one who may do little.
        let carol = second_admin(&site, &contoso, "carol").await;
        let hal = person_as(&site, &contoso, "hal", DirectoryRole::HelpdeskAdmin).await;
        let bob = site.person(&contoso, "bob").await;
        let dan = site.person_with(&contoso, "dan", |r| {
            r.memberships = vec![membership(&account, &[])];
        });
        let dan = dan.await;
        let request = AddMembersRequest {
            parent: account.clone(),
            principals: vec![carol.name.clone()],
            rights: Some(rights(&[AccountRole::AdminAgent])),
            ..AddMembersRequest::default()
        };
        ann.members().add_members(request).await.unwrap();
        let names = Names::default()
            .with("entente.dev/Tenant", &contoso.name)
            .with("entente.dev/Account", &account)
            .with("entente.dev/User", &bob.name)
            .with("entente.dev/Member", dan.member_of(&account))
            .with("*", &bob.name)
            .with(
                "entente.dev/Relationship",
                format!("{account}/relationships/{}", request_id()),
            )
            .with("InviteUsers.account", &account)
            .with("InviteUsers.emails", "guest@new.example");
        let mut tried = BTreeSet::new();
        for (_, method) in dynamic::methods() {
            for place in dynamic::places(&method) {
                let Some((scope, role)) = highest(place.field()) else {
                    continue;
                };
                let (caller, reason) = match (method.name(), scope) {
                    // It only takes, and from oneself.
                    ("DropRoles", _) => continue,
                    // It says who gets what is lent; that is tried as a directory role.
                    ("SetRelationshipAssignment", "account") => continue,
                    (_, "account") => (&carol.caller, "CANNOT_GRANT_WHAT_YOU_LACK"),
                    // Who may give any of these may give all.
                    (_, "tenant") => (&hal.caller, "PERMISSION_MISSING"),
                    _ => (&carol.caller, "PERMISSION_MISSING"),
                };
                let names = names_for(&method, &names);
                let mut request = dynamic::request(&method, &names);
                let roles = Value::List(vec![Value::EnumNumber(role)]);
                dynamic::set(&mut request, &place.way, &names, roles);
                println!("{} {}", method.name(), place.path);
                let answer = dynamic::call(caller, &method, dynamic::bytes(&request)).await;
                refused(answer, Code::PermissionDenied, reason);
                tried.insert(method.name().to_owned());
            }
        }
        assert!(tried.len() >= 9, "{tried:?}");
    })
    .await;
}

/// Whether somebody hears a password by it that is another's.
fn tells_password(method: &MethodDescriptor) -> bool {
    let field = method.output().get_field_by_name("temporary_password");
    field.is_some()
}

// proves ATK-14, PWD-5
#[tokio::test]
async fn every_verb_that_sets_anothers_password_sets_one_that_must_be_changed() {
    let known = [
        "CreateAccount",
        "CreateAssociatedTenant",
        "CreateCustomerUser",
        "CreateTenant",
        "CreateUser",
        "ResetCustomerUserPassword",
        "ResetPassword",
        "UndeleteUser",
    ];
    let all = dynamic::methods();
    let there: BTreeSet<&str> = all
        .values()
        .filter(|m| tells_password(m))
        .map(|m| m.name())
        .collect();
    assert_eq!(there, BTreeSet::from(known), "each of them is tried here");
    both(async |site| {
        let contoso = site.tenant("contoso").await;
        let account = site.account(&contoso, "Contoso").await;
        let ann = &contoso.admin.caller;
        let mut set = Vec::new();
        let mut users = ann.users();
        let made = users.create_user(new_user(&contoso.name, "bob")).await;
        let made = made.unwrap().into_inner();
        let bob = made.user.unwrap();
        set.push(("CreateUser", bob.sign_in_name, made.temporary_password));
        let eve = site.person(&contoso, "eve").await;
        let reset = ann.reset(&eve.name).await.unwrap();
        set.push(("ResetPassword", eve.sign_in_name, reset.temporary_password));
        let dan = site.person(&contoso, "dan").await;
        ann.delete(&dan.name).await.unwrap();
        let back = ann.undelete(&dan.name, "").await.unwrap();
        set.push(("UndeleteUser", dan.sign_in_name, back.temporary_password));
        // By a partner.
        let customer = site.tenant("customer").await;
        let lends = (&customer, "ann@customer.example");
        let all = [DirectoryRole::GlobalAdmin];
        let lending = Lending {
            relationship: crate::lent::lent_to(ann, &account, lends, &all).await,
            partner: contoso.clone(),
            account: account.clone(),
            customer: customer.clone(),
        };
        let made = lending.create(ann, lending.creating("cat")).await.unwrap();
        let cat = made.user.unwrap();
        set.push((
            "CreateCustomerUser",
            cat.sign_in_name,
            made.temporary_password,
        ));
        let flo = site.person(&customer, "flo").await;
        let reset = lending.reset(ann, &flo.name).await.unwrap();
        let password = reset.temporary_password;
        set.push(("ResetCustomerUserPassword", flo.sign_in_name, password));
        let mut tenants = site.operator().await.tenants();
        let made = tenants.create_tenant(new_tenant("fabrikam")).await;
        let made = made.unwrap().into_inner();
        let admin = made.first_admin.unwrap();
        set.push(("CreateTenant", admin.sign_in_name, made.temporary_password));
        let new = new_tenant("adatum");
        let request = CreateAssociatedTenantRequest {
            parent: account,
            tenant: new.tenant,
            first_admin: new.first_admin,
            ..CreateAssociatedTenantRequest::default()
        };
        let mut associations = ann.associations();
        let made = associations.create_associated_tenant(request).await;
        let made = made.unwrap().into_inner();
        let admin = made.first_admin.unwrap();
        set.push((
            "CreateAssociatedTenant",
            admin.sign_in_name,
            made.temporary_password,
        ));
        let ida = identity(&site, "ida@new.example").await;
        join(&ida.caller, new_membership("Tailspin")).await.unwrap();
        let new = new_tenant("tailspin");
        let draft = draft_of(Account {
            publisher_display_name: "Tailspin".to_owned(),
            country_code: "FR".to_owned(),
            ..Account::default()
        });
        let request = CreateAccountRequest {
            new_tenant: Some(NewTenant {
                tenant: new.tenant,
                first_admin: new.first_admin,
            }),
            ..draft
        };
        let made = open(&ida.caller, request).await.unwrap();
        let admin = made.first_admin.unwrap();
        set.push(("CreateAccount", admin.sign_in_name, made.temporary_password));
        let verbs: BTreeSet<&str> = set.iter().map(|(verb, ..)| *verb).collect();
        assert_eq!(verbs, BTreeSet::from(known));
        for (verb, name, password) in set {
            let tokens = site.tokens(&name, &password).await.unwrap();
            assert!(tokens.password_change_required, "{verb}");
            let got = site.with_token(&tokens.access_token).user(&bob.name).await;
            refused(got, Code::FailedPrecondition, "PASSWORD_CHANGE_REQUIRED");
        }
    })
    .await;
}
