//! Roots and the keys they name: the server's, and those of operators who take them over.

use std::collections::BTreeMap;

use chrono::{TimeDelta, Utc};
use ota_e2e::{Operator, TestDevice, TestServer, assert_refused, assert_violates, operator::unique_payload, signing};
use ota_proto::admin::v1::{
    self as admin, GetTrustStatusRequest, PublishRootsRequest, Repository, RotateServerKeyRequest, TrustMode,
};
use ota_server::{
    app::trust::{self, NewRoots},
    auth::Caller,
};
use ota_trust::{
    device::Trusted,
    image::Catalog,
    key::{PrivateKey, PublicKey, Signer},
    metadata::{self, Mode, Role, Root},
};
use sqlx::PgPool;
use tonic::{Code, Status};

use super::{check_in, enrolled, order, root, update};

const ROLES: [(Repository, &str); 5] = [
    (Repository::Image, "root"),
    (Repository::Image, "snapshot"),
    (Repository::Image, "timestamp"),
    (Repository::Director, "root"),
    (Repository::Director, "targets"),
];

async fn key_names(pool: &PgPool) -> Vec<String> {
    sqlx::query_scalar("SELECT name FROM server_key ORDER BY name").fetch_all(pool).await.unwrap()
}

/// What the device trusts once it took the next release, which it believes.
async fn followed(admin: &Operator, device: &TestDevice, trusted: Trusted, round: u8) -> Trusted {
    let release = admin.publish("app", &format!("{round}.0.0"), &unique_payload(100)).await;
    admin.assign(&release, &[device]).await;
    let granted = device.granted().await;
    let answer = check_in(device, &trusted, &[round; 16]).await;
    let trusted = trusted.update(&update(&answer.metadata.unwrap()), Some(&[round; 16]), Utc::now()).unwrap();
    trusted.authorize(&order(&granted), Utc::now()).unwrap();
    // Else a replica, which hears of the next assignment a little later, would bring this one again.
    device.complete(&granted).await;
    trusted
}

#[tokio::test]
async fn every_key_of_the_servers_can_be_replaced_and_devices_follow() {
    let server = TestServer::start().await;
    let replica = server.replica().await;
    let admin = server.admin();
    let device = admin.enroll().await.at(&replica.url());
    let mut trusted = enrolled(&admin, &device).await;
    for (round, (repository, role)) in (1..).zip(ROLES) {
        let before = root(&admin, repository).await;
        let request = RotateServerKeyRequest { repository: repository.into(), role: role.to_owned() };
        let made = admin.trust().rotate_server_key(request).await.unwrap().into_inner().key_id;
        let after = root(&admin, repository).await;
        assert_eq!(after.version, before.version + 1);
        let rotated = Role::ALL.into_iter().find(|one| one.as_str() == role).unwrap();
        assert_eq!(after.keys_of(rotated).map(|key| key.id().to_string()).collect::<Vec<_>>(), [made]);

        trusted = followed(&admin, &device, trusted, round).await;
    }
    let request = RotateServerKeyRequest { repository: Repository::Image.into(), role: "targets".to_owned() };
    assert_violates(&admin.trust().rotate_server_key(request).await.unwrap_err(), "role");
    let request = RotateServerKeyRequest { repository: 7, role: "root".to_owned() };
    assert_violates(&admin.trust().rotate_server_key(request).await.unwrap_err(), "repository");
}

