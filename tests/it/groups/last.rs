//! The last manager of an account, who is one by a group: every way to lose it (ROL-9).

use entente::proto::{
    access::{AccountRole, Rights},
    directory::{DeleteGroupsRequest, RemoveGroupMembersRequest},
};
use tonic::{Code, Status};

use super::{Groups as _, group, member_of, owned};
use crate::{
    associations::{associate, dissociate},
    harness::{Person, Site, TenantSite, both, membership, refused, rights},
    members::{crowd, drop_rights, list, remove, update},
    people::{People as _, again, events, second_admin},
};

/// An account whose only managers are those of a group.
struct ByGroup {
    tenant: TenantSite,
    account: String,
    group: String,
    manager: Person,
    /// A second global admin, who is no member.
    other: Person,
}

async fn by_group(site: &Site, prefix: &str) -> ByGroup {
    let tenant = site.tenant(prefix).await;
    let account = site.account(&tenant, prefix).await;
    let other = second_admin(site, &tenant, "other").await;
    let manager = site.person(&tenant, "manager").await;
    let managers = membership(&account, &[AccountRole::Manager]);
    let group = group(&tenant, "Managers", &[&manager], Some(managers)).await;
    drop_rights(&tenant.admin, &account, rights(&[AccountRole::Manager]))
        .await
        .unwrap();
    ByGroup {
        tenant,
        account,
        group,
        manager,
        other,
    }
}

fn last<T: std::fmt::Debug>(tried: Result<T, Status>) {
    refused(tried, Code::FailedPrecondition, "LAST_MANAGER");
}

// proves ROL-9, GRP-3, GRP-4
#[tokio::test]
async fn the_last_manager_by_a_group_is_lost_by_none_of_the_ways() {
    both(async |site| {
        let of = by_group(&site, "contoso").await;
        let (admin, boss) = (&of.tenant.admin.caller, &of.manager);
        let member = member_of(&of.account, &of.group);
        let developers = [(member.as_str(), rights(&[AccountRole::Developer]))];
        last(admin.part(&of.group, &[&boss.name]).await);
        last(admin.disband(&of.tenant.name, &[&of.group]).await);
        last(update(&boss.caller, &of.account, &developers).await);
        last(remove(&boss.caller, &of.account, &[&member], false).await);
        // What is only checked is refused all the same.
        let leaving = RemoveGroupMembersRequest {
            parent: of.group.clone(),
            users: owned(&[&boss.name]),
            validate_only: true,
            ..RemoveGroupMembersRequest::default()
        };
        last(admin.groups().remove_group_members(leaving).await);
        let deleting = DeleteGroupsRequest {
            parent: of.tenant.name.clone(),
            names: owned(&[&of.group]),
            validate_only: true,
            ..DeleteGroupsRequest::default()
        };
        last(admin.groups().delete_groups(deleting).await);
        list(&boss.caller, &of.account, "").await.unwrap();

        // Somebody who can't act is no other: disabled, or never with a credential that still works.
        let off = site.person(&of.tenant, "off").await;
        boss.caller
            .members()
            .add_members(crate::members::adding(
                &of.account,
                &[&off.name],
                Some(rights(&[AccountRole::Manager])),
            ))
            .await
            .unwrap();
        admin.disable(&off.name).await.unwrap();
        last(admin.part(&of.group, &[&boss.name]).await);
        admin.enable(&off.name).await.unwrap();
        let caller = again(&site, &off).await;
        let off = Person { caller, ..off };
        admin.part(&of.group, &[&boss.name]).await.unwrap();
        // Now the other way round: an empty group keeps nobody.
        last(drop_rights(&off, &of.account, rights(&[AccountRole::Manager])).await);
        // Two groups that go together are lost together.
        let managers = |name: &'static str| group(&of.tenant, name, &[], None);
        let (one, two) = (managers("One").await, managers("Two").await);
        let request = crate::members::adding(
            &of.account,
            &[&one, &two],
            Some(rights(&[AccountRole::Manager])),
        );
        off.caller.members().add_members(request).await.unwrap();
        // The admin holds no MANAGER any more, so Off lends a hand.
        let request = crate::members::adding(
            &of.account,
            &[&of.other.name],
            Some(rights(&[AccountRole::Manager])),
        );
        off.caller.members().add_members(request).await.unwrap();
        let other = &of.other.caller;
        other.join(&one, &[&boss.name]).await.unwrap();
        other.join(&two, &[&boss.name]).await.unwrap();
        drop_rights(&off, &of.account, rights(&[AccountRole::Manager]))
            .await
            .unwrap();
        drop_rights(&of.other, &of.account, rights(&[AccountRole::Manager]))
            .await
            .unwrap();
        last(other.disband(&of.tenant.name, &[&one, &two]).await);
        other.disband(&of.tenant.name, &[&one]).await.unwrap();
        list(&boss.caller, &of.account, "").await.unwrap();
        last(other.disband(&of.tenant.name, &[&two]).await);
    })
    .await;
}

