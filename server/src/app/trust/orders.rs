//! What a device is sent to believe: the director's documents for it alone, and what it lacks of the rest.
//!
//! Signed when the device asks, never ahead: most devices have nothing to do most of the time, and theirs would be signed
//! again and again for nobody.

use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use chrono::{DateTime, TimeDelta, Utc};
use ota_domain::{DeviceId, Sha256Digest, event::Kind};
use ota_trust::{
    director::{self, Assignment},
    image,
    metadata::{self, Freshness, Role, Snapshot, Target, Timestamp, target_path},
};
use sha2::{Digest as _, Sha256};

use super::{invalid, published::Metadata, refused, repository};
use crate::{
    app::{App, Error, Reason, Result},
    auth::Caller,
    db::{self, desired::Work, director::Signed, event::NewEvent},
    fleet::{Fleet, Record},
};

/// How often a device's documents are signed again when other replicas sign for it at the same time.
const TRIES: usize = 4;
/// Highest version that a device may claim to hold: one more still fits every number on the way.
const MAX_CLAIMED: u64 = 1 << 52;

/// Versions of the metadata that a device holds; 0 for none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Held {
    /// Of the image root.
    pub image_root: u64,
    /// Of the image timestamp.
    pub image_timestamp: u64,
    /// Of the image snapshot.
    pub image_snapshot: u64,
    /// Of the director root.
    pub director_root: u64,
    /// Of the director's documents for the device.
    pub director: u64,
}

/// What a device says of its trust when it checks in.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Asked {
    /// What it holds.
    pub held: Held,
    /// Wants an answer signed at this moment.
    pub nonce: Option<Bytes>,
}

/// Documents that are newer than what a device holds.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Update {
    /// Image roots, in order.
    pub image_roots: Vec<Bytes>,
    /// Image timestamp.
    pub image_timestamp: Option<Bytes>,
    /// Image snapshot.
    pub image_snapshot: Option<Bytes>,
    /// Image targets, by role, the top first.
    pub image_targets: Vec<(String, Bytes)>,
    /// Director roots, in order.
    pub director_roots: Vec<Bytes>,
    /// Director timestamp, snapshot and targets.
    pub director: Option<[Bytes; 3]>,
    /// The answer to the nonce.
    pub freshness: Option<Bytes>,
}

/// What was last signed for a device, kept beside what the device should do and dropped with it.
#[derive(Debug, Default)]
pub struct Remembered(Mutex<Option<Arc<Orders>>>);

impl Remembered {
    fn get(&self) -> Option<Arc<Orders>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn set(&self, orders: Option<Arc<Orders>>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = orders;
    }
}

/// The documents for one device, and the metadata by which they were signed.
#[derive(Debug)]
struct Orders {
    /// [`crate::fleet::Fleet::trust_changes`] before they were read.
    changes: u64,
    metadata: Arc<Metadata>,
    signed: Signed,
}

impl Orders {
    /// Whether they still say what they should, and are not behind what the device holds.
    fn serve(&self, fleet: &Fleet, held: Held, now: DateTime<Utc>) -> bool {
        let versions = self.metadata.versions;
        self.changes == fleet.trust_changes()
            && self.metadata.covers(fleet.trust_versions())
            && is_young(&self.signed, now)
            && held.director <= self.signed.version
            && held.director_root <= versions.director_root
            && held.image_root <= versions.image_root
            && held.image_timestamp <= versions.image_timestamp
    }
}

/// Brings a device up to date, if it has work to do or asks for proof of freshness, as every device does that holds nothing
/// yet. With neither it costs nothing, whatever the device holds; and no query while what was last signed for it still
/// serves: a device that does not believe what it is sent asks at every check-in.
///
/// # Errors
/// When the database does not answer, or cannot keep what was signed.
pub async fn update(
    app: &App,
    record: &Record,
    work: &[&Work],
    asked: &Asked,
    now: DateTime<Utc>,
) -> Result<Option<Update>> {
    let held = asked.held;
    if work.is_empty() && asked.nonce.is_none() {
        // It asks again in half a day: until then its documents are not worth the memory.
        record.signed.set(None);
        return Ok(None);
    }
    let orders = match record.signed.get().filter(|orders| orders.serve(&app.fleet, held, now)) {
        Some(orders) => orders,
        None => {
            let changes = app.fleet.trust_changes();
            let orders = Arc::new(orders(app, record.id, work, held, changes, now).await?);
            record.signed.set(Some(Arc::clone(&orders)));
            orders
        }
    };
    let mut update = newer(&orders.metadata, &orders.signed, work, held);
    if let Some(nonce) = &asked.nonce {
        let director_version = orders.signed.version;
        let freshness = Freshness { device: record.id, nonce: nonce.to_vec(), director_version, time: now };
        let freshness = metadata::sign(&freshness, &[&orders.metadata.director]).map_err(Error::internal)?;
        update.freshness = Some(freshness.into());
    }
    Ok((update != Update::default()).then_some(update))
}

