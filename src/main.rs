//! The command line: serve, migrate, bootstrap, recover-admin, rotate-keys, verify-audit. No logic of its own.

use std::{
    io::{IsTerminal as _, Write as _},
    path::PathBuf,
    process::ExitCode,
    time::Duration,
};

use clap::{Args, Parser, Subcommand};
use entente::{
    access,
    app::App,
    bootstrap::{self, WayIn},
    config::{Config, LogFormat},
    env::Env,
    error::{Error, Result},
    schedule, server, start,
    store::audit,
};
use tracing_subscriber::fmt::writer::BoxMakeWriter;

/// What a call of the system that never returns may still hold of a process that is to end.
const LAST_WORK: Duration = Duration::from_secs(1);

/// The partner account centre of a partner programme or a marketplace, as one gRPC service.
#[derive(Parser)]
#[command(version)]
struct Cli {
    /// A TOML file of settings; the environment (ENTENTE_...) goes before it, flags before that.
    #[arg(long, env = entente::config::CONFIG_FILE, global = true)]
    config: Option<PathBuf>,
    #[command(flatten)]
    flags: Flags,
    #[command(subcommand)]
    command: Command,
}

/// The settings that are changed most; all others stand in the file or the environment.
#[derive(Args)]
struct Flags {
    /// Where gRPC is served.
    #[arg(long, global = true)]
    listen: Option<std::net::SocketAddr>,
    /// Where operations are served over HTTP: health, keys.
    #[arg(long, global = true)]
    ops_listen: Option<std::net::SocketAddr>,
    /// The folder of the embedded database, keys and mails.
    #[arg(long, global = true)]
    data_dir: Option<PathBuf>,
    /// Serve TestClockService; refused in production.
    #[arg(long, global = true)]
    enable_test_clock: bool,
}

#[derive(Subcommand)]
enum Command {
    /// Serves until it is told to stop. Without any settings it makes all that it needs in ./data.
    Serve,
    /// Runs the migrations that the database lacks.
    Migrate,
    /// Makes the operator's tenant and its first administrator; refuses if they are there.
    Bootstrap {
        /// Where mails to the administrator go; admin@ and `base_domain` if not set.
        #[arg(long)]
        email: Option<String>,
        /// Prints JSON: at a terminal with the one-time password, else with the file that it is left in.
        #[arg(long)]
        json: bool,
    },
    /// Makes a one-time way back for an administrator of the operator.
    RecoverAdmin {
        /// The user name within the operator's tenant.
        #[arg(long, default_value = bootstrap::ADMINISTRATOR)]
        user_name: String,
    },
    /// Makes a new signing key that takes over as soon as verifiers can know it.
    RotateKeys,
    /// Begins a new epoch, so that cursors of before are refused: to be run after a backup was restored, before it is served.
    RenewEpoch,
    /// Recomputes all audit chains; ends with 1 if one doesn't fit. Prints a checkpoint a chain.
    VerifyAudit {
        /// A file of checkpoints that were printed before; a tail that was cut since is found by them.
        #[arg(long)]
        since: Option<PathBuf>,
    },
}

fn main() -> ExitCode {
    // Before anything else: two providers are linked, and rustls must not have to choose.
    if rustls::crypto::aws_lc_rs::default_provider()
        .install_default()
        .is_err()
    {
        eprintln!("entente: the TLS provider is installed already");
    }
    let cli = Cli::parse();
    let config = match configure(&cli) {
        Ok(config) => config,
        Err(faults) => {
            for fault in faults {
                eprintln!("entente: {fault}");
            }
            return ExitCode::from(2);
        }
    };
    log(&config, matches!(cli.command, Command::Serve));
    for name in Config::strange_variables() {
        tracing::warn!(%name, "a variable of the environment begins as settings do, and is none");
    }
    let runtime = match tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
    {
        Ok(runtime) => runtime,
        Err(e) => {
            eprintln!("entente: {e}");
            return ExitCode::FAILURE;
        }
    };
    let code = match runtime.block_on(run(cli.command, config)) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("entente: {}", error.plainly());
            ExitCode::FAILURE
        }
    };
    runtime.shutdown_timeout(LAST_WORK);
    code
}

