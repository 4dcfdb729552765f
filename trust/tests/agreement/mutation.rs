//! What is changed in a repository. Most changes are signed, because whatever is not is refused by everybody.

use chrono::TimeDelta;
use ota_trust::key::Signer as _;
use serde_json::{Value, json};

use crate::corpus::{Draft, ROOT, Random, SNAPSHOT, STRANGER, Sheet, TARGETS, TIMESTAMP};

type Mutation = fn(&mut Draft<'_>, &mut Random);

/// Every change by its name.
pub(crate) const MUTATIONS: &[(&str, Mutation)] = &[
    ("untouched", |_, _| {}),
    // The payload of any document.
    ("member dropped", |draft, random| {
        let members = draft.any(random).signed.as_object_mut().unwrap();
        let names: Vec<String> = members.keys().cloned().collect();
        members.remove(random.of(&names));
    }),
    ("member added", |draft, random| put(draft.any(random), "x-new", json!([1, "a", null, true, { "b": -5 }]))),
    ("member null", |draft, random| {
        let members = draft.any(random).signed.as_object_mut().unwrap();
        let names: Vec<String> = members.keys().cloned().collect();
        members.insert(random.of(&names).clone(), Value::Null);
    }),
    ("version of another kind", |draft, random| {
        let value =
            random.of(&[json!(-1), json!("1"), json!(true), json!(null), json!([1]), json!(1u64 << 63)]).clone();
        put(draft.any(random), "version", value);
    }),
    ("version zero", |draft, random| put(draft.any(random), "version", json!(0))),
    ("version other than listed", |draft, random| {
        let by = *random.of(&[1, 2, 100]);
        let sheet = draft.any(random);
        let version = sheet.signed["version"].as_u64().unwrap();
        put(sheet, "version", json!(version + by));
    }),
    ("expiry spelled otherwise", |draft, random| {
        let spellings =
            ["2027-01-01T00:00:00+00:00", "2027-01-01T00:00:00.5Z", "2027-01-01t00:00:00z", "2027-01-01 00:00:00Z"];
        put(draft.any(random), "expires", json!(random.of(&spellings)));
    }),
    ("expiry not a time", |draft, random| {
        let spellings =
            ["", "2027-01-01", "2027-02-30T00:00:00Z", "2027-01-01T25:00:00Z", "never", "2027-01-01T00:00:00"];
        put(draft.any(random), "expires", json!(random.of(&spellings)));
    }),
    ("expiry in a leap second", |draft, random| put(draft.any(random), "expires", json!("2027-06-30T23:59:60Z"))),
    ("expiry with a short year", |draft, random| put(draft.any(random), "expires", json!("0999-01-01T00:00:00Z"))),
    ("expired a second ago", |draft, random| {
        let index = draft.roots.len() - 1;
        let sheet = match random.below(4) {
            0 => &mut draft.roots[index],
            1 => &mut draft.timestamp,
            2 => &mut draft.snapshot,
            _ => draft.list(),
        };
        put(sheet, "expires", json!("2026-11-21T11:59:59Z"));
    }),
    ("expires this very second", |draft, random| {
        let sheet = match random.below(3) {
            0 => &mut draft.timestamp,
            1 => &mut draft.snapshot,
            _ => draft.list(),
        };
        put(sheet, "expires", json!("2026-11-21T12:00:00Z"));
    }),
    ("first root expired", |draft, _| put(&mut draft.roots[0], "expires", json!("2020-01-01T00:00:00Z"))),
    ("all is old", |draft, _| draft.now += TimeDelta::days(2)),
    ("type of another role", |draft, random| {
        let kinds = ["root", "targets", "snapshot", "timestamp", "Root", "mirrors", ""];
        put(draft.any(random), "_type", json!(random.of(&kinds)));
    }),
    ("another 1.x of the specification", |draft, random| {
        put(draft.any(random), "spec_version", json!(random.of(&["1.0.0", "1.0.99", "1.9.9"])));
    }),
    ("a short 1.x of the specification", |draft, random| {
        put(draft.any(random), "spec_version", json!(random.of(&["1", "1.0", "1.x.y"])));
    }),
    ("another specification", |draft, random| {
        let versions = [json!("2.0.0"), json!("0.9.0"), json!(""), json!("one"), json!(1), json!("11.0.0")];
        put(draft.any(random), "spec_version", random.of(&versions).clone());
    }),
    ("a letter outside ASCII", |draft, random| put(draft.any(random), "x-new", json!("\u{e4}"))),
    ("a letter in two parts", |draft, random| put(draft.any(random), "x-new", json!("a\u{308}"))),
    ("a control character", |draft, random| put(draft.any(random), "x-new", json!("\u{1}\n\u{7f}"))),
    ("a number with a fraction", |draft, random| put(draft.any(random), "x-new", json!(1.5))),
    ("a very large number", |draft, random| put(draft.any(random), "x-new", json!(u64::MAX))),
    ("a deep value", |draft, random| {
        let depth = *random.of(&[60, 100]);
        put(draft.any(random), "x-new", (0..depth).fold(json!(1), |inner, _| json!([inner])));
    }),
    ("too deep a value", |draft, random| {
        put(draft.any(random), "x-new", (0..200).fold(json!(1), |inner, _| json!([inner])));
    }),
    // The root.
    ("threshold too high", |draft, random| role(draft, random)["threshold"] = json!(2)),
    ("threshold zero", |draft, random| role(draft, random)["threshold"] = json!(0)),
    ("threshold of another kind", |draft, random| {
        let value = random.of(&[json!(-1), json!("1"), json!(null), json!([])]).clone();
        role(draft, random)["threshold"] = value;
    }),
    ("a role that names a key twice", |draft, random| {
        let ids = role(draft, random)["keyids"].as_array_mut().unwrap();
        ids.push(ids[0].clone());
    }),
    ("a role that names no key", |draft, random| role(draft, random)["keyids"] = json!([])),
    ("a role that names a key that is not there", |draft, random| {
        role(draft, random)["keyids"].as_array_mut().unwrap().push(json!("ab".repeat(32)));
    }),
    ("a role with a further member", |draft, random| role(draft, random)["x-new"] = json!("a")),
    ("a role missing", |draft, random| {
        let names = ["root", "targets", "snapshot", "timestamp"];
        let name = *random.of(&names);
        last(draft).signed["roles"].as_object_mut().unwrap().remove(name);
    }),
    ("a role unknown", |draft, _| {
        let roles = &mut last(draft).signed["roles"];
        roles["director"] = roles["targets"].clone();
    }),
    ("a role of mirrors", |draft, _| {
        let roles = &mut last(draft).signed["roles"];
        roles["mirrors"] = roles["targets"].clone();
    }),
    ("a role given to another key", |draft, random| {
        let stranger = draft.workshop.keys[STRANGER].public_key().clone();
        let keys = &mut last(draft).signed["keys"];
        keys[stranger.id().as_str()] = serde_json::to_value(&stranger).unwrap();
        let name = *random.of(&["targets", "snapshot", "timestamp"]);
        last(draft).signed["roles"][name]["keyids"] = json!([stranger.id()]);
    }),
    ("a key that no role names", |draft, _| {
        let stranger = draft.workshop.keys[STRANGER].public_key().clone();
        last(draft).signed["keys"][stranger.id().as_str()] = serde_json::to_value(&stranger).unwrap();
    }),
    ("a key of an unknown kind", |draft, _| {
        last(draft).signed["keys"]["cd".repeat(32)] =
            json!({ "keytype": "x", "scheme": "x", "keyval": { "public": "" } });
    }),
    ("a key of another scheme", |draft, random| key(draft, random)["scheme"] = json!("ecdsa-sha2-nistp256")),
    ("a key with a further member", |draft, random| key(draft, random)["x-owner"] = json!("me")),
    ("a key under another id", |draft, random| {
        let name = *random.of(&["targets", "snapshot", "timestamp"]);
        let other = "ef".repeat(32);
        let root = &mut last(draft).signed;
        let id = root["roles"][name]["keyids"][0].as_str().unwrap().to_owned();
        let key = root["keys"].as_object_mut().unwrap().remove(&id).unwrap();
        root["keys"][&other] = key;
        root["roles"][name]["keyids"] = json!([other]);
        let sheet = match name {
            "targets" => &mut draft.targets,
            "snapshot" => &mut draft.snapshot,
            _ => &mut draft.timestamp,
        };
        sheet.seal = Some(Box::new(move |envelope| envelope["signatures"][0]["keyid"] = json!(other)));
    }),
    ("the same key under two ids counts twice", |draft, _| {
        let other = "ef".repeat(32);
        let root = &mut last(draft).signed;
        let id = root["roles"]["timestamp"]["keyids"][0].as_str().unwrap().to_owned();
        root["keys"][&other] = root["keys"][&id].clone();
        root["roles"]["timestamp"] = json!({ "keyids": [id, other], "threshold": 2 });
        draft.timestamp.seal = Some(Box::new(move |envelope| {
            let signatures = envelope["signatures"].as_array_mut().unwrap();
            let mut twin = signatures[0].clone();
            twin["keyid"] = json!(other);
            signatures.push(twin);
        }));
    }),
    ("consistent_snapshot otherwise", |draft, random| {
        last(draft).signed["consistent_snapshot"] =
            random.of(&[json!(false), json!("yes"), json!(1), json!(null)]).clone();
    }),
    ("no consistent_snapshot", |draft, _| {
        last(draft).signed.as_object_mut().unwrap().remove("consistent_snapshot");
    }),
    ("x-ota-mode unknown", |draft, _| last(draft).signed["x-ota-mode"] = json!("rented")),
    ("a root skipped", |draft, _| {
        let index = draft.roots.len() - 1;
        draft.roots[index].signed["version"] = json!(index + 2);
    }),
    ("the next root not signed by the one before", |draft, _| {
        let stranger = draft.workshop.keys[STRANGER].public_key().clone();
        let mut next = draft.roots[0].signed.clone();
        next["version"] = json!(2);
        next["keys"][stranger.id().as_str()] = serde_json::to_value(&stranger).unwrap();
        next["roles"]["root"]["keyids"] = json!([stranger.id()]);
        draft.roots.truncate(1);
        draft.roots.push(Sheet { signed: next, signers: vec![STRANGER], seal: None, afterwards: None });
    }),
    ("the next root not signed by itself", |draft, _| {
        let stranger = draft.workshop.keys[STRANGER].public_key().clone();
        let mut next = draft.roots[0].signed.clone();
        next["version"] = json!(2);
        next["keys"][stranger.id().as_str()] = serde_json::to_value(&stranger).unwrap();
        next["roles"]["root"]["keyids"] = json!([stranger.id()]);
        draft.roots.truncate(1);
        draft.roots.push(Sheet { signed: next, signers: vec![ROOT], seal: None, afterwards: None });
    }),
    // What names other documents.
    ("a pin with a wrong length", |draft, random| pin(draft, random)["length"] = json!(random_length(random))),
    ("a pin with a wrong hash", |draft, random| {
        pin(draft, random)["hashes"] = json!({ "sha256": "00".repeat(32) });
    }),
    ("a pin with an unknown hash", |draft, random| pin(draft, random)["hashes"] = json!({ "md5": "00".repeat(16) })),
    ("a pin with no hash", |draft, random| pin(draft, random)["hashes"] = json!({})),
    ("a pin with a further member", |draft, random| pin(draft, random)["x-new"] = json!([])),
    ("a pin of another version", |draft, random| {
        let pin = pin(draft, random);
        pin["version"] = json!(pin["version"].as_u64().unwrap() + 1);
    }),
    ("a snapshot that lists more", |draft, _| draft.snapshot.signed["meta"]["other.json"] = json!({ "version": 4 })),
    ("a snapshot that does not list the targets", |draft, _| {
        draft.snapshot.signed["meta"].as_object_mut().unwrap().remove("targets.json");
    }),
    ("a timestamp that lists more", |draft, _| draft.timestamp.signed["meta"]["other.json"] = json!({ "version": 4 })),
    // What is listed.
    ("a target without custom", |draft, _| {
        entry(draft).as_object_mut().unwrap().remove("custom");
    }),
    ("a target with custom of another kind", |draft, _| entry(draft)["custom"] = json!({ "package": "../etc" })),
    ("a target with more in custom", |draft, _| entry(draft)["custom"]["later"] = json!({ "a": [1] })),
    ("a target with a further member", |draft, _| entry(draft)["x-new"] = json!(1)),
    ("a target with a further hash", |draft, _| entry(draft)["hashes"]["sha512"] = json!("00".repeat(64))),
    ("a target without SHA-256", |draft, _| entry(draft)["hashes"] = json!({ "sha512": "00".repeat(64) })),
    ("a target whose hash is not one", |draft, _| entry(draft)["hashes"]["sha256"] = json!("xyz")),
    ("a target whose hash is in capitals", |draft, _| entry(draft)["hashes"]["sha256"] = json!("AB".repeat(32))),
    ("a target whose length is not one", |draft, random| {
        entry(draft)["length"] = random.of(&[json!(-1), json!("5"), json!(null)]).clone();
    }),
    ("a target under another path", |draft, _| {
        let targets = draft.list().signed["targets"].as_object_mut().unwrap();
        let entry = targets.remove("app/1.2.3").unwrap();
        targets.insert("app/9.9.9".to_owned(), entry);
    }),
    ("targets null", |draft, _| draft.list().signed["targets"] = json!(null)),
    ("bins cut otherwise", |draft, _| {
        if let Some(roles) = draft.targets.signed.pointer_mut("/delegations/roles") {
            roles.as_array_mut().unwrap().pop();
        }
    }),
    ("bins by path", |draft, _| {
        for role in bins(draft) {
            role.as_object_mut().unwrap().remove("path_hash_prefixes");
            role["paths"] = json!(["*"]);
        }
    }),
    ("bins by both", |draft, _| {
        for role in bins(draft) {
            role["paths"] = json!(["*"]);
        }
    }),
    ("bins that do not terminate", |draft, _| {
        for role in bins(draft) {
            role["terminating"] = json!(false);
        }
    }),
    ("a bin signed by nobody named", |draft, _| {
        if let Some((_, bin)) = &mut draft.bin {
            bin.signers = vec![STRANGER];
        }
    }),
    ("a bin that lists another bin's", |draft, _| {
        if let Some((_, bin)) = &mut draft.bin {
            let mut entry = bin.signed["targets"]["app/1.2.3"].clone();
            entry["custom"]["version"] = json!("1.2.4");
            bin.signed["targets"]["app/1.2.4"] = entry;
        }
    }),
    ("a bin that delegates", |draft, _| {
        if let Some((_, bin)) = &mut draft.bin {
            bin.signed["delegations"] = draft.targets.signed["delegations"].clone();
        }
    }),
    // The envelope.
    ("signed by another role's key", |draft, random| {
        draft.timestamp.signers = vec![*random.of(&[ROOT, TARGETS, SNAPSHOT, STRANGER])];
    }),
    ("signed by others too", |draft, random| {
        let others = [ROOT, TARGETS, SNAPSHOT, TIMESTAMP, STRANGER];
        let sheet = draft.any(random);
        sheet.signers.extend(others.into_iter().filter(|key| !sheet.signers.contains(key)).collect::<Vec<_>>());
    }),
    ("no signature", |draft, random| draft.any(random).signers.clear()),
    ("a signature twice", |draft, random| {
        let sheet = draft.any(random);
        sheet.signers.push(sheet.signers[0]);
    }),
    ("a stranger's signature twice", |draft, random| draft.any(random).signers.extend([STRANGER, STRANGER])),
    ("a signature in capitals", |draft, random| {
        seal(draft.any(random), |envelope| {
            let signature = envelope["signatures"][0]["sig"].as_str().unwrap().to_uppercase();
            envelope["signatures"][0]["sig"] = json!(signature);
        });
    }),
    ("an empty signature of a stranger", |draft, random| {
        seal(draft.any(random), |envelope| signature(envelope, json!({ "keyid": "ab".repeat(32), "sig": "" })));
    }),
    ("a signature that is not hexadecimal", |draft, random| {
        seal(draft.any(random), |envelope| signature(envelope, json!({ "keyid": "ab".repeat(32), "sig": "xyz" })));
    }),
    ("a signature whose key id is not one", |draft, random| {
        let ids = [json!("me"), json!(""), json!("AB".repeat(32)), json!("abcd")];
        let id = random.of(&ids).clone();
        draft.any(random).seal =
            Some(Box::new(move |envelope| signature(envelope, json!({ "keyid": id, "sig": "00" }))));
    }),
    ("a signature with a further member", |draft, random| {
        seal(draft.any(random), |envelope| envelope["signatures"][0]["x-new"] = json!(1));
    }),
    ("signatures of another kind", |draft, random| {
        seal(draft.any(random), |envelope| envelope["signatures"] = json!({}));
    }),
    ("an envelope with a further member", |draft, random| {
        seal(draft.any(random), |envelope| envelope["x-new"] = json!(1))
    }),
    // The bytes.
    ("white space", |draft, random| {
        draft.any(random).afterwards = Some(Box::new(|bytes| {
            [b" \n\t", &*String::from_utf8(bytes).unwrap().replace(":{", ": {").into_bytes(), b"\r\n "].concat()
        }));
    }),
    ("bytes after the end", |draft, random| {
        let tail = *random.of(&["x", "{}", "\0", "]"]);
        draft.any(random).afterwards = Some(Box::new(move |bytes| [&bytes, tail.as_bytes()].concat()));
    }),
    ("a byte order mark", |draft, random| {
        draft.any(random).afterwards = Some(Box::new(|bytes| [b"\xef\xbb\xbf", &*bytes].concat()));
    }),
    ("in UTF-16", |draft, random| {
        draft.any(random).afterwards = Some(Box::new(|bytes| {
            String::from_utf8(bytes).unwrap().encode_utf16().flat_map(u16::to_le_bytes).collect()
        }));
    }),
    ("a member twice, the last right", |draft, random| {
        draft.any(random).afterwards =
            Some(Box::new(|bytes| replace(bytes, "\"version\":", "\"version\":99,\"version\":")));
    }),
    ("a member twice, the first right", |draft, random| {
        draft.any(random).afterwards = Some(Box::new(|bytes| {
            replace(bytes, "\"spec_version\":\"1.0.31\"", "\"spec_version\":\"1.0.31\",\"spec_version\":\"1.0.30\"")
        }));
    }),
    ("cut short", |draft, random| {
        let keep = random.below(400);
        draft.any(random).afterwards = Some(Box::new(move |bytes| bytes[..keep.min(bytes.len() - 1)].to_vec()));
    }),
    ("a byte changed", |draft, random| {
        let (position, value) = (random.below(100_000), u8::try_from(random.below(256)).unwrap());
        draft.any(random).afterwards = Some(Box::new(move |mut bytes| {
            let length = bytes.len();
            bytes[position % length] = value;
            bytes
        }));
    }),
    ("a byte taken out", |draft, random| {
        let position = random.below(100_000);
        draft.any(random).afterwards = Some(Box::new(move |mut bytes| {
            bytes.remove(position % bytes.len());
            bytes
        }));
    }),
];

fn put(sheet: &mut Sheet<'_>, member: &str, value: Value) {
    sheet.signed[member] = value;
}

fn seal(sheet: &mut Sheet<'_>, change: fn(&mut Value)) {
    sheet.seal = Some(Box::new(change));
}

fn signature(envelope: &mut Value, signature: Value) {
    envelope["signatures"].as_array_mut().unwrap().push(signature);
}

fn replace(bytes: Vec<u8>, from: &str, to: &str) -> Vec<u8> {
    String::from_utf8(bytes).unwrap().replacen(from, to, 1).into_bytes()
}

fn last<'d, 'a>(draft: &'d mut Draft<'a>) -> &'d mut Sheet<'a> {
    draft.roots.last_mut().unwrap()
}

fn role<'d>(draft: &'d mut Draft<'_>, random: &mut Random) -> &'d mut Value {
    let name = *random.of(&["root", "targets", "snapshot", "timestamp"]);
    &mut last(draft).signed["roles"][name]
}

/// The key of a role other than root, with the id that it has then.
fn key<'d>(draft: &'d mut Draft<'_>, random: &mut Random) -> &'d mut Value {
    let name = *random.of(&["targets", "snapshot", "timestamp"]);
    let root = &mut last(draft).signed;
    let id = root["roles"][name]["keyids"][0].as_str().unwrap().to_owned();
    &mut root["keys"][id]
}

fn pin<'d>(draft: &'d mut Draft<'_>, random: &mut Random) -> &'d mut Value {
    match random.below(2) {
        0 => &mut draft.timestamp.signed["meta"]["snapshot.json"],
        _ => &mut draft.snapshot.signed["meta"]["targets.json"],
    }
}

fn random_length(random: &mut Random) -> u64 {
    *random.of(&[0, 1, 5])
}

fn entry<'d>(draft: &'d mut Draft<'_>) -> &'d mut Value {
    &mut draft.list().signed["targets"]["app/1.2.3"]
}

fn bins<'d>(draft: &'d mut Draft<'_>) -> impl Iterator<Item = &'d mut Value> {
    let roles = draft.targets.signed.pointer_mut("/delegations/roles").and_then(Value::as_array_mut);
    roles.into_iter().flatten()
}
