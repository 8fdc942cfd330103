//! Mails (COM-15, COM-20): queued in the transaction that causes them, sealed, since they may carry secrets; sent by the relay.

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
    /// To those who run a tenant in which a key is about to expire.
    KeyExpiring,
}

impl Template {
    /// All of them.
    pub const ALL: [Self; 5] = [
        Self::PasswordReset,
        Self::RightsAsleep,
        Self::RecoveryAddressChanged,
        Self::TenantCreated,
        Self::KeyExpiring,
    ];

    /// Its name, as in files and in lists.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::PasswordReset => "password_reset",
            Self::RightsAsleep => "rights_asleep",
            Self::RecoveryAddressChanged => "recovery_address_changed",
            Self::TenantCreated => "tenant_created",
            Self::KeyExpiring => "key_expiring",
        }
    }
}

/// Queues a mail; it goes out once the transaction is committed.
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
    let app = tx.app().clone();
    let id = tx.id();
    let values: BTreeMap<&str, &str> = values.iter().map(|(k, v)| (*k, v.as_str())).collect();
    let plain = serde_json::to_vec(&values).map_err(|e| Error::internal(e.to_string()))?;
    let sealed = app.keys.seal(&place(id), &plain)?;
    // The language of the person is not known yet; the one of the caller who causes the mail is the best guess.
    let language = tx.caller().language;
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

fn language_of(tag: &str) -> Language {
    if tag == "fr" {
        Language::French
    } else {
        Language::English
    }
}
