//! Whom Postgres runs as. It refuses to run as root, so a server that is root lends it another account, and with that
//! come the questions of what belongs to that account and which folders it may enter.

use std::{
    fs, io,
    os::unix::fs::{MetadataExt as _, chown},
    path::{Path, PathBuf},
};

use tokio::process::Command;

/// Packages make the first one; the second is everywhere.
const NAMES: [&str; 2] = ["postgres", "nobody"];

/// What `nobody` is where there is not even a list of accounts, as in a minimal container.
const NOBODY: u32 = 65534;

/// Another user than this process, to run programs as.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Account {
    pub(super) name: String,
    pub(super) uid: u32,
    pub(super) gid: u32,
}

/// Returns the account to lend for the cluster in `data`; `None` when this process is not root and uses its own.
pub(super) fn to_lend(data: &Path) -> Option<Account> {
    if !rustix::process::geteuid().is_root() {
        return None;
    }
    // A cluster stays with whoever has it, for example a user who started the server before root did.
    if let Ok(meta) = fs::metadata(data)
        && meta.uid() != 0
    {
        return Some(Account { name: format!("uid {}", meta.uid()), uid: meta.uid(), gid: meta.gid() });
    }
    // Without the file there are no accounts to prefer.
    let passwd = fs::read_to_string("/etc/passwd").unwrap_or_default();
    Some(from_passwd(&passwd))
}

fn from_passwd(passwd: &str) -> Account {
    let entry = |name: &str| {
        passwd.lines().find_map(|line| {
            let mut fields = line.split(':');
            let found = fields.next()? == name;
            let uid = fields.nth(1)?.parse().ok()?;
            let gid = fields.next()?.parse().ok()?;
            (found && uid != 0).then(|| Account { name: name.to_owned(), uid, gid })
        })
    };
    NAMES.into_iter().find_map(entry).unwrap_or_else(|| Account { name: "nobody".to_owned(), uid: NOBODY, gid: NOBODY })
}

/// Gives a file or folder to the account.
pub(super) fn give(path: &Path, account: Option<&Account>) -> io::Result<()> {
    match account {
        Some(account) => chown(path, Some(account.uid), Some(account.gid)),
        None => Ok(()),
    }
}

/// Prepares a program to run as the account, with an environment that holds nothing for Postgres to be led astray by
/// (PGDATA, PGPORT, PGOPTIONS…) and with messages in English, because they end up in our errors.
pub(super) fn command(program: &Path, account: Option<&Account>) -> Command {
    let mut command = Command::new(program);
    for (name, _) in std::env::vars_os() {
        if name.as_encoded_bytes().starts_with(b"PG") {
            command.env_remove(name);
        }
    }
    command.env("LC_ALL", "C");
    if let Some(account) = account {
        command.uid(account.uid).gid(account.gid);
    }
    command
}

/// Returns the first folder on the way to `path` that the account may not enter. It asks by trying, because mode
/// bits alone do not tell (access lists, read-only roots, security modules).
pub(super) async fn first_closed(path: &Path, account: Option<&Account>) -> io::Result<Option<PathBuf>> {
    let mut way: Vec<&Path> = path.ancestors().collect();
    way.reverse();
    let output = command(Path::new("/bin/sh"), account)
        .current_dir("/")
        .args(["-c", r#"i=0; for folder; do [ -x "$folder" ] || { echo $i; exit; }; i=$((i + 1)); done"#, "sh"])
        .args(&way)
        .output()
        .await?;
    let closed: Option<usize> = String::from_utf8_lossy(&output.stdout).trim().parse().ok();
    Ok(closed.and_then(|index| way.get(index)).map(|folder| folder.to_path_buf()))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn prefers_postgres_to_nobody_and_never_picks_root() {
        let root = "root:x:0:0:root:/root:/bin/sh\n";
        let nobody = "nobody:x:99:98::/:/bin/false\n";
        let postgres = "postgres:x:26:27:,,,:/var/lib/pgsql:/bin/bash\n";
        for (passwd, name, uid, gid) in [
            (format!("{root}{nobody}{postgres}"), "postgres", 26, 27),
            (format!("{root}{nobody}"), "nobody", 99, 98),
            (format!("{nobody}postgres:x:0:0::/:/bin/sh\n"), "nobody", 99, 98),
            ("postgres\nnobody:x\n".to_owned(), "nobody", NOBODY, NOBODY),
            (String::new(), "nobody", NOBODY, NOBODY),
        ] {
            assert_eq!(from_passwd(&passwd), Account { name: name.to_owned(), uid, gid }, "{passwd:?}");
        }
    }

    #[tokio::test]
    async fn names_the_folder_that_is_closed() {
        // To root nothing is closed, so root asks on behalf of nobody.
        let account = rustix::process::geteuid().is_root().then(|| from_passwd(""));
        let top = tempfile::tempdir_in("/tmp").unwrap();
        let open = |path: &Path| fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
        let closed = top.path().join("closed");
        let inner = closed.join("inner");
        fs::create_dir_all(&inner).unwrap();
        open(top.path());
        open(&inner);
        fs::set_permissions(&closed, fs::Permissions::from_mode(0o600)).unwrap();
        assert_eq!(first_closed(&inner, account.as_ref()).await.unwrap(), Some(closed.clone()));
        open(&closed);
        assert_eq!(first_closed(&inner, account.as_ref()).await.unwrap(), None);
    }
}
