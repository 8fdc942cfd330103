//! What customers lend to partners (REL-1, REL-6, REL-8 to REL-10, REL-14, REL-22). A relationship lends directory roles of the customer's
//! tenant to an account, until its end; within the account they go on to whom they are assigned; and of the roles' permissions, only those that
//! can be lent are. Nobody holds them: a call is proven by one relationship, which it names.

mod assigned;
mod known;

use sea_orm::{ConnectionTrait, FromQueryResult, Value};
use uuid::Uuid;

pub use self::{
    assigned::{Assignment, Holder, MOST_ASSIGNMENTS, assign, assignments},
    known::{
        Known, forget_given_address, has_own_admin, is_given_address, note_known, note_own_address,
        note_user, users_made,
    },
};
pub(super) use self::{
    assigned::{demand_of_joining, unassign_group, unassign_tenant},
    known::{ready, ready_users},
};
use super::{ACTIVE, ADMIN_AGENT, HeldOf, Set, check_may_change};
use crate::{
    access::{
        account_state,
        cache::Facts,
        principal::{Kind, Principal},
        roles::{self, LENDABLE, Permission, Permissions, TENANT_ROLES},
    },
    app::Tx,
    env::Micros,
    error::{Error, Reason, Result},
    names::Name,
    proto::{
        access::{AccountAct, AccountRole},
        directory::DirectoryRole,
    },
    store::{
        memory::{Fact, Found},
        scope_key::ScopeKey,
        sql,
    },
};

/// The bit of the account role `HELPDESK_AGENT`.
pub const HELPDESK_AGENT: i64 = 1 << AccountRole::HelpdeskAgent as i64;
/// The bit of the directory role `HELPDESK_ADMIN`.
pub const HELPDESK_ADMIN: i64 = 1 << DirectoryRole::HelpdeskAdmin as i64;

/// Relationships that one customer has in force.
pub const MOST_OF_A_CUSTOMER: i64 = 1_000;

/// A scope that is lent to a caller: by whom, through what, and what of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lent {
    /// The relationship.
    pub relationship: Uuid,
    /// The partner's account.
    pub account: Uuid,
    /// The customer's tenant.
    pub tenant: Uuid,
    /// Bits of the directory roles.
    pub roles: i64,
    /// What they allow to a partner.
    pub permissions: Permissions,
}

impl Lent {
    /// What these directory roles lend.
    #[must_use]
    pub fn of((account, relationship): (Uuid, Uuid), tenant: Uuid, roles: i64) -> Self {
        Self {
            relationship,
            account,
            tenant,
            roles,
            permissions: lendable(roles),
        }
    }

    /// No more than a service may do on behalf of people.
    #[must_use]
    pub fn within(self, ceiling: Option<Permissions>) -> Self {
        let permissions = self.permissions;
        Self {
            permissions: ceiling.map_or(permissions, |c| permissions.within(c)),
            ..self
        }
    }

    /// The relationship's name, which names the account too.
    #[must_use]
    pub fn name(&self) -> Name {
        Name::Relationship(self.account, self.relationship)
    }

    /// What it lends on a scope.
    #[must_use]
    pub fn on(&self, scope: ScopeKey) -> Permissions {
        if scope == ScopeKey::Tenant(self.tenant) {
            self.permissions
        } else {
            Permissions::NONE
        }
    }
}

/// What directory roles allow to a partner that they are lent to (REL-22).
#[must_use]
pub fn lendable(roles: i64) -> Permissions {
    roles::permissions_of(TENANT_ROLES, roles).within(LENDABLE)
}

/// One way in which a relationship's roles can reach a person.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Way {
    /// The relationship.
    pub relationship: Uuid,
    /// The partner's account.
    pub account: Uuid,
    /// The account's state.
    pub account_state: i64,
    /// Bits of the directory roles that the customer granted.
    pub granted: i64,
    /// When that ends.
    pub end_time: Micros,
    /// The bit of the account role that they are assigned to; 0 for a group that the person is in.
    pub holder_role: i64,
    /// Bits of the directory roles that are assigned.
    pub roles: i64,
}

