//! The way back for people who forgot their password (PWD-4), and what holds for every mailed link: one use, one kind, one answer to all
//! else (ATK-2 to ATK-7).

use entente::{
    access::rules,
    proto::{
        access::{AccountRole, LinkKind},
        account::AddMembersRequest,
        directory::{
            CompletePasswordRecoveryRequest, StartPasswordRecoveryRequest, TokenSet, User,
        },
    },
};
use futures_util::future::join_all;
use tonic::{Code, Request, Status};
use tonic_types::StatusExt as _;

use crate::{
    access::world,
    dynamic,
    harness::{
        PASSWORD, Person, Site, TenantSite, both, fields, new_user, refused, request_id, rights,
    },
    people::{
        People as _, Service, again, ask_recovery, audited, change, change_password, confirm,
        events, guest, id, identity, letters, link_invalid, mailed_token, named, new_identity,
        number, recover, refresh, second_admin, sign_in_from,
    },
};

const NEW: &str = "green chair on a hill";
const MAILBOX: &str = "bob@home.example";

fn failed(tried: Result<TokenSet, Status>) {
    refused(tried, Code::Unauthenticated, "SIGN_IN_FAILED");
}

/// A user with a recovery address.
async fn bob(site: &Site, tenant: &TenantSite) -> Person {
    site.person_with(tenant, "bob", |r| {
        r.user.as_mut().unwrap().recovery_email = MAILBOX.to_owned();
    })
    .await
}

/// The token of a recovery that was asked for.
async fn token_of(site: &Site, sign_in_name: &str, mailbox: &str) -> String {
    ask_recovery(site, sign_in_name).await.unwrap();
    mailed_token(site, mailbox).await.unwrap()
}

async fn links(site: &Site) -> i64 {
    number(site, "SELECT COUNT(*) AS n FROM links", []).await
}

const COMPLETE: &str = "entente.directory.v1.SessionService/CompletePasswordRecovery";

// proves PWD-4, COM-4, COM-10, COM-20
#[tokio::test]
async fn link_to_the_address_on_file_sets_a_password_once() {
    both(async |site| {
        let contoso = site.tenant("contoso").await;
        let bob = bob(&site, &contoso).await;
        let tokens = site.tokens(&bob.sign_in_name, PASSWORD).await.unwrap();
        let spelt = bob.sign_in_name.to_uppercase();
        let token = token_of(&site, &spelt, MAILBOX).await;
        let letters_before = letters(&site).await;
        let letter = letters_before.iter().rfind(|l| l.to == MAILBOX).unwrap();
        let link = format!("{}/recover-password#{token}", site.app.config.public_origin);
        assert!(letter.text.contains(&link), "{}", letter.text);
        let lifetime = "SELECT expire_time - create_time AS n FROM links";
        assert_eq!(number(&site, lifetime, []).await, 3_600 * 1_000_000);
        // Nothing has changed yet.
        bob.caller.who_am_i().await.unwrap();
        // A bad password uses nothing up.
        for bad in ["short", "password1234", "bob-green-chair-77"] {
            let status = refused(
                recover(&site, &token, bad).await,
                Code::InvalidArgument,
                "INVALID_FIELDS",
            );
            assert_eq!(fields(&status), ["new_password"], "{bad}");
        }
        let request = CompletePasswordRecoveryRequest {
            token: token.clone(),
            new_password: NEW.to_owned(),
            request_id: request_id(),
        };
        let complete = async |request: &CompletePasswordRecoveryRequest| {
            let nobody = site.nobody();
            let done = nobody
                .sessions()
                .complete_password_recovery(request.clone())
                .await;
            done.map(tonic::Response::into_inner)
        };
        let first = complete(&request).await.unwrap();
        assert_eq!(first.ended_session_count, 2);
        assert_eq!(complete(&request).await.unwrap(), first);
        link_invalid(recover(&site, &token, PASSWORD).await);
        for tried in [
            bob.caller.who_am_i().await.map(drop),
            refresh(&site, &tokens.refresh_token).await.map(drop),
        ] {
            refused(tried, Code::Unauthenticated, "TOKEN_INVALID");
        }
        failed(site.tokens(&bob.sign_in_name, PASSWORD).await);
        site.tokens(&bob.sign_in_name, NEW).await.unwrap();
        assert_eq!(
            events(&site, "directory.v1.PasswordRecovered", &bob.name).await,
            1
        );
        let told = audited(
            &contoso.admin.caller,
            &contoso.name,
            &format!("action = \"{COMPLETE}\""),
        )
        .await
        .unwrap();
        assert_eq!((told.len(), &told[0].actor), (1, &bob.name));
        let letters = letters(&site).await;
        assert_eq!(letters.len(), letters_before.len() + 1);
        let told = letters.last().unwrap();
        assert!(
            told.to == MAILBOX && !told.text.contains("entl_"),
            "{}",
            told.text
        );
        assert_eq!(links(&site).await, 0);
    })
    .await;
}

