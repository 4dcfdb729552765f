//! `ota-server`: reads the command line, runs, and says in plain words what went wrong.

use std::{error::Error, io::IsTerminal, net::SocketAddr, path::PathBuf, process::ExitCode, sync::Arc, time::Duration};

use chrono::Utc;
use clap::{CommandFactory as _, FromArgMatches as _, Parser, Subcommand, ValueEnum, builder::Resettable};
use ota_server::{
    app, ca,
    config::{Config, Schema},
    keys,
    serve::health::READINESS,
    server::{AUTHORITY_FILE, Database, Server, StartError},
};
use ota_tls::{Connector, DefaultTimeProvider, IdentitySlot, SeenCertificates, ServerTrust};
use sd_notify::NotifyState;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tonic_health::pb::{HealthCheckRequest, health_check_response::ServingStatus, health_client::HealthClient};
use tracing_subscriber::EnvFilter;

/// As in the image. The C library's own allocator has one lock for all threads.
#[cfg(target_env = "musl")]
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// The control plane that updates a fleet of devices over the air.
///
/// Needs nothing to start: without a database URL it runs a Postgres of its own inside the data directory. The first
/// start leaves an admin token there and prints how to log in with it.
#[derive(Debug, Parser)]
#[command(name = "ota-server", version, args_conflicts_with_subcommands = false, after_help = EXAMPLES)]
struct Cli {
    #[command(subcommand)]
    command: Option<Command>,

    #[command(flatten)]
    config: Config,

    /// What to log: a level (error, warn, info, debug, trace) or filters such as info,ota_server=debug.
    #[arg(long, env = "OTA_LOG", global = true, default_value = "info", value_name = "FILTER")]
    log: String,

    /// How to write logs.
    #[arg(long, env = "OTA_LOG_FORMAT", global = true, default_value = "text")]
    log_format: LogFormat,
}

const EXAMPLES: &str = "\
Examples:
  ota-server                                          a server with everything in its data directory
  ota-server --data-dir ./scratch --listen 127.0.0.1:0
  ota-server --database-url postgres://ota@db/ota --blob-store s3://payloads/ota
  ota-server authority > ca.pem                       for otactl login --ca-file
  ota-server healthcheck                              exit 0 when the server at --listen is ready";

