//! Timed work (COM-21): one scheduler, whose work is rows claimed with leases. Several replicas share it; a killed one's work is taken
//! over when its lease ends; what a job does commits together with its being done, so nothing is done twice.

use std::time::Duration;

use futures_util::future::BoxFuture;
use sea_orm::{ConnectionTrait, Statement, Value};
use uuid::Uuid;

use crate::{
    access::{link, refusals, token},
    account::{MEMBERSHIP_CLAIM_US, TIES_COUNT_US},
    app::{App, Tx},
    directory::{application_key, domain_look_up},
    document::{self, blobs},
    env::{DAY_US, HOUR_US, MINUTE_US, Micros, SECOND_US},
    error::Result,
    mail::relay,
    store::{barrier, outbox, sql},
};

/// A job of the scheduler's: runs every so often, in one transaction that also says when it runs next.
struct Job {
    name: &'static str,
    every_us: Micros,
    /// What says that there is something to do; without it the job runs whenever it is due.
    needed: Option<&'static str>,
    run: for<'a> fn(&'a mut Tx) -> BoxFuture<'a, Result<u64>>,
}

/// Rows removed in one transaction; what is left is done at once after.
pub(crate) const CHUNK: i64 = 500;
/// How long a replica holds a job; a killed one's is taken over after.
const LEASE_US: Micros = 30 * SECOND_US;
/// How often the scheduler looks for work.
const LOOKS_EVERY: Duration = Duration::from_millis(250);
/// How often it is looked whether domains are due; they are looked up once a day.
const DOMAINS_EVERY: Duration = Duration::from_secs(5);
/// How often blobs that nobody needs are looked for.
const SWEEPS_EVERY: Duration = Duration::from_secs(60);
/// A job that fails waits so long.
const AFTER_FAILURE_US: Micros = 30 * SECOND_US;
/// How far clocks of replicas may be apart.
const CLOCKS_APART_US: Micros = MINUTE_US;

/// What a job failed at is tried again after so long, where it is put aside.
const ASIDE_US: Micros = 10 * MINUTE_US;
/// Jobs that do one row a transaction, the one that is due first, and the statement that puts it aside until later, so that one which can't be
/// done holds up no other.
const ASIDE: &[(&str, &str)] = &[
    ("go-on-with-name-claims", crate::account::CLAIM_ASIDE),
    (
        "go-on-with-recovery-cases",
        crate::directory::recovery::ASIDE,
    ),
    ("end-relationships", crate::relationship::ASIDE),
    (
        "mail-relationship-requests",
        crate::relationship::MAIL_ASIDE,
    ),
];

