use std::fs::{self, File};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use proptest::prelude::*;
use tar::{Builder, Header};

use super::*;

const LIMITS: Limits = Limits { max_entries: 100, max_unpacked_bytes: 1024 * 1024 };

fn header(kind: EntryType, name: &[u8], size: u64, mode: u32) -> Header {
    let mut header = Header::new_gnu();
    header.set_entry_type(kind);
    header.set_size(size);
    header.set_mode(mode);
    // Set as bytes: the crate's own setters refuse the names that matter here.
    let field = &mut header.as_mut_bytes()[..100];
    field[..name.len()].copy_from_slice(name);
    header.set_cksum();
    header
}

fn tar(entries: &[(EntryType, &str, &[u8])]) -> Vec<u8> {
    let mut builder = Builder::new(Vec::new());
    for (kind, name, content) in entries {
        builder.append(&header(*kind, name.as_bytes(), content.len() as u64, 0o644), *content).unwrap();
    }
    builder.into_inner().unwrap()
}

fn link(kind: EntryType, name: &str, target: &str) -> Vec<u8> {
    let mut header = header(kind, name.as_bytes(), 0, 0o777);
    header.as_mut_bytes()[157..157 + target.len()].copy_from_slice(target.as_bytes());
    header.set_cksum();
    let mut builder = Builder::new(Vec::new());
    builder.append(&header, &[][..]).unwrap();
    builder.into_inner().unwrap()
}

/// Unpacks into `<outer>/into` and fails the test if anything appears beside it.
fn unpack_in(outer: &Path, archive: &[u8], limits: Limits) -> Result<Tree, Error> {
    let into = outer.join("into");
    fs::create_dir(&into).unwrap();
    let result = unpack(archive, File::open(&into).unwrap().into(), limits);
    let beside: Vec<_> = fs::read_dir(outer).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(beside, ["into"], "something was written outside");
    result
}

fn refused(archive: &[u8]) -> Error {
    let outer = tempfile::tempdir().unwrap();
    unpack_in(outer.path(), archive, LIMITS).expect_err("the archive should be refused")
}

#[test]
fn files_directories_and_long_names_are_unpacked() {
    let long = format!("{}/{}", "d".repeat(110), "f".repeat(120));
    let mut builder = Builder::new(Vec::new());
    let mut append = |kind, name: &str, mode, content: &[u8]| {
        let mut header = Header::new_gnu();
        header.set_entry_type(kind);
        header.set_mode(mode);
        header.set_size(content.len() as u64);
        builder.append_data(&mut header, name, content).unwrap();
    };
    append(EntryType::Directory, "./", 0o777, b"");
    append(EntryType::Directory, "bin/", 0o700, b"");
    append(EntryType::Regular, "bin/run", 0o6777, b"#!/bin/sh\n");
    append(EntryType::Regular, "implied/parent/data", 0o600, b"data");
    append(EntryType::Regular, &long, 0o644, b"long");
    let archive = builder.into_inner().unwrap();

    let outer = tempfile::tempdir().unwrap();
    let tree = unpack_in(outer.path(), &archive, LIMITS).unwrap();
    let root = outer.path().join("into");
    let mode = |path: &str| fs::metadata(root.join(path)).unwrap().permissions().mode() & 0o7777;
    assert_eq!(fs::read(root.join(&long)).unwrap(), b"long");
    assert_eq!(fs::read(root.join("implied/parent/data")).unwrap(), b"data");
    assert_eq!((mode("bin"), mode("bin/run"), mode("implied/parent/data")), (0o755, 0o755, 0o644));
    assert_eq!(Tree::read(&root).unwrap(), tree, "what is on disk is what was recorded");
}

