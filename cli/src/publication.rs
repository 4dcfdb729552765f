//! Changes the signed list of releases: read it, change it, sign it, publish it, and again when somebody was faster.

use ota_domain::{Hardware, Sha256Digest, release::Installer};
use ota_proto::admin::v1::{
    AddTargetsKeyRequest, ErrorReason, GetReleaseRequest, Installer as WireInstaller, PublishTargetsRequest, Release,
    TargetsDocument,
};
use ota_trust::{
    image::Catalog,
    key::{SignError, Signer},
    metadata::{Custom, Mode, Role, Root, Target},
};
use tonic::{Code, Status};

use crate::{
    backoff::patiently,
    client::Client,
    error::{Failure, promised, reason_of},
    image_repository::{ImageRepository, refused},
    messages::Messages,
    reference::{ReleaseRef, short},
    session::Session,
    signing::OpenKey,
};

/// Times that a change is made again because another was published first.
const ATTEMPTS: u32 = 10;

/// Changes the list and publishes it. `edit` is given the newest list, perhaps several times. Returns whether there was
/// anything to publish.
pub async fn publish(
    session: &Session,
    client: &Client,
    key: &OpenKey,
    edit: impl Fn(&mut Catalog) -> Result<(), Failure>,
) -> Result<bool, Failure> {
    attempt(session, client, key, |catalog, signer| {
        edit(catalog)?;
        catalog.publish(session.now(), &[signer]).map_err(cannot_sign)
    })
    .await
}

/// Signs the whole list again as it is: before a key that signed it goes, or because it gets old.
pub async fn publish_all(session: &Session, client: &Client, key: &OpenKey) -> Result<(), Failure> {
    let sign =
        |catalog: &mut Catalog, signer: &dyn Signer| catalog.publish_all(session.now(), &[signer]).map_err(cannot_sign);
    attempt(session, client, key, sign).await.map(|_| ())
}

fn cannot_sign(error: SignError) -> Failure {
    Failure::because("cannot sign the list of releases", &error)
}

/// Documents by role.
type Documents = Vec<(String, Vec<u8>)>;

async fn attempt(
    session: &Session,
    client: &Client,
    key: &OpenKey,
    sign: impl Fn(&mut Catalog, &dyn Signer) -> Result<Documents, Failure>,
) -> Result<bool, Failure> {
    let signer = key.signer.as_ref();
    for _ in 0..ATTEMPTS {
        let image = prepare(session, client, key).await?;
        let mut catalog = Catalog::open(image.repository()).map_err(|error| refused(&error))?;
        let documents = sign(&mut catalog, signer)?;
        if documents.is_empty() {
            return Ok(false);
        }
        match send(client, session.messages, image.snapshot_version(), documents).await {
            Ok(()) => {
                drop(image);
                // What others see from now on is the least that this machine believes later.
                ImageRepository::refresh(session, client).await?;
                return Ok(true);
            }
            // Also when an answer was lost and the call was made twice: the next look finds nothing left to do.
            Err(status) if reason_of(&status) == Some(ErrorReason::MetadataOutdated) => {}
            Err(status) => return Err(status.into()),
        }
    }
    Err(Failure::failed("others publish faster than this machine can sign").hint("repeat the command in a moment"))
}

/// Reads the newest list, and sees to it that the key may sign it.
pub async fn prepare(session: &Session, client: &Client, key: &OpenKey) -> Result<ImageRepository, Failure> {
    let image = ImageRepository::refresh(session, client).await?;
    let root = image.repository().root();
    if may_sign(root, key.signer.as_ref())? {
        return Ok(image);
    }
    admit(session, client, key, root.mode).await?;
    // Other runs of otactl wait for as long as this one holds what is kept.
    drop(image);
    let image = ImageRepository::refresh(session, client).await?;
    if may_sign(image.repository().root(), key.signer.as_ref())? {
        return Ok(image);
    }
    Err(Failure::failed("the server added your key, and its root does not name it").hint("see the server's log"))
}

/// Tells whether this key alone may sign the list.
fn may_sign(root: &Root, signer: &dyn Signer) -> Result<bool, Failure> {
    let threshold = root.threshold(Role::Targets);
    if threshold > 1 {
        return Err(Failure::failed(format!("the list of releases takes {threshold} signatures"))
            .hint("this otactl signs with one key"));
    }
    Ok(root.keys_of(Role::Targets).any(|key| key == signer.public_key()))
}

