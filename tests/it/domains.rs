//! Domains of tenants, verified by a real name server (TEN-2), and what they mean to personal identities (IDN-1) and guests (INV-5). The daily
//! look-up: `domains/daily.rs`.

mod daily;

use entente::proto::directory::{
    AcceptInvitationRequest, CreateDomainRequest, DeleteDomainRequest, DeleteTenantRequest,
    DirectoryRole, Domain, DomainState, GetDomainRequest, ListDomainsRequest, VerifyDomainRequest,
};
use tonic::{Code, Response, Status};
use tonic_types::StatusExt as _;

use crate::{
    dns::NameServer,
    harness::{Caller, Database, PASSWORD, Site, TenantSite, both, fields, refused, request_id},
    identities::{change_email, sign_up},
    invitations::{addresses, invited},
    people::{audited, confirm, events, identity, mailed_token, new_identity, person_as},
};

/// A test on both databases, each with a name server of its own.
pub(super) async fn with_dns(test: impl AsyncFn(Site, NameServer)) {
    for database in [Database::Sqlite, Database::Postgres] {
        println!("--- on {database:?}");
        let names = NameServer::start().await;
        let site = Site::open_with(database, |config| config.dns_servers = names.address());
        test(site.await, names).await;
    }
}

pub(crate) fn naming(tenant: &str, domain_name: &str) -> CreateDomainRequest {
    CreateDomainRequest {
        parent: tenant.to_owned(),
        domain: Some(Domain {
            domain_name: domain_name.to_owned(),
            ..Domain::default()
        }),
        ..CreateDomainRequest::default()
    }
}

/// Calls about domains.
pub(super) trait Domains {
    async fn named(&self, tenant: &str, domain_name: &str) -> Result<Domain, Status>;
    async fn verify(&self, name: &str) -> Result<Domain, Status>;
    async fn domain(&self, name: &str) -> Result<Domain, Status>;
    async fn domains_of(&self, tenant: &str, filter: &str) -> Result<Vec<String>, Status>;
    async fn delete_domain(&self, name: &str) -> Result<Vec<Domain>, Status>;
}

impl Domains for Caller {
    async fn named(&self, tenant: &str, domain_name: &str) -> Result<Domain, Status> {
        let mut domains = self.domains();
        let made = domains.create_domain(naming(tenant, domain_name)).await;
        made.map(Response::into_inner)
    }
    async fn verify(&self, name: &str) -> Result<Domain, Status> {
        let request = VerifyDomainRequest {
            name: name.to_owned(),
            ..VerifyDomainRequest::default()
        };
        let done = self.domains().verify_domain(request).await;
        done.map(Response::into_inner)
    }
    async fn domain(&self, name: &str) -> Result<Domain, Status> {
        let name = name.to_owned();
        let got = self.domains().get_domain(GetDomainRequest { name }).await;
        got.map(Response::into_inner)
    }
    async fn domains_of(&self, tenant: &str, filter: &str) -> Result<Vec<String>, Status> {
        let request = ListDomainsRequest {
            parent: tenant.to_owned(),
            filter: filter.to_owned(),
            order_by: "domain_name desc".to_owned(),
            ..ListDomainsRequest::default()
        };
        let page = self.domains().list_domains(request).await?.into_inner();
        Ok(page.domains.into_iter().map(|d| d.domain_name).collect())
    }
    async fn delete_domain(&self, name: &str) -> Result<Vec<Domain>, Status> {
        let request = DeleteDomainRequest {
            name: name.to_owned(),
            ..DeleteDomainRequest::default()
        };
        let done = self.domains().delete_domain(request).await;
        done.map(|r| r.into_inner().resources)
    }
}

pub(super) fn record(of: &Domain) -> (&str, &str) {
    (&of.record_name, &of.record_value)
}

/// A tenant's domain, verified; its record is the only one.
pub(super) async fn verified(names: &NameServer, tenant: &TenantSite, domain: &str) -> Domain {
    let admin = &tenant.admin.caller;
    let made = admin.named(&tenant.name, domain).await.unwrap();
    names.publish(&[record(&made)]).await;
    admin.verify(&made.name).await.unwrap()
}

#[track_caller]
fn not_found(result: Result<Domain, Status>, found: &str) {
    let status = refused(result, Code::FailedPrecondition, "DOMAIN_RECORD_NOT_FOUND");
    let told = status.get_details_error_info().unwrap().metadata;
    assert_eq!(told["found"], found);
    assert!(told["record"].starts_with("_entente-verification."));
    assert_eq!(told.len(), 2, "nothing else is told: {told:?}");
}

