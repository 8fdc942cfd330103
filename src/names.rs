//! Typed resource names (AIP-122). The only place that knows their form; a test holds it against the protos.

use std::fmt;

use uuid::Uuid;

use crate::store::scope_key::ScopeKey;

/// A resource's name, parsed.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, PartialOrd, Ord)]
pub enum Name {
    /// `tenants/{tenant}`
    Tenant(Uuid),
    /// `tenants/{tenant}/users/{user}`
    User(Uuid, Uuid),
    /// `tenants/{tenant}/users/{user}/sessions/{session}`
    Session(Uuid, Uuid, Uuid),
    /// `tenants/{tenant}/applications/{application}`
    Application(Uuid, Uuid),
    /// `tenants/{tenant}/applications/{application}/keys/{key}`
    Key(Uuid, Uuid, Uuid),
    /// `tenants/{tenant}/groups/{group}`
    Group(Uuid, Uuid),
    /// `tenants/{tenant}/invitations/{invitation}`
    Invitation(Uuid, Uuid),
    /// `tenants/{tenant}/domains/{domain}`
    Domain(Uuid, Uuid),
    /// `identities/{identity}`
    Identity(Uuid),
    /// `identities/{identity}/sessions/{session}`
    IdentitySession(Uuid, Uuid),
    /// `accounts/{account}`
    Account(Uuid),
    /// `accounts/{account}/members/{member}`
    Member(Uuid, Uuid),
    /// `accounts/{account}/tenantAssociations/{tenant}`
    TenantAssociation(Uuid, Uuid),
    /// `agreements/{agreement}`
    Agreement(Uuid),
    /// `networkMemberships/{network_membership}`
    NetworkMembership(Uuid),
    /// `accounts/{account}/acceptances/{acceptance}`
    Acceptance(Uuid, Uuid),
    /// `tenants/{tenant}/acceptances/{acceptance}`
    TenantAcceptance(Uuid, Uuid),
    /// `accounts/{account}/documents/{document}`
    Document(Uuid, Uuid),
    /// `documents/{document}`: its uploader's alone
    OwnDocument(Uuid),
    /// `accounts/{account}/offers/{offer}`
    Offer(Uuid, Uuid),
    /// `accounts/{account}/competencies/{competency}`
    Competency(Uuid, Uuid),
    /// `accounts/{account}/packages/{package}`
    Package(Uuid, Uuid),
    /// `accounts/{account}/benefits/{benefit}`
    Benefit(Uuid, Uuid),
    /// `accounts/{account}/benefits/{benefit}/assignments/{assignment}`
    BenefitAssignment(Uuid, Uuid, Uuid),
    /// `accounts/{account}/relationships/{relationship}`
    Relationship(Uuid, Uuid),
    /// `nameClaims/{name_claim}`
    NameClaim(Uuid),
    /// `packageOffers/{package_offer}`
    PackageOffer(Uuid),
    /// `operator/recoveryCases/{recovery_case}`
    RecoveryCase(Uuid),
    /// `operator`
    Operator,
    /// `operator/staff/{staff}`
    Staff(Uuid),
    /// `operator/mails/{mail}`
    Mail(Uuid),
    /// `operator/reservedNames/{reserved_name}`
    ReservedName(Uuid),
    /// `operator/reviews/{review}`
    Review(Uuid),
    /// `operator/policies/{policy}`
    Policy(Uuid),
}

