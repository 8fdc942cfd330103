//! Several at once about what is lent: one answer counts, and the customer keeps an admin of its own (REL-3, REL-8, ROL-9).

use entente::proto::relationship::DeclineRelationshipRequest;
use futures_util::future::join_all;

use super::{GLOBAL, Lending, accepted, asked};
use crate::{
    claims::chains_are_intact,
    harness::both,
    people::{People as _, id, number, second_admin},
};

// proves REL-3, REL-7
#[tokio::test]
async fn of_many_answers_at_once_one_counts() {
    both(async |site| {
        let partner = site.tenant("contoso").await;
        let account = site.account(&partner, "Contoso").await;
        let customer = site.tenant("fabrikam").await;
        let by = &partner.admin.caller;
        let name = asked(by, &account, "ann@fabrikam.example", &[GLOBAL]).await;
        let answer = async |accepts: bool| {
            if accepts {
                return accepted(&customer, &name, &[GLOBAL]).await.is_ok();
            }
            let request = DeclineRelationshipRequest {
                name: name.clone(),
                tenant: customer.name.clone(),
                ..DeclineRelationshipRequest::default()
            };
            let mut client = customer.admin.caller.relationships();
            client.decline_relationship(request).await.is_ok()
        };
        let done = join_all((0..16).map(|i| answer(i % 2 == 0))).await;
        let won: Vec<usize> = (0..16).filter(|i| done[*i]).collect();
        assert_eq!(won.len(), 1, "{done:?}");
        let in_force = "SELECT COUNT(*) AS n FROM delegations WHERE relationship_id = $1";
        let in_force = number(&site, in_force, [id(&name).into()]).await;
        assert_eq!(in_force == 1, won[0].is_multiple_of(2));
        chains_are_intact(&site.app).await;
    })
    .await;
}

// proves REL-8, ROL-9
#[tokio::test]
async fn agents_at_once_leave_the_customer_an_admin() {
    both(async |site| {
        let lending = Lending::of(&site, &[GLOBAL]).await;
        let mut admins = vec![lending.customer.admin.clone()];
        for name in ["amy", "abe", "ada"] {
            admins.push(second_admin(&site, &lending.customer, name).await);
        }
        let agent = lending.agent();
        let disabled = join_all(admins.iter().map(|a| lending.disable(agent, &a.name))).await;
        assert_eq!(disabled.iter().filter(|done| done.is_ok()).count(), 3);
        let mut left = Vec::new();
        for admin in &admins {
            left.push(admin.caller.who_am_i().await.is_ok());
        }
        assert_eq!(left.iter().filter(|there| **there).count(), 1);
        chains_are_intact(&site.app).await;
    })
    .await;
}