#[derive(Debug, Subcommand)]
enum Command {
    /// Serve until told to stop by SIGTERM or Ctrl-C. The default.
    Serve,
    /// Bring the database's schema up to date and exit. Several may run at once.
    Migrate,
    /// Ask the server at --listen whether it is ready: exit 0 when it is, 1 when not.
    Healthcheck,
    /// Make a new admin token, for when the first one is lost, and print it. Needs the database, not the server.
    AdminToken {
        /// Who will use it.
        #[arg(default_value = "admin")]
        name: String,
    },
    /// Print the certificate of the server's own authority in PEM, for clients to check the server with. Needs the database,
    /// not the server.
    Authority,
    /// Seal the server's private keys under a new key-encryption key. Needs the database; stop every server on it first.
    ///
    /// Without --new-key-file the new key takes the place of --key-file, and the old one stays beside it for backups of the
    /// database. A run that was interrupted is repeated.
    RotateKeyEncryptionKey {
        /// File with the new key, made when there is none. The servers then have to be given it with --key-file.
        #[arg(long, value_name = "FILE")]
        new_key_file: Option<PathBuf>,
    },
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

#[tokio::main]
async fn main() -> ExitCode {
    let cli = match Cli::from_arg_matches(&given_variables(Cli::command()).get_matches()) {
        Ok(cli) => cli,
        Err(error) => error.exit(),
    };
    if let Err(error) = start_logging(&cli.log, cli.log_format) {
        eprintln!("error: --log: {error}");
        return ExitCode::from(2);
    }
    let result = match cli.command {
        None | Some(Command::Serve) => serve(&cli.config).await,
        Some(Command::Migrate) => migrate(&cli.config).await,
        Some(Command::Healthcheck) => return healthcheck(&cli.config).await,
        Some(Command::AdminToken { name }) => admin_token(&cli.config, &name).await,
        Some(Command::Authority) => authority(&cli.config).await,
        Some(Command::RotateKeyEncryptionKey { new_key_file }) => {
            rotate_key_encryption_key(&cli.config, new_key_file).await
        }
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(Failure { error, hint }) => {
            complain(error.as_ref());
            if let Some(hint) = hint {
                eprintln!("hint: {hint}");
            }
            ExitCode::FAILURE
        }
    }
}

/// Takes an empty variable for one that is not there: orchestrators and shells write it where nothing is to be said.
fn given_variables(command: clap::Command) -> clap::Command {
    command.mut_args(|arg| {
        let empty = arg.get_env().and_then(std::env::var_os).is_some_and(|value| value.is_empty());
        if empty { arg.env(Resettable::Reset) } else { arg }
    })
}

/// What went wrong, and what the operator can do about it.
struct Failure {
    error: Box<dyn Error>,
    hint: Option<&'static str>,
}

impl From<StartError> for Failure {
    fn from(error: StartError) -> Self {
        Self { hint: error.hint(), error: error.into() }
    }
}

impl From<keys::OpenError> for Failure {
    fn from(error: keys::OpenError) -> Self {
        Self { hint: error.hint(), error: error.into() }
    }
}

impl From<std::io::Error> for Failure {
    fn from(error: std::io::Error) -> Self {
        Self { error: error.into(), hint: None }
    }
}

fn complain(error: &dyn Error) {
    eprintln!("error: {error}");
    let mut source = error.source();
    while let Some(error) = source {
        eprintln!("  because: {error}");
        source = error.source();
    }
}

fn start_logging(filter: &str, format: LogFormat) -> Result<(), tracing_subscriber::filter::ParseError> {
    let filter: EnvFilter = filter.parse()?;
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    match format {
        LogFormat::Text => builder.with_ansi(std::io::stderr().is_terminal()).init(),
        LogFormat::Json => builder.json().flatten_event(true).init(),
    }
    Ok(())
}

async fn serve(config: &Config) -> Result<(), Failure> {
    let stopping = CancellationToken::new();
    let mut told = ToldToStop::new()?;
    let start = Server::start(config, stopping.clone());
    tokio::pin!(start);
    let mut server = tokio::select! {
        server = &mut start => server?,
        () = told.once() => {
            stopping.cancel();
            return match start.await {
                Ok(server) => {
                    server.stop().await;
                    Ok(())
                }
                Err(StartError::Stopped) => Ok(()),
                Err(error) => Err(error.into()),
            };
        }
    };
    announce(&server, config);
    tell_service_manager(&NotifyState::Ready);
    let failed = tokio::select! {
        () = told.once() => withdraw(&mut server, config.stop_delay, &mut told).await,
        () = server.database_died() => true,
    };
    tell_service_manager(&NotifyState::Stopping);
    tracing::info!("stopping: calls in progress may finish");
    server.stop().await;
    if failed {
        return Err(Failure {
            error: "the private Postgres died".into(),
            hint: Some("its log is in the data directory"),
        });
    }
    Ok(())
}

/// Lets load balancers notice that the server goes. Answers whether the database died meanwhile.
async fn withdraw(server: &mut Server, delay: Duration, told: &mut ToldToStop) -> bool {
    if delay.is_zero() {
        return false;
    }
    tracing::info!(?delay, "not ready from now on: stopping after the delay, or when told again");
    server.withdraw();
    tokio::select! {
        () = tokio::time::sleep(delay) => false,
        () = told.once() => false,
        () = server.database_died() => true,
    }
}

/// The signals that mean: stop.
struct ToldToStop {
    interrupted: Signal,
    terminated: Signal,
}

impl ToldToStop {
    fn new() -> std::io::Result<Self> {
        Ok(Self { interrupted: signal(SignalKind::interrupt())?, terminated: signal(SignalKind::terminate())? })
    }

