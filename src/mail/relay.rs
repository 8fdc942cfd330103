//! The relay: claims queued mails with a lease, hands them over outside of any transaction, and says so. A mail that fails waits,
//! longer each time; none is lost, and nothing else waits for it.

use std::{fs, io::Write as _, os::unix::fs::OpenOptionsExt as _, path::Path};

use lettre::{
    Message,
    message::{
        Mailbox, MultiPart,
        header::{HeaderName, HeaderValue},
    },
};
use sea_orm::{ConnectionTrait, DbBackend, FromQueryResult, Statement, Value};
use uuid::Uuid;

use super::{place, render::render};
use crate::{
    app::App,
    env::{HOUR_US, MINUTE_US, MailTransport, Micros, SECOND_US},
    error::{Error, Language, Result},
    store::sql,
};

/// A mail is given up after so many tries, about three days; ResendMail tries anew.
const MOST_ATTEMPTS: i64 = 24;
/// The first pause after a failure; doubled each time.
const FIRST_PAUSE_US: Micros = 15 * SECOND_US;
/// The longest pause.
const LONGEST_PAUSE_US: Micros = 4 * HOUR_US;
/// A relay holds a mail so long; a killed one's mails go to another after.
const LEASE_US: Micros = 2 * MINUTE_US;
/// What a mail is told to have failed by; the log has the rest, which is nothing for readers of mails.
const DELIVERY_FAILED: &str = "DELIVERY_FAILED";
/// Mails claimed at a time.
const BATCH: i64 = 50;

#[derive(FromQueryResult)]
struct Due {
    id: Uuid,
    recipient: String,
    template: String,
    language: String,
    sealed_values: Vec<u8>,
    attempt_count: i64,
    create_time: i64,
}

/// Sends what is due; gives how many were sent.
///
/// # Errors
/// Those of the database; a mail's own failure is only noted with it.
pub async fn send_due(app: &App) -> Result<usize> {
    let mut sent = 0;
    loop {
        let now = app.now().await?;
        let lease = app.env.id(now);
        let mails = claim(app, lease, now).await?;
        if mails.is_empty() {
            return Ok(sent);
        }
        for mail in mails {
            let outcome = hand_over(app, &mail);
            let failed = outcome.is_err();
            done(app, &mail, lease, outcome).await?;
            sent += usize::from(!failed);
        }
    }
}

async fn claim(app: &App, lease: Uuid, now: Micros) -> Result<Vec<Due>> {
    // A look without a lock first: mostly nothing is due.
    let sql = "SELECT 1 AS one FROM mails WHERE state = 1 AND next_attempt_time <= $1 LIMIT 1";
    let any = sql::row(&app.db.read, sql, [now.into()]).await?;
    if any.is_none() {
        return Ok(Vec::new());
    }
    let skip = if app.db.backend == DbBackend::Postgres {
        " FOR UPDATE SKIP LOCKED"
    } else {
        ""
    };
    let sql = format!(
        "UPDATE mails SET lease_id = $1, next_attempt_time = $2 WHERE id IN \
         (SELECT id FROM mails WHERE state = 1 AND next_attempt_time <= $3 ORDER BY next_attempt_time LIMIT $4{skip}) \
         RETURNING id, recipient, template, language, sealed_values, attempt_count, create_time"
    );
    let values: [Value; 4] = [
        lease.into(),
        (now + LEASE_US).into(),
        now.into(),
        BATCH.into(),
    ];
    app.keep_books(|db| Box::pin(sql::all::<Due, _>(db, sql, values)))
        .await
}

async fn done(app: &App, mail: &Due, lease: Uuid, outcome: Result<()>) -> Result<()> {
    let now = app.now().await?;
    let attempts = mail.attempt_count + 1;
    let backend = app.db.backend;
    let statement = match outcome {
        Ok(()) => {
            // Sent mails keep no secrets.
            let sql = "UPDATE mails SET state = 2, send_time = $1, attempt_count = $2, last_error = '', sealed_values = $3, lease_id = NULL, \
                       version = version + 1 WHERE id = $4 AND lease_id = $5";
            let values: [Value; 5] = [
                now.into(),
                attempts.into(),
                Value::Bytes(Some(Vec::new())),
                mail.id.into(),
                lease.into(),
            ];
            Statement::from_sql_and_values(backend, sql, values)
        }
        Err(error) => {
            tracing::warn!(mail = %mail.id, attempts, %error, "a mail could not be sent");
            let pause = FIRST_PAUSE_US
                .saturating_mul(1 << attempts.clamp(0, 20))
                .min(LONGEST_PAUSE_US);
            let state: i64 = if attempts >= MOST_ATTEMPTS { 3 } else { 1 };
            let sql = "UPDATE mails SET state = $1, next_attempt_time = $2, attempt_count = $3, last_error = $4, lease_id = NULL, \
                       version = version + 1 WHERE id = $5 AND lease_id = $6";
            let values: [Value; 6] = [
                state.into(),
                (now + pause).into(),
                attempts.into(),
                DELIVERY_FAILED.into(),
                mail.id.into(),
                lease.into(),
            ];
            Statement::from_sql_and_values(backend, sql, values)
        }
    };
    let done = app.keep_books(|db| Box::pin(async move { Ok(db.execute_raw(statement).await?) }));
    done.await.map(drop)
}

/// Renders a mail and hands it over: by default to the folder of mails, under its own name, so that twice is once.
fn hand_over(app: &App, mail: &Due) -> Result<()> {
    let plain = app.keys.open(&place(mail.id), &mail.sealed_values)?;
    let values = serde_json::from_slice(&plain).map_err(|e| Error::internal(e.to_string()))?;
    let rendered = render(&mail.template, Language::of_tag(&mail.language), &values)?;
    let fault = |e: &dyn std::fmt::Display| Error::internal(format!("mail {}: {e}", mail.id));
    let to: Mailbox = mail
        .recipient
        .parse()
        .map_err(|e: lettre::address::AddressError| fault(&e))?;
    let from: Mailbox = app
        .config
        .mail_from
        .parse()
        .map_err(|e: lettre::address::AddressError| fault(&e))?;
    let domain = from.email.domain().to_owned();
    let seconds = u64::try_from(mail.create_time / SECOND_US).unwrap_or(0);
    let mut message = Message::builder()
        .from(from)
        .to(to)
        .subject(rendered.subject)
        .message_id(Some(format!("<{}@{domain}>", mail.id)))
        .date(std::time::UNIX_EPOCH + std::time::Duration::from_secs(seconds))
        .multipart(MultiPart::alternative_plain_html(
            rendered.text,
            rendered.html,
        ))
        .map_err(|e| fault(&e))?;
    let auto = HeaderName::new_from_ascii_str("Auto-Submitted");
    message
        .headers_mut()
        .insert_raw(HeaderValue::new(auto, "auto-generated".to_owned()));
    match app.env.mail {
        MailTransport::Folder => write_eml(
            &app.config.data_dir.join("mails"),
            mail.id,
            &message.formatted(),
        )
        .map_err(|e| fault(&e)),
    }
}

/// Writes the file whole or not at all.
fn write_eml(folder: &Path, id: Uuid, bytes: &[u8]) -> std::io::Result<()> {
    fs::create_dir_all(folder)?;
    let (temporary, whole) = (
        folder.join(format!(".{id}.part")),
        folder.join(format!("{id}.eml")),
    );
    // Mails may carry ways in.
    let mut file = fs::OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&temporary)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(temporary, whole)?;
    fs::File::open(folder)?.sync_all()
}
