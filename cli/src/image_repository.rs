//! The signed list of releases, as this machine believes it.
//!
//! What was verified is kept, so that a server that shows an older list later is noticed here too, and not by devices
//! alone. The first root is taken as the server shows it: the connection says which server that is.

mod store;

use chrono::{DateTime, Utc};
use ota_proto::admin::v1::{ErrorReason, GetMetadataRequest, Repository as WireRepository};
use ota_trust::{Because as _, Fault, Repository, TrustError, metadata::Role, verify::MAX_ROOT_STEPS};
use tonic::Status;

use crate::{
    backoff::patiently,
    client::Client,
    error::{Failure, reason_of},
    messages::Messages,
    session::Session,
};

use store::Store;

/// Times that a list is read again because another was published while it was read.
const ATTEMPTS: u32 = 5;

/// The image repository, verified, and what of it is kept on this machine.
#[derive(Debug)]
pub struct ImageRepository {
    /// Keeps other runs of otactl waiting.
    _store: Store,
    repository: Repository,
}

impl ImageRepository {
    /// Brings what is kept up to date, and keeps it. Waits for other runs of otactl that do the same.
    ///
    /// Root and targets may have expired: their keys are at hand to sign them again. Timestamp and snapshot may not,
    /// because the server has those keys, and showing old ones is how it would hide a newer list.
    pub async fn refresh(session: &Session, client: &Client) -> Result<Self, Failure> {
        let store = open(session, client, "image").await?;
        let fetch = Fetch { client, messages: session.messages, repository: WireRepository::Image };
        let mut attempts = 0;
        loop {
            attempts += 1;
            let known = store.load()?;
            match bring_up_to_date(&fetch, known, session.now()).await {
                Ok(repository) => {
                    store.save(&repository)?;
                    return Ok(Self { _store: store, repository });
                }
                // Documents that do not belong together are those of two lists: one was published in between.
                Err(Problem::Trust(error)) if error.fault == Fault::MixAndMatch && attempts < ATTEMPTS => {}
                Err(problem) => return Err(problem.into()),
            }
        }
    }

    /// Returns the repository.
    pub fn repository(&self) -> &Repository {
        &self.repository
    }

    /// Returns the version of the snapshot that a new list has to follow.
    pub fn snapshot_version(&self) -> i64 {
        i64::try_from(self.repository.versions().snapshot).unwrap_or(i64::MAX)
    }
}

/// Opens what is kept of a repository.
async fn open(session: &Session, client: &Client, name: &'static str) -> Result<Store, Failure> {
    let folder = session.trust_folder(client.context())?;
    tokio::task::spawn_blocking(move || Store::open(&folder, name))
        .await
        .unwrap_or_else(|error| Err(Failure::because("cannot open what is kept of the signed list", &error)))
}

/// Brings the root of the director repository up to date, and keeps it. The rest of that repository is each device's own.
pub async fn refresh_director(session: &Session, client: &Client) -> Result<Repository, Failure> {
    let store = open(session, client, "director").await?;
    let fetch = Fetch { client, messages: session.messages, repository: WireRepository::Director };
    let follow = async || -> Result<Repository, Problem> {
        let mut repository = match store.load()? {
            Some(repository) => repository,
            None => Repository::from_root(&fetch.required(Role::Root.as_str(), 0).await?)?,
        };
        let roots = fetch.roots_after(repository.root().version).await?;
        repository.update_roots(&roots)?;
        Ok(repository)
    };
    let repository = follow().await?;
    store.save(&repository)?;
    Ok(repository)
}

/// Why the list is not up to date.
#[derive(Debug)]
enum Problem {
    /// The server or the connection.
    Failure(Failure),
    /// What the server showed is not to be believed.
    Trust(TrustError),
}

impl From<TrustError> for Problem {
    fn from(error: TrustError) -> Self {
        Self::Trust(error)
    }
}

impl From<Failure> for Problem {
    fn from(failure: Failure) -> Self {
        Self::Failure(failure)
    }
}

impl From<Problem> for Failure {
    fn from(problem: Problem) -> Self {
        match problem {
            Problem::Failure(failure) => failure,
            Problem::Trust(error) => refused(&error),
        }
    }
}