#[test]
fn a_pax_path_names_the_entry_after_it() {
    let mut builder = Builder::new(Vec::new());
    builder.append_pax_extensions([("path", &b"named/by/pax"[..]), ("mtime", b"1.5")]).unwrap();
    builder.append(&header(EntryType::Regular, b"short", 1, 0o644), &b"x"[..]).unwrap();
    let outer = tempfile::tempdir().unwrap();
    unpack_in(outer.path(), &builder.into_inner().unwrap(), LIMITS).unwrap();
    assert_eq!(fs::read(outer.path().join("into/named/by/pax")).unwrap(), b"x");
}

#[test]
fn paths_that_leave_the_directory_are_refused() {
    let file = |name: &str| tar(&[(EntryType::Regular, name, b"x")]);
    assert!(matches!(refused(&file("/abs")), Error::Path(PathError::Absolute(_))));
    for name in ["../out", "a/../../out", "a/..", "..", "a//b", "a/./b", "././a", "../into/x"] {
        assert!(matches!(refused(&file(name)), Error::Path(PathError::Component(_))), "{name}");
    }
    for name in ["a\\b", "a\nb", "a\u{7f}"] {
        assert!(matches!(refused(&file(name)), Error::Path(PathError::Character(_))), "{name:?}");
    }
    let bytes = header(EntryType::Regular, b"\xff\xfe", 0, 0o644);
    let mut builder = Builder::new(Vec::new());
    builder.append(&bytes, &[][..]).unwrap();
    assert!(matches!(refused(&builder.into_inner().unwrap()), Error::Path(PathError::Character(_))));
}

#[test]
fn a_long_name_obeys_the_same_rules() {
    for name in [format!("../{}", "x".repeat(150)), format!("/{}", "x".repeat(150)), "x".repeat(241)] {
        let archive =
            tar(&[(EntryType::GNULongName, "././@LongLink", name.as_bytes()), (EntryType::Regular, "harmless", b"x")]);
        assert!(matches!(refused(&archive), Error::Path(_)), "{name}");
    }
    let mut builder = Builder::new(Vec::new());
    builder.append_pax_extensions([("path", &b"../out"[..])]).unwrap();
    builder.append(&header(EntryType::Regular, b"harmless", 0, 0o644), &[][..]).unwrap();
    assert!(matches!(refused(&builder.into_inner().unwrap()), Error::Path(_)));
}

#[test]
fn links_devices_and_fifos_are_refused() {
    for archive in [
        link(EntryType::Symlink, "passwd", "/etc/passwd"),
        link(EntryType::Symlink, "up", "../.."),
        link(EntryType::Link, "hard", "into/x"),
        link(EntryType::Char, "null", ""),
        link(EntryType::Block, "sda", ""),
        link(EntryType::Fifo, "fifo", ""),
        link(EntryType::GNUSparse, "sparse", ""),
        link(EntryType::XGlobalHeader, "global", ""),
        link(EntryType::GNULongLink, "longlink", ""),
        link(EntryType::new(b'V'), "volume", ""),
    ] {
        assert!(matches!(refused(&archive), Error::Kind { .. }));
    }
}

#[test]
fn a_file_through_an_earlier_link_is_refused_before_the_link_exists() {
    let mut archive = link(EntryType::Symlink, "out", "..");
    archive.truncate(512);
    archive.extend(tar(&[(EntryType::Regular, "out/bad", b"x")]));
    assert!(matches!(refused(&archive), Error::Kind { .. }));
}

#[test]
fn duplicates_are_refused_also_when_only_their_case_differs() {
    let twice = |first, second| tar(&[(EntryType::Regular, first, b"1"), (EntryType::Regular, second, b"2")]);
    for (first, second) in [("a", "a"), ("a", "A"), ("a", "a/b"), ("dir/x", "DIR/y"), ("dir/x", "dir"), ("ä", "Ä")] {
        assert!(matches!(refused(&twice(first, second)), Error::Duplicate { .. }), "{first} {second}");
    }
}

