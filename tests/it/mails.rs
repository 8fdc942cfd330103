//! Mails: queued with what causes them, written as files, kept when they can't be sent (COM-15, COM-20).

use std::fs;

use entente::{
    access::rules,
    proto::{
        directory::ResetPasswordRequest,
        operator::{ListMailsRequest, Mail, MailState, OperatorRole, ResendMailRequest},
    },
};
use tonic::{Code, Request};

use crate::{
    access::names_for,
    applications::{key_until, now_s},
    claims::count,
    dynamic::{self, Names},
    enrolment::{draft_of, member_tenant, open, whole},
    harness::{Person, Site, TenantSite, both, new_tenant, refused},
    people::{application, letters, number, second_admin, sign_in_reading, staff},
};

/// A user with a recovery address.
async fn bob(site: &Site, contoso: &TenantSite) -> Person {
    site.person_with(contoso, "bob", |request| {
        request.user.as_mut().unwrap().recovery_email = "bob@contoso.example".to_owned();
    })
    .await
}

/// Has a password reset, asked for in a language.
async fn reset(contoso: &TenantSite, bob: &Person, language: &str, validate_only: bool) {
    let mut request = Request::new(ResetPasswordRequest {
        name: bob.name.clone(),
        validate_only,
        ..ResetPasswordRequest::default()
    });
    let header = language.parse().unwrap();
    request.metadata_mut().insert("accept-language", header);
    let users = &contoso.admin.caller;
    users.users().reset_password(request).await.unwrap();
}

async fn to_bob(site: &Site) -> Vec<Mail> {
    let request = ListMailsRequest {
        filter: "recipient = \"bob@contoso.example\"".to_owned(),
        ..ListMailsRequest::default()
    };
    let operator = site.operator().await;
    let page = operator.mails().list_mails(request).await.unwrap();
    page.into_inner().mails
}

