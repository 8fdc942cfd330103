//! What is answered from memory is as new as the database (ROL-10): revocations on other replicas, what is remembered and what isn't, and,
//! in `fresh/histories.rs`, that no read is older than what anybody knew.

mod histories;

use entente::{
    config::Freshness,
    proto::{
        access::{AccountRole, TestMyPermissionsRequest},
        account::GetAccountRequest,
        directory::{DirectoryRole, GetTenantRequest, RemoveGroupMembersRequest, User},
        operator::{OperatorRole, RemoveOperatorRolesRequest},
    },
};
use tonic::{Code, Status};

use crate::{
    attacks::replica,
    claims::execute,
    groups::group,
    guests,
    harness::{Caller, Database, Site, both, membership, psql, refused, request_id},
    people::{People as _, execute_on, operator_tenant, staff},
};

async fn account_of(caller: &Caller, account: &str) -> Result<(), Status> {
    let name = account.to_owned();
    let mut client = caller.accounts();
    client
        .get_account(GetAccountRequest { name })
        .await
        .map(drop)
}

async fn tenant_of(caller: &Caller, tenant: &str) -> Result<(), Status> {
    let name = tenant.to_owned();
    let mut client = caller.tenants();
    client.get_tenant(GetTenantRequest { name }).await.map(drop)
}

// proves ROL-10, ATK-12
#[tokio::test]
async fn what_groups_homes_tenants_and_staff_lose_is_gone_on_every_replica_at_the_next_call() {
    both(async |site| {
        let away = guests::guest(&site, &[AccountRole::Developer]).await;
        // Which would take some of the mails.
        let (channel, _folder) = replica(&site).await;
        let there = |caller: &Caller| Caller {
            channel: channel.clone(),
            ..caller.clone()
        };
        let (contoso, account) = (&away.contoso, &away.account);
        let admin = &contoso.admin.caller;
        // By a group.
        let bob = site.person(contoso, "bob").await;
        let on = membership(account, &[AccountRole::Developer]);
        let developers = group(contoso, "Developers", &[&bob], Some(on)).await;
        let far = there(&bob.caller);
        for _ in 0..2 {
            account_of(&far, account).await.unwrap();
        }
        let leaving = RemoveGroupMembersRequest {
            parent: developers,
            users: vec![bob.name.clone()],
            ..RemoveGroupMembersRequest::default()
        };
        admin.groups().remove_group_members(leaving).await.unwrap();
        let denied = |tried| refused::<()>(tried, Code::PermissionDenied, "PERMISSION_MISSING");
        denied(account_of(&far, account).await);
        // A guest's home.
        let far = there(&away.caller);
        for _ in 0..2 {
            account_of(&far, account).await.unwrap();
        }
        let fabrikam = &away.fabrikam.admin.caller;
        fabrikam.disable(&away.fred.name).await.unwrap();
        let out = |tried| refused::<()>(tried, Code::Unauthenticated, "TOKEN_INVALID");
        out(account_of(&far, account).await);
        fabrikam.enable(&away.fred.name).await.unwrap();
        // The tenant of a guest's home, and a tenant itself.
        let far = there(fabrikam);
        for _ in 0..2 {
            tenant_of(&far, &away.fabrikam.name).await.unwrap();
        }
        execute_on(
            &site,
            "UPDATE tenants SET state = 2 WHERE domain_prefix = 'fabrikam'",
        )
        .await;
        out(tenant_of(&far, &away.fabrikam.name).await);
        // Staff.
        let ada = staff(&site, "ada", OperatorRole::OperatorReviewer).await;
        let far = there(&ada.caller);
        for _ in 0..2 {
            tenant_of(&far, &contoso.name).await.unwrap();
        }
        let asleep = |until: &str| {
            format!("UPDATE users SET rights_asleep_until = {until} WHERE user_name = 'ada'")
        };
        execute_on(&site, &asleep("9000000000000000")).await;
        refused(
            tenant_of(&far, &contoso.name).await,
            Code::FailedPrecondition,
            "RIGHTS_ASLEEP",
        );
        execute_on(&site, &asleep("NULL")).await;
        tenant_of(&far, &contoso.name).await.unwrap();
        let operator = operator_tenant(&site).await.admin.caller;
        let none = RemoveOperatorRolesRequest {
            name: format!("operator/staff/{}", ada.name.rsplit('/').next().unwrap()),
            ..RemoveOperatorRolesRequest::default()
        };
        operator.staff().remove_operator_roles(none).await.unwrap();
        denied(tenant_of(&far, &contoso.name).await);
    })
    .await;
}

