//! What check-ins and exports bring, and when the server signs it again.

use chrono::{DateTime, TimeDelta, Utc};
use ota_domain::role::Role as OperatorRole;
use ota_e2e::{TestServer, assert_refused, assert_violates, device::sha256, operator::unique_payload};
use ota_proto::{
    admin::v1::{ExportDeviceMetadataRequest, Repository},
    device::v1::{CheckInResponse, MetadataUpdate},
};
use ota_server::app::trust::{self, Asked, Held};
use ota_trust::metadata::{self, Root, Timestamp};
use prost::Message as _;
use tonic::{Code, Status};

use super::{check_in, enrolled, order, root, update};

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
async fn documents_are_read_by_version_and_what_is_not_there_is_not_found() {
    let server = TestServer::start().await;
    let viewer = server.operator(OperatorRole::Viewer).await;
    for role in ["root", "targets", "snapshot", "timestamp"] {
        let newest = viewer.document(Repository::Image, role, 0).await.unwrap();
        assert_eq!(viewer.document(Repository::Image, role, 1).await.unwrap(), newest);
        let refused = viewer.document(Repository::Image, role, 2).await.unwrap_err();
        assert_refused(&refused, Code::NotFound, "METADATA_NOT_FOUND");
    }
    let refused = viewer.document(Repository::Director, "targets", 0).await.unwrap_err();
    assert_refused(&refused, Code::NotFound, "METADATA_NOT_FOUND");
    assert_violates(&viewer.document(Repository::Unspecified, "root", 0).await.unwrap_err(), "repository");
    assert_violates(&viewer.document(Repository::Image, "", 0).await.unwrap_err(), "role");
    assert_violates(&viewer.document(Repository::Image, "root", -1).await.unwrap_err(), "version");
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
