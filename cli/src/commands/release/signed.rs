//! What changes the signed list: `release sign`, `yank` and `delete`.

use std::path::PathBuf;

use ota_proto::admin::v1::{ErrorReason, GetReleaseRequest, Release, YankReleaseRequest};
use ota_trust::{image::Catalog, metadata::target_path};

use super::{Sign, Yank, size_of};
use crate::{
    error::{Failure, promised, reason_of},
    image_repository::ImageRepository,
    payload::{Installer, Source},
    progress::Progress,
    publication,
    reference::{ReleaseRef, short},
    session::Session,
    signing::TargetsKey,
};

/// Signs what another program published, after a look at it.
pub(super) async fn sign(session: &mut Session, command: Sign) -> Result<(), Failure> {
    let client = session.client().await?;
    let name = command.release;
    let request = GetReleaseRequest { name: name.name() };
    let release = promised(client.packages().get_release(request).await?.into_inner().release)?;
    match command.payload {
        Some(path) => compare(&name, &release, path).await?,
        None => {
            let question = format!(
                "Sign {name}? Its payload has the SHA-256 {} and {}; {} published it.",
                short(&release.payload),
                size_of(release.payload_size_bytes),
                release.creator
            );
            session.asker.confirm(&question, command.yes)?;
        }
    }
    let key = command.key.ready(session, &client).await?;
    let signed = publication::sign(session, &client, &key, &name, &release).await?;
    session.printer.done(&signed, "signed")
}

/// Packs a path as an upload would, and compares.
async fn compare(name: &ReleaseRef, release: &Release, path: PathBuf) -> Result<(), Failure> {
    let packed = tokio::task::spawn_blocking(move || Source::open(&path, None)?.pack(&Progress::hidden("packing")));
    let payload = packed.await.unwrap_or_else(|error| Err(Failure::because("cannot read the payload", &error)))?;
    let installer = match payload.installer {
        Installer::Directory => "directory",
        Installer::File => "file",
    };
    if short(&release.payload) == payload.sha256.to_string()
        && u64::try_from(release.payload_size_bytes) == Ok(payload.size)
    {
        return Ok(());
    }
    Err(Failure::failed(format!("{name} is not what you have here")).details([
        format!("there: sha256 {}, {}", short(&release.payload), size_of(release.payload_size_bytes)),
        format!("here: sha256 {}, {} bytes, for the installer {installer}", payload.sha256, payload.size),
    ]))
}

/// Takes a release out of use, at the server and in the signed list.
pub(super) async fn yank(session: &mut Session, command: Yank) -> Result<(), Failure> {
    let client = session.client().await?;
    let name = command.release;
    let mut question = format!("Yank {name}? There is no way back; publish another version instead.");
    if command.raise_floor {
        question.push_str(" Devices will refuse it and all earlier releases of the package for good.");
    }
    session.asker.confirm(&question, command.yes)?;
    let key = command.key.ready(session, &client).await?;
    let request = YankReleaseRequest { name: name.name(), reason: command.reason };
    match client.packages().yank_release(request).await {
        Ok(_) => {}
        // By an earlier run that was interrupted, or without the list.
        Err(status) if reason_of(&status) == Some(ErrorReason::ReleaseYanked) => {}
        Err(status) => return Err(status.into()),
    }
    let request = GetReleaseRequest { name: name.name() };
    let counter = promised(client.packages().get_release(request).await?.into_inner().release)?.release_counter;
    publication::publish(session, &client, &key, |catalog| {
        withdraw(catalog, &name, command.raise_floor.then_some(counter));
        Ok(())
    })
    .await?;
    let request = GetReleaseRequest { name: name.name() };
    let release = client.packages().get_release(request).await?.into_inner().release;
    session.printer.done(&promised(release)?, if command.raise_floor { "yanked, floor raised" } else { "yanked" })
}

