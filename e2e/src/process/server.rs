//! `ota-server` as a process, by default on its embedded Postgres.

use std::{
    fs,
    net::SocketAddr,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::{Command, ExitStatus},
    time::Duration,
};

use ota_domain::role::Role;
use tempfile::TempDir;

use super::Process;
use crate::{Binaries, Operator, eventually};

/// How long a server may take to start: with `initdb`, on a busy machine.
const START_LIMIT: Duration = Duration::from_secs(90);

/// A server in a process of its own, with its folder in a scratch place.
#[derive(Debug)]
pub struct ServerProcess {
    process: Option<Process>,
    scheme: &'static str,
    address: SocketAddr,
    arguments: Vec<String>,
    environment: Vec<(String, String)>,
    folder: TempDir,
}

impl ServerProcess {
    /// Starts one and waits until it answers. It checks devices every second, so that no test waits for minutes.
    ///
    /// # Panics
    /// When it does not start.
    pub async fn start() -> Self {
        Self::start_with(&[]).await
    }

    /// Starts one with further arguments.
    ///
    /// # Panics
    /// When it does not start.
    pub async fn start_with(arguments: &[&str]) -> Self {
        Self::launch("https", arguments, &[]).await
    }

    /// Starts one with further arguments and with these variables in its environment.
    ///
    /// # Panics
    /// When it does not start.
    pub async fn start_in(environment: &[(String, String)], arguments: &[&str]) -> Self {
        Self::launch("https", arguments, environment).await
    }

    /// Starts one without TLS, as it runs behind a proxy that ends TLS.
    ///
    /// # Panics
    /// When it does not start.
    pub async fn plain() -> Self {
        Self::launch("http", &["--no-tls"], &[]).await
    }

    async fn launch(scheme: &'static str, arguments: &[&str], environment: &[(String, String)]) -> Self {
        let folder = tempfile::Builder::new()
            .prefix("ota-server-")
            // The account that root lends to Postgres has to get in.
            .permissions(fs::Permissions::from_mode(0o755))
            .tempdir()
            .expect("a scratch folder");
        let mut server = Self {
            process: None,
            scheme,
            address: ([127, 0, 0, 1], 0).into(),
            arguments: arguments.iter().map(ToString::to_string).collect(),
            environment: environment.to_vec(),
            folder,
        };
        server.restart().await;
        server
    }

    /// Starts it again, on the same folder and the same port.
    ///
    /// # Panics
    /// When it runs, or does not start.
    pub async fn restart(&mut self) {
        assert!(self.process.is_none(), "the server runs");
        let out = self.folder.path().join("stdout");
        fs::write(&out, "").expect("a file in the scratch folder");
        let mut command = Command::new(&Binaries::get().server);
        command
            .args(["--listen", &self.address.to_string(), "--data-dir"])
            .arg(self.data_dir())
            .args(&self.arguments)
            .env_remove("DATABASE_URL")
            .env("OTA_CHECK_IN_INTERVAL", "1s")
            .envs(self.environment.iter().map(|(name, value)| (name, value)));
        let mut process = Process::start(&mut command, &self.log(), Some(&out));
        let scheme = self.scheme;
        let url = eventually("the server says where it listens", START_LIMIT, async || {
            assert_eq!(process.ended(), None, "the server ended while it started");
            let text = fs::read_to_string(&out).ok()?;
            Some(text.strip_prefix(scheme)?.strip_prefix("://")?.strip_suffix('\n')?.to_owned())
        });
        self.address = url.await.parse().expect("the server prints its address");
        self.process = Some(process);
    }

    /// Kills it as a power cut would.
    ///
    /// # Panics
    /// When it does not run.
    pub fn kill(&mut self) {
        self.process.take().expect("the server runs").kill();
    }

    /// Tells it to stop and waits for its end.
    ///
    /// # Panics
    /// When it does not run or does not end.
    pub async fn terminate(&mut self) -> ExitStatus {
        let mut process = self.process.take().expect("the server runs");
        process.terminate().await
    }

    /// Waits for its end, which something else brings about.
    ///
    /// # Panics
    /// When it does not run or does not end.
    pub async fn end(&mut self) -> ExitStatus {
        let mut process = self.process.take().expect("the server runs");
        process.end().await
    }

    /// Returns the running process.
    ///
    /// # Panics
    /// When it does not run.
    pub fn process(&mut self) -> &mut Process {
        self.process.as_mut().expect("the server runs")
    }

    /// Returns where it listens; it stays the same over restarts.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Returns where it listens, as devices and operators write it.
    #[must_use]
    pub fn url(&self) -> String {
        format!("{}://{}", self.scheme, self.address)
    }

    /// Returns the file with the certificate of the server's authority.
    #[must_use]
    pub fn authority_file(&self) -> PathBuf {
        self.data_dir().join("ca.pem")
    }

    /// Returns the file with the first admin's token.
    #[must_use]
    pub fn admin_token_file(&self) -> PathBuf {
        self.data_dir().join("admin-token")
    }

    /// Calls as the first admin.
    ///
    /// # Panics
    /// When the server left no token.
    #[must_use]
    pub fn admin(&self) -> Operator {
        let token = fs::read_to_string(self.admin_token_file()).expect("the first start leaves a token");
        Operator::new(&self.url(), token.trim())
    }

    /// Calls as somebody whom the admin gives this role.
    pub async fn operator(&self, role: Role) -> Operator {
        self.admin().appoint(role).await
    }

    /// Returns the folder with all it keeps.
    #[must_use]
    pub fn data_dir(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    /// Returns a folder for whatever else the test needs.
    #[must_use]
    pub fn scratch(&self) -> &Path {
        self.folder.path()
    }

    /// Returns the file with what it says on standard error.
    #[must_use]
    pub fn log(&self) -> PathBuf {
        self.folder.path().join("log")
    }
}
