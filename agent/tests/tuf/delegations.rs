//! Which roles are asked for a path, and in which order.

use crate::world::World;

/// One delegation: who, to whom, and the rest of the arguments.
type Edge = (&'static str, &'static str, &'static str);

/// Publishes delegations, asks for a path and returns the roles that were asked for it.
fn visited(edges: &[Edge], path: &str) -> Option<(World, Vec<String>)> {
    let mut world = World::start()?;
    let mut roles = Vec::new();
    for (delegator, role, rest) in edges {
        world.python(&format!("delegate('{delegator}', '{role}', {rest})"));
        for role in [role, delegator] {
            if !roles.contains(role) {
                roles.push(role);
            }
        }
    }
    world.python(&format!("publish(*{roles:?}, 'snapshot', 'timestamp')"));
    assert!(!world.download(path));
    let requests = world.requests();
    let visited = requests[4..].iter().map(|file| {
        let role = file.strip_prefix("metadata/1.").unwrap();
        role.strip_suffix(".json").unwrap().to_owned()
    });
    let visited = visited.collect();
    Some((world, visited))
}

#[test]
fn roles_are_asked_depth_first_each_once_and_none_behind_a_terminating_one() {
    let any = "['*']";
    let cases: [(&[Edge], &[&str]); 9] = [
        (&[("targets", "a", any), ("targets", "b", any)], &["a", "b"]),
        (&[("targets", "a", any), ("targets", "b", any), ("a", "c", any), ("a", "d", any)], &["a", "c", "d", "b"]),
        (&[("targets", "a", any), ("targets", "b", any), ("a", "c", any), ("c", "d", any)], &["a", "c", "d", "b"]),
        (&[("targets", "a", any), ("targets", "b", any), ("a", "c", "['*'], True"), ("a", "d", any)], &["a", "c"]),
        (&[("targets", "a", any), ("targets", "b", any), ("a", "c", "['*'], True"), ("c", "d", any)], &["a", "c", "d"]),
        (&[("targets", "a", "['*.py']"), ("targets", "b", any), ("a", "c", any)], &["b"]),
        (&[("targets", "a", any), ("a", "b", any), ("b", "c", any), ("c", "a", any)], &["a", "b", "c"]),
        (&[("targets", "a", any), ("targets", "b", any), ("b", "c", any), ("a", "c", any)], &["a", "c", "b"]),
        (&[("targets", "a", any), ("targets", "b", any), ("b", "c", any), ("a", "c", "['*.py']")], &["a", "b", "c"]),
    ];
    for (edges, expected) in cases {
        let Some((_, visited)) = visited(edges, "path") else { return };
        assert_eq!(visited, expected, "{edges:?}");
    }
}

#[test]
fn a_path_is_found_along_patterns_that_do_not_cross_a_slash() {
    let Some(mut world) = World::start() else { return };
    world.python("delegate('targets', 'docs', ['*.md', '*.txt']); delegate('targets', 'releases', ['releases/*/*'])");
    world.python("delegate('releases', 'x', ['releases/x/*']); delegate('releases', 'y', ['releases/?/*.zip'])");
    world.python("add('top', b'top'); add('README.md', b'docs', 'docs'); add('releases/x/1', b'x', 'x')");
    world.python(
        "add('releases/y/1.zip', b'y', 'y'); add('releases/zz/1.zip', b'z', 'y'); add('a/b.md', b'deep', 'docs')",
    );
    world.python("publish('docs', 'x', 'y', 'releases', 'targets', 'snapshot', 'timestamp')");
    for path in ["top", "README.md", "releases/x/1", "releases/y/1.zip"] {
        assert!(world.download(path), "{path}");
    }
    assert_eq!(world.fetched(), ["docs", "top", "x", "y"]);
    // They are listed by somebody to whom they are not delegated.
    for path in ["releases/zz/1.zip", "a/b.md"] {
        assert!(!world.download(path), "{path}");
    }
}

#[test]
fn a_path_is_found_by_the_prefix_of_its_hash() {
    let Some(mut world) = World::start() else { return };
    world.python("prefix = sha256('bin/file')[:2]; other = '00' if prefix != '00' else '01'");
    world
        .python("delegate('targets', 'other', prefixes=[other]); delegate('targets', 'mine', prefixes=['zz', prefix])");
    world.python(
        "add('bin/file', b'of the other', 'other'); publish('other', 'mine', 'targets', 'snapshot', 'timestamp')",
    );
    assert!(!world.download("bin/file"));
    world.python("add('bin/file', b'of mine', 'mine'); publish('mine', 'snapshot', 'timestamp')");
    assert!(world.download("bin/file"));
    assert_eq!(world.fetched(), ["of mine"]);
}

#[test]
fn a_role_is_believed_only_with_the_key_that_its_delegator_gives_it() {
    let Some(mut world) = World::start() else { return };
    world.python(
        "delegate('targets', 'team', ['*']); add('file', b'file', 'team'); signers['team'] = signers['targets']",
    );
    world.python("publish('team', 'targets', 'snapshot', 'timestamp')");
    assert!(!world.download("file"));
    assert_eq!(world.trusted(), "root 1, snapshot 2, targets 2, timestamp 2");
    // The key of a held role is taken away.
    world.python("signers['team'] = []; add_key('team', delegator='targets'); publish('team', 'targets', 'snapshot', 'timestamp')");
    assert!(world.download("file"));
    world.python("[targets.revoke_key(id, 'team') for id in list(targets.delegations.roles['team'].keyids)]");
    world.python(
        "old = signers['team']; signers['team'] = []; add_key('team', delegator='targets'); signers['team'] = old",
    );
    world.python("publish('targets', 'snapshot', 'timestamp')");
    std::fs::remove_file(world.path("targets/file")).unwrap();
    assert!(!world.download("file"));
}

#[test]
fn a_role_that_has_expired_is_refused_until_there_is_a_newer_one() {
    let Some(mut world) = World::start() else { return };
    world.python("delegate('targets', 'team', ['*'], expires=NOW - DAY); add('file', b'file', 'team')");
    world.python("publish('team', 'targets', 'snapshot', 'timestamp')");
    assert!(world.refresh());
    assert!(!world.download("file"));
    assert_eq!(world.trusted(), "root 1, snapshot 2, targets 2, timestamp 2");
    world.python("roles['team'].expires = NOW + DAY; publish('team', 'snapshot', 'timestamp')");
    assert!(world.download("file"));
}

#[test]
fn a_role_that_is_held_is_not_fetched_again_until_it_changes() {
    let Some(mut world) = World::start() else { return };
    world.python("delegate('targets', 'team', ['*']); add('file', b'file', 'team')");
    world.python("publish('team', 'targets', 'snapshot', 'timestamp')");
    assert!(world.download("file"));
    world.requests();
    assert!(world.download("file"));
    assert_eq!(world.requests(), ["metadata/2.root.json", "metadata/timestamp.json"]);
    world.python("publish('targets', 'snapshot', 'timestamp')");
    assert!(world.download("file"));
    assert_eq!(world.requests()[2..], ["metadata/3.snapshot.json", "metadata/3.targets.json"]);
    world.python("publish('team', 'snapshot', 'timestamp')");
    assert!(world.download("file"));
    assert_eq!(world.requests()[2..], ["metadata/4.snapshot.json", "metadata/2.team.json"]);
}

#[test]
fn a_role_may_have_any_name_and_leaves_the_folder_as_little_as_the_url() {
    for (role, escaped) in [("?", "%3F"), ("#", "%23"), ("/team", "%2Fteam"), ("../team", "..%2Fteam"), ("..", "..")] {
        let Some((world, visited)) = visited(&[("targets", role, "['*']")], "path") else { return };
        assert_eq!(visited, [escaped]);
        assert!(world.trusted().contains(&format!("{escaped} 1")), "{}", world.trusted());
    }
}

#[test]
fn no_delegation_takes_the_place_of_a_role_of_the_root() {
    for role in ["root", "timestamp", "snapshot"] {
        let Some(mut world) = World::start() else { return };
        let delegated =
            format!("{{'name': '{role}', 'keyids': [], 'threshold': 1, 'terminating': False, 'paths': ['*']}}");
        world.python(&format!(
            "change_and_sign('targets', lambda signed: signed.update(delegations={{'keys': {{}}, 'roles': [{delegated}]}}))"
        ));
        assert!(!world.download("path"));
        assert!(world.requests()[4..].is_empty());
        assert_eq!(world.trusted(), "root 1, snapshot 1, targets 1, timestamp 1");
    }
}

#[test]
fn delegations_that_are_not_understood_are_no_word_that_a_path_is_absent() {
    let Some(mut world) = World::start() else { return };
    let succinct = "{'keyids': [], 'threshold': 1, 'bit_length': 8, 'name_prefix': 'bin'}";
    world.python(&format!(
        "change_and_sign('targets', lambda signed: signed.update(delegations={{'keys': {{}}, 'succinct_roles': {succinct}}}))"
    ));
    assert!(world.refresh());
    assert!(!world.download("path"));
}

#[test]
fn delegations_without_an_end_come_to_one() {
    let Some(mut world) = World::start() else { return };
    world.python("names = ['targets'] + [f'role-{number}' for number in range(40)]");
    world.python("[delegate(names[at], names[at + 1], ['*']) for at in range(40)]; add('near', b'near', 'role-5')");
    world.python("add('far', b'far', 'role-39'); publish(*reversed(names), 'snapshot', 'timestamp')");
    assert!(world.download("near"));
    assert!(!world.download("far"));
    assert_eq!(world.requests().iter().filter(|request| request.contains("role-")).count(), 31);
}
