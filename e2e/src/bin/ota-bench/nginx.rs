//! The baseline of downloads: nginx serving a folder over HTTP/2 without encryption, set up by someone who wants it fast.

use std::{fs, net::TcpListener, path::Path, process::Command, time::Duration};

use anyhow::{Context as _, bail};
use tempfile::TempDir;
use tokio::net::TcpStream;

use crate::child::Child;

/// How long it may take to listen.
const START_TRIES: u32 = 250;
const START_PAUSE: Duration = Duration::from_millis(20);

/// How it brings a file to the connection.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Sending {
    /// By `sendfile`, straight from the page cache, frame by frame: what every guide recommends.
    Sendfile,
    /// Through two buffers of 1 MiB, many frames at a time: cheaper where the network card does not copy, as here.
    Buffers,
}

impl Sending {
    /// Its name as a baseline.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Sendfile => "nginx h2c",
            Self::Buffers => "nginx h2c without sendfile",
        }
    }
}

/// A running nginx.
#[derive(Debug)]
pub(crate) struct Nginx {
    /// Where it listens.
    pub(crate) authority: String,
    /// Its master; the workers are its children.
    pub(crate) process: Child,
    _folder: TempDir,
}

impl Nginx {
    /// Tells whether it is installed.
    pub(crate) fn is_installed() -> bool {
        Command::new("nginx").arg("-v").output().is_ok_and(|output| output.status.success())
    }

    /// Starts it on the files of `root`, with frames of `chunk` bytes.
    pub(crate) async fn start(scratch: &Path, root: &Path, chunk: u32, sending: Sending) -> anyhow::Result<Self> {
        let folder = crate::scratch_folder(scratch)?;
        // nginx cannot say which port it got, so it is told one that is free a moment before.
        let authority = TcpListener::bind("127.0.0.1:0")?.local_addr()?.to_string();
        let file = folder.path().join("nginx.conf");
        fs::write(&file, configuration(folder.path(), root, &authority, chunk, sending))?;
        let mut command = Command::new("nginx");
        command.arg("-c").arg(&file).arg("-p").arg(folder.path()).args(["-e", "stderr"]);
        let process = Child::start("nginx", &mut command)?;
        let nginx = Self { authority, process, _folder: folder };
        let mut tries = 0;
        while let Err(error) = TcpStream::connect(&nginx.authority).await {
            tries += 1;
            if tries == START_TRIES {
                bail!("nginx does not listen: {error}");
            }
            tokio::time::sleep(START_PAUSE).await;
        }
        Ok(nginx)
    }

    /// Its version, as it says it.
    pub(crate) fn version() -> anyhow::Result<String> {
        let output = Command::new("nginx").arg("-v").output().context("cannot ask nginx for its version")?;
        Ok(String::from_utf8_lossy(&output.stderr).trim().trim_start_matches("nginx version: ").to_owned())
    }
}

/// A worker for each core, frames as large as the client takes, no
/// logs, files kept open. `reuseport` spreads the connections evenly over the workers.
fn configuration(folder: &Path, root: &Path, authority: &str, chunk: u32, sending: Sending) -> String {
    let sendfile = match sending {
        Sending::Sendfile => "on",
        Sending::Buffers => "off",
    };
    let user = if rustix::process::geteuid().is_root() { "user root;" } else { "" };
    let (folder, root) = (folder.display(), root.display());
    format!(
        "daemon off;
{user}
worker_processes auto;
pid {folder}/nginx.pid;
error_log stderr warn;
events {{
    worker_connections 4096;
}}
http {{
    access_log off;
    default_type application/octet-stream;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    sendfile {sendfile};
    sendfile_max_chunk 2m;
    tcp_nopush on;
    tcp_nodelay on;
    output_buffers 2 1m;
    open_file_cache max=64 inactive=1h;
    http2_chunk_size {chunk};
    server {{
        listen {authority} http2 reuseport;
        root {root};
    }}
}}
"
    )
}
