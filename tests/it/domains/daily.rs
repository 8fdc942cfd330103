//! The daily look-up of verified domains (TEN-2).

use entente::proto::directory::{Domain, DomainState};

use super::{Domains as _, record, verified, with_dns};
use crate::{
    dns::NameServer,
    harness::{PASSWORD, Site, TenantSite},
    people::{events, eventually, id, letters, number},
};

const DAY_S: i64 = 86_400;

/// Waits until a domain is in a state; look-ups are also this process's own scheduler's.
pub(super) async fn is(site: &Site, domain: &Domain, state: DomainState) {
    let sql = "SELECT state AS n FROM domains WHERE id = $1";
    eventually(async || {
        let found = number(site, sql, [id(&domain.name).into()]).await;
        found == i64::from(state as i32)
    })
    .await;
}

/// A day passes, and all is looked up.
async fn day(site: &Site) {
    site.advance(DAY_S).await;
    let due =
        "SELECT COUNT(*) AS n FROM domains WHERE next_look_up_time <= $1 OR lease_id IS NOT NULL";
    eventually(async || {
        site.settle().await;
        let now = site.app.now().await.unwrap();
        number(site, due, [now.into()]).await == 0
    })
    .await;
}

/// What the tenant's admin sees now.
async fn seen(site: &Site, tenant: &TenantSite, domain: &Domain) -> Domain {
    let admin = site.sign_in(&tenant.admin.sign_in_name, PASSWORD).await;
    admin.domain(&domain.name).await.unwrap()
}

async fn lapsed(site: &Site, names: &NameServer, tenant: &TenantSite, domain: &Domain) {
    names.publish(&[]).await;
    for _ in 0..8 {
        day(site).await;
    }
    is(site, domain, DomainState::Lapsed).await;
    let seen = seen(site, tenant, domain).await;
    assert!(seen.missing_since_time.is_some());
}

// proves TEN-2
#[tokio::test]
async fn record_gone_for_seven_days_makes_the_domain_lapse_and_admins_are_told() {
    with_dns(async |site, mut names| {
        let contoso = site.tenant("contoso").await;
        let made = verified(&names, &contoso, "contoso.example").await;
        day(&site).await;
        let looked = seen(&site, &contoso, &made).await;
        let seconds = |d: &Domain| d.look_up_time.unwrap().seconds;
        assert!(seconds(&looked) > seconds(&made));
        assert_eq!(looked.missing_since_time, None);
        assert_eq!(looked.etag, made.etag, "look-ups alone change no etag");

        // Gone for a while, and back: all is as before.
        names.publish(&[]).await;
        for _ in 0..5 {
            day(&site).await;
        }
        let missed = seen(&site, &contoso, &made).await;
        assert!(missed.missing_since_time.is_some());
        assert_eq!(missed.state(), DomainState::Verified);
        names.publish(&[record(&made)]).await;
        day(&site).await;
        let back = seen(&site, &contoso, &made).await;
        assert_eq!(back.missing_since_time, None);

        // A DNS that doesn't answer isn't a record that is gone.
        names.stop();
        day(&site).await;
        site.advance(8 * DAY_S).await;
        day(&site).await;
        let kept = seen(&site, &contoso, &made).await;
        assert_eq!(kept.state(), DomainState::Verified);
        assert_eq!(kept.missing_since_time, None);
        names.resume().await;

        names.publish(&[]).await;
        for _ in 0..7 {
            day(&site).await;
            assert_eq!(
                seen(&site, &contoso, &made).await.state(),
                DomainState::Verified
            );
        }
        day(&site).await;
        is(&site, &made, DomainState::Lapsed).await;
        assert_ne!(seen(&site, &contoso, &made).await.etag, made.etag);
        assert_eq!(
            events(&site, "directory.v1.DomainLapsed", &made.name).await,
            1
        );
        let told: Vec<_> = letters(&site)
            .await
            .into_iter()
            .filter(|letter| letter.text.contains(&made.record_value))
            .map(|letter| letter.to)
            .collect();
        assert_eq!(told, ["ann@contoso.example"]);

        // It is looked for on, and comes back with its record.
        day(&site).await;
        is(&site, &made, DomainState::Lapsed).await;
        names.publish(&[record(&made)]).await;
        day(&site).await;
        is(&site, &made, DomainState::Verified).await;
        assert_eq!(seen(&site, &contoso, &made).await.missing_since_time, None);
        assert_eq!(
            letters(&site)
                .await
                .iter()
                .filter(|l| l.text.contains(&made.record_value))
                .count(),
            1
        );
    })
    .await;
}

// proves TEN-2
#[tokio::test]
async fn lapsed_domain_is_free_and_does_not_come_back_from_its_new_tenant() {
    with_dns(async |site, names| {
        let contoso = site.tenant("contoso").await;
        let fabrikam = site.tenant("fabrikam").await;
        let made = verified(&names, &contoso, "contoso.example").await;
        lapsed(&site, &names, &contoso, &made).await;
        let admin = site.sign_in(&fabrikam.admin.sign_in_name, PASSWORD).await;
        let theirs = admin
            .named(&fabrikam.name, "contoso.example")
            .await
            .unwrap();
        names.publish(&[record(&made), record(&theirs)]).await;
        admin.verify(&theirs.name).await.unwrap();
        day(&site).await;
        is(&site, &made, DomainState::Lapsed).await;
        is(&site, &theirs, DomainState::Verified).await;
        let one = "SELECT COUNT(*) AS n FROM domains WHERE state = 2";
        assert_eq!(number(&site, one, []).await, 1);
    })
    .await;
}

// proves TEN-2, COM-21
#[tokio::test]
async fn domain_given_up_is_looked_up_no_more_after_ninety_days_but_on_request() {
    with_dns(async |site, names| {
        let contoso = site.tenant("contoso").await;
        let made = verified(&names, &contoso, "contoso.example").await;
        lapsed(&site, &names, &contoso, &made).await;
        site.advance(85 * DAY_S).await;
        day(&site).await;
        let due = "SELECT COUNT(*) AS n FROM domains WHERE next_look_up_time IS NOT NULL";
        assert_eq!(number(&site, due, []).await, 0);
        names.publish(&[record(&made)]).await;
        day(&site).await;
        is(&site, &made, DomainState::Lapsed).await;
        let admin = site.sign_in(&contoso.admin.sign_in_name, PASSWORD).await;
        let again = admin.verify(&made.name).await.unwrap();
        assert_eq!(again.state(), DomainState::Verified);
        assert_eq!(number(&site, due, []).await, 1);
    })
    .await;
}
