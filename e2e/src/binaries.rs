//! The programs under test, as cargo built them beside this test.

use std::{
    env,
    path::{Path, PathBuf},
    process::Output,
    sync::OnceLock,
};

use tokio::process::Command;

/// Where the three programs are.
#[derive(Debug)]
pub struct Binaries {
    /// `ota-server`.
    pub server: PathBuf,
    /// `ota-agent`.
    pub agent: PathBuf,
    /// `otactl`.
    pub otactl: PathBuf,
}

impl Binaries {
    /// Finds them.
    ///
    /// # Panics
    /// When one is not built: cargo builds the programs of a package for that package's tests only.
    pub fn get() -> &'static Self {
        static FOUND: OnceLock<Binaries> = OnceLock::new();
        FOUND.get_or_init(|| {
            let test = env::current_exe().expect("this process has an executable");
            // target/debug/deps/api-0123456789abcdef
            let folder = test.ancestors().nth(2).expect("cargo puts tests two folders deep").to_owned();
            Self {
                server: program(&folder, "ota-server"),
                agent: program(&folder, "ota-agent"),
                otactl: program(&folder, "otactl"),
            }
        })
    }
}

fn program(folder: &Path, name: &str) -> PathBuf {
    let path = folder.join(name);
    assert!(path.exists(), "{} is not built: run `cargo build --workspace --bins` first", path.display());
    path
}

/// Runs a command to its end and returns what it wrote.
///
/// # Panics
/// When it cannot be started or fails; its output is in the message then.
pub async fn succeed(command: &mut Command) -> Output {
    let output = run(command).await;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let (out, err) = (text(&output.stdout), text(&output.stderr));
    assert!(output.status.success(), "{:?}: {}\n{out}\n{err}", command.as_std(), output.status);
    output
}

/// Runs a command to its end, well or not, and returns what it wrote.
///
/// # Panics
/// When it cannot be started.
pub async fn run(command: &mut Command) -> Output {
    command.kill_on_drop(true).output().await.unwrap_or_else(|error| panic!("{:?}: {error}", command.as_std()))
}
