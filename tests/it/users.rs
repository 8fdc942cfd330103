//! UserService.

use entente::proto::directory::{
    DirectoryRole, GetUserRequest, ListUsersRequest, UpdateUserRequest, User,
};
use tonic::Code;

use crate::harness::{both, fields, new_user, refused};

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
