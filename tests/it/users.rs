//! UserService.

use entente::proto::{
    access::AccountRole,
    account::ListMembersRequest,
    directory::{DirectoryRole, GetUserRequest, ListUsersRequest, UpdateUserRequest, User},
};
use tonic::Code;

use crate::{
    harness::{both, fields, membership, new_user, refused, request_id},
    people::{People as _, events, mask, named, person_as},
};

// proves USR-1, PWD-5
#[tokio::test]
async fn created_user_signs_in_with_the_temporary_password_and_must_change_it() {
    both(async |site| {
        let contoso = site.tenant("contoso").await;
        let made = contoso
            .admin
            .caller
            .users()
            .create_user(new_user(&contoso.name, "bob"))
            .await
            .unwrap()
            .into_inner();
        let user = made.user.unwrap();
        assert_eq!(user.sign_in_name, "bob@contoso.partners.localhost");
        let bob = site
            .sign_in(&user.sign_in_name, &made.temporary_password)
            .await;
        let early = bob
            .users()
            .get_user(GetUserRequest {
                name: user.name.clone(),
            })
            .await;
        refused(early, Code::FailedPrecondition, "PASSWORD_CHANGE_REQUIRED");
        let bob = site
            .settle_in(&user.sign_in_name, &made.temporary_password)
            .await;
        assert_eq!(
            bob.users()
                .get_user(GetUserRequest {
                    name: user.name.clone()
                })
                .await
                .unwrap()
                .into_inner()
                .name,
            user.name
        );
    })
    .await;
}

// proves USR-2
#[tokio::test]
async fn global_admin_needs_a_recovery_address() {
    both(async |site| {
        let contoso = site.tenant("contoso").await;
        let mut request = new_user(&contoso.name, "carol");
        request.user.as_mut().unwrap().directory_roles = vec![DirectoryRole::GlobalAdmin as i32];
        let status = refused(
            contoso
                .admin
                .caller
                .users()
                .create_user(request.clone())
                .await,
            Code::InvalidArgument,
            "INVALID_FIELDS",
        );
        assert_eq!(fields(&status), ["user.recovery_email"]);
        request.user.as_mut().unwrap().recovery_email = "carol@contoso.example".to_owned();
        contoso
            .admin
            .caller
            .users()
            .create_user(request)
            .await
            .unwrap();
    })
    .await;
}

// proves USR-3
#[tokio::test]
async fn user_name_is_unique_ignoring_case_and_renaming_shows_at_once() {
    both(async |site| {
        let contoso = site.tenant("contoso").await;
        let bob = site.person(&contoso, "bob").await;
        let users = || contoso.admin.caller.users();
        refused(
            users().create_user(new_user(&contoso.name, "BOB")).await,
            Code::AlreadyExists,
            "USER_NAME_TAKEN",
        );
        let user = User {
            name: bob.name.clone(),
            user_name: "robert".to_owned(),
            ..User::default()
        };
        let request = UpdateUserRequest {
            user: Some(user),
            ..UpdateUserRequest::default()
        };
        let renamed = users().update_user(request).await.unwrap().into_inner();
        assert_eq!(renamed.sign_in_name, "robert@contoso.partners.localhost");
        users()
            .create_user(new_user(&contoso.name, "bob"))
            .await
            .unwrap();
    })
    .await;
}