/// Waits until nobody, this process's own relay included, is about to send what is due.
async fn sent(site: &Site) {
    site.settle().await;
    let held = "SELECT COUNT(*) AS n FROM mails WHERE lease_id IS NOT NULL";
    while count(&site.app, held).await > 0 {
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
}

/// The file of a mail.
fn written(site: &Site, mail: &Mail) -> String {
    let id = mail.name.rsplit('/').next().unwrap();
    fs::read_to_string(site.folder.join("mails").join(format!("{id}.eml"))).unwrap()
}

// proves COM-15
#[tokio::test]
async fn mail_is_written_as_text_and_html_in_the_language_asked_for() {
    both(async |site| {
        let contoso = site.tenant("contoso").await;
        let bob = bob(&site, &contoso).await;
        reset(&contoso, &bob, "fr-CA, en;q=0.5", false).await;
        reset(&contoso, &bob, "en", false).await;
        // What is only checked sends nothing.
        reset(&contoso, &bob, "en", true).await;
        sent(&site).await;
        let mails = to_bob(&site).await;
        let languages: Vec<_> = mails.iter().map(|m| m.language_code.as_str()).collect();
        assert_eq!(languages, ["fr", "en"]);
        for mail in &mails {
            assert_eq!(mail.template, "password_reset");
            assert_eq!(mail.state(), MailState::Sent);
            assert_eq!((mail.attempt_count, mail.last_error.as_str()), (1, ""));
            assert!(mail.send_time.is_some());
            let eml = written(&site, mail);
            for part in [
                "To: bob@contoso.example",
                "multipart/alternative",
                "text/plain",
                "text/html",
                "Auto-Submitted: auto-generated",
            ] {
                assert!(eml.contains(part), "{part} is missing");
            }
        }
        assert_ne!(written(&site, &mails[0]), written(&site, &mails[1]));
        // Sent mails keep no values.
        let kept = "SELECT COUNT(*) AS n FROM mails WHERE state = 2 AND length(sealed_values) > 0";
        assert_eq!(count(&site.app, kept).await, 0);
        let parts = fs::read_dir(site.folder.join("mails")).unwrap();
        let half = parts.filter(|e| {
            !e.as_ref()
                .unwrap()
                .path()
                .to_string_lossy()
                .ends_with(".eml")
        });
        assert_eq!(half.count(), 0);
    })
    .await;
}

/// How many mails of a template went to somebody in a language.
async fn told(site: &Site, template: &str, to: &str, language: &str) -> i64 {
    let sql =
        "SELECT COUNT(*) AS n FROM mails WHERE template = $1 AND recipient = $2 AND language = $3";
    number(site, sql, [template.into(), to.into(), language.into()]).await
}

// proves COM-15
#[tokio::test]
async fn what_jobs_mail_is_in_the_language_of_who_gets_it() {
    both(async |site| {
        let contoso = member_tenant(&site, "contoso").await;
        let (ann, carol, contact) = (
            "ann@contoso.example",
            "carol@contoso.example",
            "it@contoso.example",
        );
        second_admin(&site, &contoso, "carol").await;
        // Ann signed in in English before; the last time counts.
        let reads_french = sign_in_reading(&site, &contoso.admin, "fr-FR, en;q=0.5").await;
        let feed = application(&reads_french, &contoso.name, "Feed").await;
        let end = now_s(&site).await + 31 * 86_400;
        key_until(&reads_french, &feed.name, end).await.unwrap();
        open(&reads_french, draft_of(whole("Contoso")))
            .await
            .unwrap();
        site.advance(2 * 86_400).await;
        letters(&site).await;
        // The contact is nobody who signs in, and is written to as the tenant's first admin is.
        for (to, language) in [(ann, "fr"), (contact, "fr"), (carol, "en")] {
            assert_eq!(told(&site, "key_expiring", to, language).await, 1, "{to}");
        }
        site.advance(89 * 86_400).await;
        let mails = letters(&site).await;
        assert_eq!(told(&site, "draft_idle", ann, "fr").await, 1);
        let to_ann = mails.iter().filter(|l| l.to == ann);
        let mut to_ann = to_ann.map(|l| l.text.as_str());
        assert!(to_ann.any(|text| text.contains("Votre brouillon de compte partenaire")));
        let sql =
            "SELECT COUNT(*) AS n FROM mails WHERE template = 'draft_idle' AND language <> 'fr'";
        assert_eq!(count(&site.app, sql).await, 0);
    })
    .await;
}

// proves COM-15
#[tokio::test]
async fn failing_transport_delays_mails_and_loses_none() {
    both(async |site| {
        let contoso = site.tenant("contoso").await;
        let bob = bob(&site, &contoso).await;
        sent(&site).await;
        // A file stands where the folder should be.
        let folder = site.folder.join("mails");
        fs::remove_dir_all(&folder).ok();
        fs::write(&folder, "").unwrap();
        reset(&contoso, &bob, "en", false).await;
        sent(&site).await;
        let tried = async |seconds: i64, attempts: i32, state: MailState| {
            site.advance(seconds).await;
            sent(&site).await;
            let mail = to_bob(&site).await.remove(0);
            assert_eq!((mail.attempt_count, mail.state()), (attempts, state));
            assert_eq!(mail.last_error, "DELIVERY_FAILED");
            mail
        };
        let first = tried(1, 1, MailState::Queued).await;
        // Not before its time, which comes later each time.
        tried(5, 1, MailState::Queued).await;
        let second = tried(60, 2, MailState::Queued).await;
        let pause =
            |m: &Mail| m.next_attempt_time.unwrap().seconds - m.create_time.unwrap().seconds;
        assert!(pause(&second) > pause(&first));
        let early = ResendMailRequest {
            name: second.name.clone(),
            ..ResendMailRequest::default()
        };
        let operator = site.operator().await;
        let early = operator.mails().resend_mail(early).await;
        refused(early, Code::FailedPrecondition, "WRONG_STATE");
        for attempts in 3..24 {
            tried(5 * 3_600, attempts, MailState::Queued).await;
        }
        let failed = tried(5 * 3_600, 24, MailState::Failed).await;
        tried(5 * 3_600, 24, MailState::Failed).await;
        // Mended: it is sent anew, with what it had to say.
        fs::remove_file(&folder).unwrap();
        let resend = ResendMailRequest {
            name: failed.name,
            ..ResendMailRequest::default()
        };
        let operator = site.operator().await;
        operator.mails().resend_mail(resend).await.unwrap();
        sent(&site).await;
        let mail = to_bob(&site).await.remove(0);
        assert_eq!(
            (mail.state(), mail.last_error.as_str()),
            (MailState::Sent, "")
        );
        assert!(written(&site, &mail).contains("bob@contoso.example"));
    })
    .await;
}

// proves COM-20
#[tokio::test]
async fn links_begin_with_the_configured_origin() {
    both(async |site| {
        let operator = site.operator().await;
        let request = new_tenant("contoso");
        operator.tenants().create_tenant(request).await.unwrap();
        sent(&site).await;
        let request = ListMailsRequest {
            filter: "template = \"tenant_created\" AND recipient = \"it@contoso.example\""
                .to_owned(),
            ..ListMailsRequest::default()
        };
        let page = operator.mails().list_mails(request).await.unwrap();
        let mails = page.into_inner().mails;
        assert_eq!(mails.len(), 1);
        assert!(mails[0].object.starts_with("tenants/"));
        let eml = written(&site, &mails[0]);
        assert!(eml.contains(&site.app.config.public_origin), "{eml}");
        assert!(eml.contains("contoso.partners.localhost"));
    })
    .await;
}

// proves ROL-11, COM-1
#[tokio::test]
async fn every_method_with_a_masked_view_masks() {
    both(async |site| {
        let (contoso, account, olga) = crate::ownership::owned(&site).await;
        sent(&site).await;
        let support = staff(&site, "sue", OperatorRole::OperatorSupport).await;
        let who = &support.caller;
        // Addresses that stand in what is read, and those that the answer shows instead.
        let addresses = [
            "it@contoso.example",
            "ann@contoso.example",
            "paula@contoso.example",
            "ada@contoso.example",
            &olga.sign_in_name,
        ];
        let mut masked = 0;
        for (path, method) in dynamic::methods() {
            let rule = rules::of_path(&path).unwrap();
            if !rule.any_of.iter().any(|alternative| alternative.masked) {
                continue;
            }
            let names = Names::default()
                .with("entente.dev/Tenant", &contoso.name)
                .with("entente.dev/Account", &account);
            let request = dynamic::request(&method, &names_for(&method, &names));
            let answer = dynamic::call(who, &method, dynamic::bytes(&request)).await;
            let answer = answer.unwrap_or_else(|status| panic!("{path}: {status:?}"));
            let text = String::from_utf8_lossy(&answer).into_owned();
            for address in addresses {
                assert!(!text.contains(address), "{path} tells {address}");
            }
            masked += usize::from(text.contains("***@"));
        }
        // Lists of accounts show no address at all.
        assert!(masked >= 4, "{masked}");
    })
    .await;
}
