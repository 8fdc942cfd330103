//! What a synchronisation can't do to rights: directory roles, what was made here, the last administrator (TEN-5, ROL-9, ROL-12, GRP-7).

use entente::proto::{account::GetAccountRequest, directory::DirectoryRole};
use sea_orm::Value;
use tonic::Code;
use tonic_types::StatusExt as _;
use uuid::Uuid;

use super::*;
use crate::{
    harness::PASSWORD,
    people::{change, second_admin},
};

/// Gives a user that came from a local directory a password, as a later sign-in there would; signs it in.
async fn able(site: &Site, user: &str) -> Caller {
    // Everybody's password in tests is the same, and its hash is that of anybody who has chosen it.
    let sql = "INSERT INTO credentials (user_id, hash, temporary, change_time, strangers_failed, known_failed) \
               SELECT $1, c.hash, c.temporary, 1, 0, 0 FROM credentials c WHERE c.hash LIKE '$argon2id$%' LIMIT 1";
    change(site, sql, [id(user).into()]).await;
    let sql = "UPDATE users SET recovery_email = 'somebody@mail.example' WHERE id = $1";
    change(site, sql, [id(user).into()]).await;
    let sql = "SELECT u.user_name || '@' || t.domain_prefix AS n FROM users u JOIN tenants t ON t.id = u.tenant_id WHERE u.id = $1";
    let name = text(site, sql, [id(user).into()]).await;
    site.sign_in(&format!("{name}.partners.localhost"), PASSWORD)
        .await
}

async fn text(site: &Site, sql: &str, values: impl IntoIterator<Item = Value>) -> String {
    use sea_orm::{ConnectionTrait as _, Statement};
    let statement = Statement::from_sql_and_values(site.app.db.backend, sql, values);
    let row = site.app.db.read.query_one_raw(statement).await.unwrap();
    row.unwrap().try_get("", "n").unwrap()
}

async fn see(caller: &Caller, account: &str) -> Result<(), Status> {
    let request = GetAccountRequest {
        name: account.to_owned(),
    };
    caller.accounts().get_account(request).await.map(drop)
}

// proves TEN-5, ROL-9
#[tokio::test]
async fn last_global_admin_is_neither_deleted_nor_disabled_and_the_others_go_on() {
    both(async |site| {
        let contoso = site.tenant("contoso").await;
        let admin = &contoso.admin.caller;
        let mut agent = Agent::of(&site, &contoso).await;
        agent.bring(vec![user("u/eve"), user("u/bob")]).await;
        let eve = user_of(&site, &contoso.name, "u/eve").await;
        let as_eve = able(&site, &eve).await;
        admin
            .assign(&eve, &[DirectoryRole::GlobalAdmin])
            .await
            .unwrap();
        as_eve.disable(&contoso.admin.name).await.unwrap();

        let answer = agent
            .send(vec![gone("u/eve"), gone("u/bob"), user("u/cid")])
            .await;
        let [fault] = &answer.faults[..] else {
            panic!("{:?}", answer.faults);
        };
        assert_eq!(
            (fault.external_id.as_str(), fault.entry_index),
            ("u/eve", 0)
        );
        assert_eq!(reason(fault), ErrorReason::LastGlobalAdmin);
        assert_eq!(answer.synchronization.unwrap().deleted_count, 1);
        user_of(&site, &contoso.name, "u/cid").await;
        let mut off = disabled("u/eve");
        if let Some(Change::User(user)) = &mut off.change {
            user.given_name = "Evelyn".to_owned();
        }
        let fault = agent.fault(off).await;
        assert_eq!(reason(&fault), ErrorReason::LastGlobalAdmin);
        assert_eq!(fault.field, "user.disabled");
        // What else the entry says is taken over.
        let there = as_eve.user(&eve).await.unwrap();
        assert_eq!(
            (there.state, there.given_name.as_str()),
            (UserState::Active as i32, "Evelyn")
        );
        assert_eq!(there.directory_roles, [DirectoryRole::GlobalAdmin as i32]);
        as_eve.who_am_i().await.unwrap();

        // Once somebody else is there, it goes.
        as_eve.enable(&contoso.admin.name).await.unwrap();
        let answer = agent.bring(vec![gone("u/eve")]).await;
        assert_eq!(answer.synchronization.unwrap().fault_count, 2);
        refused(
            as_eve.who_am_i().await,
            Code::Unauthenticated,
            "TOKEN_INVALID",
        );
    })
    .await;
}

