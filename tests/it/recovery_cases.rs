//! RecoveryService (PWD-10): the way back of admins, managers and owners whom nobody else can help.

mod ended;

use entente::proto::{
    access::AccountRole,
    directory::{
        ApproveRecoveryCaseRequest, GetRecoveryCaseRequest, ListRecoveryCasesRequest, NewAdmin,
        OpenRecoveryCaseRequest, RecoveryCase, RecoveryCaseState as State, RecoveryRole as Role,
        StopRecoveryCaseRequest, Tenant, UpdateTenantRequest,
    },
    operator::OperatorRole,
};
use tonic::{Code, Response, Status};
use tonic_types::StatusExt as _;

use crate::{
    documents::{download, first, upload},
    domains::{Domains as _, record, verified, with_dns},
    enrolment::{all_in_one, open as open_account, whole},
    harness::{Caller, PASSWORD, Person, Site, TenantSite, both, fields, refused},
    network::{join, new_membership},
    ownership::Owners as _,
    people::{
        People as _, again, audited, change, denied, events, eventually, id, identity, letters,
        link_invalid, mailed_token, number, recover, staff,
    },
};

const PROVEN: &str = "proven@home.example";
const NEW: &str = "green chair on a hill";
const WAIT: i64 = 72 * 3_600;

async fn document(caller: &Caller) -> String {
    let own = caller.who_am_i().await.unwrap().principal;
    let pdf = b"%PDF-1.7\nstartxref\n9\n%%EOF and a little more of it to look at\n";
    let done = upload(caller, first(&own, "passport.pdf"), pdf, 1_000).await;
    done.unwrap().name
}

async fn case(
    caller: &Caller,
    role: Role,
    scope: &str,
    person: &str,
    documents: usize,
) -> RecoveryCase {
    let mut evidence = Vec::new();
    for _ in 0..documents {
        evidence.push(document(caller).await);
    }
    RecoveryCase {
        role: role as i32,
        scope: scope.to_owned(),
        person: person.to_owned(),
        proven_email: PROVEN.to_owned(),
        documents: evidence,
        note: "Passport, and an extract of the register.".to_owned(),
        ..RecoveryCase::default()
    }
}

async fn open(caller: &Caller, case: RecoveryCase) -> Result<RecoveryCase, Status> {
    let request = OpenRecoveryCaseRequest {
        recovery_case: Some(case),
        ..OpenRecoveryCaseRequest::default()
    };
    let done = caller.recoveries().open_recovery_case(request).await;
    done.map(Response::into_inner)
}

async fn approve(caller: &Caller, name: &str) -> Result<RecoveryCase, Status> {
    let request = ApproveRecoveryCaseRequest {
        name: name.to_owned(),
        ..ApproveRecoveryCaseRequest::default()
    };
    let done = caller.recoveries().approve_recovery_case(request).await;
    done.map(Response::into_inner)
}

async fn stop(caller: &Caller, token: &str, name: &str) -> Result<State, Status> {
    let request = StopRecoveryCaseRequest {
        token: token.to_owned(),
        recovery_case: name.to_owned(),
        reason: "It is not me.".to_owned(),
        ..StopRecoveryCaseRequest::default()
    };
    let done = caller.recoveries().stop_recovery_case(request).await?;
    Ok(done.into_inner().state())
}

async fn get(caller: &Caller, name: &str) -> RecoveryCase {
    let name = name.to_owned();
    let request = GetRecoveryCaseRequest { name };
    let done = caller.recoveries().get_recovery_case(request).await;
    done.unwrap().into_inner()
}

/// A case that is open, for a tenant's global admin.
pub async fn opened(site: &Site, tenant: &str, person: &str) -> String {
    let operator = site.operator().await;
    let new = case(&operator, Role::GlobalAdmin, tenant, person, 1).await;
    open(&operator, new).await.unwrap().name
}

/// A case whose mails are out, and that nobody stops any more: its tokens stay good for the proof only.
pub async fn unstoppable(site: &Site) -> String {
    let tenant = site.tenant("locked-out").await;
    let sql = "UPDATE users SET recovery_email = 'ann@gone.example.net' WHERE id = $1";
    change(site, sql, [id(&tenant.admin.name).into()]).await;
    let name = opened(site, &tenant.name, &tenant.admin.name).await;
    let support = staff(site, "approver", OperatorRole::OperatorSupport).await;
    approve(&support.caller, &name).await.unwrap();
    let sql = "UPDATE recovery_cases SET state = 6 WHERE id = $1";
    change(site, sql, [id(&name).into()]).await;
    name
}

