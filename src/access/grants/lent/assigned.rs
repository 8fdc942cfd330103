//! Within the partner: to whom of an account's people go what its relationships lend (REL-9, REL-22).

use sea_orm::{ConnectionTrait, FromQueryResult, Value};
use uuid::Uuid;

use super::{HELPDESK_ADMIN, HELPDESK_AGENT, delegation};
use crate::{
    access::{
        grants::{GLOBAL_ADMIN, groups, is_associated, of_lacking},
        roles::{self, ACCOUNT_ROLES, Permission, Permissions, TENANT_ROLES},
    },
    app::Tx,
    error::{Error, Reason, Result},
    names::Name,
    store::{scope_key::ScopeKey, sql},
};

/// Assignments of one relationship.
pub const MOST_ASSIGNMENTS: usize = 100;

/// To whom of a partner's people lent roles go on (REL-9).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Holder {
    /// Whoever has this account role: its bit, of `ADMIN_AGENT` or `HELPDESK_AGENT`.
    Role(i64),
    /// Those of this group who may act for customers: its tenant, its ID.
    Group(Uuid, Uuid),
}

impl Holder {
    fn columns(self) -> (i64, Uuid) {
        match self {
            Self::Role(bit) => (bit, Uuid::nil()),
            Self::Group(_, id) => (0, id),
        }
    }
}

/// Gives a holder these of the roles that a relationship lends, in place of what it had; 0 takes them away. The account is locked. Gives what
/// it had.
///
/// # Errors
/// `WRONG_STATE` for a relationship that isn't in force, `CANNOT_GRANT_WHAT_YOU_LACK` for roles that it doesn't lend, `NOT_ASSIGNABLE` for
/// what a helpdesk agent may not have, `NOT_IN_ASSOCIATED_TENANT`, `NOT_FOUND` for a group that isn't there, `TOO_MANY_ASSIGNMENTS`; those
/// of the database.
pub async fn assign(tx: &mut Tx, relationship: Uuid, to: Holder, roles: i64) -> Result<i64> {
    let found = delegation(tx.db(), relationship).await?;
    let Some(lent) = found.filter(|lent| tx.now() < lent.end_time) else {
        return Err(Error::precondition(Reason::WrongState).with("state", "NOT_IN_FORCE"));
    };
    tx.lock([
        ScopeKey::Tenant(lent.tenant),
        ScopeKey::Account(lent.account),
    ])
    .await?;
    let names = |bits: i64| roles::names_of(TENANT_ROLES, bits).join(", ");
    let beyond = roles & !lent.roles;
    if beyond != 0 {
        return Err(Error::refused(Reason::CannotGrantWhatYouLack).with("lacking", names(beyond)));
    }
    let beyond = roles & !HELPDESK_ADMIN;
    if to == Holder::Role(HELPDESK_AGENT) && beyond != 0 {
        let what = format!("{} by HELPDESK_AGENT", names(beyond));
        return Err(Error::precondition(Reason::NotAssignable).with("lacking", what));
    }
    if let Holder::Group(tenant, group) = to {
        tx.lock([ScopeKey::Tenant(tenant)]).await?;
        if roles & GLOBAL_ADMIN != 0 && groups::is_synchronized(tx.db(), group).await? {
            let what = "GLOBAL_ADMIN by a synchronised group";
            return Err(Error::precondition(Reason::NotAssignable).with("lacking", what));
        }
        let sql = "SELECT 1 AS one FROM user_groups WHERE id = $1 AND tenant_id = $2";
        let values: [Value; 2] = [group.into(), tenant.into()];
        if roles != 0 && sql::row(tx.db(), sql, values).await?.is_none() {
            let name = Name::Group(tenant, group).to_string();
            return Err(Error::not_found("entente.dev/Group", name));
        }
        if roles != 0 && !is_associated(tx.db(), lent.account, tenant).await? {
            return Err(Error::precondition(Reason::NotInAssociatedTenant)
                .with("tenant", Name::Tenant(tenant).to_string()));
        }
    }
    let (holder_role, holder_id) = to.columns();
    let before = assignments(tx.db(), relationship).await?;
    let had = before
        .iter()
        .find(|a| a.holder() == (holder_role, holder_id));
    let had = had.map_or(0, |a| a.roles);
    if had == 0 && roles != 0 && before.len() >= MOST_ASSIGNMENTS {
        return Err(Error::exhausted(Reason::TooManyAssignments, None)
            .with("most", MOST_ASSIGNMENTS.to_string()));
    }
    let key: [Value; 3] = [relationship.into(), holder_role.into(), holder_id.into()];
    let sql = "DELETE FROM delegation_assignments WHERE relationship_id = $1 AND holder_role = $2 AND holder_id = $3";
    sql::execute(tx.db(), sql, key).await?;
    if roles != 0 {
        let sql = "INSERT INTO delegation_assignments (relationship_id, holder_role, holder_id, tenant_id, roles, create_time) \
                   VALUES ($1, $2, $3, $4, $5, $6)";
        let values: [Value; 6] = [
            relationship.into(),
            holder_role.into(),
            holder_id.into(),
            lent.tenant.into(),
            roles.into(),
            tx.now().into(),
        ];
        sql::execute(tx.db(), sql, values).await?;
    }
    Ok(had)
}

