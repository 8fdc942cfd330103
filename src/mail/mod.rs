//! Mails (COM-15, COM-20): queued in the transaction that causes them, sealed, since they may carry secrets; sent by the relay.

mod language;
pub mod relay;
pub mod render;

use std::collections::BTreeMap;

use sea_orm::Value;
use uuid::Uuid;

use crate::{
    app::Tx,
    error::{Error, Language, Result},
    names::Name,
    store::sql,
};

/// The kinds of mails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Template {
    /// To a person whose password an admin has reset.
    PasswordReset,
    /// To those who hold the same right as a person whose rights sleep.
    RightsAsleep,
    /// To the old recovery address.
    RecoveryAddressChanged,
    /// To the contact of a new tenant.
    TenantCreated,
    /// To somebody who is invited as a guest, with the link.
    Invitation,
    /// To a guest who accepted, and got less than was promised.
    RightsWithheld,
    /// To the inviter of that guest.
    RightsWithheldInviter,
    /// To the address with which somebody signs up.
    IdentityConfirmation,
    /// To the holder of an address with which somebody signs up, or to which somebody wants to change.
    AddressInUse,
    /// To the address to which a person wants to change.
    EmailChange,
    /// To the address that a person had.
    EmailChanged,
    /// To a person who closed the identity.
    IdentityClosed,
    /// To the recovery address of a person who forgot the password.
    PasswordRecovery,
    /// To the address that a partner gave of somebody who holds something, in place of such a link.
    PasswordRecoveryRefused,
    /// To a person whose password was set by a mailed link.
    PasswordRecovered,
    /// To those who run a tenant in which a key is about to expire.
    KeyExpiring,
    /// To the global admins of a deleted tenant, with the link that undoes it.
    TenantDeleted,
    /// To the contact of a tenant that nobody has used, before it is purged.
    TenantUnused,
    /// To the primary contact of an enrolment that was submitted, with the link.
    ContactConfirmation,
    /// To the company approver of an enrolment, with the link.
    CompanyApproval,
    /// To the opener and the reviewers of an enrolment whose contact has nothing to do with it.
    EnrolmentDisowned,
    /// To the global admins of a tenant, whom somebody of it asks to open an account.
    GlobalAdminAsked,
    /// To the opener of a draft that nobody has touched.
    DraftIdle,
    /// To the primary contact of an account that is active now.
    AccountActive,
    /// To the primary contact of an account of which a reviewer asks for more.
    StepAction,
    /// To the primary contact of an account of which a step was rejected.
    StepRejected,
    /// To the primary contact of an account that was rejected for good.
    AccountRejected,
    /// To the people of an account that was closed.
    AccountClosed,
    /// To the primary contact of an account that asked to be in a programme, and isn't active yet.
    ProgramSubmitted,
    /// To the primary contact of an active account that is in a programme from now on.
    ProgramEnrolled,
    /// To the global admins of a tenant, of a domain whose record is gone.
    DomainLapsed,
    /// To the address of an identity that is to own an account.
    OwnershipInvitation,
    /// To the company approver, who is to consent to an owner, with the link.
    OwnershipConsent,
    /// To those who can stop an owner, with the link.
    OwnershipNotice,
    /// To an identity that owns an account from now on, and to who invited it.
    OwnershipBegun,
    /// To an identity that will not own an account, and to who invited it.
    OwnershipEnded,
    /// To those who run what somebody is to come back to, with the link that stops it.
    RecoveryAnnounced,
    /// The same where a case was stopped before: the operator only stops it.
    RecoveryAnnouncedAgain,
    /// To the address that was proven in a case of recovery, with the link.
    RecoveryLink,
    /// To the people of an account whose publisher name somebody claims.
    NameClaimFiled,
    /// To both sides of a claim on a publisher name that was refused.
    NameClaimRefused,
    /// To whoever claimed a publisher name that another account has to give up.
    NameClaimGranted,
    /// To the people of an account that has to give up its publisher name.
    NameClaimLost,
    /// To the people of an account that is suspended, since it hasn't given up its publisher name.
    NameClaimOverdue,
    /// To whoever claimed a publisher name that is free now.
    NameClaimKept,
    /// To both sides of a claim on a publisher name that ended without one who takes the name.
    NameClaimEnded,
    /// To the address on file of a membership that somebody wants to bring, with the link.
    MembershipClaim,
    /// To somebody of a customer's, with the link that sets the password of one who runs its tenant, and whom a partner made or reset.
    PartnersCredential,
    /// To the global admins of a customer's tenant in which a partner made another one.
    PartnerMadeAdmin,
    /// To the global admins of a customer's tenant in which a partner reset the password of one who holds something.
    PartnerResetAdmin,
    /// To the global admins of a customer's tenant in which a partner disabled one who holds something.
    PartnerDisabledAdmin,
    /// To the customer that a partner asks for a relationship.
    RelationshipRequested,
    /// To both sides of a relationship whose term is over.
    RelationshipExpired,
}