/// The token of the link to the proven address, once the scheduler sent it: the server's own may be at it. Other mails may go there too.
async fn link(site: &Site, case: &str) -> String {
    let sue = again_by_name(site, "sue").await;
    eventually(async || {
        site.settle().await;
        get(&sue, case).await.state() == State::Mailed
    })
    .await;
    let told = letters(site).await;
    let is_it = |l: &&crate::people::Letter| l.to == PROVEN && l.text.contains("recover-password#");
    let newest = told.iter().rfind(is_it).unwrap();
    let (_, rest) = newest.text.split_once("recover-password#").unwrap();
    let is_of_token = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
    rest.chars().take_while(|c| is_of_token(*c)).collect()
}

/// People of the operator.
async fn support(site: &Site, name: &str) -> Person {
    staff(site, name, OperatorRole::OperatorSupport).await
}

async fn addressed(site: &Site) -> (TenantSite, String) {
    let tenant = site.tenant("contoso").await;
    let mailbox = "ann@contoso.example".to_owned();
    (tenant, mailbox)
}

// proves PWD-10, ROL-13, ROL-9
#[tokio::test]
async fn locked_out_admin_comes_back_after_two_people_and_72_hours() {
    both(async |site| {
        let (tenant, mailbox) = addressed(&site).await;
        join(&tenant.admin.caller, new_membership("Contoso"))
            .await
            .unwrap();
        let account = open_account(&tenant.admin.caller, all_in_one(whole("Contoso"))).await;
        let account = account.unwrap().account.unwrap().name;
        let owner = site.person(&tenant, "olga").await;
        crate::people::execute_on(
            &site,
            &format!(
                "UPDATE users SET recovery_email = 'olga@contoso.example' WHERE id = {}",
                crate::people::literal(&site, &owner.name)
            ),
        )
        .await;
        let [one, two] = [support(&site, "sue").await, support(&site, "sam").await];
        let new = case(
            &one.caller,
            Role::GlobalAdmin,
            &tenant.name,
            &tenant.admin.name,
            2,
        )
        .await;
        let documents = new.documents.clone();

        denied(open(&tenant.admin.caller, new.clone()).await);
        let made = open(&one.caller, new).await.unwrap();
        assert_eq!(made.state(), State::Open);
        assert_eq!(made.documents, documents);
        let again_one = case(&two.caller, Role::GlobalAdmin, &tenant.name, &owner.name, 1).await;
        refused(
            open(&two.caller, again_one).await,
            Code::AlreadyExists,
            "RECOVERY_CASE_OPEN",
        );
        // Evidence is read by whoever decides, and by no reviewer.
        assert!(download(&two.caller, &documents[0]).await.is_ok());
        let reviewer = staff(&site, "rita", OperatorRole::OperatorFinance).await;
        denied(download(&reviewer.caller, &documents[0]).await);

        refused(
            approve(&one.caller, &made.name).await,
            Code::FailedPrecondition,
            "ANOTHER_OPERATOR",
        );
        denied(approve(&tenant.admin.caller, &made.name).await);
        let both_at_once = tokio::join!(
            approve(&two.caller, &made.name),
            approve(&two.caller, &made.name)
        );
        assert_eq!(
            i32::from(both_at_once.0.is_ok()) + i32::from(both_at_once.1.is_ok()),
            1
        );
        assert_eq!(get(&one.caller, &made.name).await.state(), State::Waiting);
        // The admin itself, the tenant's contact, the account's primary contact.
        let told = letters(&site).await;
        for to in [&*mailbox, "it@contoso.example", "paula@contoso.example"] {
            let stops =
                |l: &&crate::people::Letter| l.to == to && l.text.contains("stop-recovery#entl_");
            assert_eq!(told.iter().filter(stops).count(), 1, "{to}");
        }
        assert!(told.iter().all(|l| l.to != PROVEN));

        // Not a moment too early, and nothing has changed until then.
        site.advance(WAIT - 60).await;
        assert_eq!(mailed_token(&site, PROVEN).await, None);
        site.advance(120).await;
        let token = link(&site, &made.name).await;
        let support_again = again(&site, &one).await;
        let mailed = get(&support_again, &made.name).await;
        assert_eq!(mailed.state(), State::Mailed);
        // Nobody stops it by a mail now.
        let late = mailed_token(&site, "paula@contoso.example").await.unwrap();
        link_invalid(stop(&site.nobody(), &late, "").await);
        recover(&site, &token, NEW).await.unwrap();
        link_invalid(recover(&site, &token, NEW).await);
        let back = site.sign_in(&tenant.admin.sign_in_name, NEW).await;
        let user = back.user(&tenant.admin.name).await.unwrap();
        assert_eq!(user.recovery_email, PROVEN);
        assert!(user.rights_asleep_until.is_some());
        assert!(
            site.tokens(&tenant.admin.sign_in_name, PASSWORD)
                .await
                .is_err()
        );
        let done = get(&support_again, &made.name).await;
        assert_eq!(done.state(), State::Completed);
        for kind in ["Opened", "Approved", "Mailed", "Completed"] {
            let kind = format!("directory.v1.RecoveryCase{kind}");
            assert_eq!(events(&site, &kind, &made.name).await, 1, "{kind}");
        }
        let chain = audited(&back, &tenant.name, "").await.unwrap();
        let of_case = |e: &&entente::proto::audit::AuditEvent| e.resources.contains(&made.name);
        assert!(
            chain.iter().filter(of_case).count() >= 2,
            "the tenant's chain tells of it"
        );
        let listed = support_again
            .recoveries()
            .list_recovery_cases(ListRecoveryCasesRequest {
                filter: "state = COMPLETED AND role = GLOBAL_ADMIN".to_owned(),
                ..ListRecoveryCasesRequest::default()
            })
            .await
            .unwrap()
            .into_inner()
            .recovery_cases;
        assert_eq!(listed, [done]);
        assert!(!account.is_empty());
    })
    .await;
}

