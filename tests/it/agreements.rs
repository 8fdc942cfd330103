//! AgreementService: versions, acceptances, and what is refused while one is overdue. What accounts' states refuse.

use aws_lc_rs::digest;
use entente::{
    access::account_state::{self, Demanded},
    proto::{
        access::{AccountAct, AccountRole, AgreementKind, Program},
        account::{
            AcceptAgreementRequest, Acceptance, AccountState, Agreement, AgreementState,
            AgreementText, GetAgreementRequest, ListAcceptancesRequest, ListAgreementsRequest,
            PublishAgreementRequest, WithdrawAgreementRequest,
        },
        directory::DirectoryRole,
    },
};
use futures_util::future::join_all;
use prost_types::Timestamp;
use tonic::{Code, Status};
use tonic_types::StatusExt as _;

use crate::{
    claims::{count, execute, row_counts},
    harness::{Caller, Site, both, fields, membership, new_user, refused, rights},
    members::{add, adding, drop_rights, list, remove, update},
    people::{change, events, id, person_as, second_admin},
};

const DAY: i64 = 24 * 3_600;

/// A version with a text in English and one in French.
pub fn version(kind: AgreementKind, from: Option<i64>, accept_by: Option<i64>) -> Agreement {
    let text = |language: &str| AgreementText {
        language_code: language.to_owned(),
        title: format!("Terms ({language})"),
        body: "First.\nSecond.".to_owned(),
        ..AgreementText::default()
    };
    let at = |seconds: i64| Timestamp { seconds, nanos: 0 };
    Agreement {
        kind: kind as i32,
        texts: vec![text("en"), text("fr")],
        effective_time: from.map(at),
        accept_by_time: accept_by.map(at),
        ..Agreement::default()
    }
}

/// Publishes a version.
pub async fn publish(operator: &Caller, agreement: Agreement) -> Result<Agreement, Status> {
    let request = PublishAgreementRequest {
        agreement: Some(agreement),
        ..PublishAgreementRequest::default()
    };
    let done = operator.agreements().publish_agreement(request).await?;
    Ok(done.into_inner())
}

/// Accepts a version, in English.
pub async fn accept(
    caller: &Caller,
    parent: &str,
    kind: AgreementKind,
    version: i64,
) -> Result<Acceptance, Status> {
    let request = AcceptAgreementRequest {
        parent: parent.to_owned(),
        kind: kind as i32,
        version,
        language_code: "en".to_owned(),
        ..AcceptAgreementRequest::default()
    };
    let done = caller.agreements().accept_agreement(request).await?;
    Ok(done.into_inner())
}

/// The acceptances of an account or a tenant.
pub async fn acceptances(caller: &Caller, parent: &str) -> Result<Vec<Acceptance>, Status> {
    let request = ListAcceptancesRequest {
        parent: parent.to_owned(),
        ..ListAcceptancesRequest::default()
    };
    let done = caller.agreements().list_acceptances(request).await?;
    Ok(done.into_inner().acceptances)
}

async fn versions(caller: &Caller, filter: &str) -> Vec<Agreement> {
    let request = ListAgreementsRequest {
        filter: filter.to_owned(),
        ..ListAgreementsRequest::default()
    };
    let done = caller.agreements().list_agreements(request).await.unwrap();
    done.into_inner().agreements
}

/// The service's time, in seconds.
pub async fn now(site: &Site) -> i64 {
    site.app.now().await.unwrap() / 1_000_000
}

fn metadatum(status: &Status, key: &str) -> String {
    let info = status.get_details_error_info().unwrap();
    info.metadata.get(key).cloned().unwrap_or_default()
}