/// The fact of how a tenant's roles can reach a person by relationships of accounts on which the person holds anything; what it holds there is
/// another fact.
#[derive(Clone, Copy, Debug)]
pub struct WaysTo {
    /// The person.
    pub principal: Uuid,
    /// The customer's tenant.
    pub tenant: Uuid,
}

#[derive(FromQueryResult)]
struct WayRow {
    relationship_id: Uuid,
    account_id: Uuid,
    account_state: i64,
    granted: i64,
    end_time: i64,
    holder_role: i64,
    roles: i64,
    joined: Option<Uuid>,
}

impl Fact for WaysTo {
    type Value = Vec<Way>;

    fn key(&self) -> [Uuid; 4] {
        [
            self.principal,
            self.tenant,
            Uuid::from_u128(0x1E47),
            Uuid::nil(),
        ]
    }

    async fn load<C: ConnectionTrait>(&self, db: &C) -> Result<Found<Vec<Way>>> {
        // To strangers, whoever they ask about, it says nothing and does the same (COM-2).
        let sql = "SELECT d.relationship_id, d.account_id, o.state AS account_state, d.roles AS granted, d.end_time, a.holder_role, a.roles, \
                   m.group_id AS joined FROM ( \
                     SELECT scope_id FROM grants WHERE principal_id = $2 AND scope_kind = 2 \
                     UNION SELECT scope_id FROM group_rights WHERE user_id = $2 AND scope_kind = 2 \
                   ) h JOIN delegations d ON d.account_id = h.scope_id AND d.tenant_id = $1 AND d.roles <> 0 \
                   JOIN tenants t ON t.id = d.tenant_id AND t.state = $3 JOIN accounts o ON o.id = d.account_id \
                   JOIN delegation_assignments a ON a.relationship_id = d.relationship_id \
                   LEFT JOIN group_members m ON m.group_id = a.holder_id AND m.user_id = $2 \
                   ORDER BY d.relationship_id, a.holder_role, a.holder_id";
        let values: [Value; 3] = [self.tenant.into(), self.principal.into(), ACTIVE.into()];
        let rows = sql::all::<WayRow, _>(db, sql, values).await?;
        // Who joins a group tells nothing, so what depends on it isn't remembered.
        let by_groups = rows.iter().any(|row| row.holder_role == 0);
        let mut deps = vec![self.principal, self.tenant];
        let ways: Vec<Way> = rows
            .into_iter()
            .filter(|row| row.holder_role != 0 || row.joined.is_some())
            .map(|row| Way {
                relationship: row.relationship_id,
                account: row.account_id,
                account_state: row.account_state,
                granted: row.granted,
                end_time: row.end_time,
                holder_role: row.holder_role,
                roles: row.roles,
            })
            .collect();
        for way in &ways {
            if !deps.contains(&way.account) {
                deps.push(way.account);
            }
        }
        Ok(Found {
            keep: !by_groups && !ways.is_empty(),
            deps,
            bytes: ways.capacity() * size_of::<Way>(),
            value: ways,
        })
    }
}

/// The directory roles that reach somebody who has these roles on an account, and may act for customers there, by one of its relationships
/// now (REL-9).
#[must_use]
pub fn reaching(
    ways: &[Way],
    (account, relationship): (Uuid, Uuid),
    account_roles: i64,
    now: Micros,
) -> i64 {
    // Who may act without being an ADMIN_AGENT is a helpdesk agent, whatever group it is in.
    let most = if account_roles & ADMIN_AGENT == 0 {
        HELPDESK_ADMIN
    } else {
        i64::MAX
    };
    ways.iter()
        .filter(|way| (way.account, way.relationship) == (account, relationship))
        .filter(|way| now < way.end_time)
        .filter(|way| way.holder_role == 0 || way.holder_role & account_roles != 0)
        .fold(0, |roles, way| {
            let of_way = if way.holder_role == HELPDESK_AGENT {
                HELPDESK_ADMIN
            } else {
                i64::MAX
            };
            roles | (way.roles & way.granted & most & of_way)
        })
}