impl Template {
    /// All of them.
    pub const ALL: [Self; 53] = [
        Self::PasswordReset,
        Self::RightsAsleep,
        Self::RecoveryAddressChanged,
        Self::TenantCreated,
        Self::Invitation,
        Self::RightsWithheld,
        Self::RightsWithheldInviter,
        Self::IdentityConfirmation,
        Self::AddressInUse,
        Self::EmailChange,
        Self::EmailChanged,
        Self::IdentityClosed,
        Self::PasswordRecovery,
        Self::PasswordRecoveryRefused,
        Self::PasswordRecovered,
        Self::KeyExpiring,
        Self::TenantDeleted,
        Self::TenantUnused,
        Self::ContactConfirmation,
        Self::CompanyApproval,
        Self::EnrolmentDisowned,
        Self::GlobalAdminAsked,
        Self::DraftIdle,
        Self::AccountActive,
        Self::StepAction,
        Self::StepRejected,
        Self::AccountRejected,
        Self::AccountClosed,
        Self::ProgramSubmitted,
        Self::ProgramEnrolled,
        Self::DomainLapsed,
        Self::OwnershipInvitation,
        Self::OwnershipConsent,
        Self::OwnershipNotice,
        Self::OwnershipBegun,
        Self::OwnershipEnded,
        Self::RecoveryAnnounced,
        Self::RecoveryAnnouncedAgain,
        Self::RecoveryLink,
        Self::NameClaimFiled,
        Self::NameClaimRefused,
        Self::NameClaimGranted,
        Self::NameClaimLost,
        Self::NameClaimOverdue,
        Self::NameClaimKept,
        Self::NameClaimEnded,
        Self::MembershipClaim,
        Self::PartnersCredential,
        Self::PartnerMadeAdmin,
        Self::PartnerResetAdmin,
        Self::PartnerDisabledAdmin,
        Self::RelationshipRequested,
        Self::RelationshipExpired,
    ];