fn configure(cli: &Cli) -> std::result::Result<Config, Vec<String>> {
    let (mut config, mut faults) = Config::load(cli.config.as_deref());
    let Flags {
        listen,
        ops_listen,
        data_dir,
        enable_test_clock,
    } = &cli.flags;
    config.listen = listen.unwrap_or(config.listen);
    config.ops_listen = ops_listen.unwrap_or(config.ops_listen);
    if let Some(folder) = data_dir {
        config.data_dir.clone_from(folder);
    }
    config.enable_test_clock |= enable_test_clock;
    faults.extend(config.faults());
    if faults.is_empty() {
        Ok(config)
    } else {
        Err(faults)
    }
}

/// A server logs to standard output; what commands print there is for other programs, so they log to standard error.
fn log(config: &Config, serving: bool) {
    let filter = tracing_subscriber::EnvFilter::try_new(&config.log_filter)
        .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("info"));
    let writer = if serving {
        BoxMakeWriter::new(std::io::stdout)
    } else {
        BoxMakeWriter::new(std::io::stderr)
    };
    let is_terminal = if serving {
        std::io::stdout().is_terminal()
    } else {
        std::io::stderr().is_terminal()
    };
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(is_terminal)
        .with_writer(writer);
    match config.log_format {
        LogFormat::Human => builder.init(),
        LogFormat::Json => builder.json().init(),
    }
}

async fn run(command: Command, config: Config) -> Result<ExitCode> {
    if matches!(command, Command::Migrate) {
        let mut config = config;
        config.migrate_at_start = true;
        start::open(&config).await?;
        println!("the database is up to date");
        return Ok(ExitCode::SUCCESS);
    }
    let serving = match command {
        // The ports come first: a taken one is no reason to touch the database.
        Command::Serve => Some((
            server::take(config.listen)?,
            server::take(config.ops_listen)?,
        )),
        _ => None,
    };
    let db = start::open(&config).await?;
    let app = start::assemble(config, db, Env::system()).await?;
    match command {
        Command::Serve => {
            let Some((listener, ops)) = serving else {
                return Err(Error::internal("no port"));
            };
            first_start(&app).await?;
            let (listener, ops) = (server::listen(listener)?, server::listen(ops)?);
            let (listen, ops_listen) = (app.config.listen, app.config.ops_listen);
            tell(
                &app,
                &format!("serving gRPC on {listen}, operations on http://{ops_listen}"),
            );
            server::serve(app, listener, Some(ops), stopped()).await?;
        }
        Command::Bootstrap { email, json } => {
            let email = email.unwrap_or_else(|| bootstrap::default_email(&app.config));
            let Some(way) = bootstrap::bootstrap(&app, &email).await? else {
                return Err(Error::internal(
                    "the operator's tenant is there already; recover-admin makes a way back",
                ));
            };
            print_way(&app, &way, json)?;
        }
        Command::RecoverAdmin { user_name } => print_way(
            &app,
            &bootstrap::recover_admin(&app, &user_name).await?,
            false,
        )?,
        Command::RotateKeys => {
            access::token::rotate_keys(&app, true).await?;
            println!(
                "a new signing key is published; it signs in two hours, when verifiers know it"
            );
        }
        Command::RenewEpoch => {
            start::renew_epoch(&app).await?;
            println!("a new epoch has begun; watchers start anew");
        }
        Command::VerifyAudit { since } => return verify_audit(&app, since).await,
        Command::Migrate => {}
    }
    Ok(ExitCode::SUCCESS)
}

async fn first_start(app: &App) -> Result<()> {
    let email = bootstrap::default_email(&app.config);
    let Some(way) = bootstrap::bootstrap(app, &email).await? else {
        if bootstrap::waits_for_administrator(app).await? {
            tell(
                app,
                "no administrator has signed in yet; if the one-time password is lost, stop this server and run `entente recover-admin`",
            );
        }
        return Ok(());
    };
    schedule::settle(app).await?;
    let handed = bootstrap::hand_over(app, &way)?;
    tell(app, &format!("administrator: {}", way.sign_in_name));
    tell(app, &handed.words(&way));
    let target = app.config.listen;
    tell(
        app,
        &format!(
            "try:\n  grpcurl -plaintext {target} list\n  grpcurl -plaintext -d '{{\"password\":{{\"sign_in_name\":\"{}\",\"password\":\"<one-time \
         password>\"}}}}' {target} entente.directory.v1.SessionService/SignIn\n  grpcurl -plaintext -H 'authorization: Bearer <access token>' \
         {target} entente.directory.v1.SessionService/WhoAmI",
            way.sign_in_name
        ),
    );
    Ok(())
}

