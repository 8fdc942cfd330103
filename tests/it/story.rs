//! Companies on their way through the whole service, each step after the other through the server: into the network, an account with a tenant of
//! its own, verified, its name contested, an offer, an agreement that changes, a rejection and an appeal, an owner. What each step refuses is
//! tested beside what it belongs to; here they meet.

use entente::proto::{
    access::{AgreementKind, Program},
    account::{
        Account, AccountState, AccountType, AnswerNameClaimRequest, ApprovalDecision, Contact,
        ContactChoice, CreateAccountRequest, DecideNameClaimRequest, NameClaimAnswer,
        NameClaimDecision, NameClaimState, NewTenant, OwnershipDecision, OwnershipState,
        RequirementCode, ReviewDecision, ReviewKind, ReviewState, VerificationStepKind as Kind,
        VerificationStepState as State,
    },
};
use tonic::Code;
use tonic_types::StatusExt as _;

use crate::{
    agreements::{accept, now, publish as publish_agreement, version},
    claims::chains_are_intact,
    dns::NameServer,
    domains::{verified, with_dns},
    enrolment::{
        all_in_one, draft_of, get, member_tenant, open, required, satisfy,
        steps::{appeal, ask_for, judge, send, settle, submission, waiting},
        update,
        verification::{ADA, PAULA, confirm, decide, states},
        whole,
    },
    harness::{Caller, Person, Site, TenantSite, new_tenant, refused},
    name_claims::{filed, paper},
    network::{join, new_membership},
    offers::{app_offer, create, publish},
    ownership::Owners as _,
    people::{again, denied, identity, letters, mailed_token},
    programs::{enroll, enrolling},
    reviews::{claim, reviewer},
};

const DAY: i64 = 86_400;
const PAM: &str = "pam@fabrikam.example";
const ABE: &str = "abe@fabrikam.example";
const NICK: &str = "nick@mail.example";
/// "Contoso", with a Cyrillic o.
const LOOKALIKE: &str = "C\u{43e}ntoso";

/// Everybody who takes part.
struct Cast {
    site: Site,
    names: NameServer,
    rita: Person,
    rolf: Person,
    /// A personal identity who founds Contoso.
    olga: Person,
}

/// How many mails to somebody have these words.
async fn mails(site: &Site, to: &str, words: &str) -> usize {
    let all = letters(site).await;
    let theirs = all.iter().filter(|mail| mail.to == to);
    theirs.filter(|mail| mail.text.contains(words)).count()
}

/// Uploads a document and submits a step with it.
async fn hand_in(caller: &Caller, account: &str, step: Kind) {
    let document = paper(caller, account).await;
    let request = submission(account, step, &[&document], "As asked.");
    send(caller, request).await.unwrap();
}

/// Contact and approver open the links of their mails.
async fn links_are_opened(site: &Site, contact: &str, approver: &str) {
    let token = mailed_token(site, contact).await.unwrap();
    let choice = ContactChoice::Confirm;
    confirm(site, &token, choice).await.unwrap();
    let token = mailed_token(site, approver).await.unwrap();
    let approve = ApprovalDecision::Approve;
    decide(site, &token, approve, "").await.unwrap();
}

impl Cast {
    /// Olga joins the network and opens an account with a new tenant, whose first admin does what is missing until it is submitted.
    async fn contoso_enrols(&self) -> (TenantSite, String) {
        let draft = || {
            draft_of(Account {
                country_code: "FR".to_owned(),
                ..Account::default()
            })
        };
        let olga = &self.olga.caller;
        let tried = open(olga, draft()).await;
        let status = refused(tried, Code::PermissionDenied, "NOT_GLOBAL_ADMIN");
        assert!(!status.message().is_empty());
        let made = new_tenant("contoso");
        let with_tenant = CreateAccountRequest {
            new_tenant: Some(NewTenant {
                tenant: made.tenant,
                first_admin: made.first_admin,
            }),
            ..draft()
        };
        let tried = open(olga, with_tenant.clone()).await;
        refused(tried, Code::FailedPrecondition, "NOT_NETWORK_MEMBER");
        join(olga, new_membership("Contoso SA")).await.unwrap();
        let made = open(olga, with_tenant).await.unwrap();
        let (account, admin) = (made.account.unwrap().name, made.first_admin.unwrap());
        let once = &made.temporary_password;
        let caller = self.site.settle_in(&admin.sign_in_name, once).await;
        let contoso = TenantSite {
            name: made.tenant.unwrap().name,
            admin: Person {
                name: admin.name,
                sign_in_name: admin.sign_in_name,
                caller,
            },
        };
        let ann = &contoso.admin.caller;
        let missing = required(ann, &account).await.unwrap();
        let fields = missing
            .iter()
            .filter(|r| r.code() == RequirementCode::Field);
        assert!(fields.count() > 3, "all at once: {missing:?}");
        let mut steps = 0;
        while get(ann, &account).await.unwrap().state() == AccountState::Draft {
            let due = required(ann, &account).await.unwrap().remove(0);
            satisfy(ann, &account, &due, &whole("Contoso")).await;
            steps += 1;
            assert!(steps < 20, "{due:?}");
        }
        (contoso, account)
    }

