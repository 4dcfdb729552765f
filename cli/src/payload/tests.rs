use std::{collections::BTreeMap, fs, os::unix::fs::PermissionsExt, time::SystemTime};

use proptest::prelude::*;

use super::*;
use crate::messages::Messages;

fn silent() -> Progress {
    Progress::bytes(Messages::new(true), "packing", 0)
}

fn pack(path: &Path) -> (Payload, Vec<u8>) {
    let mut payload = Source::open(path, None).unwrap().pack(&silent()).unwrap();
    payload.file.rewind().unwrap();
    let mut bytes = Vec::new();
    payload.file.read_to_end(&mut bytes).unwrap();
    (payload, bytes)
}

fn refusal(path: &Path, installer: Option<Installer>) -> String {
    match Source::open(path, installer).and_then(|source| source.pack(&silent())) {
        Ok(_) => panic!("{} was taken", path.display()),
        Err(failure) => {
            assert_eq!(failure.exit().code(), 2, "{failure}");
            failure.to_string()
        }
    }
}

/// Contents and executable bit of files, by path.
type Tree = BTreeMap<String, (Vec<u8>, bool)>;

fn write<'a>(
    root: &Path,
    files: impl Iterator<Item = (&'a String, &'a (Vec<u8>, bool))>,
    mtime: SystemTime,
    umask: u32,
) {
    for (path, (content, executable)) in files {
        let path = root.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, content).unwrap();
        let mode = if *executable { 0o755 } else { 0o644 };
        let file = fs::File::open(&path).unwrap();
        file.set_permissions(fs::Permissions::from_mode(mode & !umask)).unwrap();
        file.set_modified(mtime).unwrap();
    }
}

fn trees() -> impl Strategy<Value = Tree> {
    // Lower case alone, and folders and files of different alphabets, so that no path is both.
    let path = "([a-c]{1,3}/){0,3}[x-z]{1,60}";
    proptest::collection::btree_map(path, (proptest::collection::vec(any::<u8>(), 0..2000), any::<bool>()), 1..12)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn the_same_tree_gives_the_same_bytes_whoever_wrote_it(tree in trees()) {
        let (one, two) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        write(one.path(), tree.iter(), SystemTime::now(), 0);
        write(two.path(), tree.iter().rev(), SystemTime::UNIX_EPOCH, 0o077);
        let ((first, first_bytes), (second, second_bytes)) = (pack(one.path()), pack(two.path()));
        prop_assert_eq!(first.sha256, second.sha256);
        prop_assert_eq!(&first_bytes, &second_bytes);
        prop_assert_eq!(first.size, first_bytes.len() as u64);
        let expected: [u8; 32] = Sha256::digest(&first_bytes).into();
        prop_assert_eq!(first.sha256.0, expected);
    }

    #[test]
    fn an_archive_holds_the_tree_sorted_and_obeys_the_devices_rules(tree in trees()) {
        let folder = tempfile::tempdir().unwrap();
        write(folder.path(), tree.iter(), SystemTime::now(), 0);
        let (payload, bytes) = pack(folder.path());
        let archive = inspect::check_archive(Path::new("made"), io::Cursor::new(&bytes)).unwrap();
        prop_assert_eq!(archive, payload.unpacked_size);

        let mut found = Tree::new();
        let mut last = String::new();
        for entry in tar::Archive::new(bytes.as_slice()).entries().unwrap() {
            let mut entry = entry.unwrap();
            let path = String::from_utf8(entry.path_bytes().into_owned()).unwrap();
            let path = path.trim_end_matches('/').to_owned();
            prop_assert!(path > last, "{} after {}", path, last);
            let header = entry.header();
            let mode = header.mode().unwrap();
            prop_assert_eq!((header.mtime().unwrap(), header.uid().unwrap(), header.gid().unwrap()), (0, 0, 0));
            if header.entry_type().is_dir() {
                prop_assert_eq!(mode, 0o755);
            } else {
                prop_assert!(header.entry_type().is_file() && (mode == 0o755 || mode == 0o644));
                let mut content = Vec::new();
                entry.read_to_end(&mut content).unwrap();
                found.insert(path.clone(), (content, mode == 0o755));
            }
            last = path;
        }
        prop_assert_eq!(found, tree);
    }
}