/// Says why the server's list is not believed.
pub fn refused(error: &TrustError) -> Failure {
    let hint = match error.fault {
        Fault::Rollback => {
            "the server shows less than it did before: was its database restored from a backup? If so, and if you know \
             why, delete the folder `trust` beside the folder `keys` of this context"
        }
        Fault::Freeze => {
            "the server does not renew its signatures: see its log; are the clocks of both machines right?"
        }
        Fault::Arbitrary
        | Fault::MixAndMatch
        | Fault::OtherDevice
        | Fault::Hardware
        | Fault::Disagreement
        | Fault::Endless
        | Fault::Store => "this is another server than before, or one that somebody changed: nothing was signed",
    };
    Failure::failed(format!("the server's signed list is not to be believed: {error}")).hint(hint)
}

/// Reads documents of one repository.
struct Fetch<'a> {
    client: &'a Client,
    messages: Messages,
    repository: WireRepository,
}

impl Fetch<'_> {
    /// Reads a document. `version` 0 is the newest.
    async fn document(&self, role: &str, version: u64) -> Result<Option<Vec<u8>>, Failure> {
        let call = async || -> Result<_, Status> {
            let request = GetMetadataRequest {
                repository: self.repository.into(),
                role: role.to_owned(),
                version: i64::try_from(version).unwrap_or(i64::MAX),
            };
            self.client.trust().get_metadata(request).await
        };
        match patiently(self.messages, "reading the signed list", call).await {
            Ok(answer) => Ok(Some(answer.into_inner().document.to_vec())),
            Err(status) if reason_of(&status) == Some(ErrorReason::MetadataNotFound) => Ok(None),
            Err(status) => Err(status.into()),
        }
    }

    async fn required(&self, role: &str, version: u64) -> Result<Vec<u8>, Problem> {
        let found = self.document(role, version).await?;
        found.ok_or_else(|| Problem::Trust(Fault::MixAndMatch.because(format!("the server has no {role}"))))
    }

    /// Reads the newest root and those before it, down to the one that is trusted.
    async fn roots_after(&self, trusted: u64) -> Result<Vec<Vec<u8>>, Failure> {
        let mut roots = Vec::new();
        while roots.len() <= MAX_ROOT_STEPS {
            match self.document(Role::Root.as_str(), trusted + 1 + roots.len() as u64).await? {
                Some(root) => roots.push(root),
                None => break,
            }
        }
        Ok(roots)
    }
}

/// Follows the server from what is known to what it has now.
async fn bring_up_to_date(
    fetch: &Fetch<'_>,
    known: Option<Repository>,
    now: DateTime<Utc>,
) -> Result<Repository, Problem> {
    // What may have expired is looked at in the end, by itself.
    let whenever = DateTime::<Utc>::MIN_UTC;
    let mut repository = match known {
        Some(repository) => repository,
        None => Repository::from_root(&fetch.required(Role::Root.as_str(), 0).await?)?,
    };
    let roots = fetch.roots_after(repository.root().version).await?;
    repository.update_roots(&roots)?;
    let timestamp = fetch.required(Role::Timestamp.as_str(), 0).await?;
    repository.update_timestamp(&timestamp, whenever)?;
    let snapshot_version = repository.timestamp().map_or(0, |timestamp| timestamp.snapshot_version);
    let snapshot = fetch.required(Role::Snapshot.as_str(), snapshot_version).await?;
    repository.update_snapshot(&snapshot, whenever)?;
    let listed = |repository: &Repository, role: &str| {
        let meta = repository.snapshot().map(|snapshot| &snapshot.meta);
        meta.and_then(|meta| meta.get(&format!("{role}.json")).copied()).unwrap_or(0)
    };
    let targets = Role::Targets.as_str();
    if repository.targets(targets).is_none() {
        let version = listed(&repository, targets);
        repository.update_targets(&fetch.required(targets, version).await?, whenever)?;
    }
    for bin in repository.missing() {
        let version = listed(&repository, &bin);
        repository.update_bin(&bin, &fetch.required(&bin, version).await?, whenever)?;
    }
    is_fresh(&repository, now)?;
    Ok(repository)
}

/// Refuses a timestamp or a snapshot that has expired.
fn is_fresh(repository: &Repository, now: DateTime<Utc>) -> Result<(), TrustError> {
    let timestamp = repository.timestamp().map(|timestamp| ("timestamp", timestamp.expires));
    let snapshot = repository.snapshot().map(|snapshot| ("snapshot", snapshot.expires));
    for (role, expires) in timestamp.into_iter().chain(snapshot) {
        if expires <= now {
            return Err(Fault::Freeze.because(format!("its {role} ran out at {expires}")));
        }
    }
    Ok(())
}
