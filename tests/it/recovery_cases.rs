//! RecoveryService (PWD-10): the way back of admins, managers and owners whom nobody else can help.

use entente::proto::{
    access::AccountRole,
    directory::{
        ApproveRecoveryCaseRequest, GetRecoveryCaseRequest, ListRecoveryCasesRequest,
        OpenRecoveryCaseRequest, RecoveryCase, RecoveryCaseState as State, RecoveryRole as Role,
        StopRecoveryCaseRequest,
    },
    operator::OperatorRole,
};
use tonic::{Code, Response, Status};
use tonic_types::StatusExt as _;

use crate::{
    documents::{download, first, upload},
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
async fn stopped_case_is_opened_again_by_two_others_on_more_evidence_only() {
    both(async |site| {
        let (tenant, mailbox) = addressed(&site).await;
        let mut people = Vec::new();
        for name in ["sue", "sam", "sid", "sol"] {
            people.push(support(&site, name).await.caller);
        }
        let [sue, sam, sid, sol] = &people[..] else {
            panic!("four people");
        };
        let again_by = async |who: &Caller, documents: usize, reopens: &str| {
            let mut new = case(
                who,
                Role::GlobalAdmin,
                &tenant.name,
                &tenant.admin.name,
                documents,
            )
            .await;
            new.reopens = reopens.to_owned();
            open(who, new).await
        };
        let made = again_by(sue, 1, "").await.unwrap().name;
        approve(sam, &made).await.unwrap();
        let token = mailed_token(&site, &mailbox).await.unwrap();
        let other = format!("operator/recoveryCases/{}", crate::harness::request_id());
        link_invalid(stop(&site.nobody(), &token, &other).await);
        link_invalid(stop(&site.nobody(), "entl_nothing", &made).await);
        assert_eq!(
            stop(&site.nobody(), &token, "").await.unwrap(),
            State::Stopped
        );
        link_invalid(stop(&site.nobody(), &token, "").await);
        let stopped = get(sue, &made).await;
        assert_eq!(
            (&*stopped.stopped_by, &*stopped.stop_reason),
            (&*mailbox, "It is not me.")
        );
        site.settle().await;
        assert_eq!(
            number(&site, "SELECT COUNT(*) AS n FROM links", []).await,
            0
        );

        let code = Code::FailedPrecondition;
        refused(again_by(sid, 2, "").await, code, "RECOVERY_CASE_STOPPED");
        refused(again_by(sue, 2, &made).await, code, "ANOTHER_OPERATOR");
        refused(again_by(sam, 2, &made).await, code, "ANOTHER_OPERATOR");
        let weak = refused(
            again_by(sid, 1, &made).await,
            Code::InvalidArgument,
            "INVALID_FIELDS",
        );
        assert_eq!(fields(&weak), ["recovery_case.documents"]);
        let second = again_by(sid, 2, &made).await.unwrap().name;
        for who in [sue, sam, sid] {
            refused(approve(who, &second).await, code, "ANOTHER_OPERATOR");
        }
        approve(sol, &second).await.unwrap();
        // Those whom it concerns are told, and have no link.
        let told = letters(&site).await;
        let newest = told.iter().rfind(|l| l.to == mailbox).unwrap();
        assert!(
            newest.text.contains("Only the operator can stop it") && !newest.text.contains("entl_")
        );
        denied(stop(&tenant.admin.caller, "", &second).await);
        assert_eq!(stop(sue, "", &second).await.unwrap(), State::Stopped);
        refused(stop(sue, "", &second).await, code, "WRONG_STATE");
        // Nor does anybody of the first case open the third, nor approve of it.
        for who in [sue, sam, sid, sol] {
            refused(again_by(who, 3, &second).await, code, "ANOTHER_OPERATOR");
        }
        let uma = support(&site, "uma").await.caller;
        let third = again_by(&uma, 3, &second).await.unwrap().name;
        for who in [sue, sam] {
            refused(approve(who, &third).await, code, "ANOTHER_OPERATOR");
        }
        site.advance(WAIT + 60).await;
        assert_eq!(mailed_token(&site, PROVEN).await, None);
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