/// Takes a release from the list. With its counter, raises the package's floor above it.
fn withdraw(catalog: &mut Catalog, name: &ReleaseRef, counter: Option<i64>) {
    let path = target_path(&name.package, &name.version);
    let others =
        catalog.entries().iter().any(|(other, target)| target.custom.package == name.package && *other != path);
    if let Some(counter) = counter {
        // What is signed is what devices compare with.
        let counter = catalog.entries().get(&path).map_or(counter, |target| target.custom.release_counter);
        catalog.raise_floor(&name.package, counter.saturating_add(1));
        // A floor stands in the entries of its package. The last one stays for that: it lies below the floor itself.
        if !others {
            return;
        }
    }
    catalog.remove(&path);
}

/// Takes a release that was deleted from the list, when it is in there.
pub(super) async fn forget(session: &Session, name: &ReleaseRef, key: &TargetsKey) -> Result<(), Failure> {
    let client = session.client().await?;
    let path = target_path(&name.package, &name.version);
    let image = ImageRepository::refresh(session, &client).await?;
    let catalog = Catalog::open(image.repository()).map_err(|error| crate::image_repository::refused(&error))?;
    if !catalog.entries().contains_key(&path) {
        return Ok(());
    }
    drop(image);
    let key = key.ready(session, &client).await?;
    publication::publish(session, &client, &key, |catalog| {
        catalog.remove(&path);
        Ok(())
    })
    .await?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use chrono::{DateTime, Utc};
    use ota_domain::{Sha256Digest, release::Installer};
    use ota_trust::{
        image::{OnlineKeys, create},
        key::{PrivateKey, Signer},
        metadata::{Custom, Mode, Role, Root, Target, sign},
    };

    use super::*;

    fn catalog(counters: &[i64]) -> Catalog {
        let now: DateTime<Utc> = "2026-11-21T12:00:00Z".parse().unwrap();
        let key = PrivateKey::generate().unwrap();
        let public = [key.public_key()];
        let roles = Role::ALL.map(|role| (role, public.as_slice()));
        let root = sign(&Root::first(Mode::Managed, now + Role::Root.lifetime(), &roles), &[&key]).unwrap();
        let repository = create(&root, now, &[&key], OnlineKeys { snapshot: &key, timestamp: &key }).unwrap();
        let mut catalog = Catalog::open(&repository).unwrap();
        for counter in counters {
            catalog.insert(Target {
                length: 1,
                sha256: Sha256Digest([1; 32]),
                custom: Custom {
                    package: "app".parse().unwrap(),
                    version: format!("{counter}.0.0").parse().unwrap(),
                    release_counter: *counter,
                    floor: 0,
                    hardware: Vec::new(),
                    installer: Installer::File,
                    unpacked_size_bytes: 0,
                },
            });
        }
        catalog
    }

    #[test]
    fn a_yanked_release_leaves_the_list_and_others_stay_as_they_are() {
        let mut catalog = catalog(&[1, 2]);
        withdraw(&mut catalog, &"app@2.0.0".parse().unwrap(), None);
        assert_eq!(catalog.entries().keys().collect::<Vec<_>>(), ["app/1.0.0"]);
        assert_eq!(catalog.floor(&"app".parse().unwrap()), 0);
    }

    #[test]
    fn a_raised_floor_lies_above_the_yanked_release_by_its_signed_counter() {
        let mut catalog = catalog(&[1, 2, 3]);
        // The server's word for the counter does not count.
        withdraw(&mut catalog, &"app@2.0.0".parse().unwrap(), Some(1_000_000));
        assert_eq!(catalog.entries().keys().collect::<Vec<_>>(), ["app/1.0.0", "app/3.0.0"]);
        assert_eq!(catalog.floor(&"app".parse().unwrap()), 3);
    }

    #[test]
    fn a_floor_outlives_the_last_release() {
        let mut catalog = catalog(&[4]);
        withdraw(&mut catalog, &"app@4.0.0".parse().unwrap(), Some(4));
        assert_eq!(catalog.floor(&"app".parse().unwrap()), 5);
        // Done twice, it is the same.
        withdraw(&mut catalog, &"app@4.0.0".parse().unwrap(), Some(4));
        assert_eq!(catalog.floor(&"app".parse().unwrap()), 5);
    }
}