// proves AGR-1, COM-19
#[tokio::test]
async fn versions_take_effect_at_their_time_and_placeholders_stand_in_before() {
    both(async |site| {
        let operator = site.operator().await;
        let reader = site.tenant("contoso").await.admin.caller;
        let stand_ins = versions(&reader, "state = CURRENT").await;
        assert_eq!(stand_ins.len(), 5);
        for stand_in in &stand_ins {
            assert!(stand_in.placeholder && stand_in.version == 0);
            assert!(
                stand_in
                    .texts
                    .iter()
                    .all(|t| t.title.contains("PLACEHOLDER"))
            );
        }

        let kind = AgreementKind::Publisher;
        let start = now(&site).await;
        let new = version(kind, Some(start + DAY), Some(start + 30 * DAY));
        let made = publish(&operator, new).await.unwrap();
        assert_eq!((made.version, made.placeholder), (1, false));
        assert_eq!(made.state(), AgreementState::Upcoming);
        assert_eq!(
            events(&site, "account.v1.AgreementPublished", &made.name).await,
            1
        );
        let request = GetAgreementRequest {
            name: made.name.clone(),
        };
        let got = reader.agreements().get_agreement(request.clone()).await;
        let got = got.unwrap().into_inner();
        assert_eq!(got, made);
        let whole = digest::digest(&digest::SHA256, b"Terms (en)\nFirst.\nSecond.");
        let hex: String = whole.as_ref().iter().map(|b| format!("{b:02x}")).collect();
        assert_eq!(got.texts[0].sha256, hex);

        site.advance(DAY + 1).await;
        let reader = site.sign_in("ann@contoso.partners.localhost", crate::harness::PASSWORD);
        let reader = reader.await;
        let of_kind = versions(&reader, "kind = PUBLISHER").await;
        let states: Vec<_> = of_kind.iter().map(|a| (a.version, a.state())).collect();
        assert_eq!(
            states,
            [
                (0, AgreementState::Superseded),
                (1, AgreementState::Current)
            ]
        );
        let titled = |t: &AgreementText| !t.title.is_empty() && !t.sha256.is_empty();
        assert!(of_kind.iter().flat_map(|a| &a.texts).all(titled));
        assert!(
            of_kind
                .iter()
                .flat_map(|a| &a.texts)
                .all(|t| t.body.is_empty())
        );
        let current = versions(&reader, "kind = PUBLISHER AND state = CURRENT").await;
        assert_eq!(current.len(), 1);
        assert_eq!(current[0].name, made.name);

        let missing = GetAgreementRequest {
            name: made.name.replace(&made.name[11..15], "ffff"),
        };
        refused(
            reader.agreements().get_agreement(missing).await,
            Code::NotFound,
            "RESOURCE_NOT_FOUND",
        );
    })
    .await;
}

// proves AGR-1
#[tokio::test]
async fn versions_follow_each_other_and_only_upcoming_ones_are_withdrawn() {
    both(async |site| {
        let operator = site.operator().await;
        let kind = AgreementKind::Referrals;
        let start = now(&site).await;
        let wrong = async |agreement: Agreement, field: &str| {
            let tried = publish(&operator, agreement).await;
            let status = refused(tried, Code::InvalidArgument, "INVALID_FIELDS");
            assert_eq!(fields(&status), [field]);
        };
        wrong(
            version(kind, Some(start - DAY), None),
            "agreement.effective_time",
        )
        .await;
        wrong(
            version(kind, Some(start + 2 * DAY), Some(start + DAY)),
            "agreement.accept_by_time",
        )
        .await;
        wrong(
            version(kind, None, Some(start - DAY)),
            "agreement.accept_by_time",
        )
        .await;
        let mut twice = version(kind, None, None);
        twice.texts[1].language_code = "EN".to_owned();
        wrong(twice, "agreement.texts[1].language_code").await;
        let mut tag = version(kind, None, None);
        tag.texts[0].language_code = "e n".to_owned();
        wrong(tag, "agreement.texts[0].language_code").await;

        let first = publish(&operator, version(kind, Some(start + 2 * DAY), None));
        let first = first.await.unwrap();
        // Not before the one before.
        wrong(
            version(kind, Some(start + DAY), None),
            "agreement.effective_time",
        )
        .await;
        let withdraw = async |of: &Agreement, etag: &str| {
            let request = WithdrawAgreementRequest {
                name: of.name.clone(),
                etag: etag.to_owned(),
                ..WithdrawAgreementRequest::default()
            };
            let done = operator.agreements().withdraw_agreement(request).await;
            done.map(tonic::Response::into_inner)
        };
        refused(
            withdraw(&first, "\"9\"").await,
            Code::Aborted,
            "ETAG_MISMATCH",
        );
        let gone = withdraw(&first, &first.etag).await.unwrap();
        assert_eq!(gone.state(), AgreementState::Withdrawn);
        assert!(gone.withdraw_time.is_some() && gone.etag != first.etag);
        assert_eq!(
            events(&site, "account.v1.AgreementWithdrawn", &first.name).await,
            1
        );
        refused(
            withdraw(&first, "").await,
            Code::FailedPrecondition,
            "WRONG_STATE",
        );
        // Its number isn't given again, and it never takes effect.
        let second = publish(&operator, version(kind, Some(start + 2 * DAY), None));
        let second = second.await.unwrap();
        assert_eq!(second.version, 2);
        site.advance(3 * DAY).await;
        let operator = site.operator().await;
        let current = versions(&operator, "kind = REFERRALS AND state = CURRENT").await;
        assert_eq!(current[0].version, 2);
        let request = WithdrawAgreementRequest {
            name: second.name,
            ..WithdrawAgreementRequest::default()
        };
        refused(
            operator.agreements().withdraw_agreement(request).await,
            Code::FailedPrecondition,
            "AGREEMENT_IN_EFFECT",
        );
    })
    .await;
}

