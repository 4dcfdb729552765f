//! `TrustService`, and the signed metadata that check-ins bring: judged by what a device judges with.

use std::collections::BTreeMap;

use chrono::{DateTime, TimeDelta, Utc};
use ota_domain::{Hardware, Sha256Digest, release::Installer, role::Role as OperatorRole};
use ota_e2e::{
    Operator, TestDevice, TestServer, assert_refused, assert_violates,
    device::sha256,
    operator::{crc32c, unique_payload},
    signing,
};
use ota_proto::{
    admin::v1::{
        self as admin, DownloadPayloadRequest, ExportDeviceMetadataRequest, GetMetadataRequest, GetReleaseRequest,
        GetTrustStatusRequest, PublishRootsRequest, Release, Repository, RotateServerKeyRequest, TrustMode,
    },
    device::v1::{CheckInRequest, CheckInResponse, Deployment, MetadataUpdate, MetadataVersions},
};
use ota_server::{
    app::{
        trust,
        trust::{Asked, Held, NewRoots},
    },
    auth::Caller,
    grpc::admin::trust::MAX_DOCUMENTS_BYTES,
};
use ota_trust::{
    device::{Order, Trusted, Update},
    image::Catalog,
    key::{PrivateKey, PublicKey, Signer},
    metadata::{self, Custom, Mode, Role, Root, Target, Targets, Timestamp},
};
use prost::Message as _;
use sqlx::PgPool;
use tonic::{Code, Status};

const ROLES: [(Repository, &str); 5] = [
    (Repository::Image, "root"),
    (Repository::Image, "snapshot"),
    (Repository::Image, "timestamp"),
    (Repository::Director, "root"),
    (Repository::Director, "targets"),
];

async fn document(operator: &Operator, repository: Repository, role: &str, version: i64) -> Result<Vec<u8>, Status> {
    let request = GetMetadataRequest { repository: repository.into(), role: role.to_owned(), version };
    Ok(operator.trust().get_metadata(request).await?.into_inner().document.to_vec())
}

async fn root(operator: &Operator, repository: Repository) -> Root {
    metadata::read(&document(operator, repository, "root", 0).await.unwrap()).unwrap()
}

