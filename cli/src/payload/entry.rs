//! The names that archive entries may have. The agent refuses others, so they are refused before anything is sent.

use std::collections::BTreeMap;

use ota_domain::archive_path::EntryPath;

/// Checks the names of one archive, and collects all that is wrong with them.
#[derive(Debug, Default)]
pub(super) struct Names {
    /// Spelling of each path met, by its form without upper and lower case.
    spellings: BTreeMap<String, String>,
    violations: Vec<String>,
}

impl Names {
    /// Checks one more path, relative to the archive's root and without a trailing slash.
    pub(super) fn check(&mut self, path: &[u8]) {
        let entry = match EntryPath::parse(path) {
            Ok(Some(entry)) => entry,
            // The root itself has no name to break a rule with.
            Ok(None) => return,
            Err(error) => return self.violations.push(error.to_string()),
        };
        let text = entry.as_str();
        if let Some(other) = self.spellings.insert(entry.folded(), text.to_owned()) {
            if other == text {
                self.violation(text, "is there twice");
            } else {
                self.violation(text, &format!("differs from {other:?} in upper and lower case alone"));
            }
        }
    }

    /// Notes what is wrong with a path for another reason than its name.
    pub(super) fn violation(&mut self, path: &str, problem: &str) {
        self.violations.push(format!("{path:?} {problem}"));
    }

    /// Returns all that is wrong.
    pub(super) fn finish(self) -> Vec<String> {
        self.violations
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn violations(paths: &[&[u8]]) -> Vec<String> {
        let mut names = Names::default();
        paths.iter().for_each(|path| names.check(path));
        names.finish()
    }

    #[test]
    fn plain_relative_paths_pass() {
        assert_eq!(violations(&[b"bin", b"bin/start.sh", b".hidden", b"a b/\xc3\xa4", b"x..y"]), Vec::<String>::new());
    }

    #[test]
    fn every_wrong_name_is_reported_and_not_the_first_alone() {
        let long = [b'a'; 241];
        let wrong: [&[u8]; 8] = [b"/etc", b"../up", b"a//b", b"a/./b", b"a\nb", b"a\\b", b"\xff", &long];
        assert_eq!(violations(&wrong).len(), wrong.len());
    }

    #[test]
    fn names_that_differ_in_case_alone_are_refused() {
        let found = violations(&[b"Readme", b"README"]);
        assert_eq!(found, [r#""README" differs from "Readme" in upper and lower case alone"#]);
    }
}
