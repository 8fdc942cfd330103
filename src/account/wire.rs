//! Proto ⇄ rows of accounts; no other file of this slice converts.

use std::collections::BTreeSet;

use prost_types::Timestamp;
use uuid::Uuid;

use super::{
    entity::{
        acceptance, account, agreement, agreement_text, association, member, network_membership,
        ownership, review, verification_step,
    },
    network,
    profile::{self, Profile},
    program,
};
use crate::{
    access::{
        grants::{Given, Set},
        principal::{Kind, Principal},
        roles::Permissions,
    },
    app::App,
    check::{MOST_ITEMS_NAMED, Violations},
    directory::{
        GUEST, IDENTITY,
        user::Summary,
        wire::{domain, mask_email},
    },
    env::Micros,
    error::{Error, Result},
    names::Name,
    proto::{
        access::AgreementKind,
        account::{
            Acceptance, Account, AccountOwner, AccountState, AccountType, Agreement,
            AgreementState, AgreementText, Contact, EffectiveRight, EnrolmentForApproval,
            ImportAccountRequest, Member, MemberKind, NetworkMembership, Ownership,
            PublishAgreementRequest, Review, ReviewState, ReviewedCompany, Signatory,
            TenantAssociation, VerificationDecision, VerificationStep, VerificationStepKind,
            VerificationStepReason, VerificationStepState,
        },
    },
    store::{
        list::fold,
        scope_key::ScopeKey,
        time::{micros, timestamp},
        update::etag,
    },
};

/// An account for the wire.
pub fn account(row: &account::Model) -> Account {
    let account::Model {
        id,
        publisher_display_name,
        publisher_display_name_fold: _,
        legal_name,
        legal_name_fold: _,
        country_code,
        r#type,
        seller_id,
        state,
        create_time,
        update_time,
        version,
        programs,
        profile,
        membership_id,
        signatory: _,
        submit_time,
        suspension_reason,
        state_before,
        idle_told_time: _,
        opened_by: _,
        reverifying,
    } = row;
    let active = AccountState::Active as i64;
    // Before it is active nothing is verified again; what a change sent back is told by the steps alone.
    let was_active =
        *state == active || (*state == AccountState::Suspended as i64 && *state_before == active);
    let Profile {
        address,
        primary_contact,
        seller_contact,
        company_approver,
    } = Profile::from_stored(profile);
    Account {
        name: Name::Account(*id).to_string(),
        publisher_display_name: publisher_display_name.clone(),
        legal_name: legal_name.clone(),
        country_code: country_code.clone(),
        r#type: i32::try_from(*r#type).unwrap_or(0),
        seller_id: seller_id.clone(),
        state: i32::try_from(*state).unwrap_or(0),
        create_time: timestamp(*create_time),
        update_time: timestamp(*update_time),
        etag: etag(*version),
        address: address.map(Into::into),
        primary_contact: primary_contact.map(Into::into),
        seller_contact: seller_contact.map(Into::into),
        company_approver: company_approver.map(Into::into),
        network_membership: membership_id
            .map_or_else(String::new, |id| Name::NetworkMembership(id).to_string()),
        submit_time: submit_time.and_then(timestamp),
        suspension_reason: suspension_reason.clone(),
        reverifying: *reverifying != 0 && was_active,
        reverified_steps: super::step::reverified(*reverifying)
            .map(|kind| kind as i32)
            .collect(),
        programs: program::of_bits(*programs),
    }
}

/// An account as the operator's people see it: names of companies are what they work with, people are masked.
pub fn masked(mut account: Account) -> Account {
    let hide = |contact: &mut Contact| {
        contact.display_name = contact
            .display_name
            .chars()
            .take(1)
            .chain("***".chars())
            .collect();
        contact.email = mask_email(&contact.email);
        contact.phone_number = String::new();
    };
    let Account {
        primary_contact,
        seller_contact,
        company_approver,
        ..
    } = &mut account;
    let seller = seller_contact.as_mut().and_then(|s| s.contact.as_mut());
    for contact in [primary_contact.as_mut(), seller, company_approver.as_mut()] {
        contact.into_iter().for_each(hide);
    }
    account
}