// proves TEN-2
#[tokio::test]
async fn domain_is_verified_by_its_record_and_by_nothing_else() {
    with_dns(async |site, names| {
        let contoso = site.tenant("contoso").await;
        let fabrikam = site.tenant("fabrikam").await;
        let admin = &contoso.admin.caller;
        let made = admin.named(&contoso.name, "Bücher.EXAMPLE").await.unwrap();
        assert_eq!(made.domain_name, "xn--bcher-kva.example");
        assert_eq!(made.state(), DomainState::Pending);
        let name = "_entente-verification.xn--bcher-kva.example";
        assert_eq!(made.record_name, name);
        assert_eq!(admin.domain(&made.name).await.unwrap(), made);
        let again = admin.named(&contoso.name, "bücher.example").await;
        refused(again, Code::AlreadyExists, "RESOURCE_EXISTS");

        not_found(admin.verify(&made.name).await, "0");
        // Another tenant's record proves that one's naming, not this one's.
        let theirs = &fabrikam.admin.caller;
        let theirs = theirs
            .named(&fabrikam.name, "bücher.example")
            .await
            .unwrap();
        assert_ne!(theirs.record_value, made.record_value);
        let value = &made.record_value;
        let (longer, upper) = (format!("{value} "), value.to_uppercase());
        names
            .publish(&[
                record(&theirs),
                (name, &longer),
                (name, &upper),
                ("xn--bcher-kva.example", value),
                ("_entente-verification.www.xn--bcher-kva.example", value),
            ])
            .await;
        not_found(admin.verify(&made.name).await, "3");
        assert_eq!(admin.domain(&made.name).await.unwrap(), made);

        // Too much for a datagram: the rest comes over TCP.
        let crowd: Vec<_> = (0..40).map(|n| format!("{n:0>150}")).collect();
        let mut records: Vec<_> = crowd.iter().map(|v| (name, v.as_str())).collect();
        records.push(record(&made));
        names.publish(&records).await;
        let trial = VerifyDomainRequest {
            name: made.name.clone(),
            validate_only: true,
            ..VerifyDomainRequest::default()
        };
        let tried = admin.domains().verify_domain(trial).await.unwrap();
        assert_eq!(tried.into_inner().state(), DomainState::Verified);
        assert_eq!(admin.domain(&made.name).await.unwrap(), made);
        let stale = VerifyDomainRequest {
            name: made.name.clone(),
            etag: "\"0\"".to_owned(),
            ..VerifyDomainRequest::default()
        };
        let stale = admin.domains().verify_domain(stale).await;
        refused(stale, Code::Aborted, "ETAG_MISMATCH");
        let request = VerifyDomainRequest {
            name: made.name.clone(),
            request_id: request_id(),
            ..VerifyDomainRequest::default()
        };
        let done = admin.domains().verify_domain(request.clone()).await;
        let done = done.unwrap().into_inner();
        assert_eq!(done.state(), DomainState::Verified);
        assert!(done.verify_time.is_some() && done.etag != made.etag);
        // The first answer, though the record is gone.
        names.publish(&[]).await;
        let replayed = admin.domains().verify_domain(request).await.unwrap();
        assert_eq!(replayed.into_inner(), done);
        assert_eq!(admin.domain(&made.name).await.unwrap(), done);

        assert_eq!(
            events(&site, "directory.v1.DomainCreated", &made.name).await,
            1
        );
        assert_eq!(
            events(&site, "directory.v1.DomainVerified", &made.name).await,
            1
        );
        let kept = audited(admin, &contoso.name, "").await.unwrap();
        let about = kept.iter().filter(|e| e.resources.contains(&made.name));
        let methods: Vec<_> = about.map(|e| e.action.clone()).collect();
        let service = "entente.directory.v1.DomainService";
        assert_eq!(
            methods,
            [
                format!("{service}/CreateDomain"),
                format!("{service}/VerifyDomain")
            ]
        );
    })
    .await;
}

