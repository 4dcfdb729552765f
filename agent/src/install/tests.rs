use std::io::Write;

use super::*;
use crate::tree::Mode;

const LIMITS: Limits = Limits { max_entries: 100, max_unpacked_bytes: 1024 * 1024 };

fn archive() -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    for (name, content) in [("bin/run", &b"#!/bin/sh\n"[..]), ("data", b"data")] {
        let mut header = tar::Header::new_gnu();
        header.set_size(content.len() as u64);
        header.set_mode(0o755);
        builder.append_data(&mut header, name, content).unwrap();
    }
    builder.into_inner().unwrap()
}

fn release(content: &[u8], installer: Installer) -> Release {
    Release {
        package: "app".parse().unwrap(),
        version: "1.0.0".parse().unwrap(),
        payload: Payload { sha256: Sha256Digest(Sha256::digest(content).into()), size_bytes: content.len() as u64 },
        release_counter: 1,
        installer,
    }
}

fn fixture(content: &[u8], installer: Installer) -> (tempfile::TempDir, Releases, Release) {
    let data = tempfile::tempdir().unwrap();
    let releases = Releases::new(data.path(), &"app".parse().unwrap());
    releases.create().unwrap();
    let release = release(content, installer);
    fs::write(releases.part(release.payload.sha256), content).unwrap();
    (data, releases, release)
}

fn names(folder: &Path) -> Vec<String> {
    let mut names: Vec<_> =
        fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[test]
fn a_directory_release_is_complete_under_its_name_and_the_download_is_gone() {
    let (_data, releases, release) = fixture(&archive(), Installer::Directory);
    let payload = release.payload.sha256;
    for _ in 0..2 {
        install(&releases, &release, &Directory { limits: LIMITS }, DateTime::UNIX_EPOCH).unwrap();
        assert_eq!(names(&releases.folder()), [payload.to_string(), format!("{payload}.json")]);
    }
    assert_eq!(fs::read(releases.tree(payload).join("data")).unwrap(), b"data");
    assert!(releases.is_whole(payload).unwrap());
    assert_eq!(releases.current().unwrap(), None, "installing does not switch");
}

#[test]
fn a_file_release_is_one_file_of_the_name_given() {
    let (_data, releases, release) = fixture(b"binary", Installer::File);
    let file = SingleFile { name: "app".to_owned(), mode: Mode::Executable };
    install(&releases, &release, &file, DateTime::UNIX_EPOCH).unwrap();
    let tree = releases.tree(release.payload.sha256);
    assert_eq!(names(&tree), ["app"]);
    assert_eq!(fs::read(tree.join("app")).unwrap(), b"binary");
}

#[test]
fn leftovers_of_an_interrupted_install_do_not_stay() {
    let (_data, releases, release) = fixture(&archive(), Installer::Directory);
    let payload = release.payload.sha256;
    fs::create_dir(releases.unfinished_tree(payload)).unwrap();
    fs::write(releases.unfinished_tree(payload).join("data"), b"torn").unwrap();
    fs::create_dir(releases.tree(payload)).unwrap();
    fs::write(releases.tree(payload).join("stray"), b"stray").unwrap();
    install(&releases, &release, &Directory { limits: LIMITS }, DateTime::UNIX_EPOCH).unwrap();
    assert_eq!(names(&releases.tree(payload)), ["bin", "data"]);
}

#[test]
fn a_payload_that_changed_since_it_was_checked_is_not_installed() {
    for installer_kind in [Installer::Directory, Installer::File] {
        let (_data, releases, release) = fixture(&archive(), installer_kind);
        let payload = release.payload.sha256;
        let mut part = fs::OpenOptions::new().append(true).open(releases.part(payload)).unwrap();
        part.write_all(b"more").unwrap();
        let file = SingleFile { name: "app".to_owned(), mode: Mode::Plain };
        let unpack = installer(installer_kind, LIMITS, file);
        let error = install(&releases, &release, unpack.as_ref(), DateTime::UNIX_EPOCH).unwrap_err();
        assert!(matches!(error, Error::PayloadLost), "{error}");
        assert!(!releases.tree(payload).exists());
        assert!(!releases.unfinished_tree(payload).exists());
    }
}

#[test]
fn a_missing_payload_is_lost_and_not_an_error_of_the_disk() {
    let (_data, releases, release) = fixture(&archive(), Installer::Directory);
    fs::remove_file(releases.part(release.payload.sha256)).unwrap();
    let error = install(&releases, &release, &Directory { limits: LIMITS }, DateTime::UNIX_EPOCH).unwrap_err();
    assert!(matches!(error, Error::PayloadLost));
}

#[test]
fn a_hostile_archive_leaves_nothing_behind() {
    let (_data, releases, release) = fixture(&[b'x'; 2048], Installer::Directory);
    let error = install(&releases, &release, &Directory { limits: LIMITS }, DateTime::UNIX_EPOCH).unwrap_err();
    assert!(matches!(error, Error::Archive(_)));
    let payload = release.payload.sha256;
    assert_eq!(names(&releases.folder()), [format!(".part-{payload}")]);
}

#[test]
fn space_is_counted_for_the_rest_of_the_download_the_tree_and_the_reserve() {
    let payload = Payload { sha256: Sha256Digest([0; 32]), size_bytes: 100 };
    assert_eq!(space_needed(payload, 0, 0, 10), 210);
    assert_eq!(space_needed(payload, 300, 40, 10), 370);
    assert_eq!(space_needed(payload, 0, 200, 0), 100);
    assert_eq!(space_needed(payload, u64::MAX, 0, 10), u64::MAX);
}
