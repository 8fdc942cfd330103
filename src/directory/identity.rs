//! IdentityService: people outside any tenant, who sign in with an e-mail address that they have proven (IDN-1, IDN-2).
//!
//! States: signed up (`sign_up`), which is a link and no row → active → closed. A closed one is purged after 30 days; its address is free
//! at once.

use sea_orm::{
    ActiveModelTrait, ColumnTrait, ConnectionTrait, EntityTrait, IntoActiveModel, QueryFilter, Set,
};

pub(crate) use super::sign_up::check_sign_up;
use super::{
    ACTIVE, DELETED, RESTORABLE_US, address,
    entity::user::{self, Column, Entity, Model},
    sign_up::prove_address,
    user_change,
    wire::{self, display_name},
};
pub use super::{
    export::{Export, export_identity},
    sign_up::{
        NewIdentity, confirm_identity, make, prepare_confirm_identity, prepare_sign_up, sign_up,
    },
};
use crate::{
    access::{
        account_state,
        grants::{self, Last, MANAGER},
        link::{self, Link},
        scope::{CallerScope, TokenScope},
    },
    app::{Read, Tx},
    error::{Error, Reason, Result},
    mail::{self, Template},
    names::Name,
    proto::{
        access::LinkKind,
        directory::{
            ChangeEmailRequest, ChangeEmailResponse, CloseIdentityRequest, CloseIdentityResponse,
            ConfirmEmailRequest, GetIdentityRequest, Identity, IdentityState, Losses,
            UpdateIdentityRequest,
        },
    },
    store::{list::fold, outbox::Event, scope_key::ScopeKey, update},
};

/// The caller's own row.
async fn own<C: ConnectionTrait>(db: &C, scope: CallerScope) -> Result<Model> {
    let id = scope.principal().id;
    user::find(db, scope, id)
        .await?
        .ok_or_else(|| Error::not_found("entente.dev/Identity", Name::Identity(id).to_string()))
}

/// Gives the caller's own identity.
///
/// # Errors
/// Those of the database.
pub async fn get_identity(
    rd: &Read,
    scope: CallerScope,
    _req: GetIdentityRequest,
) -> Result<Identity> {
    Ok(wire::identity(&own(rd.db(), scope).await?, rd.now()))
}

/// Changes the caller's own names.
///
/// # Errors
/// `ETAG_MISMATCH`.
pub async fn update_identity(
    tx: &mut Tx,
    scope: CallerScope,
    req: UpdateIdentityRequest,
) -> Result<Identity> {
    let UpdateIdentityRequest {
        identity,
        update_mask,
        etag,
        request_id: _,
        validate_only: _,
    } = req;
    let new = identity.ok_or_else(|| Error::field("identity", "is required"))?;
    let fields = update::fields(update_mask.as_ref(), &new);
    let old = own(tx.db(), scope).await?;
    update::check_etag(&etag, old.version)?;
    let (mut given_name, mut family_name) = (old.given_name.clone(), old.family_name.clone());
    for field in fields {
        match field {
            "given_name" => given_name.clone_from(&new.given_name),
            "family_name" => family_name.clone_from(&new.family_name),
            other => {
                return Err(Error::internal(format!(
                    "{other} is mutable, but nobody changes it"
                )));
            }
        }
    }
    let display_name = display_name(&given_name, &family_name);
    let mut row = old.clone().into_active_model();
    row.given_name = Set(given_name);
    row.family_name = Set(family_name);
    row.display_name_fold = Set(fold(&display_name));
    row.display_name = Set(display_name);
    row.update_time = Set(tx.now());
    row.version = Set(old.version + 1);
    let row = row.update(tx.db()).await?;
    if row.display_name_fold != old.display_name_fold {
        grants::rename(tx, row.id, &row.display_name_fold).await?;
    }
    tx.emit(
        Event::new(
            "entente.directory.v1.IdentityUpdated",
            user_change::name(&row),
        )
        .change("given_name", old.given_name, row.given_name.clone())
        .change("family_name", old.family_name, row.family_name.clone()),
    );
    Ok(wire::identity(&row, tx.now()))
}

