//! Accepting invitations: the guest is tied to its home, and gets what the inviter may still give (INV-2, INV-4, INV-5).

use sea_orm::{
    ActiveModelTrait, ColumnTrait, ConnectionTrait, EntityTrait, IntoActiveModel, QueryFilter, Set,
    Value,
};

use super::{
    ACTIVE, DELETED, INVITED, address, asleep, domain,
    entity::{
        invitation::{Entity, Model},
        tenant as tenants, user as users,
    },
    identity::{self, NewIdentity},
    invitation::{ACCEPTED, PENDING, answer, inviter_name, name},
    password, session, tenant, user_change, wire,
};
use crate::{
    access::{
        grants,
        link::{self, Link},
        principal::Principal,
        scope::{Proof, TokenScope},
    },
    app::{App, Outside, Tx},
    error::{Error, Reason, Result},
    mail::{self, Template},
    names::Name,
    proto::directory::{AcceptInvitationRequest, AcceptInvitationResponse},
    store::{list::fold, outbox::Event, scope_key::ScopeKey, sql},
};

/// How an invitation can be accepted.
enum Way {
    /// The caller is who holds the address.
    Tie(Box<users::Model>),
    /// Nobody holds it yet: a personal identity is made.
    Make,
    /// Not by this caller.
    Refused(Error),
}

/// An invitation whose token was proven, with its tenant; none if it can't be accepted any more.
async fn open<C: ConnectionTrait>(db: &C, link: Link) -> Result<Option<(Model, tenants::Model)>> {
    let row = Entity::find_by_id(link.subject).one(db).await?;
    let Some(row) =
        row.filter(|r| r.state == PENDING && ScopeKey::Tenant(r.tenant_id) == link.scope)
    else {
        return Ok(None);
    };
    let tenant = tenant::by_id(db, row.tenant_id).await?;
    Ok((tenant.state == ACTIVE).then_some((row, tenant)))
}

/// Who the caller has to be (INV-5): whose credential the address has, which is one at most.
async fn way<C: ConnectionTrait>(
    db: &C,
    app: &App,
    row: &Model,
    caller: Option<Principal>,
) -> Result<Way> {
    Ok(match holder(db, app, &row.email).await? {
        None if address::is_work_address(db, app, &row.email).await? => {
            Way::Refused(Error::precondition(Reason::WorkAddress))
        }
        None => Way::Make,
        Some(user) if caller != Some(user_change::principal(&user)) => {
            Way::Refused(Error::precondition(Reason::SignInAsHolder))
        }
        // Made in the tenant itself after the invitation was sent.
        Some(user) if user.tenant_id == row.tenant_id => Way::Refused(here_already()),
        Some(user) => Way::Tie(Box::new(user)),
    })
}

/// Who signs in with an address: the user of a tenant whose sign-in name it is, or the personal identity of that address; else, where the
/// address lies in a domain that a tenant has verified, that tenant's user of that name.
pub(super) async fn holder<C: ConnectionTrait>(
    db: &C,
    app: &App,
    email: &str,
) -> Result<Option<users::Model>> {
    let (prefix, user_name) = session::split_sign_in_name(app, &fold(email));
    let sql = "SELECT u.* FROM users u JOIN tenants t ON t.id = u.tenant_id AND t.domain_prefix = $1 \
               WHERE u.user_name_fold = $2 AND u.state <> 3 AND u.kind <> 2";
    let values: [Value; 2] = [prefix.into(), user_name.into()];
    if let Some(user) = sql::one::<users::Model, _>(db, sql, values).await? {
        return Ok(Some(user));
    }
    let Some(tenant) = domain::verified_tenant_of(db, email).await? else {
        return Ok(None);
    };
    let (local, _) = email.rsplit_once('@').unwrap_or((email, ""));
    let sql = "SELECT u.* FROM users u JOIN tenants t ON t.id = u.tenant_id AND t.state = 1 \
               WHERE u.tenant_id = $1 AND u.user_name_fold = $2 AND u.state <> 3 AND u.kind <> 2";
    let values: [Value; 2] = [tenant.into(), fold(local).into()];
    sql::one::<users::Model, _>(db, sql, values).await
}

fn here_already() -> Error {
    Error::exists(
        Reason::UserExists,
        "token",
        "is for an address whose holder is in the tenant already",
    )
}