/// All timed work.
const JOBS: &[Job] = &[
    Job {
        name: "number-events",
        every_us: SECOND_US / 4,
        needed: Some("SELECT 1 AS one FROM outbox WHERE is_first AND global_seq IS NULL LIMIT 1"),
        run: |tx| Box::pin(number_events(tx)),
    },
    Job {
        name: "mail-recovery-links",
        every_us: SECOND_US / 4,
        needed: Some("SELECT 1 AS one FROM recovery_requests LIMIT 1"),
        run: |tx| Box::pin(crate::directory::recovery::mail_recovery_links(tx)),
    },
    Job {
        name: "mail-membership-links",
        every_us: SECOND_US / 4,
        needed: Some("SELECT 1 AS one FROM membership_claims WHERE is_waiting LIMIT 1"),
        run: |tx| Box::pin(crate::account::mail_membership_links(tx)),
    },
    Job {
        name: "mail-relationship-requests",
        every_us: SECOND_US,
        needed: Some(crate::relationship::MAIL_NEEDED),
        run: |tx| Box::pin(crate::relationship::mail_requests(tx)),
    },
    Job {
        name: "purge-membership-claims",
        every_us: HOUR_US,
        needed: None,
        run: |tx| {
            let kept = MEMBERSHIP_CLAIM_US;
            Box::pin(purge(tx, "membership_claims", "id", "create_time", kept))
        },
    },
    Job {
        name: "purge-claims",
        every_us: 10 * MINUTE_US,
        needed: None,
        run: |tx| Box::pin(purge(tx, "claims", "caller, request_id", "expire_time", 0)),
    },
    Job {
        name: "purge-sessions",
        every_us: HOUR_US,
        needed: None,
        run: |tx| Box::pin(purge(tx, "sessions", "id", "expire_time", 30 * DAY_US)),
    },
    Job {
        name: "purge-woken-rights",
        every_us: HOUR_US,
        needed: None,
        run: |tx| {
            let key = "user_id, scope_kind, scope_id";
            Box::pin(purge(tx, "woken_rights", key, "asleep_until", 0))
        },
    },
    Job {
        name: "purge-events",
        every_us: HOUR_US,
        needed: None,
        run: |tx| Box::pin(purge_events(tx)),
    },
    Job {
        name: "purge-looks",
        every_us: HOUR_US,
        needed: None,
        run: |tx| Box::pin(purge_looks(tx)),
    },
    Job {
        name: "purge-users",
        every_us: 10 * MINUTE_US,
        needed: None,
        run: |tx| Box::pin(crate::directory::user_state::purge_users(tx)),
    },
    Job {
        name: "purge-invitations",
        every_us: HOUR_US,
        needed: None,
        run: |tx| Box::pin(crate::directory::invitation::purge_invitations(tx)),
    },
    Job {
        name: "announce-tenant-purges",
        every_us: HOUR_US,
        needed: None,
        run: |tx| Box::pin(crate::directory::tenant_deletion::announce_purges(tx)),
    },
    Job {
        name: "purge-tenants",
        every_us: 10 * MINUTE_US,
        needed: None,
        run: |tx| Box::pin(crate::directory::tenant_deletion::purge_tenants(tx)),
    },
    Job {
        name: "tell-of-idle-drafts",
        every_us: HOUR_US,
        needed: None,
        run: |tx| Box::pin(crate::account::tell_of_idle_drafts(tx)),
    },
    Job {
        name: "remove-idle-drafts",
        every_us: HOUR_US,
        needed: None,
        run: |tx| Box::pin(crate::account::remove_idle_drafts(tx)),
    },
    Job {
        name: "verify-employment-by-domain",
        every_us: SECOND_US,
        needed: Some(crate::account::PROVEN_LATER),
        run: |tx| Box::pin(crate::account::verify_by_domain(tx)),
    },
    Job {
        name: "go-on-without-register",
        every_us: MINUTE_US,
        needed: Some(crate::account::AT_REGISTER),
        run: |tx| Box::pin(crate::account::without_register(tx)),
    },
    Job {
        name: "activate-verified-accounts",
        every_us: MINUTE_US,
        needed: None,
        run: |tx| Box::pin(crate::account::activate_verified(tx)),
    },
    Job {
        name: "reject-unappealed",
        every_us: 10 * MINUTE_US,
        needed: None,
        run: |tx| Box::pin(crate::account::reject_unappealed(tx)),
    },
    Job {
        name: "release-seats",
        every_us: 10 * MINUTE_US,
        needed: Some(crate::account::SEATS_OF_NOBODY),
        run: |tx| Box::pin(crate::account::release_seats(tx)),
    },
    Job {
        name: "date-former-ties",
        every_us: SECOND_US,
        needed: Some(
            "SELECT 1 AS one FROM former_ties WHERE end_time IS NULL \
             UNION ALL SELECT 1 AS one FROM former_tenants WHERE end_time IS NULL \
             UNION ALL SELECT 1 AS one FROM former_addresses WHERE end_time IS NULL LIMIT 1",
        ),
        run: |tx| Box::pin(crate::account::date_former_ties(tx)),
    },
    Job {
        name: "purge-former-ties",
        every_us: DAY_US,
        needed: None,
        run: |tx| {
            let (key, kept) = ("scope_kind, scope_id, user_id", TIES_COUNT_US);
            Box::pin(purge(tx, "former_ties", key, "end_time", kept))
        },
    },
    Job {
        name: "purge-former-tenants",
        every_us: DAY_US,
        needed: None,
        run: |tx| {
            let (key, kept) = ("account_id, tenant_id", TIES_COUNT_US);
            Box::pin(purge(tx, "former_tenants", key, "end_time", kept))
        },
    },
    Job {
        name: "purge-former-addresses",
        every_us: DAY_US,
        needed: None,
        run: |tx| {
            let (key, kept) = ("user_id, user_name_fold, recovery_email", TIES_COUNT_US);
            Box::pin(purge(tx, "former_addresses", key, "end_time", kept))
        },
    },
    Job {
        name: "purge-former-contacts",
        every_us: DAY_US,
        needed: None,
        run: |tx| {
            let (key, kept) = ("account_id, email", TIES_COUNT_US);
            Box::pin(purge(tx, "former_contacts", key, "end_time", kept))
        },
    },
    Job {
        name: "go-on-with-recovery-cases",
        every_us: 10 * SECOND_US,
        needed: Some("SELECT 1 AS one FROM recovery_cases WHERE state IN (2, 3) LIMIT 1"),
        run: |tx| Box::pin(crate::directory::recovery::go_on(tx)),
    },
    Job {
        name: "purge-documents",
        every_us: HOUR_US,
        needed: None,
        run: |tx| Box::pin(document::purge_loose(tx)),
    },
    Job {
        name: "hand-over-accounts",
        every_us: MINUTE_US,
        needed: Some("SELECT 1 AS one FROM ownerships WHERE state = 3 LIMIT 1"),
        run: |tx| Box::pin(crate::account::hand_over(tx)),
    },
    Job {
        name: "go-on-with-name-claims",
        every_us: MINUTE_US,
        needed: Some("SELECT 1 AS one FROM name_claims WHERE due_time IS NOT NULL LIMIT 1"),
        run: |tx| Box::pin(crate::account::go_on_with_name_claims(tx)),
    },
    Job {
        name: "end-name-claims",
        every_us: 10 * MINUTE_US,
        needed: Some("SELECT 1 AS one FROM name_claims WHERE state <= 4 LIMIT 1"),
        run: |tx| Box::pin(crate::account::end_name_claims(tx)),
    },
    Job {
        name: "date-relationships-of-ended-accounts",
        every_us: 10 * MINUTE_US,
        needed: Some(crate::relationship::NEEDED),
        run: |tx| Box::pin(crate::relationship::date_those_of_ended_accounts(tx)),
    },
    Job {
        name: "end-relationships",
        every_us: MINUTE_US,
        needed: Some(crate::relationship::NEEDED),
        run: |tx| Box::pin(crate::relationship::end_due(tx)),
    },
    Job {
        name: "purge-links",
        every_us: 10 * MINUTE_US,
        needed: None,
        run: |tx| Box::pin(link::sweep(tx)),
    },
    Job {
        name: "tell-of-expiring-keys",
        every_us: 10 * MINUTE_US,
        needed: None,
        run: |tx| Box::pin(tell_of_expiring_keys(tx)),
    },
    Job {
        name: "purge-keys",
        every_us: HOUR_US,
        needed: None,
        run: |tx| {
            Box::pin(purge(
                tx,
                "application_keys",
                "id",
                "expire_time",
                30 * DAY_US,
            ))
        },
    },
    Job {
        name: "purge-changed-keys",
        every_us: 10 * MINUTE_US,
        needed: None,
        run: |tx| Box::pin(barrier::purge(tx.db())),
    },
    Job {
        name: "purge-networks",
        every_us: DAY_US,
        needed: None,
        run: |tx| Box::pin(purge_networks(tx)),
    },
    Job {
        name: "rotate-signing-keys",
        every_us: 10 * MINUTE_US,
        needed: None,
        run: |tx| Box::pin(rotate_signing_keys(tx)),
    },
];