// proves AGR-2, AGR-4
#[tokio::test]
async fn acceptances_keep_version_text_and_person_and_are_never_changed() {
    both(async |site| {
        let operator = site.operator().await;
        let contoso = site.tenant("contoso").await;
        let ann = &contoso.admin;
        let account = site.account(&contoso, "Contoso").await;
        let kind = AgreementKind::Publisher;
        let made = publish(&operator, version(kind, None, None)).await.unwrap();

        let tried = accept(&ann.caller, &account, kind, 0).await;
        let status = refused(tried, Code::FailedPrecondition, "NOT_CURRENT_VERSION");
        assert_eq!(metadatum(&status, "version"), "1");
        let tried = accept(&ann.caller, &account, kind, 2).await;
        refused(tried, Code::FailedPrecondition, "NOT_CURRENT_VERSION");
        let request = AcceptAgreementRequest {
            parent: account.clone(),
            kind: kind as i32,
            version: 1,
            language_code: "de".to_owned(),
            ..AcceptAgreementRequest::default()
        };
        let tried = ann.caller.agreements().accept_agreement(request).await;
        let status = refused(tried, Code::InvalidArgument, "INVALID_FIELDS");
        assert_eq!(fields(&status), ["language_code"]);
        assert!(acceptances(&ann.caller, &account).await.unwrap().is_empty());

        // Two at once, and again later: one acceptance, the first.
        let both_at_once = (0..8).map(|_| accept(&ann.caller, &account, kind, 1));
        let done = join_all(both_at_once).await;
        let names: std::collections::BTreeSet<_> =
            done.into_iter().map(|d| d.unwrap().name).collect();
        assert_eq!(names.len(), 1);
        let kept = acceptances(&ann.caller, &account).await.unwrap();
        let [one] = &kept[..] else { panic!("{kept:?}") };
        assert!(names.contains(&one.name));
        assert_eq!((one.kind(), one.version), (kind, 1));
        assert_eq!(one.agreement, made.name);
        assert_eq!(one.accepted_by, ann.name);
        assert_eq!(one.sha256, made.texts[0].sha256);
        assert_eq!(one.title, made.texts[0].title);
        assert!(one.create_time.is_some());
        assert_eq!(
            events(&site, "account.v1.AgreementAccepted", &one.name).await,
            1
        );

        // A later version changes nothing of it, and nobody else does.
        publish(&operator, version(kind, None, None)).await.unwrap();
        for sql in [
            "UPDATE acceptances SET number = 2",
            "DELETE FROM acceptances",
        ] {
            execute(&site.app, sql).await.unwrap_err();
        }
        assert_eq!(acceptances(&ann.caller, &account).await.unwrap(), kept);
    })
    .await;
}