/// What a device trusts that has just enrolled.
async fn enrolled(operator: &Operator, device: &TestDevice) -> Trusted {
    let first = async |repository| document(operator, repository, "root", 1).await.unwrap();
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

async fn key_names(pool: &PgPool) -> Vec<String> {
    sqlx::query_scalar("SELECT name FROM server_key ORDER BY name").fetch_all(pool).await.unwrap()
}

async fn unsigned(operator: &Operator, version: &str) -> Release {
    let release = Release {
        installer: admin::Installer::File.into(),
        payload: format!("payloads/{}", operator.upload(&unique_payload(100)).await),
        ..Default::default()
    };
    operator.create_unsigned_release("app", version, release).await.unwrap()
}

async fn is_signed(operator: &Operator, release: &Release) -> bool {
    let request = GetReleaseRequest { name: release.name.clone() };
    operator.packages().get_release(request).await.unwrap().into_inner().release.unwrap().is_signed
}

#[tokio::test]
async fn a_release_can_be_assigned_only_while_a_signed_list_has_it() {
    let server = TestServer::start().await;
    let admin = server.admin();
    let device = admin.enroll().await;
    let release = unsigned(&admin, "1.0.0").await;
    let choice = || admin::target::Choice::Devices(admin::DeviceList { names: vec![device.name()] });
    assert!(!is_signed(&admin, &release).await);
    let refused = admin.create_rollout(&release, choice()).await.unwrap_err();
    assert_refused(&refused, Code::FailedPrecondition, "RELEASE_NOT_SIGNED");
    let plan = admin::Rollout {
        release: release.name.clone(),
        target: Some(admin::Target { choice: Some(choice()) }),
        ..Default::default()
    };
    let preview = admin::PreviewRolloutRequest { rollout: Some(plan) };
    let refused = admin.rollouts().preview_rollout(preview).await.unwrap_err();
    assert_refused(&refused, Code::FailedPrecondition, "RELEASE_NOT_SIGNED");

    admin.sign(&release).await.unwrap();
    assert!(is_signed(&admin, &release).await);
    admin.create_rollout(&release, choice()).await.unwrap();

    admin.edit_targets(|catalog| assert!(catalog.remove("app/1.0.0"))).await.unwrap();
    assert!(!is_signed(&admin, &release).await);
    let refused = admin.create_rollout(&release, choice()).await.unwrap_err();
    assert_refused(&refused, Code::FailedPrecondition, "RELEASE_NOT_SIGNED");
}

#[tokio::test]
async fn an_entry_has_to_be_as_its_release_is() {
    let server = TestServer::start().await;
    let admin = server.admin();
    let release = unsigned(&admin, "1.0.0").await;
    let good = signing::target(&release);
    let mut bad = vec![good.clone(); 7];
    bad[0].sha256 = sha256(b"other");
    bad[1].length += 1;
    bad[2].custom.release_counter += 1;
    bad[3].custom.hardware = vec!["rpi4".parse().unwrap()];
    bad[4].custom.installer = Installer::Directory;
    bad[5].custom.unpacked_size_bytes = 7;
    bad[6].custom.version = "9.9.9".parse().unwrap();
    for target in bad {
        let refused = admin.edit_targets(|catalog| catalog.insert(target.clone())).await.unwrap_err();
        assert_refused(&refused, Code::InvalidArgument, "METADATA_INVALID");
        assert!(refused.message().contains(&target.path()), "{}", refused.message());
    }
    assert!(!is_signed(&admin, &release).await);
    assert!(admin.image_repository().await.unwrap().targets("targets").unwrap().targets.is_empty());
    admin.sign(&release).await.unwrap();
}

#[tokio::test]
async fn documents_that_no_device_would_believe_are_refused() {
    let server = TestServer::start().await;
    let admin = server.admin();
    admin.publish("app", "1.0.0", &unique_payload(100)).await;
    let repository = admin.image_repository().await.unwrap();
    let snapshot = repository.versions().snapshot;
    let release = unsigned(&admin, "2.0.0").await;
    let mut catalog = Catalog::open(&repository).unwrap();
    catalog.insert(signing::target(&release));
    let signed = |key: &PrivateKey| catalog.publish(Utc::now(), &[key]).unwrap();

    let stranger = PrivateKey::generate().unwrap();
    let good = signed(signing::key());
    let mut changed = good.clone();
    let position = changed[0].1.windows(5).position(|part| part == b"2.0.0").unwrap();
    changed[0].1[position] = b'3';
    let held = repository.bytes("targets").unwrap().to_vec();
    for bad in [
        signed(&stranger),
        changed,
        // The list that is published already, and one twice.
        vec![("targets".to_owned(), held)],
        [good.clone(), good.clone()].concat(),
        vec![("bin-00".to_owned(), good[0].1.clone())],
        vec![("targets".to_owned(), b"{}".to_vec())],
    ] {
        let refused = admin.publish_targets(snapshot, bad).await.unwrap_err();
        assert_refused(&refused, Code::InvalidArgument, "METADATA_INVALID");
    }
    for (expected, documents, field) in [
        (0, good.clone(), "expected_snapshot_version"),
        (snapshot, vec![], "documents"),
        (snapshot, vec![("root".to_owned(), good[0].1.clone())], "documents[0].role"),
    ] {
        assert_violates(&admin.publish_targets(expected, documents).await.unwrap_err(), field);
    }
    assert_eq!(admin.image_repository().await.unwrap().versions(), repository.versions());

    // A snapshot older than the newest is nothing to follow, neither for what was published since nor for anything else.
    assert_eq!(admin.publish_targets(snapshot, good.clone()).await.unwrap().unsigned_abs(), snapshot + 1);
    for expected in [snapshot, snapshot + 2] {
        let refused = admin.publish_targets(expected, good.clone()).await.unwrap_err();
        assert_refused(&refused, Code::Aborted, "METADATA_OUTDATED");
    }
}

#[tokio::test]
async fn all_lists_are_published_in_one_call_when_they_become_more() {
    /// One more than 64 bins take: 1,024 are signed at once.
    const RELEASES: i64 = 50_001;
    const LARGE: usize = 8 * 1024 * 1024;

    let server = TestServer::start().await;
    let admin = server.admin();
    let first = signing::target(&admin.publish("app", "1.0.0", &unique_payload(100)).await);
    let statement = "INSERT INTO release (id, package_id, version, release_counter, installer, payload_sha256, state,
                                          created_at, creator)
                     SELECT gen_random_uuid(), package_id, number || '.0.0', number, installer, payload_sha256, state,
                            created_at, creator
                     FROM release, generate_series(2, $1) AS number";
    sqlx::query(statement).bind(RELEASES).execute(server.pool()).await.unwrap();
    let repository = admin.image_repository().await.unwrap();
    let mut catalog = Catalog::open(&repository).unwrap();
    catalog.insert_all((2..=RELEASES).map(|number| {
        let version = format!("{number}.0.0").parse().unwrap();
        let custom = Custom { version, release_counter: number, ..first.custom.clone() };
        Target { custom, ..first.clone() }
    }));
    let documents = catalog.publish(Utc::now(), &[signing::key()]).unwrap();
    assert_eq!(documents.len(), 1 + 1024);
    let bytes: usize = documents.iter().map(|(_, document)| document.len()).sum();
    assert!((LARGE..MAX_DOCUMENTS_BYTES).contains(&bytes), "{bytes}");
    admin.publish_targets(repository.versions().snapshot, documents).await.unwrap();
    let unsigned = "SELECT count(*) FROM release WHERE signed_at IS NULL";
    assert_eq!(sqlx::query_scalar::<_, i64>(unsigned).fetch_one(server.pool()).await.unwrap(), 0);
    let top = admin.metadata("targets").await.unwrap();
    assert_eq!(metadata::read::<Targets>(&top).unwrap().delegations.unwrap().count, 1024);
}