/// The scheduler, running.
pub struct Running {
    tasks: Vec<tokio::task::JoinHandle<()>>,
}

impl Running {
    /// Ends it; what is half done is rolled back, and its lease ends by itself.
    pub async fn stop(self) {
        for task in self.tasks {
            task.abort();
            task.await.ok();
        }
    }
}

/// Starts the scheduler, the mail relay, the look-up of domains, the sweep of blobs, and the writer of gathered refusals.
#[must_use]
pub fn start(app: App) -> Running {
    let jobs = {
        let app = app.clone();
        tokio::spawn(async move {
            loop {
                if let Err(fault) = run_due(&app).await {
                    tracing::warn!(%fault, "the scheduler will try again");
                    tokio::time::sleep(Duration::from_secs(1)).await;
                }
                tokio::time::sleep(LOOKS_EVERY).await;
            }
        })
    };
    let mails = {
        let app = app.clone();
        tokio::spawn(async move {
            loop {
                if let Err(fault) = relay::send_due(&app).await {
                    tracing::warn!(%fault, "the mail relay will try again");
                    tokio::time::sleep(Duration::from_secs(1)).await;
                }
                tokio::time::sleep(LOOKS_EVERY).await;
            }
        })
    };
    let domains = {
        let app = app.clone();
        tokio::spawn(async move {
            loop {
                if let Err(fault) = domain_look_up::look_up_due(&app).await {
                    tracing::warn!(%fault, "domains will be looked up again");
                }
                tokio::time::sleep(DOMAINS_EVERY).await;
            }
        })
    };
    let blobs = {
        let app = app.clone();
        tokio::spawn(async move {
            loop {
                tokio::time::sleep(SWEEPS_EVERY).await;
                if let Err(fault) = blobs::sweep(&app).await {
                    tracing::warn!(%fault, "the sweep of blobs will try again");
                }
            }
        })
    };
    let register = {
        let app = app.clone();
        tokio::spawn(async move {
            while app.registry.is_some() {
                if let Err(fault) = crate::account::ask_register(&app).await {
                    tracing::warn!(%fault, "the register of companies will be asked again");
                }
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
        })
    };
    let upkeep = tokio::spawn(async move {
        loop {
            tokio::time::sleep(Duration::from_secs(5)).await;
            if let Err(fault) = refusals::flush(&app, false).await {
                tracing::warn!(%fault, "refusals could not be audited yet");
            }
            if let Err(fault) = app.tokens.refresh(&app.db.read, &app.keys).await {
                tracing::warn!(%fault, "signing keys could not be read");
            }
        }
    });
    Running {
        tasks: vec![jobs, mails, domains, blobs, upkeep, register],
    }
}

/// Runs what is due, once; gives how many jobs ran.
///
/// # Errors
/// Those of the database.
pub async fn run_due(app: &App) -> Result<usize> {
    let mut ran = 0;
    for job in JOBS {
        // Jobs that leave work behind are due again at once.
        while let Some(lease) = claim(app, job).await? {
            ran += 1;
            match finish(app, job, lease).await {
                Ok(true) => {}
                Ok(false) => break,
                Err(error) => {
                    tracing::error!(job = job.name, %error, "a job failed");
                    if let Err(error) = put_aside(app, job).await {
                        tracing::error!(job = job.name, %error, "what it failed at was not put aside");
                    }
                    release(app, job, lease, &error.to_string()).await?;
                    break;
                }
            }
        }
    }
    Ok(ran)
}

/// Claims a job that is due and that nobody holds.
async fn claim(app: &App, job: &'static Job) -> Result<Option<Uuid>> {
    // A look without a transaction first: mostly nothing is due.
    let now = app.now().await?;
    let latest_due = now + job.every_us.max(AFTER_FAILURE_US) + CLOCKS_APART_US;
    let latest_lease = now + LEASE_US + CLOCKS_APART_US;
    let sql = "SELECT due_time, lease_expire_time FROM jobs WHERE name = $1";
    let row = sql::row(&app.db.read, sql, [job.name.into()]).await?;
    if let Some(row) = &row {
        let (due, lease): (i64, i64) = (
            row.try_get("", "due_time")?,
            row.try_get("", "lease_expire_time")?,
        );
        // What lies further ahead than anything is set was set by a clock that was wrong.
        if (due > now && due <= latest_due) || (lease > now && lease <= latest_lease) {
            return Ok(None);
        }
    }
    if let Some(needed) = job.needed
        && app
            .db
            .read
            .query_one_raw(Statement::from_string(app.db.backend, needed))
            .await?
            .is_none()
    {
        return Ok(None);
    }
    let lease = app.env.id(now);
    let sql = "INSERT INTO jobs (name, due_time, lease_id, lease_expire_time, attempt_count, last_error) VALUES ($1, $2, $3, $4, 1, '') \
               ON CONFLICT (name) DO UPDATE SET lease_id = excluded.lease_id, lease_expire_time = excluded.lease_expire_time, \
               attempt_count = jobs.attempt_count + 1 WHERE (jobs.due_time <= $2 OR jobs.due_time > $5) \
               AND (jobs.lease_expire_time <= $2 OR jobs.lease_expire_time > $6)";
    let values: [Value; 6] = [
        job.name.into(),
        now.into(),
        lease.into(),
        (now + LEASE_US).into(),
        latest_due.into(),
        latest_lease.into(),
    ];
    let done = app.keep_books(|db| Box::pin(sql::execute(db, sql, values)));
    let done = done.await?;
    Ok((done.rows_affected() == 1).then_some(lease))
}

/// Does a claimed job: its work and its being done in one transaction. Whether it left work behind.
async fn finish(app: &App, job: &'static Job, lease: Uuid) -> Result<bool> {
    app.job(job.name, move |tx, _| {
        Box::pin(async move {
            let now = tx.now();
            let left = (job.run)(tx).await? >= CHUNK.unsigned_abs();
            let due = if left { now } else { now + job.every_us };
            let sql = "UPDATE jobs SET due_time = $1, lease_id = NULL, lease_expire_time = 0, last_error = '' WHERE name = $2 AND lease_id = $3";
            let values: [Value; 3] = [due.into(), job.name.into(), lease.into()];
            let mine = sql::execute(tx.db(), sql, values).await?.rows_affected() == 1;
            if !mine {
                // The lease ended meanwhile, and another replica has the job: all of this is rolled back.
                return Err(crate::error::Error::internal("the lease was lost"));
            }
            Ok(left)
        })
    })
    .await
}

/// Puts the row aside that a job failed at, if the job does them one by one; the others go on when the job is due again.
async fn put_aside(app: &App, job: &'static Job) -> Result<()> {
    let Some((_, sql)) = ASIDE.iter().find(|(name, _)| *name == job.name) else {
        return Ok(());
    };
    let now = app.now().await?;
    let values: [Value; 2] = [now.into(), (now + ASIDE_US).into()];
    let done = app.keep_books(|db| Box::pin(sql::execute(db, *sql, values)));
    done.await.map(drop)
}

async fn release(app: &App, job: &'static Job, lease: Uuid, error: &str) -> Result<()> {
    let due = app.now().await? + AFTER_FAILURE_US;
    let sql = "UPDATE jobs SET due_time = $1, lease_id = NULL, lease_expire_time = 0, last_error = $2 WHERE name = $3 AND lease_id = $4";
    let short: String = error.chars().take(500).collect();
    let values: [Value; 4] = [due.into(), short.into(), job.name.into(), lease.into()];
    let done = app.keep_books(|db| Box::pin(sql::execute(db, sql, values)));
    done.await.map(drop)
}

async fn number_events(tx: &mut Tx) -> Result<u64> {
    outbox::number(tx.db(), CHUNK).await
}

/// Removes rows whose time lies `kept` back.
async fn purge(tx: &mut Tx, table: &str, key: &str, column: &str, kept: Micros) -> Result<u64> {
    let sql = format!(
        "DELETE FROM {table} WHERE ({key}) IN (SELECT {key} FROM {table} WHERE {column} <= $1 LIMIT $2)"
    );
    let values: [Value; 2] = [(tx.now() - kept).into(), CHUNK.into()];
    Ok(sql::execute(tx.db(), sql, values).await?.rows_affected())
}

async fn purge_events(tx: &mut Tx) -> Result<u64> {
    // What the relay hasn't numbered yet is kept: watchers of all scopes would see no gap.
    let sql = "DELETE FROM outbox WHERE (scope_kind, scope_id, scope_seq) IN (SELECT scope_kind, scope_id, scope_seq FROM outbox \
               WHERE create_time <= $1 AND (NOT is_first OR global_seq IS NOT NULL) ORDER BY create_time, scope_seq LIMIT $2)";
    let values: [Value; 2] = [(tx.now() - outbox::KEPT_US).into(), CHUNK.into()];
    Ok(sql::execute(tx.db(), sql, values).await?.rows_affected())
}

async fn purge_looks(tx: &mut Tx) -> Result<u64> {
    let sql = "DELETE FROM looks WHERE hour < $1";
    let hour = tx.now() / HOUR_US - 24;
    sql::execute(tx.db(), sql, [hour.into()]).await?;
    Ok(0)
}

/// Each key is a mail to every admin, so a transaction takes fewer of them.
async fn tell_of_expiring_keys(tx: &mut Tx) -> Result<u64> {
    const KEYS_A_TURN: i64 = 50;
    let due = application_key::tell_of_expiring_keys(tx, KEYS_A_TURN).await?;
    Ok(if due < KEYS_A_TURN {
        0
    } else {
        CHUNK.unsigned_abs()
    })
}

/// Networks that are neither known nor locked any more: strangers must not fill the disk.
async fn purge_networks(tx: &mut Tx) -> Result<u64> {
    let sql = "DELETE FROM sign_in_networks WHERE (user_id, network) IN (SELECT user_id, network FROM sign_in_networks \
               WHERE last_success_time < $1 AND locked_until < $2 LIMIT $3)";
    let values: [Value; 3] = [
        (tx.now() - 30 * DAY_US).into(),
        (tx.now() - DAY_US).into(),
        CHUNK.into(),
    ];
    Ok(sql::execute(tx.db(), sql, values).await?.rows_affected())
}

async fn rotate_signing_keys(tx: &mut Tx) -> Result<u64> {
    let app = tx.app().clone();
    // Replicas that start at the same time make keys under the same lock.
    tx.lock([crate::store::scope_key::ScopeKey::Operator])
        .await?;
    if token::rotate(tx.db(), &app.keys, &app.env, tx.now(), false).await? {
        tx.touch(crate::store::scope_key::ScopeKey::Operator);
    }
    Ok(0)
}

/// Runs everything that is due now, mails included, until nothing is; for tests and `entente` commands.
///
/// # Errors
/// Those of the database.
pub async fn settle(app: &App) -> Result<()> {
    while run_due(app).await? > 0 {}
    domain_look_up::look_up_due(app).await?;
    while crate::account::ask_register(app).await? > 0 {}
    relay::send_due(app).await?;
    blobs::sweep(app).await?;
    token::rotate_keys(app, false).await?;
    Ok(())
}