// proves PWD-10
#[tokio::test]
async fn a_record_in_a_verified_domain_is_evidence_that_is_looked_up_when_the_case_is_approved() {
    with_dns(async |site, names| {
        let (tenant, _) = addressed(&site).await;
        let account = site.account(&tenant, "Contoso").await;
        let sue = support(&site, "sue").await.caller;
        let sam = support(&site, "sam").await.caller;
        let admin = &tenant.admin.caller;
        let domain = verified(&names, &tenant, "contoso.example").await;
        let pending = admin.named(&tenant.name, "later.example").await.unwrap();
        let fabrikam = site.tenant("fabrikam").await;
        let theirs = verified(&names, &fabrikam, "fabrikam.example").await;
        // By the name of one's own tenant, but another's domain.
        let (_, of_theirs) = theirs.name.rsplit_once('/').unwrap();
        let disguised = format!("{}/domains/{of_theirs}", tenant.name);
        for (role, scope) in [(Role::GlobalAdmin, &tenant.name), (Role::Manager, &account)] {
            for (named, fault) in [
                ("", "documents"),
                (&*pending.name, "domain"),
                (&*theirs.name, "domain"),
                (&*disguised, "domain"),
            ] {
                let mut new = case(&sue, role, scope, &tenant.admin.name, 0).await;
                new.domain = named.to_owned();
                let tried = open(&sue, new).await;
                let status = refused(tried, Code::InvalidArgument, "INVALID_FIELDS");
                assert_eq!(fields(&status), [format!("recovery_case.{fault}")]);
            }
        }
        let mut new = case(&sue, Role::GlobalAdmin, &tenant.name, &tenant.admin.name, 0).await;
        new.domain.clone_from(&domain.name);
        let made = open(&sue, new).await.unwrap();
        assert_eq!(made.domain_record_name, "_entente-recovery.contoso.example");
        assert!(made.domain_record_value.starts_with("entente-recovery="));
        let code = Code::FailedPrecondition;
        // Not there; another value.
        let own = record(&domain);
        let wrong = (&*made.domain_record_name, "entente-recovery=guessed");
        for records in [vec![own], vec![own, wrong]] {
            names.publish(&records).await;
            let early = approve(&sam, &made.name).await;
            refused(early, code, "DOMAIN_RECORD_NOT_FOUND");
        }
        assert_eq!(get(&sue, &made.name).await.state(), State::Open);
        let right = (&*made.domain_record_name, &*made.domain_record_value);
        names.publish(&[own, right]).await;
        refused(approve(&sue, &made.name).await, code, "ANOTHER_OPERATOR");
        let approved = approve(&sam, &made.name).await.unwrap();
        assert_eq!(approved.state(), State::Waiting);
        assert!(approved.domain_prove_time.is_some());
        // As it was told: an approval doesn't change what was proven.
        assert_eq!(approved.domain_record_value, made.domain_record_value);

        // What went away before the approval proves nothing, though its record is there still.
        let mut new = case(&sue, Role::Manager, &account, &tenant.admin.name, 0).await;
        new.domain.clone_from(&domain.name);
        let made = open(&sue, new).await.unwrap();
        let right = (&*made.domain_record_name, &*made.domain_record_value);
        names.publish(&[own, right]).await;
        admin.delete_domain(&domain.name).await.unwrap();
        let late = approve(&sam, &made.name).await;
        refused(late, code, "RECOVERY_EVIDENCE_GONE");
        assert_eq!(get(&sue, &made.name).await.state(), State::Open);
    })
    .await;
}

