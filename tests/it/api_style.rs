//! The style of the whole API, held over the descriptors: nothing of it is left to habit.

use std::{collections::BTreeSet, fs, path::Path};

use entente::{
    access::rules,
    names::Name,
    proto::{
        POOL,
        access::{CallKind, Idempotency},
    },
};
use prost_reflect::{FileDescriptor, MethodDescriptor};
use uuid::Uuid;

use crate::dynamic::{self, IDENTIFIER, REQUIRED};

/// Messages that several methods answer with and that are no resources.
const SHARED_ANSWERS: &[&str] = &["TokenSet", "ServiceTime", "Verification", "Ownership"];

/// Deletions with which nothing else is lost, so that their answers have no `losses`, each with the reason. To get shorter, never longer.
const NOTHING_ELSE_IS_LOST: &[(&str, &str)] = &[
    ("DeleteDomain", "a domain gives nobody anything"),
    ("DeleteReservedName", "it keeps a name from others"),
    ("DeleteOffer", "it was never published"),
    (
        "RevokeCompetency",
        "what it counts for is worked out when it is asked",
    ),
    ("ReleaseBenefit", "the answer has the benefit"),
];

/// Methods that take something away for good.
fn is_removal(method: &str) -> bool {
    [
        "Delete",
        "Remove",
        "Terminate",
        "LeaveAccount",
        "CloseIdentity",
    ]
    .iter()
    .any(|verb| method.starts_with(verb))
        || NOTHING_ELSE_IS_LOST.iter().any(|(name, _)| *name == method)
}

fn none(faults: &[String]) {
    assert!(faults.is_empty(), "\n  {}\n", faults.join("\n  "));
}

fn files() -> Vec<FileDescriptor> {
    POOL.files()
        .filter(|f| f.package_name().starts_with("entente."))
        .collect()
}

/// Paths (as in `SourceCodeInfo`) of a file's declarations that carry a comment.
fn commented(file: &FileDescriptor) -> BTreeSet<Vec<i32>> {
    let source = file.file_descriptor_proto().source_code_info.as_ref();
    source
        .expect("the descriptors keep their comments")
        .location
        .iter()
        .filter(|l| !l.leading_comments().trim().is_empty())
        .map(|l| l.path.clone())
        .collect()
}

#[test]
fn everything_in_the_protos_has_a_comment() {
    let mut faults = Vec::new();
    for file in files() {
        let commented = commented(&file);
        let mut need = |path: &[i32], name: &str| {
            if !commented.contains(path) {
                faults.push(format!("{name} has no comment"));
            }
        };
        for service in file.services() {
            need(service.path(), service.full_name());
            for method in service.methods() {
                need(method.path(), method.full_name());
            }
        }
        let own = |name: &FileDescriptor| name.name() == file.name();
        for message in POOL.all_messages().filter(|m| own(&m.parent_file())) {
            if message.is_map_entry() {
                continue;
            }
            need(message.path(), message.full_name());
            for field in message.fields() {
                need(field.path(), field.full_name());
            }
        }
        for kind in POOL.all_enums().filter(|e| own(&e.parent_file())) {
            need(kind.path(), kind.full_name());
            for value in kind.values() {
                need(value.path(), value.full_name());
            }
        }
    }
    none(&faults);
}

#[test]
fn enumerations_begin_with_unspecified() {
    let faults: Vec<_> = files()
        .iter()
        .flat_map(|f| f.enums().collect::<Vec<_>>())
        .filter(|e| !e.default_value().name().ends_with("_UNSPECIFIED"))
        .map(|e| e.full_name().to_owned())
        .collect();
    none(&faults);
}