    /// Links, the domain, a reviewer who asks for more: the account is active, and its contact has both mails.
    async fn contoso_is_verified(&self, contoso: &TenantSite, account: &str) {
        let (site, ann, rita) = (&self.site, &contoso.admin.caller, &self.rita.caller);
        verified(&self.names, contoso, "contoso.example").await;
        links_are_opened(site, PAULA, ADA).await;
        let [email, employment, business, approval] = states(ann, account).await;
        let done = [email, employment, approval];
        assert_eq!(done, [State::Verified; 3], "employment by the domain");
        assert_eq!(business, State::ActionRequired);
        hand_in(ann, account, Kind::Business).await;
        let found = waiting(rita, ReviewKind::Business).await.name;
        let early = judge(rita, &found, ReviewDecision::Approve, "So it is.").await;
        refused(early, Code::FailedPrecondition, "REVIEW_NOT_CLAIMED");
        claim(rita, &found).await.unwrap();
        let asked = ask_for(rita, &found, "An extract of the register.").await;
        assert_eq!(asked.unwrap().state(), ReviewState::MoreRequested);
        assert_eq!(mails(site, PAULA, "An extract of the register.").await, 1);
        hand_in(ann, account, Kind::Business).await;
        let done = settle(rita, ReviewKind::Business, ReviewDecision::Approve).await;
        assert_eq!(done.name, found);
        assert_eq!(
            get(ann, account).await.unwrap().state(),
            AccountState::Active
        );
        assert_eq!(mails(site, PAULA, "Please confirm").await, 1);
        assert_eq!(mails(site, PAULA, "is active").await, 1);
    }

    /// An individual, somebody who is no admin, somebody who isn't in the network and a stranger try the same.
    async fn others_are_refused(&self, contoso: &TenantSite, account: &str) {
        let site = &self.site;
        let fabrikam = member_tenant(site, "adatum").await;
        let admin = &fabrikam.admin.caller;
        let individual = Account {
            r#type: AccountType::Individual as i32,
            ..whole("Adatum")
        };
        let tried = open(admin, draft_of(individual)).await;
        refused(
            tried,
            Code::FailedPrecondition,
            "INDIVIDUAL_ACCOUNTS_DEPRECATED",
        );
        let dee = site.person(contoso, "dee").await.caller;
        let tried = open(&dee, all_in_one(whole("Dee"))).await;
        refused(tried, Code::PermissionDenied, "NOT_GLOBAL_ADMIN");
        let outside = site.tenant("wingtip").await.admin.caller;
        let tried = open(&outside, all_in_one(whole("Wingtip"))).await;
        refused(tried, Code::FailedPrecondition, "NOT_NETWORK_MEMBER");
        let tried = open(&site.nobody(), all_in_one(whole("Nobody"))).await;
        refused(tried, Code::Unauthenticated, "CREDENTIALS_MISSING");
        for stranger in [&dee, admin, &outside] {
            denied(get(stranger, account).await);
            denied(required(stranger, account).await);
            denied(create(stranger, account, app_offer("Theirs")).await);
            let request = submission(account, Kind::Business, &[], "Here.");
            denied(send(stranger, request).await);
            denied(
                judge(
                    stranger,
                    &self.any_review(),
                    ReviewDecision::Approve,
                    "Yes.",
                )
                .await,
            );
        }
    }

