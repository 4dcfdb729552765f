//! The same at a real server, whose keys are rotated as `otactl keys rotate` does, and a real agent. What the attacker
//! signed reaches the device by a way of its own, through the agent's verification and into its store.

use bytes::Bytes;
use chrono::{TimeDelta, Utc};
use ota_agent::{client::Answer, trust_store::TrustStore};
use ota_proto::{
    admin::v1::{Repository, RotateServerKeyRequest},
    device::v1::CheckInResponse,
};
use ota_trust::metadata::MAX_VERSION;
use prost::Message as _;

use super::Stolen;
use crate::fleet::Fleet;

/// Takes the device ahead with the server's keys: to a version, and past the end of every server's certificate.
async fn take_ahead(fleet: &Fleet, version: u64) {
    let mut connection = fleet.server.pool().acquire().await.expect("a connection");
    let keys = fleet.server.app().keys.signing(&mut connection).await.expect("the attacker owns the server");
    let [snapshot, timestamp, director] =
        [&keys.image_snapshot, &keys.image_timestamp, &keys.director].map(|key| key.private());
    let stolen = Stolen { snapshot, timestamp, director };
    let image = fleet.admin.image_repository().await.expect("the repository");
    let (mut store, trusted) = TrustStore::open(fleet.agent.data_dir()).expect("the agent's store");
    let target = image.target("app/1.0.0").expect("a whole repository").expect("a listed release").clone();
    let (now, nonce) = (Utc::now(), b"nonce");
    let far = now + TimeDelta::days(300);
    let mut told = stolen.sign(&image, (trusted.device(), target), version, (now, far + TimeDelta::days(1)));
    told.freshness = stolen.sign_time(trusted.device(), nonce, version, far);
    let answer = CheckInResponse { metadata: Some(told), ..Default::default() };
    let answer = Answer::read(&Bytes::from(answer.encode_to_vec())).expect("an answer");
    let ahead =
        trusted.update(&answer.metadata.expect("metadata"), Some(nonce), now).expect("the keys are the server's");
    assert_eq!((ahead.versions().image.snapshot, ahead.versions().director.targets), (version, version));
    assert!(ahead.now(now) > now + TimeDelta::days(299));
    store.accept(&ahead).expect("the store takes it");
}

async fn rotate_online_keys(fleet: &Fleet) {
    for (repository, role) in
        [(Repository::Image, "snapshot"), (Repository::Image, "timestamp"), (Repository::Director, "targets")]
    {
        let request = RotateServerKeyRequest { repository: repository.into(), role: role.to_owned() };
        fleet.admin.trust().rotate_server_key(request).await.expect("an admin rotates a key");
    }
}

async fn recovers_from(version: u64) {
    let fleet = Fleet::start().await;
    take_ahead(&fleet, version).await;
    let second = fleet.publish("2.0.0").await;
    fleet.update_to(&second).await;
    fleet.assert_runs("1.0.0").await;

    rotate_online_keys(&fleet).await;
    let third = fleet.publish("3.0.0").await;
    fleet.update_to(&third).await;
    fleet.assert_runs("3.0.0").await;
    let fourth = fleet.publish("4.0.0").await;
    fleet.update_to(&fourth).await;
    fleet.assert_runs("4.0.0").await;
    assert_eq!(fleet.admin.device(&fleet.agent.name()).await.trust_fault, "", "nothing is left of it");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_taken_beyond_exact_json_numbers_updates_after_a_rotation() {
    recovers_from(1 << 53).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_taken_to_the_last_version_updates_after_a_rotation() {
    recovers_from(MAX_VERSION).await;
}
