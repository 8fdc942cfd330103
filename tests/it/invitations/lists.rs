//! Invitations as those who manage them see them, and where their links lead.

use super::*;

// proves COM-7, ATK-8, ATK-15
#[tokio::test]
async fn invitations_are_listed_by_state_and_address_to_those_who_manage_them() {
    both(async |site| {
        let contoso = site.tenant("contoso").await;
        let fabrikam = site.tenant("fabrikam").await;
        let account = site.account(&contoso, "Contoso").await;
        let admin = &contoso.admin.caller;
        let made = admin
            .invite(addresses(
                &contoso.name,
                &["d@mail.example", "b@mail.example", "a@mail.example"],
            ))
            .await
            .unwrap();
        let joined = with_account(
            addresses(&contoso.name, &["c@mail.example"]),
            &account,
            &[AccountRole::Developer],
        );
        admin.invite(joined).await.unwrap();
        admin.revoke(&made[0].name).await.unwrap();
        let token = token_for(&site, "b@mail.example").await;
        site.nobody().accept(as_new(&token)).await.unwrap();
        let told = async |caller: &Caller, filter: &str| -> Vec<String> {
            let all = caller.invitations_of(&contoso.name, filter).await.unwrap();
            all.into_iter().map(|i| i.email).collect()
        };
        for (filter, emails) in [
            ("state = PENDING", &["a@mail.example", "c@mail.example"][..]),
            ("state = ACCEPTED", &["b@mail.example"]),
            ("state = REVOKED", &["d@mail.example"]),
            ("state = EXPIRED", &[]),
            ("email = \"A@mail.example\"", &["a@mail.example"]),
            (&format!("account = \"{account}\""), &["c@mail.example"]),
        ] {
            let mut found = told(admin, filter).await;
            found.sort();
            assert_eq!(found, emails, "{filter}");
        }
        // Pages by address.
        let mut request = ListInvitationsRequest {
            parent: contoso.name.clone(),
            page_size: 3,
            order_by: "email".to_owned(),
            ..ListInvitationsRequest::default()
        };
        let page = admin.invitations().list_invitations(request.clone()).await;
        let page = page.unwrap().into_inner();
        request.page_token = page.next_page_token;
        let rest = admin.invitations().list_invitations(request).await;
        let rest = rest.unwrap().into_inner();
        assert_eq!(rest.next_page_token, "");
        let all = page.invitations.iter().chain(&rest.invitations);
        let all: Vec<_> = all.map(|i| &i.email[..1]).collect();
        assert_eq!(all, ["a", "b", "c", "d"]);
        // With time, pending ones have expired, whoever looks.
        site.advance(31 * 86_400).await;
        site.settle().await;
        let ann = again(&site, &contoso.admin).await;
        assert!(told(&ann, "state = PENDING").await.is_empty());
        assert_eq!(told(&ann, "state = EXPIRED").await.len(), 2);

        // Nobody else sees or touches them.
        let eve = again(&site, &fabrikam.admin).await;
        let bob = site
            .person(
                &TenantSite {
                    name: contoso.name.clone(),
                    admin: Person {
                        caller: ann.clone(),
                        ..contoso.admin.clone()
                    },
                },
                "bob",
            )
            .await;
        let name = &made[2].name;
        for caller in [&eve, &bob.caller] {
            for tried in [
                caller.invitation(name).await.map(drop),
                caller.resend(name).await.map(drop),
                caller.revoke(name).await.map(drop),
                caller.invitations_of(&contoso.name, "").await.map(drop),
            ] {
                refused(tried, Code::PermissionDenied, "PERMISSION_MISSING");
            }
        }
        let under = name.replace(&contoso.name, &fabrikam.name);
        for tried in [
            eve.invitation(&under).await.map(drop),
            eve.resend(&under).await.map(drop),
            eve.revoke(&under).await.map(drop),
        ] {
            refused(tried, Code::NotFound, "RESOURCE_NOT_FOUND");
        }
    })
    .await;
}

// proves ATK-6, COM-20
#[tokio::test]
async fn links_keep_the_configured_origin_whatever_host_is_asked_for() {
    both(async |site| {
        let contoso = site.tenant("contoso").await;
        let evil = tonic::transport::Endpoint::from_shared(format!("http://{}", site.address))
            .unwrap()
            .origin("http://evil.example".parse().unwrap())
            .connect_lazy();
        let caller = Caller {
            channel: evil,
            ..contoso.admin.caller.clone()
        };
        let forged = |request: InviteUsersRequest| {
            let mut request = Request::new(request);
            for (key, value) in [
                ("x-forwarded-host", "evil.example"),
                ("x-forwarded-proto", "ftp"),
                ("forwarded", "host=evil.example"),
                ("x-original-host", "evil.example"),
                ("origin", "http://evil.example"),
                ("referer", "http://evil.example/"),
            ] {
                request.metadata_mut().insert(key, value.parse().unwrap());
            }
            request
        };
        let request = forged(addresses(&contoso.name, &["gwen@mail.example"]));
        let made = caller.invitations().invite_users(request).await.unwrap();
        let made = made.into_inner().invitations.remove(0);
        let token = token_for(&site, "gwen@mail.example").await;
        caller.resend(&made.name).await.unwrap();
        let again = token_for(&site, "gwen@mail.example").await;
        let letters = letters(&site).await;
        let mine: Vec<_> = letters
            .iter()
            .filter(|l| l.to == "gwen@mail.example")
            .collect();
        assert_eq!(mine.len(), 2);
        for (letter, token) in mine.iter().zip([&token, &again]) {
            let link = format!(
                "{}/accept-invitation#{token}",
                site.app.config.public_origin
            );
            assert!(letter.text.contains(&link), "{}", letter.text);
            assert!(!letter.text.contains("evil.example"), "{}", letter.text);
        }
    })
    .await;
}
