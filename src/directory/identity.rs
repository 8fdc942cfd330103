//! IdentityService: people outside any tenant, who sign in with an e-mail address that they have proven (IDN-1, IDN-2).

use uuid::Uuid;

use super::{
    ACTIVE, IDENTITY, address, credential, entity::user::Model, user_change, wire::display_name,
};
use crate::{
    app::Tx,
    error::{Error, Reason, Result},
    store::{list::fold, outbox::Event, scope_key::ScopeKey},
};

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
    address::not_of_work(tx.app(), &email, "email")?;
    if address::holder_of(tx, &email).await?.is_some() {
        return Err(Error::precondition(Reason::SignInAsHolder));
    }
    let now = tx.now();
    let display_name = display_name(&given_name, &family_name);
    let row = Model {
        id,
        tenant_id: Uuid::nil(),
        user_name_fold: fold(&email),
        user_name: email.clone(),
        given_name,
        family_name,
        display_name_fold: fold(&display_name),
        display_name,
        // A forgotten password is recovered where the person signs in from.
        recovery_email: email,
        kind: IDENTITY,
        state: ACTIVE,
        created_through_account: None,
        // The person itself sets the first credential: nothing sleeps (ROL-13).
        rights_asleep_until: None,
        create_time: now,
        update_time: now,
        delete_time: None,
        purge_time: None,
        home_id: None,
        home_tenant_id: None,
        external_id: String::new(),
        version: 1,
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