/// Mails a link to the new address, if it is free; the answer is the same if it isn't.
///
/// # Errors
/// `RECENT_SIGN_IN_REQUIRED`, `WORK_ADDRESS`, `TOO_MANY_CALLS`, `ETAG_MISMATCH`.
pub async fn change_email(
    tx: &mut Tx,
    scope: CallerScope,
    req: ChangeEmailRequest,
) -> Result<ChangeEmailResponse> {
    let ChangeEmailRequest {
        name: _,
        new_email,
        etag,
        request_id: _,
        validate_only: _,
    } = req;
    address::not_of_work(tx, &new_email, "new_email").await?;
    let old = own(tx.db(), scope).await?;
    update::check_etag(&etag, old.version)?;
    if fold(&new_email) == old.user_name_fold {
        return Err(Error::field("new_email", "is the address already"));
    }
    address::count_mail(tx, "change", &fold(&new_email)).await?;
    let proof = Link {
        kind: LinkKind::EmailChange,
        subject: old.id,
        scope: ScopeKey::Identity(old.id),
    };
    prove_address(
        tx,
        proof,
        &new_email,
        new_email.as_bytes(),
        Template::EmailChange,
    )
    .await?;
    tx.emit(Event::new(
        "entente.directory.v1.EmailChangeRequested",
        user_change::name(&old),
    ));
    Ok(ChangeEmailResponse {})
}

/// Takes over the address that the token proves. Links for the old one are void, and the old one is told.
///
/// # Errors
/// `LINK_INVALID`, also if the address was taken meanwhile.
pub async fn confirm_email(
    tx: &mut Tx,
    scope: TokenScope,
    _req: ConfirmEmailRequest,
) -> Result<Identity> {
    let link = scope.link();
    let payload = link::redeem(tx, link).await?;
    let email = std::str::from_utf8(&payload)
        .map_err(|_| Error::internal("an address that can't be read"))?
        .to_owned();
    let old = Entity::find_by_id(link.subject)
        .filter(Column::State.eq(ACTIVE))
        .one(tx.db())
        .await?
        .ok_or_else(link::invalid)?;
    if address::is_work_address(tx.db(), tx.app(), &email).await?
        || address::holder_of(tx, &email).await?.is_some()
    {
        return Err(link::invalid());
    }
    let now = tx.now();
    let mut row = old.clone().into_active_model();
    row.user_name = Set(email.clone());
    row.user_name_fold = Set(fold(&email));
    row.recovery_email = Set(email.clone());
    row.update_time = Set(now);
    row.version = Set(old.version + 1);
    let row = row.update(tx.db()).await?;
    let name = user_change::name(&row);
    // Whoever reads the old mailbox only has no way in any more.
    link::revoke_ways_in(tx, row.id).await?;
    rename_guests(tx, &old, &email).await?;
    tx.act_as(name.to_string());
    tx.emit(
        Event::new("entente.directory.v1.IdentityEmailChanged", name).change(
            "email",
            old.user_name.clone(),
            row.user_name.clone(),
        ),
    );
    let values = [
        ("name", row.display_name.clone()),
        ("email", email),
        ("origin", tx.app().config.public_origin.clone()),
    ];
    mail::queue(tx, Template::EmailChanged, &old.user_name, name, &values).await?;
    Ok(wire::identity(&row, tx.now()))
}