/// The row of a new account: active, and nobody's yet.
pub fn new_account(id: Uuid, account: &Account, now: Micros) -> account::Model {
    account::Model {
        id,
        publisher_display_name_fold: fold(&account.publisher_display_name),
        publisher_display_name: account.publisher_display_name.clone(),
        legal_name_fold: fold(&account.legal_name),
        legal_name: account.legal_name.clone(),
        country_code: account.country_code.clone(),
        r#type: i64::from(account.r#type.max(AccountType::Company as i32)),
        seller_id: format!("S{}", &id.simple().to_string()[16..].to_uppercase()),
        state: AccountState::Active as i64,
        create_time: now,
        update_time: now,
        version: 1,
        programs: 0,
        profile: Profile::of(account).to_stored(),
        membership_id: None,
        signatory: String::new(),
        submit_time: None,
        suspension_reason: String::new(),
        state_before: 0,
        idle_told_time: None,
        opened_by: String::new(),
        reverifying: 0,
    }
}

/// What differs between two states of an account's profile, for events.
pub fn changes(
    before: &Account,
    after: &Account,
) -> Vec<(&'static str, serde_json::Value, serde_json::Value)> {
    let of = |account: &Account| {
        let parts = serde_json::to_value(Profile::of(account)).unwrap_or_default();
        let part = |name: &str| parts.get(name).cloned().unwrap_or_default();
        [
            (
                "publisher_display_name",
                account.publisher_display_name.clone().into(),
            ),
            ("legal_name", account.legal_name.clone().into()),
            ("address", part("address")),
            ("primary_contact", part("primary_contact")),
            ("seller_contact", part("seller_contact")),
            ("company_approver", part("company_approver")),
        ]
    };
    of(before)
        .into_iter()
        .zip(of(after))
        .map(|((field, was), (_, is))| (field, was, is))
        .collect()
}

/// Adds what the account of an import lacks, or has wrong.
pub fn check_import(account: Option<&Account>, v: &mut Violations) {
    let Some(account) = account else { return };
    for (field, value) in [
        ("publisher_display_name", &account.publisher_display_name),
        ("legal_name", &account.legal_name),
    ] {
        if value.is_empty() {
            v.also(format!("account.{field}"), "is required");
        }
    }
    profile::check(account, "account", v);
    profile::check_country(account, "account", v);
}

/// The account, tenant and first manager of an import.
pub fn imported(
    request: ImportAccountRequest,
) -> Result<(Account, Uuid, Principal, Option<Principal>)> {
    let ImportAccountRequest {
        account,
        tenant,
        first_manager,
        owner,
        request_id: _,
        validate_only: _,
    } = request;
    let account = account.ok_or_else(|| Error::field("account", "is required"))?;
    let Some(Name::Tenant(tenant)) = Name::parse(&tenant) else {
        return Err(Error::field("tenant", "is no tenant"));
    };
    let manager = Name::parse(&first_manager)
        .and_then(Principal::of)
        .filter(|p| p.kind == Kind::User);
    let manager = manager.ok_or_else(|| Error::field("first_manager", "is no user"))?;
    let owner = match owner.as_str() {
        "" => None,
        name => Some(
            Name::parse(name)
                .and_then(Principal::of)
                .filter(|p| p.kind == Kind::Identity)
                .ok_or_else(|| Error::field("owner", "is no personal identity"))?,
        ),
    };
    Ok((account, tenant, manager, owner))
}

/// The kind of a member.
pub fn member_kind(kind: Kind) -> MemberKind {
    match kind {
        Kind::Application => MemberKind::Application,
        Kind::Group => MemberKind::Group,
        Kind::User | Kind::Identity => MemberKind::User,
    }
}