/// All that is lent to a person on a tenant now, by whatever relationship.
///
/// # Errors
/// Those of the database.
pub async fn lent_to<F: Facts>(
    db: &F,
    who: Principal,
    tenant: Uuid,
    asleep_until: Option<Micros>,
    now: Micros,
) -> Result<Vec<Lent>> {
    if who.tenant == tenant || !who.is_person() {
        return Ok(Vec::new());
    }
    let principal = who.id;
    let ways = db.know(WaysTo { principal, tenant }).await?;
    let mut all: Vec<Lent> = Vec::new();
    for way in ways.iter() {
        let by = (way.account, way.relationship);
        if all
            .iter()
            .any(|lent| (lent.account, lent.relationship) == by)
        {
            continue;
        }
        let scope = ScopeKey::Account(way.account);
        let held = db
            .know(HeldOf {
                principal,
                scope,
                home: Some(who.tenant),
            })
            .await?;
        let may_act = account_state::allows(way.account_state, AccountAct::Trade)
            && held
                .awake(scope, asleep_until, now)
                .has(Permission::DelegatedAct);
        let roles = if may_act {
            reaching(&ways, by, held.roles, now)
        } else {
            0
        };
        all.push(Lent::of(by, tenant, roles));
    }
    all.retain(|lent| lent.roles != 0);
    Ok(all)
}

// ---- lending

/// What a customer lends.
#[derive(Clone, Copy, Debug)]
pub struct Delegation {
    /// The relationship.
    pub relationship: Uuid,
    /// The partner's account.
    pub account: Uuid,
    /// The customer's tenant.
    pub tenant: Uuid,
    /// Bits of directory roles; 0 for a relationship that lends nothing (any more).
    pub roles: i64,
    /// When it ends.
    pub end_time: Micros,
}

/// Puts a relationship in force. The caller must hold in the customer's tenant what it lends (ROL-7).
///
/// # Errors
/// `CANNOT_GRANT_WHAT_YOU_LACK`, `TOO_MANY_RELATIONSHIPS`; those of the database.
pub async fn lend(tx: &mut Tx, new: Delegation) -> Result<()> {
    tx.lock([ScopeKey::Tenant(new.tenant), ScopeKey::Account(new.account)])
        .await?;
    let to = Principal {
        kind: Kind::Group,
        id: new.account,
        tenant: Uuid::nil(),
    };
    let scope = ScopeKey::Tenant(new.tenant);
    check_may_change(tx, scope, to, Set::default(), Set::of_roles(new.roles)).await?;
    let sql = "SELECT COUNT(*) AS n FROM delegations WHERE tenant_id = $1";
    let n: i64 = match sql::row(tx.db(), sql, [new.tenant.into()]).await? {
        Some(row) => row.try_get("", "n")?,
        None => 0,
    };
    if n >= MOST_OF_A_CUSTOMER {
        return Err(Error::exhausted(Reason::TooManyRelationships, None)
            .with("most", MOST_OF_A_CUSTOMER.to_string()));
    }
    let sql = "INSERT INTO delegations (relationship_id, account_id, tenant_id, roles, end_time) VALUES ($1, $2, $3, $4, $5)";
    let values: [Value; 5] = [
        new.relationship.into(),
        new.account.into(),
        new.tenant.into(),
        new.roles.into(),
        new.end_time.into(),
    ];
    sql::execute(tx.db(), sql, values).await?;
    Ok(())
}

/// Takes the roles that a relationship lends back, with all that was assigned of them; it stays in force (REL-8). Both scopes are locked.
///
/// # Errors
/// Those of the database.
pub async fn take_back(tx: &mut Tx, relationship: Uuid) -> Result<()> {
    for sql in [
        "UPDATE delegations SET roles = 0 WHERE relationship_id = $1",
        "DELETE FROM delegation_assignments WHERE relationship_id = $1",
    ] {
        sql::execute(tx.db(), sql, [relationship.into()]).await?;
    }
    Ok(())
}

