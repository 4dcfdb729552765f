//! A repository that python-tuf writes, and the program that follows it.

use std::io::{BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use serde_json::Value;

/// Names the Python that has `tuf`; `make test` sets it.
const PYTHON: &str = "OTA_PYTHON";

/// Both, and the folders between them.
pub(crate) struct World {
    python: Child,
    lines: BufReader<ChildStdout>,
    input: ChildStdin,
    url: String,
    folder: tempfile::TempDir,
}

impl World {
    /// A repository whose first root is trusted. None where there is no Python to write it, which CI does not let pass.
    pub(crate) fn start() -> Option<Self> {
        let world = Self::untrusted()?;
        assert!(world.client(&["init", world.path("first.json").to_str().unwrap()]));
        Some(world)
    }

    /// A repository that is not trusted yet.
    pub(crate) fn untrusted() -> Option<Self> {
        let Some(python) = std::env::var_os(PYTHON) else {
            assert!(std::env::var("CI").as_deref() != Ok("true"), "{PYTHON} is not set: no independent writer");
            eprintln!("NOT TESTED: repositories of an independent writer. Name a Python with tuf in {PYTHON}.");
            return None;
        };
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/tuf/repository.py");
        let mut python = Command::new(python).arg(script).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let input = python.stdin.take().unwrap();
        let mut lines = BufReader::new(python.stdout.take().unwrap());
        let greeting = answer(&mut lines);
        let folder = tempfile::tempdir().unwrap();
        for name in ["metadata", "targets"] {
            std::fs::create_dir(folder.path().join(name)).unwrap();
        }
        std::fs::write(folder.path().join("first.json"), greeting["root"].as_str().unwrap()).unwrap();
        Some(Self { python, lines, input, url: greeting["url"].as_str().unwrap().to_owned(), folder })
    }

    /// Runs a line of Python in the repository, and returns what its last expression is.
    pub(crate) fn python(&mut self, line: &str) -> Value {
        assert!(!line.contains('\n'));
        writeln!(self.input, "{line}").unwrap();
        answer(&mut self.lines)
    }

    /// Runs the program, and says whether it did what it was told.
    pub(crate) fn client(&self, args: &[&str]) -> bool {
        let mut command = Command::new(env!("CARGO_BIN_EXE_ota-tuf-client"));
        command.arg("--metadata-dir").arg(self.path("metadata"));
        let status = command.args(args).stderr(Stdio::null()).status().unwrap();
        assert!(matches!(status.code(), Some(0 | 1)), "{status}");
        status.success()
    }

    pub(crate) fn refresh(&self) -> bool {
        self.client(&["--metadata-url", &format!("{}/metadata/", self.url), "refresh"])
    }

    pub(crate) fn download(&self, path: &str) -> bool {
        let (metadata, targets) = (format!("{}/metadata", self.url), format!("{}/targets", self.url));
        let folder = self.path("targets");
        let urls = ["--metadata-url", &metadata, "--target-base-url", &targets];
        let target = ["--target-name", path, "--target-dir", folder.to_str().unwrap(), "download"];
        self.client(&[urls.as_slice(), target.as_slice()].concat())
    }

    /// The bytes of every artifact that was fetched, and of everything else where artifacts belong.
    pub(crate) fn fetched(&self) -> Vec<String> {
        let files = std::fs::read_dir(self.path("targets")).unwrap();
        let mut fetched: Vec<_> = files.map(|file| std::fs::read_to_string(file.unwrap().path()).unwrap()).collect();
        fetched.sort();
        fetched
    }

    /// What is trusted, in the order of the names: `root 1, targets 3`.
    pub(crate) fn trusted(&self) -> String {
        let files = std::fs::read_dir(self.path("metadata")).unwrap().map(|file| file.unwrap().path());
        let documents = files.filter(|path| path.extension().is_some_and(|extension| extension == "json"));
        let versions = documents.map(|path| {
            let document: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
            format!("{} {}", path.file_stem().unwrap().to_str().unwrap(), document["signed"]["version"])
        });
        let mut versions: Vec<_> = versions.collect();
        versions.sort();
        versions.join(", ")
    }

    /// What was asked of the repository since this was called last.
    pub(crate) fn requests(&mut self) -> Vec<String> {
        let requests = self.python("asked = list(requests); requests.clear(); asked");
        serde_json::from_value(requests).unwrap()
    }

    /// A path in the folder of the test.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }
}

impl Drop for World {
    fn drop(&mut self) {
        self.python.kill().ok();
        self.python.wait().ok();
    }
}

fn answer(lines: &mut BufReader<ChildStdout>) -> Value {
    let mut line = String::new();
    lines.read_line(&mut line).unwrap();
    serde_json::from_str(&line).unwrap_or_else(|error| panic!("the repository answered {line:?}: {error}"))
}