// proves AGR-4
#[tokio::test]
async fn tenants_accept_the_customer_agreement_and_accounts_the_others() {
    both(async |site| {
        let contoso = site.tenant("contoso").await;
        let ann = &contoso.admin;
        let account = site.account(&contoso, "Contoso").await;
        let done = accept(&ann.caller, &contoso.name, AgreementKind::Customer, 0).await;
        let done = done.unwrap();
        assert!(done.name.starts_with(&contoso.name));
        let kept = acceptances(&ann.caller, &contoso.name).await.unwrap();
        assert_eq!(kept, [done]);
        for (parent, kind) in [
            (&contoso.name, AgreementKind::Publisher),
            (&account, AgreementKind::Customer),
        ] {
            let tried = accept(&ann.caller, parent, kind, 0).await;
            let status = refused(tried, Code::InvalidArgument, "INVALID_FIELDS");
            assert_eq!(fields(&status), ["kind"]);
        }
        let dee = site.person(&contoso, "dee").await;
        let tried = accept(&dee.caller, &contoso.name, AgreementKind::Customer, 0).await;
        refused(tried, Code::PermissionDenied, "PERMISSION_MISSING");
        let bill = person_as(&site, &contoso, "bill", DirectoryRole::BillingAdmin).await;
        let again = accept(&bill.caller, &contoso.name, AgreementKind::Customer, 0).await;
        // The first acceptance stands, whoever accepts again.
        assert_eq!(again.unwrap().accepted_by, ann.name);
    })
    .await;
}

// proves COM-19
#[tokio::test]
async fn placeholders_are_not_accepted_in_production() {
    for database in [
        crate::harness::Database::Sqlite,
        crate::harness::Database::Postgres,
    ] {
        let site = Site::open_with(database, |config| config.production = true).await;
        let contoso = site.tenant("contoso").await;
        let account = site.account(&contoso, "Contoso").await;
        let kind = AgreementKind::PartnerNetwork;
        let ann = &contoso.admin.caller;
        refused(
            accept(ann, &account, kind, 0).await,
            Code::FailedPrecondition,
            "PLACEHOLDER_AGREEMENT",
        );
        let operator = site.operator().await;
        publish(&operator, version(kind, None, None)).await.unwrap();
        accept(ann, &account, kind, 1).await.unwrap();
    }
}

// proves AGR-5, COM-1
#[tokio::test]
async fn what_an_overdue_agreement_covers_is_refused_until_it_is_accepted() {
    both(async |site| {
        let contoso = site.tenant("contoso").await;
        let account = site.account(&contoso, "Contoso").await;
        let ann = contoso.admin.caller.clone();
        let (dee, eli) = (
            site.person(&contoso, "dee").await,
            site.person(&contoso, "eli").await,
        );
        let developer = [AccountRole::Developer];
        let operator = site.operator().await;
        let kind = AgreementKind::PartnerNetwork;
        let start = now(&site).await;
        publish(&operator, version(kind, None, Some(start + 600)))
            .await
            .unwrap();
        // Until its date nothing is refused.
        add(&ann, &account, &[&dee], &developer).await.unwrap();
        site.advance(601).await;

        let counts = row_counts(&site.app).await;
        let tried = add(&ann, &account, &[&eli], &developer).await;
        let status = refused(tried, Code::FailedPrecondition, "AGREEMENT_REQUIRED");
        assert_eq!(metadatum(&status, "agreement"), "PARTNER_NETWORK");
        assert_eq!(metadatum(&status, "version"), "1");
        assert_eq!(row_counts(&site.app).await["grants"], counts["grants"]);
        let more = rights(&[AccountRole::Developer, AccountRole::HelpdeskAgent]);
        let tried = update(&ann, &account, &[(&dee.member_of(&account), more)]).await;
        refused(tried, Code::FailedPrecondition, "AGREEMENT_REQUIRED");
        let mut with_membership = new_user(&contoso.name, "fay");
        with_membership.memberships = vec![membership(&account, &developer)];
        let tried = ann.users().create_user(with_membership).await;
        refused(tried, Code::FailedPrecondition, "AGREEMENT_REQUIRED");
        // Nor by the way of an admin of the tenant, who needs no right on the account.
        let gus = second_admin(&site, &contoso, "gus").await;
        let bare = adding(&account, &[&eli.name], None);
        let tried = gus.caller.members().add_members(bare).await;
        refused(tried, Code::FailedPrecondition, "AGREEMENT_REQUIRED");
        // Who may not isn't told of it.
        let tried = add(&dee.caller, &account, &[&eli], &[]).await;
        refused(tried, Code::PermissionDenied, "PERMISSION_MISSING");

        // Reading, taking away, leaving and accepting work.
        assert_eq!(list(&ann, &account, "").await.unwrap().len(), 2);
        update(&ann, &account, &[(&dee.member_of(&account), rights(&[]))])
            .await
            .unwrap();
        drop_rights(&dee, &account, rights(&developer))
            .await
            .unwrap();
        remove(&ann, &account, &[&dee.member_of(&account)], false)
            .await
            .unwrap();
        accept(&ann, &account, kind, 1).await.unwrap();
        add(&ann, &account, &[&eli], &developer).await.unwrap();
    })
    .await;
}