/// Says something to whoever started the server. Where a program reads standard output, it is a line of the log like all others; a password
/// is only ever said to a terminal.
fn tell(app: &App, text: &str) {
    if app.config.log_format == LogFormat::Json && !std::io::stdout().is_terminal() {
        tracing::info!("{text}");
    } else {
        println!("{text}");
    }
}

fn print_way(app: &App, way: &WayIn, json: bool) -> Result<()> {
    let handed = bootstrap::hand_over(app, way)?;
    if json {
        let mut told = serde_json::json!({
            "signInName": way.sign_in_name,
            "tenant": way.tenant,
            "user": way.user,
        });
        match handed {
            bootstrap::HandedOver::Terminal => {
                told["temporaryPassword"] = way.temporary_password.as_str().into()
            }
            bootstrap::HandedOver::File(file) => {
                told["temporaryPasswordFile"] = file.display().to_string().into()
            }
        }
        println!("{told}");
    } else {
        println!("administrator: {}\n{}", way.sign_in_name, handed.words(way));
    }
    Ok(())
}

async fn verify_audit(app: &App, since: Option<PathBuf>) -> Result<ExitCode> {
    let mut known = Vec::new();
    if let Some(file) = since {
        let text = std::fs::read_to_string(&file)
            .map_err(|e| Error::internal(format!("{}: {e}", file.display())))?;
        for line in text.lines().filter(|l| !l.trim().is_empty()) {
            known.push(
                audit::parse_checkpoint(line)
                    .ok_or_else(|| Error::internal(format!("{line} is no checkpoint")))?,
            );
        }
    }
    let (mut findings, mut checked, mut last) = (0, 0, None);
    loop {
        let scopes = audit::scopes(&app.db.read, last).await?;
        let Some(end) = scopes.last().copied() else {
            break;
        };
        for scope in scopes {
            let since = known
                .iter()
                .find(|(s, ..)| *s == scope)
                .map(|(_, seq, hash)| (*seq, hash.clone()));
            known.retain(|(s, ..)| *s != scope);
            // One snapshot a chain: calls go on meanwhile.
            let (keys, since) = (app.clone(), since);
            let verdict = app
                .look(move |snapshot| {
                    Box::pin(
                        async move { audit::verify(snapshot.db(), &keys.keys, scope, since).await },
                    )
                })
                .await?;
            checked += verdict.checked;
            findings += verdict.findings.len();
            for finding in verdict.findings {
                eprintln!("{finding}");
            }
            // Whoever reads no further wants no more of them; the chains are looked at all the same.
            if let Err(e) = writeln!(std::io::stdout(), "{}", verdict.checkpoint)
                && e.kind() != std::io::ErrorKind::BrokenPipe
            {
                return Err(Error::internal(format!("standard output: {e}")));
            }
        }
        last = Some(end);
    }
    for (scope, seq, _) in &known {
        eprintln!("{scope}: the whole chain is gone; the checkpoint knows {seq} events");
    }
    findings += known.len();
    eprintln!("{checked} events checked, {findings} findings");
    Ok(if findings == 0 {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

/// Resolves at SIGTERM or SIGINT.
async fn stopped() {
    use tokio::signal::unix::{SignalKind, signal};
    let wait = async |kind| match signal(kind) {
        Ok(mut signal) => {
            signal.recv().await;
        }
        Err(e) => {
            tracing::error!(error = %e, "a signal can't be listened to");
            std::future::pending::<()>().await;
        }
    };
    tokio::select! {
        () = wait(SignalKind::terminate()) => {}
        () = wait(SignalKind::interrupt()) => {}
    }
}