/// A member for the wire, with what it holds directly.
pub fn member(app: &App, row: &member::Model) -> Member {
    let member::Model {
        account_id,
        principal_id,
        principal_kind,
        tenant_id,
        roles,
        permissions,
        display_name,
        display_name_fold: _,
        user_name,
        user_name_fold: _,
        domain_prefix,
        active,
        synchronized,
        user_kind,
        create_time,
        update_time,
        version,
    } = row;
    let kind = Kind::from_number(*principal_kind).unwrap_or(Kind::User);
    let principal = Principal {
        kind,
        id: *principal_id,
        tenant: *tenant_id,
    };
    let set = Set {
        roles: *roles,
        single: Permissions::from_stored(permissions),
    };
    Member {
        name: Name::Member(*account_id, *principal_id).to_string(),
        principal: principal.name(),
        display_name: display_name.clone(),
        sign_in_name: if user_name.is_empty() {
            String::new()
        } else if *user_kind == GUEST || *user_kind == IDENTITY {
            // A guest signs in with the name of its home, a personal identity with its address.
            user_name.clone()
        } else {
            format!("{user_name}@{}", domain(app, domain_prefix))
        },
        rights: Some(set.to_rights()),
        effective_rights: effective(*account_id, set, "direct", &[], false),
        kind: member_kind(kind) as i32,
        tenant: if kind == Kind::Identity {
            String::new()
        } else {
            Name::Tenant(*tenant_id).to_string()
        },
        active: *active == 1,
        synchronized: *synchronized == 1,
        create_time: timestamp(*create_time),
        update_time: timestamp(*update_time),
        etag: etag(*version),
    }
}

/// Adds what groups give to a member.
pub fn add_given(member: &mut Member, account: Uuid, given: &Given) {
    let groups: Vec<String> = given.groups.iter().map(ToString::to_string).collect();
    if let Some(first) = groups.first() {
        let rights = effective(account, given.set, first, &groups, given.more);
        member.effective_rights.extend(rights);
    }
}

fn effective(
    account: Uuid,
    set: Set,
    source: &str,
    groups: &[String],
    more_groups: bool,
) -> Vec<EffectiveRight> {
    set.names(ScopeKey::Account(account))
        .into_iter()
        .map(|right| EffectiveRight {
            right,
            source: source.to_owned(),
            groups: groups.to_vec(),
            more_groups,
        })
        .collect()
}

/// An association for the wire.
pub fn association(app: &App, row: &association::Model) -> TenantAssociation {
    let association::Model {
        account_id,
        tenant_id,
        display_name,
        display_name_fold: _,
        domain_prefix,
        create_time,
        version,
    } = row;
    TenantAssociation {
        name: Name::TenantAssociation(*account_id, *tenant_id).to_string(),
        tenant: Name::Tenant(*tenant_id).to_string(),
        tenant_display_name: display_name.clone(),
        domain: domain(app, domain_prefix),
        create_time: timestamp(*create_time),
        etag: etag(*version),
    }
}

// ---- agreements

/// A version of an agreement to be published.
pub struct NewAgreement {
    pub kind: AgreementKind,
    pub texts: Vec<NewText>,
    pub effective_time: Option<Micros>,
    pub accept_by_time: Option<Micros>,
}

/// A text of it.
pub struct NewText {
    pub language: String,
    pub title: String,
    pub body: String,
}

/// Adds what is wrong with the texts and dates of a version as such.
pub fn check_agreement(req: &PublishAgreementRequest, v: &mut Violations) {
    let Some(agreement) = &req.agreement else {
        return;
    };
    let mut seen = BTreeSet::new();
    for (i, text) in agreement.texts.iter().enumerate().take(MOST_ITEMS_NAMED) {
        let field = format!("agreement.texts[{i}].language_code");
        if !is_language(&text.language_code) {
            v.also(field, "is no language tag (BCP 47) such as en or fr-CA");
        } else if !seen.insert(text.language_code.to_ascii_lowercase()) {
            v.also(field, "stands in the list before");
        }
    }
    let at = |t: &Option<Timestamp>| t.as_ref().map(micros);
    if let (Some(by), Some(from)) = (at(&agreement.accept_by_time), at(&agreement.effective_time))
        && by < from
    {
        v.also("agreement.accept_by_time", "lies before effective_time");
    }
}