/// Guests are shown by the name that their home signs in with. Where somebody else is invited by that name, the old one stays.
async fn rename_guests(tx: &mut Tx, old: &Model, email: &str) -> Result<()> {
    let guests = user_change::guests_of(tx.db(), old.id).await?;
    tx.lock(guests.iter().map(|g| ScopeKey::Tenant(g.tenant_id)))
        .await?;
    for guest in guests
        .into_iter()
        .filter(|g| g.user_name_fold == old.user_name_fold)
    {
        let taken = Entity::find()
            .filter(Column::TenantId.eq(guest.tenant_id))
            .filter(Column::UserNameFold.eq(fold(email)))
            .filter(Column::State.ne(DELETED))
            .one(tx.db())
            .await?;
        if taken.is_some() {
            continue;
        }
        let mut row = guest.clone().into_active_model();
        row.user_name = Set(email.to_owned());
        row.user_name_fold = Set(fold(email));
        if guest.recovery_email == old.user_name {
            row.recovery_email = Set(email.to_owned());
        }
        row.update_time = Set(tx.now());
        row.version = Set(guest.version + 1);
        let row = row.update(tx.db()).await?;
        tx.emit(
            Event::new(
                "entente.directory.v1.UserUpdated",
                user_change::name(&guest),
            )
            .change("user_name", guest.user_name, row.user_name)
            .change("recovery_email", guest.recovery_email, row.recovery_email),
        );
    }
    Ok(())
}

/// Closes the caller's own identity: its guests are deleted, everything is taken from it, and its address is free. As with LeaveAccount, no
/// account loses its last manager by it (ROL-9).
///
/// # Errors
/// `RECENT_SIGN_IN_REQUIRED`; `OWNS_ACCOUNT`, `LAST_MANAGER`, each naming the account; `ETAG_MISMATCH`.
pub async fn close_identity(
    tx: &mut Tx,
    scope: CallerScope,
    req: CloseIdentityRequest,
) -> Result<CloseIdentityResponse> {
    let CloseIdentityRequest {
        name: _,
        etag,
        request_id: _,
        validate_only: _,
    } = req;
    let old = own(tx.db(), scope).await?;
    update::check_etag(&etag, old.version)?;
    let rights = grants::rights_of(tx.db(), old.id).await?;
    let guests = user_change::guests_of(tx.db(), old.id).await?;
    tx.lock(
        rights
            .iter()
            .map(|right| right.scope)
            .chain(guests.iter().map(|g| ScopeKey::Tenant(g.tenant_id))),
    )
    .await?;
    if let Some(owned) = grants::tied_to(tx.db(), old.id).await? {
        let scope = ScopeKey::Account(owned);
        return Err(Error::precondition(Reason::OwnsAccount).with("account", scope.to_string()));
    }
    let mut lasts = Vec::new();
    for scope in grants::at_stake(&rights) {
        // Nobody has to run what is over.
        if let ScopeKey::Account(id) = scope
            && account_state::is_over(tx.db(), id).await?
        {
            continue;
        }
        lasts.push((scope, Last::before(tx, scope, MANAGER).await?));
    }
    let mut losses = Losses::default();
    for guest in guests {
        let (_, lost) = user_change::delete(tx, guest).await?;
        user_change::add_losses(&mut losses, lost);
    }
    let taken = user_change::take_everything(tx, &old, DELETED).await?;
    user_change::add_losses(&mut losses, taken.losses);
    for (scope, last) in lasts {
        let named = |error: Error| error.with("account", scope.to_string());
        last.kept(tx).await.map_err(named)?;
    }
    let now = tx.now();
    let mut row = old.clone().into_active_model();
    row.state = Set(DELETED);
    row.delete_time = Set(Some(now));
    row.purge_time = Set(Some(now + RESTORABLE_US));
    row.update_time = Set(now);
    row.version = Set(old.version + 1);
    let row = row.update(tx.db()).await?;
    let name = user_change::name(&row);
    tx.emit(
        Event::new("entente.directory.v1.IdentityClosed", name)
            .change(
                "state",
                IdentityState::Active as i32,
                IdentityState::Closed as i32,
            )
            .touches(old.id),
    );
    let values = [
        ("name", old.display_name.clone()),
        ("email", old.user_name.clone()),
        ("origin", tx.app().config.public_origin.clone()),
    ];
    mail::queue(tx, Template::IdentityClosed, &old.user_name, name, &values).await?;
    Ok(CloseIdentityResponse {
        resources: vec![wire::identity(&row, tx.now())],
        losses: Some(losses),
    })
}