// proves USR-1, USR-2, ROL-7
#[tokio::test]
async fn user_with_roles_and_memberships_is_made_whole_or_not_at_all() {
    both(async |site| {
        let contoso = site.tenant("contoso").await;
        let fabrikam = site.tenant("fabrikam").await;
        let account = site.account(&contoso, "Contoso").await;
        let foreign = site.account(&fabrikam, "Fabrikam").await;
        let admin = &contoso.admin.caller;
        let good = {
            let mut request = new_user(&contoso.name, "bob");
            request.user.as_mut().unwrap().directory_roles =
                vec![DirectoryRole::BillingAdmin as i32];
            request.memberships = vec![membership(&account, &[AccountRole::Developer])];
            request
        };
        let nobody_new = async || {
            let users = admin
                .list(&contoso.name, "user_name = \"bob\"")
                .await
                .unwrap();
            let request = ListMembersRequest {
                parent: account.clone(),
                ..ListMembersRequest::default()
            };
            let members = admin.members().list_members(request).await.unwrap();
            (users.len(), members.into_inner().members.len()) == (0, 1)
        };
        // The last of several memberships is refused: nothing of the rest stays.
        let mut request = good.clone();
        request.memberships.push(membership(&foreign, &[]));
        refused(
            admin.users().create_user(request).await,
            Code::PermissionDenied,
            "PERMISSION_MISSING",
        );
        assert!(nobody_new().await);
        let mut request = good.clone();
        request.memberships[0] = membership(&account, &[AccountRole::Finance]);
        refused(
            admin.users().create_user(request).await,
            Code::PermissionDenied,
            "CANNOT_GRANT_WHAT_YOU_LACK",
        );
        assert!(nobody_new().await);
        let mut request = good.clone();
        request.memberships[0] = membership(&account, &[AccountRole::Owner]);
        refused(
            admin.users().create_user(request).await,
            Code::FailedPrecondition,
            "NOT_ASSIGNABLE",
        );
        assert!(nobody_new().await);
        let mut request = good.clone();
        request.memberships.push(membership(&account, &[]));
        let status = refused(
            admin.users().create_user(request).await,
            Code::InvalidArgument,
            "INVALID_FIELDS",
        );
        assert_eq!(fields(&status), ["memberships[1].account"]);
        let mut request = good.clone();
        request.validate_only = true;
        let checked = admin.users().create_user(request).await.unwrap();
        assert_eq!(checked.into_inner().temporary_password, "");
        assert!(nobody_new().await);

        let mut request = good;
        request.request_id = request_id();
        let made = admin.users().create_user(request.clone()).await.unwrap();
        let made = made.into_inner();
        let user = made.user.unwrap();
        assert_eq!(user.directory_roles, [DirectoryRole::BillingAdmin as i32]);
        assert_eq!(user.created_through_account, account);
        let replay = admin.users().create_user(request).await.unwrap();
        assert!(replay.metadata().contains_key("entente-replayed"));
        let replay = replay.into_inner();
        assert_eq!(replay.user.unwrap(), user);
        assert_eq!(replay.temporary_password, "");
        assert!(replay.secret_omitted && !made.secret_omitted);
        let bob = site
            .settle_in(&user.sign_in_name, &made.temporary_password)
            .await;
        let me = bob.who_am_i().await.unwrap();
        assert_eq!(me.accounts.len(), 1);
        assert_eq!(me.directory_roles, user.directory_roles);
        assert_eq!(
            events(&site, "directory.v1.UserCreated", &user.name).await,
            1
        );
    })
    .await;
}

// proves USR-8, ROL-1
#[tokio::test]
async fn only_global_admins_make_and_change_users() {
    both(async |site| {
        let contoso = site.tenant("contoso").await;
        let bob = site.person(&contoso, "bob").await;
        let bill = person_as(&site, &contoso, "bill", DirectoryRole::BillingAdmin).await;
        let hal = person_as(&site, &contoso, "hal", DirectoryRole::HelpdeskAdmin).await;
        let operator = site.operator().await;
        let users = contoso.admin.caller.list(&contoso.name, "").await.unwrap();
        for (who, may_read) in [
            (&bob.caller, false),
            (&bill.caller, true),
            (&hal.caller, true),
            (&operator, false),
        ] {
            let other = &contoso.admin.name;
            let renamed = User {
                given_name: "Other".to_owned(),
                ..named(other)
            };
            let tries = [
                who.users()
                    .create_user(new_user(&contoso.name, "new"))
                    .await
                    .map(drop),
                who.update(renamed, &["given_name"]).await.map(drop),
                who.disable(other).await.map(drop),
                who.enable(other).await.map(drop),
                who.delete(other).await.map(drop),
                who.undelete(other, "").await.map(drop),
                who.assign(other, &[DirectoryRole::GlobalAdmin])
                    .await
                    .map(drop),
                who.replace(other, &bob.name).await.map(drop),
            ];
            for tried in tries {
                refused(tried, Code::PermissionDenied, "PERMISSION_MISSING");
            }
            assert_eq!(who.user(other).await.is_ok(), may_read);
            assert_eq!(who.list(&contoso.name, "").await.is_ok(), may_read);
        }
        // Everybody reads oneself.
        bob.caller.user(&bob.name).await.unwrap();
        assert_eq!(
            contoso.admin.caller.list(&contoso.name, "").await.unwrap(),
            users
        );
    })
    .await;
}