/// Whether a text has the form of a language tag: letters, then parts of letters and digits.
fn is_language(tag: &str) -> bool {
    let mut parts = tag.split('-');
    let first = parts.next().unwrap_or("");
    (2..=3).contains(&first.len())
        && first.bytes().all(|b| b.is_ascii_alphabetic())
        && parts.all(|p| (1..=8).contains(&p.len()) && p.bytes().all(|b| b.is_ascii_alphanumeric()))
}

/// The version of a request.
pub fn new_agreement(agreement: Option<Agreement>) -> Result<NewAgreement> {
    let Agreement {
        name: _,
        kind,
        version: _,
        texts,
        effective_time,
        accept_by_time,
        state: _,
        placeholder: _,
        create_time: _,
        withdraw_time: _,
        etag: _,
    } = agreement.ok_or_else(|| Error::field("agreement", "is required"))?;
    let kind = AgreementKind::try_from(kind)
        .map_err(|_| Error::field("agreement.kind", "is no kind of agreement"))?;
    let texts = texts.into_iter().map(|text| {
        let AgreementText {
            language_code,
            title,
            body,
            sha256: _,
        } = text;
        NewText {
            language: language_code,
            title,
            body,
        }
    });
    Ok(NewAgreement {
        kind,
        texts: texts.collect(),
        effective_time: effective_time.as_ref().map(micros),
        accept_by_time: accept_by_time.as_ref().map(micros),
    })
}

/// A version for the wire, with those texts.
pub fn agreement(
    row: &agreement::Model,
    texts: Vec<agreement_text::Model>,
    state: AgreementState,
) -> Agreement {
    let agreement::Model {
        id,
        kind,
        number,
        is_placeholder,
        effective_time,
        accept_by_time,
        withdraw_time,
        create_time,
        version,
    } = row;
    Agreement {
        name: Name::Agreement(*id).to_string(),
        kind: i32::try_from(*kind).unwrap_or(0),
        version: *number,
        texts: texts.into_iter().map(agreement_text).collect(),
        effective_time: timestamp(*effective_time),
        accept_by_time: accept_by_time.and_then(timestamp),
        state: state as i32,
        placeholder: *is_placeholder,
        create_time: timestamp(*create_time),
        withdraw_time: withdraw_time.and_then(timestamp),
        etag: etag(*version),
    }
}

fn agreement_text(row: agreement_text::Model) -> AgreementText {
    let agreement_text::Model {
        agreement_id: _,
        language,
        title,
        body,
        sha256,
    } = row;
    AgreementText {
        language_code: language,
        title,
        body,
        sha256: hex(&sha256),
    }
}

/// An acceptance for the wire.
pub fn acceptance(row: &acceptance::Model) -> Acceptance {
    let acceptance::Model {
        id,
        scope_kind,
        scope_id,
        agreement_id,
        kind,
        number,
        language,
        title,
        sha256,
        accepted_by,
        create_time,
    } = row;
    let name = if *scope_kind == ScopeKey::Tenant(*scope_id).kind() {
        Name::TenantAcceptance(*scope_id, *id)
    } else {
        Name::Acceptance(*scope_id, *id)
    };
    Acceptance {
        name: name.to_string(),
        agreement: Name::Agreement(*agreement_id).to_string(),
        kind: i32::try_from(*kind).unwrap_or(0),
        version: *number,
        language_code: language.clone(),
        title: title.clone(),
        sha256: hex(sha256),
        accepted_by: accepted_by.clone(),
        create_time: timestamp(*create_time),
    }
}

/// Bytes as hexadecimal digits.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

// ---- the network