    /// The name of a review, whether or not it is there.
    fn any_review(&self) -> String {
        format!("reviews/{}", crate::harness::request_id())
    }

    /// Fabrikam wants the name in look-alike letters, is refused, and claims it; Contoso contests, and a reviewer decides.
    async fn fabrikam_claims_the_name(
        &self,
        contoso: &TenantSite,
        held: &str,
    ) -> (TenantSite, String) {
        let (ann, rita) = (&contoso.admin.caller, &self.rita.caller);
        let fabrikam = member_tenant(&self.site, "fabrikam").await;
        let fay = &fabrikam.admin;
        let contact = |name: &str, email: &str| {
            Some(Contact {
                email: email.to_owned(),
                ..crate::network::contact(name)
            })
        };
        let company = Account {
            primary_contact: contact("Pam", PAM),
            company_approver: contact("Abe", ABE),
            ..whole("Fabrikam")
        };
        let wanted = Account {
            publisher_display_name: LOOKALIKE.to_owned(),
            ..company.clone()
        };
        let tried = open(&fay.caller, all_in_one(wanted.clone())).await;
        refused(tried, Code::AlreadyExists, "PUBLISHER_NAME_TAKEN");
        let made = open(&fay.caller, all_in_one(company)).await.unwrap();
        let account = made.account.unwrap().name;
        links_are_opened(&self.site, PAM, ABE).await;
        let again = Account {
            name: account.clone(),
            ..wanted
        };
        let tried = update(&fay.caller, again, &["publisher_display_name"]).await;
        refused(tried, Code::AlreadyExists, "PUBLISHER_NAME_TAKEN");
        let filed = filed(&fay.caller, &fay.name, &account, LOOKALIKE).await;
        let filed = filed.unwrap().name;
        let due = required(ann, held).await.unwrap();
        assert!(due.iter().any(|r| r.name_claim == filed), "{due:?}");
        let answer = AnswerNameClaimRequest {
            account: held.to_owned(),
            name: filed.clone(),
            answer: NameClaimAnswer::Contest as i32,
            text: "We trade under it.".to_owned(),
            ..AnswerNameClaimRequest::default()
        };
        ann.name_claims().answer_name_claim(answer).await.unwrap();
        let found = waiting(rita, ReviewKind::NameClaim).await;
        assert_eq!(found.subject, filed);
        claim(rita, &found.name).await.unwrap();
        let verdict = DecideNameClaimRequest {
            name: filed,
            decision: NameClaimDecision::Refuse as i32,
            reason: "The holder was first.".to_owned(),
            ..DecideNameClaimRequest::default()
        };
        let done = rita.name_claims().decide_name_claim(verdict).await;
        assert_eq!(done.unwrap().into_inner().state(), NameClaimState::Refused);
        let kept = get(ann, held).await.unwrap();
        assert_eq!(kept.publisher_display_name, "Contoso");
        (fabrikam, account)
    }

    /// Fabrikam is rejected, appeals, and another reviewer has it.
    async fn fabrikam_appeals(&self, fabrikam: &TenantSite, account: &str) {
        let (site, fay) = (&self.site, &fabrikam.admin.caller);
        let (rita, rolf) = (&self.rita.caller, &self.rolf.caller);
        hand_in(fay, account, Kind::Employment).await;
        settle(rita, ReviewKind::Employment, ReviewDecision::Reject).await;
        assert_eq!(states(fay, account).await[1], State::Rejected);
        assert_eq!(mails(site, PAM, "You can appeal once").await, 1);
        let document = paper(fay, account).await;
        appeal(fay, account, Kind::Employment, &[&document])
            .await
            .unwrap();
        let found = waiting(rolf, ReviewKind::EmploymentAppeal).await.name;
        let tried = claim(rita, &found).await;
        refused(tried, Code::PermissionDenied, "REVIEWER_INVOLVED");
        settle(rolf, ReviewKind::EmploymentAppeal, ReviewDecision::Approve).await;
        hand_in(fay, account, Kind::Business).await;
        settle(rita, ReviewKind::Business, ReviewDecision::Approve).await;
        assert_eq!(
            get(fay, account).await.unwrap().state(),
            AccountState::Active
        );
    }

