//! AccountService, programmes (ACC-9): what an account is enrolled in, each with an agreement of its own.
//!
//! An account is in a programme or not; the bits in its row say which. Enrolling takes effect at once, but as long as the account is
//! `PENDING`, its state keeps it from trading. What a method demands of programmes is declared beside its rule, and held against the account
//! by `access/account_state.rs`.

use sea_orm::{ActiveModelTrait, EntityTrait, IntoActiveModel, Set};

use super::{
    acceptance::{self, Consent},
    agreement, enrolment,
    entity::account::{Entity, Model},
    profile::{self, Profile},
    requirement, wire,
};
use crate::{
    access::{
        account_state::{self, agreement_name},
        grants,
        scope::Proof,
    },
    app::Tx,
    check::Violations,
    error::{Error, Reason, Result},
    mail::{self, Template},
    names::Name,
    proto::{
        access::{AgreementKind, Program},
        account::{
            Account, AccountState, AccountType, AgreementConsent, EnrollProgramRequest,
            LeaveProgramRequest, LeaveProgramResponse, ProfileChanges,
        },
    },
    store::{outbox::Event, scope_key::ScopeKey, update},
};

/// All programmes, each with its agreement.
pub(super) const ALL: [(Program, AgreementKind); 3] = [
    (Program::Marketplace, AgreementKind::Publisher),
    (Program::Collaborate, AgreementKind::Collaborate),
    (Program::Referrals, AgreementKind::Referrals),
];
/// Names of what ended that an answer tells.
const MOST_ENDED_TOLD: usize = 100;

/// The programmes of an account's bits, for the wire.
pub(super) fn of_bits(bits: i64) -> Vec<i32> {
    let mut programs: Vec<i32> = ALL
        .iter()
        .filter(|(program, _)| bits & account_state::bit(*program) != 0)
        .map(|(program, _)| *program as i32)
        .collect();
    programs.sort_unstable();
    programs
}

/// The name of a programme on the wire, without its prefix.
fn name_of(program: Program) -> &'static str {
    program.as_str_name().trim_start_matches("PROGRAM_")
}

/// The account as the changes have it, and the fields that they set.
fn changed(changes: ProfileChanges) -> (Account, Vec<&'static str>) {
    let ProfileChanges {
        publisher_display_name,
        primary_contact,
        seller_contact,
        company_approver,
    } = changes;
    let fields = [
        ("publisher_display_name", !publisher_display_name.is_empty()),
        ("primary_contact", primary_contact.is_some()),
        ("seller_contact", seller_contact.is_some()),
        ("company_approver", company_approver.is_some()),
    ];
    let account = Account {
        publisher_display_name,
        primary_contact,
        seller_contact,
        company_approver,
        ..Account::default()
    };
    let set = fields.into_iter().filter(|(_, set)| *set);
    (account, set.map(|(field, _)| field).collect())
}

pub(crate) fn check_enroll_program(req: &EnrollProgramRequest, v: &mut Violations) {
    if let Some(changes) = &req.changes {
        profile::check(&changed(changes.clone()).0, "changes", v);
    }
}

/// The account that was proven, of which the tenant must be one.
async fn of_tenant(tx: &Tx, proof: &Proof, etag: &str) -> Result<Model> {
    let (account, tenant) = (proof.account()?.id(), proof.tenant()?.id());
    let row = Entity::find_by_id(account).one(tx.db()).await?;
    let row = row.ok_or_else(|| {
        Error::not_found("entente.dev/Account", Name::Account(account).to_string())
    })?;
    if !grants::is_associated(tx.db(), account, tenant).await? {
        return Err(Error::field("tenant", "is no tenant of this account"));
    }
    update::check_etag(etag, row.version)?;
    Ok(row)
}

/// Enrols an account in a programme.
///
/// # Errors
/// `INDIVIDUAL_ACCOUNTS_DEPRECATED`, `ALREADY_ENROLLED`, `WRONG_STATE` for a draft, `AGREEMENT_REQUIRED`, `ENROLMENT_INCOMPLETE`,
/// `ETAG_MISMATCH`; those of accepting and of changing the profile.
pub async fn enroll_program(
    tx: &mut Tx,
    proof: Proof,
    req: EnrollProgramRequest,
) -> Result<Account> {
    let program = req.program();
    let EnrollProgramRequest {
        name: _,
        tenant: _,
        program: _,
        agreement,
        changes,
        etag,
        request_id: _,
        validate_only: _,
    } = req;
    let mut row = of_tenant(tx, &proof, &etag).await?;
    if row.r#type == AccountType::Individual as i64 {
        return Err(Error::precondition(Reason::IndividualAccountsDeprecated));
    }
    if row.state == AccountState::Draft as i64 {
        return Err(account_state::wrong_state(row.state));
    }
    if row.programs & account_state::bit(program) != 0 {
        let text = "is one that the account is in";
        return Err(Error::exists(Reason::AlreadyEnrolled, "program", text));
    }
    if let Some(changes) = changes {
        let (new, fields) = changed(changes);
        row = enrolment::change(tx, &row, &new, &fields).await?;
    }
    accepted(tx, &row, program, agreement).await?;
    has_what_is_needed(&row, program)?;
    let row = put(tx, row, program, true).await?;
    tx.emit(
        Event::new("entente.account.v1.ProgramEnrolled", Name::Account(row.id))
            .with("program", program as i32),
    );
    let template = if row.state == AccountState::Active as i64 {
        Template::ProgramEnrolled
    } else {
        Template::ProgramSubmitted
    };
    tell(tx, &row, program, template).await?;
    Ok(wire::account(&row))
}