// proves PWD-4, PWD-7, COM-2
#[tokio::test]
async fn asking_costs_and_answers_the_same_for_everybody() {
    both(async |site| {
        let contoso = site.tenant("contoso").await;
        let fabrikam = site.tenant("fabrikam").await;
        let admin = &contoso.admin.caller;
        bob(&site, &contoso).await;
        site.person(&contoso, "without").await;
        for name in ["disabled", "deleted"] {
            let person = site
                .person_with(&contoso, name, |r| {
                    r.user.as_mut().unwrap().recovery_email = format!("{name}@home.example");
                })
                .await;
            match name {
                "disabled" => drop(admin.disable(&person.name).await.unwrap()),
                _ => drop(admin.delete(&person.name).await.unwrap()),
            }
        }
        let ida = identity(&site, "ida@mail.example").await;
        let gwen = guest(&site, &fabrikam.name, &ida).await;
        let sql = "UPDATE users SET user_name = 'gwen', user_name_fold = 'gwen', recovery_email = 'gwen@home.example' WHERE id = $1";
        change(&site, sql, [id(&gwen).into()]).await;
        ask_recovery(&site, "warm@mail.example").await.unwrap();
        let sent = letters(&site).await.len();
        let mut told = Vec::new();
        for name in [
            "bob@contoso.partners.localhost",
            "without@contoso.partners.localhost",
            "disabled@contoso.partners.localhost",
            "deleted@contoso.partners.localhost",
            "nobody@contoso.partners.localhost",
            "nobody@nowhere.partners.localhost",
            "gwen@fabrikam.partners.localhost",
            "ida@mail.example",
            "nobody@mail.example",
            "bob",
            "@contoso.partners.localhost",
            "bob@home.example",
        ] {
            let (answer, cost) = site.cost_of(ask_recovery(&site, name)).await;
            answer.unwrap();
            assert_eq!((cost.hashes, cost.mails), (0, 0), "{name}");
            told.push(cost.statements);
        }
        assert!(told.windows(2).all(|w| w[0] == w[1]), "{told:#?}");
        let letters = letters(&site).await;
        let mut to: Vec<_> = letters[sent..].iter().map(|l| l.to.as_str()).collect();
        to.sort_unstable();
        assert_eq!(to, [MAILBOX, "ida@mail.example"]);
        let left = "SELECT COUNT(*) AS n FROM recovery_requests";
        assert_eq!(number(&site, left, []).await, 0);
    })
    .await;
}