// proves USR-7
#[tokio::test]
async fn users_are_listed_by_every_field() {
    both(async |site| {
        let contoso = site.tenant("contoso").await;
        let admin = &contoso.admin.caller;
        let make = async |name: &str, given: &str, roles: Vec<i32>| {
            let mut request = new_user(&contoso.name, name);
            let user = request.user.as_mut().unwrap();
            user.given_name = given.to_owned();
            user.directory_roles = roles;
            let made = admin.users().create_user(request).await.unwrap();
            made.into_inner().user.unwrap()
        };
        let hal = vec![DirectoryRole::HelpdeskAdmin as i32];
        let both_roles = vec![
            DirectoryRole::HelpdeskAdmin as i32,
            DirectoryRole::BillingAdmin as i32,
        ];
        make("bob", "Éric", hal).await;
        let carol = make("carol", "Carol", both_roles).await;
        let dave = make("dave", "Dave", vec![]).await;
        let erin = make("erin", "Erin", vec![]).await;
        admin.disable(&dave.name).await.unwrap();
        admin.delete(&erin.name).await.unwrap();
        let time = carol.create_time.unwrap();
        let later = format!("create_time > \"{}\"", rfc3339(&time));
        let since = format!("create_time >= \"{}\"", rfc3339(&time));
        for (filter, expected) in [
            ("", vec!["ann", "bob", "carol", "dave"]),
            ("state = ACTIVE", vec!["ann", "bob", "carol"]),
            ("state = DISABLED", vec!["dave"]),
            ("state != ACTIVE", vec!["dave"]),
            ("state = DELETED", vec![]),
            ("kind = MEMBER", vec!["ann", "bob", "carol", "dave"]),
            ("kind = GUEST", vec![]),
            ("user_name = \"CAROL\"", vec!["carol"]),
            ("user_name : \"aro\"", vec!["carol"]),
            ("display_name : \"ÉRIC\"", vec!["bob"]),
            ("display_name = \"dave dave\"", vec!["dave"]),
            ("directory_roles : GLOBAL_ADMIN", vec!["ann"]),
            ("directory_roles : HELPDESK_ADMIN", vec!["bob", "carol"]),
            (
                "directory_roles : HELPDESK_ADMIN AND NOT directory_roles : BILLING_ADMIN",
                vec!["bob"],
            ),
            (
                "user_name = \"bob\" OR (state = DISABLED AND kind = MEMBER)",
                vec!["bob", "dave"],
            ),
            (&later, vec!["dave"]),
            (&since, vec!["carol", "dave"]),
        ] {
            let found = admin.list(&contoso.name, filter).await;
            let found = found.unwrap_or_else(|e| panic!("{filter}: {e:?}"));
            let names: Vec<_> = found.iter().map(|u| u.user_name.as_str()).collect();
            assert_eq!(names, expected, "{filter}");
        }
        let request = |filter: &str, order: &str| ListUsersRequest {
            parent: contoso.name.clone(),
            filter: filter.to_owned(),
            order_by: order.to_owned(),
            show_deleted: true,
            ..ListUsersRequest::default()
        };
        let list = async |filter: &str, order: &str| {
            let users = admin.users().list_users(request(filter, order)).await;
            let users = users.unwrap().into_inner().users;
            users.into_iter().map(|u| u.user_name).collect::<Vec<_>>()
        };
        assert_eq!(list("", "").await.len(), 5);
        assert_eq!(list("state = DELETED", "").await, ["erin"]);
        assert_eq!(
            list("", "display_name desc").await,
            ["bob", "erin", "dave", "carol", "ann"]
        );
        for bad in ["password = \"x\"", "recovery_email : \"a\"", "state ="] {
            let status = refused(
                admin.users().list_users(request(bad, "")).await,
                Code::InvalidArgument,
                "INVALID_FIELDS",
            );
            assert_eq!(fields(&status), ["filter"], "{bad}");
        }
        let status = refused(
            admin
                .users()
                .list_users(request("", "recovery_email"))
                .await,
            Code::InvalidArgument,
            "INVALID_FIELDS",
        );
        assert_eq!(fields(&status), ["order_by"]);
    })
    .await;
}

fn rfc3339(time: &prost_types::Timestamp) -> String {
    time.to_string()
}