/// Statements that a call makes.
async fn statements<T: std::fmt::Debug>(
    site: &Site,
    call: impl Future<Output = Result<T, Status>>,
) -> usize {
    site.statements.start().await;
    call.await.unwrap();
    site.statements.told().len()
}

// proves ROL-10, COM-17
#[tokio::test]
async fn what_is_remembered_takes_no_statement_and_is_right_after_every_change() {
    both(async |site| {
        let contoso = site.tenant("contoso").await;
        let account = site.account(&contoso, "Contoso").await;
        let admin = &contoso.admin.caller;
        let bob = site.person(&contoso, "bob").await;
        let mine = async || {
            let request = TestMyPermissionsRequest {
                resource: account.clone(),
                permissions: vec!["account.read".to_owned()],
            };
            let may = admin.access().test_my_permissions(request).await;
            may.map(|may| assert_eq!(may.into_inner().permissions.len(), 1))
        };
        let me = async || bob.caller.who_am_i().await;
        for _ in 0..2 {
            admin.user(&bob.name).await.unwrap();
            me().await.unwrap();
            mine().await.unwrap();
        }
        assert_eq!(statements(&site, admin.user(&bob.name)).await, 0);
        assert_eq!(statements(&site, me()).await, 0);
        assert_eq!(statements(&site, mine()).await, 0);
        // Whatever they show, changed by whomever.
        let sooner = |user: &User| user.family_name.clone();
        for n in 0..3 {
            let name = format!("Name{n}");
            execute_on(
                &site,
                &format!("UPDATE users SET family_name = '{name}', display_name = '{name}' WHERE user_name = 'bob'"),
            )
            .await;
            assert_eq!(sooner(&admin.user(&bob.name).await.unwrap()), name);
            assert_eq!(me().await.unwrap().display_name, name);
        }
        admin
            .assign(&bob.name, &[DirectoryRole::BillingAdmin])
            .await
            .unwrap();
        let shown = admin.user(&bob.name).await.unwrap();
        assert_eq!(shown.directory_roles.len(), 1);
        assert_eq!(me().await.unwrap().directory_roles.len(), 1);
        execute_on(
            &site,
            "UPDATE tenants SET domain_prefix = 'contoso2', display_name = 'Two' WHERE domain_prefix = 'contoso'",
        )
        .await;
        let shown = admin.user(&bob.name).await.unwrap();
        assert!(shown.sign_in_name.contains("@contoso2."), "{shown:?}");
        assert_eq!(me().await.unwrap().tenant.unwrap().display_name, "Two");
        // One more place to work in.
        let fabrikam = site.tenant("fabrikam").await;
        crate::people::guest(&site, &fabrikam.name, &bob).await;
        assert_eq!(me().await.unwrap().tenants.len(), 2);
        let mut member = crate::harness::new_user(&contoso.name, "carol");
        member.memberships = vec![membership(&account, &[])];
        admin.users().create_user(member).await.unwrap();
        assert!(me().await.unwrap().accounts.is_empty());
    })
    .await;
}