// proves ATK-5, PWD-4
#[tokio::test]
async fn mail_goes_to_no_address_of_the_request() {
    both(async |site| {
        let contoso = site.tenant("contoso").await;
        bob(&site, &contoso).await;
        identity(&site, "ida@mail.example").await;
        let sent = letters(&site).await.len();
        for name in [
            "bob@contoso.partners.localhost,eve@evil.example",
            "eve@evil.example,bob@contoso.partners.localhost",
            "bob@contoso.partners.localhost;eve@evil.example",
            "eve@evil.example bob@contoso.partners.localhost",
            "eve@evil.example@contoso.partners.localhost",
            "<bob@contoso.partners.localhost>",
            " bob@contoso.partners.localhost",
            "bob%@contoso.partners.localhost",
            "b_b@contoso.partners.localhost",
            "ida@mail.example,eve@evil.example",
            "' OR 1=1 --",
        ] {
            ask_recovery(&site, name).await.unwrap();
        }
        for name in [
            "bob@contoso.partners.localhost\neve@evil.example",
            "ida@mail.example\r\nBcc: eve@evil.example",
            "",
        ] {
            let tried = ask_recovery(&site, name).await;
            let status = refused(tried, Code::InvalidArgument, "INVALID_FIELDS");
            assert_eq!(fields(&status), ["sign_in_name"]);
        }
        assert_eq!(letters(&site).await.len(), sent);
        assert_eq!(links(&site).await, 0);
    })
    .await;
}

// proves PWD-4, ATK-4
#[tokio::test]
async fn newer_links_and_changed_credentials_make_a_link_void() {
    both(async |site| {
        let contoso = site.tenant("contoso").await;
        let bob = bob(&site, &contoso).await;
        let name = &bob.sign_in_name;
        let first = token_of(&site, name, MAILBOX).await;
        let second = token_of(&site, name, MAILBOX).await;
        assert_ne!(first, second);
        link_invalid(recover(&site, &first, NEW).await);
        recover(&site, &second, NEW).await.unwrap();

        let token = token_of(&site, name, MAILBOX).await;
        let own = site.sign_in(name, NEW).await;
        change_password(&own, NEW, PASSWORD).await.unwrap();
        link_invalid(recover(&site, &token, NEW).await);

        let token = token_of(&site, name, MAILBOX).await;
        let own = site.sign_in(name, PASSWORD).await;
        own.set_contact(&bob.name, "bob@new.example").await.unwrap();
        link_invalid(recover(&site, &token, NEW).await);

        let token = token_of(&site, name, "bob@new.example").await;
        let admin = &contoso.admin.caller;
        let user = User {
            recovery_email: MAILBOX.to_owned(),
            ..named(&bob.name)
        };
        admin.update(user, &["recovery_email"]).await.unwrap();
        link_invalid(recover(&site, &token, NEW).await);

        let token = token_of(&site, name, MAILBOX).await;
        let temporary = admin.reset(&bob.name).await.unwrap().temporary_password;
        link_invalid(recover(&site, &token, NEW).await);
        site.settle_in(name, &temporary).await;

        for deleted in [false, true] {
            let token = token_of(&site, name, MAILBOX).await;
            if deleted {
                admin.delete(&bob.name).await.unwrap();
            } else {
                admin.disable(&bob.name).await.unwrap();
            }
            link_invalid(recover(&site, &token, NEW).await);
            if !deleted {
                admin.enable(&bob.name).await.unwrap();
                // Shut out in between: what was asked for before stays void.
                link_invalid(recover(&site, &token, NEW).await);
            }
        }
        failed(site.tokens(name, NEW).await);
    })
    .await;
}