// proves USR-3, COM-5, COM-8
#[tokio::test]
async fn user_is_changed_by_mask_and_etag() {
    both(async |site| {
        let contoso = site.tenant("contoso").await;
        let account = site.account(&contoso, "Contoso").await;
        let bob = site
            .person_with(&contoso, "bob", |r| {
                r.memberships = vec![membership(&account, &[])];
            })
            .await;
        let admin = &contoso.admin.caller;
        let before = admin.user(&bob.name).await.unwrap();
        let new = User {
            given_name: "Robert".to_owned(),
            family_name: "Bauer".to_owned(),
            ..named(&bob.name)
        };
        // Only what the mask names.
        let half = admin.update(new.clone(), &["family_name"]).await.unwrap();
        assert_eq!(half.display_name, "Given Bauer");
        let request = UpdateUserRequest {
            user: Some(new.clone()),
            update_mask: Some(mask(&["given_name"])),
            etag: before.etag.clone(),
            ..UpdateUserRequest::default()
        };
        refused(
            admin.users().update_user(request.clone()).await,
            Code::Aborted,
            "ETAG_MISMATCH",
        );
        let request = UpdateUserRequest {
            etag: half.etag,
            ..request
        };
        let whole = admin.users().update_user(request).await.unwrap();
        let whole = whole.into_inner();
        assert_eq!(whole.display_name, "Robert Bauer");
        // It shows at once everywhere: to oneself, on the account, by its new name in searches.
        assert_eq!(
            bob.caller.who_am_i().await.unwrap().display_name,
            "Robert Bauer"
        );
        let request = ListMembersRequest {
            parent: account.clone(),
            filter: "display_name = \"robert bauer\"".to_owned(),
            ..ListMembersRequest::default()
        };
        let members = admin.members().list_members(request).await.unwrap();
        let members = members.into_inner().members;
        assert_eq!(members.len(), 1);
        assert_eq!(members[0].display_name, "Robert Bauer");
        // A required field can't be emptied, unknown ones are named.
        for (paths, field) in [
            (&["given_name"][..], "user.given_name"),
            (&["no_such_field"], "update_mask"),
            (&["etag"], "update_mask"),
            (&["directory_roles"], "update_mask"),
        ] {
            let status = refused(
                admin.update(named(&bob.name), paths).await,
                Code::InvalidArgument,
                "INVALID_FIELDS",
            );
            assert_eq!(fields(&status), [field]);
        }
        // A global admin keeps an address (USR-2).
        let status = refused(
            site.operator()
                .await
                .update(named(&contoso.admin.name), &["recovery_email"])
                .await,
            Code::PermissionDenied,
            "PERMISSION_MISSING",
        );
        assert!(fields(&status).is_empty());
        assert_eq!(admin.user(&bob.name).await.unwrap(), whole);
        assert_eq!(
            events(&site, "directory.v1.UserUpdated", &bob.name).await,
            2
        );
    })
    .await;
}

// proves USR-2
#[tokio::test]
async fn global_admin_keeps_a_recovery_address() {
    both(async |site| {
        let contoso = site.tenant("contoso").await;
        let carol = crate::people::second_admin(&site, &contoso, "carol").await;
        let admin = &contoso.admin.caller;
        let status = refused(
            admin.update(named(&carol.name), &["recovery_email"]).await,
            Code::InvalidArgument,
            "INVALID_FIELDS",
        );
        assert_eq!(fields(&status), ["user.recovery_email"]);
        let bob = site.person(&contoso, "bob").await;
        let status = refused(
            admin.assign(&bob.name, &[DirectoryRole::GlobalAdmin]).await,
            Code::InvalidArgument,
            "INVALID_FIELDS",
        );
        assert_eq!(fields(&status), ["recovery_email"]);
    })
    .await;
}

// proves COM-7, USR-7
#[tokio::test]
async fn users_are_found_by_a_part_of_their_name() {
    both(async |site| {
        let contoso = site.tenant("contoso").await;
        for name in ["marguerite", "margaret", "o'hara", "Zoë"] {
            contoso
                .admin
                .caller
                .users()
                .create_user(new_user(&contoso.name, name))
                .await
                .unwrap();
        }
        let find = async |filter: &str| {
            let request = ListUsersRequest {
                parent: contoso.name.clone(),
                filter: filter.to_owned(),
                ..ListUsersRequest::default()
            };
            let users = contoso
                .admin
                .caller
                .users()
                .list_users(request)
                .await
                .unwrap()
                .into_inner()
                .users;
            users.into_iter().map(|u| u.user_name).collect::<Vec<_>>()
        };
        assert_eq!(find("user_name:ARG").await, ["marguerite", "margaret"]);
        assert_eq!(find("display_name:garet").await, ["margaret"]);
        assert_eq!(find("user_name:\"'hara\"").await, ["o'hara"]);
        assert_eq!(find("user_name:zoë").await, ["Zoë"]);
        assert_eq!(
            find("NOT user_name:arg AND NOT user_name:ann").await,
            ["o'hara", "Zoë"]
        );
        assert_eq!(find("user_name:\"arg OR\"").await, Vec::<String>::new());
        assert_eq!(find("user_name=marg*").await, ["marguerite", "margaret"]);
    })
    .await;
}