// proves ROL-10
#[tokio::test]
async fn mails_and_timed_work_are_no_strangers_to_memory() {
    let site = Site::open(Database::Sqlite).await;
    let contoso = site.tenant("contoso").await;
    let invited = crate::harness::new_user(&contoso.name, "bob");
    contoso
        .admin
        .caller
        .users()
        .create_user(invited)
        .await
        .unwrap();
    let before = site.app.memory.strangers();
    entente::schedule::settle(&site.app).await.unwrap();
    assert_eq!(site.app.memory.strangers(), before);
    // And one by hand is told from them.
    execute_on(&site, "UPDATE tenants SET display_name = 'Two'").await;
    assert_eq!(site.app.memory.strangers(), before + 1);
}

// proves COM-2
#[tokio::test]
async fn what_strangers_ask_about_is_never_remembered_for_them() {
    both(async |site| {
        let contoso = site.tenant("contoso").await;
        let eve = site.tenant("fabrikam").await.admin.caller;
        let unreal = format!("tenants/{}", request_id());
        tenant_of(&eve, &unreal).await.unwrap_err();
        let mut costs = Vec::new();
        for _ in 0..3 {
            for name in [&contoso.name, &unreal] {
                entente::access::refusals::flush(&site.app, true)
                    .await
                    .unwrap();
                site.app.now().await.unwrap();
                site.statements.start().await;
                tenant_of(&eve, name).await.unwrap_err();
                costs.push(site.statements.told().len());
            }
        }
        assert!(
            costs[0] > 0 && costs.iter().all(|c| *c == costs[0]),
            "{costs:?}"
        );
    })
    .await;
}

// proves ROL-10
#[tokio::test]
async fn database_that_shows_no_transactions_is_asked_at_each_call() {
    for database in [Database::Sqlite, Database::Postgres] {
        let site = Site::open_with(database, |c| c.freshness = Freshness::Database).await;
        let contoso = site.tenant("contoso").await;
        let admin = &contoso.admin.caller;
        let bob = site.person(&contoso, "bob").await;
        for _ in 0..2 {
            assert!(statements(&site, admin.user(&bob.name)).await > 2);
        }
        let (channel, _folder) = replica(&site).await;
        let far = Caller {
            channel,
            ..bob.caller.clone()
        };
        far.who_am_i().await.unwrap();
        admin.disable(&bob.name).await.unwrap();
        refused(far.who_am_i().await, Code::Unauthenticated, "TOKEN_INVALID");
    }
}

// proves ROL-10
#[tokio::test]
async fn everything_is_forgotten_by_the_key_of_everything_and_by_too_many_keys() {
    let site = Site::open(Database::Postgres).await;
    let url = site.url.as_ref().unwrap();
    let contoso = site.tenant("contoso").await;
    let admin = &contoso.admin.caller;
    let warm = async || {
        for _ in 0..2 {
            admin.user(&contoso.admin.name).await.unwrap();
        }
        assert_eq!(statements(&site, admin.user(&contoso.admin.name)).await, 0);
    };
    for sql in [
        "INSERT INTO changed_keys (key) VALUES ('00000000-0000-0000-0000-000000000000')",
        "INSERT INTO changed_keys (key) SELECT gen_random_uuid() FROM generate_series(1, 5000)",
        // Whoever slept while keys were purged can't know what it missed.
        "UPDATE changed_keys_purge SET below = CAST(CAST(CAST(pg_snapshot_xmax(pg_current_snapshot()) AS text) AS bigint) + 5 AS text)::xid8",
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'entente barrier' AND datname = current_database()",
    ] {
        execute(&site.app, "UPDATE changed_keys_purge SET below = '0'")
            .await
            .unwrap();
        warm().await;
        psql(url, sql);
        assert!(
            statements(&site, admin.user(&contoso.admin.name)).await > 0,
            "{sql}"
        );
    }
    // What a dump brought along from another server is of a future that isn't this one's.
    execute(&site.app, "UPDATE changed_keys_purge SET below = '0'")
        .await
        .unwrap();
    psql(
        url,
        "INSERT INTO changed_keys VALUES ('9000000000', '00000000-0000-0000-0000-000000000000')",
    );
    warm().await;
}