// proves ATK-4, ATK-7, ATK-9
#[tokio::test]
async fn no_password_is_set_without_the_link_at_any_state_of_the_recovery() {
    both(async |site| {
        let contoso = site.tenant("contoso").await;
        let bob = bob(&site, &contoso).await;
        let name = &bob.sign_in_name;
        let hash = async || {
            let sql = "SELECT change_time AS n FROM credentials WHERE user_id = $1";
            number(&site, sql, [id(&bob.name).into()]).await
        };
        let access = site.tokens(name, PASSWORD).await.unwrap();
        let before = hash().await;
        let made_up = format!("entl_{}", "A".repeat(32));
        let wrong = [
            made_up.as_str(),
            "entl_",
            "x",
            "null",
            "' OR 1=1 --",
            access.access_token.get(..200).unwrap(),
            access.refresh_token.as_str(),
            bob.name.as_str(),
            MAILBOX,
        ];
        let mut answers = Vec::new();
        let mut all_refused = async |token: &str| {
            for wrong in wrong.iter().chain([&token]) {
                if wrong.is_empty() {
                    continue;
                }
                let status = link_invalid(recover(&site, wrong, NEW).await);
                answers.push((status.message().to_owned(), status.details().to_vec()));
            }
            link_invalid(recover(&site, "", NEW).await);
            assert_eq!(hash().await, before);
        };
        // Nobody asked; asked, and not yet mailed; mailed; expired; redeemed.
        all_refused("").await;
        ask_recovery(&site, name).await.unwrap();
        all_refused("").await;
        let token = mailed_token(&site, MAILBOX).await.unwrap();
        all_refused("").await;
        let until = async |after_us: i64| {
            let at = site.app.now().await.unwrap() + after_us;
            change(&site, "UPDATE links SET expire_time = $1", [at.into()]).await;
        };
        until(-1_000).await;
        all_refused(&token).await;
        until(60_000_000).await;
        recover(&site, &token, NEW).await.unwrap();
        link_invalid(recover(&site, &token, PASSWORD).await);
        assert!(
            answers.windows(2).all(|w| w[0] == w[1]),
            "one and the same answer"
        );
        failed(site.tokens(name, PASSWORD).await);

        // Without a first credential there is no way back to it.
        let sql = "DELETE FROM credentials WHERE user_id = $1";
        change(&site, sql, [id(&bob.name).into()]).await;
        let sent = letters(&site).await.len();
        ask_recovery(&site, name).await.unwrap();
        assert_eq!(letters(&site).await.len(), sent);
        assert_eq!(links(&site).await, 0);
    })
    .await;
}

// proves ATK-2, ATK-3
#[tokio::test]
async fn links_are_good_for_their_own_kind_only_and_no_byte_of_them_is_idle() {
    both(async |site| {
        let world = world(&site).await;
        let contoso = site.tenant("northwind").await;
        let bob = bob(&site, &contoso).await;
        let ida = identity(&site, "ida@mail.example").await;
        let request = entente::proto::directory::ChangeEmailRequest {
            name: ida.name.clone(),
            new_email: "ida@changed.example".to_owned(),
            ..Default::default()
        };
        ida.caller.identities().change_email(request).await.unwrap();
        let request = new_identity("fresh@mail.example");
        site.nobody().identities().sign_up(request).await.unwrap();
        let tokens = [
            (
                LinkKind::PasswordRecovery,
                token_of(&site, &bob.sign_in_name, MAILBOX).await,
            ),
            (
                LinkKind::EmailChange,
                mailed_token(&site, "ida@changed.example").await.unwrap(),
            ),
            (
                LinkKind::IdentityConfirmation,
                mailed_token(&site, "fresh@mail.example").await.unwrap(),
            ),
        ];
        let (nobody, mut seen) = (site.nobody(), 0);
        for (path, rule) in rules::all().unwrap() {
            let Some((kind, field)) = rule.token() else {
                continue;
            };
            let method = &dynamic::methods()[path];
            let send = async |token: &str| {
                let names = crate::access::names_for(method, &world.names).with(field, token);
                let request = dynamic::request(method, &names);
                dynamic::call(&nobody, method, dynamic::bytes(&request)).await
            };
            for (other, token) in &tokens {
                if *other != kind {
                    link_invalid(send(token).await);
                    continue;
                }
                seen += 1;
                for place in 0..token.len() {
                    let mut altered = token.clone();
                    let by = if &token[place..=place] == "A" {
                        "B"
                    } else {
                        "A"
                    };
                    altered.replace_range(place..=place, by);
                    link_invalid(send(&altered).await);
                }
                for altered in [
                    &token[..token.len() - 1],
                    &format!("{token}A"),
                    &format!("{token}="),
                    &token.to_lowercase(),
                    &token.to_uppercase(),
                    &format!(" {token}"),
                    token.trim_start_matches("entl_"),
                ] {
                    link_invalid(send(altered).await);
                }
            }
        }
        assert_eq!(seen, tokens.len());
        // All of them were good all the while.
        recover(&site, &tokens[0].1, NEW).await.unwrap();
        confirm(&site, &tokens[2].1, PASSWORD).await.unwrap();
    })
    .await;
}