// proves TEN-2
#[tokio::test]
async fn failing_dns_is_told_and_says_nothing_of_the_record() {
    with_dns(async |site, mut names| {
        let contoso = site.tenant("contoso").await;
        let admin = &contoso.admin.caller;
        // The server refuses to speak of it.
        let foreign = admin.named(&contoso.name, "contoso.test").await.unwrap();
        refused(
            admin.verify(&foreign.name).await,
            Code::FailedPrecondition,
            "DNS_UNAVAILABLE",
        );
        let made = admin.named(&contoso.name, "contoso.example").await.unwrap();
        names.stop();
        refused(
            admin.verify(&made.name).await,
            Code::FailedPrecondition,
            "DNS_UNAVAILABLE",
        );
        names.resume().await;
        not_found(admin.verify(&made.name).await, "0");
        // None that somebody else could have proven.
        for (wrong, field) in [
            ("contoso", "domain.domain_name"),
            ("co.uk", "domain.domain_name"),
            ("127.0.0.1", "domain.domain_name"),
            ("printer.local", "domain.domain_name"),
            ("partners.localhost", "domain.domain_name"),
        ] {
            let status = admin.named(&contoso.name, wrong).await;
            let status = refused(status, Code::InvalidArgument, "INVALID_FIELDS");
            assert_eq!(fields(&status), [field], "{wrong}");
        }
    })
    .await;
}

// proves TEN-2
#[tokio::test]
async fn operators_base_domain_is_nobodys() {
    for database in [Database::Sqlite, Database::Postgres] {
        let site = Site::open_with(database, |c| c.base_domain = "partners.example".to_owned());
        let site = site.await;
        let tokens = site.tokens("admin@operator.partners.example", PASSWORD);
        let caller = site.with_token(&tokens.await.unwrap().access_token);
        let tenant = caller
            .sessions()
            .who_am_i(entente::proto::directory::WhoAmIRequest {})
            .await
            .unwrap();
        let tenant = tenant.into_inner().tenant.unwrap().name;
        for wrong in ["partners.example", "Contoso.Partners.example"] {
            let status = caller.named(&tenant, wrong).await;
            let status = refused(status, Code::InvalidArgument, "INVALID_FIELDS");
            assert_eq!(fields(&status), ["domain.domain_name"], "{wrong}");
        }
        caller
            .named(&tenant, "other-partners.example")
            .await
            .unwrap();
    }
}

// proves TEN-2, ATK-11
#[tokio::test]
async fn verified_domain_belongs_to_one_tenant_and_is_free_when_deleted() {
    with_dns(async |site, names| {
        let contoso = site.tenant("contoso").await;
        let fabrikam = site.tenant("fabrikam").await;
        let (ours, theirs) = (&contoso.admin.caller, &fabrikam.admin.caller);
        let a = ours.named(&contoso.name, "shop.example").await.unwrap();
        let b = theirs.named(&fabrikam.name, "shop.example").await.unwrap();
        names.publish(&[record(&a), record(&b)]).await;
        let (first, second) = tokio::join!(ours.verify(&a.name), theirs.verify(&b.name));
        let (winner, loser) = match (first, second) {
            (Ok(_), lost) => {
                refused(lost, Code::AlreadyExists, "DOMAIN_VERIFIED_ELSEWHERE");
                ((&contoso, ours, &a), (&fabrikam, theirs, &b))
            }
            (lost, Ok(_)) => {
                refused(lost, Code::AlreadyExists, "DOMAIN_VERIFIED_ELSEWHERE");
                ((&fabrikam, theirs, &b), (&contoso, ours, &a))
            }
            both => panic!("one was to win: {both:?}"),
        };
        let at = |domain: &Domain, state| assert_eq!(domain.state(), state);
        at(
            &loser.1.domain(&loser.2.name).await.unwrap(),
            DomainState::Pending,
        );
        // Who doesn't bring the record gets to know of nobody else's domain.
        names.publish(&[record(winner.2)]).await;
        not_found(loser.1.verify(&loser.2.name).await, "1");
        // What lies below is proven by itself.
        let below = loser
            .1
            .named(&loser.0.name, "eu.shop.example")
            .await
            .unwrap();
        names.publish(&[record(&below)]).await;
        at(
            &loser.1.verify(&below.name).await.unwrap(),
            DomainState::Verified,
        );

        let gone = winner.1.delete_domain(&winner.2.name).await.unwrap();
        assert_eq!(gone[0].state(), DomainState::Verified);
        refused(
            winner.1.domain(&winner.2.name).await,
            Code::NotFound,
            "RESOURCE_NOT_FOUND",
        );
        names.publish(&[record(winner.2), record(loser.2)]).await;
        at(
            &loser.1.verify(&loser.2.name).await.unwrap(),
            DomainState::Verified,
        );
        // Named again, it has another record, and the old one proves nothing.
        let again = winner
            .1
            .named(&winner.0.name, "shop.example")
            .await
            .unwrap();
        assert_ne!(again.record_value, winner.2.record_value);
        not_found(winner.1.verify(&again.name).await, "2");
        let listed = loser
            .1
            .domains_of(&loser.0.name, "state = VERIFIED AND domain_name : \"shop\"");
        assert_eq!(listed.await.unwrap(), ["shop.example", "eu.shop.example"]);
    })
    .await;
}

