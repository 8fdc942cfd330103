//! What the operator's nouns are on the wire.

use prost_types::Duration;

use super::entity::{mail, policy as policies, reserved_name, staff};
use crate::{
    access::{
        grants::Grant,
        roles::{self, OPERATOR_ROLES, Permissions},
    },
    directory::wire::mask_email,
    env::{Micros, SECOND_US},
    error::{Error, Result},
    names::Name,
    policy::{self, Kind},
    proto::operator::{Mail, MailState, Policy, PolicyKey, ReservedName, ServiceTime, Staff},
    store::{time::timestamp, update::etag},
};

pub(super) fn staff(row: staff::Staff) -> Staff {
    let staff::Staff {
        grant,
        display_name,
    } = row;
    let principal = grant.principal().name();
    let Grant {
        principal_id,
        principal_kind: _,
        tenant_id: _,
        roles,
        permissions: _,
        on_behalf_ceiling,
        display_name_fold: _,
        create_time,
        update_time,
        version,
    } = grant;
    Staff {
        name: Name::Staff(principal_id).to_string(),
        principal,
        display_name,
        roles: roles::numbers_of(OPERATOR_ROLES, roles),
        on_behalf_ceiling: permission_names(Permissions::from_stored(&on_behalf_ceiling)),
        create_time: timestamp(create_time),
        update_time: timestamp(update_time),
        etag: etag(version),
    }
}

pub(super) fn permission_names(of: Permissions) -> Vec<String> {
    of.names().into_iter().map(str::to_owned).collect()
}

/// A mail, as the operator's people see it: its recipient masked, also where an error tells it (ROL-11).
pub(super) fn mail(row: mail::Model) -> Mail {
    let mail::Model {
        id,
        recipient,
        template,
        language,
        object,
        state,
        attempt_count,
        last_error,
        create_time,
        send_time,
        next_attempt_time,
        version,
    } = row;
    let state = mail_state(state);
    Mail {
        name: Name::Mail(id).to_string(),
        recipient: mask_email(&recipient),
        template,
        language_code: language,
        object,
        state: state.into(),
        attempt_count: i32::try_from(attempt_count).unwrap_or(i32::MAX),
        last_error,
        create_time: timestamp(create_time),
        send_time: send_time.and_then(timestamp),
        next_attempt_time: timestamp(next_attempt_time).filter(|_| state == MailState::Queued),
        etag: etag(version),
    }
}

/// The state of a number in the database, which is that of the proto.
pub(super) fn mail_state(number: i64) -> MailState {
    i32::try_from(number)
        .ok()
        .and_then(|n| MailState::try_from(n).ok())
        .unwrap_or(MailState::Unspecified)
}

pub(super) fn service_time(now: Micros, offset: Micros) -> ServiceTime {
    let nanos = i32::try_from(offset % SECOND_US * 1_000).unwrap_or(0);
    ServiceTime {
        now: timestamp(now),
        offset: Some(Duration {
            seconds: offset / SECOND_US,
            nanos,
        }),
    }
}

/// A name to be reserved.
pub(super) struct NewReservedName {
    pub(super) display_name: String,
    pub(super) note: String,
}

pub(super) fn new_reserved_name(name: Option<ReservedName>) -> Result<NewReservedName> {
    let ReservedName {
        name: _,
        display_name,
        note,
        create_time: _,
        etag: _,
    } = name.ok_or_else(|| Error::field("reserved_name", "is required"))?;
    Ok(NewReservedName { display_name, note })
}

pub(super) fn reserved_name(row: &reserved_name::Model) -> ReservedName {
    let reserved_name::Model {
        id,
        display_name,
        display_name_fold: _,
        note,
        create_time,
        version,
    } = row;
    ReservedName {
        name: Name::ReservedName(*id).to_string(),
        display_name: display_name.clone(),
        note: note.clone(),
        create_time: timestamp(*create_time),
        etag: etag(*version),
    }
}

/// What was set of a policy.
pub(super) fn policy(row: &policies::Model) -> Policy {
    let policies::Model {
        id,
        policy_key,
        value,
        effective_time,
        set_by,
        create_time,
    } = row;
    let key = i32::try_from(*policy_key).unwrap_or(0);
    let key = PolicyKey::try_from(key).unwrap_or_default();
    Policy {
        name: Name::Policy(*id).to_string(),
        effective_time: timestamp(*effective_time),
        set_by: set_by.clone(),
        create_time: timestamp(*create_time),
        ..policy_of(key, *value)
    }
}

/// A value of a policy, of the type that its key says.
pub(super) fn policy_of(key: PolicyKey, value: i64) -> Policy {
    let is_flag = policy::declared(key).is_some_and(|(kind, _)| kind == Kind::Flag);
    Policy {
        key: key as i32,
        flag: is_flag && value != 0,
        number: if is_flag { 0 } else { value },
        ..Policy::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use uuid::Uuid;

    #[test]
    fn mails_tell_when_they_are_tried_next_while_they_are_queued_only() {
        let row = |state| mail::Model {
            id: Uuid::from_u128(1),
            recipient: "a@example.com".to_owned(),
            template: "password_reset".to_owned(),
            language: "en".to_owned(),
            object: "tenants/t".to_owned(),
            state,
            attempt_count: 24,
            last_error: "DELIVERY_FAILED".to_owned(),
            create_time: 1,
            send_time: (state == 2).then_some(2),
            next_attempt_time: 3,
            version: 4,
        };
        assert!(mail(row(1)).next_attempt_time.is_some() && mail(row(1)).send_time.is_none());
        assert!(mail(row(2)).next_attempt_time.is_none() && mail(row(2)).send_time.is_some());
        assert!(mail(row(3)).next_attempt_time.is_none());
        assert_eq!(mail(row(3)).state(), MailState::Failed);
        assert_eq!(mail_state(4), MailState::Unspecified);
    }

    #[test]
    fn offsets_keep_their_microseconds() {
        let time = service_time(5_000_001, 3_600_000_007);
        assert_eq!(
            time.offset,
            Some(Duration {
                seconds: 3_600,
                nanos: 7_000
            })
        );
        assert_eq!(
            time.now,
            Some(prost_types::Timestamp {
                seconds: 5,
                nanos: 1_000
            })
        );
    }
}
