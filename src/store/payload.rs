//! Payloads of domain events (COM-12): each type of event is a message in the `events.proto` of its package, named as the type.
//!
//! A payload is made when its event is written, so that one that can't be made fails the call that tells it, and never a watcher.

use std::{collections::HashSet, sync::LazyLock};

use prost::Message as _;
use prost_reflect::{DynamicMessage, FieldDescriptor, MessageDescriptor, Value};
use serde_json::{Map, Value as Json};

use super::outbox::Event;
use crate::{
    error::{Error, Result},
    proto::{POOL, access::FieldRule},
};

/// `google.api.FieldBehavior`: INPUT_ONLY.
const INPUT_ONLY: i32 = 4;

/// Full names of the fields that are secret or that the service takes and never gives; None if the protos don't say.
static WITHHELD: LazyLock<Option<HashSet<String>>> = LazyLock::new(|| {
    let takes = POOL.get_extension_by_name("entente.access.v1.takes")?;
    let behavior = POOL.get_extension_by_name("google.api.field_behavior")?;
    let is_withheld = |field: &FieldDescriptor| {
        let options = field.options();
        let takes = options.get_extension(&takes);
        let rule = takes.as_message()?.transcode_to::<FieldRule>().ok()?;
        let marks = options.get_extension(&behavior);
        let input_only = |v: &Value| v.as_enum_number() == Some(INPUT_ONLY);
        Some(rule.secret || marks.as_list()?.iter().any(input_only))
    };
    let mut names = HashSet::new();
    for field in POOL
        .all_messages()
        .flat_map(|m| m.fields().collect::<Vec<_>>())
    {
        if is_withheld(&field)? {
            names.insert(field.full_name().to_owned());
        }
    }
    Some(names)
});

/// The message that a type of event is, if there is such a type.
fn message_of(kind: &str) -> Option<MessageDescriptor> {
    let message = POOL.get_message_by_name(kind)?;
    // The pool also takes a dot before a name.
    let declared = message.parent_file().name().ends_with("/events.proto")
        && message.parent_message().is_none()
        && message.full_name() == kind;
    declared.then_some(message)
}

/// Whether events of this type can happen at all.
#[must_use]
pub fn is_type(kind: &str) -> bool {
    message_of(kind).is_some()
}

/// The payload of an event, encoded.
///
/// # Errors
/// Internal: a type without a message, a field that the message lacks, a value that the field doesn't take, a secret.
pub fn encode(event: &Event) -> Result<Vec<u8>> {
    let message = message_of(event.kind)
        .ok_or_else(|| Error::internal(format!("no events.proto declares {}", event.kind)))?;
    Ok(build(message, event)?.encode_to_vec())
}

fn build(message: MessageDescriptor, event: &Event) -> Result<DynamicMessage> {
    let fault = |what: String| Error::internal(format!("the payload of {}: {what}", event.kind));
    let (mut before, mut after) = (Map::new(), Map::new());
    for change in &event.changes {
        for (side, value) in [(&mut before, &change.old), (&mut after, &change.new)] {
            if !value.is_null() {
                side.insert(change.field.to_owned(), value.clone());
            }
        }
    }
    let mut whole = Map::new();
    for (name, side) in [("before", before), ("after", after)] {
        if !side.is_empty() {
            whole.insert(name.to_owned(), Json::Object(side));
        }
    }
    for (field, value) in &event.facts {
        whole.insert((*field).to_owned(), value.clone());
    }
    let payload = DynamicMessage::deserialize(message, Json::Object(whole)).map_err(|error| {
        // Its text quotes the value, which is nobody's business but the developer's.
        if cfg!(debug_assertions) {
            fault(error.to_string())
        } else {
            fault("a value doesn't fit its field".to_owned())
        }
    })?;
    let withheld = WITHHELD
        .as_ref()
        .ok_or_else(|| fault("the protos don't tell what is secret".to_owned()))?;
    match withheld_in(&payload, withheld) {
        Some(field) => Err(fault(format!("{field} is never told"))),
        None => Ok(payload),
    }
}

