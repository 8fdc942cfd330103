//! How a personal identity comes to be (IDN-1). Signing up makes nothing but a link, whose sealed payload is what the identity will be;
//! so no address can be held by whoever doesn't read its mail.

use serde::{Deserialize, Serialize};
use uuid::Uuid;
use zeroize::{Zeroize, ZeroizeOnDrop};

use super::{
    IDENTITY, address, credential,
    entity::user::Model,
    password, user_change,
    wire::{self, display_name},
};
use crate::{
    access::{
        link::{self, Link},
        scope::{NobodyScope, Proof, TokenScope},
    },
    app::{Outcome, Outside, Tx},
    check::Violations,
    env::{DAY_US, Micros},
    error::{Error, Reason, Result},
    mail::{self, Template},
    names::Name,
    proto::{
        access::LinkKind,
        directory::{ConfirmIdentityRequest, Identity, SignUpRequest, SignUpResponse},
    },
    store::{list::fold, outbox::Event, scope_key::ScopeKey},
};

/// A link that proves an address is good for so long.
const PROOF_US: Micros = DAY_US;

/// What somebody who signs up will be: the payload of the link.
#[derive(Serialize, Deserialize, Zeroize, ZeroizeOnDrop)]
struct SignedUp {
    email: String,
    given_name: String,
    family_name: String,
    /// Of the password, so that only who chose it confirms.
    hash: String,
}

impl SignedUp {
    fn of(payload: &[u8]) -> Result<Self> {
        serde_json::from_slice(payload)
            .map_err(|e| Error::internal(format!("a sign-up that can't be read: {e}")))
    }
}

pub(crate) fn check_sign_up(req: &SignUpRequest, v: &mut Violations) {
    if let Some(fault) = password::fault(&req.password, &req.email) {
        v.also("password", fault);
    }
}

/// Hashes the password, whoever has the address.
///
/// # Errors
/// `OVERLOADED`.
pub async fn prepare_sign_up(
    outside: &Outside,
    _proof: Proof,
    req: &SignUpRequest,
) -> Result<String> {
    let app = outside.app();
    app.hasher.hash(&req.password, &app.env).await
}

/// Mails a link to an address that is free, and a word to the holder of one that isn't: as many statements, and one mail.
///
/// # Errors
/// `WORK_ADDRESS`, `TOO_MANY_CALLS`; those of the database.
pub async fn sign_up(
    tx: &mut Tx,
    _scope: NobodyScope,
    req: SignUpRequest,
    hash: String,
) -> Result<SignUpResponse> {
    let SignUpRequest {
        email,
        given_name,
        family_name,
        password: _,
        request_id: _,
        validate_only: _,
    } = req;
    address::not_of_work(tx, &email, "email").await?;
    address::count_mail(tx, "sign-up", &fold(&email)).await?;
    let id = tx.id();
    let proof = Link {
        kind: LinkKind::IdentityConfirmation,
        subject: id,
        scope: ScopeKey::Identity(id),
    };
    let signed_up = SignedUp {
        email: email.clone(),
        given_name,
        family_name,
        hash,
    };
    let payload = serde_json::to_vec(&signed_up).map_err(|e| Error::internal(e.to_string()))?;
    prove_address(tx, proof, &email, &payload, Template::IdentityConfirmation).await?;
    Ok(SignUpResponse {})
}

/// Mails the link by which an address is proven, if nobody has the address; else its holder is told, and nobody gets the token.
pub(super) async fn prove_address(
    tx: &mut Tx,
    proof: Link,
    email: &str,
    payload: &[u8],
    template: Template,
) -> Result<()> {
    let holder = address::holder_of(tx, email).await?;
    let token = link::make(tx, proof, payload, PROOF_US).await?;
    let origin = ("origin", tx.app().config.public_origin.clone());
    match holder {
        Some(holder) => {
            let name = user_change::name(&holder);
            let to = holder.recovery_email.clone();
            mail::queue(tx, Template::AddressInUse, &to, name, &[origin]).await
        }
        None => {
            let url = link::url(&tx.app().config, proof.kind, &token);
            let values = [
                origin,
                ("link", url.to_string()),
                ("token", token.to_string()),
            ];
            mail::queue(
                tx,
                template,
                email,
                Name::Identity(proof.scope.id()),
                &values,
            )
            .await
        }
    }
}

