//! The first start: every key, both first roots, and an image repository that lists nothing.

use chrono::{DateTime, Utc};
use ota_trust::{
    key::Signer,
    metadata::{self, Mode, Role, Root, Snapshot, Targets, Timestamp},
};
use rcgen::{KeyPair, PKCS_ECDSA_P256_SHA256, PublicKeyData as _};
use sqlx::PgConnection;

use super::{KeyName, OpenError, SESSION_KEY_BYTES, SigningKeys, kek::KeyEncryptionKey, seal, seal_private};
use crate::{
    ca,
    db::{
        self,
        server_key::ServerKey,
        trust_metadata::{NewDocument, Repository},
    },
};

/// Makes everything and stores it.
pub(super) async fn generate(
    connection: &mut PgConnection,
    kek: &KeyEncryptionKey,
    now: DateTime<Utc>,
) -> Result<(), OpenError> {
    let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).map_err(|error| OpenError::Generate(error.into()))?;
    let certificate = ca::authority_certificate(&key, rand::random(), now).map_err(OpenError::Generate)?;
    let authority = ServerKey {
        certificate: Some(certificate.to_vec()),
        ..seal(kek, KeyName::CertificateAuthority, key.subject_public_key_info(), key.serialized_der())
    };
    let session = seal(kek, KeyName::Session, Vec::new(), &rand::random::<[u8; SESSION_KEY_BYTES]>());
    let signing = SigningKeys::generate()?;
    let signing_rows = signing.iter().map(|(name, key)| seal_private(kek, name, key.private()));
    for key in [authority, session].into_iter().chain(signing_rows) {
        db::server_key::put(&mut *connection, &key, now).await?;
    }
    for document in documents(&signing, now)? {
        db::trust_metadata::insert(&mut *connection, &document, now).await?;
    }
    Ok(())
}

fn documents(keys: &SigningKeys, now: DateTime<Utc>) -> Result<Vec<NewDocument>, OpenError> {
    let (Some(image_root), Some(image_targets), Some(director_root)) =
        (&keys.image_root, &keys.image_targets, &keys.director_root)
    else {
        unreachable!("all keys were just made");
    };
    let expires = |role: Role| now + role.lifetime();
    let root = |[root, targets, snapshot, timestamp]: [&dyn Signer; 4]| {
        let roles = [
            (Role::Root, &[root.public_key()][..]),
            (Role::Targets, &[targets.public_key()]),
            (Role::Snapshot, &[snapshot.public_key()]),
            (Role::Timestamp, &[timestamp.public_key()]),
        ];
        metadata::sign(&Root::first(Mode::Managed, expires(Role::Root), &roles), &[root])
    };
    let director = &keys.director;
    let targets =
        Targets { version: 1, expires: expires(Role::Targets), targets: [].into(), delegations: None, device: None };
    let snapshot =
        Snapshot { version: 1, expires: expires(Role::Snapshot), meta: [("targets.json".to_owned(), 1)].into() };
    let timestamp = Timestamp { version: 1, expires: expires(Role::Timestamp), snapshot_version: 1 };
    let image_root_document = root([image_root, image_targets, &keys.image_snapshot, &keys.image_timestamp])?;
    let first = |repository, role: Role, document| NewDocument {
        repository,
        role: role.as_str().to_owned(),
        version: 1,
        document,
        expires_at: expires(role),
    };
    Ok(vec![
        first(Repository::Image, Role::Root, image_root_document),
        first(Repository::Image, Role::Targets, metadata::sign(&targets, &[image_targets])?),
        first(Repository::Image, Role::Snapshot, metadata::sign(&snapshot, &[&keys.image_snapshot])?),
        first(Repository::Image, Role::Timestamp, metadata::sign(&timestamp, &[&keys.image_timestamp])?),
        first(Repository::Director, Role::Root, root([director_root, director, director, director])?),
    ])
}