/// A field that is set and must not be, wherever it lies.
fn withheld_in(message: &DynamicMessage, withheld: &HashSet<String>) -> Option<String> {
    message.fields().find_map(|(field, value)| {
        if withheld.contains(field.full_name()) {
            return Some(field.full_name().to_owned());
        }
        let within = |value: &Value| withheld_in(value.as_message()?, withheld);
        match value {
            Value::List(items) => items.iter().find_map(within),
            Value::Map(entries) => entries.values().find_map(within),
            single => within(single),
        }
    })
}

#[cfg(test)]
mod tests {
    use std::{
        collections::{BTreeMap, BTreeSet},
        fs,
        path::Path,
    };

    use prost_reflect::Kind;
    use serde_json::{Value::Null, json};

    use super::*;
    use crate::{
        names::Name,
        proto::{
            directory::{DirectoryRole, PasswordReset, User, UserCreated, UserState, UserUpdated},
            operator::ClockMoved,
        },
    };

    fn event(kind: &'static str) -> Event {
        Event::new(kind, Name::Operator)
    }

    fn decoded<M: prost::Message + Default>(event: &Event) -> M {
        M::decode(encode(event).unwrap().as_slice()).unwrap()
    }

    /// Built although no `events.proto` declares the message.
    fn built(event: &Event) -> Result<DynamicMessage> {
        build(POOL.get_message_by_name(event.kind).unwrap(), event)
    }