#[test]
fn everything_that_devices_refuse_is_reported_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path();
    fs::create_dir(root.join("sub")).unwrap();
    std::os::unix::fs::symlink("/etc/passwd", root.join("sub/link")).unwrap();
    rustix::fs::mkfifoat(rustix::fs::CWD, root.join("pipe"), rustix::fs::Mode::RUSR).unwrap();
    fs::write(root.join("Readme"), "a").unwrap();
    fs::write(root.join("README"), "b").unwrap();
    fs::write(root.join("new\nline"), "c").unwrap();
    let deep = format!("{}/{}", "d".repeat(150), "e".repeat(150));
    fs::create_dir_all(root.join(&deep)).unwrap();
    let text = refusal(root, None);
    assert_eq!(text.lines().count(), 1 + 5, "{text}");
    for part in ["symbolic link", "FIFO", "upper and lower case", "a character that is not allowed", "240 bytes"] {
        assert!(text.contains(part), "{part} is missing in {text}");
    }
}

#[test]
fn a_link_to_a_folder_may_name_the_folder() {
    let folder = tempfile::tempdir().unwrap();
    fs::create_dir(folder.path().join("real")).unwrap();
    fs::write(folder.path().join("real/file"), "x").unwrap();
    std::os::unix::fs::symlink("real", folder.path().join("link")).unwrap();
    let (one, two) = (pack(&folder.path().join("real")), pack(&folder.path().join("link")));
    assert_eq!(one.0.sha256, two.0.sha256);
}

#[test]
fn nothing_is_not_a_payload() {
    let folder = tempfile::tempdir().unwrap();
    assert!(refusal(folder.path(), None).contains("is empty"));
    let file = folder.path().join("nothing");
    fs::write(&file, "").unwrap();
    assert!(refusal(&file, None).contains("is empty"));
}

#[test]
fn a_folder_is_not_one_file() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("x"), "x").unwrap();
    assert!(refusal(folder.path(), Some(Installer::File)).contains("takes one file"));
}

#[test]
fn a_file_is_sent_as_it_is() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("firmware.bin");
    fs::write(&path, b"hello").unwrap();
    let (payload, bytes) = pack(&path);
    assert_eq!(bytes, b"hello");
    assert_eq!((payload.size, payload.unpacked_size, payload.installer), (5, 5, Installer::File));
    assert_eq!(payload.sha256.to_string(), "2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824");
}

#[test]
fn a_ready_archive_is_checked_before_it_is_sent() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("release.tar");
    let mut tar = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_gnu();
    header.set_size(4);
    header.set_mode(0o644);
    tar.append_data(&mut header, "bin/app", &b"data"[..]).unwrap();
    fs::write(&path, tar.into_inner().unwrap()).unwrap();
    let source = Source::open(&path, Some(Installer::Directory)).unwrap();
    let payload = source.pack(&silent()).unwrap();
    assert_eq!((payload.installer, payload.unpacked_size), (Installer::Directory, 4));

    let mut tar = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_gnu();
    header.set_entry_type(tar::EntryType::Symlink);
    header.set_size(0);
    tar.append_link(&mut header, "bin/sh", "/bin/sh").unwrap();
    fs::write(&path, tar.into_inner().unwrap()).unwrap();
    assert!(refusal(&path, Some(Installer::Directory)).contains("neither a file nor a folder"));

    fs::write(&path, vec![7; 4096]).unwrap();
    assert!(refusal(&path, Some(Installer::Directory)).contains("no tar archive"));
}