#[test]
fn limits_hold_for_entries_and_bytes() {
    let names: Vec<String> = (0..101).map(|n| format!("f{n}")).collect();
    let many: Vec<_> = names.iter().map(|name| (EntryType::Regular, name.as_str(), &b""[..])).collect();
    assert!(matches!(refused(&tar(&many)), Error::TooManyEntries { limit: 100 }));
    let deep = vec!["d"; 101].join("/");
    assert!(matches!(
        refused(&tar(&[(EntryType::GNULongName, "l", deep.as_bytes()), (EntryType::Regular, "x", b"")])),
        Error::TooManyEntries { .. }
    ));
    let half = vec![0; 600 * 1024];
    assert!(matches!(
        refused(&tar(&[(EntryType::Regular, "a", &half), (EntryType::Regular, "b", &half)])),
        Error::TooLarge { .. }
    ));
}

#[test]
fn a_declared_size_beyond_the_limit_is_refused_before_a_byte_is_written() {
    let mut archive = header(EntryType::Regular, b"bomb", u64::MAX >> 8, 0o644).as_bytes().to_vec();
    archive.resize(4096, 0);
    assert!(matches!(refused(&archive), Error::TooLarge { .. }));
}

#[test]
fn huge_and_unknown_extension_headers_are_refused() {
    let huge = vec![b'x'; 20 * 1024];
    assert!(matches!(refused(&tar(&[(EntryType::GNULongName, "l", &huge)])), Error::Extension { .. }));
    for key in ["size", "linkpath", "GNU.sparse.major", "SCHILY.xattr.security.capability"] {
        let mut builder = Builder::new(Vec::new());
        builder.append_pax_extensions([(key, &b"1"[..])]).unwrap();
        builder.append(&header(EntryType::Regular, b"x", 0, 0o644), &[][..]).unwrap();
        assert!(matches!(refused(&builder.into_inner().unwrap()), Error::Extension { .. }), "{key}");
    }
}

#[test]
fn a_truncated_archive_is_refused() {
    let whole = tar(&[(EntryType::Regular, "a", &[7; 3000])]);
    assert!(matches!(refused(&whole[..700]), Error::Truncated { .. } | Error::Read(_)));
    assert!(matches!(refused(&whole[..300]), Error::Read(_)));
}

#[test]
fn a_damaged_header_is_refused() {
    let mut archive = tar(&[(EntryType::Regular, "a", b"x")]);
    archive[0] = b'b';
    assert!(matches!(refused(&archive), Error::Read(_)));
}

fn any_kind() -> impl Strategy<Value = EntryType> {
    prop_oneof![
        4 => Just(EntryType::Regular),
        2 => Just(EntryType::Directory),
        1 => any::<u8>().prop_map(EntryType::new),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

    /// Whatever the entries are, nothing appears outside, limits hold, and success means that disk and record agree.
    #[test]
    fn no_archive_escapes_or_exceeds(
        entries in prop::collection::vec((any_kind(), "[a-cA-C./]{0,12}", 0usize..2000), 0..12),
        cut in prop::option::of(0usize..8000),
        flip in prop::option::of((0usize..8000, any::<u8>())),
    ) {
        let contents = vec![9u8; 2000];
        let entries: Vec<_> = entries.iter().map(|(kind, name, size)| (*kind, name.as_str(), &contents[..*size])).collect();
        let mut archive = tar(&entries);
        if let Some(cut) = cut {
            archive.truncate(cut);
        }
        if let Some((at, byte)) = flip && let Some(place) = archive.get_mut(at) {
            *place = byte;
        }
        let limits = Limits { max_entries: 8, max_unpacked_bytes: 6000 };
        let outer = tempfile::tempdir().unwrap();
        let result = unpack_in(outer.path(), &archive, limits);
        let on_disk = Tree::read(&outer.path().join("into")).unwrap();
        prop_assert!(on_disk.len() <= 8);
        if let Ok(tree) = result {
            prop_assert_eq!(on_disk, tree);
        }
    }
}
