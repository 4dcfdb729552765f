//! Signs releases as an operator's own machine does: reads the image repository, edits its list, publishes it.

use std::sync::LazyLock;

use chrono::Utc;
use ota_domain::{Hardware, release::Installer};
use ota_proto::admin::v1::{
    self, AddTargetsKeyRequest, GetMetadataRequest, PublishRootsRequest, PublishTargetsRequest, Release, Repository,
    TargetsDocument,
};
use ota_trust::{
    image::Catalog,
    key::{PrivateKey, Signer},
    metadata::{Custom, Mode, Role, Root, Target, read, sign},
    verify,
};
use tonic::{Code, Status};

use crate::operator::Operator;

/// The key that signs in this process. Every server under test is told of it when it is first needed there.
static KEY: LazyLock<PrivateKey> = LazyLock::new(|| PrivateKey::generate().expect("the machine has random numbers"));

/// Returns the key that signs releases in this process.
#[must_use]
pub fn key() -> &'static PrivateKey {
    &KEY
}

/// Returns a release as a signed list has it, with the floor 0.
///
/// # Panics
/// When it is not as the server sends releases.
#[must_use]
pub fn target(release: &Release) -> Target {
    let (package, version) =
        ota_proto::convert::admin::name::parse_release(&release.name).expect("a release has a name");
    let installer = match release.installer() {
        v1::Installer::File => Installer::File,
        v1::Installer::Directory => Installer::Directory,
        other @ (v1::Installer::Unspecified | v1::Installer::Slot | v1::Installer::Module | v1::Installer::Mcu) => {
            panic!("{other:?} is no installer that a release has")
        }
    };
    let payload = release.payload.strip_prefix("payloads/").expect("a release has a payload");
    let hardware: Result<Vec<Hardware>, _> = release.hardware.iter().map(|hardware| hardware.parse()).collect();
    Target {
        length: release.payload_size_bytes.unsigned_abs(),
        sha256: payload.parse().expect("a payload is named by its hash"),
        custom: Custom {
            package,
            version,
            release_counter: release.release_counter,
            floor: 0,
            hardware: hardware.expect("a release has hardware types"),
            installer,
            unpacked_size_bytes: release.unpacked_size_bytes.unsigned_abs(),
        },
    }
}

/// Makes the root with which operators take a repository over: any two of their keys sign the next. So many of them sign
/// this one.
///
/// # Panics
/// When the root names nobody for the timestamp, or a key does not sign.
#[must_use]
pub fn adopted(current: &Root, owners: &[PrivateKey; 3], signers: usize) -> Vec<u8> {
    let mut next = current.next(Utc::now() + Role::Root.lifetime());
    next.mode = Mode::Adopted;
    let keys: Vec<_> = owners.iter().map(Signer::public_key).collect();
    next.set_role(Role::Root, 2, &keys);
    // In the director repository the server goes on to sign targets.
    let own = current.keys_of(Role::Timestamp).next().expect("a root names all roles").id();
    if !current.keys_of(Role::Targets).any(|key| key.id() == own) {
        next.set_role(Role::Targets, 1, &[key().public_key()]);
    }
    let signers: Vec<&dyn Signer> = owners.iter().take(signers).map(|key| key as &dyn Signer).collect();
    sign(&next, &signers).expect("the keys sign")
}

impl Operator {
    /// Takes the root keys over, so that the server has none, and returns the new ones, of which two have to sign. What is
    /// listed has to be signed by this process' key.
    ///
    /// # Panics
    /// When refused.
    pub async fn adopt(&self) -> [PrivateKey; 3] {
        let owners = [(); 3].map(|()| PrivateKey::generate().expect("random numbers"));
        let next = async |repository: Repository| {
            let root = self.document(repository, Role::Root.as_str(), 0).await.expect("anybody reads a root");
            adopted(&read(&root).expect("a root"), &owners, 2).into()
        };
        let (image_root, director_root) = (next(Repository::Image).await, next(Repository::Director).await);
        let request = PublishRootsRequest { image_root, director_root };
        self.trust().publish_roots(request).await.expect("an admin takes the keys over");
        owners
    }