// proves TEN-5, ATK-13
#[tokio::test]
async fn what_was_made_here_and_directory_roles_are_out_of_reach() {
    both(async |site| {
        let contoso = site.tenant("contoso").await;
        let account = site.account(&contoso, "Contoso").await;
        let admin = &contoso.admin.caller;
        let bob = second_admin(&site, &contoso, "bob").await;
        let app = application(admin, &contoso.name, "Here").await;
        let here = "INSERT INTO user_groups (id, tenant_id, display_name, display_name_fold, external_id, create_time, update_time, version) \
                    VALUES ($1, $2, 'Here', 'here', '', 1, 1, 1)";
        let group_here: Uuid = request_id().parse().unwrap();
        change(&site, here, [group_here.into(), id(&contoso.name).into()]).await;
        let mut agent = Agent::of(&site, &contoso).await;
        agent.bring(vec![user("u/cid"), group("g/1", &["u/cid"])]).await;
        let cid = user_of(&site, &contoso.name, "u/cid").await;
        admin.assign(&cid, &[DirectoryRole::HelpdeskAdmin]).await.unwrap();
        add(admin, &account, &[&cid], &[AccountRole::Developer]).await;
        let grants = "SELECT COUNT(*) AS n FROM grants";
        let before = number(&site, grants, []).await;

        // By every handle that an entry has: names, IDs, resource names.
        let own = [id(&bob.name).to_string(), bob.name.clone(), app.client_id.clone()];
        let group_name = format!("{}/groups/{group_here}", contoso.name);
        for handle in own.iter().chain([&group_name, &group_here.to_string(), &"bob".to_owned()]) {
            let answer = agent.send(vec![gone(handle)]).await;
            assert_eq!(answer.synchronization.unwrap().deleted_count, 0);
            let fault = agent.fault(named_user(handle, "BOB")).await;
            assert_eq!(reason(&fault), ErrorReason::UserNameTaken, "{handle}");
            let fault = agent.fault(group("g/1", &[handle])).await;
            assert_eq!((reason(&fault), fault.field.as_str()), (ErrorReason::ResourceNotFound, "group.members"));
        }
        // A user who is made, changed and moved about keeps what is held, and gets nothing.
        agent
            .send(vec![named_user("u/cid", "cidney"), only("g/1", &["u/cid"]), group("g/2", &["u/cid"])])
            .await;
        assert_eq!(number(&site, grants, []).await, before);
        let there = admin.user(&cid).await.unwrap();
        assert_eq!(there.directory_roles, [DirectoryRole::HelpdeskAdmin as i32]);
        let there = admin.user(&bob.name).await.unwrap();
        assert_eq!((there.user_name.as_str(), there.state), ("bob", UserState::Active as i32));
        assert_eq!(members(&site, &contoso.name, "").await, Vec::<String>::new());
        bob.caller.who_am_i().await.unwrap();
    })
    .await;
}