#[tokio::test]
async fn operators_who_take_the_root_keys_over_leave_the_server_none() {
    let server = TestServer::start().await;
    let admin = server.admin();
    let device = admin.enroll().await;
    let trusted = enrolled(&admin, &device).await;
    let release = admin.publish("app", "1.0.0", &unique_payload(100)).await;
    let owners = [(); 3].map(|()| PrivateKey::generate().unwrap());
    let (image, director) = (root(&admin, Repository::Image).await, root(&admin, Repository::Director).await);
    let publish = async |image_root: Vec<u8>, director_root: Vec<u8>| {
        let request = PublishRootsRequest { image_root: image_root.into(), director_root: director_root.into() };
        Ok::<_, Status>(admin.trust().publish_roots(request).await?.into_inner().mode())
    };
    let before = key_names(server.pool()).await;
    // Too few signatures; one repository alone; roots of the operators that still name the server's keys.
    for bad in [
        (signing::adopted(&image, &owners, 1), signing::adopted(&director, &owners, 2)),
        (signing::adopted(&image, &owners, 2), vec![]),
        (vec![], signing::adopted(&director, &owners, 2)),
    ] {
        assert_refused(&publish(bad.0, bad.1).await.unwrap_err(), Code::InvalidArgument, "METADATA_INVALID");
    }
    let mut named: Root = metadata::read(&signing::adopted(&image, &owners, 2)).unwrap();
    let targets: Vec<_> = image.keys_of(Role::Targets).collect();
    named.set_role(Role::Targets, 1, &targets);
    let named = metadata::sign(&named, &[&owners[0], &owners[1]]).unwrap();
    let refused = publish(named, signing::adopted(&director, &owners, 2)).await.unwrap_err();
    assert_refused(&refused, Code::InvalidArgument, "METADATA_INVALID");
    assert_violates(&publish(vec![], vec![]).await.unwrap_err(), "image_root");
    assert_eq!(key_names(server.pool()).await, before);

    let mode = publish(signing::adopted(&image, &owners, 2), signing::adopted(&director, &owners, 2)).await.unwrap();
    assert_eq!(mode, TrustMode::Adopted);
    let gone = ["director-root", "image-root", "image-targets"];
    let kept: Vec<_> = before.into_iter().filter(|name| !gone.contains(&name.as_str())).collect();
    assert_eq!(key_names(server.pool()).await, kept);
    let status = admin.trust().get_trust_status(GetTrustStatusRequest {}).await.unwrap().into_inner();
    assert_eq!(status.mode(), TrustMode::Adopted);
    for role in &status.roles {
        let held = role.keys.iter().any(|key| key.held_by_server);
        let theirs = role.role == "root" || (role.role == "targets" && role.repository() == Repository::Image);
        assert_eq!(held, !theirs, "{role:?}");
        assert_eq!(role.threshold, if role.role == "root" { 2 } else { 1 });
    }
    let shown = admin.status().get_status(admin::GetStatusRequest {}).await.unwrap().into_inner();
    assert_eq!(shown.trust_mode, "adopted");

    // The server cannot go back, nor change who signs.
    let (image, director) = (root(&admin, Repository::Image).await, root(&admin, Repository::Director).await);
    let public_key = owners[0].public_key().to_spki_der().into();
    let refused = admin.trust().add_targets_key(admin::AddTargetsKeyRequest { public_key }).await.unwrap_err();
    assert_refused(&refused, Code::FailedPrecondition, "ROOT_ADOPTED");
    for repository in [Repository::Image, Repository::Director] {
        let request = RotateServerKeyRequest { repository: repository.into(), role: "root".to_owned() };
        let refused = admin.trust().rotate_server_key(request).await.unwrap_err();
        assert_refused(&refused, Code::FailedPrecondition, "ROOT_ADOPTED");
    }
    let mut back = image.next(Utc::now() + Role::Root.lifetime());
    back.mode = Mode::Managed;
    let back = metadata::sign(&back, &[&owners[0], &owners[1]]).unwrap();
    assert_refused(&publish(back, vec![]).await.unwrap_err(), Code::InvalidArgument, "METADATA_INVALID");
    let outdated = metadata::sign(&image, &[&owners[0], &owners[1]]).unwrap();
    assert_refused(&publish(outdated, vec![]).await.unwrap_err(), Code::Aborted, "METADATA_OUTDATED");

    // The operators can; and the fleet goes on.
    let next = |root: &Root| metadata::sign(&root.next(Utc::now() + Role::Root.lifetime()), &[&owners[1], &owners[2]]);
    assert_eq!(publish(next(&image).unwrap(), next(&director).unwrap()).await.unwrap(), TrustMode::Adopted);
    admin.assign(&release, &[&device]).await;
    let granted = device.granted().await;
    let answer = check_in(&device, &trusted, &[7; 16]).await;
    let trusted = trusted.update(&update(&answer.metadata.unwrap()), Some(&[7; 16]), Utc::now()).unwrap();
    trusted.authorize(&order(&granted), Utc::now()).unwrap();
    trust::keep_fresh(server.app(), Utc::now() + TimeDelta::days(200)).await.unwrap();
    assert_eq!(root(&admin, Repository::Image).await.version, image.version + 1);
    admin.publish("app", "2.0.0", &unique_payload(100)).await;
}

#[tokio::test]
async fn a_key_made_for_operators_waits_for_the_root_that_names_it() {
    let server = TestServer::start().await;
    let replica = server.replica().await;
    let admin = server.admin();
    let device = admin.enroll().await;
    let mut trusted = enrolled(&admin, &device).await;
    admin.publish("app", "1.0.0", &unique_payload(100)).await;
    let owners = admin.adopt().await;
    let before = key_names(server.pool()).await;
    for (round, (repository, role)) in (2..).zip(ROLES.into_iter().filter(|(_, role)| *role != "root")) {
        let current = root(&admin, repository).await;
        let prepare = async |admin: &Operator| {
            let request = RotateServerKeyRequest { repository: repository.into(), role: role.to_owned() };
            admin.trust().rotate_server_key(request).await.unwrap().into_inner()
        };
        let answer = prepare(&admin).await;
        assert!(answer.awaits_root);
        // Whoever begins again goes on with the same key, on any replica, and meanwhile nothing is different.
        assert_eq!(prepare(&admin.at(&replica.url())).await, answer);
        assert_eq!(root(&admin, repository).await, current);
        admin.publish("app", &format!("{round}.0.0-rc"), &unique_payload(100)).await;

        let key = PublicKey::from_spki_der(&answer.public_key).unwrap();
        assert_eq!(key.id().to_string(), answer.key_id);
        let roles = if repository == Repository::Image { vec![role] } else { vec!["targets", "snapshot", "timestamp"] };
        let next = |roles: &[&str]| {
            let mut next = current.next(Utc::now() + Role::Root.lifetime());
            for role in Role::ALL.into_iter().filter(|one| roles.contains(&one.as_str())) {
                next.set_role(role, 1, &[&key]);
            }
            bytes::Bytes::from(metadata::sign(&next, &[&owners[0], &owners[2]]).unwrap())
        };
        let publish = async |document: bytes::Bytes| {
            let request = match repository {
                Repository::Director => PublishRootsRequest { director_root: document, ..Default::default() },
                Repository::Image | Repository::Unspecified => {
                    PublishRootsRequest { image_root: document, ..Default::default() }
                }
            };
            admin.trust().publish_roots(request).await
        };
        // The key is for all that it is to sign, or for nothing.
        if let [first, _, _] = roles.as_slice() {
            let refused = publish(next(&[first])).await.unwrap_err();
            assert_refused(&refused, Code::InvalidArgument, "METADATA_INVALID");
        }
        publish(next(&roles)).await.unwrap();
        assert_eq!(key_names(server.pool()).await, before, "a key that waited is left");

        trusted = followed(&admin, &device, trusted, round).await;
    }
}

