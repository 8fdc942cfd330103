//! What members hold is changed: by others, by themselves, in one call, and where nobody is left.

use entente::{
    access::grants,
    proto::{
        access::{AccountRole, Rights},
        account::{
            GrantFinanceRequest, LeaveAccountRequest, Member, RestoreManagerRequest,
            RevokeFinanceRequest, UpdateMemberRequest, UpdateMembersRequest,
        },
        directory::DisableUserRequest,
    },
};
use tonic::Code;

use super::{add, adding, drop_rights, leave, list, remove, seed, update};
use crate::{
    harness::{Caller, both, membership, new_user, refused, rights},
    identities::own_account,
    people::{application, change, id, identity, second_admin},
};

// proves ROL-7, ROL-9
#[tokio::test]
async fn own_rights_are_dropped_and_memberships_left_by_their_holders_only() {
    both(async |site| {
        let contoso = site.tenant("contoso").await;
        let account = site.account(&contoso, "Contoso").await;
        let dev = site.person(&contoso, "dev").await;
        let stranger = site.person(&contoso, "stranger").await;
        let both_roles = [AccountRole::Developer, AccountRole::HelpdeskAgent];
        add(
            &contoso.admin.caller,
            &account,
            &[&dev],
            &[AccountRole::Developer],
        )
        .await
        .unwrap();
        let left = drop_rights(&dev, &account, rights(&both_roles))
            .await
            .unwrap();
        assert_eq!(left.rights, Some(Rights::default()));
        refused(
            drop_rights(&contoso.admin, &account, rights(&[AccountRole::Manager])).await,
            Code::FailedPrecondition,
            "LAST_MANAGER",
        );
        refused(
            leave(&contoso.admin, &account).await,
            Code::FailedPrecondition,
            "LAST_MANAGER",
        );
        refused(
            leave(&stranger, &account).await,
            Code::PermissionDenied,
            "PERMISSION_MISSING",
        );
        let foreign = LeaveAccountRequest {
            name: contoso.admin.member_of(&account),
            ..LeaveAccountRequest::default()
        };
        refused(
            dev.caller.members().leave_account(foreign).await,
            Code::PermissionDenied,
            "PERMISSION_MISSING",
        );
        leave(&dev, &account).await.unwrap();
        refused(
            leave(&dev, &account).await,
            Code::PermissionDenied,
            "PERMISSION_MISSING",
        );
        let rows = list(&contoso.admin.caller, &account, "").await.unwrap();
        assert_eq!(rows.len(), 1);
    })
    .await;
}

// proves ROL-7, ROL-9, COM-5
#[tokio::test]
async fn a_manager_is_replaced_by_another_in_one_call_with_etags() {
    both(async |site| {
        let contoso = site.tenant("contoso").await;
        let account = site.account(&contoso, "Contoso").await;
        let next = site.person(&contoso, "next").await;
        let admin = &contoso.admin;
        let added = add(&admin.caller, &account, &[&next], &[]).await.unwrap();
        let old = admin.member_of(&account);
        let new = next.member_of(&account);
        let stale = UpdateMembersRequest {
            parent: account.clone(),
            requests: vec![UpdateMemberRequest {
                member: Some(Member {
                    name: new.clone(),
                    etag: "stale".to_owned(),
                    ..Member::default()
                }),
            }],
            ..UpdateMembersRequest::default()
        };
        refused(
            admin.caller.members().update_members(stale).await,
            Code::Aborted,
            "ETAG_MISMATCH",
        );
        let agent = rights(&[AccountRole::AdminAgent]);
        let manager = rights(&[AccountRole::Manager]);
        let twice = [
            (new.as_str(), manager.clone()),
            (new.as_str(), agent.clone()),
        ];
        refused(
            update(&admin.caller, &account, &twice).await,
            Code::InvalidArgument,
            "INVALID_FIELDS",
        );
        refused(
            update(&admin.caller, &account, &[(&old, agent.clone())]).await,
            Code::FailedPrecondition,
            "LAST_MANAGER",
        );
        let unknown = format!("{account}/members/{}", crate::harness::request_id());
        let half = [
            (new.as_str(), manager.clone()),
            (unknown.as_str(), agent.clone()),
        ];
        refused(
            update(&admin.caller, &account, &half).await,
            Code::NotFound,
            "RESOURCE_NOT_FOUND",
        );
        // The one who goes stands first, and yet the one who comes is there before.
        let swap = [
            (old.as_str(), agent.clone()),
            (new.as_str(), manager.clone()),
        ];
        let members = update(&admin.caller, &account, &swap).await.unwrap();
        assert_eq!(members[0].rights, Some(agent));
        assert_eq!(members[1].rights, Some(manager));
        assert_ne!(members[1].etag, added[0].etag);
    })
    .await;
}