// proves TEN-2, TEN-7
#[tokio::test]
async fn deleted_tenant_frees_its_domains_and_gets_them_back_with_it() {
    with_dns(async |site, names| {
        let contoso = site.tenant("contoso").await;
        let kept = verified(&names, &contoso, "contoso.example").await;
        let lost = verified(&names, &contoso, "lost.example").await;
        let request = DeleteTenantRequest {
            name: contoso.name.clone(),
            ..DeleteTenantRequest::default()
        };
        let mut tenants = contoso.admin.caller.tenants();
        tenants.delete_tenant(request).await.unwrap();
        let fabrikam = site.tenant("fabrikam").await;
        let theirs = verified(&names, &fabrikam, "lost.example").await;
        names
            .publish(&[record(&kept), record(&lost), record(&theirs)])
            .await;
        // Meanwhile nobody looks for it.
        site.settle().await;
        daily::is(&site, &kept, DomainState::Lapsed).await;
        let request = entente::proto::directory::UndeleteTenantRequest {
            tenant: contoso.name.clone(),
            ..Default::default()
        };
        let operator = site.operator().await;
        operator.tenants().undelete_tenant(request).await.unwrap();
        site.settle().await;
        daily::is(&site, &kept, DomainState::Verified).await;
        daily::is(&site, &lost, DomainState::Lapsed).await;
        daily::is(&site, &theirs, DomainState::Verified).await;
    })
    .await;
}

// proves TEN-2, ATK-1, ATK-8, ATK-10
#[tokio::test]
async fn only_admins_of_the_tenant_manage_its_domains_and_set_nothing_of_the_services() {
    both(async |site| {
        let contoso = site.tenant("contoso").await;
        let fabrikam = site.tenant("fabrikam").await;
        let admin = &contoso.admin.caller;
        let mut request = naming(&contoso.name, "contoso.example");
        let domain = request.domain.as_mut().unwrap();
        domain.state = DomainState::Verified as i32;
        domain.record_value = "mine".to_owned();
        domain.verify_time = Some(prost_types::Timestamp::default());
        let made = admin.domains().create_domain(request).await;
        let made = made.unwrap().into_inner();
        assert_eq!(made.state(), DomainState::Pending);
        assert!(made.record_value != "mine" && made.verify_time.is_none());

        let denied = |result: Result<Domain, Status>| {
            refused(result, Code::PermissionDenied, "PERMISSION_MISSING");
        };
        let stranger = &fabrikam.admin.caller;
        let billing = person_as(&site, &contoso, "bill", DirectoryRole::BillingAdmin).await;
        let plain = site.person(&contoso, "paul").await;
        for caller in [stranger, &billing.caller, &plain.caller] {
            denied(caller.named(&contoso.name, "other.example").await);
            denied(caller.verify(&made.name).await);
            let gone = caller.delete_domain(&made.name).await;
            refused(gone, Code::PermissionDenied, "PERMISSION_MISSING");
        }
        assert_eq!(billing.caller.domain(&made.name).await.unwrap(), made);
        for caller in [stranger, &plain.caller] {
            denied(caller.domain(&made.name).await);
            let listed = caller.domains_of(&contoso.name, "").await;
            refused(listed, Code::PermissionDenied, "PERMISSION_MISSING");
        }
        // Under one's own tenant's name it isn't there.
        let id = made.name.rsplit('/').next().unwrap();
        let moved = format!("{}/domains/{id}", fabrikam.name);
        for result in [stranger.domain(&moved).await, stranger.verify(&moved).await] {
            refused(result, Code::NotFound, "RESOURCE_NOT_FOUND");
        }
        let gone = stranger.delete_domain(&moved).await;
        refused(gone, Code::NotFound, "RESOURCE_NOT_FOUND");
        assert_eq!(admin.domain(&made.name).await.unwrap(), made);
    })
    .await;
}