#[tokio::test]
async fn operators_who_slept_for_years_sign_root_and_list_again() {
    let server = TestServer::start().await;
    let (admin, app) = (server.admin(), server.app());
    admin.publish("app", "1.0.0", &unique_payload(100)).await;
    let owners = admin.adopt().await;
    let late = Utc::now() + TimeDelta::days(1_000);
    // The server's part never stops: without a fresh timestamp nobody could tell what there is to sign again.
    trust::keep_fresh(app, late).await.unwrap();
    let repository = admin.image_repository().await.unwrap();
    assert!(repository.timestamp().unwrap().expires > late);
    repository.check(late).unwrap_err();

    let publish = async |repository: &ota_trust::Repository| {
        let documents = Catalog::open(repository).unwrap().publish_all(late, &[signing::key()]).unwrap();
        let snapshot = repository.versions().snapshot;
        trust::publish_targets(app, &Caller::server(), snapshot, &documents, late).await
    };
    // The root comes first.
    publish(&repository).await.unwrap_err();
    let renewed = async |repository| {
        let next = root(&admin, repository).await.next(late + Role::Root.lifetime());
        Some(metadata::sign(&next, &[&owners[0], &owners[1]]).unwrap())
    };
    let roots = NewRoots { image: renewed(Repository::Image).await, director: renewed(Repository::Director).await };
    trust::publish_roots(app, &Caller::server(), &roots, late).await.unwrap();
    publish(&admin.image_repository().await.unwrap()).await.unwrap();
    admin.image_repository().await.unwrap().check(late).unwrap();
}

#[tokio::test]
async fn a_key_that_may_sign_already_changes_nothing() {
    let server = TestServer::start().await;
    let admin = server.admin();
    let key = PrivateKey::generate().unwrap();
    let request = || admin::AddTargetsKeyRequest { public_key: key.public_key().to_spki_der().into() };
    for _ in 0..2 {
        let added = admin.trust().add_targets_key(request()).await.unwrap().into_inner();
        assert_eq!(added.key_id, key.public_key().id().to_string());
        assert_eq!(root(&admin, Repository::Image).await.version, 2);
    }
    let bad = admin::AddTargetsKeyRequest { public_key: b"no key".to_vec().into() };
    assert_violates(&admin.trust().add_targets_key(bad).await.unwrap_err(), "public_key");
}

#[tokio::test]
async fn every_change_of_trust_is_an_event() {
    let server = TestServer::start().await;
    let admin = server.admin();
    let release = admin.publish("app", "1.0.0", &unique_payload(100)).await;
    let request = RotateServerKeyRequest { repository: Repository::Image.into(), role: "snapshot".to_owned() };
    admin.trust().rotate_server_key(request).await.unwrap();
    let image = root(&admin, Repository::Image).await;
    let image_root = metadata::sign(&image.next(Utc::now() + Role::Root.lifetime()), &[]).unwrap().into();
    admin.trust().publish_roots(PublishRootsRequest { image_root, ..Default::default() }).await.unwrap();
    let listed = admin.events().list_events(admin::ListEventsRequest::default()).await.unwrap().into_inner();
    let details: BTreeMap<_, _> =
        listed.events.iter().map(|event| (event.kind.as_str(), (event.subject.as_str(), &event.details))).collect();
    for (kind, subject) in [
        ("targets_key.added", "metadata/image/root"),
        ("targets.published", "metadata/image/targets"),
        ("server_key.rotated", "metadata/image/root"),
        ("root.published", "metadata/image/root"),
    ] {
        assert_eq!(details[kind].0, subject);
    }
    assert!(release.name.ends_with("1.0.0"));
    assert_eq!(details["targets.published"].1["added"], "app/1.0.0");
}
