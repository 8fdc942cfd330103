//! The rows of `grants` that lie on the operator, read with the names of who holds them. They are written in `access/grants.rs` alone.

use sea_orm::{
    FromQueryResult, QueryFilter as _, QueryResult, QuerySelect as _, entity::prelude::*,
    sea_query::Expr,
};

use crate::{access::grants::Grant, store::scope_key::ScopeKey};

/// A grant.
#[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "grants")]
pub struct Model {
    #[sea_orm(primary_key, auto_increment = false)]
    pub scope_kind: i16,
    #[sea_orm(primary_key, auto_increment = false)]
    pub scope_id: Uuid,
    #[sea_orm(primary_key, auto_increment = false)]
    pub principal_id: Uuid,
    pub principal_kind: i16,
    pub tenant_id: Uuid,
    pub roles: i64,
    pub permissions: String,
    pub on_behalf_ceiling: String,
    pub display_name_fold: String,
    pub create_time: i64,
    pub update_time: i64,
    pub version: i64,
}

#[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
pub enum Relation {}

impl ActiveModelBehavior for ActiveModel {}

/// A grant, and the display name of who holds it.
#[derive(Clone, Debug)]
pub struct Staff {
    pub grant: Grant,
    pub display_name: String,
}

impl FromQueryResult for Staff {
    fn from_query_result(row: &QueryResult, prefix: &str) -> Result<Self, DbErr> {
        let grant = Grant::from_query_result(row, prefix)?;
        Ok(Self {
            grant,
            display_name: row.try_get(prefix, "display_name")?,
        })
    }
}

/// All staff.
pub fn all() -> Select<Entity> {
    let display_name = "COALESCE((SELECT u.display_name FROM users u WHERE u.id = grants.principal_id), \
                        (SELECT a.display_name FROM applications a WHERE a.id = grants.principal_id), '')";
    Entity::find()
        .expr_as(Expr::cust(display_name), "display_name")
        .filter(Column::ScopeKind.eq(ScopeKey::Operator.kind()))
        .filter(Column::ScopeId.eq(ScopeKey::Operator.id()))
}

/// The staff of an ID, which is that of the user or application.
pub async fn find<C: ConnectionTrait>(db: &C, id: Uuid) -> Result<Option<Staff>, DbErr> {
    all()
        .filter(Column::PrincipalId.eq(id))
        .into_model()
        .one(db)
        .await
}