impl Name {
    /// Parses a name; None if it is none of a resource that is known here. IDs are hyphenated lower-case UUIDs.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let mut parts = [""; 6];
        let mut count = 0;
        for part in text.split('/') {
            *parts.get_mut(count)? = part;
            count += 1;
        }
        let parts = parts.get(..count)?;
        Some(match *parts {
            ["tenants", t] => Self::Tenant(tenant(t)?),
            ["tenants", t, "users", u] => Self::User(tenant(t)?, id(u)?),
            ["tenants", t, "users", u, "sessions", s] => Self::Session(tenant(t)?, id(u)?, id(s)?),
            ["tenants", t, "applications", a] => Self::Application(tenant(t)?, id(a)?),
            ["tenants", t, "applications", a, "keys", k] => Self::Key(tenant(t)?, id(a)?, id(k)?),
            ["tenants", t, "groups", g] => Self::Group(tenant(t)?, id(g)?),
            ["tenants", t, "invitations", i] => Self::Invitation(tenant(t)?, id(i)?),
            ["tenants", t, "domains", d] => Self::Domain(tenant(t)?, id(d)?),
            ["identities", i] => Self::Identity(id(i)?),
            ["identities", i, "sessions", s] => Self::IdentitySession(id(i)?, id(s)?),
            ["accounts", a] => Self::Account(id(a)?),
            ["accounts", a, "members", m] => Self::Member(id(a)?, id(m)?),
            ["accounts", a, "tenantAssociations", t] => Self::TenantAssociation(id(a)?, id(t)?),
            ["networkMemberships", m] => Self::NetworkMembership(id(m)?),
            ["agreements", a] => Self::Agreement(id(a)?),
            ["accounts", a, "acceptances", x] => Self::Acceptance(id(a)?, id(x)?),
            ["tenants", t, "acceptances", x] => Self::TenantAcceptance(tenant(t)?, id(x)?),
            ["accounts", a, "documents", d] => Self::Document(id(a)?, id(d)?),
            ["documents", d] => Self::OwnDocument(id(d)?),
            ["accounts", a, "offers", o] => Self::Offer(id(a)?, id(o)?),
            ["accounts", a, "competencies", c] => Self::Competency(id(a)?, id(c)?),
            ["accounts", a, "packages", p] => Self::Package(id(a)?, id(p)?),
            ["accounts", a, "benefits", b] => Self::Benefit(id(a)?, id(b)?),
            ["accounts", a, "benefits", b, "assignments", x] => {
                Self::BenefitAssignment(id(a)?, id(b)?, id(x)?)
            }
            ["accounts", a, "relationships", r] => Self::Relationship(id(a)?, id(r)?),
            ["nameClaims", c] => Self::NameClaim(id(c)?),
            ["packageOffers", p] => Self::PackageOffer(id(p)?),
            ["operator", "recoveryCases", c] => Self::RecoveryCase(id(c)?),
            ["operator"] => Self::Operator,
            ["operator", "staff", s] => Self::Staff(id(s)?),
            ["operator", "mails", m] => Self::Mail(id(m)?),
            ["operator", "reservedNames", n] => Self::ReservedName(id(n)?),
            ["operator", "reviews", r] => Self::Review(id(r)?),
            ["operator", "policies", p] => Self::Policy(id(p)?),
            _ => return None,
        })
    }

    /// The resource type, as the protos name it.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Tenant(_) => "entente.dev/Tenant",
            Self::User(..) => "entente.dev/User",
            Self::Session(..) => "entente.dev/Session",
            Self::Application(..) => "entente.dev/Application",
            Self::Key(..) => "entente.dev/Key",
            Self::Group(..) => "entente.dev/Group",
            Self::Invitation(..) => "entente.dev/Invitation",
            Self::Domain(..) => "entente.dev/Domain",
            Self::Identity(_) => "entente.dev/Identity",
            Self::IdentitySession(..) => "entente.dev/Session",
            Self::Account(_) => "entente.dev/Account",
            Self::Member(..) => "entente.dev/Member",
            Self::TenantAssociation(..) => "entente.dev/TenantAssociation",
            Self::Agreement(_) => "entente.dev/Agreement",
            Self::NetworkMembership(_) => "entente.dev/NetworkMembership",
            Self::Acceptance(..) | Self::TenantAcceptance(..) => "entente.dev/Acceptance",
            Self::Document(..) | Self::OwnDocument(_) => "entente.dev/Document",
            Self::RecoveryCase(_) => "entente.dev/RecoveryCase",
            Self::Operator => "entente.dev/Operator",
            Self::Staff(_) => "entente.dev/Staff",
            Self::Mail(_) => "entente.dev/Mail",
            Self::ReservedName(_) => "entente.dev/ReservedName",
            Self::Review(_) => "entente.dev/Review",
            Self::Policy(_) => "entente.dev/Policy",
            Self::Offer(..) => "entente.dev/Offer",
            Self::Competency(..) => "entente.dev/Competency",
            Self::Package(..) => "entente.dev/Package",
            Self::Benefit(..) => "entente.dev/Benefit",
            Self::BenefitAssignment(..) => "entente.dev/BenefitAssignment",
            Self::Relationship(..) => "entente.dev/Relationship",
            Self::NameClaim(_) => "entente.dev/NameClaim",
            Self::PackageOffer(_) => "entente.dev/PackageOffer",
        }
    }

    /// Where rights on the resource are held.
    #[must_use]
    pub fn scope(&self) -> ScopeKey {
        match *self {
            Self::Tenant(t)
            | Self::User(t, _)
            | Self::Session(t, ..)
            | Self::Application(t, _)
            | Self::Key(t, ..)
            | Self::Group(t, _)
            | Self::Invitation(t, _)
            | Self::Domain(t, _)
            | Self::TenantAcceptance(t, _) => ScopeKey::Tenant(t),
            Self::Identity(i) | Self::IdentitySession(i, _) => ScopeKey::Identity(i),
            Self::Account(a)
            | Self::Member(a, _)
            | Self::TenantAssociation(a, _)
            | Self::Acceptance(a, _)
            | Self::Offer(a, _)
            | Self::Competency(a, _)
            | Self::Package(a, _)
            | Self::Benefit(a, _)
            | Self::BenefitAssignment(a, ..)
            | Self::Relationship(a, _)
            | Self::Document(a, _) => ScopeKey::Account(a),
            // Memberships of the network, documents of nobody's account and claims on names are the operator's to keep; what is told of one goes
            // to whoever joined, uploaded or is a party.
            Self::Operator
            | Self::OwnDocument(_)
            | Self::NameClaim(_)
            | Self::RecoveryCase(_)
            | Self::Agreement(_)
            | Self::NetworkMembership(_)
            | Self::Staff(_)
            | Self::Mail(_)
            | Self::ReservedName(_)
            | Self::Review(_)
            | Self::PackageOffer(_)
            | Self::Policy(_) => ScopeKey::Operator,
        }
    }

    /// The last ID in the name; nil for `operator`.
    #[must_use]
    pub fn id(&self) -> Uuid {
        match *self {
            Self::Tenant(x)
            | Self::User(_, x)
            | Self::Session(_, _, x)
            | Self::Application(_, x)
            | Self::Key(_, _, x)
            | Self::Group(_, x)
            | Self::Invitation(_, x)
            | Self::Domain(_, x)
            | Self::Identity(x)
            | Self::IdentitySession(_, x)
            | Self::Account(x)
            | Self::Member(_, x)
            | Self::TenantAssociation(_, x)
            | Self::Agreement(x)
            | Self::NetworkMembership(x)
            | Self::Acceptance(_, x)
            | Self::TenantAcceptance(_, x)
            | Self::Document(_, x)
            | Self::OwnDocument(x)
            | Self::RecoveryCase(x)
            | Self::Staff(x)
            | Self::Mail(x)
            | Self::ReservedName(x)
            | Self::Review(x)
            | Self::Policy(x)
            | Self::Competency(_, x)
            | Self::Package(_, x)
            | Self::Benefit(_, x)
            | Self::BenefitAssignment(_, _, x)
            | Self::PackageOffer(x)
            | Self::NameClaim(x)
            | Self::Relationship(_, x)
            | Self::Offer(_, x) => x,
            Self::Operator => Uuid::nil(),
        }
    }
}