// proves PWD-10
#[tokio::test]
async fn who_opens_or_approves_a_case_does_not_get_its_link() {
    both(async |site| {
        let (tenant, _) = addressed(&site).await;
        let sue = support(&site, "sue").await.caller;
        let sam = support(&site, "sam").await.caller;
        let to = async |proven: &str| {
            let role = Role::GlobalAdmin;
            let mut new = case(&sue, role, &tenant.name, &tenant.admin.name, 1).await;
            proven.clone_into(&mut new.proven_email);
            open(&sue, new).await
        };
        let code = Code::FailedPrecondition;
        refused(to("Sue@operator.example").await, code, "ANOTHER_OPERATOR");
        let made = to("sam@operator.example").await.unwrap().name;
        refused(approve(&sam, &made).await, code, "ANOTHER_OPERATOR");
        assert_eq!(get(&sue, &made).await.state(), State::Open);
    })
    .await;
}

// proves PWD-10, ACC-20, ROL-13
#[tokio::test]
async fn another_identity_becomes_the_owner_in_the_place_of_one_who_cannot_come_back() {
    both(async |site| {
        let (contoso, account, olga) = crate::ownership::owned(&site).await;
        let nick = identity(&site, "nick@mail.example").await;
        let other = identity(&site, "other@mail.example").await;
        let sue = support(&site, "sue").await.caller;
        let sam = support(&site, "sam").await.caller;
        // Not where no owner is, and not one who owns another account.
        let fabrikam = site.tenant("fabrikam").await;
        let theirs = site.account(&fabrikam, "Fabrikam").await;
        let refused_as = async |scope: &str, person: &str| {
            let new = case(&sue, Role::Owner, scope, person, 1).await;
            let tried = open(&sue, new).await;
            let status = refused(tried, Code::InvalidArgument, "INVALID_FIELDS");
            assert_eq!(fields(&status), ["recovery_case.person"]);
        };
        refused_as(&theirs, &other.name).await;
        crate::ownership::owns(&site, &theirs, &other).await;
        refused_as(&account, &other.name).await;

        let new = case(&sue, Role::Owner, &account, &nick.name, 1).await;
        let made = open(&sue, new).await.unwrap();
        assert_eq!(made.replaces, olga.name);
        let made = made.name;
        approve(&sam, &made).await.unwrap();
        // The owner hears of it, and can stop it.
        let told = letters(&site).await;
        let hears = |l: &&crate::people::Letter| {
            l.to == "olga@mail.example" && l.text.contains("stop-recovery#entl_")
        };
        assert_eq!(told.iter().filter(hears).count(), 1);
        site.advance(WAIT + 60).await;
        let token = link(&site, &made).await;
        let before = again(&site, &olga).await;
        assert_eq!(before.mine_of(&account, &["account.close"]).await.len(), 1);
        recover(&site, &token, NEW).await.unwrap();
        assert!(before.mine_of(&account, &["account.read"]).await.is_empty());
        let next = site.sign_in("nick@mail.example", NEW).await;
        let all = ["account.close", "payouts.settings.update", "tax.update"];
        assert_eq!(next.mine_of(&account, &all).await, ["account.close"]);
        // Who lost it is free, and has nothing left to stop or to hand on.
        let stale = crate::ownership::stop_token(&site, "paula@contoso.example").await;
        link_invalid(site.nobody().stop_ownership(&stale).await);
        assert_eq!(
            next.mine_of(&account, &["account.close"]).await,
            ["account.close"]
        );
        site.advance(7 * 86_400 + 60).await;
        let next = site.sign_in("nick@mail.example", NEW).await;
        assert_eq!(next.mine_of(&account, &all).await, all);
        let admin = again(&site, &contoso.admin).await;
        let shown = admin.settings(&account).await.unwrap();
        assert_eq!(shown.owner.unwrap().identity, nick.name);
    })
    .await;
}

