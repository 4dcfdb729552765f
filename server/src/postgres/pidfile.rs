//! Reads `postmaster.pid`, the file in which Postgres tells who serves a cluster and how far it has come. Pure: it
//! neither opens the file nor looks at the process.

use rustix::process::Pid;

/// What `postmaster.pid` says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct PidFile {
    /// The postmaster; it may be long dead.
    pub(super) pid: Pid,
    /// Absent while the postmaster has not come so far as to write it.
    pub(super) status: Option<Status>,
}

/// The word on the eighth line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Status {
    Starting,
    Ready,
    Standby,
    Stopping,
}

/// Parses the text of the file; `None` when it names no postmaster (it is written line by line, so it may be read
/// half done, and a single-user backend writes its number negated).
pub(super) fn parse(text: &str) -> Option<PidFile> {
    let mut lines = text.lines();
    let pid = lines.next()?.trim().parse().ok().filter(|pid| *pid > 0)?;
    Some(PidFile {
        pid: Pid::from_raw(pid)?,
        // Seven of the eight lines were data directory, start time, port, socket, address, shared memory key.
        status: match lines.nth(6).map(str::trim) {
            Some("starting") => Some(Status::Starting),
            Some("ready") => Some(Status::Ready),
            Some("standby") => Some(Status::Standby),
            Some("stopping") => Some(Status::Stopping),
            Some(_) | None => None,
        },
    })
}

/// Returns the file of a postmaster that is gone, naming a process that cannot exist and no status. Postgres refuses
/// to start when the number in a left-over file is alive again as something else (usual in containers, where numbers
/// start at 1 each time). Deleting the file would be simpler, but would also lose the shared memory key by which
/// Postgres finds surviving backends.
pub(super) fn disowned(text: &str) -> String {
    let pid = i32::MAX.to_string();
    let lines: Vec<&str> = std::iter::once(pid.as_str()).chain(text.lines().skip(1).take(6)).collect();
    lines.join("\n") + "\n"
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(pid: i32, status: Option<Status>) -> Option<PidFile> {
        Some(PidFile { pid: Pid::from_raw(pid).unwrap(), status })
    }

    #[test]
    fn tells_pid_and_status() {
        let head = "42\n/srv/data\n1790000000\n5432\n/srv/run\n\n  1234   5678";
        for (text, expected) in [
            (format!("{head}\nready   \n"), file(42, Some(Status::Ready))),
            (format!("{head}\nstarting\n"), file(42, Some(Status::Starting))),
            (format!("{head}\nstopping\n"), file(42, Some(Status::Stopping))),
            (format!("{head}\nstandby \n"), file(42, Some(Status::Standby))),
            (format!("{head}\nmeditating\n"), file(42, None)),
            (head.to_owned(), file(42, None)),
            ("42\n/srv/data\n".to_owned(), file(42, None)),
            ("42".to_owned(), file(42, None)),
            ("-42\n/srv/data\n".to_owned(), None),
            ("0\n".to_owned(), None),
            ("4x2\n".to_owned(), None),
            ("99999999999\n".to_owned(), None),
            (String::new(), None),
        ] {
            assert_eq!(parse(&text), expected, "{text:?}");
        }
    }

    #[test]
    fn disowned_file_keeps_the_shared_memory_key() {
        let text = "42\n/srv/data\n1790000000\n5432\n/srv/run\n\n  1234   5678\nready   \n";
        let disowned = disowned(text);
        assert_eq!(disowned, "2147483647\n/srv/data\n1790000000\n5432\n/srv/run\n\n  1234   5678\n");
        assert_eq!(parse(&disowned), file(i32::MAX, None));
    }
}
