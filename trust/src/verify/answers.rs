//! What a repository says, once it is verified.

use chrono::{DateTime, Utc};

use super::{Repository, TARGETS};
use crate::{
    fault::{Because as _, Fault, TrustError},
    metadata::Target,
};

impl Repository {
    /// Checks that root, timestamp, snapshot and targets are all there, belong together, and have not expired.
    ///
    /// # Errors
    /// When one is missing or is not the one that another names, or has expired.
    pub fn check(&self, now: DateTime<Utc>) -> Result<(), TrustError> {
        let missing = |what: &str| Fault::MixAndMatch.because(format!("there is no {what}"));
        let timestamp = self.timestamp().ok_or_else(|| missing("timestamp"))?;
        let snapshot = self.snapshot().ok_or_else(|| missing("snapshot"))?;
        if snapshot.version != timestamp.snapshot_version {
            return Err(missing(&format!("snapshot {}, which the timestamp names", timestamp.snapshot_version)));
        }
        let targets = self.targets(TARGETS).ok_or_else(|| missing("targets that the snapshot names"))?;
        for (role, expires) in [
            ("root", self.root.expires),
            ("timestamp", timestamp.expires),
            ("snapshot", snapshot.expires),
            (TARGETS, targets.expires),
        ] {
            not_expired(role, expires, now)?;
        }
        Ok(())
    }

    /// The bins that are delegated to and not held as the snapshot lists them.
    #[must_use]
    pub fn missing(&self) -> Vec<String> {
        let bins = self.targets(TARGETS).and_then(|targets| targets.delegations.as_ref());
        bins.into_iter().flat_map(|bins| bins.roles()).filter(|role| !self.targets.contains_key(role)).collect()
    }

    /// The bin that lists a path if any does. None when there are no bins.
    #[must_use]
    pub fn bin_for(&self, path: &str) -> Option<String> {
        let bins = self.targets(TARGETS)?.delegations.as_ref()?;
        Some(bins.role_of(path))
    }

    /// What the repository says of a path. Does not look at the time; see [`Self::check`] and [`Self::check_path`].
    ///
    /// # Errors
    /// When the document that would list it is not held.
    pub fn target(&self, path: &str) -> Result<Option<&Target>, TrustError> {
        let missing = |role: &str| Fault::MixAndMatch.because(format!("there is no {role} that the snapshot names"));
        let top = self.targets(TARGETS).ok_or_else(|| missing(TARGETS))?;
        if let Some(target) = top.targets.get(path) {
            return Ok(Some(target));
        }
        let Some(bin) = self.bin_for(path) else { return Ok(None) };
        Ok(self.targets(&bin).ok_or_else(|| missing(&bin))?.targets.get(path))
    }

    /// Checks that everything which speaks for a path belongs together and has not expired.
    ///
    /// # Errors
    /// Those of [`Self::check`], and when the path's bin has expired.
    pub fn check_path(&self, path: &str, now: DateTime<Utc>) -> Result<(), TrustError> {
        self.check(now)?;
        let bin = self.bin_for(path);
        match bin.as_ref().and_then(|bin| self.targets(bin)) {
            Some(document) => not_expired(bin.as_deref().unwrap_or(TARGETS), document.expires, now),
            None => Ok(()),
        }
    }
}

fn not_expired(role: &str, expires: DateTime<Utc>, now: DateTime<Utc>) -> Result<(), TrustError> {
    if expires > now { Ok(()) } else { Err(Fault::Freeze.because(format!("{role} expired at {expires}"))) }
}