// proves PWD-10, ACC-20
#[tokio::test]
async fn an_owner_who_is_there_after_all_stops_its_replacement_and_none_is_replaced_who_came_later()
{
    both(async |site| {
        let (_contoso, account, olga) = crate::ownership::owned(&site).await;
        let nick = identity(&site, "nick@mail.example").await;
        let mut people = Vec::new();
        for name in ["sue", "sam", "sid", "sol"] {
            people.push(support(&site, name).await.caller);
        }
        let new = case(&people[0], Role::Owner, &account, &nick.name, 1).await;
        let made = open(&people[0], new).await.unwrap().name;
        approve(&people[1], &made).await.unwrap();
        site.advance(WAIT - 60).await;
        let told = letters(&site).await;
        let stops = |l: &&crate::people::Letter| {
            l.to == "olga@mail.example" && l.text.contains("stop-recovery#")
        };
        let (_, rest) = told
            .iter()
            .rfind(stops)
            .unwrap()
            .text
            .split_once("stop-recovery#")
            .unwrap();
        let token: String = rest
            .chars()
            .take_while(|c| c.is_ascii_alphanumeric() || "-_".contains(*c))
            .collect();
        let stopped = stop(&site.nobody(), &token, "").await.unwrap();
        assert_eq!(stopped, State::Stopped);
        site.advance(WAIT).await;
        site.settle().await;
        assert_eq!(mailed_token(&site, PROVEN).await, None);
        let owner = again(&site, &olga).await;
        assert_eq!(owner.mine_of(&account, &["account.close"]).await.len(), 1);

        // Opened again, it is for Olga's place: nobody who owns it by then loses it.
        let sid = again_by_name(&site, "sid").await;
        let sol = again_by_name(&site, "sol").await;
        let mut new = case(&sid, Role::Owner, &account, &nick.name, 2).await;
        new.reopens.clone_from(&made);
        let second = open(&sid, new).await.unwrap().name;
        approve(&sol, &second).await.unwrap();
        let newer = identity(&site, "nora@mail.example").await;
        let sql = "DELETE FROM grants WHERE principal_id = $1";
        change(&site, sql, [id(&olga.name).into()]).await;
        crate::ownership::owns(&site, &account, &newer).await;
        site.advance(WAIT + 60).await;
        let sue = again_by_name(&site, "sue").await;
        eventually(async || {
            site.settle().await;
            get(&sue, &second).await.state() == State::Expired
        })
        .await;
        assert_eq!(mailed_token(&site, PROVEN).await, None);
    })
    .await;
}

/// A case that makes a new admin of a tenant.
async fn anew(who: &Caller, tenant: &TenantSite, user_name: &str) -> RecoveryCase {
    let mut new = case(who, Role::GlobalAdmin, &tenant.name, "", 1).await;
    new.new_admin = Some(NewAdmin {
        user_name: user_name.to_owned(),
        given_name: "Nia".to_owned(),
        family_name: "New".to_owned(),
    });
    new
}

/// Disables a tenant's admin, or lets it come back.
async fn locked_out(site: &Site, tenant: &TenantSite, is_out: bool) {
    let sql = "UPDATE users SET state = $1 WHERE id = $2";
    let state: i64 = if is_out { 2 } else { 1 };
    change(site, sql, [state.into(), id(&tenant.admin.name).into()]).await;
}

const NIA: &str = "SELECT COUNT(*) AS n FROM users WHERE user_name = 'nia' AND state = 1";

