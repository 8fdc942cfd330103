//! Groups that are added to an account, and users put into them by the same call (GRP-1, GRP-7).

use std::collections::BTreeMap;

use entente::proto::{
    access::{AccountRole, Rights},
    account::AddMembersRequest,
};
use tonic::{Code, Status};
use tonic_types::StatusExt as _;

use super::{Groups as _, group, synchronize};
use crate::{
    associations::associate,
    claims::row_counts,
    harness::{Caller, both, fields, membership, refused, rights},
    members::{add, adding, list},
    people::{People as _, events, second_admin},
};

fn filling(
    account: &str,
    groups: &[&str],
    users: &[&str],
    given: Option<Rights>,
) -> AddMembersRequest {
    AddMembersRequest {
        group_users: users.iter().map(|u| (*u).to_owned()).collect(),
        ..adding(account, groups, given)
    }
}

async fn fill(who: &Caller, request: AddMembersRequest) -> Result<(), Status> {
    who.members().add_members(request).await.map(drop)
}

fn unchanged(before: &BTreeMap<String, i64>, after: &BTreeMap<String, i64>) {
    for table in ["grants", "group_members", "group_rights", "outbox"] {
        assert_eq!(after[table], before[table], "{table}");
    }
}

// proves GRP-1, GRP-3, GRP-7
#[tokio::test]
async fn users_are_put_into_the_groups_that_are_added() {
    both(async |site| {
        let contoso = site.tenant("contoso").await;
        let account = site.account(&contoso, "Contoso").await;
        let admin = &contoso.admin.caller;
        let [bob, joe, cat] = [
            site.person(&contoso, "bob").await,
            site.person(&contoso, "joe").await,
            site.person(&contoso, "cat").await,
        ];
        let shop = group(&contoso, "Shop", &[&bob], None).await;
        let sales = group(&contoso, "Sales", &[], None).await;
        let developer = Some(rights(&[AccountRole::Developer]));
        let users = [bob.name.as_str(), &joe.name];
        let request = filling(&account, &[&shop, &sales], &users, developer.clone());
        let check = AddMembersRequest {
            validate_only: true,
            ..request.clone()
        };
        let before = row_counts(&site.app).await;
        fill(admin, check).await.unwrap();
        unchanged(&before, &row_counts(&site.app).await);
        fill(admin, request).await.unwrap();
        for who in [&bob, &joe] {
            let told = who.caller.who_am_i().await.unwrap().accounts;
            assert_eq!(told[0].account, account);
            assert_eq!(told[0].rights, developer);
        }
        assert!(cat.caller.who_am_i().await.unwrap().accounts.is_empty());
        assert_eq!(admin.group(&shop).await.unwrap().member_count, 2);
        assert_eq!(admin.group(&sales).await.unwrap().member_count, 2);
        let joined = "directory.v1.GroupMembersAdded";
        assert_eq!(events(&site, joined, &sales).await, 1);
        let members = list(admin, &account, "kind=GROUP").await.unwrap();
        assert_eq!(members.len(), 2);
    })
    .await;
}

