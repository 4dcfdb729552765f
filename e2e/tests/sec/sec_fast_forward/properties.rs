//! What holds for whatever numbers the stolen keys sign, one after the other.

use bytes::Bytes;
use ota_agent::client::Answer;
use ota_domain::{DeviceId, Hardware};
use ota_e2e::{World, signed::Keys};
use ota_proto::device::v1::{CheckInResponse, MetadataUpdate};
use ota_trust::{
    device::{Order, Trusted, Update},
    key::{PrivateKey, Signer},
    metadata::{MAX_VERSION, Target, add_signature},
    verify,
};
use proptest::{collection::vec, prelude::*, sample::select};
use prost::Message as _;
use serde_json::{Value, json};
use uuid::Uuid;

use super::{Stolen, recover};
use crate::scene::{HARDWARE, app, hours, noon};

/// A device, what the attacker holds, and what the device is sent once the keys are taken away.
struct Case {
    image: verify::Repository,
    stolen: Keys,
    trusted: Trusted,
    rescue: Update,
}

const DEVICE: DeviceId = DeviceId(Uuid::from_u128(7));

/// Picks a document of an answer.
type Pick = fn(&mut MetadataUpdate) -> &mut Bytes;

/// A number in a document.
struct Place {
    at: &'static str,
    document: Pick,
    /// Whose signature the document needs.
    signer: fn(&Keys) -> &PrivateKey,
}

const VERSION: &str = "/signed/version";
const SNAPSHOT: &str = "/signed/meta/snapshot.json/version";
const TARGETS: &str = "/signed/meta/targets.json/version";

const PLACES: [Place; 8] = [
    Place { at: VERSION, document: |update| &mut update.image_timestamp, signer: |keys| &keys.timestamp },
    Place { at: SNAPSHOT, document: |update| &mut update.image_timestamp, signer: |keys| &keys.timestamp },
    Place { at: VERSION, document: |update| &mut update.image_snapshot, signer: |keys| &keys.snapshot },
    Place { at: TARGETS, document: |update| &mut update.image_snapshot, signer: |keys| &keys.snapshot },
    Place { at: VERSION, document: |update| &mut update.director_timestamp, signer: |keys| &keys.director },
    Place { at: SNAPSHOT, document: |update| &mut update.director_timestamp, signer: |keys| &keys.director },
    Place { at: VERSION, document: |update| &mut update.director_snapshot, signer: |keys| &keys.director },
    Place { at: VERSION, document: |update| &mut update.director_targets, signer: |keys| &keys.director },
];

fn copy(keys: &Keys) -> Keys {
    let copy = |key: &PrivateKey| PrivateKey::from_pkcs8_der(&key.to_pkcs8_der()).expect("a key just written");
    let Keys { root, targets, snapshot, timestamp, director } = keys;
    Keys {
        root: copy(root),
        targets: copy(targets),
        snapshot: copy(snapshot),
        timestamp: copy(timestamp),
        director: copy(director),
    }
}

fn update(metadata: MetadataUpdate) -> Update {
    let answer = CheckInResponse { metadata: Some(metadata), ..Default::default() };
    let answer = Answer::read(&answer.encode_to_vec()).expect("an answer that can be decoded");
    answer.metadata.expect("metadata")
}

fn case() -> Case {
    let mut world = World::new(noon());
    world.publish(noon(), |catalog| (1..=2).for_each(|number| catalog.insert(app(number))));
    let hardware: Hardware = HARDWARE.parse().expect("a hardware type");
    let trusted = Trusted::new(DEVICE, hardware, world.image_root(), &world.director_root).expect("two roots");
    let honest = world.answer(DEVICE, &[app(1)], &[], noon()).metadata.expect("metadata");
    let trusted = trusted.update(&update(honest), None, noon()).expect("an honest server is believed");
    let (image, stolen) = (world.image.clone(), copy(&world.keys));
    let (image_root, director_root) = recover(&mut world, noon());
    let rescue = MetadataUpdate {
        image_roots: vec![image_root],
        director_roots: vec![director_root],
        ..world.answer(DEVICE, &[app(2)], &[], noon()).metadata.expect("metadata")
    };
    Case { image, stolen, trusted, rescue: update(rescue) }
}

fn order(target: &Target) -> Order {
    let Target { length, sha256, custom } = target.clone();
    Order {
        package: custom.package,
        version: custom.version,
        sha256,
        length,
        release_counter: custom.release_counter,
        hardware: custom.hardware,
        installer: custom.installer,
        unpacked_size_bytes: custom.unpacked_size_bytes,
    }
}

/// Signs a document anew with another number in it, also one that no honest program writes.
fn with_number(document: &Bytes, place: &str, number: &Value, signer: &dyn Signer) -> Bytes {
    let mut envelope: Value = serde_json::from_slice(document).expect("a document is JSON");
    *envelope.pointer_mut(place).expect("a number's place") = number.clone();
    envelope["signatures"] = json!([]);
    let bytes = serde_json::to_vec(&envelope).expect("JSON");
    // A fraction has no canonical form, so nobody can sign it: then the old signature has to do.
    match add_signature(&bytes, signer) {
        Ok(signed) => signed.into(),
        Err(_) => bytes.into(),
    }
}

fn versions() -> impl Strategy<Value = u64> {
    let edges = vec![1, 2, 3, (1 << 53) - 1, 1 << 53, (1 << 53) + 1, MAX_VERSION - 1, MAX_VERSION];
    prop_oneof![select(edges), 1..=MAX_VERSION]
}

/// Numbers as JSON may have them.
fn numbers() -> impl Strategy<Value = Value> {
    let beyond =
        vec![json!(0), json!(-1), json!(MAX_VERSION + 1), json!(u64::MAX), json!(1e300), json!(1.5), json!("1")];
    prop_oneof![versions().prop_map(|version| json!(version)), select(beyond)]
}

fn steps() -> impl Strategy<Value = Vec<(u64, Option<(usize, Value)>)>> {
    vec((versions(), prop::option::of((0..PLACES.len(), numbers()))), 1..5)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_number_harms_a_device_for_longer_than_the_keys_last(steps in steps()) {
        thread_local!(static CASE: Case = case());
        CASE.with(|Case { image, stolen, trusted, rescue }| {
            let mut trusted = trusted.clone();
            for (version, change) in steps {
                let times = (noon(), noon() + hours(24));
                let mut told = Stolen::from(stolen).sign(image, (DEVICE, app(1)), version, times);
                if let Some((place, number)) = change {
                    let Place { at, document, signer } = &PLACES[place];
                    let document = document(&mut told);
                    *document = with_number(document, at, &number, signer(stolen));
                }
                let before = trusted.versions();
                let Ok(next) = trusted.update(&update(told), None, noon()) else { continue };
                let held = next.versions();
                for (now, before) in [(held.image, before.image), (held.director, before.director)] {
                    prop_assert!(now.timestamp >= before.timestamp && now.snapshot >= before.snapshot);
                    prop_assert!(now.timestamp.max(now.snapshot).max(now.targets) <= MAX_VERSION);
                }
                let read = Trusted::from_bytes(&next.to_bytes());
                prop_assert_eq!(read.map(|read| read.versions()), Ok(held), "what is kept can be read again");
                trusted = next;
                trusted.authorize(&order(&app(2)), noon()).expect_err("nobody ordered it");
            }
            let rescued = trusted.update(rescue, None, noon());
            prop_assert!(rescued.is_ok(), "{:?}", rescued.err());
            rescued.expect("just looked").authorize(&order(&app(2)), noon()).expect("an honest order");
            Ok(())
        })?;
    }
}