#[tokio::test]
async fn of_two_publishers_at_once_one_has_to_try_again() {
    let server = TestServer::start().await;
    let admin = server.admin();
    admin.publish("app", "1.0.0", &unique_payload(100)).await;
    let repository = admin.image_repository().await.unwrap();
    let mut publications = Vec::new();
    for version in ["2.0.0", "3.0.0"] {
        let mut catalog = Catalog::open(&repository).unwrap();
        catalog.insert(signing::target(&unsigned(&admin, version).await));
        let documents = catalog.publish(Utc::now(), &[signing::key()]).unwrap();
        publications.push(admin.publish_targets(repository.versions().snapshot, documents));
    }
    let outcomes = futures_util::future::join_all(publications).await;
    let refused: Vec<_> = outcomes.iter().filter_map(|outcome| outcome.as_ref().err()).collect();
    assert_eq!(refused.len(), 1, "{outcomes:?}");
    assert_refused(refused[0], Code::Aborted, "METADATA_OUTDATED");
    assert_eq!(admin.image_repository().await.unwrap().targets("targets").unwrap().targets.len(), 2);
}

#[tokio::test]
async fn a_device_believes_what_a_check_in_brings() {
    let server = TestServer::start().await;
    let admin = server.admin();
    let device = admin.enroll().await;
    let release = admin.publish("app", "1.0.0", &unique_payload(100)).await;
    admin.assign(&release, &[&device]).await;

    let new = enrolled(&admin, &device).await;
    let answer = check_in(&device, &new, &[7; 32]).await;
    let sent = answer.metadata.expect("metadata for a device that holds nothing");
    let trusted = new.update(&update(&sent), Some(&[7; 32]), Utc::now()).unwrap();
    trusted.authorize(&order(&answer.deployments[0]), Utc::now()).unwrap();
    // The answer is to this nonce alone.
    new.update(&update(&sent), Some(&[8; 32]), Utc::now()).unwrap_err();

    // It holds the newest now, and is not sent it again while it works.
    let answer = check_in(&device, &trusted, &[]).await;
    assert_eq!((answer.deployments.len(), answer.metadata), (1, None));
    // Nor with a nonce, which is answered.
    let sent = check_in(&device, &trusted, &[9; 16]).await.metadata.unwrap();
    assert_eq!(MetadataUpdate { freshness: bytes::Bytes::new(), ..sent.clone() }, MetadataUpdate::default());
    let trusted = trusted.update(&update(&sent), Some(&[9; 16]), Utc::now()).unwrap();

    // Another assignment is signed anew, and what was ordered before is no longer.
    let second = admin.publish("app", "2.0.0", &unique_payload(100)).await;
    admin.assign(&second, &[&device]).await;
    let granted = device.granted().await;
    assert_eq!(granted.version, "2.0.0");
    let answer = check_in(&device, &trusted, &[]).await;
    let trusted = trusted.update(&update(&answer.metadata.unwrap()), None, Utc::now()).unwrap();
    trusted.authorize(&order(&granted), Utc::now()).unwrap();
}