// proves ATK-3, PWD-4
#[tokio::test]
async fn of_32_redemptions_at_once_one_sets_the_password() {
    both(async |site| {
        let contoso = site.tenant("contoso").await;
        let bob = bob(&site, &contoso).await;
        let token = token_of(&site, &bob.sign_in_name, MAILBOX).await;
        let passwords: Vec<_> = (0..32)
            .map(|i| format!("green chair on hill {i}"))
            .collect();
        let answers = join_all(passwords.iter().map(|p| recover(&site, &token, p))).await;
        let mut good = Vec::new();
        for (password, answer) in passwords.iter().zip(answers) {
            match answer {
                Ok(_) => good.push(password),
                Err(_) => drop(link_invalid(answer)),
            }
        }
        assert_eq!(good.len(), 1);
        site.tokens(&bob.sign_in_name, good[0]).await.unwrap();
        assert_eq!(
            events(&site, "directory.v1.PasswordRecovered", &bob.name).await,
            1
        );
    })
    .await;
}

// proves PWD-4, PWD-7, ATK-25
#[tokio::test]
async fn recovery_opens_sign_in_that_guesses_closed() {
    both(async |site| {
        let contoso = site.tenant("contoso").await;
        let bob = bob(&site, &contoso).await;
        let ida = identity(&site, "ida@mail.example").await;
        let service = Service::open(&site).await.caller(&site).await;
        for (name, mailbox) in [
            (&bob.sign_in_name, MAILBOX),
            (&ida.sign_in_name, "ida@mail.example"),
        ] {
            let from = async |network: usize, password: &str| {
                sign_in_from(&service, &format!("198.51.{network}.7"), name, password).await
            };
            for network in 0..10 {
                for _ in 0..10 {
                    failed(from(network, "wrong green chair").await);
                }
            }
            for network in [1, 77] {
                let status = refused(
                    from(network, PASSWORD).await,
                    Code::ResourceExhausted,
                    "SIGN_IN_LOCKED",
                );
                assert!(
                    status.get_details_retry_info().is_none(),
                    "only recovery is left"
                );
            }
            let token = token_of(&site, name, mailbox).await;
            recover(&site, &token, NEW).await.unwrap();
            for network in [1, 77] {
                from(network, NEW).await.unwrap();
            }
        }
    })
    .await;
}

// proves PWD-4, PWD-5, ROL-13
#[tokio::test]
async fn recovery_replaces_a_temporary_password_and_wakes_nothing() {
    both(async |site| {
        let contoso = site.tenant("contoso").await;
        let account = site.account(&contoso, "Contoso").await;
        let bob = bob(&site, &contoso).await;
        let request = AddMembersRequest {
            parent: account.clone(),
            principals: vec![bob.name.clone()],
            rights: Some(rights(&[AccountRole::AdminAgent])),
            ..AddMembersRequest::default()
        };
        let admin = &contoso.admin.caller;
        admin.members().add_members(request).await.unwrap();
        let asleep = async || {
            let user = admin.user(&bob.name).await.unwrap();
            user.rights_asleep_until
        };
        assert_eq!(asleep().await, None);
        // By a link of one's own nothing falls asleep.
        let token = token_of(&site, &bob.sign_in_name, MAILBOX).await;
        recover(&site, &token, NEW).await.unwrap();
        assert_eq!(asleep().await, None);
        // And what sleeps since somebody else set the credential sleeps on.
        let temporary = admin.reset(&bob.name).await.unwrap().temporary_password;
        let until = asleep().await;
        assert!(until.is_some());
        let token = token_of(&site, &bob.sign_in_name, MAILBOX).await;
        recover(&site, &token, NEW).await.unwrap();
        failed(site.tokens(&bob.sign_in_name, &temporary).await);
        let tokens = site.tokens(&bob.sign_in_name, NEW).await.unwrap();
        assert!(!tokens.password_change_required);
        site.with_token(&tokens.access_token)
            .user(&bob.name)
            .await
            .unwrap();
        assert_eq!(asleep().await, until);
    })
    .await;
}