// proves ATK-11, TEN-5, USR-6
#[tokio::test]
async fn who_comes_back_after_a_deletion_is_somebody_new() {
    both(async |site| {
        let contoso = site.tenant("contoso").await;
        let account = site.account(&contoso, "Contoso").await;
        let admin = &contoso.admin.caller;
        let mut agent = Agent::of(&site, &contoso).await;
        agent
            .bring(vec![
                user("u/bob"),
                group("g/1", &["u/bob"]),
                program("a/1", "https://x.example/"),
            ])
            .await;
        let bob = user_of(&site, &contoso.name, "u/bob").await;
        let as_bob = able(&site, &bob).await;
        let old_group = name_of(&site, &contoso.name, "groups", "g/1")
            .await
            .unwrap();
        let old_app = name_of(&site, &contoso.name, "applications", "a/1")
            .await
            .unwrap();
        add(
            admin,
            &account,
            &[&bob, &old_app],
            &[AccountRole::Developer],
        )
        .await;
        admin
            .assign(&bob, &[DirectoryRole::HelpdeskAdmin])
            .await
            .unwrap();
        hold(
            &site,
            &old_group,
            &account,
            1 << AccountRole::Developer as i64,
        )
        .await;
        let key = admin.key(&old_app).await.unwrap();

        agent
            .bring(vec![gone("u/bob"), gone("g/1"), gone("a/1")])
            .await;
        refused(
            as_bob.who_am_i().await,
            Code::Unauthenticated,
            "TOKEN_INVALID",
        );
        refused(
            site.tokens("bob@contoso.partners.localhost", PASSWORD)
                .await,
            Code::Unauthenticated,
            "SIGN_IN_FAILED",
        );
        let client = old_app.rsplit('/').next().unwrap();
        refused(
            sign_in_by_key(&site, client, &key.secret).await,
            Code::Unauthenticated,
            "SIGN_IN_FAILED",
        );
        agent
            .bring(vec![
                user("u/bob"),
                group("g/1", &["u/bob"]),
                program("a/1", "https://x.example/"),
            ])
            .await;
        let heir = user_of(&site, &contoso.name, "u/bob").await;
        let new_group = name_of(&site, &contoso.name, "groups", "g/1")
            .await
            .unwrap();
        let new_app = name_of(&site, &contoso.name, "applications", "a/1")
            .await
            .unwrap();
        assert!(heir != bob && new_group != old_group && new_app != old_app);
        for principal in [&heir, &new_group, &new_app, &bob, &old_group, &old_app] {
            let sql = "SELECT COUNT(*) AS n FROM grants WHERE principal_id = $1";
            assert_eq!(
                number(&site, sql, [id(principal).into()]).await,
                0,
                "{principal}"
            );
        }
        let as_heir = able(&site, &heir).await;
        refused(
            see(&as_heir, &account).await,
            Code::PermissionDenied,
            "PERMISSION_MISSING",
        );
        // The one who is deleted can't be restored beside.
        synchronized(admin.undelete(&bob, "bob2").await);
    })
    .await;
}

/// Makes a group a member of an account with roles, as AddMembers does.
async fn hold(site: &Site, group: &str, account: &str, roles: i64) {
    let tenant: Uuid = group.split('/').nth(1).unwrap().parse().unwrap();
    for sql in [
        "INSERT INTO grants (scope_kind, scope_id, principal_id, principal_kind, tenant_id, roles, permissions, on_behalf_ceiling, \
         display_name_fold, create_time, update_time, version) VALUES (2, $1, $2, 4, $3, $4, '', '', 'g', 1, 1, 1)",
        "INSERT INTO group_rights (scope_kind, scope_id, user_id, roles, permissions, group_id, tenant_id) \
         SELECT 2, $1, user_id, $4, '', $2, $3 FROM group_members WHERE group_id = $2",
    ] {
        let values: [Value; 4] = [
            id(account).into(),
            id(group).into(),
            tenant.into(),
            roles.into(),
        ];
        use sea_orm::{ConnectionTrait as _, Statement};
        let statement = Statement::from_sql_and_values(site.app.db.backend, sql, values);
        site.app.db.write.execute_raw(statement).await.unwrap();
    }
}

// proves GRP-3, ROL-10, TEN-5
#[tokio::test]
async fn who_joins_or_leaves_a_group_there_has_its_rights_from_the_next_call_on() {
    both(async |site| {
        let contoso = site.tenant("contoso").await;
        let account = site.account(&contoso, "Contoso").await;
        let mut agent = Agent::of(&site, &contoso).await;
        agent
            .bring(vec![
                user("u/bob"),
                user("u/cid"),
                group("g/1", &["u/bob"]),
                group("g/2", &[]),
            ])
            .await;
        let bob = able(&site, &user_of(&site, &contoso.name, "u/bob").await).await;
        let cid = able(&site, &user_of(&site, &contoso.name, "u/cid").await).await;
        for g in ["g/1", "g/2"] {
            let name = name_of(&site, &contoso.name, "groups", g).await.unwrap();
            hold(&site, &name, &account, 1 << AccountRole::Developer as i64).await;
        }
        let may = async |caller: &Caller| see(caller, &account).await.is_ok();
        assert!(may(&bob).await && !may(&cid).await);
        agent.bring(vec![group("g/1", &["u/cid"])]).await;
        assert!(may(&bob).await && may(&cid).await);
        assert_eq!(cid.who_am_i().await.unwrap().accounts.len(), 1);
        // From one group to the other in one message: nothing is lost in between.
        agent
            .bring(vec![only("g/1", &["u/cid"]), group("g/2", &["u/bob"])])
            .await;
        assert!(may(&bob).await && may(&cid).await);
        agent.bring(vec![without("g/2", &["u/bob"])]).await;
        assert!(!may(&bob).await && may(&cid).await);
        agent.bring(vec![gone("g/1")]).await;
        assert!(!may(&cid).await);
        let left = "SELECT COUNT(*) AS n FROM group_rights";
        assert_eq!(number(&site, left, []).await, 0);
    })
    .await;
}