/// An assignment as stored.
#[derive(Clone, Debug, FromQueryResult)]
pub struct Assignment {
    /// The bit of the account role; 0 for a group.
    pub holder_role: i64,
    /// The group; nil for a role.
    pub holder_id: Uuid,
    /// The group's tenant; none for a role.
    pub group_tenant_id: Option<Uuid>,
    /// Bits of directory roles.
    pub roles: i64,
    /// When it was made.
    pub create_time: i64,
}

impl Assignment {
    fn holder(&self) -> (i64, Uuid) {
        (self.holder_role, self.holder_id)
    }

    /// The names of the account role, or of the group.
    #[must_use]
    pub fn holder_name(&self) -> String {
        match self.group_tenant_id {
            Some(tenant) => Name::Group(tenant, self.holder_id).to_string(),
            None => roles::names_of(ACCOUNT_ROLES, self.holder_role).join(", "),
        }
    }
}

/// To whom a relationship's roles are assigned; at most `MOST_ASSIGNMENTS`.
///
/// # Errors
/// Those of the database.
pub async fn assignments<C: ConnectionTrait>(
    db: &C,
    relationship: Uuid,
) -> Result<Vec<Assignment>> {
    let sql = "SELECT a.holder_role, a.holder_id, g.tenant_id AS group_tenant_id, a.roles, a.create_time FROM delegation_assignments a \
               LEFT JOIN user_groups g ON g.id = a.holder_id WHERE a.relationship_id = $1 ORDER BY a.holder_role, a.holder_id";
    sql::all::<Assignment, _>(db, sql, [relationship.into()]).await
}

/// Takes away what an account's relationships lend to groups of a tenant that leaves the account, which is locked.
///
/// # Errors
/// Those of the database.
pub(in crate::access::grants) async fn unassign_tenant(
    tx: &mut Tx,
    account: Uuid,
    tenant: Uuid,
) -> Result<()> {
    let sql = "DELETE FROM delegation_assignments WHERE holder_role = 0 AND holder_id IN (SELECT id FROM user_groups WHERE tenant_id = $2) \
               AND relationship_id IN (SELECT relationship_id FROM delegations WHERE account_id = $1)";
    let values: [Value; 2] = [account.into(), tenant.into()];
    sql::execute(tx.db(), sql, values).await?;
    Ok(())
}

/// Takes away what relationships lend to a group that is deleted; the audit of their accounts tells of it.
///
/// # Errors
/// Those of the database.
pub(in crate::access::grants) async fn unassign_group(tx: &mut Tx, group: Uuid) -> Result<()> {
    let accounts = accounts_of_groups(tx, &[group]).await?;
    if accounts.is_empty() {
        return Ok(());
    }
    tx.lock(accounts.iter().copied()).await?;
    let sql = "DELETE FROM delegation_assignments WHERE holder_role = 0 AND holder_id = $1";
    sql::execute(tx.db(), sql, [group.into()]).await?;
    for account in accounts {
        tx.touch(account);
    }
    Ok(())
}

#[derive(FromQueryResult)]
struct OfGroup {
    account_id: Uuid,
}

/// The accounts whose relationships lend something to these groups.
async fn accounts_of_groups(tx: &Tx, groups: &[Uuid]) -> Result<Vec<ScopeKey>> {
    let sql = format!(
        "SELECT DISTINCT d.account_id FROM delegation_assignments a JOIN delegations d ON d.relationship_id = a.relationship_id \
         WHERE a.holder_role = 0 AND a.holder_id IN ({})",
        sql::in_ids(tx.db(), 1)
    );
    let found = sql::all::<OfGroup, _>(tx.db(), sql, [sql::ids(groups)]).await?;
    Ok(found
        .iter()
        .map(|of| ScopeKey::Account(of.account_id))
        .collect())
}

/// Demands of a caller who puts somebody into groups that lent roles are assigned to: `relationships.assign` on the accounts, as if it gave
/// them (REL-22, ROL-7). The accounts are locked.
///
/// # Errors
/// `CANNOT_GRANT_WHAT_YOU_LACK`, `RIGHTS_ASLEEP` or `RIGHTS_BEGIN_LATER` if it is held but not awake; those of the database.
pub(in crate::access::grants) async fn demand_of_joining(
    tx: &mut Tx,
    groups: &[Uuid],
) -> Result<()> {
    let accounts = accounts_of_groups(tx, groups).await?;
    if accounts.is_empty() {
        return Ok(());
    }
    tx.lock(accounts.iter().copied()).await?;
    for scope in accounts {
        if !tx
            .caller_permissions(scope)
            .await?
            .has(Permission::RelationshipsAssign)
        {
            let refused = Error::refused(Reason::CannotGrantWhatYouLack)
                .with("lacking", Permission::RelationshipsAssign.name())
                .with("accounts", scope.to_string());
            let missing = Permissions::of(&[Permission::RelationshipsAssign]);
            return Err(of_lacking(tx, &[(scope, missing)], refused).await?);
        }
    }
    Ok(())
}
