//! The signed metadata as a replica last read it, so that a check-in does not read it again.
//!
//! Whoever uses it says which versions there have to be, as the database just told: what is older is read anew. So a
//! replica never answers by what another has replaced.

use std::{collections::BTreeMap, fmt, sync::Arc};

use bytes::Bytes;
use ota_trust::metadata::{Bins, Role, Snapshot, Target, Targets, read};
use sqlx::{Connection as _, PgConnection};
use tokio::sync::RwLock;

use super::repository;
use crate::{
    app::{Error, Result},
    db::{
        self,
        trust_metadata::{Repository, Stored, Versions},
    },
    keys::{Keyring, LoggedKey},
};

/// Remembers the metadata.
#[derive(Debug, Default)]
pub struct Published {
    latest: RwLock<Option<Arc<Metadata>>>,
}

/// All that is the same for the whole fleet, as of one moment.
pub(super) struct Metadata {
    pub(super) versions: Versions,
    /// Roots from version 1 on.
    pub(super) image_roots: Vec<Bytes>,
    pub(super) director_roots: Vec<Bytes>,
    pub(super) timestamp: Bytes,
    pub(super) snapshot: Bytes,
    pub(super) snapshot_version: u64,
    /// Signs for the director.
    pub(super) director: LoggedKey,
    top: List,
    bins: Option<Bins>,
    /// By role.
    bin_lists: BTreeMap<String, List>,
}

impl fmt::Debug for Metadata {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Metadata").field("versions", &self.versions).finish_non_exhaustive()
    }
}

/// A targets document.
struct List {
    document: Bytes,
    targets: BTreeMap<String, Target>,
}

impl Published {
    /// The metadata of at least these versions. Those that wait for a reading share it.
    pub(super) async fn get(
        &self,
        keys: &Keyring,
        connection: &mut PgConnection,
        wanted: Versions,
    ) -> Result<Arc<Metadata>> {
        let there = |latest: &Option<Arc<Metadata>>| latest.clone().filter(|latest| latest.covers(wanted));
        if let Some(metadata) = there(&*self.latest.read().await) {
            return Ok(metadata);
        }
        let mut latest = self.latest.write().await;
        if let Some(metadata) = there(&latest) {
            return Ok(metadata);
        }
        let metadata = Arc::new(Metadata::load(keys, connection).await?);
        *latest = Some(Arc::clone(&metadata));
        Ok(metadata)
    }
}

impl Metadata {
    pub(super) fn covers(&self, wanted: Versions) -> bool {
        self.versions.image_root >= wanted.image_root
            && self.versions.image_timestamp >= wanted.image_timestamp
            && self.versions.director_root >= wanted.director_root
    }

    /// Reads all of it as of one moment: documents and keys that do not belong together would be believed by nobody.
    async fn load(keys: &Keyring, connection: &mut PgConnection) -> Result<Self> {
        let mut tx = connection.begin().await?;
        db::trust_metadata::freeze(&mut tx).await?;
        let metadata = Self::read(keys, &mut tx).await?;
        tx.commit().await?;
        Ok(metadata)
    }

    /// Reads all of it. Nobody may change it meanwhile.
    pub(super) async fn read(keys: &Keyring, connection: &mut PgConnection) -> Result<Self> {
        let versions = db::trust_metadata::versions(connection).await?;
        let image_roots = db::trust_metadata::roots(connection, Repository::Image).await?;
        let director_roots = db::trust_metadata::roots(connection, Repository::Director).await?;
        let image = db::trust_metadata::all_newest(connection, Repository::Image).await?;
        let director = keys.signing(connection).await?.director;

        let bytes = |stored: Vec<Stored>| stored.into_iter().map(|stored| stored.document.into()).collect();
        let document = |role: Role| {
            let stored = image.iter().find(|stored| stored.role == role.as_str());
            stored
                .map(|stored| Bytes::from(stored.document.clone()))
                .ok_or_else(|| Error::internal(format!("the image repository has no {role}")))
        };
        let mut lists = repository::lists(&image)?.into_iter();
        let top = lists.next().ok_or_else(|| Error::internal("the image repository has no targets"))?;
        let top_targets = read::<Targets>(&top.document).map_err(Error::internal)?;
        let bin_lists = lists.map(|stored| {
            let list = read::<Targets>(&stored.document).map_err(Error::internal)?;
            Ok((stored.role.clone(), List { document: stored.document.clone().into(), targets: list.targets }))
        });
        let snapshot = document(Role::Snapshot)?;
        Ok(Self {
            versions,
            image_roots: bytes(image_roots),
            director_roots: bytes(director_roots),
            timestamp: document(Role::Timestamp)?,
            snapshot_version: read::<Snapshot>(&snapshot).map_err(Error::internal)?.version,
            snapshot,
            director,
            top: List { document: top.document.clone().into(), targets: top_targets.targets },
            bins: top_targets.delegations,
            bin_lists: bin_lists.collect::<Result<_>>()?,
        })
    }

    /// The entry at a path.
    pub(super) fn target(&self, path: &str) -> Option<&Target> {
        let in_bin = || self.bin_lists.get(&self.bins.as_ref()?.role_of(path))?.targets.get(path);
        self.top.targets.get(path).or_else(in_bin)
    }

    /// The top of the targets.
    pub(super) fn top(&self) -> (String, Bytes) {
        (Role::Targets.as_str().to_owned(), self.top.document.clone())
    }

    /// The bins that list these paths, each once.
    pub(super) fn bins<'a>(&self, paths: impl Iterator<Item = &'a str>) -> BTreeMap<String, Bytes> {
        let Some(bins) = &self.bins else { return BTreeMap::new() };
        paths
            .filter_map(|path| {
                let role = bins.role_of(path);
                let document = self.bin_lists.get(&role)?.document.clone();
                Some((role, document))
            })
            .collect()
    }
}