/// Has a key added to those that may sign the list.
async fn admit(session: &Session, client: &Client, key: &OpenKey, mode: Mode) -> Result<(), Failure> {
    let public = key.signer.public_key();
    let id = public.id();
    if mode == Mode::Adopted {
        return Err(Failure::failed(format!("your key {id} may not sign releases here")).hint(format!(
            "whoever holds the root keys can allow it: otactl keys add {}",
            encode(key.signer.as_ref())
        )));
    }
    let add =
        async || client.trust().add_targets_key(AddTargetsKeyRequest { public_key: public.to_spki_der().into() }).await;
    match patiently(session.messages, "adding the key", add).await {
        Ok(_) => {
            session.messages.say(&format!("your key {id} may sign releases from now on"));
            Ok(())
        }
        Err(status) if status.code() == Code::PermissionDenied => {
            Err(Failure::failed(format!("your key {id} may not sign releases yet, and your role may not allow it"))
                .hint(format!("an administrator can: otactl keys add {}", encode(key.signer.as_ref()))))
        }
        Err(status) => Err(status.into()),
    }
}

/// Writes a public key on one line, so that it can be sent to somebody.
pub fn encode(signer: &dyn Signer) -> String {
    data_encoding::BASE64.encode(&signer.public_key().to_spki_der())
}

async fn send(
    client: &Client,
    messages: Messages,
    expected_snapshot_version: i64,
    documents: Documents,
) -> Result<(), Status> {
    let documents: Vec<_> =
        documents.into_iter().map(|(role, document)| TargetsDocument { role, document: document.into() }).collect();
    let call = async || {
        let request = PublishTargetsRequest { expected_snapshot_version, documents: documents.clone() };
        client.trust().publish_targets(request).await
    };
    patiently(messages, "publishing the signed list", call).await.map(|_| ())
}

/// Lists a release and signs the list. `release` is what the caller knows to be right; the server chose its counter alone.
/// Returns the release as the server has it then.
pub async fn sign(
    session: &Session,
    client: &Client,
    key: &OpenKey,
    name: &ReleaseRef,
    release: &Release,
) -> Result<Release, Failure> {
    let target = target(name, release)?;
    publish(session, client, key, |catalog| list(catalog, &target)).await?;
    let answer = client.packages().get_release(GetReleaseRequest { name: name.name() }).await?.into_inner();
    let release = promised(answer.release)?;
    if release.is_signed {
        Ok(release)
    } else {
        Err(Failure::failed(format!("{name} is in the signed list, and the server does not take it for signed"))
            .hint("see `otactl keys status`, and the server's log"))
    }
}

/// Puts a release into the list. What is listed already under its name never becomes another thing.
fn list(catalog: &mut Catalog, target: &Target) -> Result<(), Failure> {
    let (package, counter) = (&target.custom.package, target.custom.release_counter);
    for other in catalog.entries().values().filter(|other| other.custom.package == *package) {
        let same_name = other.path() == target.path();
        if !same_name && other.custom.release_counter == counter {
            return Err(Failure::failed(format!(
                "the server gives {} the counter {counter}, which {} has already",
                target.path(),
                other.path()
            ))
            .hint("nothing was signed; was the server's database restored from a backup?"));
        }
        let unsigned_part = Custom { floor: other.custom.floor, ..target.custom.clone() };
        if same_name && (other.length, other.sha256, &other.custom) != (target.length, target.sha256, &unsigned_part) {
            return Err(Failure::failed(format!("another {} is signed already", target.path()))
                .hint("releases never change: choose another version"));
        }
    }
    let floor = catalog.floor(package);
    if counter < floor {
        return Err(Failure::failed(format!("{} has the counter {counter}, below the floor {floor}", target.path()))
            .hint("devices refuse it: publish it as a new version"));
    }
    catalog.insert(target.clone());
    Ok(())
}

/// Makes the entry of a release.
fn target(name: &ReleaseRef, release: &Release) -> Result<Target, Failure> {
    let sha256: Sha256Digest = promised(short(&release.payload).parse().ok())?;
    let hardware: Result<Vec<Hardware>, _> = release.hardware.iter().map(|text| text.parse()).collect();
    // In the server's order: devices compare it with what the server orders, as it stands.
    let hardware = promised(hardware.ok())?;
    let installer = match release.installer() {
        WireInstaller::Directory => Installer::Directory,
        WireInstaller::File => Installer::File,
        WireInstaller::Unspecified | WireInstaller::Slot | WireInstaller::Module | WireInstaller::Mcu => {
            return Err(Failure::failed(format!("{name} has an installer that this otactl does not know"))
                .hint("a later version of otactl will"));
        }
    };
    Ok(Target {
        length: promised(u64::try_from(release.payload_size_bytes).ok())?,
        sha256,
        custom: Custom {
            package: name.package.clone(),
            version: name.version.clone(),
            release_counter: promised(Some(release.release_counter).filter(|counter| *counter > 0))?,
            floor: 0,
            hardware,
            installer,
            unpacked_size_bytes: promised(u64::try_from(release.unpacked_size_bytes).ok())?,
        },
    })
}

#[cfg(test)]
mod tests;