/// A membership to be made.
pub struct NewMembership {
    pub legal_name: String,
    pub country_code: String,
    pub website_uri: String,
    pub contact: Contact,
}

/// Adds what a membership's contact lacks.
pub fn check_membership(membership: Option<&NetworkMembership>, v: &mut Violations) {
    let contact = membership.and_then(|m| m.contact.as_ref());
    for field in missing_of_contact(contact) {
        v.also(format!("network_membership.contact.{field}"), "is required");
    }
}

/// What a contact lacks; nothing if there is none, which is told by itself.
pub fn missing_of_contact(contact: Option<&Contact>) -> Vec<&'static str> {
    let Some(contact) = contact else {
        return Vec::new();
    };
    let Contact {
        display_name,
        email,
        phone_number,
    } = contact;
    [
        ("display_name", display_name),
        ("email", email),
        ("phone_number", phone_number),
    ]
    .into_iter()
    .filter(|(_, value)| value.is_empty())
    .map(|(field, _)| field)
    .collect()
}

/// The membership of a request.
pub fn new_membership(membership: Option<NetworkMembership>) -> Result<NewMembership> {
    let NetworkMembership {
        name: _,
        partner_id: _,
        legal_name,
        country_code,
        website_uri,
        contact,
        joined_by: _,
        account: _,
        create_time: _,
        update_time: _,
        etag: _,
        brought: _,
    } = membership.ok_or_else(|| Error::field("network_membership", "is required"))?;
    Ok(NewMembership {
        legal_name,
        country_code,
        website_uri,
        contact: contact.unwrap_or_default(),
    })
}

/// A membership for the wire, without what it brings.
pub fn membership(row: &network_membership::Model) -> NetworkMembership {
    let joined_by = network::joined_by(row).name();
    let network_membership::Model {
        id,
        partner_id,
        legal_name,
        country_code,
        website_uri,
        contact_name,
        contact_email,
        contact_phone,
        joined_by_kind: _,
        joined_by_id: _,
        joined_by_tenant_id: _,
        account_id,
        create_time,
        update_time,
        version,
    } = row;
    NetworkMembership {
        name: Name::NetworkMembership(*id).to_string(),
        partner_id: partner_id.clone(),
        legal_name: legal_name.clone(),
        country_code: country_code.clone(),
        website_uri: website_uri.clone(),
        contact: Some(Contact {
            display_name: contact_name.clone(),
            email: contact_email.clone(),
            phone_number: contact_phone.clone(),
        }),
        joined_by,
        account: account_id.map_or_else(String::new, |id| Name::Account(id).to_string()),
        create_time: timestamp(*create_time),
        update_time: timestamp(*update_time),
        etag: etag(*version),
        brought: None,
    }
}

/// A contact in proto3's JSON, for events.
pub fn contact_json(contact: Option<&Contact>) -> serde_json::Value {
    contact.map_or(serde_json::Value::Null, |contact| {
        let Contact {
            display_name,
            email,
            phone_number,
        } = contact;
        serde_json::json!({ "display_name": display_name, "email": email, "phone_number": phone_number })
    })
}

// ---- verification

/// A step; one whose link ran out waits for the account.
pub fn verification_step(row: &verification_step::Model, now: Micros) -> VerificationStep {
    let verification_step::Model {
        account_id: _,
        kind,
        state,
        reason,
        link_expire_time,
        start_time,
        end_time,
        asked,
        reviewed: _,
        rejected_by: _,
        appeal_until,
        appealed: _,
        email_domain: _,
    } = row;
    let ran_out = *state == VerificationStepState::InProgress as i64
        && link_expire_time.is_some_and(|at| at <= now);
    let is_rejected = *state == VerificationStepState::Rejected as i64;
    let (code, words) = if ran_out {
        (VerificationStepReason::LinkExpired, String::new())
    } else if is_rejected && *kind != VerificationStepKind::Email as i64 {
        // What people said, whatever it is.
        (VerificationStepReason::Refused, reason.clone())
    } else {
        (reason_code(reason), String::new())
    };
    VerificationStep {
        kind: i32::try_from(*kind).unwrap_or(0),
        state: if ran_out {
            VerificationStepState::ActionRequired as i32
        } else {
            i32::try_from(*state).unwrap_or(0)
        },
        reason_code: code as i32,
        reason: words,
        link_expire_time: link_expire_time.and_then(timestamp),
        start_time: start_time.and_then(timestamp),
        end_time: end_time.and_then(timestamp),
        asked: asked.clone(),
        appeal_expire_time: appeal_until.filter(|at| now < *at).and_then(timestamp),
        to_do: String::new(),
        method: String::new(),
        documents: Vec::new(),
        last_decision: None,
    }
}