// proves ROL-9, TEN-4
#[tokio::test]
async fn a_tenant_whose_group_has_the_last_manager_stays_associated() {
    both(async |site| {
        let contoso = site.tenant("contoso").await;
        let fabrikam = site.tenant("fabrikam").await;
        let account = site.account(&contoso, "Contoso").await;
        associate(&contoso.admin, &account, &fabrikam.admin)
            .await
            .unwrap();
        let eve = site.person(&fabrikam, "eve").await;
        let team = group(&fabrikam, "Team", &[&eve], None).await;
        let theirs = &fabrikam.admin;
        let added = [theirs];
        let own = crate::members::add(&theirs.caller, &account, &added, &[]);
        own.await.unwrap();
        let member = theirs.member_of(&account);
        let assign = crate::members::singly(&["users.assign"]);
        let changes = [(member.as_str(), assign)];
        update(&contoso.admin.caller, &account, &changes)
            .await
            .unwrap();
        let request = crate::members::adding(&account, &[&team], None);
        theirs.caller.members().add_members(request).await.unwrap();
        let custom = Rights {
            roles: vec![AccountRole::AdminAgent as i32],
            permissions: vec!["tenants.manage".to_owned()],
        };
        let ann = contoso.admin.member_of(&account);
        let to = member_of(&account, &team);
        let changes = [
            (to.as_str(), rights(&[AccountRole::Manager])),
            (ann.as_str(), custom),
        ];
        update(&contoso.admin.caller, &account, &changes)
            .await
            .unwrap();
        last(dissociate(&contoso.admin.caller, &account, &fabrikam.name).await);
        list(&eve.caller, &account, "").await.unwrap();
    })
    .await;
}

// proves ROL-9
#[tokio::test]
async fn a_tenant_shuts_out_the_last_manager_by_a_group_and_the_account_is_told() {
    both(async |site| {
        for by_deletion in [false, true] {
            let prefix = if by_deletion { "deleting" } else { "disabling" };
            let of = by_group(&site, prefix).await;
            let kind = "account.v1.AccountWithoutManager";
            assert_eq!(events(&site, kind, &of.account).await, 0);
            if by_deletion {
                of.other.caller.delete(&of.manager.name).await.unwrap();
            } else {
                of.other.caller.disable(&of.manager.name).await.unwrap();
            }
            assert_eq!(events(&site, kind, &of.account).await, 1);
            // Nobody who can act is left: now who can't is no loss.
            if !by_deletion {
                of.other
                    .caller
                    .part(&of.group, &[&of.manager.name])
                    .await
                    .unwrap();
            }
            let names = [of.group.as_str()];
            of.other
                .caller
                .disband(&of.tenant.name, &names)
                .await
                .unwrap();
        }
    })
    .await;
}

// proves ROL-9
#[tokio::test]
async fn of_64_managers_by_a_group_who_are_taken_out_at_once_one_remains() {
    both(async |site| {
        let contoso = site.tenant("contoso").await;
        let account = site.account(&contoso, "Contoso").await;
        let admin = &contoso.admin.caller;
        let managers = membership(&account, &[AccountRole::Manager]);
        let crowd = crowd(&contoso, "manager", 64).await;
        let all: Vec<&str> = crowd.iter().map(String::as_str).collect();
        // Half of them by one group, half by another.
        let one = group(&contoso, "One", &[], Some(managers.clone())).await;
        let two = group(&contoso, "Two", &[], Some(managers)).await;
        admin.join(&one, &all[..32]).await.unwrap();
        admin.join(&two, &all[32..]).await.unwrap();
        drop_rights(&contoso.admin, &account, rights(&[AccountRole::Manager]))
            .await
            .unwrap();
        let mut tasks = tokio::task::JoinSet::new();
        for (i, user) in crowd.into_iter().enumerate() {
            let admin = admin.clone();
            let group = if i < 32 { one.clone() } else { two.clone() };
            tasks.spawn(async move {
                loop {
                    let left = admin.part(&group, &[&user]).await.map(drop);
                    match left {
                        // Too many at once: the client tries again.
                        Err(e) if matches!(e.code(), Code::Aborted | Code::ResourceExhausted) => {}
                        other => return other,
                    }
                }
            });
        }
        let done = tasks.join_all().await;
        let (left, refusals): (Vec<_>, Vec<_>) = done.into_iter().partition(Result::is_ok);
        assert_eq!(left.len(), 63);
        for refusal in refusals {
            last(refusal);
        }
        let sizes = [
            admin.group(&one).await.unwrap().member_count,
            admin.group(&two).await.unwrap().member_count,
        ];
        assert_eq!(sizes.iter().sum::<i64>(), 1);
    })
    .await;
}