// proves COM-4, COM-5, COM-8
#[test]
fn mutations_take_request_id_validate_only_and_etag() {
    let mut faults = Vec::new();
    for (path, rule) in rules::all().unwrap() {
        let method = &dynamic::methods()[path];
        let input = method.input();
        let has = |field: &str| input.get_field_by_name(field).is_some();
        if !matches!(
            rule.kind,
            CallKind::Mutation | CallKind::StreamIn | CallKind::Upload
        ) {
            for field in ["request_id", "validate_only", "etag"] {
                if has(field) {
                    faults.push(format!("{path} changes nothing, yet takes {field}"));
                }
            }
            continue;
        }
        let keeps_no_claim = rule.declared.idempotency() == Idempotency::None;
        if !has("request_id") && !keeps_no_claim {
            faults.push(format!("{path} lacks request_id"));
        }
        if has("validate_only") == rule.declared.checks_credential {
            faults.push(format!(
                "{path}: validate_only stands where no password, key or link is checked, and only there"
            ));
        }
        let in_resource = |field: &prost_reflect::FieldDescriptor| {
            dynamic::updates(method)
                && matches!(field.kind(), prost_reflect::Kind::Message(m) if dynamic::resource_of(&m).is_some())
        };
        let holds_one = input.fields().any(|f| !f.is_list() && in_resource(&f));
        let changes_one = !method.name().starts_with("Create") && (has("name") || holds_one);
        if changes_one && !has("etag") {
            faults.push(format!("{path} changes one resource and lacks etag"));
        }
        if holds_one && !has("update_mask") {
            faults.push(format!("{path} lacks update_mask"));
        }
    }
    none(&faults);
}

/// Lists that are no rows but worked out, or belong to one resource, and are as short as their comments say.
const WORKED_OUT: &[&str] = &[
    "ListRelationshipAssignments",
    "ListRequiredActions",
    "ListRequirements",
];

#[test]
fn answers_are_resources_or_responses() {
    let mut faults = Vec::new();
    for (path, method) in dynamic::methods() {
        let (name, answer) = (method.name(), method.output());
        let is_response = answer.name() == format!("{name}Response");
        let is_resource = dynamic::resource_of(&answer).is_some();
        let verb = ["Get", "Create", "Update"]
            .iter()
            .find_map(|v| name.strip_prefix(v));
        let good = is_response
            || SHARED_ANSWERS.contains(&answer.name())
            || match verb {
                Some(what) => is_resource || answer.name().ends_with(what),
                None => is_resource,
            };
        if !good {
            faults.push(format!("{path} answers {}", answer.full_name()));
        }
        if method.input().name() != format!("{name}Request") {
            faults.push(format!("{path} takes {}", method.input().full_name()));
        }
        let lists =
            (name.starts_with("List") || name.starts_with("Search")) && !WORKED_OUT.contains(&name);
        for field in ["page_size", "page_token", "filter", "order_by"] {
            if lists && method.input().get_field_by_name(field).is_none() {
                faults.push(format!("{path} lacks {field}"));
            }
        }
        if lists && answer.get_field_by_name("next_page_token").is_none() {
            faults.push(format!("{path} answers without next_page_token"));
        }
    }
    none(&faults);
}

/// Where a rule looks.
fn declared(method: &MethodDescriptor, path: &str) -> BTreeSet<String> {
    let rule = rules::of_path(path).unwrap_or_else(|| panic!("{} has no rule", method.full_name()));
    let alternatives = rule.declared.any_of.iter();
    alternatives
        .flat_map(|a| {
            a.all_of
                .iter()
                .flat_map(|p| [p.at.clone(), p.when_set.clone()])
                .chain([a.self_.clone(), a.lent_by.clone()])
        })
        .chain(rule.declared.unprivileged.iter().map(|u| u.field.clone()))
        .filter(|f| !f.is_empty() && !f.starts_with('@'))
        .collect()
}

// proves COM-1
#[test]
fn every_resource_name_in_a_request_is_spoken_of_by_the_rule() {
    let mut faults = Vec::new();
    for (path, method) in dynamic::methods() {
        let declared = declared(&method, &path);
        let places = dynamic::places(&method);
        for place in &places {
            let named = dynamic::reference_of(place.field()).is_some();
            if named && !declared.contains(&place.path) {
                faults.push(format!("{path}: {} is not spoken of", place.path));
            }
        }
        for field in declared {
            if !places.iter().any(|p| p.path == field) {
                faults.push(format!(
                    "{path}: the rule speaks of {field}, which isn't there"
                ));
            }
        }
        let rule = rules::of_path(&path).unwrap();
        for unprivileged in &rule.declared.unprivileged {
            if unprivileged.reason.is_empty() {
                faults.push(format!("{path}: {} gives no reason", unprivileged.field));
            }
        }
    }
    none(&faults);
}

