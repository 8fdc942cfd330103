//! The agent of a synchronisation: who appoints it, and what it may.

use entente::proto::directory::DirectoryRole;
use tonic::Code;
use tonic_types::StatusExt as _;

use super::*;
use crate::{
    harness::fields,
    people::{person_as, refresh, second_admin},
};

// proves TEN-5, ROL-7, ATK-12
#[tokio::test]
async fn agent_is_appointed_by_who_manages_synchronisation_and_may_nothing_else() {
    both(async |site| {
        let contoso = site.tenant("contoso").await;
        let fabrikam = site.tenant("fabrikam").await;
        let admin = &contoso.admin.caller;
        let hal = person_as(&site, &contoso, "hal", DirectoryRole::HelpdeskAdmin).await;
        let app = application(admin, &contoso.name, "One").await;
        let foreign = application(&fabrikam.admin.caller, &fabrikam.name, "Theirs").await;
        for caller in [&hal.caller, &fabrikam.admin.caller] {
            refused(
                mark(caller, &contoso.name, &app.name).await,
                Code::PermissionDenied,
                "PERMISSION_MISSING",
            );
        }
        let status = refused(
            mark(admin, &contoso.name, &foreign.name).await,
            Code::InvalidArgument,
            "INVALID_FIELDS",
        );
        assert_eq!(fields(&status), ["agent"]);
        let mixed = foreign.name.replace(&fabrikam.name, &contoso.name);
        refused(
            mark(admin, &contoso.name, &mixed).await,
            Code::NotFound,
            "RESOURCE_NOT_FOUND",
        );
        // Before it is marked nothing can be sent, though the right is there.
        let stale = SetDirectorySynchronizationRequest {
            name: contoso.name.clone(),
            enabled: true,
            agent: app.name.clone(),
            etag: "\"77\"".to_owned(),
            ..SetDirectorySynchronizationRequest::default()
        };
        let mut tenants = admin.tenants();
        refused(
            tenants.set_directory_synchronization(stale).await,
            Code::Aborted,
            "ETAG_MISMATCH",
        );

        let mut agent = Agent::of(&site, &contoso).await;
        agent.bring(vec![user("u/bob"), program("a/1", "")]).await;
        state(&agent.caller, &contoso.name).await.unwrap();
        let kind = "directory.v1.DirectorySynchronizationSet";
        assert_eq!(events(&site, kind, &contoso.name).await, 1);
        let bob = user_of(&site, &contoso.name, "u/bob").await;
        for tried in [
            agent.caller.user(&bob).await.map(drop),
            agent.caller.list(&contoso.name, "").await.map(drop),
            agent.caller.disable(&bob).await.map(drop),
            agent.caller.delete(&bob).await.map(drop),
            agent
                .caller
                .assign(&bob, &[DirectoryRole::GlobalAdmin])
                .await
                .map(drop),
            agent.caller.key(&agent.name).await.map(drop),
            mark(&agent.caller, &contoso.name, "").await.map(drop),
            state(&agent.caller, &fabrikam.name).await.map(drop),
            sync(&hal.caller, vec![agent.message(vec![])])
                .await
                .map(drop),
        ] {
            refused(tried, Code::PermissionDenied, "PERMISSION_MISSING");
        }
        agent.sequence -= 1;
        // Who manages synchronisation may send by hand.
        sync(admin, vec![agent.message(vec![user("u/cid")])])
            .await
            .unwrap();

        // What the directory itself brought would be deleted by it.
        let own = name_of(&site, &contoso.name, "applications", "a/1")
            .await
            .unwrap();
        let status = refused(
            mark(admin, &contoso.name, &own).await,
            Code::InvalidArgument,
            "INVALID_FIELDS",
        );
        assert_eq!(fields(&status), ["agent"]);
        // Another agent: the one before has lost the right by the next call.
        mark(admin, &contoso.name, &app.name).await.unwrap();
        let message = agent.message(vec![]);
        refused(
            sync(&agent.caller, vec![message]).await,
            Code::PermissionDenied,
            "PERMISSION_MISSING",
        );
        agent.sequence -= 1;
        let secret = admin.key(&app.name).await.unwrap().secret;
        let tokens = sign_in_by_key(&site, &app.client_id, &secret)
            .await
            .unwrap();
        let next = site.with_token(&tokens.access_token);
        sync(&next, vec![agent.message(vec![user("u/dan")])])
            .await
            .unwrap();
        assert!(refresh(&site, &tokens.refresh_token).await.is_err());
    })
    .await;
}

// proves ROL-7, APP-4
#[tokio::test]
async fn keys_of_the_agent_are_made_by_who_manages_synchronisation_only() {
    both(async |site| {
        let contoso = site.tenant("contoso").await;
        let admin = &contoso.admin.caller;
        let bob = second_admin(&site, &contoso, "bob").await;
        let hal = person_as(&site, &contoso, "hal", DirectoryRole::HelpdeskAdmin).await;
        let agent = Agent::of(&site, &contoso).await;
        // A global admin lacks directory.sync, and makes the agent's keys by the exception; which covers nothing else that it holds.
        bob.caller.key(&agent.name).await.unwrap();
        refused(
            hal.caller.key(&agent.name).await,
            Code::PermissionDenied,
            "PERMISSION_MISSING",
        );
        let account = site.account(&contoso, "Contoso").await;
        add(admin, &account, &[&agent.name], &[AccountRole::Developer]).await;
        let status = refused(
            bob.caller.key(&agent.name).await,
            Code::PermissionDenied,
            "CANNOT_GRANT_WHAT_YOU_LACK",
        );
        let lacking = &status.get_details_error_info().unwrap().metadata["lacking"];
        assert!(!lacking.contains("directory.sync"), "{lacking}");
    })
    .await;
}

// proves ROL-12, ROL-7
#[tokio::test]
async fn directory_sync_is_given_to_the_agent_only_and_by_no_other_way() {
    both(async |site| {
        let contoso = site.tenant("contoso").await;
        let account = site.account(&contoso, "Contoso").await;
        let admin = &contoso.admin.caller;
        let agent = Agent::of(&site, &contoso).await;
        let held = "SELECT COUNT(*) AS n FROM grants WHERE permissions LIKE '%directory.sync%'";
        assert_eq!(number(&site, held, []).await, 1);
        let request = AddMembersRequest {
            parent: account,
            principals: vec![agent.name.clone()],
            rights: Some(entente::proto::access::Rights {
                permissions: vec!["directory.sync".to_owned()],
                ..Default::default()
            }),
            ..AddMembersRequest::default()
        };
        let status = refused(
            admin.members().add_members(request).await,
            Code::InvalidArgument,
            "INVALID_FIELDS",
        );
        assert_eq!(fields(&status), ["rights.permissions[0]"]);
        mark(admin, &contoso.name, "").await.unwrap();
        assert_eq!(number(&site, held, []).await, 0);
    })
    .await;
}