/// The code of a step that stands as it does by nobody's words.
fn reason_code(stored: &str) -> VerificationStepReason {
    match stored {
        "DOCUMENTS" => VerificationStepReason::Documents,
        "REGISTER" => VerificationStepReason::Register,
        "COMPANY_APPROVAL" => VerificationStepReason::CompanyApproval,
        "MORE_REQUESTED" => VerificationStepReason::MoreRequested,
        "NOT_OURS" => VerificationStepReason::NotOurs,
        _ => VerificationStepReason::Unspecified,
    }
}

/// A step of an account that was never submitted: it hasn't started; of an imported one it was taken for verified.
pub fn step_without_row(row: &account::Model, kind: VerificationStepKind) -> VerificationStep {
    let (state, code) = if row.opened_by.is_empty() {
        (
            VerificationStepState::Verified,
            VerificationStepReason::Imported,
        )
    } else {
        (
            VerificationStepState::NotStarted,
            VerificationStepReason::Unspecified,
        )
    };
    VerificationStep {
        kind: kind as i32,
        state: state as i32,
        reason_code: code as i32,
        ..VerificationStep::default()
    }
}

/// What reviewers decided of a step, for the account.
pub fn verification_decision(row: &review::Model, appeal: bool) -> VerificationDecision {
    VerificationDecision {
        decision: i32::try_from(row.decision).unwrap_or(0),
        reason: row.reason.clone(),
        decide_time: row.decide_time.and_then(timestamp),
        appeal,
    }
}

// ---- reviews

/// A review for the wire, without what takes other reviewers to know. One that was claimed waits again once the claim is over.
pub fn review(
    app: &App,
    row: &review::Model,
    company: Option<&account::Model>,
    now: Micros,
) -> Review {
    let review::Model {
        id,
        kind,
        account_id,
        subject,
        submitter,
        note,
        state: _,
        claimed_by,
        claim_expire_time,
        more_requested,
        not_by: _,
        approvals_needed,
        first_approved_by,
        decided: _,
        decision,
        reason,
        decided_by,
        decide_time,
        create_time,
        update_time,
        version,
        other_id: _,
    } = row;
    let state = super::review::state_at(row, now);
    let is_claimed = state == ReviewState::Claimed as i64;
    let user = |id: Option<Uuid>| {
        id.map_or_else(String::new, |id| {
            Name::User(app.operator_tenant(), id).to_string()
        })
    };
    Review {
        name: Name::Review(*id).to_string(),
        kind: i32::try_from(*kind).unwrap_or(0),
        state: i32::try_from(state).unwrap_or(0),
        account: Name::Account(*account_id).to_string(),
        subject: subject.clone(),
        publisher_display_name: company
            .map_or_else(String::new, |c| c.publisher_display_name.clone()),
        legal_name: company.map_or_else(String::new, |c| c.legal_name.clone()),
        submitter: submitter.clone(),
        note: note.clone(),
        claimed_by: user(claimed_by.filter(|_| is_claimed)),
        claim_expire_time: claim_expire_time.filter(|_| is_claimed).and_then(timestamp),
        more_requested: more_requested.clone(),
        approvals_needed: i32::try_from(*approvals_needed).unwrap_or(0),
        first_approved_by: user(*first_approved_by),
        decision: i32::try_from(*decision).unwrap_or(0),
        reason: reason.clone(),
        decided_by: decided_by.clone(),
        decide_time: decide_time.and_then(timestamp),
        no_other_reviewer: false,
        create_time: timestamp(*create_time),
        update_time: timestamp(*update_time),
        etag: etag(*version),
        company: None,
        documents: Vec::new(),
    }
}