// proves PWD-10, TEN-5
#[tokio::test]
async fn a_new_admin_is_made_where_nobody_is_left_and_is_gone_if_the_link_is_not_used() {
    both(async |site| {
        let (tenant, _) = addressed(&site).await;
        let account = site.account(&tenant, "Contoso").await;
        let sue = support(&site, "sue").await.caller;
        let sam = support(&site, "sam").await.caller;
        let faulty = |tried: Result<RecoveryCase, Status>, field: &str| {
            let status = refused(tried, Code::InvalidArgument, "INVALID_FIELDS");
            assert_eq!(fields(&status), [format!("recovery_case.{field}")]);
        };
        // Not while somebody is there; not under a name that somebody has; not beside a person, nor for an account.
        faulty(
            open(&sue, anew(&sue, &tenant, "nia").await).await,
            "new_admin",
        );
        locked_out(&site, &tenant, true).await;
        let sql = "UPDATE tenants SET synchronized = TRUE WHERE id = $1";
        change(&site, sql, [id(&tenant.name).into()]).await;
        faulty(
            open(&sue, anew(&sue, &tenant, "Ann").await).await,
            "new_admin",
        );
        let mut both = anew(&sue, &tenant, "nia").await;
        both.person.clone_from(&tenant.admin.name);
        faulty(open(&sue, both).await, "person");
        let mut elsewhere = anew(&sue, &tenant, "nia").await;
        elsewhere.scope.clone_from(&account);
        faulty(open(&sue, elsewhere).await, "new_admin");

        let made = open(&sue, anew(&sue, &tenant, "nia").await).await.unwrap();
        assert_eq!((made.person.as_str(), made.state()), ("", State::Open));
        approve(&sam, &made.name).await.unwrap();
        // The tenant's contact can stop it: no admin is left.
        let told = letters(&site).await;
        let hears = |l: &&crate::people::Letter| {
            l.to == "it@contoso.example" && l.text.contains("stop-recovery#entl_")
        };
        assert_eq!(told.iter().filter(hears).count(), 1);
        assert_eq!(number(&site, NIA, []).await, 0, "nobody yet");
        site.advance(WAIT + 60).await;
        let token = link(&site, &made.name).await;
        assert_eq!(number(&site, NIA, []).await, 1);
        // Nobody came: nobody is left behind.
        site.advance(WAIT + 60).await;
        link_invalid(recover(&site, &token, PASSWORD).await);
        let sue = again_by_name(&site, "sue").await;
        eventually(async || {
            site.settle().await;
            get(&sue, &made.name).await.state() == State::Expired
        })
        .await;
        assert_eq!(number(&site, NIA, []).await, 0);

        let sam = again_by_name(&site, "sam").await;
        let second = open(&sue, anew(&sue, &tenant, "nia").await).await.unwrap();
        let second = second.name;
        approve(&sam, &second).await.unwrap();
        site.advance(WAIT + 60).await;
        let token = link(&site, &second).await;
        recover(&site, &token, NEW).await.unwrap();
        let nia = site.sign_in("nia@contoso.partners.localhost", NEW).await;
        let own = nia.who_am_i().await.unwrap().principal;
        let user = nia.user(&own).await.unwrap();
        assert_eq!(user.recovery_email, PROVEN);
        assert!(user.rights_asleep_until.is_some());
        // It leads the tenant, and its local directory doesn't keep it from that.
        let request = UpdateTenantRequest {
            tenant: Some(Tenant {
                name: tenant.name.clone(),
                display_name: "Contoso anew".to_owned(),
                ..Tenant::default()
            }),
            update_mask: Some(crate::people::mask(&["display_name"])),
            ..UpdateTenantRequest::default()
        };
        nia.tenants().update_tenant(request).await.unwrap();
        let sue = again_by_name(&site, "sue").await;
        let done = get(&sue, &second).await;
        assert_eq!((done.state(), done.person), (State::Completed, own));
    })
    .await;
}

// proves PWD-10
#[tokio::test]
async fn a_new_admin_is_not_made_and_does_not_begin_once_somebody_leads_the_tenant_again() {
    both(async |site| {
        let (tenant, _) = addressed(&site).await;
        let sue = support(&site, "sue").await.caller;
        let sam = support(&site, "sam").await.caller;
        let code = Code::FailedPrecondition;
        let expired = async |case: &str| {
            let sue = again_by_name(&site, "sue").await;
            eventually(async || {
                site.settle().await;
                get(&sue, case).await.state() == State::Expired
            })
            .await;
        };
        // Before the approval; while it waits; once the link is out.
        locked_out(&site, &tenant, true).await;
        let first = open(&sue, anew(&sue, &tenant, "nia").await).await.unwrap();
        let first = first.name;
        locked_out(&site, &tenant, false).await;
        refused(approve(&sam, &first).await, code, "WRONG_STATE");
        locked_out(&site, &tenant, true).await;
        approve(&sam, &first).await.unwrap();
        locked_out(&site, &tenant, false).await;
        site.advance(WAIT + 60).await;
        expired(&first).await;
        assert_eq!(number(&site, NIA, []).await, 0);

        locked_out(&site, &tenant, true).await;
        let sue = again_by_name(&site, "sue").await;
        let sam = again_by_name(&site, "sam").await;
        let second = open(&sue, anew(&sue, &tenant, "nia").await).await.unwrap();
        let second = second.name;
        approve(&sam, &second).await.unwrap();
        site.advance(WAIT + 60).await;
        let token = link(&site, &second).await;
        locked_out(&site, &tenant, false).await;
        link_invalid(recover(&site, &token, NEW).await);
        // The operator stops it, and whom it made is gone.
        let sue = again_by_name(&site, "sue").await;
        assert_eq!(number(&site, NIA, []).await, 1);
        assert_eq!(stop(&sue, "", &second).await.unwrap(), State::Stopped);
        assert_eq!(number(&site, NIA, []).await, 0);
    })
    .await;
}