// proves GRP-1, GRP-7, ROL-7, ROL-8
#[tokio::test]
async fn who_fills_groups_manages_them_and_may_give_all_that_they_hold() {
    both(async |site| {
        let contoso = site.tenant("contoso").await;
        let fabrikam = site.tenant("fabrikam").await;
        let account = site.account(&contoso, "Contoso").await;
        let other = site.account(&contoso, "Other").await;
        let admin = &contoso.admin.caller;
        let bob = site.person(&contoso, "bob").await;
        let mia = site.person(&contoso, "mia").await;
        add(admin, &account, &[&mia], &[AccountRole::Manager])
            .await
            .unwrap();
        let team = group(&contoso, "Team", &[], None).await;
        let on_other = membership(&other, &[AccountRole::HelpdeskAgent]);
        let rich = group(&contoso, "Rich", &[], Some(on_other)).await;
        let developer = || Some(rights(&[AccountRole::Developer]));
        let users = [bob.name.as_str()];
        let before = row_counts(&site.app).await;
        // A manager without directory role adds groups, but puts nobody into them.
        let tried = fill(
            &mia.caller,
            filling(&account, &[&team], &users, developer()),
        )
        .await;
        let status = refused(tried, Code::PermissionDenied, "PERMISSION_MISSING");
        let info = status.get_details_error_info().unwrap();
        assert_eq!(info.metadata["permission"], "groups.manage");
        // A global admin without role on the account does neither.
        let gil = second_admin(&site, &contoso, "gil").await;
        let tried = fill(&gil.caller, filling(&account, &[&team], &users, None)).await;
        let status = refused(tried, Code::PermissionDenied, "PERMISSION_MISSING");
        let info = status.get_details_error_info().unwrap();
        assert_eq!(info.metadata["permission"], "users.assign");
        // With a role here, still not what the group holds elsewhere.
        add(admin, &account, &[&gil], &[AccountRole::Manager])
            .await
            .unwrap();
        let tried = fill(
            &gil.caller,
            filling(&account, &[&rich], &users, developer()),
        )
        .await;
        let status = refused(tried, Code::PermissionDenied, "CANNOT_GRANT_WHAT_YOU_LACK");
        let info = status.get_details_error_info().unwrap();
        assert_eq!(info.metadata["accounts"], other);
        fill(&gil.caller, adding(&account, &[&rich], developer()))
            .await
            .unwrap();
        fill(
            &gil.caller,
            filling(&account, &[&team], &users, developer()),
        )
        .await
        .unwrap();
        assert!(before["group_members"] < row_counts(&site.app).await["group_members"]);
        assert_eq!(admin.group(&rich).await.unwrap().member_count, 0);
        // Users of another tenant are none of the groups'.
        associate(&contoso.admin, &account, &fabrikam.admin)
            .await
            .unwrap();
        let next = group(&contoso, "Next", &[], None).await;
        let theirs = [fabrikam.admin.name.as_str()];
        let tried = fill(admin, filling(&account, &[&next], &theirs, developer())).await;
        refused(tried, Code::PermissionDenied, "PERMISSION_MISSING");
        let both_tenants = [bob.name.as_str(), &fabrikam.admin.name];
        let tried = fill(
            admin,
            filling(&account, &[&next], &both_tenants, developer()),
        )
        .await;
        refused(tried, Code::PermissionDenied, "PERMISSION_MISSING");
        assert!(
            list(admin, &account, "display_name=\"Next\"")
                .await
                .unwrap()
                .is_empty()
        );
    })
    .await;
}

// proves GRP-1, TEN-5, COM-3
#[tokio::test]
async fn what_cannot_be_filled_is_told_and_nothing_is_added() {
    both(async |site| {
        let contoso = site.tenant("contoso").await;
        let account = site.account(&contoso, "Contoso").await;
        let admin = &contoso.admin.caller;
        let bob = site.person(&contoso, "bob").await;
        let gone = site.person(&contoso, "gone").await;
        admin.delete(&gone.name).await.unwrap();
        let team = group(&contoso, "Team", &[], None).await;
        let theirs = group(&contoso, "Theirs", &[], None).await;
        synchronize(&site, "user_groups", &theirs).await;
        let before = row_counts(&site.app).await;
        let with = |groups: &[&str], user: &str| filling(&account, groups, &[user], None);
        let tried = fill(admin, with(&[&team, &bob.name], &bob.name)).await;
        let status = refused(tried, Code::InvalidArgument, "INVALID_FIELDS");
        assert_eq!(fields(&status), ["principals[1]"]);
        let many = vec![team.as_str(); 21];
        let tried = fill(admin, with(&many, &bob.name)).await;
        let status = refused(tried, Code::InvalidArgument, "INVALID_FIELDS");
        assert!(
            fields(&status).contains(&"principals".to_owned()),
            "{status:?}"
        );
        let tried = fill(admin, with(&[&team], &gone.name)).await;
        let status = refused(tried, Code::NotFound, "RESOURCE_NOT_FOUND");
        assert_eq!(fields(&status), ["group_users[0]"]);
        let tried = fill(admin, with(&[&theirs], &bob.name)).await;
        refused(tried, Code::FailedPrecondition, "DIRECTORY_SYNCHRONIZED");
        unchanged(&before, &row_counts(&site.app).await);
    })
    .await;
}