/// The device's documents as they should be: those that are there, or newly signed ones.
async fn orders(
    app: &App,
    device: DeviceId,
    work: &[&Work],
    held: Held,
    changes: u64,
    now: DateTime<Utc>,
) -> Result<Orders> {
    let mut connection = app.pool.acquire().await?;
    for _ in 0..TRIES {
        let (there, versions) = db::director::find(&mut connection, device).await?;
        let metadata = app.published.get(&app.keys, &mut connection, versions).await?;
        let targets = targets(&metadata, work);
        let content = content(&metadata, &targets)?;
        let is_good =
            |there: &Signed| there.content == content && there.version >= held.director && is_young(there, now);
        let signed = match there {
            Some(there) if is_good(&there) => there,
            there => {
                let version = next_version(there.as_ref(), held);
                let signed = sign(&metadata, device, version, targets, content, now, director::LIFETIME)?;
                // Another replica may have signed the same version meanwhile: then its documents count.
                if !db::director::put(&mut connection, device, &signed).await? {
                    continue;
                }
                signed
            }
        };
        return Ok(Orders { changes, metadata, signed });
    }
    Err(Error::internal("other replicas sign for the same device all the time"))
}

/// Whether at least half of the usual life is left.
fn is_young(signed: &Signed, now: DateTime<Utc>) -> bool {
    signed.expires_at - now >= director::LIFETIME / 2
}

/// Above what was signed and above what the device holds: a database that was restored from a backup has forgotten some.
fn next_version(there: Option<&Signed>, held: Held) -> u64 {
    there.map_or(0, |there| there.version).max(held.director.min(MAX_CLAIMED)) + 1
}

/// What the image repository lists of the work. What it does not list, the director does not order either.
fn targets(metadata: &Metadata, work: &[&Work]) -> Vec<Target> {
    work.iter().filter_map(|work| metadata.target(&path(work)).cloned()).collect()
}

fn path(work: &Work) -> String {
    target_path(&work.package, &work.version)
}

/// Changes with everything that the documents depend on besides time.
fn content(metadata: &Metadata, targets: &[Target]) -> Result<Sha256Digest> {
    let told = serde_json::to_vec(&(metadata.versions.director_root, targets)).map_err(Error::internal)?;
    Ok(Sha256Digest(Sha256::digest(told).into()))
}

fn sign(
    metadata: &Metadata,
    device: DeviceId,
    version: u64,
    targets: Vec<Target>,
    content: Sha256Digest,
    now: DateTime<Utc>,
    lifetime: TimeDelta,
) -> Result<Signed> {
    let assignment = Assignment { device, version, targets };
    let documents = director::sign(&assignment, now, lifetime, &metadata.director).map_err(Error::internal)?;
    Ok(Signed {
        version,
        content,
        timestamp: documents.timestamp,
        snapshot: documents.snapshot,
        targets: documents.targets,
        signed_at: now,
        expires_at: now + lifetime,
    })
}

