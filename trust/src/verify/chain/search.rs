//! Where a repository lists a path: from the top of the targets along its delegations (TUF 5.6.7).

use std::collections::BTreeSet;

use chrono::{DateTime, Utc};

use super::{Chain, TARGETS, TargetFile, instant};
use crate::{
    fault::{Because as _, Fault, TrustError},
    metadata::Role,
};

/// Most targets documents that are looked at for one path, as in other verifiers.
pub const MAX_VISITED: usize = 32;

/// How far a search for a path came.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Search {
    /// The path is listed.
    Found(TargetFile),
    /// No document that may list the path lists it.
    Absent,
    /// Another document may list it, and has to be taken first (see [`Chain::update_delegated`]).
    Needs {
        /// Its role.
        role: String,
        /// Who delegates to it.
        delegator: String,
    },
}

impl Chain {
    /// Looks for a path. To be asked again after what it needs was taken.
    ///
    /// # Errors
    /// When a document on the way has expired or is not the one that another names, or delegates in a way that is not
    /// understood, or to more than [`MAX_VISITED`] roles: then nobody knows whether the path is listed.
    pub fn search(&self, path: &str, now: DateTime<Utc>) -> Result<Search, TrustError> {
        self.check(now)?;
        let mut visited = BTreeSet::new();
        // The next one last.
        let mut waiting = vec![(TARGETS, TARGETS)];
        while let Some((role, delegator)) = waiting.pop() {
            if visited.contains(role) {
                continue;
            }
            if visited.len() == MAX_VISITED {
                return Err(Fault::Endless.because(format!("more than {MAX_VISITED} roles are asked for {path}")));
            }
            visited.insert(role);
            if role != TARGETS {
                if self.listed_version(role).is_none() {
                    continue;
                }
                let is_held = self.targets.contains_key(role)
                    && self.set.verify_delegated_targets(role, delegator, instant(now)).is_ok();
                if !is_held {
                    return Ok(Search::Needs { role: role.to_owned(), delegator: delegator.to_owned() });
                }
            }
            let Some(targets) = self.set.targets_role(role) else { continue };
            if let Some(file) = targets.targets.get(path) {
                return Ok(Search::Found(file.clone()));
            }
            let Some(delegations) = &targets.delegations else { continue };
            if delegations.extra.contains_key("succinct_roles") {
                return Err(Fault::Arbitrary.because(format!("{role} delegates to succinct roles")));
            }
            let mut children = Vec::new();
            for child in &delegations.roles {
                if Role::ALL.iter().all(|role| role.as_str() != child.name) && child.matches_path(path)? {
                    children.push((child.name.as_str(), role));
                    if child.terminating {
                        waiting.clear();
                        break;
                    }
                }
            }
            waiting.extend(children.into_iter().rev());
        }
        Ok(Search::Absent)
    }
}