// proves PWD-10
#[tokio::test]
async fn nobody_of_the_operator_comes_back_by_a_case() {
    both(async |site| {
        let sue = support(&site, "sue").await;
        let sam = support(&site, "sam").await;
        let operator = crate::people::operator_tenant(&site).await;
        let contoso = site.tenant("contoso").await;
        let account = site.account(&contoso, "Contoso").await;
        for (role, scope) in [
            (Role::GlobalAdmin, &operator.name),
            (Role::Manager, &account),
        ] {
            let new = case(&sue.caller, role, scope, &sam.name, 1).await;
            refused(
                open(&sue.caller, new).await,
                Code::FailedPrecondition,
                "OPERATOR_TENANT",
            );
        }
    })
    .await;
}

// proves PWD-10, ROL-7
#[tokio::test]
async fn case_is_for_people_who_belong_there_and_gives_what_they_lack() {
    both(async |site| {
        let (tenant, _) = addressed(&site).await;
        let account = site.account(&tenant, "Contoso").await;
        let other = site.tenant("fabrikam").await;
        let ben = site.person(&tenant, "ben").await;
        let nora = identity(&site, "nora@example.org").await;
        let [one, two] = [
            support(&site, "sue").await.caller,
            support(&site, "sam").await.caller,
        ];
        let wrong = async |role: Role, scope: &str, person: &str, field: &str| {
            let new = case(&one, role, scope, person, 1).await;
            let status = refused(
                open(&one, new).await,
                Code::InvalidArgument,
                "INVALID_FIELDS",
            );
            assert_eq!(fields(&status), [field]);
        };
        wrong(
            Role::GlobalAdmin,
            &tenant.name,
            &other.admin.name,
            "recovery_case.person",
        )
        .await;
        wrong(
            Role::Manager,
            &account,
            &other.admin.name,
            "recovery_case.person",
        )
        .await;
        wrong(Role::Owner, &account, &nora.name, "recovery_case.person").await;
        wrong(Role::Owner, &account, &ben.name, "recovery_case.role").await;
        wrong(Role::GlobalAdmin, &account, &ben.name, "recovery_case.role").await;
        let mut foreign = case(&two, Role::Manager, &account, &ben.name, 1).await;
        let theirs = open(&one, foreign.clone()).await;
        let status = refused(theirs, Code::InvalidArgument, "INVALID_FIELDS");
        assert_eq!(fields(&status), ["recovery_case.documents[0]"]);
        foreign.documents.clear();
        refused(
            open(&two, foreign).await,
            Code::InvalidArgument,
            "INVALID_FIELDS",
        );

        // A user who is no member yet becomes a manager, once it chose a password.
        let new = case(&one, Role::Manager, &account, &ben.name, 1).await;
        let made = open(&one, new).await.unwrap().name;
        approve(&two, &made).await.unwrap();
        site.advance(WAIT + 60).await;
        let token = link(&site, &made).await;
        denied(
            again(&site, &ben)
                .await
                .members()
                .list_members(entente::proto::account::ListMembersRequest {
                    parent: account.clone(),
                    ..Default::default()
                })
                .await,
        );
        recover(&site, &token, NEW).await.unwrap();
        let back = site.sign_in(&ben.sign_in_name, NEW).await;
        let members = crate::members::list(&back, &account, "").await.unwrap();
        let own = members.iter().find(|m| m.principal == ben.name).unwrap();
        assert_eq!(
            own.rights.as_ref().unwrap().roles,
            [AccountRole::Manager as i32]
        );

        // A link that nobody uses ends, and with it the case.
        let new = case(
            &again_by_name(&site, "sue").await,
            Role::Manager,
            &account,
            &ben.name,
            1,
        )
        .await;
        let third = open(&again_by_name(&site, "sue").await, new)
            .await
            .unwrap()
            .name;
        approve(&again_by_name(&site, "sam").await, &third)
            .await
            .unwrap();
        site.advance(WAIT + 60).await;
        let token = link(&site, &third).await;
        site.advance(WAIT + 60).await;
        link_invalid(recover(&site, &token, PASSWORD).await);
        let sue = again_by_name(&site, "sue").await;
        eventually(async || {
            site.settle().await;
            get(&sue, &third).await.state() == State::Expired
        })
        .await;
    })
    .await;
}