// proves PWD-4, ATK-17
#[tokio::test]
async fn people_of_a_deleted_tenant_and_guests_have_no_way_back() {
    both(async |site| {
        let contoso = site.tenant("contoso").await;
        let fabrikam = site.tenant("fabrikam").await;
        let bob = bob(&site, &contoso).await;
        let token = token_of(&site, &bob.sign_in_name, MAILBOX).await;
        let gwen = guest(&site, &fabrikam.name, &bob).await;
        let sql = "UPDATE users SET recovery_email = 'gwen@home.example' WHERE id = $1";
        change(&site, sql, [id(&gwen).into()]).await;
        // A guest signs in by its home, and is recovered by it, under no name of its host's.
        let sent = letters(&site).await.len();
        ask_recovery(
            &site,
            &format!("{}@fabrikam.partners.localhost", bob.sign_in_name),
        )
        .await
        .unwrap();
        let sql = "UPDATE tenants SET state = 2 WHERE id = $1";
        change(&site, sql, [id(&contoso.name).into()]).await;
        ask_recovery(&site, &bob.sign_in_name).await.unwrap();
        assert_eq!(letters(&site).await.len(), sent);
        link_invalid(recover(&site, &token, NEW).await);
    })
    .await;
}

// proves PWD-4, COM-10, COM-15
#[tokio::test]
async fn each_is_mailed_in_the_language_asked_in_and_audited_apart() {
    both(async |site| {
        let contoso = site.tenant("contoso").await;
        let fabrikam = site.tenant("fabrikam").await;
        let bob = bob(&site, &contoso).await;
        let carol = second_admin(&site, &fabrikam, "carol").await;
        for (name, language) in [
            (&bob.sign_in_name, "fr"),
            (&carol.sign_in_name, "en"),
            (&bob.sign_in_name, "fr"),
        ] {
            let mut request = Request::new(StartPasswordRecoveryRequest {
                sign_in_name: name.clone(),
                ..StartPasswordRecoveryRequest::default()
            });
            let language = language.parse().unwrap();
            request.metadata_mut().insert("accept-language", language);
            let nobody = site.nobody();
            nobody
                .sessions()
                .start_password_recovery(request)
                .await
                .unwrap();
        }
        let letters = letters(&site).await;
        let to_bob = letters.iter().rfind(|l| l.to == MAILBOX).unwrap();
        assert!(to_bob.text.contains("Bonjour"), "{}", to_bob.text);
        let to_carol = letters
            .iter()
            .rfind(|l| l.to == "carol@contoso.example")
            .unwrap();
        assert!(to_carol.text.contains("Hello"), "{}", to_carol.text);
        for (tenant, person) in [(&contoso, &bob), (&fabrikam, &carol)] {
            let admin = again(&site, &tenant.admin).await;
            let told = audited(&admin, &tenant.name, "action = \"mail-recovery-links\"")
                .await
                .unwrap();
            assert!(!told.is_empty());
            assert!(told.iter().all(|e| e.resources == [person.name.clone()]));
        }
        // A name that is free is somebody else's matter tomorrow: nothing is kept of who asked.
        ask_recovery(&site, "later@contoso.partners.localhost")
            .await
            .unwrap();
        crate::people::letters(&site).await;
        let mut later = new_user(&contoso.name, "later");
        later.user.as_mut().unwrap().recovery_email = "later@home.example".to_owned();
        let users = contoso.admin.caller.users();
        { users }.create_user(later).await.unwrap();
        let letters = crate::people::letters(&site).await;
        assert!(letters.iter().all(|l| l.to != "later@home.example"));
    })
    .await;
}
