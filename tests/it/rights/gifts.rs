//! What sleeps is given to somebody whose rights sleep: the others who hold it hear of it (ROL-13).

use entente::proto::{
    access::AccountRole,
    directory::CreateUserRequest,
    operator::{AssignOperatorRolesRequest, OperatorRole},
};

use crate::{
    groups::{Groups as _, group},
    harness::{Site, TenantSite, both, membership, new_user},
    members::{adding, update},
    people::{letters, operator_tenant},
};

/// How many mails about rights asleep went to an address, naming somebody.
async fn told(site: &Site, to: &str, of: &str) -> usize {
    let letters = letters(site).await;
    let tells = |text: &str| text.contains("asleep") && text.contains(of);
    letters
        .iter()
        .filter(|l| l.to == to && tells(&l.text))
        .count()
}

/// Makes a user whose password somebody else has set: its resource and sign-in names.
async fn sleeper(
    tenant: &TenantSite,
    user_name: &str,
    change: impl FnOnce(&mut CreateUserRequest),
) -> (String, String) {
    let mut request = new_user(&tenant.name, user_name);
    change(&mut request);
    let made = tenant.admin.caller.users().create_user(request).await;
    let user = made.unwrap().into_inner().user.unwrap();
    (user.name, user.sign_in_name)
}

const ANN: &str = "ann@contoso.example";

// proves ROL-13
#[tokio::test]
async fn holders_hear_of_what_sleeps_when_it_is_given_to_who_sleeps() {
    both(async |site| {
        let contoso = site.tenant("contoso").await;
        let account = site.account(&contoso, "Contoso").await;
        let ann = &contoso.admin.caller;
        let agent = [AccountRole::AdminAgent];
        // With the user.
        let (_, made) = sleeper(&contoso, "made", |r| {
            r.memberships = vec![membership(&account, &agent)];
        })
        .await;
        assert_eq!(told(&site, ANN, &made).await, 1);
        // What never sleeps is nobody's concern, nor is who doesn't sleep.
        let (plain, plain_name) = sleeper(&contoso, "plain", |r| {
            r.memberships = vec![membership(&account, &[AccountRole::Developer])];
        })
        .await;
        let awake = site.person(&contoso, "awake").await;
        let (one, one_name) = sleeper(&contoso, "one", |_| ()).await;
        let (two, two_name) = sleeper(&contoso, "two", |_| ()).await;
        assert_eq!(told(&site, ANN, &plain_name).await, 0);
        // Many at once make one mail to each holder.
        let before = letters(&site).await.len();
        let given = Some(crate::harness::rights(&agent));
        let request = adding(&account, &[&one, &awake.name, &two], given);
        ann.members().add_members(request).await.unwrap();
        assert_eq!(told(&site, ANN, &one_name).await, 1);
        assert_eq!(told(&site, ANN, &two_name).await, 1);
        assert_eq!(told(&site, ANN, &awake.sign_in_name).await, 0);
        let after = letters(&site).await;
        let to_ann = after[before..].iter().filter(|l| l.to == ANN).count();
        assert_eq!(to_ann, 1);
        // By a change of what is held, for what is new.
        let member = crate::groups::member_of(&account, &plain);
        let both_roles = [AccountRole::Developer, AccountRole::AdminAgent];
        let change = [(member.as_str(), crate::harness::rights(&both_roles))];
        update(ann, &account, &change).await.unwrap();
        assert_eq!(told(&site, ANN, &plain_name).await, 1);
        let less = [(member.as_str(), crate::harness::rights(&agent))];
        update(ann, &account, &less).await.unwrap();
        assert_eq!(told(&site, ANN, &plain_name).await, 1);
        // By a group: who is in it when it gets something, and who comes to it.
        let (early, early_name) = sleeper(&contoso, "early", |_| ()).await;
        let (late, late_name) = sleeper(&contoso, "late", |_| ()).await;
        let team = group(&contoso, "Team", &[], None).await;
        ann.join(&team, &[&early]).await.unwrap();
        assert_eq!(told(&site, ANN, &early_name).await, 0);
        let given = Some(crate::harness::rights(&agent));
        let request = adding(&account, &[&team], given);
        ann.members().add_members(request).await.unwrap();
        assert_eq!(told(&site, ANN, &early_name).await, 1);
        ann.join(&team, &[&late, &awake.name]).await.unwrap();
        assert_eq!(told(&site, ANN, &late_name).await, 1);
        assert_eq!(told(&site, ANN, &awake.sign_in_name).await, 0);
    })
    .await;
}

// proves ROL-13
#[tokio::test]
async fn staff_hears_of_who_becomes_staff_with_a_password_of_others() {
    both(async |site| {
        let home = operator_tenant(&site).await;
        let (sue, name) = sleeper(&home, "sue", |_| ()).await;
        let request = AssignOperatorRolesRequest {
            principal: sue,
            roles: vec![OperatorRole::OperatorSupport as i32],
            ..AssignOperatorRolesRequest::default()
        };
        let admin = &home.admin.caller;
        admin.staff().assign_operator_roles(request).await.unwrap();
        // Who holds what it got; the administrator searches accounts too.
        assert_eq!(told(&site, "admin@operator.example", &name).await, 1);
        let bob = site.person(&home, "bob").await;
        let request = AssignOperatorRolesRequest {
            principal: bob.name.clone(),
            roles: vec![OperatorRole::OperatorSupport as i32],
            ..AssignOperatorRolesRequest::default()
        };
        admin.staff().assign_operator_roles(request).await.unwrap();
        let of_bob = told(&site, "admin@operator.example", &bob.sign_in_name).await;
        assert_eq!(of_bob, 0);
    })
    .await;
}