// proves TEN-2
#[tokio::test]
async fn tenant_has_a_hundred_domains_at_most() {
    both(async |site| {
        let contoso = site.tenant("contoso").await;
        let admin = &contoso.admin.caller;
        for n in 0..100 {
            let name = format!("d{n}.example");
            admin.named(&contoso.name, &name).await.unwrap();
        }
        let more = admin.named(&contoso.name, "more.example").await;
        refused(more, Code::ResourceExhausted, "TOO_MANY_DOMAINS");
    })
    .await;
}

// proves IDN-1, TEN-2
#[tokio::test]
async fn nobody_signs_up_with_an_address_in_a_verified_domain() {
    with_dns(async |site, names| {
        let contoso = site.tenant("contoso").await;
        let admin = &contoso.admin.caller;
        let made = admin.named(&contoso.name, "bücher.example").await.unwrap();
        // A name alone proves nothing.
        sign_up(&site, new_identity("eve@xn--bcher-kva.example"))
            .await
            .unwrap();
        let early = mailed_token(&site, "eve@xn--bcher-kva.example")
            .await
            .unwrap();
        let ida = identity(&site, "ida@mail.example").await;
        names.publish(&[record(&made)]).await;
        admin.verify(&made.name).await.unwrap();
        let work = |result: Result<(), Status>, field: &str| {
            let status = refused(result, Code::InvalidArgument, "WORK_ADDRESS");
            assert_eq!(fields(&status), [field]);
        };
        for address in ["bob@xn--bcher-kva.example", "Bob@XN--Bcher-KVA.Example"] {
            work(sign_up(&site, new_identity(address)).await, "email");
            let changed = change_email(&ida.caller, &ida.name, address).await;
            work(changed, "new_email");
        }
        // Who signed up before and confirms after comes too late.
        let late = confirm(&site, &early, PASSWORD).await;
        refused(late, Code::PermissionDenied, "LINK_INVALID");
        // A domain says nothing of those below it, or beside it.
        for address in ["bob@mail.xn--bcher-kva.example", "bob@cher.example"] {
            sign_up(&site, new_identity(address)).await.unwrap();
        }
        admin.delete_domain(&made.name).await.unwrap();
        sign_up(&site, new_identity("bob@xn--bcher-kva.example"))
            .await
            .unwrap();
    })
    .await;
}

// proves INV-5, TEN-2
#[tokio::test]
async fn guest_invited_by_an_address_in_a_verified_domain_is_the_user_of_that_name_there() {
    with_dns(async |site, names| {
        let contoso = site.tenant("contoso").await;
        verified(&names, &contoso, "contoso.example").await;
        let fabrikam = site.tenant("fabrikam").await;
        let bob = site.person(&contoso, "bob").await;
        let eve = site.person(&contoso, "eve").await;
        let host = &fabrikam.admin.caller;
        let request = addresses(
            &fabrikam.name,
            &["Bob@contoso.example", "new@contoso.example"],
        );
        invited(&site, host, request).await;
        let accept = async |token: &str, caller: &Caller, password: &str| {
            let request = AcceptInvitationRequest {
                token: token.to_owned(),
                given_name: "Bob".to_owned(),
                family_name: "Stone".to_owned(),
                password: password.to_owned(),
                ..AcceptInvitationRequest::default()
            };
            let done = caller.invitations().accept_invitation(request).await;
            done.map(Response::into_inner)
        };
        let token = mailed_token(&site, "Bob@contoso.example").await.unwrap();
        let nobody = site.nobody();
        for (caller, password) in [(&nobody, PASSWORD), (&eve.caller, "")] {
            let other = accept(&token, caller, password).await;
            refused(other, Code::FailedPrecondition, "SIGN_IN_AS_HOLDER");
        }
        let guest = accept(&token, &bob.caller, "").await.unwrap();
        assert_eq!(guest.user.unwrap().home, bob.name);
        // Nobody has that name there: the organisation's admins are to make the user.
        let token = mailed_token(&site, "new@contoso.example").await.unwrap();
        let made = accept(&token, &nobody, PASSWORD).await;
        refused(made, Code::FailedPrecondition, "WORK_ADDRESS");
    })
    .await;
}
