//! Finds the PostgreSQL programs of this machine: an override, `PATH`, then the folders of the package managers, which
//! keep several majors side by side and out of `PATH`. Looks only; it installs and downloads nothing.

use std::{
    collections::BTreeSet,
    env,
    ffi::OsString,
    fs, io,
    path::{Path, PathBuf},
};

use thiserror::Error;
use tokio::process::Command;

/// The variable that names the folder of `initdb` and `postgres`.
const OVERRIDE: &str = "OTA_POSTGRES_BIN";

/// The oldest major that still gets fixes, and that the migrations are written for.
const OLDEST: u32 = 14;

const HOW_TO_INSTALL: &str = "install it (Debian, Ubuntu: apt-get install postgresql · Fedora: dnf install postgresql-server · \
    Alpine: apk add postgresql · Arch: pacman -S postgresql · macOS: brew install postgresql), set OTA_POSTGRES_BIN to \
    the folder of its initdb and postgres, or use a running Postgres with --database-url";

/// Why no PostgreSQL of this machine can serve the cluster.
#[derive(Debug, Error)]
pub enum FindError {
    /// There is none.
    #[error("found no PostgreSQL: {HOW_TO_INSTALL}")]
    Nothing,
    /// The override leads nowhere.
    #[error("OTA_POSTGRES_BIN={} does not hold initdb and postgres", folder.display())]
    Override {
        /// What it says.
        folder: PathBuf,
    },
    /// All of them are older than supported.
    #[error("found only PostgreSQL {found}, but at least {OLDEST} is needed: {HOW_TO_INSTALL}")]
    TooOld {
        /// The newest there is.
        found: u32,
    },
    /// A cluster can only be served by the major that made it.
    #[error(
        "the data was made by PostgreSQL {data}, but this machine has {found}: install {data} beside it, or dump with \
         the old one and restore"
    )]
    OtherMajor {
        /// The major that made the data.
        data: u32,
        /// The majors that are there.
        found: String,
    },
    /// A program that was found does not tell its version.
    #[error("cannot run {} to ask for its version", program.display())]
    Run {
        /// The program.
        program: PathBuf,
        /// What went wrong.
        #[source]
        source: io::Error,
    },
}

/// One installation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Binaries {
    pub(super) folder: PathBuf,
    pub(super) major: u32,
}

impl Binaries {
    pub(super) fn initdb(&self) -> PathBuf {
        self.folder.join("initdb")
    }

    pub(super) fn postgres(&self) -> PathBuf {
        self.folder.join("postgres")
    }
}

/// Finds the installation that can serve the cluster in `data`, or the preferred one when there is no cluster yet.
pub(super) async fn find(data: &Path) -> Result<Binaries, FindError> {
    let folders = match env::var_os(OVERRIDE) {
        Some(folder) => {
            let folder = PathBuf::from(folder);
            if !holds_postgres(&folder) {
                return Err(FindError::Override { folder });
            }
            vec![folder]
        }
        None => installed(env::var_os("PATH"), Path::new("/")),
    };
    let mut candidates = Vec::new();
    for folder in folders {
        let major = ask_major(&folder.join("postgres")).await?;
        candidates.push(Binaries { folder, major });
    }
    let data = fs::read_to_string(data.join("PG_VERSION")).ok();
    choose(candidates, data.and_then(|text| text.trim().parse().ok()))
}

/// Returns the folders with a PostgreSQL, preferred ones first.
fn installed(path: Option<OsString>, root: &Path) -> Vec<PathBuf> {
    let in_path = path.iter().flat_map(env::split_paths).filter_map(|folder| {
        // What lies in PATH may be a lone link; `postgres` is beside the file that it leads to.
        let initdb = fs::canonicalize(folder.join("initdb")).ok()?;
        Some(initdb.parent()?.to_owned())
    });
    let packaged = [
        ("usr/lib/postgresql", "", "bin"),         // Debian, Ubuntu, Gentoo
        ("usr", "pgsql-", "bin"),                  // Fedora, RHEL by PGDG
        ("usr/libexec", "postgresql", ""),         // Alpine
        ("opt/homebrew/opt", "postgresql", "bin"), // Homebrew on ARM
        ("usr/local/opt", "postgresql", "bin"),    // Homebrew on Intel
    ]
    .into_iter()
    .flat_map(|(parent, prefix, bin)| newest_first(&root.join(parent), prefix, bin));

    let mut seen = BTreeSet::new();
    in_path.chain(packaged).filter(|folder| holds_postgres(folder) && seen.insert(folder.clone())).collect()
}

/// Lists the folders `parent/prefix<major>/bin`, the highest major first.
fn newest_first(parent: &Path, prefix: &str, bin: &str) -> Vec<PathBuf> {
    let mut found: Vec<(u32, PathBuf)> = fs::read_dir(parent)
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| {
            let name = entry.file_name().into_string().ok()?;
            // Homebrew's folder without a number is its current one, and a link to one with a number.
            let major = name.strip_prefix(prefix)?.trim_start_matches('@').parse().ok()?;
            Some((major, entry.path().join(bin)))
        })
        .collect();
    found.sort_by(|a, b| b.cmp(a));
    found.into_iter().map(|(_, folder)| folder).collect()
}

