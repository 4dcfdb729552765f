//! Keeps Postgres from outliving this process. A child is not told when its parent is killed, but a pipe whose other
//! end only the parent holds reaches its end; a tiny shell waits for that and asks Postgres to shut down.

use std::{
    ffi::OsStr,
    fs::File,
    io,
    os::fd::OwnedFd,
    path::Path,
    process::{ExitStatus, Stdio},
};

use tokio::process::Child;

use super::account::{self, Account};

/// Descriptor 3 is the pipe. Postgres must not have it (it would wait for itself), nor must the shell lend its own
/// standard input, which a background command has replaced by /dev/null. SIGINT is Postgres' fast shutdown. The
/// reader is ended with Postgres, so that it cannot signal a number that has gone to somebody else.
const SCRIPT: &str = r#"
exec 3<&0 </dev/null
"$@" 3<&- &
postgres=$!
{ read -r line <&3; kill -INT $postgres; } 2>/dev/null &
reader=$!
exec 3<&-
wait $postgres
status=$?
kill $reader 2>/dev/null
exit $status
"#;

/// A program that ends with this process.
#[derive(Debug)]
pub(super) struct Supervised {
    shell: Child,
    /// Closing it asks the program to end. Held as a plain descriptor, so that it does not depend on the runtime
    /// that was current when the program started.
    leash: Option<OwnedFd>,
}

impl Supervised {
    /// Starts the program, with its messages going to `log`.
    pub(super) fn start<I>(program: &Path, args: I, account: Option<&Account>, log: File) -> io::Result<Supervised>
    where
        I: IntoIterator,
        I::Item: AsRef<OsStr>,
    {
        let mut shell = account::command(Path::new("/bin/sh"), account)
            .current_dir("/")
            .args(["-c", SCRIPT, "ota-postgres"])
            .arg(program)
            .args(args)
            // Its own group: Ctrl-C in a terminal is for the server, which then stops Postgres in good order.
            .process_group(0)
            .stdin(Stdio::piped())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()?;
        let leash = match shell.stdin.take() {
            Some(stdin) => Some(stdin.into_owned_fd()?),
            None => None,
        };
        Ok(Supervised { shell, leash })
    }

    /// Asks the program to shut down; [`Supervised::exited`] tells when it has.
    pub(super) fn release(&mut self) {
        self.leash = None;
    }

    /// Waits for the program to end.
    pub(super) async fn exited(&mut self) -> io::Result<ExitStatus> {
        self.shell.wait().await
    }

    /// Returns how the program ended, if it has.
    pub(super) fn has_exited(&mut self) -> io::Result<Option<ExitStatus>> {
        self.shell.try_wait()
    }
}