/// Ends all that a relationship lends (REL-10). Both scopes are locked.
///
/// # Errors
/// Those of the database.
pub async fn end(tx: &mut Tx, relationship: Uuid) -> Result<()> {
    for sql in [
        "DELETE FROM delegations WHERE relationship_id = $1",
        "DELETE FROM delegation_assignments WHERE relationship_id = $1",
    ] {
        sql::execute(tx.db(), sql, [relationship.into()]).await?;
    }
    Ok(())
}

#[derive(FromQueryResult)]
struct InForce {
    relationship_id: Uuid,
    account_id: Uuid,
}

/// Relationships that a tenant has in force (TEN-7), at most so many.
///
/// # Errors
/// Those of the database.
pub async fn in_force<C: ConnectionTrait>(db: &C, tenant: Uuid, most: i64) -> Result<Vec<Name>> {
    let sql = "SELECT relationship_id, account_id FROM delegations WHERE tenant_id = $1 ORDER BY relationship_id LIMIT $2";
    let rows = sql::all::<InForce, _>(db, sql, [tenant.into(), most.into()]).await?;
    let name = |row: InForce| Name::Relationship(row.account_id, row.relationship_id);
    Ok(rows.into_iter().map(name).collect())
}

/// Whether a tenant has a relationship with an account in force.
///
/// # Errors
/// Those of the database.
pub async fn is_lent<C: ConnectionTrait>(db: &C, account: Uuid, tenant: Uuid) -> Result<bool> {
    let sql = "SELECT 1 AS one FROM delegations WHERE tenant_id = $1 AND account_id = $2 LIMIT 1";
    let values: [Value; 2] = [tenant.into(), account.into()];
    Ok(sql::row(db, sql, values).await?.is_some())
}

#[derive(FromQueryResult)]
struct DelegationRow {
    relationship_id: Uuid,
    account_id: Uuid,
    tenant_id: Uuid,
    roles: i64,
    end_time: i64,
}