/// Finds out how the invitation can be accepted, and hashes the password if an identity is to be made. What is refused is left to the
/// transaction: the very same call may have accepted meanwhile, and then its answer is given.
///
/// # Errors
/// `INVALID_ARGUMENT` for names and password; `OVERLOADED`.
pub async fn prepare_accept_invitation(
    outside: &Outside,
    proof: Proof,
    req: &AcceptInvitationRequest,
) -> Result<Option<String>> {
    let scope = proof.token()?;
    let (link, caller) = (scope.link(), scope.caller().map(|c| c.principal()));
    let app = outside.app();
    let of = app.clone();
    let found = app
        .look(move |snapshot| {
            Box::pin(async move {
                let Some((row, _)) = open(snapshot.db(), link).await? else {
                    return Ok(None);
                };
                let way = way(snapshot.db(), &of, &row, caller).await?;
                Ok(Some((row.email, way)))
            })
        })
        .await?;
    match found {
        None | Some((_, Way::Refused(_))) => Ok(None),
        Some((_, Way::Tie(_))) if req.password.is_empty() => Ok(None),
        Some((_, Way::Tie(_))) => Err(Error::field(
            "password",
            "must be empty: the address has a credential, which the caller is signed in with",
        )),
        Some((email, Way::Make)) => {
            check_new_person(req, &email)?;
            Ok(Some(app.hasher.hash(&req.password, &app.env).await?))
        }
    }
}

fn check_new_person(req: &AcceptInvitationRequest, email: &str) -> Result<()> {
    let mut faults = Vec::new();
    for (field, value) in [
        ("given_name", &req.given_name),
        ("family_name", &req.family_name),
        ("password", &req.password),
    ] {
        if value.is_empty() {
            faults.push((field.to_owned(), "is required".to_owned()));
        }
    }
    if !req.password.is_empty()
        && let Some(fault) = password::fault(&req.password, email)
    {
        faults.push(("password".to_owned(), fault.to_owned()));
    }
    if faults.is_empty() {
        Ok(())
    } else {
        Err(Error::invalid(faults))
    }
}

/// Accepts an invitation: the guest is tied to its home, and gets what the inviter may still give (INV-2, INV-4, INV-5). Whatever is refused
/// leaves the token good.
///
/// # Errors
/// `LINK_INVALID`, `SIGN_IN_AS_HOLDER`, `WORK_ADDRESS`, `USER_EXISTS`; `CONFLICT` if the address lost its holder meanwhile.
pub async fn accept_invitation(
    tx: &mut Tx,
    scope: TokenScope,
    req: AcceptInvitationRequest,
    hash: Option<String>,
) -> Result<AcceptInvitationResponse> {
    let app = tx.app().clone();
    let link = scope.link();
    let caller = scope.caller().map(|c| c.principal());
    let (row, tenant) = open(tx.db(), link).await?.ok_or_else(link::invalid)?;
    // Before the scope of an identity that is made here, in the order of locking.
    tx.lock(row.account_id.map(ScopeKey::Account)).await?;
    link::redeem(tx, link).await?;
    let home = match way(tx.db(), &app, &row, caller).await? {
        Way::Tie(user) => *user,
        Way::Refused(error) => return Err(error),
        Way::Make => {
            let hash = hash.ok_or_else(|| Error::aborted(Reason::Conflict))?;
            let new = NewIdentity {
                id: tx.id(),
                email: row.email.clone(),
                given_name: req.given_name.clone(),
                family_name: req.family_name.clone(),
            };
            identity::make(tx, new, &hash).await?
        }
    };
    let home_principal = user_change::principal(&home);
    tx.touch(home_principal.home());
    if caller.is_none() {
        tx.act_as(home_principal.name());
    }
    let guest = tie(tx, &row, &home, &req).await?;
    let row = answer(tx, row, ACCEPTED).await?;
    tx.emit(
        Event::new("entente.directory.v1.InvitationAccepted", name(&row))
            .change("state", PENDING, ACCEPTED)
            .touches(guest.id),
    );
    let promised = wire::promised(&row);
    let given = give(tx, &row, &guest, promised).await?;
    let withheld = promised.beyond(given.unwrap_or_default());
    if row.account_id.is_some() && (given.is_none() || !withheld.is_empty()) {
        tell_withheld(tx, &tenant, &row, &guest, withheld).await?;
    }
    Ok(AcceptInvitationResponse {
        user: Some(wire::user(&app, &guest, &tenant.domain_prefix, 0, tx.now())),
        tenant: Some(wire::tenant(&app, &tenant, true)),
        account: row
            .account_id
            .map_or_else(String::new, |a| Name::Account(a).to_string()),
        joined_account: given.is_some(),
        given: given.map(grants::Set::to_rights),
        withheld: row.account_id.map(|_| withheld.to_rights()),
    })
}

