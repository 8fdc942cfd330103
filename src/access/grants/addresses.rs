//! Where people are reached by mail, also those who hold something on a scope: what is done to it is told there. A guest is reached where its
//! home is. A personal identity is reached at its name, and at the address that a case of recovery has proven for it, since whoever reads
//! only the old mailbox may be who took it away.

use sea_orm::{ConnectionTrait, FromQueryResult, Value};
use uuid::Uuid;

use crate::{
    error::Result,
    store::{list::fold, scope_key::ScopeKey, sql},
};

#[derive(FromQueryResult)]
struct Person {
    kind: i64,
    user_name: String,
    recovery_email: String,
}

/// A personal identity, in `users.kind`.
const IDENTITY: i64 = 3;

impl Person {
    fn addresses(self) -> Vec<String> {
        let mut all = Vec::with_capacity(2);
        if self.kind == IDENTITY {
            all.push(self.user_name);
        }
        let is_new = all
            .iter()
            .all(|one| fold(one) != fold(&self.recovery_email));
        if is_new && !self.recovery_email.is_empty() {
            all.push(self.recovery_email);
        }
        all
    }
}

/// Addresses of the people who hold any of these roles on a scope, directly or by groups, and can act; those of `most` people.
///
/// # Errors
/// Those of the database.
pub async fn addresses_of<C: ConnectionTrait>(
    db: &C,
    scope: ScopeKey,
    roles: i64,
    most: i64,
) -> Result<Vec<String>> {
    // On an account, what is held through a tenant counts while that is associated.
    let through = match scope {
        ScopeKey::Account(_) => {
            "WHERE c.kind = 3 OR EXISTS (SELECT 1 FROM associations a WHERE a.account_id = $2 AND a.tenant_id = h.tenant_id)"
        }
        _ => "",
    };
    let sql = format!(
        "SELECT DISTINCT c.id, CAST(c.kind AS bigint) AS kind, c.user_name, c.recovery_email FROM ( \
           SELECT principal_id AS person, tenant_id FROM grants WHERE scope_kind = $1 AND scope_id = $2 AND (roles & $3) <> 0 \
           UNION SELECT user_id AS person, tenant_id FROM group_rights WHERE scope_kind = $1 AND scope_id = $2 AND (roles & $3) <> 0 \
         ) h JOIN active_people p ON p.id = h.person JOIN users c ON c.id = p.credential_of {through} ORDER BY c.id LIMIT $4"
    );
    let values: [Value; 4] = [
        scope.kind().into(),
        scope.id().into(),
        roles.into(),
        most.into(),
    ];
    let people = sql::all::<Person, _>(db, sql, values).await?;
    Ok(people.into_iter().flat_map(Person::addresses).collect())
}

/// Where a person is reached; nowhere, if it is nobody any more.
///
/// # Errors
/// Those of the database.
pub async fn addresses_of_person<C: ConnectionTrait>(db: &C, id: Uuid) -> Result<Vec<String>> {
    let sql = "SELECT CAST(kind AS bigint) AS kind, user_name, recovery_email FROM users WHERE id = $1 AND state = $2";
    let values: [Value; 2] = [id.into(), super::ACTIVE.into()];
    let found = sql::one::<Person, _>(db, sql, values).await?;
    Ok(found.map(Person::addresses).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    // proves ACC-20
    #[test]
    fn an_identity_is_reached_at_its_name_and_where_it_was_proven_each_once() {
        let addresses = |kind, user_name: &str, recovery_email: &str| {
            let (user_name, recovery_email) = (user_name.to_owned(), recovery_email.to_owned());
            let person = Person {
                kind,
                user_name,
                recovery_email,
            };
            person.addresses()
        };
        let (name, other) = ("ida@mail.example", "ida@new.example");
        assert_eq!(addresses(IDENTITY, name, ""), [name]);
        assert_eq!(addresses(IDENTITY, name, "Ida@MAIL.example"), [name]);
        assert_eq!(addresses(IDENTITY, name, other), [name, other]);
        // A user's name is no address.
        assert_eq!(addresses(1, "ida", other), [other]);
        assert_eq!(addresses(1, "ida", ""), [""; 0]);
    }
}
