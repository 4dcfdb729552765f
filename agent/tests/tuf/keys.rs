//! Who may sign, how many have to, and how keys are replaced.

use crate::world::World;

/// One root: the keys that it names, how many of them have to sign, and those that signed.
type Step = (&'static [u8], u8, &'static [u8]);

/// Publishes roots one after the other, the first in place of the one that is there, and says whether the last is followed.
fn rotate(steps: &[Step]) -> Option<bool> {
    let mut world = World::untrusted()?;
    world.python("keys = [key() for _ in range(10)]; del published['root']; root.version = 1");
    for (named, threshold, signed) in steps {
        world.python("[root.revoke_key(id, 'root') for id in list(root.roles['root'].keyids)]; signers['root'] = []");
        world.python(&format!("[add_key('root', keys[index]) for index in {named:?}]"));
        world.python(&format!("signers['root'] = [keys[index] for index in {signed:?}]"));
        world.python(&format!("root.roles['root'].threshold = {threshold}; publish('root')"));
    }
    let first = world.python("published['root'][1].decode()");
    std::fs::write(world.path("first.json"), first.as_str().unwrap()).unwrap();
    assert!(world.client(&["init", world.path("first.json").to_str().unwrap()]));
    let followed = world.refresh();
    let expected = if followed { steps.len() } else { steps.len() - 1 };
    assert!(world.trusted().starts_with(&format!("root {expected}")), "{}", world.trusted());
    Some(followed)
}

#[test]
fn a_root_is_followed_when_enough_of_the_old_and_of_the_new_keys_signed_it() {
    let cases: [&[Step]; 8] = [
        &[(&[1], 1, &[1]), (&[2], 1, &[1, 2]), (&[2], 1, &[2])],
        &[(&[1], 1, &[3, 1, 4]), (&[2], 1, &[3, 2, 1, 4])],
        &[(&[0, 1, 2, 3, 4], 3, &[0, 2, 4]), (&[0, 1, 2, 3, 4], 3, &[4, 1, 3])],
        &[(&[0, 1, 2, 3, 4], 3, &[0, 2, 4]), (&[0, 1, 3, 4, 5], 3, &[0, 1, 4])],
        &[
            (&[0, 1, 2, 3, 4], 3, &[0, 2, 4]),
            (&[5, 6, 7, 8, 9], 3, &[0, 2, 4, 5, 6, 7]),
            (&[5, 6, 7, 8, 9], 3, &[5, 6, 7]),
        ],
        &[(&[1, 2, 3], 1, &[1]), (&[1, 2, 3], 2, &[1, 2])],
        &[(&[1, 2, 3], 2, &[1, 2]), (&[1, 2, 3], 1, &[1, 2]), (&[1, 2, 3], 1, &[1])],
        &[(&[1], 1, &[1]), (&[1, 2], 2, &[1, 2])],
    ];
    for case in cases {
        assert!(rotate(case).unwrap_or(true), "{case:?}");
    }
}

#[test]
fn a_root_that_too_few_of_either_keys_signed_is_not_followed() {
    let cases: [&[Step]; 6] = [
        &[(&[1], 1, &[1]), (&[2], 1, &[2, 3])],
        &[(&[1], 1, &[1]), (&[2], 1, &[1, 3])],
        &[(&[0, 1, 2, 3, 4], 3, &[0, 2, 4]), (&[0, 1, 3, 4, 5], 3, &[0, 2, 4])],
        &[(&[0, 1, 2, 3, 4], 3, &[0, 2, 4]), (&[0, 1, 3, 4, 5], 3, &[0, 4, 5])],
        &[(&[1, 2, 3], 1, &[1]), (&[1, 2, 3], 2, &[2])],
        &[(&[1, 2, 3], 2, &[1, 2]), (&[1, 2, 3], 1, &[1])],
    ];
    for case in cases {
        assert!(!rotate(case).unwrap_or(false), "{case:?}");
    }
}

