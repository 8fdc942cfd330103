//! First start and the way back (COM-19): the operator's tenant with its first administrator, placeholders of agreements, and
//! `recover-admin`.

use std::{
    fs,
    io::{IsTerminal as _, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::PathBuf,
};

use sea_orm::Value;
use uuid::Uuid;

use crate::{
    access::{
        grants::{self, GLOBAL_ADMIN, OPERATOR_ADMIN},
        principal::{Kind, Principal},
    },
    account::agreement,
    app::{App, Tx},
    check,
    config::Config,
    directory::{
        credential, tenant,
        wire::{NewTenant, NewUser},
    },
    error::{Error, Result},
    names::Name,
    proto::operator::OperatorRole,
    start,
    store::{outbox::Event, scope_key::ScopeKey, sql},
};

/// The prefix of the operator's tenant.
pub const OPERATOR_PREFIX: &str = "operator";
/// The user name of the first administrator.
pub const ADMINISTRATOR: &str = "admin";

/// A one-time way in.
pub struct WayIn {
    /// What the administrator signs in as.
    pub sign_in_name: String,
    /// The temporary password; to be shown once.
    pub temporary_password: String,
    /// The operator's tenant.
    pub tenant: String,
    /// The administrator.
    pub user: String,
}

/// Where mails to the first administrator go, if nothing else is said.
#[must_use]
pub fn default_email(config: &Config) -> String {
    format!("{ADMINISTRATOR}@{}", config.base_domain)
}

/// Makes the operator's tenant and its first administrator; None if they were made before. Two replicas at once make one.
///
/// # Errors
/// For what is no address; those of the database.
pub async fn bootstrap(app: &App, email: &str) -> Result<Option<WayIn>> {
    if !check::is_email(email) {
        return Err(Error::internal(format!(
            "--email: {email} is no address, such as {}",
            default_email(&app.config)
        )));
    }
    agreement::make_placeholders(app).await?;
    if app.operator.get().is_some() {
        return Ok(None);
    }
    let email = email.to_owned();
    let made = app
        .job("bootstrap", move |tx, _| {
            let email = email.clone();
            Box::pin(async move { make(tx, &email).await })
        })
        .await?;
    if let Some(id) = start::operator_tenant(&app.db.read).await? {
        app.operator.get_or_init(|| id);
    }
    Ok(made)
}

async fn make(tx: &mut Tx, email: &str) -> Result<Option<WayIn>> {
    tx.lock([ScopeKey::Operator]).await?;
    if start::operator_tenant(tx.db()).await?.is_some() {
        return Ok(None);
    }
    let new = NewTenant {
        domain_prefix: OPERATOR_PREFIX.to_owned(),
        display_name: "Operator".to_owned(),
        contact_email: email.to_owned(),
        created_by_identity: None,
    };
    let admin = NewUser {
        user_name: ADMINISTRATOR.to_owned(),
        given_name: "First".to_owned(),
        family_name: "Administrator".to_owned(),
        recovery_email: email.to_owned(),
        directory_roles: GLOBAL_ADMIN,
    };
    let made = tenant::make(tx, new, admin, None, grants::By::Service).await?;
    let principal = Principal {
        kind: Kind::User,
        id: made.first_admin_id,
        tenant: made.id,
    };
    grants::set(
        tx,
        ScopeKey::Operator,
        principal,
        grants::Set::of_roles(OPERATOR_ADMIN),
        grants::By::Service,
    )
    .await?;
    tx.emit(
        Event::new(
            "entente.operator.v1.OperatorRolesAssigned",
            Name::Staff(principal.id),
        )
        .change(
            "roles",
            serde_json::Value::Null,
            vec![OperatorRole::OperatorAdmin as i32],
        )
        .touches(principal.id),
    );
    Ok(Some(WayIn {
        sign_in_name: made.first_admin.sign_in_name,
        temporary_password: made.temporary_password,
        tenant: made.tenant.name,
        user: made.first_admin.name,
    }))
}

/// Whether every administrator of the operator still has a one-time password: the first of them may be lost, if the first start was cut short.
///
/// # Errors
/// Those of the database.
pub async fn waits_for_administrator(app: &App) -> Result<bool> {
    let sql = "SELECT 1 AS one FROM grants g JOIN credentials c ON c.user_id = g.principal_id WHERE g.scope_kind = 0 AND (g.roles & $1) <> 0 \
               AND NOT c.temporary LIMIT 1";
    Ok(sql::row(&app.db.read, sql, [OPERATOR_ADMIN.into()])
        .await?
        .is_none())
}

/// Makes a one-time way back for an administrator of the operator: active, with its roles and a temporary password. Run on the host,
/// audited, and no case of ROL-13.
///
/// # Errors
/// If there is no such user in the operator's tenant.
pub async fn recover_admin(app: &App, user_name: &str) -> Result<WayIn> {
    let name = user_name.to_lowercase();
    app.job("recover-admin", move |tx, _| {
        let name = name.clone();
        Box::pin(async move { recover(tx, &name).await })
    })
    .await
}

async fn recover(tx: &mut Tx, user_name: &str) -> Result<WayIn> {
    let tenant = tx.app().operator_tenant();
    tx.lock([ScopeKey::Operator, ScopeKey::Tenant(tenant)])
        .await?;
    let sql = "SELECT id FROM users WHERE tenant_id = $1 AND user_name_fold = $2 AND state <> 3";
    let values: [Value; 2] = [tenant.into(), user_name.into()];
    let row = sql::row(tx.db(), sql, values).await?;
    let id: Uuid = match row {
        Some(row) => row.try_get("", "id")?,
        None => {
            return Err(Error::internal(format!(
                "the operator's tenant has no user {user_name}"
            )));
        }
    };
    let sql = "UPDATE users SET state = 1, rights_asleep_until = NULL, update_time = $1, version = version + 1 WHERE id = $2";
    sql::execute(tx.db(), sql, [tx.now().into(), id.into()]).await?;
    let principal = Principal {
        kind: Kind::User,
        id,
        tenant,
    };
    for (scope, role) in [
        (ScopeKey::Operator, OPERATOR_ADMIN),
        (ScopeKey::Tenant(tenant), GLOBAL_ADMIN),
    ] {
        let held = grants::find(tx.db(), scope, id)
            .await?
            .map(|g| grants::Set::of_grant(&g))
            .unwrap_or_default();
        // Who was of finance becomes administrator in its place: nobody is both.
        let kept = if scope == ScopeKey::Operator {
            held.roles & !grants::OPERATOR_FINANCE
        } else {
            held.roles
        };
        grants::set(
            tx,
            scope,
            principal,
            grants::Set {
                roles: kept | role,
                ..held
            },
            grants::By::Service,
        )
        .await?;
    }
    let temporary_password = credential::make_temporary(tx, id).await?;
    let ended_session_count = credential::end_sessions(tx, id, None).await?;
    tx.emit(
        Event::new(
            "entente.operator.v1.AdministratorRecovered",
            Name::User(tenant, id),
        )
        .also_in(ScopeKey::Operator)
        .with("ended_session_count", ended_session_count)
        .touches(id),
    );
    Ok(WayIn {
        sign_in_name: format!(
            "{user_name}@{OPERATOR_PREFIX}.{}",
            tx.app().config.base_domain
        ),
        temporary_password,
        tenant: Name::Tenant(tenant).to_string(),
        user: Name::User(tenant, id).to_string(),
    })
}

/// Where the one-time password is shown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HandedOver {
    /// The caller prints it on the terminal.
    Terminal,
    /// It lies in this file.
    File(PathBuf),
}

impl HandedOver {
    /// The words for the terminal or log.
    #[must_use]
    pub fn words(&self, way: &WayIn) -> String {
        match self {
            Self::Terminal => format!("one-time password: {}", way.temporary_password),
            Self::File(file) => format!("one-time password: in {}", file.display()),
        }
    }
}

/// Gives the one-time password to the terminal, else to a file that only its owner reads; says which.
///
/// # Errors
/// If the file can't be written.
pub fn hand_over(app: &App, way: &WayIn) -> Result<HandedOver> {
    if std::io::stdout().is_terminal() {
        return Ok(HandedOver::Terminal);
    }
    let file = start::password_file(&app.config);
    let fault = |e: std::io::Error| Error::internal(format!("{}: {e}", file.display()));
    // An older file may be there, with other permissions.
    fs::remove_file(&file)
        .or_else(|e| {
            if e.kind() == std::io::ErrorKind::NotFound {
                Ok(())
            } else {
                Err(e)
            }
        })
        .map_err(fault)?;
    let mut out = fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&file)
        .map_err(fault)?;
    writeln!(out, "{}", way.temporary_password)
        .and_then(|()| out.sync_all())
        .map_err(fault)?;
    Ok(HandedOver::File(file))
}