    /// Its name, as in files and in lists.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::PasswordReset => "password_reset",
            Self::RightsAsleep => "rights_asleep",
            Self::RecoveryAddressChanged => "recovery_address_changed",
            Self::TenantCreated => "tenant_created",
            Self::Invitation => "invitation",
            Self::RightsWithheld => "rights_withheld",
            Self::RightsWithheldInviter => "rights_withheld_inviter",
            Self::IdentityConfirmation => "identity_confirmation",
            Self::AddressInUse => "address_in_use",
            Self::EmailChange => "email_change",
            Self::EmailChanged => "email_changed",
            Self::IdentityClosed => "identity_closed",
            Self::PasswordRecovery => "password_recovery",
            Self::PasswordRecoveryRefused => "password_recovery_refused",
            Self::PasswordRecovered => "password_recovered",
            Self::KeyExpiring => "key_expiring",
            Self::TenantDeleted => "tenant_deleted",
            Self::TenantUnused => "tenant_unused",
            Self::ContactConfirmation => "contact_confirmation",
            Self::CompanyApproval => "company_approval",
            Self::EnrolmentDisowned => "enrolment_disowned",
            Self::GlobalAdminAsked => "global_admin_asked",
            Self::DraftIdle => "draft_idle",
            Self::AccountActive => "account_active",
            Self::StepAction => "step_action",
            Self::StepRejected => "step_rejected",
            Self::AccountRejected => "account_rejected",
            Self::AccountClosed => "account_closed",
            Self::ProgramSubmitted => "program_submitted",
            Self::ProgramEnrolled => "program_enrolled",
            Self::DomainLapsed => "domain_lapsed",
            Self::OwnershipInvitation => "ownership_invitation",
            Self::OwnershipConsent => "ownership_consent",
            Self::OwnershipNotice => "ownership_notice",
            Self::OwnershipBegun => "ownership_begun",
            Self::OwnershipEnded => "ownership_ended",
            Self::RecoveryAnnounced => "recovery_announced",
            Self::RecoveryAnnouncedAgain => "recovery_announced_again",
            Self::RecoveryLink => "recovery_link",
            Self::NameClaimFiled => "name_claim_filed",
            Self::NameClaimRefused => "name_claim_refused",
            Self::NameClaimGranted => "name_claim_granted",
            Self::NameClaimLost => "name_claim_lost",
            Self::NameClaimOverdue => "name_claim_overdue",
            Self::NameClaimKept => "name_claim_kept",
            Self::NameClaimEnded => "name_claim_ended",
            Self::MembershipClaim => "membership_claim",
            Self::PartnersCredential => "partners_credential",
            Self::PartnerMadeAdmin => "partner_made_admin",
            Self::PartnerResetAdmin => "partner_reset_admin",
            Self::PartnerDisabledAdmin => "partner_disabled_admin",
            Self::RelationshipRequested => "relationship_requested",
            Self::RelationshipExpired => "relationship_expired",
        }
    }
}

/// Queues a mail; it goes out once the transaction is committed. Its language is that of the caller who causes it; of a job's mails, and
/// those of the operator's staff, the recipient's (`language.rs`).
///
/// # Errors
/// Those of the database.
pub async fn queue(
    tx: &mut Tx,
    template: Template,
    to: &str,
    object: Name,
    values: &[(&str, String)],
) -> Result<()> {
    if to.is_empty() || tx.validate_only() {
        return Ok(());
    }
    let language = language::of(tx, to, object).await?;
    queue_in(tx, language, template, to, object, values).await
}

/// Queues a mail in a language, where it isn't the caller's.
///
/// # Errors
/// Those of the database.
pub async fn queue_in(
    tx: &mut Tx,
    language: Language,
    template: Template,
    to: &str,
    object: Name,
    values: &[(&str, String)],
) -> Result<()> {
    if to.is_empty() || tx.validate_only() {
        return Ok(());
    }
    let app = tx.app().clone();
    let id = tx.id();
    let values: BTreeMap<&str, &str> = values.iter().map(|(k, v)| (*k, v.as_str())).collect();
    let plain = serde_json::to_vec(&values).map_err(|e| Error::internal(e.to_string()))?;
    let sealed = app.keys.seal(&place(id), &plain)?;
    let sql = "INSERT INTO mails (id, recipient, template, language, object, sealed_values, state, attempt_count, last_error, create_time, \
               next_attempt_time, version) VALUES ($1, $2, $3, $4, $5, $6, 1, 0, '', $7, $7, 1)";
    let values: [Value; 7] = [
        id.into(),
        to.into(),
        template.name().into(),
        language.tag().into(),
        object.to_string().into(),
        Value::Bytes(Some(sealed)),
        tx.now().into(),
    ];
    sql::execute(tx.db(), sql, values).await?;
    Ok(())
}

/// Where a mail's values lie, which binds the seal.
fn place(id: Uuid) -> String {
    format!("mails.sealed_values/{id}")
}

/// The language of a tag that was kept.
#[must_use]
pub fn language_of(tag: &str) -> Language {
    if tag == "fr" {
        Language::French
    } else {
        Language::English
    }
}