#[test]
fn a_role_takes_as_many_signatures_as_the_root_says() {
    for (role, trusted) in
        [("timestamp", "root 2"), ("snapshot", "root 2, timestamp 2"), ("targets", "root 2, snapshot 2, timestamp 2")]
    {
        let Some(mut world) = World::start() else { return };
        world.python(&format!("add_key('{role}'); add_key('{role}'); root.roles['{role}'].threshold = 2"));
        world.python(&format!("gone = [signers['{role}'].pop(), signers['{role}'].pop()]; publish_all()"));
        assert!(!world.refresh(), "{role}");
        assert_eq!(world.trusted(), trusted, "{role}");
        world.python(&format!("signers['{role}'].append(gone[0]); publish('targets', 'snapshot', 'timestamp')"));
        assert!(world.refresh(), "{role}");
    }
}

#[test]
fn no_role_is_believed_without_its_key() {
    for (role, trusted) in [
        ("root", "root 1"),
        ("timestamp", "root 2"),
        ("snapshot", "root 2, timestamp 2"),
        ("targets", "root 2, snapshot 2, timestamp 2"),
    ] {
        let Some(mut world) = World::start() else { return };
        world.python(&format!("signers['{role}'] = [key()]; publish_all()"));
        assert!(!world.refresh(), "{role}");
        assert_eq!(world.trusted(), trusted, "{role}");
    }
}

#[test]
fn a_key_counts_once_however_often_it_is_named_and_signs() {
    let Some(mut world) = World::start() else { return };
    world.python("add_key('snapshot'); root.roles['snapshot'].threshold = 2; signers['snapshot'].pop()");
    world.python("publish('snapshot', 'timestamp'); publish('root')");
    world.python("change('snapshot', lambda document: document['signatures'].extend(document['signatures'] * 3))");
    assert!(!world.refresh());
    assert_eq!(world.trusted(), "root 2, timestamp 2");

    // Two signatures of one key are none, even where one would be enough.
    let Some(mut world) = World::start() else { return };
    world.python("change('snapshot', lambda document: document['signatures'].extend(document['signatures']))");
    assert!(!world.refresh());
    assert_eq!(world.trusted(), "root 1, timestamp 1");
}

#[test]
fn more_signatures_than_there_are_keys_can_never_be_reached() {
    let Some(mut world) = World::start() else { return };
    world.python("add_key('snapshot'); root.roles['snapshot'].threshold = 3; publish_all()");
    assert!(!world.refresh());
    assert_eq!(world.trusted(), "root 2, timestamp 2");
}

#[test]
fn every_kind_of_key_in_the_specification_signs_and_a_wrong_signature_of_it_does_not() {
    for kind in ["ed25519", "ecdsa", "rsa"] {
        let Some(mut world) = World::start() else { return };
        world.python(&format!("add_key('root', key('{kind}')); root.roles['root'].threshold = 2; publish('root')"));
        assert!(world.refresh(), "{kind}");
        world.python("publish('root'); id = signers['root'][1].public_key.keyid");
        world.python("other = json.loads(published['root'][2])['signatures']");
        world.python("signature = [one for one in other if one['keyid'] == id]");
        world.python("change('root', lambda document: document.update(signatures=[one for one in document['signatures'] if one['keyid'] != id] + signature))");
        assert!(!world.refresh(), "{kind}");
        assert!(world.trusted().starts_with("root 2"), "{kind}");
    }
}

#[test]
fn a_signature_that_is_wrong_or_empty_takes_nothing_away_from_those_that_suffice() {
    let Some(mut world) = World::start() else { return };
    world.python("add_key('timestamp'); publish('root')");
    for wrong in ["'00' * 64", "''", "'not hexadecimal'"] {
        world.python("publish('timestamp')");
        world.python(&format!("change('timestamp', lambda document: document['signatures'][0].update(sig={wrong}))"));
        assert!(world.refresh(), "{wrong}");
    }
    assert!(world.trusted().ends_with("timestamp 4"));
}

#[test]
fn a_key_may_have_any_name_and_carry_anything() {
    let Some(mut world) = World::start() else { return };
    world.python("one = key(); one.public_key.keyid = 'the blue one'");
    world.python("one.public_key.unrecognized_fields = {'keyid_hash_algorithms': ['md5'], 'x-owner': '@somebody'}");
    world.python("rotate('snapshot'); add_key('snapshot', one); root.roles['snapshot'].threshold = 2; publish_all()");
    assert!(world.refresh());
    assert_eq!(world.trusted(), "root 2, snapshot 2, targets 2, timestamp 2");
}