/// Holds the password against the one chosen at signing up; gives whether it is that.
///
/// # Errors
/// `LINK_INVALID`; `OVERLOADED`.
pub async fn prepare_confirm_identity(
    outside: &Outside,
    proof: Proof,
    req: &ConfirmIdentityRequest,
) -> Result<bool> {
    let app = outside.app();
    let link = proof.token()?.link();
    let keys = app.clone();
    let payload = app
        .look(move |snapshot| {
            Box::pin(async move { link::payload(snapshot.db(), &keys.keys, link).await })
        })
        .await?
        .ok_or_else(link::invalid)?;
    let signed_up = SignedUp::of(&payload)?;
    credential::verify(app, link.subject, Some(&signed_up.hash), &req.password).await
}

/// Makes the identity that was signed up for. A wrong password is counted though the call fails; after a hundred the link is void (ATK-25).
///
/// # Errors
/// `SIGN_IN_FAILED` on `password`; `LINK_INVALID`, also if the address was taken meanwhile.
pub async fn confirm_identity(
    tx: &mut Tx,
    scope: TokenScope,
    _req: ConfirmIdentityRequest,
    right: bool,
) -> Result<Outcome<Identity>> {
    let link = scope.link();
    if !right {
        link::failed(tx, link).await?;
        return Ok(Outcome::Refuse(Error::argument(
            Reason::SignInFailed,
            "password",
            "is not the one that was chosen at signing up",
        )));
    }
    let signed_up = SignedUp::of(&link::redeem(tx, link).await?)?;
    if address::is_work_address(tx.db(), tx.app(), &signed_up.email).await?
        || address::holder_of(tx, &signed_up.email).await?.is_some()
    {
        return Err(link::invalid());
    }
    let new = NewIdentity {
        id: link.subject,
        email: signed_up.email.clone(),
        given_name: signed_up.given_name.clone(),
        family_name: signed_up.family_name.clone(),
    };
    let row = make(tx, new, &signed_up.hash).await?;
    tx.act_as(user_change::name(&row).to_string());
    Ok(Outcome::Done(wire::identity(&row, tx.now())))
}

/// A personal identity to be made.
pub struct NewIdentity {
    /// Its ID, which nothing has yet.
    pub id: Uuid,
    /// The address, which was proven.
    pub email: String,
    /// Given name.
    pub given_name: String,
    /// Family name.
    pub family_name: String,
}

/// Makes a personal identity with a password that the person chose. Its address was proven by whoever calls.
///
/// # Errors
/// `SIGN_IN_AS_HOLDER` if the address has an identity; `WORK_ADDRESS`; those of the database.
pub async fn make(tx: &mut Tx, new: NewIdentity, password_hash: &str) -> Result<Model> {
    let NewIdentity {
        id,
        email,
        given_name,
        family_name,
    } = new;
    address::not_of_work(tx, &email, "email").await?;
    if address::holder_of(tx, &email).await?.is_some() {
        return Err(Error::precondition(Reason::SignInAsHolder));
    }
    let display_name = display_name(&given_name, &family_name);
    let row = Model {
        user_name_fold: fold(&email),
        user_name: email.clone(),
        given_name,
        family_name,
        display_name_fold: fold(&display_name),
        display_name,
        // A forgotten password is recovered where the person signs in from.
        recovery_email: email,
        // The person itself sets the first credential: nothing sleeps (ROL-13).
        kind: IDENTITY,
        ..Model::new(id, Uuid::nil(), tx.now())
    };
    tx.insert(row.clone()).await?;
    tx.open_scope(ScopeKey::Identity(id)).await?;
    credential::set(tx, id, password_hash, false).await?;
    let null = || serde_json::Value::Null;
    tx.emit(
        Event::new(
            "entente.directory.v1.IdentityCreated",
            user_change::name(&row),
        )
        .change("email", null(), row.user_name.clone())
        .change("given_name", null(), row.given_name.clone())
        .change("family_name", null(), row.family_name.clone())
        .touches(id),
    );
    Ok(row)
}