/// Ties the guest of an invitation to its home, under the names that it says, or that it has there.
async fn tie(
    tx: &mut Tx,
    row: &Model,
    home: &users::Model,
    req: &AcceptInvitationRequest,
) -> Result<users::Model> {
    let old = users::Entity::find_by_id(row.user_id)
        .filter(users::Column::State.eq(INVITED))
        .one(tx.db())
        .await?
        .ok_or_else(link::invalid)?;
    let tied = users::Entity::find()
        .filter(users::Column::TenantId.eq(row.tenant_id))
        .filter(users::Column::HomeId.eq(home.id))
        .filter(users::Column::State.ne(DELETED))
        .one(tx.db())
        .await?;
    if tied.is_some() {
        // By an address that it had before.
        return Err(here_already());
    }
    let or = |said: &str, at_home: &str| if said.is_empty() { at_home } else { said }.to_owned();
    let given_name = or(&req.given_name, &home.given_name);
    let family_name = or(&req.family_name, &home.family_name);
    let display_name = wire::display_name(&given_name, &family_name);
    let mut guest = old.clone().into_active_model();
    guest.state = Set(ACTIVE);
    guest.home_id = Set(Some(home.id));
    guest.home_tenant_id = Set(Some(home.tenant_id));
    guest.given_name = Set(given_name);
    guest.family_name = Set(family_name);
    guest.display_name_fold = Set(fold(&display_name));
    guest.display_name = Set(display_name);
    guest.update_time = Set(tx.now());
    guest.version = Set(old.version + 1);
    let guest = guest.update(tx.db()).await?;
    grants::rename(tx, guest.id, &guest.display_name_fold).await?;
    let home = user_change::principal(home).name();
    tx.emit(
        Event::new("entente.directory.v1.UserTied", user_change::name(&guest))
            .change("state", INVITED, ACTIVE)
            .change("home", serde_json::Value::Null, home)
            .change("given_name", old.given_name, guest.given_name.clone())
            .change("family_name", old.family_name, guest.family_name.clone())
            .touches(guest.id),
    );
    Ok(guest)
}

/// Gives what was promised on the account, as far as the inviter may still give it (INV-4), and the account's state and agreements let it
/// (ACC-13, AGR-5); None if not even a membership.
async fn give(
    tx: &mut Tx,
    row: &Model,
    guest: &users::Model,
    promised: grants::Set,
) -> Result<Option<grants::Set>> {
    let Some(account) = row.account_id else {
        return Ok(None);
    };
    match tx.demand_of_account(account).await {
        Ok(()) => {}
        // An account that may take in nobody now gives nothing, as if its inviter may not; the invitation is accepted all the same.
        Err(e) if matches!(e.reason(), Reason::WrongState | Reason::AgreementRequired) => {
            return Ok(None);
        }
        Err(e) => return Err(e),
    }
    let scope = ScopeKey::Account(account);
    tx.touch(scope);
    let to = user_change::principal(guest);
    let given = grants::give_in_name_of(tx, wire::inviter(row), scope, to, promised).await?;
    if let Some(set) = given {
        tx.emit(
            Event::new(
                "entente.account.v1.MemberAdded",
                Name::Member(account, guest.id),
            )
            .change("rights", serde_json::Value::Null, set.to_rights())
            .touches(guest.id),
        );
        asleep::tell_of_gifts(tx, scope, &[(to, set)]).await?;
    }
    Ok(given)
}

/// Tells guest and inviter what was not given (INV-4); the tenant's contact, if the inviter is gone.
async fn tell_withheld(
    tx: &mut Tx,
    tenant: &tenants::Model,
    row: &Model,
    guest: &users::Model,
    withheld: grants::Set,
) -> Result<()> {
    let Some(account) = row.account_id else {
        return Ok(());
    };
    let scope = ScopeKey::Account(account);
    let mut rights = withheld.names(scope).join(", ");
    if rights.is_empty() {
        "membership".clone_into(&mut rights);
    }
    let values = [
        ("name", guest.display_name.clone()),
        ("sign_in_name", guest.user_name.clone()),
        ("by", inviter_name(tx.db(), row).await?),
        ("organisation", tenant.display_name.clone()),
        ("scope", scope.to_string()),
        ("rights", rights),
    ];
    let inviter = users::Entity::find_by_id(row.inviter_id)
        .one(tx.db())
        .await?;
    let address = inviter
        .filter(|u| u.state != DELETED && !u.recovery_email.is_empty())
        .map_or_else(|| tenant.contact_email.clone(), |u| u.recovery_email);
    let language = mail::language_of(&row.language);
    mail::queue(
        tx,
        Template::RightsWithheld,
        &row.email,
        user_change::name(guest),
        &values,
    )
    .await?;
    mail::queue_in(
        tx,
        language,
        Template::RightsWithheldInviter,
        &address,
        user_change::name(guest),
        &values,
    )
    .await
}