/// What a relationship lends, if it is in force.
///
/// # Errors
/// Those of the database.
pub async fn delegation<C: ConnectionTrait>(
    db: &C,
    relationship: Uuid,
) -> Result<Option<Delegation>> {
    let sql = "SELECT relationship_id, account_id, tenant_id, roles, end_time FROM delegations WHERE relationship_id = $1";
    let row = sql::one::<DelegationRow, _>(db, sql, [relationship.into()]).await?;
    Ok(row.map(|row| Delegation {
        relationship: row.relationship_id,
        account: row.account_id,
        tenant: row.tenant_id,
        roles: row.roles,
        end_time: row.end_time,
    }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::access::{grants::GLOBAL_ADMIN, roles::Permission as P};

    const BILLING_ADMIN: i64 = 1 << DirectoryRole::BillingAdmin as i64;
    const ALL: i64 = GLOBAL_ADMIN | BILLING_ADMIN | HELPDESK_ADMIN;

    // proves REL-22
    #[test]
    fn roles_lend_what_partners_do_and_nothing_else() {
        let global = lendable(GLOBAL_ADMIN);
        for lent in [
            P::UsersRead,
            P::UsersCreate,
            P::UsersDisable,
            P::UsersResetPassword,
            P::DirectoryRolesAssign,
        ] {
            assert!(global.has(lent), "{}", lent.name());
        }
        for kept in [
            P::TenantDelete,
            P::AgreementsAccept,
            P::RelationshipsAnswer,
            P::RelationshipsGrantRoles,
            P::FederationManage,
            P::SyncManage,
            P::DomainsManage,
            P::UsersUpdate,
            P::GroupsManage,
            P::ApplicationsManage,
            P::AuditRead,
        ] {
            assert!(!global.has(kept), "{}", kept.name());
        }
        assert!(!lendable(HELPDESK_ADMIN).has(P::UsersCreate));
        assert!(lendable(HELPDESK_ADMIN).has(P::UsersResetPassword));
        assert_eq!(lendable(0), Permissions::NONE);
    }

    /// An account, and a relationship of it.
    const OURS: (Uuid, Uuid) = (Uuid::from_u128(2), Uuid::from_u128(1));

    fn way(holder_role: i64, roles: i64) -> Way {
        Way {
            relationship: OURS.1,
            account: OURS.0,
            account_state: 1,
            granted: GLOBAL_ADMIN | HELPDESK_ADMIN,
            end_time: 100,
            holder_role,
            roles,
        }
    }

    // proves REL-6, REL-9
    #[test]
    fn what_reaches_a_person_was_granted_and_assigned_and_fits_its_role() {
        let by = |ways: &[Way], account_roles| reaching(ways, OURS, account_roles, 99);
        let to_admins = [way(ADMIN_AGENT, ALL)];
        // Not more than the customer granted, whatever was assigned.
        assert_eq!(by(&to_admins, ADMIN_AGENT), GLOBAL_ADMIN | HELPDESK_ADMIN);
        assert_eq!(by(&to_admins, HELPDESK_AGENT), 0);
        let to_helpdesk = [way(HELPDESK_AGENT, ALL)];
        assert_eq!(by(&to_helpdesk, HELPDESK_AGENT), HELPDESK_ADMIN);
        assert_eq!(
            by(&to_helpdesk, HELPDESK_AGENT | ADMIN_AGENT),
            HELPDESK_ADMIN
        );
        // By a group, no more than the role of whoever is in it.
        let to_group = [way(0, ALL)];
        assert_eq!(by(&to_group, HELPDESK_AGENT), HELPDESK_ADMIN);
        assert_eq!(by(&to_group, ADMIN_AGENT), GLOBAL_ADMIN | HELPDESK_ADMIN);
        let both = [way(ADMIN_AGENT, GLOBAL_ADMIN), way(0, HELPDESK_ADMIN)];
        assert_eq!(by(&both, ADMIN_AGENT), GLOBAL_ADMIN | HELPDESK_ADMIN);
    }

    // proves REL-7, REL-10
    #[test]
    fn nothing_reaches_anybody_after_the_end_or_by_another_relationship_or_account() {
        let ways = [way(ADMIN_AGENT, GLOBAL_ADMIN)];
        let at = |by, now| reaching(&ways, by, ADMIN_AGENT, now);
        assert_eq!(at(OURS, 99), GLOBAL_ADMIN);
        assert_eq!(at(OURS, 100), 0);
        assert_eq!(at((OURS.0, Uuid::from_u128(3)), 99), 0);
        // Whoever acts for customers of another account doesn't by naming it.
        assert_eq!(at((Uuid::from_u128(3), OURS.1), 99), 0);
        assert_eq!(reaching(&[], OURS, ADMIN_AGENT, 0), 0);
    }

    // proves REL-14
    #[test]
    fn a_scope_is_lent_on_its_tenant_alone() {
        let lent = Lent::of(OURS, Uuid::from_u128(3), HELPDESK_ADMIN);
        let on = |scope| lent.on(scope).has(P::UsersResetPassword);
        assert!(on(ScopeKey::Tenant(Uuid::from_u128(3))));
        assert!(!on(ScopeKey::Tenant(Uuid::from_u128(2))));
        assert!(!on(ScopeKey::Account(Uuid::from_u128(3))) && !on(ScopeKey::Operator));
        assert_eq!(
            lent.name(),
            Name::Relationship(Uuid::from_u128(2), Uuid::from_u128(1))
        );
        // COM-16: a service does no more for a partner's people than its ceiling has.
        assert_eq!(lent.within(None), lent);
        let bounded = lent.within(Some(Permissions::of(&[P::UsersRead])));
        assert_eq!(bounded.permissions, Permissions::of(&[P::UsersRead]));
    }
}
