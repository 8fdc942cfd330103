//! A guest is the person that it is at home: what nobody may do for themselves isn't done for one's own guest either.

use entente::proto::access::AccountRole;
use tonic::Code;

use crate::{
    associations::associate,
    harness::{both, refused, rights},
    members::{add, drop_rights, update},
    people::id,
};

// proves ROL-7, INV-5
#[tokio::test]
async fn manager_gives_no_admin_agent_to_its_own_guest() {
    both(async |site| {
        let contoso = site.tenant("contoso").await;
        let fabrikam = site.tenant("fabrikam").await;
        let account = site.account(&contoso, "Contoso").await;
        let (ann, eve) = (&contoso.admin, &fabrikam.admin);
        associate(ann, &account, eve).await.unwrap();
        drop_rights(ann, &account, rights(&[AccountRole::AdminAgent]))
            .await
            .unwrap();
        // Ann is a guest of fabrikam, and so is a member twice.
        let name = crate::people::guest(&site, &fabrikam.name, ann).await;
        let own = crate::harness::Person {
            name: name.clone(),
            ..ann.clone()
        };
        let bob = site.person(&fabrikam, "bob").await;
        add(&eve.caller, &account, &[&own, &bob], &[])
            .await
            .unwrap();
        let agent = |of: &str| {
            let member = format!("{account}/members/{}", id(of));
            (member, rights(&[AccountRole::AdminAgent]))
        };
        let (member, given) = agent(&name);
        refused(
            update(&ann.caller, &account, &[(&member, given)]).await,
            Code::PermissionDenied,
            "CANNOT_GRANT_WHAT_YOU_LACK",
        );
        let (member, given) = agent(&bob.name);
        update(&ann.caller, &account, &[(&member, given)])
            .await
            .unwrap();
    })
    .await;
}
