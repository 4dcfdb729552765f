//! A real S3-compatible store in a process of its own: SeaweedFS, which keeps what it took when it is killed.
//!
//! `scripts/setup.sh object-store` installs it. Where it is missing the tests that need it say so and end, and with
//! `CI=true` they fail.

use std::{
    fs,
    net::TcpListener,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use http::Method;
use object_store::{
    ClientOptions,
    aws::{AwsAuthorizer, AwsCredential},
    client::{HttpClient, HttpConnector as _, HttpRequestBody, HttpResponse, ReqwestConnector},
};
use tempfile::TempDir;

use crate::{eventually, process::Process};

/// The bucket that is there from the beginning.
pub const BUCKET: &str = "payloads";
const REGION: &str = "us-east-1";
const KEY_ID: &str = "OTATESTKEY";
const SECRET: &str = "a secret of the tests";

/// How long the store may take to start on a busy machine. Alone it takes 3 s.
const START_LIMIT: Duration = Duration::from_secs(90);

/// Ports of the master, the volume server, the filer and the S3 gateway, two each: the store wants to be told them all.
const PORTS: [&str; 8] = [
    "master.port",
    "master.port.grpc",
    "volume.port",
    "volume.port.grpc",
    "filer.port",
    "filer.port.grpc",
    "s3.port",
    "s3.port.grpc",
];

/// A store with an empty bucket. It listens on 127.0.0.1, over plain HTTP.
#[derive(Debug)]
pub struct ObjectStore {
    process: Option<Process>,
    ports: [u16; PORTS.len()],
    folder: TempDir,
    client: HttpClient,
}

impl ObjectStore {
    /// Starts one, unless the program is missing.
    ///
    /// # Panics
    /// When it does not start; when the program is missing and `CI=true`.
    pub async fn start() -> Option<Self> {
        let program = program();
        if !program.exists() {
            assert!(
                std::env::var("CI").as_deref() != Ok("true"),
                "SeaweedFS is missing: scripts/setup.sh object-store"
            );
            eprintln!("NOT TESTED: the server on an S3-compatible store. Run scripts/setup.sh object-store.");
            return None;
        }
        let folder = TempDir::with_prefix("ota-object-store-").expect("a scratch folder");
        let identity = serde_json::json!({"identities": [{
            "name": "ota",
            "credentials": [{"accessKey": KEY_ID, "secretKey": SECRET}],
            "actions": ["Admin", "Read", "Write", "List", "Tagging"],
        }]});
        fs::write(folder.path().join("s3.json"), identity.to_string()).expect("a file in the scratch folder");
        fs::create_dir(folder.path().join("data")).expect("a scratch folder");
        let client = ReqwestConnector::default().connect(&ClientOptions::new().with_allow_http(true));
        let client = client.expect("an HTTP client");
        let mut store = Self { process: None, ports: free_ports(), folder, client };
        store.restart().await;
        let made = store.call(Method::PUT, &format!("/{BUCKET}")).await.expect("the store answers");
        assert!(made.status().is_success(), "{made:?}");
        Some(store)
    }

    /// Starts it again on what it has, at the same address.
    ///
    /// # Panics
    /// When it runs, or does not start.
    pub async fn restart(&mut self) {
        assert!(self.process.is_none(), "the store runs");
        self.begin();
        self.answers().await;
    }

    fn begin(&mut self) {
        let data = self.folder.path().join("data");
        let mut command = Command::new(program());
        command
            .args(["-logtostderr", "server", "-ip=127.0.0.1", "-ip.bind=127.0.0.1", "-filer", "-s3"])
            .args(PORTS.iter().zip(self.ports).map(|(name, port)| format!("-{name}={port}")))
            .arg(format!("-dir={}", data.display()))
            .arg(format!("-s3.config={}", self.folder.path().join("s3.json").display()))
            .arg(format!("-filer.localSocket={}", data.join("filer.sock").display()))
            .arg(format!("-s3.localSocket={}", data.join("s3.sock").display()))
            // Only what is needed: no other interfaces, no word to its makers, no bucket that nobody made.
            .args(["-s3.port.iceberg=0", "-s3.port.lance=0", "-master.telemetry=false", "-s3.autoCreateBucket=false"])
            // It is alone and elects itself at once; its default is to wait 10 s for others.
            .args(["-master.electionTimeout=500ms", "-master.heartbeatInterval=100ms", "-volume.preStopSeconds=0"])
            .args(["-master.volumeSizeLimitMB=256", "-volume.max=100"]);
        self.process = Some(Process::start(&mut command, &self.folder.path().join("log"), None));
    }

    async fn answers(&mut self) {
        eventually("the object store answers", START_LIMIT, async || {
            let ended = self.process.as_mut().expect("the store was started").ended();
            assert_eq!(ended, None, "the object store ended while it started");
            let answer = self.call(Method::GET, "/").await.ok()?;
            answer.status().is_success().then_some(())
        })
        .await;
    }

    /// Kills it as a power cut would.
    ///
    /// # Panics
    /// When it does not run.
    pub fn kill(&mut self) {
        self.process.take().expect("the store runs").kill();
    }

    /// Returns where it listens.
    #[must_use]
    pub fn endpoint(&self) -> String {
        format!("http://127.0.0.1:{}", self.ports[6])
    }

    /// Returns what `--blob-store` takes.
    #[must_use]
    pub fn url(&self) -> String {
        format!("s3://{BUCKET}/ota")
    }

    /// Returns the variables with which a server finds the store and gets in.
    #[must_use]
    pub fn environment(&self) -> [(String, String); 4] {
        [
            ("AWS_ENDPOINT", self.endpoint().as_str()),
            ("AWS_REGION", REGION),
            ("AWS_ACCESS_KEY_ID", KEY_ID),
            ("AWS_SECRET_ACCESS_KEY", SECRET),
        ]
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
    }

    /// Returns the keys of the objects in the bucket.
    ///
    /// # Panics
    /// When the store does not answer.
    pub async fn objects(&self) -> Vec<String> {
        self.list("list-type=2", "Key").await
    }

    /// Returns the ids of the multipart uploads that were begun and neither completed nor aborted.
    ///
    /// # Panics
    /// When the store does not answer.
    pub async fn multipart_uploads(&self) -> Vec<String> {
        self.list("uploads=", "UploadId").await
    }

    /// Deletes the bucket with all that is in it.
    ///
    /// # Panics
    /// When the store does not do it.
    pub async fn delete_bucket(&self) {
        let answer = self.call(Method::DELETE, &format!("/{BUCKET}")).await.expect("the store answers");
        assert!(answer.status().is_success(), "{answer:?}");
    }

    async fn list(&self, query: &str, element: &str) -> Vec<String> {
        let answer = self.call(Method::GET, &format!("/{BUCKET}?{query}")).await.expect("the store answers");
        let status = answer.status();
        let body = answer.into_body().bytes().await.expect("the store answers");
        let text = String::from_utf8_lossy(&body);
        assert!(status.is_success(), "{status}: {text}");
        let begin = format!("<{element}>");
        text.split(&begin).skip(1).filter_map(|rest| Some(rest.split_once('<')?.0.to_owned())).collect()
    }

    async fn call(
        &self,
        method: Method,
        path: &str,
    ) -> object_store::Result<HttpResponse, object_store::client::HttpError> {
        let credential = AwsCredential { key_id: KEY_ID.to_owned(), secret_key: SECRET.to_owned(), token: None };
        let request = http::Request::builder().method(method).uri(format!("{}{path}", self.endpoint()));
        let mut request = request.body(HttpRequestBody::empty()).expect("a request");
        let signer = AwsAuthorizer::new(&credential, "s3", REGION);
        signer.try_authorize(&mut request, None).expect("a request that can be signed");
        self.client.execute(request).await
    }
}

impl Drop for ObjectStore {
    fn drop(&mut self) {
        self.process.take();
        // Where these are cannot be chosen.
        for (name, port) in ["master", "volume", "filer", "s3"].iter().zip(self.ports.iter().skip(1).step_by(2)) {
            fs::remove_file(format!("/tmp/seaweedfs-{name}-grpc-{port}.sock")).ok();
        }
    }
}

fn program() -> PathBuf {
    let project = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("this package lies in the project's folder");
    project.join(".tools/object-store/bin/weed")
}

/// Finds ports that nobody listens on, below those that systems give out by themselves: while the store is away, nobody else
/// is given one of them.
fn free_ports() -> [u16; PORTS.len()] {
    let free = || {
        let port = rand::random_range(10_000..32_768);
        TcpListener::bind(("127.0.0.1", port)).ok()
    };
    let listeners = PORTS.map(|_| std::iter::repeat_with(free).flatten().next().expect("a free port"));
    listeners.map(|listener| listener.local_addr().expect("a listener has an address").port())
}
