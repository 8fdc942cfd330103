//! A guest's rights sleep with the credential of its home (ROL-13).

use entente::proto::access::{AccountRole, TestMyPermissionsRequest};
use tonic::Code;

use super::{guest, switch};
use crate::{
    harness::{Caller, both, refused},
    invitations::{Inviting as _, addresses, invited, with_account, with_token},
    people::{People as _, change, id, letters},
};

async fn may_act(who: &Caller, account: &str) -> bool {
    let request = TestMyPermissionsRequest {
        resource: account.to_owned(),
        permissions: vec!["delegated.act".to_owned()],
    };
    let may = who.access().test_my_permissions(request).await.unwrap();
    !may.into_inner().permissions.is_empty()
}

// proves ROL-13, INV-4
#[tokio::test]
async fn holders_are_told_when_an_invitation_gives_something_to_somebody_whose_rights_sleep() {
    both(async |site| {
        let contoso = site.tenant("contoso").await;
        let account = site.account(&contoso, "Contoso").await;
        let fabrikam = site.tenant("fabrikam").await;
        let fred = site.person(&fabrikam, "fred").await;
        let reset = fabrikam.admin.caller.reset(&fred.name).await.unwrap();
        let request = addresses(&contoso.name, &[&fred.sign_in_name]);
        let request = with_account(request, &account, &[AccountRole::AdminAgent]);
        let (_, token) = invited(&site, &contoso.admin.caller, request).await;
        let fred = site
            .settle_in(&fred.sign_in_name, &reset.temporary_password)
            .await;
        let to_ann = async || {
            let all = letters(&site).await.into_iter();
            all.filter(|l| l.to == "ann@contoso.example").count()
        };
        let before = to_ann().await;
        fred.accept(with_token(&token)).await.unwrap();
        assert_eq!(to_ann().await, before + 1);
    })
    .await;
}

// proves ROL-13, INV-5
#[tokio::test]
async fn rights_of_a_guest_sleep_when_its_home_is_reset_until_a_holder_at_the_host_wakes_them() {
    both(async |site| {
        let guest = guest(&site, &[AccountRole::AdminAgent]).await;
        assert!(may_act(&guest.caller, &guest.account).await);
        let eve = &guest.fabrikam.admin.caller;
        let reset = eve.reset(&guest.fred.name).await.unwrap();
        // Ann, who holds the same at the host, is told.
        let told = letters(&site).await;
        assert!(
            told.iter().any(|l| l.to == "ann@contoso.example"),
            "{told:?}"
        );
        let fred = site
            .settle_in(&guest.fred.sign_in_name, &reset.temporary_password)
            .await;
        let tokens = switch(&fred, &guest.contoso.name).await.unwrap();
        let there = site.with_token(&tokens.access_token);
        assert!(!may_act(&there, &guest.account).await);

        // Neither the guest itself, nor a stranger, nor the home's admin, who has nothing there.
        let ann = &guest.contoso.admin.caller;
        let bob = site.person(&guest.contoso, "bob").await;
        for other in [&there, &fred, &bob.caller, eve] {
            let tried = other.wake(&guest.name).await;
            refused(tried, Code::PermissionDenied, "NOTHING_TO_WAKE");
        }
        let before = ann.user(&guest.name).await.unwrap();
        let woken = ann.wake(&guest.name).await.unwrap();
        assert_eq!(woken.name, guest.name);
        assert_ne!(woken.etag, before.etag);
        assert!(may_act(&there, &guest.account).await);
        // Nothing sleeps any more.
        let again = ann.wake(&guest.name).await;
        refused(again, Code::PermissionDenied, "NOTHING_TO_WAKE");
    })
    .await;
}

// proves ROL-13, USR-6
#[tokio::test]
async fn holders_hear_of_a_home_that_is_restored_with_a_new_password() {
    both(async |site| {
        let guest = guest(&site, &[AccountRole::AdminAgent]).await;
        // Deleted as long as guests were left where they are.
        let sql = "UPDATE users SET state = 3, delete_time = 1, purge_time = $1 WHERE id = $2";
        let values = [i64::MAX.into(), id(&guest.fred.name).into()];
        change(&site, sql, values).await;
        let eve = &guest.fabrikam.admin.caller;
        let back = eve.undelete(&guest.fred.name, "").await.unwrap();
        assert!(back.user.unwrap().rights_asleep_until.is_some());
        let told = letters(&site).await;
        let tells = |text: &str| text.contains("asleep") && text.contains(&guest.fred.sign_in_name);
        assert!(
            told.iter()
                .any(|l| l.to == "ann@contoso.example" && tells(&l.text)),
            "{told:?}"
        );
        let fred = site
            .settle_in(&guest.fred.sign_in_name, &back.temporary_password)
            .await;
        let tokens = switch(&fred, &guest.contoso.name).await.unwrap();
        let there = site.with_token(&tokens.access_token);
        assert!(!may_act(&there, &guest.account).await);
    })
    .await;
}