// proves ROL-11
#[tokio::test]
async fn each_look_at_a_case_is_audited() {
    both(async |site| {
        site.early_in_an_hour().await;
        let tenant = site.tenant("contoso").await;
        let name = opened(&site, &tenant.name, &tenant.admin.name).await;
        let sue = support(&site, "sue").await;
        for _ in 0..2 {
            get(&sue.caller, &name).await;
            let all = ListRecoveryCasesRequest::default();
            sue.caller
                .recoveries()
                .list_recovery_cases(all)
                .await
                .unwrap();
        }
        let seen = audited(&site.operator().await, "operator", "")
            .await
            .unwrap();
        let looks = |action: &str, resource: &str| {
            let action = format!("entente.directory.v1.RecoveryService/{action}");
            let mine = seen
                .iter()
                .filter(|e| e.action == action && e.actor == sue.name);
            mine.filter(|e| e.resources == [resource]).count()
        };
        assert_eq!(looks("GetRecoveryCase", &name), 1);
        assert_eq!(looks("ListRecoveryCases", "operator"), 1);
    })
    .await;
}

// proves ROL-13, PWD-10
#[tokio::test]
async fn rights_of_an_owner_who_came_back_sleep_until_another_holder_wakes_them() {
    both(async |site| {
        let (contoso, account, olga) = crate::ownership::owned(&site).await;
        let [one, two] = [support(&site, "sue").await, support(&site, "sam").await];
        let new = case(&one.caller, Role::Owner, &account, &olga.name, 1).await;
        let made = open(&one.caller, new).await.unwrap().name;
        approve(&two.caller, &made).await.unwrap();
        site.advance(WAIT + 60).await;
        let token = link(&site, &made).await;
        recover(&site, &token, NEW).await.unwrap();
        let back = site.sign_in(&olga.sign_in_name, NEW).await;
        let asked = ["account.close", "owner.tie"];
        assert_eq!(back.mine_of(&account, &asked).await, ["account.close"]);
        let shown = async || {
            let name = olga.name.clone();
            let request = entente::proto::directory::GetIdentityRequest { name };
            let done = back.identities().get_identity(request).await;
            done.unwrap().into_inner()
        };
        let until = shown().await.rights_asleep_until;
        assert!(until.is_some());
        let sleeps = back.hand_on(&account, "next@mail.example").await;
        let status = refused(sleeps, Code::FailedPrecondition, "RIGHTS_ASLEEP");
        let told = status.get_details_error_info().unwrap().metadata;
        assert!(told["woken_by"].split(", ").any(|role| role == "MANAGER"));

        // Nobody wakes their own, nor what they lack; whoever shares nothing with the owner learns nothing.
        let nothing = |tried| refused(tried, Code::PermissionDenied, "NOTHING_TO_WAKE");
        nothing(back.wake(&olga.name).await);
        nothing(again(&site, &two).await.wake(&olga.name).await);
        let fabrikam = site.tenant("fabrikam").await;
        nothing(fabrikam.admin.caller.wake(&olga.name).await);
        let woken = again(&site, &contoso.admin).await.wake(&olga.name).await;
        let woken = woken.unwrap();
        assert_eq!(woken.name, olga.name);
        assert_eq!(woken.rights_asleep_until, until);
        assert_eq!((&*woken.user_name, &*woken.recovery_email), ("", ""));
        assert_eq!(back.mine_of(&account, &asked).await, asked);
        assert_eq!(
            events(&site, "directory.v1.RightsWoken", &olga.name).await,
            1
        );
        site.advance(WAIT).await;
        let back = site.sign_in(&olga.sign_in_name, NEW).await;
        let name = olga.name.clone();
        let request = entente::proto::directory::GetIdentityRequest { name };
        let own = back.identities().get_identity(request).await.unwrap();
        assert_eq!(own.into_inner().rights_asleep_until, None);
    })
    .await;
}

async fn again_by_name(site: &Site, name: &str) -> Caller {
    let name = format!("{name}@operator.partners.localhost");
    site.sign_in(&name, PASSWORD).await
}