#[tokio::test]
async fn every_replica_brings_what_another_published() {
    let server = TestServer::start().await;
    let replica = server.replica().await;
    let admin = server.admin();
    let device = admin.enroll().await;
    let there = device.at(&replica.url());
    let mut trusted = enrolled(&admin, &device).await;
    for round in 1..=4 {
        let release = admin.publish("app", &format!("{round}.0.0"), &unique_payload(100)).await;
        admin.assign(&release, &[&device]).await;
        let one = if round % 2 == 0 { &device } else { &there };
        let granted = one.granted().await;
        let answer = check_in(one, &trusted, &[round; 16]).await;
        trusted = trusted.update(&update(&answer.metadata.unwrap()), Some(&[round; 16]), Utc::now()).unwrap();
        trusted.authorize(&order(&granted), Utc::now()).unwrap();
        one.complete(&granted).await;
    }
}

#[tokio::test]
async fn a_device_that_works_costs_nothing_once_it_holds_everything() {
    let server = TestServer::start().await;
    let admin = server.admin();
    let device = admin.enroll().await;
    let release = admin.publish("app", "1.0.0", &unique_payload(100)).await;
    admin.assign(&release, &[&device]).await;
    device.granted().await;
    let app = server.app();
    let record = app.fleet.device(device.id().parse().unwrap()).await.unwrap().unwrap();
    let work: Vec<_> = record.work.iter().collect();
    let asked = Asked::default();
    let first = trust::update(app, &record, &work, &asked, Utc::now()).await.unwrap().unwrap();
    // Without its tables every query would fail.
    sqlx::query("ALTER TABLE director_document RENAME TO elsewhere").execute(server.pool()).await.unwrap();
    let again = trust::update(app, &record, &work, &asked, Utc::now()).await.unwrap().unwrap();
    assert_eq!(again, first);
}

#[tokio::test]
async fn a_device_with_nothing_to_do_costs_no_query_whatever_it_holds_or_asks_again() {
    let server = TestServer::start().await;
    let device = server.admin().enroll().await;
    let app = server.app();
    let record = app.fleet.device(device.id().parse().unwrap()).await.unwrap().unwrap();
    let asking = |byte| Asked { nonce: Some(vec![byte; 16].into()), ..Asked::default() };
    let first = trust::update(app, &record, &[], &asking(1), Utc::now()).await.unwrap().unwrap();
    // Without its table every query would fail.
    sqlx::query("ALTER TABLE director_document RENAME TO elsewhere").execute(server.pool()).await.unwrap();
    // It did not believe what came, and asks again.
    let again = trust::update(app, &record, &[], &asking(2), Utc::now()).await.unwrap().unwrap();
    assert_ne!(again.freshness, first.freshness);
    assert_eq!(again, trust::Update { freshness: again.freshness.clone(), ..first });
    for held in [Held::default(), Held { director: 1, ..Held::default() }] {
        let asked = Asked { held, nonce: None };
        assert_eq!(trust::update(app, &record, &[], &asked, Utc::now()).await.unwrap(), None);
    }
    // What it did believe is not kept for it.
    trust::update(app, &record, &[], &asking(3), Utc::now()).await.unwrap_err();
}