/// What a reviewer holds documents against.
pub fn reviewed_company(row: &account::Model) -> ReviewedCompany {
    let profile = Profile::from_stored(&row.profile);
    ReviewedCompany {
        country_code: row.country_code.clone(),
        address: profile.address.map(Into::into),
        primary_contact: profile.primary_contact.map(Into::into),
        company_approver: profile.company_approver.map(Into::into),
    }
}

/// An enrolment, as the company approver sees it.
pub fn enrolment_for_approval(
    row: &account::Model,
    signatory: Option<Summary>,
    membership: Option<network_membership::Model>,
) -> EnrolmentForApproval {
    let Profile {
        address,
        primary_contact,
        seller_contact,
        company_approver,
    } = Profile::from_stored(&row.profile);
    let seller = seller_contact.unwrap_or_default();
    let (partner_id, website_uri) =
        membership.map_or_else(Default::default, |m| (m.partner_id, m.website_uri));
    EnrolmentForApproval {
        account: Name::Account(row.id).to_string(),
        publisher_display_name: row.publisher_display_name.clone(),
        legal_name: row.legal_name.clone(),
        country_code: row.country_code.clone(),
        address: address.map(Into::into),
        primary_contact: primary_contact.map(Into::into),
        seller_contact: seller.contact.map(Into::into),
        seller_address: seller.address.map(Into::into),
        company_approver: company_approver.map(Into::into),
        submit_time: row.submit_time.and_then(timestamp),
        accepted_agreements: Vec::new(),
        signatory: signatory.map(|user| Signatory {
            principal: row.signatory.clone(),
            display_name: user.display_name,
            user_name: user.user_name,
        }),
        account_type: i32::try_from(row.r#type).unwrap_or(0),
        tenants: Vec::new(),
        partner_id,
        website_uri,
        programs: program::of_bits(row.programs),
    }
}

/// An ownership for the wire.
pub fn ownership(row: &ownership::Model) -> Ownership {
    let ownership::Model {
        id: _,
        account_id,
        is_transfer,
        email,
        email_fold: _,
        identity_id,
        invited_by_kind: _,
        invited_by_id: _,
        invited_by_tenant_id: _,
        state,
        expire_time,
        begin_time,
        finance_from,
        create_time,
        update_time,
    } = row;
    Ownership {
        account: Name::Account(*account_id).to_string(),
        email: email.clone(),
        identity: identity_id.map_or_else(String::new, |id| Name::Identity(id).to_string()),
        state: i32::try_from(*state).unwrap_or(0),
        transfer: *is_transfer,
        expire_time: timestamp(*expire_time),
        begin_time: begin_time.and_then(timestamp),
        finance_begin_time: finance_from.and_then(timestamp),
        create_time: timestamp(*create_time),
        update_time: timestamp(*update_time),
    }
}

/// The owner of an account for the wire; `user` is the identity. Masked for the operator's people.
pub fn account_owner(
    id: Uuid,
    user: &Summary,
    finance_from: Option<Micros>,
    masked: bool,
) -> AccountOwner {
    AccountOwner {
        identity: Name::Identity(id).to_string(),
        display_name: user.display_name.clone(),
        email: if masked {
            mask_email(&user.user_name)
        } else {
            user.user_name.clone()
        },
        finance_begin_time: finance_from.and_then(timestamp),
    }
}

/// An ownership as the operator's people see it.
pub fn masked_ownership(mut ownership: Ownership) -> Ownership {
    ownership.email = mask_email(&ownership.email);
    ownership
}
