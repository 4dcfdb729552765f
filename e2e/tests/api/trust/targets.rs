//! Lists of releases: who may publish them, and what becomes of releases that are on them.

use chrono::{TimeDelta, Utc};
use ota_domain::release::Installer;
use ota_e2e::{
    Operator, TestServer, assert_refused, assert_violates, device::sha256, operator::unique_payload, signing,
};
use ota_proto::admin::v1::{self as admin, GetReleaseRequest, Release};
use ota_server::{app::trust, grpc::admin::trust::MAX_DOCUMENTS_BYTES};
use ota_trust::{
    image::Catalog,
    key::PrivateKey,
    metadata::{self, Custom, Target, Targets, Timestamp},
};
use tonic::Code;

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