/// A tenant's ID. Nil is the realm of personal identities, which is none.
fn tenant(text: &str) -> Option<Uuid> {
    id(text).filter(|id| !id.is_nil())
}

fn id(text: &str) -> Option<Uuid> {
    // One spelling a resource: no braces, no urn, no capitals.
    if text.len() != 36 || text.bytes().any(|b| b.is_ascii_uppercase()) {
        return None;
    }
    Uuid::try_parse(text).ok()
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tenant(t) => write!(f, "tenants/{t}"),
            Self::User(t, u) => write!(f, "tenants/{t}/users/{u}"),
            Self::Session(t, u, s) => write!(f, "tenants/{t}/users/{u}/sessions/{s}"),
            Self::Application(t, a) => write!(f, "tenants/{t}/applications/{a}"),
            Self::Key(t, a, k) => write!(f, "tenants/{t}/applications/{a}/keys/{k}"),
            Self::Group(t, g) => write!(f, "tenants/{t}/groups/{g}"),
            Self::Invitation(t, i) => write!(f, "tenants/{t}/invitations/{i}"),
            Self::Domain(t, d) => write!(f, "tenants/{t}/domains/{d}"),
            Self::Identity(i) => write!(f, "identities/{i}"),
            Self::IdentitySession(i, s) => write!(f, "identities/{i}/sessions/{s}"),
            Self::Account(a) => write!(f, "accounts/{a}"),
            Self::Member(a, m) => write!(f, "accounts/{a}/members/{m}"),
            Self::TenantAssociation(a, t) => write!(f, "accounts/{a}/tenantAssociations/{t}"),
            Self::Agreement(a) => write!(f, "agreements/{a}"),
            Self::NetworkMembership(m) => write!(f, "networkMemberships/{m}"),
            Self::Acceptance(a, x) => write!(f, "accounts/{a}/acceptances/{x}"),
            Self::TenantAcceptance(t, x) => write!(f, "tenants/{t}/acceptances/{x}"),
            Self::Document(a, d) => write!(f, "accounts/{a}/documents/{d}"),
            Self::OwnDocument(d) => write!(f, "documents/{d}"),
            Self::RecoveryCase(c) => write!(f, "operator/recoveryCases/{c}"),
            Self::Operator => f.write_str("operator"),
            Self::Staff(s) => write!(f, "operator/staff/{s}"),
            Self::Mail(m) => write!(f, "operator/mails/{m}"),
            Self::ReservedName(n) => write!(f, "operator/reservedNames/{n}"),
            Self::Review(r) => write!(f, "operator/reviews/{r}"),
            Self::Policy(p) => write!(f, "operator/policies/{p}"),
            Self::Offer(a, o) => write!(f, "accounts/{a}/offers/{o}"),
            Self::Competency(a, c) => write!(f, "accounts/{a}/competencies/{c}"),
            Self::Package(a, p) => write!(f, "accounts/{a}/packages/{p}"),
            Self::Benefit(a, b) => write!(f, "accounts/{a}/benefits/{b}"),
            Self::BenefitAssignment(a, b, x) => {
                write!(f, "accounts/{a}/benefits/{b}/assignments/{x}")
            }
            Self::Relationship(a, r) => write!(f, "accounts/{a}/relationships/{r}"),
            Self::NameClaim(c) => write!(f, "nameClaims/{c}"),
            Self::PackageOffer(p) => write!(f, "packageOffers/{p}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_have_one_spelling() {
        let id = Uuid::from_u128(0xabcdef);
        for name in [
            Name::Tenant(id),
            Name::Session(id, id, id),
            Name::Group(id, id),
            Name::IdentitySession(id, id),
            Name::Member(id, id),
            Name::Document(id, id),
            Name::OwnDocument(id),
            Name::Relationship(id, id),
            Name::Operator,
            Name::Staff(id),
        ] {
            assert_eq!(Name::parse(&name.to_string()), Some(name));
        }
        assert_eq!(Name::parse(&Name::Tenant(Uuid::nil()).to_string()), None);
        let text = Name::Tenant(id).to_string();
        assert_eq!(Name::parse(&text.to_uppercase()), None);
        assert_eq!(Name::parse(&format!("{text}/")), None);
        assert_eq!(Name::parse(&format!("/{text}")), None);
        assert_eq!(
            Name::parse("tenants/{00000000-0000-0000-0000-000000abcdef}"),
            None
        );
        assert_eq!(Name::parse(&"a/".repeat(100)), None);
    }
}