#[tokio::test]
async fn what_the_server_signs_is_signed_again_at_half_life() {
    let server = TestServer::start().await;
    let admin = server.admin();
    let app = server.app();
    let version = async |role: &str| {
        let document = admin.metadata(role).await.unwrap();
        let value: serde_json::Value = serde_json::from_slice(&document).unwrap();
        value["signed"]["version"].as_u64().unwrap()
    };
    let start = Utc::now();
    let at = |hours: i64| start + TimeDelta::hours(hours);
    for (hours, timestamp, snapshot, root) in
        [(0, 1, 1, 1), (11, 1, 1, 1), (13, 2, 1, 1), (24, 2, 1, 1), (26, 3, 1, 1), (100, 4, 2, 1), (183 * 24, 5, 3, 2)]
    {
        // Two replicas at once sign once.
        let rounds = [trust::keep_fresh(app, at(hours)), trust::keep_fresh(app, at(hours))];
        for round in futures_util::future::join_all(rounds).await {
            round.unwrap();
        }
        let now = (version("timestamp").await, version("snapshot").await, version("root").await);
        assert_eq!(now, (timestamp, snapshot, root), "after {hours} hours");
    }
    assert_eq!(root(&admin, Repository::Director).await.version, 2);
    let newest: Timestamp = metadata::read(&admin.metadata("timestamp").await.unwrap()).unwrap();
    assert!(newest.expires > at(183 * 24 + 23));
}

#[tokio::test]
async fn a_devices_documents_are_signed_again_at_half_life_and_above_what_it_holds() {
    let server = TestServer::start().await;
    let device = server.admin().enroll().await;
    let app = server.app();
    let record = app.fleet.device(device.id().parse().unwrap()).await.unwrap().unwrap();
    let start = Utc::now();
    let version = async |hours: i64, director: u64| {
        let asked = Asked { held: Held { director, ..Held::default() }, nonce: Some(vec![7; 16].into()) };
        let now: DateTime<Utc> = start + TimeDelta::hours(hours);
        let update = trust::update(app, &record, &[], &asked, now).await.unwrap().unwrap();
        metadata::read::<metadata::Freshness>(&update.freshness.unwrap()).unwrap().director_version
    };
    assert_eq!(version(0, 0).await, 1);
    assert_eq!(version(11, 1).await, 1);
    assert_eq!(version(13, 1).await, 2);
    // A database that was restored has forgotten what the device holds.
    assert_eq!(version(14, 70).await, 71);
    assert_eq!(version(14, 71).await, 71);
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

        let release = admin.publish("app", &format!("{round}.0.0"), &unique_payload(100)).await;
        admin.assign(&release, &[&device]).await;
        let granted = device.granted().await;
        let answer = check_in(&device, &trusted, &[round; 16]).await;
        trusted = trusted.update(&update(&answer.metadata.unwrap()), Some(&[round; 16]), Utc::now()).unwrap();
        trusted.authorize(&order(&granted), Utc::now()).unwrap();
        // Else the replica, which hears of the next assignment a little later, would bring this one again.
        device.complete(&granted).await;
    }
    let request = RotateServerKeyRequest { repository: Repository::Image.into(), role: "targets".to_owned() };
    assert_violates(&admin.trust().rotate_server_key(request).await.unwrap_err(), "role");
    let request = RotateServerKeyRequest { repository: 7, role: "root".to_owned() };
    assert_violates(&admin.trust().rotate_server_key(request).await.unwrap_err(), "repository");
}

/// The next root of a repository under the operators' own keys, of which two have to sign.
fn adopted(current: &Root, owners: &[PrivateKey; 3], signers: usize) -> Vec<u8> {
    let mut next = current.next(Utc::now() + Role::Root.lifetime());
    next.mode = Mode::Adopted;
    let keys: Vec<_> = owners.iter().map(Signer::public_key).collect();
    next.set_role(Role::Root, 2, &keys);
    // In the director repository the server goes on to sign targets.
    let own = current.keys_of(Role::Timestamp).next().unwrap().id();
    if !current.keys_of(Role::Targets).any(|key| key.id() == own) {
        next.set_role(Role::Targets, 1, &[signing::key().public_key()]);
    }
    let signers: Vec<&dyn Signer> = owners.iter().take(signers).map(|key| key as &dyn Signer).collect();
    metadata::sign(&next, &signers).unwrap()
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
        (adopted(&image, &owners, 1), adopted(&director, &owners, 2)),
        (adopted(&image, &owners, 2), vec![]),
        (vec![], adopted(&director, &owners, 2)),
    ] {
        assert_refused(&publish(bad.0, bad.1).await.unwrap_err(), Code::InvalidArgument, "METADATA_INVALID");
    }
    let mut named: Root = metadata::read(&adopted(&image, &owners, 2)).unwrap();
    let targets: Vec<_> = image.keys_of(Role::Targets).collect();
    named.set_role(Role::Targets, 1, &targets);
    let named = metadata::sign(&named, &[&owners[0], &owners[1]]).unwrap();
    let refused = publish(named, adopted(&director, &owners, 2)).await.unwrap_err();
    assert_refused(&refused, Code::InvalidArgument, "METADATA_INVALID");
    assert_violates(&publish(vec![], vec![]).await.unwrap_err(), "image_root");
    assert_eq!(key_names(server.pool()).await, before);

    let mode = publish(adopted(&image, &owners, 2), adopted(&director, &owners, 2)).await.unwrap();
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