    /// Waits for the next one.
    async fn once(&mut self) {
        tokio::select! {
            _ = self.interrupted.recv() => {}
            _ = self.terminated.recv() => {}
        }
    }
}

/// Tells systemd, where that has started the server, how far it is.
fn tell_service_manager(state: &NotifyState<'_>) {
    if let Err(error) = sd_notify::notify(std::slice::from_ref(state)) {
        tracing::warn!(%error, "cannot tell the service manager: {state}");
    }
}

/// Says where the server is and what to do next. The address alone goes to standard output, for scripts.
fn announce(server: &Server, config: &Config) {
    let url = url(config, server.address);
    println!("{url}");
    let database = if config.has_database() { "the Postgres you named" } else { "a Postgres of its own" };
    tracing::info!(version = env!("CARGO_PKG_VERSION"), %url, data_dir = %config.data_dir.display(), "serving with {database}");
    // Where operators log in.
    let url = server.admin_address.map_or(url, |address| self::url(config, address));
    if server.admin_address.is_some() {
        tracing::info!(%url, "serving the admin API");
    }
    if let Some(file) = &server.admin_token_file {
        eprintln!("First start: the admin token is in {}", file.display());
        let authority = if config.tls.no_tls || config.tls.tls_cert.is_some() {
            String::new()
        } else {
            format!(" --ca-file {}", config.data_dir.join(AUTHORITY_FILE).display())
        };
        eprintln!("Next:        otactl login {url} --token-file {}{authority}", file.display());
    }
}

/// What clients write.
fn url(config: &Config, address: SocketAddr) -> String {
    let scheme = if config.tls.no_tls { "http" } else { "https" };
    format!("{scheme}://{address}")
}

async fn migrate(config: &Config) -> Result<(), Failure> {
    // Whatever servers are told: this is the somebody else for whom they wait.
    let config = Config { schema: Schema::Migrate, ..config.clone() };
    Database::open(&config, &CancellationToken::new()).await?.close().await;
    eprintln!("The schema is current.");
    Ok(())
}

async fn admin_token(config: &Config, name: &str) -> Result<(), Failure> {
    let database = Database::open(config, &CancellationToken::new()).await?;
    let token = app::access::create_admin(&database.pool, name, Utc::now()).await;
    database.close().await;
    println!("{}", token.map_err(|error| Failure { error: error.into(), hint: None })?);
    Ok(())
}

async fn authority(config: &Config) -> Result<(), Failure> {
    let database = Database::connect(config).await?;
    let certificate = keys::authority_certificate(&database.pool).await;
    database.close().await;
    print!("{}", ca::pem(&certificate?));
    Ok(())
}

async fn rotate_key_encryption_key(config: &Config, new_key_file: Option<PathBuf>) -> Result<(), Failure> {
    let file = config.key_file();
    let new = new_key_file.clone().unwrap_or_else(|| {
        let mut new = file.clone().into_os_string();
        new.push(".new");
        new.into()
    });
    let database = Database::open(config, &CancellationToken::new()).await?;
    let done = keys::reseal(&database.pool, &file, &new).await;
    database.close().await;
    let keys::Resealed { keys, id } = done?;
    eprintln!("{keys} keys were sealed anew; the key-encryption key is {id} from now on.");
    if new_key_file.is_some() {
        eprintln!("Start the servers with --key-file {}", new.display());
    } else if let Some(old) = keys::replace_file(&file, &new)? {
        eprintln!("It is in {}. The one before it is in {}:", file.display(), old.display());
        eprintln!("backups of the database that are older need that one. Delete it with them.");
    }
    Ok(())
}

async fn healthcheck(config: &Config) -> ExitCode {
    const TIMEOUT: Duration = Duration::from_secs(5);
    let check = async {
        let server = url(config, config.listen).parse()?;
        let connector = if config.tls.no_tls {
            Connector::plain(&server)?
        } else {
            // Nothing is told that anybody may not know.
            let any = ServerTrust::Pinning(SeenCertificates::default());
            Connector::tls(&server, any, IdentitySlot::default(), Arc::new(DefaultTimeProvider))?
        };
        let mut client = HealthClient::new(connector.connect(&connector.endpoint()).await?);
        let answer = client.check(HealthCheckRequest { service: READINESS.to_owned() }).await?;
        Ok::<_, Box<dyn Error>>(answer.into_inner().status())
    };
    match tokio::time::timeout(TIMEOUT, check).await {
        Ok(Ok(ServingStatus::Serving)) => ExitCode::SUCCESS,
        Ok(Ok(status)) => {
            eprintln!("error: the server at {} is {}", config.listen, status.as_str_name());
            ExitCode::FAILURE
        }
        Ok(Err(_)) | Err(_) => {
            eprintln!(
                "error: no server answers at {}\nhint: name its address with --listen, and say --no-tls when it does",
                config.listen
            );
            ExitCode::FAILURE
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }
}
