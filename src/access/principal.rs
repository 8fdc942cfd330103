//! Whoever a call is made as.

use std::net::IpAddr;

use uuid::Uuid;

use crate::{env::Micros, error::Language, names::Name, store::scope_key::ScopeKey};

/// The kind of a principal; its number in the database.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, PartialOrd, Ord)]
#[repr(i16)]
pub enum Kind {
    /// A person in a tenant.
    User = 1,
    /// A program registered in a tenant.
    Application = 2,
    /// A person outside any tenant.
    Identity = 3,
    /// A group of a tenant's users: holds rights for its members, and never acts.
    Group = 4,
}

impl Kind {
    /// The kind of a number in the database.
    #[must_use]
    pub fn from_number(number: i16) -> Option<Self> {
        match number {
            1 => Some(Self::User),
            2 => Some(Self::Application),
            3 => Some(Self::Identity),
            4 => Some(Self::Group),
            _ => None,
        }
    }
}

/// A principal: who, and through which tenant.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, PartialOrd, Ord)]
pub struct Principal {
    /// What it is.
    pub kind: Kind,
    /// Its ID.
    pub id: Uuid,
    /// Its tenant; nil for a personal identity.
    pub tenant: Uuid,
}

impl Principal {
    /// The principal of a resource name, if it names one.
    #[must_use]
    pub fn of(name: Name) -> Option<Self> {
        match name {
            Name::User(tenant, id) => Some(Self {
                kind: Kind::User,
                id,
                tenant,
            }),
            Name::Application(tenant, id) => Some(Self {
                kind: Kind::Application,
                id,
                tenant,
            }),
            Name::Identity(id) => Some(Self {
                kind: Kind::Identity,
                id,
                tenant: Uuid::nil(),
            }),
            Name::Group(tenant, id) => Some(Self {
                kind: Kind::Group,
                id,
                tenant,
            }),
            _ => None,
        }
    }

    /// Its resource name.
    #[must_use]
    pub fn resource(&self) -> Name {
        match self.kind {
            Kind::User => Name::User(self.tenant, self.id),
            Kind::Application => Name::Application(self.tenant, self.id),
            Kind::Identity => Name::Identity(self.id),
            Kind::Group => Name::Group(self.tenant, self.id),
        }
    }

    /// Its resource name as text.
    #[must_use]
    pub fn name(&self) -> String {
        self.resource().to_string()
    }

    /// The name of one of its sessions.
    #[must_use]
    pub fn session_name(&self, session: Uuid) -> Name {
        match self.kind {
            Kind::Identity => Name::IdentitySession(self.id, session),
            _ => Name::Session(self.tenant, self.id, session),
        }
    }

    /// Whether it is a person.
    #[must_use]
    pub fn is_person(&self) -> bool {
        matches!(self.kind, Kind::User | Kind::Identity)
    }

    /// Where its own doings are audited.
    #[must_use]
    pub fn home(&self) -> ScopeKey {
        match self.kind {
            Kind::Identity => ScopeKey::Identity(self.id),
            Kind::User | Kind::Application | Kind::Group => ScopeKey::Tenant(self.tenant),
        }
    }
}

/// What a good token says; whether its principal still may anything is asked of the database at each call.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Authenticated {
    /// Who.
    pub principal: Principal,
    /// The session of a person, or the key of an application.
    pub session: Uuid,
    /// When the credential was checked, in microseconds.
    pub sign_in_time: Micros,
    /// When the token ends, in microseconds: a stream that it began ends with it.
    pub expire_time: Micros,
}

/// Who calls, from where, and in which language.
#[derive(Clone, Debug)]
pub struct Caller {
    /// The principal whose rights count; none for nobody.
    pub who: Option<Authenticated>,
    /// The internal service that acts for the person (COM-16).
    pub via: Option<Authenticated>,
    /// The client's network address: the peer's, or the one that an internal service says.
    pub address: Option<IpAddr>,
    /// For the texts of errors.
    pub language: Language,
    /// The W3C trace ID, 32 hexadecimal digits.
    pub trace_id: String,
}