// proves COM-1, ROL-1
#[test]
fn every_permission_that_a_rule_demands_is_held_by_some_role() {
    let mut faults = Vec::new();
    for (path, rule) in rules::all().unwrap() {
        for pair in rule.declared.any_of.iter().flat_map(|a| &a.all_of) {
            if pair.permission == "directory.sync" {
                // SetDirectorySynchronization gives it to the agent that it names, and nothing else does (TEN-5).
                continue;
            }
            let parsed = entente::access::roles::Permission::parse(&pair.permission);
            let Some(permission) = parsed else {
                faults.push(format!("{path} demands {}", pair.permission));
                continue;
            };
            use entente::access::roles::{ACCOUNT_ROLES, OPERATOR_ROLES, TENANT_ROLES};
            let all = [TENANT_ROLES, ACCOUNT_ROLES, OPERATOR_ROLES];
            if !all
                .iter()
                .flat_map(|t| t.iter())
                .any(|r| r.permissions.has(permission))
            {
                faults.push(format!("{path}: nobody holds {}", pair.permission));
            }
        }
    }
    none(&faults);
}

#[test]
fn resource_patterns_are_those_that_names_are_parsed_by() {
    let mut faults = Vec::new();
    let id = Uuid::from_u128(0x0190_0000_0000_7000_8000_0000_0000_0001).to_string();
    for message in POOL.all_messages() {
        let Some((kind, patterns)) = dynamic::resource_of(&message) else {
            continue;
        };
        // Audit events are numbered, and no request names one.
        if !message.full_name().starts_with("entente.") || kind == "entente.dev/AuditEvent" {
            continue;
        }
        for pattern in patterns {
            let filled: Vec<_> = pattern
                .split('/')
                .map(|p| if p.starts_with('{') { id.as_str() } else { p })
                .collect();
            let name = Name::parse(&filled.join("/"));
            if name.map(|n| n.kind()) != Some(kind.as_str()) {
                faults.push(format!("{kind}: {pattern} is read as {name:?}"));
            }
        }
        let identifies = message.get_field_by_name("name");
        if !identifies.is_some_and(|f| dynamic::behaves(&f, IDENTIFIER)) {
            faults.push(format!("{kind} has no IDENTIFIER name"));
        }
    }
    none(&faults);
}

#[test]
fn fields_that_name_one_thing_are_required_or_say_why_not() {
    let mut faults = Vec::new();
    for (path, method) in dynamic::methods() {
        for field in ["name", "parent"] {
            let Some(field) = method.input().get_field_by_name(field) else {
                continue;
            };
            if !dynamic::behaves(&field, REQUIRED) || dynamic::takes(&field).format != 7 {
                faults.push(format!("{path}: {} is not a required name", field.name()));
            }
        }
    }
    none(&faults);
}

#[test]
fn every_method_has_an_example_of_grpcurl() {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy/grpcurl.md");
    let text = fs::read_to_string(&file).expect("deploy/grpcurl.md is there");
    let headings: BTreeSet<_> = text
        .lines()
        .filter_map(|l| l.strip_prefix("### "))
        .map(str::trim)
        .collect();
    let methods = dynamic::methods();
    let mut faults: Vec<_> = methods
        .keys()
        .map(|p| p.trim_start_matches('/'))
        .filter(|m| !headings.contains(m))
        .map(|m| format!("{m} has no heading"))
        .collect();
    faults.extend(
        headings
            .iter()
            .filter(|h| h.starts_with("entente.") && !methods.contains_key(&format!("/{h}")))
            .map(|h| format!("{h} is no method")),
    );
    none(&faults);
}

// proves COM-8
#[test]
fn removals_answer_with_what_is_gone_and_what_is_lost_by_it() {
    let (mut faults, mut seen) = (Vec::new(), 0);
    for (path, method) in dynamic::methods() {
        if !is_removal(method.name()) {
            continue;
        }
        seen += 1;
        let answer = method.output();
        let has = |field: &str| answer.get_field_by_name(field).is_some();
        if answer.name() != format!("{}Response", method.name()) {
            faults.push(format!("{path} answers with {}", answer.name()));
        }
        if !answer
            .get_field_by_name("resources")
            .is_some_and(|field| field.is_list())
        {
            faults.push(format!("{path} doesn't say what is gone"));
        }
        let excepted = NOTHING_ELSE_IS_LOST
            .iter()
            .any(|(name, _)| *name == method.name());
        if has("losses") == excepted {
            faults.push(format!("{path}: losses, or the reason for none"));
        }
        if method.input().get_field_by_name("validate_only").is_none() {
            faults.push(format!("{path} can't be tried"));
        }
    }
    none(&faults);
    assert!(seen > 15, "{seen}");
}
