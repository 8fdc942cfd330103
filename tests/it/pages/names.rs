//! Names that change, go, or were there before their index was: lists find and order them as they are.

use entente::{
    proto::directory::{Tenant, UpdateTenantRequest},
    store::connect::Db,
};
use entente_migrations::Migrator;
use sea_orm::{ConnectionTrait as _, Statement};
use sea_orm_migration::MigratorTrait as _;

use super::lists::{Asked, List, World};
use crate::{
    claims::execute,
    harness::{Database, both, empty_postgres_database},
    people::{id, mask},
};

// proves COM-7
#[tokio::test]
async fn names_are_found_and_ordered_as_they_are_now() {
    both(async |site| {
        let world = World::small(&site).await;
        let found = async |list, filter: &str, order_by: &str| {
            let asked = Asked {
                filter: filter.to_owned(),
                order_by: order_by.to_owned(),
                ..Asked::default()
            };
            world.ask(list, &asked).await.unwrap().ids
        };
        site.tenant("fabrikam").await;
        let northwind = site.tenant("northwind").await;
        world
            .execute(
                &site,
                "INSERT INTO associations (account_id, tenant_id, display_name_fold, create_time, version) \
                 SELECT {account}, t.id, t.display_name_fold, t.create_time, 1 FROM tenants t WHERE t.domain_prefix IN ('fabrikam', 'northwind')",
            )
            .await;
        let alone = vec![id(&northwind.name).to_string()];
        assert_eq!(found(List::Tenants, "display_name : \"northwind co\"", "").await, alone);
        let by_name = "tenant_display_name";
        let before = found(List::Associations, "", by_name).await;
        assert_eq!(before.last(), alone.last());
        let request = UpdateTenantRequest {
            tenant: Some(Tenant {
                name: northwind.name.clone(),
                display_name: "Ähre".to_owned(),
                ..Tenant::default()
            }),
            update_mask: Some(mask(&["display_name"])),
            ..UpdateTenantRequest::default()
        };
        northwind.admin.caller.tenants().update_tenant(request).await.unwrap();
        assert_eq!(found(List::Tenants, "display_name : \"northwind co\"", "").await, [""; 0]);
        assert_eq!(found(List::Tenants, "display_name : \"ÄHR\"", "").await, alone);
        assert_eq!(found(List::Tenants, "domain_prefix : northwind", "").await, alone);
        let search = "tenant_display_name : \"northwind co\"";
        assert_eq!(found(List::Associations, search, "").await, [""; 0]);
        let search = "tenant_display_name : \"ähr\"";
        assert_eq!(found(List::Associations, search, by_name).await, alone);
        // By code point, "ä" comes behind all of ASCII.
        let after = found(List::Associations, "", by_name).await;
        assert_eq!((after.len(), after.last()), (3, alone.last()));
        // What is gone is found no more, and its place in the index is taken by what comes.
        execute(&site.app, "DELETE FROM applications").await.unwrap();
        assert_eq!(found(List::Applications, "display_name : robot", "").await, [""; 0]);
        world
            .execute(
                &site,
                "INSERT INTO applications (id, tenant_id, display_name, display_name_fold, reply_url, application_id_uri, state, \
                    create_time, update_time, version) \
                 VALUES ({far}, {tenant}, 'Reaper', 'reaper', '', '', 1, 0, 0, 1)",
            )
            .await;
        let reaper = found(List::Applications, "display_name : reap", "").await;
        assert_eq!(reaper.len(), 1);
        assert_eq!(found(List::Applications, "display_name : robot", "").await, [""; 0]);
    })
    .await;
}

// proves COM-7
#[tokio::test]
async fn what_was_there_before_the_indexes_is_in_them() {
    for database in [Database::Sqlite, Database::Postgres] {
        let folder = tempfile::tempdir().unwrap();
        let db = match database {
            Database::Sqlite => Db::sqlite(folder.path()).await.unwrap(),
            Database::Postgres => {
                Db::postgres("database_url", &empty_postgres_database("before_search"))
                    .await
                    .unwrap()
            }
        };
        Migrator::up(&db.write, Some(6)).await.unwrap();
        let id = match database {
            Database::Sqlite => "x'01020304050607080102030405060708'",
            Database::Postgres => "'01020304-0506-0708-0102-030405060708'::uuid",
        };
        for sql in [
            "INSERT INTO tenants (id, domain_prefix, display_name, display_name_fold, contact_email, is_operator, state, create_time, \
                update_time, version) VALUES ({id}, 'orchard', 'Äpfel', 'äpfel', '', false, 1, 0, 0, 1)",
            "INSERT INTO applications (id, tenant_id, display_name, display_name_fold, reply_url, application_id_uri, state, create_time, \
                update_time, version) VALUES ({id}, {id}, 'Äpfel', 'äpfel', '', '', 1, 0, 0, 1)",
            "INSERT INTO accounts (id, publisher_display_name, publisher_display_name_fold, legal_name, country_code, type, seller_id, state, \
                create_time, update_time, version) VALUES ({id}, 'Äpfel', 'äpfel', 'ÄPFEL Ltd', 'FR', 1, 'S', 1, 0, 0, 1)",
            "INSERT INTO associations (account_id, tenant_id, create_time, version) VALUES ({id}, {id}, 0, 1)",
        ] {
            let sql = sql.replace("{id}", id);
            db.write.execute_unprepared(&sql).await.unwrap();
        }
        Migrator::up(&db.write, None).await.unwrap();
        let n = async |sql: &str| -> i64 {
            let statement = Statement::from_string(db.backend, sql);
            let row = db.write.query_one_raw(statement).await.unwrap().unwrap();
            row.try_get("", "n").unwrap()
        };
        let folded = "SELECT COUNT(*) AS n FROM accounts WHERE legal_name_fold = 'äpfel ltd'";
        assert_eq!(n(folded).await, 1);
        let named = "SELECT COUNT(*) AS n FROM associations WHERE display_name_fold = 'äpfel'";
        assert_eq!(n(named).await, 1);
        if database == Database::Sqlite {
            for (table, text) in [
                ("tenants", "display_name_fold : \"äpfel\""),
                ("tenants", "domain_prefix : \"orchard\""),
                ("applications", "display_name_fold : \"äpf\""),
                ("accounts", "publisher_display_name_fold : \"äpf\""),
                ("accounts", "legal_name_fold : \"ltd\""),
            ] {
                let sql = format!(
                    "SELECT COUNT(*) AS n FROM {table}_search JOIN {table} t ON t.row_number = {table}_search.rowid \
                     WHERE {table}_search MATCH '{text}'"
                );
                assert_eq!(n(&sql).await, 1, "{sql}");
            }
        }
    }
}