impl Caller {
    /// The name of who calls; empty for nobody.
    #[must_use]
    pub fn name(&self) -> String {
        self.who.map_or_else(String::new, |a| a.principal.name())
    }

    /// The name of the service that acts for who calls; empty if none does.
    #[must_use]
    pub fn via_name(&self) -> String {
        self.via.map_or_else(String::new, |a| a.principal.name())
    }

    /// The address as text; empty if unknown.
    #[must_use]
    pub fn address_text(&self) -> String {
        self.address.map_or_else(String::new, |a| a.to_string())
    }

    /// With whom it shares what a company has at once: its tenant; itself, if it has none.
    #[must_use]
    pub fn house(&self) -> Uuid {
        self.who.map_or(Uuid::nil(), |who| {
            let Principal { id, tenant, .. } = who.principal;
            if tenant.is_nil() { id } else { tenant }
        })
    }

    /// The bytes that tell this caller from all others: what tokens, claims and limits are bound to.
    #[must_use]
    pub fn key(&self) -> Vec<u8> {
        let mut key = Vec::with_capacity(32);
        for part in [self.who, self.via].into_iter().flatten() {
            key.extend_from_slice(part.principal.id.as_bytes());
        }
        key
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KINDS: [Kind; 4] = [Kind::User, Kind::Application, Kind::Identity, Kind::Group];

    fn one(kind: Kind, id: u128) -> Authenticated {
        Authenticated {
            principal: Principal {
                kind,
                id: Uuid::from_u128(id),
                tenant: Uuid::from_u128(9),
            },
            session: Uuid::nil(),
            sign_in_time: 0,
            expire_time: Micros::MAX,
        }
    }

    fn caller(who: Option<Authenticated>, via: Option<Authenticated>) -> Caller {
        Caller {
            who,
            via,
            address: None,
            language: Language::English,
            trace_id: String::new(),
        }
    }

    #[test]
    fn kinds_come_back_from_their_numbers() {
        for (kind, number) in KINDS.into_iter().zip(1..) {
            assert_eq!(kind as i16, number);
            assert_eq!(Kind::from_number(number), Some(kind));
        }
        assert_eq!(Kind::from_number(0), None);
        assert_eq!(Kind::from_number(5), None);
    }

    // proves COM-10, COM-16
    #[test]
    fn callers_are_told_by_name_service_and_address() {
        let (bob, portal) = (one(Kind::User, 1), one(Kind::Application, 2));
        let mut acting = caller(Some(bob), Some(portal));
        assert_eq!(acting.name(), bob.principal.name());
        assert_eq!(acting.via_name(), portal.principal.name());
        assert_ne!(acting.name(), acting.via_name());
        assert_eq!(acting.address_text(), "");
        acting.address = Some([192, 0, 2, 1].into());
        assert_eq!(acting.address_text(), "192.0.2.1");
        let nobody = caller(None, None);
        assert_eq!(
            (nobody.name(), nobody.via_name()),
            (String::new(), String::new())
        );
    }

    // proves COM-4, COM-18
    #[test]
    fn each_caller_and_each_service_acting_for_it_has_a_key_of_its_own() {
        let (bob, ann) = (one(Kind::User, 1), one(Kind::User, 2));
        let (portal, store) = (one(Kind::Application, 3), one(Kind::Application, 4));
        let key = |who, via| caller(Some(who), via).key();
        assert_eq!(key(bob, None), bob.principal.id.as_bytes());
        let keys = [
            key(bob, None),
            key(ann, None),
            key(bob, Some(portal)),
            key(bob, Some(store)),
            key(portal, None),
            caller(None, None).key(),
        ];
        for (i, key) in keys.iter().enumerate() {
            assert!(!keys[..i].contains(key), "{i}");
        }
        // The session is not part of it: whoever signs in again repeats a call all the same.
        let again = Authenticated {
            session: Uuid::from_u128(7),
            ..bob
        };
        assert_eq!(key(again, None), keys[0]);
    }
}
