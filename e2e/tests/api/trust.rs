//! `TrustService`, and the signed metadata that check-ins bring: judged by what a device judges with.

mod check_ins;
mod roots;
mod targets;

use ota_domain::{Hardware, Sha256Digest, release::Installer};
use ota_e2e::{Operator, TestDevice};
use ota_proto::{
    admin::v1::Repository,
    device::v1::{CheckInRequest, CheckInResponse, Deployment, MetadataUpdate, MetadataVersions},
};
use ota_trust::{
    device::{Order, Trusted, Update},
    metadata::{self, Root},
};

async fn root(operator: &Operator, repository: Repository) -> Root {
    metadata::read(&operator.document(repository, "root", 0).await.unwrap()).unwrap()
}

/// What a device trusts that has just enrolled.
async fn enrolled(operator: &Operator, device: &TestDevice) -> Trusted {
    let first = async |repository| operator.document(repository, "root", 1).await.unwrap();
    let (image, director) = (first(Repository::Image).await, first(Repository::Director).await);
    Trusted::new(device.id().parse().unwrap(), "test".parse().unwrap(), &image, &director).unwrap()
}

fn update(wire: &MetadataUpdate) -> Update {
    let given = |bytes: &bytes::Bytes| (!bytes.is_empty()).then(|| bytes.to_vec());
    Update {
        image_roots: wire.image_roots.iter().map(|root| root.to_vec()).collect(),
        image_timestamp: given(&wire.image_timestamp),
        image_snapshot: given(&wire.image_snapshot),
        image_targets: wire.image_targets.iter().map(|list| (list.role.clone(), list.document.to_vec())).collect(),
        director_roots: wire.director_roots.iter().map(|root| root.to_vec()).collect(),
        director_timestamp: given(&wire.director_timestamp),
        director_snapshot: given(&wire.director_snapshot),
        director_targets: given(&wire.director_targets),
        freshness: given(&wire.freshness),
    }
}

fn versions(trusted: &Trusted) -> MetadataVersions {
    let held = trusted.versions();
    MetadataVersions {
        image_root: held.image.root.cast_signed(),
        image_timestamp: held.image.timestamp.cast_signed(),
        image_snapshot: held.image.snapshot.cast_signed(),
        director_root: held.director.root.cast_signed(),
        director: held.director.timestamp.cast_signed(),
    }
}

async fn check_in(device: &TestDevice, trusted: &Trusted, nonce: &[u8]) -> CheckInResponse {
    let request = CheckInRequest {
        agent_version: "1.0.0".to_owned(),
        metadata: Some(versions(trusted)),
        nonce: nonce.to_vec().into(),
        ..Default::default()
    };
    device.updates().check_in(request).await.unwrap().into_inner()
}

fn order(deployment: &Deployment) -> Order {
    let payload = deployment.payload.clone().unwrap();
    Order {
        package: deployment.package.parse().unwrap(),
        version: deployment.version.parse().unwrap(),
        sha256: Sha256Digest::try_from(payload.sha256.as_ref()).unwrap(),
        length: payload.size_bytes.unsigned_abs(),
        release_counter: deployment.release_counter,
        hardware: deployment.hardware.iter().map(|hardware| hardware.parse::<Hardware>().unwrap()).collect(),
        installer: Installer::File,
        unpacked_size_bytes: deployment.unpacked_size_bytes.unsigned_abs(),
    }
}