// proves ROL-4
#[tokio::test]
async fn finance_is_given_by_its_holders_to_people_who_are_members() {
    both(async |site| {
        let contoso = site.tenant("contoso").await;
        let account = site.account(&contoso, "Contoso").await;
        let admin = &contoso.admin.caller;
        let fay = site.person(&contoso, "fay").await;
        let guy = site.person(&contoso, "guy").await;
        let out = site.person(&contoso, "out").await;
        let program = application(&contoso.admin.caller, &contoso.name, "Robot")
            .await
            .name;
        add(admin, &account, &[&fay, &guy], &[]).await.unwrap();
        admin
            .members()
            .add_members(adding(&account, &[&program], None))
            .await
            .unwrap();
        let grant = async |who: &Caller, name: String| {
            let request = GrantFinanceRequest {
                name,
                ..GrantFinanceRequest::default()
            };
            let done = who.members().grant_finance(request).await;
            done.map(tonic::Response::into_inner)
        };
        let revoke = async |who: &Caller, name: String| {
            let request = RevokeFinanceRequest {
                name,
                ..RevokeFinanceRequest::default()
            };
            let done = who.members().revoke_finance(request).await;
            done.map(tonic::Response::into_inner)
        };
        // A manager can't, by any of the ways.
        let finance = rights(&[AccountRole::Finance]);
        refused(
            grant(admin, guy.member_of(&account)).await,
            Code::PermissionDenied,
            "PERMISSION_MISSING",
        );
        let given = update(admin, &account, &[(&guy.member_of(&account), finance)]).await;
        refused(given, Code::PermissionDenied, "CANNOT_GRANT_WHAT_YOU_LACK");
        seed(&site, &fay.member_of(&account), grants::FINANCE).await;
        let held = grant(&fay.caller, guy.member_of(&account)).await.unwrap();
        assert_eq!(held.rights, Some(rights(&[AccountRole::Finance])));
        // What stays as it is asks nobody who lacks it.
        for roles in [
            &[AccountRole::Developer, AccountRole::Finance][..],
            &[AccountRole::Finance],
        ] {
            update(
                admin,
                &account,
                &[(&guy.member_of(&account), rights(roles))],
            )
            .await
            .unwrap();
        }
        let robot = format!("{account}/members/{}", program.rsplit('/').next().unwrap());
        refused(
            grant(&fay.caller, robot).await,
            Code::FailedPrecondition,
            "NOT_ASSIGNABLE",
        );
        refused(
            grant(&fay.caller, out.member_of(&account)).await,
            Code::NotFound,
            "RESOURCE_NOT_FOUND",
        );
        // A manager can't take it either, but removes the whole member.
        let none = update(
            admin,
            &account,
            &[(&guy.member_of(&account), Rights::default())],
        )
        .await;
        refused(none, Code::PermissionDenied, "CANNOT_GRANT_WHAT_YOU_LACK");
        refused(
            revoke(admin, guy.member_of(&account)).await,
            Code::PermissionDenied,
            "PERMISSION_MISSING",
        );
        let left = revoke(&fay.caller, guy.member_of(&account)).await.unwrap();
        assert_eq!(left.rights, Some(Rights::default()));
        refused(
            grant(&guy.caller, guy.member_of(&account)).await,
            Code::PermissionDenied,
            "PERMISSION_MISSING",
        );
        remove(admin, &account, &[&fay.member_of(&account)], false)
            .await
            .unwrap();
    })
    .await;
}

// proves ROL-4
#[tokio::test]
async fn finance_is_never_given_to_who_is_no_member_yet() {
    both(async |site| {
        let contoso = site.tenant("contoso").await;
        let account = site.account(&contoso, "Contoso").await;
        let admin = &contoso.admin;
        seed(&site, &admin.member_of(&account), grants::FINANCE).await;
        let joe = site.person(&contoso, "joe").await;
        refused(
            add(&admin.caller, &account, &[&joe], &[AccountRole::Finance]).await,
            Code::FailedPrecondition,
            "NOT_ASSIGNABLE",
        );
        let mut request = new_user(&contoso.name, "new");
        request.memberships = vec![membership(&account, &[AccountRole::Finance])];
        refused(
            admin.caller.users().create_user(request).await,
            Code::FailedPrecondition,
            "NOT_ASSIGNABLE",
        );
    })
    .await;
}