    /// A free offer goes live; past the date of a new agreement it is refused with the agreement named, and works once that is accepted.
    async fn contoso_publishes(&self, contoso: &TenantSite, account: &str) {
        let (site, ann) = (&self.site, &contoso.admin.caller);
        let offer = create(ann, account, app_offer("Radar")).await.unwrap().name;
        let tried = publish(ann, &offer).await;
        refused(tried, Code::FailedPrecondition, "PROGRAM_NOT_ENROLLED");
        let mut request = enrolling(account, &contoso.name, Program::Marketplace);
        request.changes = None;
        enroll(ann, request).await.unwrap();
        let live = publish(ann, &offer).await.unwrap();
        assert_eq!(live.live_version, 1);
        let start = now(site).await;
        let (kind, from, until) = (AgreementKind::Publisher, start + 2 * DAY, start + 9 * DAY);
        let new = version(kind, Some(from), Some(until));
        let operator = site.operator().await;
        publish_agreement(&operator, new).await.unwrap();
        let next = create(ann, account, app_offer("Sonar")).await.unwrap().name;
        let last = create(ann, account, app_offer("Lidar")).await.unwrap().name;
        site.advance(8 * DAY).await;
        let ann = again(site, &contoso.admin).await;
        publish(&ann, &next).await.unwrap();
        site.advance(2 * DAY).await;
        let ann = again(site, &contoso.admin).await;
        let tried = publish(&ann, &last).await;
        let status = refused(tried, Code::FailedPrecondition, "AGREEMENT_REQUIRED");
        let told = status.get_details_error_info().unwrap().metadata;
        assert_eq!((&*told["agreement"], &*told["version"]), ("PUBLISHER", "1"));
        accept(&ann, account, kind, 1).await.unwrap();
        publish(&ann, &last).await.unwrap();
    }

    /// A manager ties an owner: nothing before the approver's consent, and no finances before seven days have passed.
    async fn fabrikam_gets_an_owner(&self, fabrikam: &TenantSite, account: &str) {
        let site = &self.site;
        let fay = again(site, &fabrikam.admin).await;
        fay.invite_owner(account, NICK).await.unwrap();
        let nick = identity(site, NICK).await;
        let accepted = nick.caller.accept_ownership(account).await.unwrap();
        assert_eq!(accepted.state(), OwnershipState::AwaitingConsent);
        let asked = ["members.read", "tax.update", "finance.grant"];
        assert!(nick.caller.mine_of(account, &asked).await.is_empty());
        let token = mailed_token(site, ABE).await.unwrap();
        let consent = OwnershipDecision::Consent;
        let done = site.nobody().decide_ownership(&token, consent).await;
        assert_eq!(done.unwrap().state(), OwnershipState::Owner);
        assert_eq!(nick.caller.mine_of(account, &asked).await, asked[..1]);
        site.advance(7 * DAY - 600).await;
        let caller = again(site, &nick).await;
        assert_eq!(caller.mine_of(account, &asked).await, asked[..1]);
        site.advance(600).await;
        assert_eq!(caller.mine_of(account, &asked).await, asked);
    }
}

// proves NET-1, ACC-1, ACC-4, ACC-12, ACC-13, ACC-20, VER-1, VER-3, VER-6, VER-7, AGR-2, OFR-1, TEN-2
#[tokio::test]
async fn two_companies_go_their_way_from_nothing_to_an_offer_and_an_owner() {
    with_dns(async |site, names| {
        let cast = Cast {
            rita: reviewer(&site, "rita").await,
            rolf: reviewer(&site, "rolf").await,
            olga: identity(&site, "olga@mail.example").await,
            site,
            names,
        };
        let (contoso, account) = cast.contoso_enrols().await;
        cast.contoso_is_verified(&contoso, &account).await;
        cast.others_are_refused(&contoso, &account).await;
        let (fabrikam, theirs) = cast.fabrikam_claims_the_name(&contoso, &account).await;
        cast.fabrikam_appeals(&fabrikam, &theirs).await;
        cast.contoso_publishes(&contoso, &account).await;
        cast.fabrikam_gets_an_owner(&fabrikam, &theirs).await;
        chains_are_intact(&cast.site.app).await;
    })
    .await;
}