/// The current version of the programme's agreement is accepted, now or before.
async fn accepted(
    tx: &mut Tx,
    row: &Model,
    program: Program,
    consent: Option<AgreementConsent>,
) -> Result<()> {
    let kind = agreement_of(program)?;
    if let Some(consent) = consent {
        let AgreementConsent {
            version,
            language_code,
        } = consent;
        let consent = Consent {
            kind,
            number: version,
            language: &language_code,
            field: "agreement.language_code",
        };
        acceptance::accept(tx, ScopeKey::Account(row.id), consent).await?;
        return Ok(());
    }
    let current = agreement::current(tx.db(), tx.now()).await?;
    let current = current.get(&(kind as i64)).map_or(0, |c| c.number);
    let accepted = requirement::accepted(tx.db(), row, kind).await?;
    if accepted.is_some_and(|number| number >= current) {
        return Ok(());
    }
    Err(Error::precondition(Reason::AgreementRequired)
        .with("agreement", agreement_name(kind))
        .with("version", current.to_string()))
}

fn agreement_of(program: Program) -> Result<AgreementKind> {
    let found = ALL.iter().find(|(of, _)| *of == program);
    found
        .map(|(_, kind)| *kind)
        .ok_or_else(|| Error::field("program", "is required"))
}

/// Imported accounts may lack contacts: all that is missing is named.
fn has_what_is_needed(row: &Model, program: Program) -> Result<()> {
    let is_needed = |field: &String| {
        let is_of_all = field == "publisher_display_name" || field.starts_with("primary_contact");
        is_of_all || (program == Program::Marketplace && field.starts_with("seller_contact"))
    };
    let missing = profile::missing(&wire::account(row));
    let missing: Vec<String> = missing.into_iter().filter(is_needed).collect();
    if missing.is_empty() {
        return Ok(());
    }
    let fields = missing
        .iter()
        .map(|field| (format!("changes.{field}"), "is needed".to_owned()));
    Err(Error::precondition(Reason::EnrolmentIncomplete)
        .with("missing", missing.join(", "))
        .with_fields(fields.collect()))
}

/// Puts an account into a programme, or out of it.
async fn put(tx: &mut Tx, row: Model, program: Program, is_in: bool) -> Result<Model> {
    let bit = account_state::bit(program);
    let programs = if is_in {
        row.programs | bit
    } else {
        row.programs & !bit
    };
    let version = row.version + 1;
    let mut changed = row.into_active_model();
    changed.programs = Set(programs);
    changed.update_time = Set(tx.now());
    changed.version = Set(version);
    Ok(changed.update(tx.db()).await?)
}

/// Mails to the primary contact (ACC-8).
async fn tell(tx: &mut Tx, row: &Model, program: Program, template: Template) -> Result<()> {
    let contact = Profile::from_stored(&row.profile)
        .primary_contact
        .unwrap_or_default();
    let name = Name::Account(row.id);
    let values = [
        ("name", contact.display_name),
        ("publisher", row.publisher_display_name.clone()),
        ("legal_name", row.legal_name.clone()),
        ("program", name_of(program).to_owned()),
        ("account", name.to_string()),
    ];
    mail::queue(tx, template, &contact.email, name, &values).await
}

/// The account became active: what it asked to be in, it is in from now on.
pub(super) async fn activated(tx: &mut Tx, row: &Model) -> Result<()> {
    for (program, _) in ALL {
        if row.programs & account_state::bit(program) != 0 {
            tell(tx, row, program, Template::ProgramEnrolled).await?;
        }
    }
    Ok(())
}

/// Ends what an account has in a programme; gives the names.
async fn end(tx: &mut Tx, row: &Model, program: Program) -> Result<Vec<Name>> {
    let mut ended = Vec::new();
    for ending in tx.app().endings {
        ended.extend(ending(tx, row.id, program).await?);
    }
    Ok(ended)
}

/// Ends what an account has in all of its programmes: it is closed, or rejected for good.
///
/// # Errors
/// Those of the database.
pub(super) async fn end_all(tx: &mut Tx, row: &Model) -> Result<()> {
    for (program, _) in ALL {
        if row.programs & account_state::bit(program) != 0 {
            end(tx, row, program).await?;
        }
    }
    Ok(())
}

/// Leaves a programme: what the account has there ends.
///
/// # Errors
/// `PROGRAM_NOT_ENROLLED`, `ETAG_MISMATCH`.
pub async fn leave_program(
    tx: &mut Tx,
    proof: Proof,
    req: LeaveProgramRequest,
) -> Result<LeaveProgramResponse> {
    let program = req.program();
    let row = of_tenant(tx, &proof, &req.etag).await?;
    if row.programs & account_state::bit(program) == 0 {
        return Err(
            Error::precondition(Reason::ProgramNotEnrolled).with("program", name_of(program))
        );
    }
    let ended = end(tx, &row, program).await?;
    let ended_count = i32::try_from(ended.len()).unwrap_or(i32::MAX);
    let row = put(tx, row, program, false).await?;
    tx.emit(
        Event::new("entente.account.v1.ProgramLeft", Name::Account(row.id))
            .with("program", program as i32)
            .with("ended_count", ended_count),
    );
    let told = ended.iter().take(MOST_ENDED_TOLD);
    Ok(LeaveProgramResponse {
        account: Some(wire::account(&row)),
        ended: told.map(ToString::to_string).collect(),
        ended_count,
    })
}