    /// The types that the sources name: `entente.<package>.v1.<Message>` between quotes.
    fn told() -> BTreeSet<String> {
        fn read(dir: &Path, into: &mut BTreeSet<String>) {
            for entry in fs::read_dir(dir).unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() {
                    read(&path, into);
                } else if path.extension().is_some_and(|e| e == "rs") {
                    let text = fs::read_to_string(&path).unwrap();
                    let text = text.split("#[cfg(test)]").next().unwrap();
                    let literals = text.split('"').filter(|part| is_type(part));
                    into.extend(literals.map(str::to_owned));
                }
            }
        }
        fn is_type(text: &str) -> bool {
            let parts: Vec<_> = text.split('.').collect();
            matches!(parts.as_slice(), ["entente", _, "v1", last]
                if last.starts_with(|c: char| c.is_ascii_uppercase()) && last.chars().all(|c| c.is_ascii_alphanumeric()))
        }
        let mut told = BTreeSet::new();
        read(
            &Path::new(env!("CARGO_MANIFEST_DIR")).join("src"),
            &mut told,
        );
        told
    }

    fn declared() -> BTreeMap<String, MessageDescriptor> {
        POOL.files()
            .filter(|f| f.name().ends_with("/events.proto"))
            .flat_map(|f| f.messages().collect::<Vec<_>>())
            .map(|m| (m.full_name().to_owned(), m))
            .collect()
    }

    // proves COM-12
    #[test]
    fn every_event_that_is_told_has_a_message_and_every_message_is_told() {
        let declared: BTreeSet<_> = declared().into_keys().collect();
        assert_eq!(told(), declared);
    }

    // proves COM-12
    #[test]
    fn types_are_the_messages_of_events_and_nothing_else() {
        assert!(declared().keys().all(|kind| super::is_type(kind)));
        for bad in [
            "",
            "UserCreated",
            "entente.directory.v1.Nothing",
            "entente.directory.v1.User",
            ".entente.directory.v1.UserCreated",
        ] {
            assert!(!super::is_type(bad), "{bad:?}");
        }
    }

    // proves COM-12
    #[test]
    fn no_event_can_hold_a_secret() {
        fn reach(message: &MessageDescriptor, seen: &mut BTreeSet<String>) {
            for field in message.fields() {
                if seen.insert(field.full_name().to_owned())
                    && let Kind::Message(inner) = field.kind()
                {
                    reach(&inner, seen);
                }
            }
        }
        let withheld = WITHHELD.as_ref().unwrap();
        assert!(withheld.contains("entente.directory.v1.CreateKeyResponse.secret"));
        assert!(withheld.contains("entente.directory.v1.PasswordCredential.password"));
        for message in declared().values() {
            let mut seen = BTreeSet::new();
            reach(message, &mut seen);
            let found: Vec<_> = seen.iter().filter(|f| withheld.contains(*f)).collect();
            assert!(found.is_empty(), "{}: {found:?}", message.full_name());
        }
    }

    // proves COM-12
    #[test]
    fn every_event_has_the_fields_of_one_shape() {
        for (name, message) in declared() {
            let sides: Vec<_> = ["before", "after"]
                .into_iter()
                .filter_map(|side| message.get_field_by_name(side))
                .collect();
            let mut kinds = sides.iter().map(|f| match f.kind() {
                Kind::Message(inner) if !f.is_list() => inner.full_name().to_owned(),
                other => panic!("{name}: {other:?}"),
            });
            let first = kinds.next();
            assert!(kinds.all(|k| Some(k) == first), "{name}");
        }
    }

    // proves COM-12
    #[test]
    fn payloads_hold_what_changed_and_nothing_else() {
        let made = event("entente.directory.v1.UserCreated")
            .change("user_name", Null, "ann")
            .change("directory_roles", Null, vec![1, 3]);
        let user = decoded::<UserCreated>(&made).after.unwrap();
        let roles = [DirectoryRole::GlobalAdmin, DirectoryRole::HelpdeskAdmin];
        let wanted = User {
            user_name: "ann".to_owned(),
            directory_roles: roles.map(i32::from).to_vec(),
            ..User::default()
        };
        assert_eq!(user, wanted);
        let changed = event("entente.directory.v1.UserUpdated")
            .change("given_name", "A", "B")
            .change("family_name", "C", "C")
            .change("recovery_email", "a@b.example", "")
            .change("state", "USER_STATE_ACTIVE", 2);
        let (given_name, recovery_email) = ("A".to_owned(), "a@b.example".to_owned());
        let wanted = UserUpdated {
            before: Some(User {
                given_name,
                recovery_email,
                state: UserState::Active.into(),
                ..User::default()
            }),
            after: Some(User {
                given_name: "B".to_owned(),
                state: UserState::Disabled.into(),
                ..User::default()
            }),
        };
        assert_eq!(decoded::<UserUpdated>(&changed), wanted);
        let fields: Vec<_> = changed.changes.iter().map(|c| c.field).collect();
        assert_eq!(fields, ["given_name", "recovery_email", "state"]);
        let moved = event("entente.operator.v1.ClockMoved").change(
            "now",
            crate::store::time::json(1_000_001),
            crate::store::time::json(2_000_000),
        );
        let before = decoded::<ClockMoved>(&moved).before.unwrap().now.unwrap();
        assert_eq!((before.seconds, before.nanos), (1, 1_000));
        let reset = event("entente.directory.v1.PasswordReset").with("ended_session_count", 3);
        assert_eq!(decoded::<PasswordReset>(&reset).ended_session_count, 3);
    }

    // proves COM-12
    #[test]
    fn what_does_not_fit_its_message_is_refused() {
        for bad in [
            event("entente.directory.v1.Nothing"),
            event("entente.directory.v1.User").with("user_name", "ann"),
            event("entente.directory.v1.UserUpdated").change("no_field", "A", "B"),
            event("entente.directory.v1.UserUpdated").change("state", "ACTIVE", "DISABLED"),
            event("entente.directory.v1.UserUpdated").change("given_name", 1, 2),
            event("entente.directory.v1.UserCreated").change("given_name", "A", "B"),
            event("entente.directory.v1.UserCreated").with("no_field", 1),
        ] {
            assert!(encode(&bad).is_err(), "{bad:?}");
        }
    }

    // proves COM-12
    #[test]
    fn secrets_are_refused_wherever_they_lie() {
        let key = event("entente.directory.v1.CreateKeyResponse");
        assert!(built(&key.clone().with("secret_omitted", true)).is_ok());
        assert!(built(&key.with("secret", "entk_1")).is_err());
        let password = event("entente.directory.v1.PasswordCredential");
        assert!(built(&password.with("password", "x")).is_err());
        let tokens = event("entente.directory.v1.ChangePasswordResponse");
        assert!(built(&tokens.clone().with("tokens", json!({ "session": "s" }))).is_ok());
        let within = json!({ "session": "s", "refresh_token": "t" });
        assert!(built(&tokens.with("tokens", within)).is_err());
    }
}