fn holds_postgres(folder: &Path) -> bool {
    folder.join("initdb").is_file() && folder.join("postgres").is_file()
}

async fn ask_major(program: &Path) -> Result<u32, FindError> {
    let failed = |source| FindError::Run { program: program.to_owned(), source };
    let output = Command::new(program).arg("--version").output().await.map_err(failed)?;
    let text = String::from_utf8_lossy(&output.stdout);
    major(&text).ok_or_else(|| failed(io::Error::other(format!("it answers {text:?}"))))
}

/// Parses `postgres (PostgreSQL) 15.18 (Debian …)`; an unreleased one says `18beta1`.
fn major(answer: &str) -> Option<u32> {
    let version = answer.split_once("(PostgreSQL) ")?.1;
    let end = version.find(|c: char| !c.is_ascii_digit()).unwrap_or(version.len());
    version[..end].parse().ok()
}

/// Picks the first candidate that is fit for data of that major, or new enough to make some.
fn choose(candidates: Vec<Binaries>, data: Option<u32>) -> Result<Binaries, FindError> {
    let Some(newest) = candidates.iter().map(|found| found.major).max() else {
        return Err(FindError::Nothing);
    };
    let majors: BTreeSet<u32> = candidates.iter().map(|found| found.major).collect();
    let fits = |found: &Binaries| match data {
        Some(data) => found.major == data,
        None => found.major >= OLDEST,
    };
    candidates.into_iter().find(fits).ok_or_else(|| match data {
        Some(data) => {
            FindError::OtherMajor { data, found: majors.iter().map(u32::to_string).collect::<Vec<_>>().join(", ") }
        }
        None => FindError::TooOld { found: newest },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn install(root: &Path, folder: &str) -> PathBuf {
        let folder = root.join(folder);
        fs::create_dir_all(&folder).unwrap();
        for program in ["initdb", "postgres"] {
            fs::write(folder.join(program), "").unwrap();
        }
        folder
    }

    fn binaries(majors: &[u32]) -> Vec<Binaries> {
        majors.iter().map(|major| Binaries { folder: PathBuf::from(format!("/{major}")), major: *major }).collect()
    }

    #[test]
    fn path_comes_first_then_the_newest() {
        let root = tempfile::tempdir().unwrap();
        let root = fs::canonicalize(root.path()).unwrap();
        let nine = install(&root, "usr/lib/postgresql/9/bin");
        let fifteen = install(&root, "usr/lib/postgresql/15/bin");
        let brew = install(&root, "opt/homebrew/opt/postgresql@17/bin");
        let own = install(&root, "own/bin");
        let links = root.join("links");
        fs::create_dir(&links).unwrap();
        std::os::unix::fs::symlink(own.join("initdb"), links.join("initdb")).unwrap();

        let path = env::join_paths([&root.join("nowhere"), &links]).unwrap();
        assert_eq!(installed(Some(path), &root), [own, fifteen.clone(), nine.clone(), brew.clone()]);
        assert_eq!(installed(None, &root), [fifteen, nine, brew]);
    }

    #[test]
    fn folder_without_postgres_is_passed_over() {
        let root = tempfile::tempdir().unwrap();
        let folder = install(root.path(), "usr/lib/postgresql/15/bin");
        fs::remove_file(folder.join("postgres")).unwrap();
        assert!(installed(None, root.path()).is_empty());
    }

    #[test]
    fn version_is_read_from_the_answer() {
        for (answer, expected) in [
            ("postgres (PostgreSQL) 15.18 (Debian 15.18-0+deb12u1)\n", Some(15)),
            ("postgres (PostgreSQL) 18beta1\n", Some(18)),
            ("postgres (PostgreSQL) 17", Some(17)),
            ("postgres (EnterpriseDB) 17", None),
            ("", None),
        ] {
            assert_eq!(major(answer), expected, "{answer:?}");
        }
    }

    #[test]
    fn existing_data_decides_the_major() {
        assert_eq!(choose(binaries(&[17, 15]), Some(15)).unwrap().major, 15);
        assert_eq!(choose(binaries(&[12, 15, 17]), None).unwrap().major, 15);
    }

    #[test]
    fn errors_say_what_is_there_and_what_to_do() {
        let error = choose(binaries(&[17, 16]), Some(15)).unwrap_err();
        assert!(error.to_string().contains("made by PostgreSQL 15, but this machine has 16, 17"), "{error}");
        let error = choose(binaries(&[9, 12]), None).unwrap_err();
        assert!(error.to_string().contains("only PostgreSQL 12"), "{error}");
        let error = choose(Vec::new(), None).unwrap_err();
        assert!(error.to_string().contains("apt-get install postgresql"), "{error}");
    }
}