/// Takes both roots over with new keys of which two have to sign.
async fn take_over(admin: &Operator) -> [PrivateKey; 3] {
    let owners = [(); 3].map(|()| PrivateKey::generate().unwrap());
    let image_root = adopted(&root(admin, Repository::Image).await, &owners, 2).into();
    let director_root = adopted(&root(admin, Repository::Director).await, &owners, 2).into();
    admin.trust().publish_roots(PublishRootsRequest { image_root, director_root }).await.unwrap();
    owners
}

#[tokio::test]
async fn a_key_made_for_operators_waits_for_the_root_that_names_it() {
    let server = TestServer::start().await;
    let replica = server.replica().await;
    let admin = server.admin();
    let device = admin.enroll().await;
    let mut trusted = enrolled(&admin, &device).await;
    admin.publish("app", "1.0.0", &unique_payload(100)).await;
    let owners = take_over(&admin).await;
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

        let release = admin.publish("app", &format!("{round}.0.0"), &unique_payload(100)).await;
        admin.assign(&release, &[&device]).await;
        let granted = device.granted().await;
        let answer = check_in(&device, &trusted, &[round; 16]).await;
        trusted = trusted.update(&update(&answer.metadata.unwrap()), Some(&[round; 16]), Utc::now()).unwrap();
        trusted.authorize(&order(&granted), Utc::now()).unwrap();
        device.complete(&granted).await;
    }
}

#[tokio::test]
async fn a_list_that_nobody_has_filled_is_the_servers_to_sign_again() {
    let server = TestServer::start().await;
    let (admin, app, start) = (server.admin(), server.app(), Utc::now());
    let days = |days: i64| start + TimeDelta::days(days);
    let list = async || admin.metadata("targets").await.unwrap();
    trust::keep_fresh(app, days(182)).await.unwrap();
    assert_eq!(metadata::read::<Targets>(&list().await).unwrap().version, 1);
    trust::keep_fresh(app, days(184)).await.unwrap();
    let signed = metadata::read::<Targets>(&list().await).unwrap();
    assert_eq!((signed.version, signed.expires > days(500)), (2, true));
    // Also by a server that was off until root and list had both run out.
    trust::keep_fresh(app, days(1_000)).await.unwrap();
    admin.image_repository().await.unwrap().check(days(1_000)).unwrap();

    // What people signed is theirs, and the server does what is its own meanwhile.
    admin.publish("app", "1.0.0", &unique_payload(100)).await;
    let signed = list().await;
    trust::keep_fresh(app, days(2_000)).await.unwrap();
    assert_eq!(list().await, signed);
    let timestamp: Timestamp = metadata::read(&admin.metadata("timestamp").await.unwrap()).unwrap();
    assert!(timestamp.expires > days(2_000));
}