// proves ROL-12
#[tokio::test]
async fn synchronised_group_is_given_no_role_of_peoples_own() {
    both(async |site| {
        let contoso = site.tenant("contoso").await;
        let account = site.account(&contoso, "Contoso").await;
        let admin = &contoso.admin.caller;
        let mut agent = Agent::of(&site, &contoso).await;
        agent.bring(vec![group("g/1", &[])]).await;
        let name = name_of(&site, &contoso.name, "groups", "g/1")
            .await
            .unwrap();
        let request = |role: AccountRole| AddMembersRequest {
            parent: account.clone(),
            principals: vec![name.clone()],
            rights: Some(rights(&[role])),
            ..AddMembersRequest::default()
        };
        for role in [AccountRole::AdminAgent, AccountRole::Finance] {
            let tried = admin.members().add_members(request(role)).await;
            let status = refused(tried, Code::FailedPrecondition, "NOT_ASSIGNABLE");
            let told = status.get_details_error_info().unwrap().metadata;
            let role = role.as_str_name().trim_start_matches("ACCOUNT_ROLE_");
            assert_eq!(told["lacking"], format!("{role} by a synchronised group"));
        }
        admin
            .members()
            .add_members(request(AccountRole::Developer))
            .await
            .unwrap();
    })
    .await;
}

// proves ROL-9, TEN-5
#[tokio::test]
async fn accounts_are_told_of_their_last_manager_and_not_asked() {
    both(async |site| {
        let contoso = site.tenant("contoso").await;
        let mut agent = Agent::of(&site, &contoso).await;
        agent
            .bring(vec![
                user("u/a"),
                user("u/b"),
                user("u/c"),
                group("g/1", &["u/b"]),
                group("g/2", &["u/c"]),
            ])
            .await;
        let manager = 1 << AccountRole::Manager as i64;
        let mut accounts = Vec::new();
        for publisher in ["One", "Two", "Three", "Four"] {
            accounts.push(site.account(&contoso, publisher).await);
        }
        // Each has one manager who came from there: by itself, or by a group.
        let a = user_of(&site, &contoso.name, "u/a").await;
        for user in ["u/a", "u/b", "u/c"] {
            able(&site, &user_of(&site, &contoso.name, user).await).await;
        }
        for account in &accounts[..2] {
            let sql = "UPDATE grants SET principal_id = $1 WHERE scope_id = $2";
            change(&site, sql, [id(&a).into(), id(account).into()]).await;
        }
        for (account, g) in accounts[2..].iter().zip(["g/1", "g/2"]) {
            let name = name_of(&site, &contoso.name, "groups", g).await.unwrap();
            hold(&site, &name, account, manager).await;
            let sql = "DELETE FROM grants WHERE scope_id = $1 AND principal_kind = 1";
            change(&site, sql, [id(account).into()]).await;
        }
        let told =
            async |account: &str| events(&site, "account.v1.AccountWithoutManager", account).await;
        agent
            .bring(vec![disabled("u/a"), without("g/1", &["u/b"]), gone("g/2")])
            .await;
        for account in &accounts {
            assert_eq!(told(account).await, 1, "{account}");
        }
        // Who can't act any more is no loss again.
        agent.bring(vec![gone("u/a")]).await;
        assert_eq!(told(&accounts[0]).await, 1);
        agent.bring(vec![group("g/1", &["u/c"])]).await;
        agent.bring(vec![gone("u/c")]).await;
        assert_eq!(told(&accounts[2]).await, 2);
        chains_are_intact(&site.app).await;
    })
    .await;
}