// proves ACC-13, COM-1
#[tokio::test]
async fn an_account_that_is_stopped_only_loses_access() {
    both(async |site| {
        let contoso = site.tenant("contoso").await;
        let account = site.account(&contoso, "Contoso").await;
        let ann = contoso.admin.caller.clone();
        let mut people = Vec::new();
        for name in ["dee", "eli", "fay", "gus"] {
            people.push(site.person(&contoso, name).await);
        }
        for (person, state) in people.iter().zip([
            AccountState::Suspended,
            AccountState::Rejected,
            AccountState::Closed,
            AccountState::Pending,
        ]) {
            let put = async |state: AccountState| {
                let sql = "UPDATE accounts SET state = $1 WHERE id = $2";
                change(&site, sql, [(state as i64).into(), id(&account).into()]).await;
            };
            let developer = [AccountRole::Developer];
            add(&ann, &account, &[person], &developer).await.unwrap();
            put(state).await;
            let more = rights(&[AccountRole::Developer, AccountRole::HelpdeskAgent]);
            let tried = update(&ann, &account, &[(&person.member_of(&account), more)]).await;
            if state == AccountState::Pending {
                tried.unwrap();
            } else {
                let status = refused(tried, Code::FailedPrecondition, "WRONG_STATE");
                let name = state.as_str_name().trim_start_matches("ACCOUNT_STATE_");
                assert_eq!(metadatum(&status, "state"), name);
                let other = site.operator().await;
                let tried = add(&other, &account, &[person], &developer).await;
                refused(tried, Code::PermissionDenied, "PERMISSION_MISSING");
            }
            list(&ann, &account, "").await.unwrap();
            remove(&ann, &account, &[&person.member_of(&account)], false)
                .await
                .unwrap();
            put(AccountState::Active).await;
        }
    })
    .await;
}

// proves COM-1
#[tokio::test]
async fn what_a_rule_demands_of_an_account_is_held_against_what_it_is_now() {
    both(async |site| {
        let contoso = site.tenant("contoso").await;
        let account = id(&site.account(&contoso, "Contoso").await);
        let demanded = |act, program, agreements| Demanded {
            act,
            program,
            agreements,
            late: false,
        };
        let now = site.app.now().await.unwrap();
        let check = async |demanded: &Demanded| {
            let found = demanded.check(&site.app.db.read, account, now).await;
            found.err().map(|e| format!("{:?}", e.reason()))
        };
        // A read binds to a programme only.
        let offers = demanded(None, Some(Program::Marketplace), Vec::new());
        assert_eq!(check(&offers).await.as_deref(), Some("ProgramNotEnrolled"));
        let other = account_state::bit(Program::Collaborate);
        let both = other | account_state::bit(Program::Marketplace);
        for (programs, expected) in [(other, Some("ProgramNotEnrolled")), (both, None)] {
            let sql = "UPDATE accounts SET programs = $1 WHERE id = $2";
            change(&site, sql, [programs.into(), account.into()]).await;
            assert_eq!(check(&offers).await.as_deref(), expected);
        }
        let publishing = demanded(
            Some(AccountAct::Trade),
            Some(Program::Marketplace),
            vec![AgreementKind::Publisher],
        );
        assert_eq!(check(&publishing).await, None);
        let kind = AgreementKind::Publisher;
        let due = version(kind, None, Some(now / 1_000_000 + 600));
        publish(&site.operator().await, due).await.unwrap();
        let later = now + 601_000_000;
        let found = publishing.check(&site.app.db.read, account, later).await;
        assert_eq!(
            found.unwrap_err().reason(),
            entente::error::Reason::AgreementRequired
        );
        let sql = "UPDATE accounts SET state = $1 WHERE id = $2";
        let pending = AccountState::Pending as i64;
        change(&site, sql, [pending.into(), account.into()]).await;
        assert_eq!(check(&publishing).await.as_deref(), Some("WrongState"));
        assert_eq!(
            count(&site.app, "SELECT COUNT(*) AS n FROM acceptances").await,
            0
        );
    })
    .await;
}