#[tokio::test]
async fn operators_who_slept_for_years_sign_root_and_list_again() {
    let server = TestServer::start().await;
    let (admin, app) = (server.admin(), server.app());
    admin.publish("app", "1.0.0", &unique_payload(100)).await;
    let owners = take_over(&admin).await;
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
async fn documents_are_read_by_version_and_what_is_not_there_is_not_found() {
    let server = TestServer::start().await;
    let viewer = server.operator(OperatorRole::Viewer).await;
    for role in ["root", "targets", "snapshot", "timestamp"] {
        let newest = document(&viewer, Repository::Image, role, 0).await.unwrap();
        assert_eq!(document(&viewer, Repository::Image, role, 1).await.unwrap(), newest);
        let refused = document(&viewer, Repository::Image, role, 2).await.unwrap_err();
        assert_refused(&refused, Code::NotFound, "METADATA_NOT_FOUND");
    }
    let refused = document(&viewer, Repository::Director, "targets", 0).await.unwrap_err();
    assert_refused(&refused, Code::NotFound, "METADATA_NOT_FOUND");
    assert_violates(&document(&viewer, Repository::Unspecified, "root", 0).await.unwrap_err(), "repository");
    assert_violates(&document(&viewer, Repository::Image, "", 0).await.unwrap_err(), "role");
    assert_violates(&document(&viewer, Repository::Image, "root", -1).await.unwrap_err(), "version");
}

#[tokio::test]
async fn what_is_exported_is_believed_for_as_long_as_was_asked() {
    let server = TestServer::start().await;
    let admin = server.admin();
    let device = admin.enroll().await;
    let bytes = unique_payload(100);
    let release = admin.publish("app", "1.0.0", &bytes).await;
    admin.assign(&release, &[&device]).await;
    let export = async |seconds: i64, device: String| {
        let lifetime = Some(prost_types::Duration { seconds, nanos: 0 });
        Ok::<_, Status>(
            admin.trust().export_device_metadata(ExportDeviceMetadataRequest { device, lifetime }).await?.into_inner(),
        )
    };
    let month = export(30 * 86_400, device.name()).await.unwrap();
    assert_eq!(month.payloads, [format!("payloads/{}", sha256(&bytes))]);
    let answer = CheckInResponse::decode(month.check_in_response).unwrap();
    let mut sent = update(&answer.metadata.unwrap());
    // All roots are there, for devices of any age; whoever takes them in skips those that are held.
    for roots in [&mut sent.image_roots, &mut sent.director_roots] {
        assert_eq!(metadata::read::<Root>(&roots.remove(0)).unwrap().version, 1);
    }
    let new = enrolled(&admin, &device).await;
    let later = |days: i64| Utc::now() + TimeDelta::days(days);
    let trusted = new.update(&sent, None, later(29)).unwrap();
    trusted.authorize(&order(&answer.deployments[0]), later(29)).unwrap();
    new.update(&sent, None, later(31)).unwrap_err();

    // Back in reach of the server, it goes on as always.
    let trusted = new.update(&sent, None, Utc::now()).unwrap();
    let answer = check_in(&device, &trusted, &[7; 16]).await;
    trusted.update(&update(&answer.metadata.unwrap()), Some(&[7; 16]), Utc::now()).unwrap();

    for seconds in [0, 59, 91 * 86_400] {
        assert_violates(&export(seconds, device.name()).await.unwrap_err(), "lifetime");
    }
    assert_violates(&export(60, "app".to_owned()).await.unwrap_err(), "device");
    let nobody = "devices/01890a5d-ac96-774b-bcce-b302099a8057".to_owned();
    assert_refused(&export(60, nobody).await.unwrap_err(), Code::NotFound, "DEVICE_NOT_FOUND");
}

#[tokio::test]
async fn an_operator_downloads_a_payload_from_any_offset() {
    let server = TestServer::start().await;
    let admin = server.admin();
    let bytes = unique_payload(600_000);
    let name = format!("payloads/{}", admin.upload(&bytes).await);
    let download = async |name: &str, offset: i64| {
        let request = DownloadPayloadRequest { name: name.to_owned(), offset };
        let mut stream = admin.packages().download_payload(request).await?.into_inner();
        let mut got = Vec::new();
        while let Some(piece) = stream.message().await? {
            assert_eq!(piece.offset, offset + i64::try_from(got.len()).unwrap());
            assert!(piece.data.len() <= 256 * 1024);
            assert_eq!(piece.crc32c, crc32c(&piece.data));
            got.extend_from_slice(&piece.data);
        }
        Ok::<_, Status>(got)
    };
    assert!(download(&name, 0).await.unwrap() == bytes);
    assert!(download(&name, 262_145).await.unwrap() == bytes[262_145..]);
    assert!(download(&name, 600_000).await.unwrap().is_empty());
    assert_refused(&download(&name, 600_001).await.unwrap_err(), Code::OutOfRange, "RANGE_INVALID");
    let other = format!("payloads/{}", sha256(b"other"));
    assert_refused(&download(&other, 0).await.unwrap_err(), Code::NotFound, "PAYLOAD_NOT_FOUND");
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