/// What the device lacks.
///
/// A root may take a key away, and what that key signed goes with it, however high its version: with a root comes all that
/// the root's keys have signed. Else a device that a stolen key had taken far ahead would be left there with nothing.
fn newer(metadata: &Metadata, signed: &Signed, work: &[&Work], held: Held) -> Update {
    let after = |roots: &[Bytes], version: u64| -> Vec<Bytes> {
        roots.iter().skip(usize::try_from(version).unwrap_or(usize::MAX)).cloned().collect()
    };
    let image_roots = after(&metadata.image_roots, held.image_root);
    let director_roots = after(&metadata.director_roots, held.director_root);
    let (new_image_root, new_director_root) = (!image_roots.is_empty(), !director_roots.is_empty());
    let new_timestamp = metadata.versions.image_timestamp > held.image_timestamp || new_image_root;
    let new_snapshot = metadata.snapshot_version > held.image_snapshot || new_image_root;
    let new_orders = signed.version > held.director || new_director_root;
    let paths: Vec<String> = work.iter().map(|work| path(work)).collect();
    let mut image_targets = Vec::new();
    if new_snapshot {
        image_targets.push(metadata.top());
    }
    // Bins came with the orders that needed them, as of the snapshot of that time.
    if new_snapshot || new_orders {
        image_targets.extend(metadata.bins(paths.iter().map(String::as_str)));
    }
    Update {
        image_roots,
        image_timestamp: new_timestamp.then(|| metadata.timestamp.clone()),
        image_snapshot: new_snapshot.then(|| metadata.snapshot.clone()),
        image_targets,
        director_roots,
        director: new_orders
            .then(|| [&signed.timestamp, &signed.snapshot, &signed.targets].map(|bytes| bytes.clone().into())),
        freshness: None,
    }
}

/// What is carried to a device that cannot check in.
#[derive(Debug)]
pub struct Export {
    /// What it should do.
    pub work: Vec<Work>,
    /// All metadata from the first root on.
    pub update: Update,
}

/// Signs for one device what it should run, good for `lifetime`. The image repository's snapshot and timestamp are signed
/// for as long, in versions of their own, so that the device believes them on arrival.
///
/// # Errors
/// `DEVICE_NOT_FOUND`.
pub async fn export(
    app: &App,
    caller: &Caller,
    device: DeviceId,
    work: Vec<Work>,
    lifetime: TimeDelta,
    now: DateTime<Utc>,
) -> Result<Export> {
    let mut tx = app.pool.begin().await?;
    db::trust_metadata::lock(&mut tx).await?;
    let keys = app.keys.signing(&mut tx).await?;
    let before = repository::load(&mut tx).await?;
    let none: [&[u8]; 0] = [];
    let after = image::follow(&before, &none, now, repository::online(&keys)).map_err(refused)?;
    after.check(now).map_err(invalid)?;
    repository::store(&mut tx, &before, &after, now).await?;
    let expires = |role: Role| now + lifetime.max(role.lifetime());
    let (Some(timestamp), Some(snapshot)) = (after.timestamp(), after.snapshot()) else {
        return Err(Error::internal("the image repository has no snapshot"));
    };
    let timestamp = Timestamp { expires: expires(Role::Timestamp), ..timestamp.clone() };
    let snapshot = Snapshot { expires: expires(Role::Snapshot), ..snapshot.clone() };
    let image_timestamp = metadata::sign(&timestamp, &[&keys.image_timestamp]).map_err(Error::internal)?;
    let image_snapshot = metadata::sign(&snapshot, &[&keys.image_snapshot]).map_err(Error::internal)?;

    let (there, _) = db::director::find(&mut tx, device).await?;
    let metadata = Metadata::read(&app.keys, &mut tx).await?;
    let work_refs: Vec<&Work> = work.iter().collect();
    let version = next_version(there.as_ref(), Held::default());
    let targets = targets(&metadata, &work_refs);
    // What is kept never counts as good, so that the next check-in signs for the usual time again.
    let content = Sha256Digest([0; 32]);
    let signed = sign(&metadata, device, version, targets, content, now, lifetime)?;
    if !db::director::put(&mut tx, device, &signed).await? {
        return Err(Error::refused(Reason::MetadataOutdated, "the device checked in meanwhile: export again"));
    }
    let event = NewEvent::new(Kind::DeviceMetadataExported, format!("devices/{device}"))
        .device(device)
        .detail("expires", signed.expires_at.to_rfc3339());
    db::event::record(&mut tx, caller, event).await?;
    db::notify::events(&mut tx).await?;
    tx.commit().await?;
    let update = Update {
        image_timestamp: Some(image_timestamp.into()),
        image_snapshot: Some(image_snapshot.into()),
        ..newer(&metadata, &signed, &work_refs, Held::default())
    };
    Ok(Export { work, update })
}