// proves ROL-7, ROL-9
#[tokio::test]
async fn the_owner_names_a_manager_only_where_none_is_left() {
    both(async |site| {
        let contoso = site.tenant("contoso").await;
        let fabrikam = site.tenant("fabrikam").await;
        let account = site.account(&contoso, "Contoso").await;
        crate::associations::associate(&contoso.admin, &account, &fabrikam.admin)
            .await
            .unwrap();
        let owner = site.person(&fabrikam, "owner").await;
        let heir = site.person(&fabrikam, "heir").await;
        let off = site.person(&fabrikam, "off").await;
        add(
            &fabrikam.admin.caller,
            &account,
            &[&owner, &heir, &off],
            &[],
        )
        .await
        .unwrap();
        seed(&site, &owner.member_of(&account), grants::OWNER).await;
        let restore = async |who: &Caller, name: String| {
            let request = RestoreManagerRequest {
                name,
                ..RestoreManagerRequest::default()
            };
            let done = who.members().restore_manager(request).await;
            done.map(tonic::Response::into_inner)
        };
        refused(
            restore(&contoso.admin.caller, heir.member_of(&account)).await,
            Code::PermissionDenied,
            "PERMISSION_MISSING",
        );
        refused(
            restore(&owner.caller, heir.member_of(&account)).await,
            Code::FailedPrecondition,
            "MANAGER_EXISTS",
        );
        refused(
            remove(
                &contoso.admin.caller,
                &account,
                &[&owner.member_of(&account)],
                false,
            )
            .await,
            Code::FailedPrecondition,
            "OWNS_ACCOUNT",
        );
        refused(
            leave(&owner, &account).await,
            Code::FailedPrecondition,
            "OWNS_ACCOUNT",
        );
        // Not by other roles either, whoever may give these: they come beside it.
        let (own, both_roles) = (
            rights(&[AccountRole::Owner]),
            rights(&[AccountRole::Owner, AccountRole::Manager]),
        );
        let (member, ann) = (owner.member_of(&account), &contoso.admin.caller);
        update(ann, &account, &[(&member, both_roles)])
            .await
            .unwrap();
        let manager = rights(&[AccountRole::Manager]);
        for caller in [ann, &owner.caller] {
            let tried = update(caller, &account, &[(&member, manager.clone())]).await;
            refused(tried, Code::FailedPrecondition, "OWNS_ACCOUNT");
        }
        update(ann, &account, &[(&member, own)]).await.unwrap();
        // The tenant's second global admin shuts the manager out.
        let second = site
            .person_with(&contoso, "second", |r| {
                let user = r.user.as_mut().unwrap();
                user.directory_roles = vec![1];
                user.recovery_email = "second@contoso.example".to_owned();
            })
            .await;
        let shut = DisableUserRequest {
            name: contoso.admin.name.clone(),
            ..DisableUserRequest::default()
        };
        second.caller.users().disable_user(shut).await.unwrap();
        let shut = DisableUserRequest {
            name: off.name.clone(),
            ..DisableUserRequest::default()
        };
        fabrikam
            .admin
            .caller
            .users()
            .disable_user(shut)
            .await
            .unwrap();
        refused(
            restore(&owner.caller, off.member_of(&account)).await,
            Code::FailedPrecondition,
            "NOT_ASSIGNABLE",
        );
        refused(
            restore(&heir.caller, heir.member_of(&account)).await,
            Code::PermissionDenied,
            "PERMISSION_MISSING",
        );
        let made = restore(&owner.caller, heir.member_of(&account))
            .await
            .unwrap();
        assert_eq!(made.rights, Some(rights(&[AccountRole::Manager])));
        assert!(list(&heir.caller, &account, "").await.is_ok());
    })
    .await;
}

// proves USR-4, ROL-8
#[tokio::test]
async fn a_global_admin_without_rights_there_adds_users_and_nobody_else() {
    both(async |site| {
        let contoso = site.tenant("contoso").await;
        let account = site.account(&contoso, "Contoso").await;
        let second = second_admin(&site, &contoso, "second").await;
        let bob = site.person(&contoso, "bob").await;
        let program = application(&second.caller, &contoso.name, "Robot").await;
        let team = crate::groups::group(&contoso, "Team", &[&bob], None).await;
        for others in [
            &[program.name.as_str()][..],
            &[team.as_str()],
            &[bob.name.as_str(), team.as_str()],
        ] {
            let request = adding(&account, others, None);
            refused(
                second.caller.members().add_members(request).await,
                Code::PermissionDenied,
                "PERMISSION_MISSING",
            );
        }
        add(&second.caller, &account, &[&bob], &[]).await.unwrap();
        let request = adding(&account, &[&program.name, &team], None);
        let manager = &contoso.admin.caller;
        manager.members().add_members(request).await.unwrap();
    })
    .await;
}

// proves ROL-4, ACC-20
#[tokio::test]
async fn no_manager_makes_an_identity_that_is_a_member_the_owner() {
    both(async |site| {
        let contoso = site.tenant("contoso").await;
        let account = site.account(&contoso, "Contoso").await;
        let ida = identity(&site, "ida@mail.example").await;
        own_account(&site, &ida, &account).await;
        let sql = "UPDATE grants SET roles = 0 WHERE principal_id = $1";
        change(&site, sql, [id(&ida.name).into()]).await;
        let (member, owner) = (ida.member_of(&account), rights(&[AccountRole::Owner]));
        let tried = update(&contoso.admin.caller, &account, &[(&member, owner)]).await;
        refused(tried, Code::FailedPrecondition, "NOT_ASSIGNABLE");
    })
    .await;
}