    /// Reads a document of a repository; the newest for version 0.
    ///
    /// # Errors
    /// When refused.
    pub async fn document(&self, repository: Repository, role: &str, version: i64) -> Result<Vec<u8>, Status> {
        let request = GetMetadataRequest { repository: repository.into(), role: role.to_owned(), version };
        Ok(self.trust().get_metadata(request).await?.into_inner().document.to_vec())
    }

    /// Reads the newest document of a role of the image repository.
    ///
    /// # Errors
    /// When refused.
    pub async fn metadata(&self, role: &str) -> Result<Vec<u8>, Status> {
        self.document(Repository::Image, role, 0).await
    }

    /// Reads the image repository as it is published. Believes the newest root, whatever it is.
    ///
    /// # Errors
    /// When refused; ABORTED when documents were published while it read.
    pub async fn image_repository(&self) -> Result<verify::Repository, Status> {
        let changed = |error| Status::aborted(format!("the repository changed meanwhile: {error}"));
        let [root, timestamp, snapshot, targets] = [Role::Root, Role::Timestamp, Role::Snapshot, Role::Targets];
        let (root, timestamp) = (self.metadata(root.as_str()).await?, self.metadata(timestamp.as_str()).await?);
        let (snapshot, top) = (self.metadata(snapshot.as_str()).await?, self.metadata(targets.as_str()).await?);
        let lists = [(targets.as_str(), top.as_slice())];
        let mut repository =
            verify::Repository::restore(&root, Some(&timestamp), Some(&snapshot), lists).map_err(changed)?;
        for bin in repository.missing() {
            let document = self.metadata(&bin).await?;
            repository.update_bin(&bin, &document, Utc::now()).map_err(changed)?;
        }
        Ok(repository)
    }

    /// Publishes documents that follow a snapshot.
    ///
    /// # Errors
    /// When refused.
    pub async fn publish_targets(&self, expected: u64, documents: Vec<(String, Vec<u8>)>) -> Result<i64, Status> {
        let documents = documents.into_iter();
        let request = PublishTargetsRequest {
            expected_snapshot_version: expected.cast_signed(),
            documents: documents.map(|(role, document)| TargetsDocument { role, document: document.into() }).collect(),
        };
        Ok(self.trust().publish_targets(request).await?.into_inner().snapshot_version)
    }

    /// Edits the list of what may be installed, signs it with this process' key and publishes it. Does it again when others
    /// publish at the same time.
    ///
    /// # Errors
    /// When refused.
    ///
    /// # Panics
    /// When the key does not sign.
    pub async fn edit_targets(&self, edit: impl Fn(&mut Catalog)) -> Result<(), Status> {
        loop {
            let published = async {
                let repository = self.image_repository().await?;
                let id = key().public_key().id();
                if !repository.root().keys_of(Role::Targets).any(|key| key.id() == id) {
                    let public_key = key().public_key().to_spki_der().into();
                    self.trust().add_targets_key(AddTargetsKeyRequest { public_key }).await?;
                    return Err(Status::aborted("the key is one of those that sign now"));
                }
                let mut catalog = Catalog::open(&repository).expect("the repository is whole");
                edit(&mut catalog);
                let documents = catalog.publish(Utc::now(), &[key()]).expect("the key signs");
                if documents.is_empty() {
                    return Ok(());
                }
                self.publish_targets(repository.versions().snapshot, documents).await.map(drop)
            };
            match published.await {
                Err(status) if status.code() == Code::Aborted => {}
                outcome => return outcome,
            }
        }
    }

    /// Lists a release as one that may be installed.
    ///
    /// # Errors
    /// When refused.
    pub async fn sign(&self, release: &Release) -> Result<(), Status> {
        let target = target(release);
        self.edit_targets(|catalog| catalog.insert(target.clone())).await
    }
}
