//! Anybody's repository of The Update Framework, in which one document is whatever the input says: as bytes, or as a payload
//! that the right key signed. Accepted or refused; nothing that is held goes back, and what is stored is read back.

#![no_main]

use std::sync::LazyLock;

use chrono::{DateTime, TimeDelta, Utc};
use libfuzzer_sys::fuzz_target;
use ota_trust::{
    key::{PrivateKey, Signer as _},
    metadata::add_signature,
    verify::{
        Chain,
        chain::{Content, MAX_VISITED, Search},
    },
};

/// A repository like those of others: a list with members that we do not know, and delegations by path and by hash.
struct World {
    key: PrivateKey,
    chain: Chain,
    now: DateTime<Utc>,
}

fn document(key: &PrivateKey, signed: &str) -> Option<Vec<u8>> {
    let envelope = format!(r#"{{"signatures":[],"signed":{signed}}}"#);
    add_signature(envelope.as_bytes(), key).ok()
}

static WORLD: LazyLock<World> = LazyLock::new(|| {
    let now: DateTime<Utc> = "2026-11-21T12:00:00Z".parse().expect("it is a time");
    let prefix = [0x30, 0x2e, 2, 1, 0, 0x30, 5, 6, 3, 0x2b, 0x65, 0x70, 4, 0x22, 4, 0x20];
    let key = PrivateKey::from_pkcs8_der(&[&prefix[..], &[1; 32]].concat()).expect("it is a key");
    let id = key.public_key().id();
    let spki = key.public_key().to_spki_der();
    let public: String = spki[spki.len() - 32..].iter().map(|byte| format!("{byte:02x}")).collect();
    let keys = format!(r#"{{"{id}":{{"keytype":"ed25519","scheme":"ed25519","keyval":{{"public":"{public}"}}}}}}"#);
    let role = format!(r#"{{"keyids":["{id}"],"threshold":1}}"#);
    let head = r#""spec_version":"1.0.31","version":5,"expires":"2027-11-21T12:00:00Z""#;
    let sign = |signed: String| document(&key, &signed).expect("it is signed");
    let root = sign(format!(
        r#"{{"_type":"root",{head},"consistent_snapshot":false,"keys":{keys},"roles":{{"root":{role},"targets":{role},"snapshot":{role},"timestamp":{role}}}}}"#
    ));
    let mut chain = Chain::from_root(&root).expect("it signs itself");
    let timestamp = sign(format!(r#"{{"_type":"timestamp",{head},"meta":{{"snapshot.json":{{"version":5}}}}}}"#));
    let meta = r#"{"targets.json":{"version":5},"a.json":{"version":5},"b.json":{"version":5}}"#;
    let snapshot = sign(format!(r#"{{"_type":"snapshot",{head},"meta":{meta}}}"#));
    let file = r#"{"length":3,"hashes":{"sha256":"ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"}}"#;
    let to = |name: &str, rest: &str| {
        format!(r#"{{"name":"{name}","keyids":["{id}"],"threshold":1,"terminating":false,{rest}}}"#)
    };
    let delegated = [to("a", r#""paths":["a/*"]"#), to("b", r#""path_hash_prefixes":["0","8","f"]"#)].join(",");
    let targets = sign(format!(
        r#"{{"_type":"targets",{head},"targets":{{"file":{file}}},"delegations":{{"keys":{keys},"roles":[{delegated}]}}}}"#
    ));
    let taken = chain
        .update_timestamp(&timestamp, now)
        .and_then(|_| chain.update_snapshot(&snapshot, now))
        .and_then(|()| chain.update_targets(&targets, now));
    taken.expect("it is honest");
    World { key, chain, now }
});

fuzz_target!(|input: &[u8]| {
    let [kind, form, rest @ ..] = input else { return };
    let World { key, chain, now } = &*WORLD;
    let document = if form % 2 == 0 {
        Some(rest.to_vec())
    } else {
        std::str::from_utf8(rest).ok().and_then(|signed| document(key, signed))
    };
    let Some(document) = document else { return };
    let mut next = chain.clone();
    // Some documents come late.
    let now = *now + TimeDelta::days(if form & 2 == 0 { 0 } else { 400 });
    let taken = match kind % 6 {
        0 => next.update_root(&document).map(drop),
        1 => next.update_timestamp(&document, now).map(drop),
        2 => next.update_snapshot(&document, now),
        3 => next.update_targets(&document, now),
        4 => next.update_delegated("a", "targets", &document, now),
        _ => Chain::from_bytes(&document).map(|read| next = read),
    };
    if taken.is_ok() {
        let stored = next.to_bytes();
        assert_eq!(Chain::from_bytes(&stored).expect("it was written by us").to_bytes(), stored);
        if kind % 6 == 0 {
            assert_eq!(next.root_version(), chain.root_version() + 1);
        } else if kind % 6 < 5 {
            assert!(next.snapshot_version() >= chain.snapshot_version());
            assert!(next.listed_version("targets") >= chain.listed_version("targets"));
        }
    }
    // Every way leads somewhere.
    for path in ["file", "a/b", "a/c", "deep/in/it", ""] {
        let mut fetched = 0;
        while let Ok(Search::Needs { role, delegator }) = next.search(path, now) {
            fetched += 1;
            assert!(fetched <= MAX_VISITED + 1);
            if next.update_delegated(&role, &delegator, &document, now).is_err() {
                break;
            }
        }
        if let Ok(Search::Found(file)) = next.search(path, now)
            && let Ok(mut content) = Content::expect(&file)
        {
            let _ = content.take(rest).and_then(|()| content.finish());
        }
    }
});
