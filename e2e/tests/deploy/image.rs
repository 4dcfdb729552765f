//! The image: what is in it, and that it runs with as little as a cluster gives it.

use std::{collections::BTreeMap, fs, io::Read as _};

use ota_e2e::{
    binaries::{run, succeed},
    container::{Container, image, inspect, podman},
    database,
    database_port::DatabasePort,
};

/// Uncompressed. It is pulled to every node that may run the server.
const MOST_BYTES: u64 = 30_000_000;

/// Nobody on any machine.
const USER: u64 = 65_532;

#[tokio::test]
async fn the_image_is_small_and_says_what_it_is() {
    let Some(image) = image("what the image says of itself") else { return };
    let seen = inspect(&["image", "inspect", &image]).await;
    let bytes = seen["Size"].as_u64().unwrap();
    assert!(bytes <= MOST_BYTES, "the image has {bytes} bytes");

    let config = &seen["Config"];
    assert_eq!(config["User"], format!("{USER}:{USER}"));
    assert_eq!(config["Entrypoint"], serde_json::json!(["/ota-server"]));
    for variable in ["OTA_DATA_DIR=/var/lib/ota", "OTA_LISTEN=0.0.0.0:8443", "OTA_LOG_FORMAT=json"] {
        assert!(config["Env"].as_array().unwrap().iter().any(|set| set == variable), "{variable}: {config}");
    }
    let label = |name: &str| config["Labels"][format!("org.opencontainers.image.{name}")].as_str().unwrap().to_owned();
    assert_eq!(label("version"), env!("CARGO_PKG_VERSION"));
    assert_eq!(label("licenses"), env!("CARGO_PKG_LICENSE"));
    assert_eq!(label("revision").len(), 40, "a commit");
    for name in ["title", "description", "source", "created"] {
        assert!(!label(name).is_empty(), "{name}");
    }
}

/// What a test looks at of a file in the image.
#[derive(Debug)]
struct File {
    mode: u32,
    owner: u64,
    content: Vec<u8>,
}

async fn files(image: &str) -> BTreeMap<String, File> {
    let container = Container::create(image).await;
    let folder = tempfile::tempdir().expect("a scratch folder");
    let path = folder.path().join("image.tar");
    succeed(podman(&["export", container.name(), "--output"]).arg(&path)).await;
    let mut archive = tar::Archive::new(fs::File::open(&path).expect("the file just written"));
    let read = |entry: std::io::Result<tar::Entry<'_, _>>| {
        let mut entry = entry.expect("an archive");
        let name = entry.path().expect("a path").display().to_string();
        let mut content = Vec::new();
        entry.read_to_end(&mut content).expect("an archive");
        let header = entry.header();
        (name, File { mode: header.mode().expect("a mode"), owner: header.uid().expect("an owner"), content })
    };
    archive.entries().expect("an archive").map(read).collect()
}

/// Whether an ELF file names a program that has to load it.
fn needs_a_loader(elf: &[u8]) -> bool {
    const PT_INTERP: u32 = 3;
    let at = |offset: usize, length: usize| {
        elf[offset..offset + length].iter().rev().fold(0, |value, byte| value << 8 | usize::from(*byte))
    };
    assert_eq!(&elf[..5], b"\x7fELF\x02", "a program for 64 bits");
    let (table, size, count) = (at(32, 8), at(54, 2), at(56, 2));
    assert!(count > 0);
    (0..count).any(|number| at(table + number * size, 4) == PT_INTERP as usize)
}

#[tokio::test]
async fn nothing_is_in_the_image_but_two_static_programs_and_certificates() {
    let Some(image) = image("what is in the image") else { return };
    let files = files(&image).await;
    let programs = ["ota-server", "otactl"];
    let certificates = "etc/ssl/certs/ca-certificates.crt";
    let filled: Vec<_> = files.iter().filter(|(_, file)| !file.content.is_empty()).map(|(name, _)| name).collect();
    assert_eq!(filled, [certificates, programs[0], programs[1]]);
    for (name, file) in &files {
        assert_eq!(file.mode & 0o6000, 0, "{name} lends its owner's rights");
    }
    for program in programs {
        let program = &files[program];
        assert_eq!((program.mode & 0o7777, program.owner), (0o755, 0));
        assert!(!needs_a_loader(&program.content));
    }
    assert!(needs_a_loader(&fs::read("/bin/sh").unwrap()), "the test sees a loader where there is one");
    for folder in ["var/lib/ota/", "tmp/"] {
        assert_eq!(files[folder].owner, USER, "{folder}");
    }
    let pem = String::from_utf8(files[certificates].content.clone()).unwrap();
    let count = pem.matches("BEGIN CERTIFICATE").count();
    assert!(count > 100, "{count} authorities");
}

/// What a hardened cluster takes away.
const HARDENED: [&str; 9] = [
    "--read-only",
    "--cap-drop=all",
    "--security-opt=no-new-privileges",
    "--memory=256m",
    "--pids-limit=256",
    // A new volume, with what the image says of its owner.
    "--volume=/var/lib/ota",
    "--add-host=database.test:127.0.0.1",
    "--env=OTA_LISTEN=127.0.0.1:0",
    "--env=OTA_METRICS_LISTEN=127.0.0.1:0",
];

#[tokio::test]
async fn the_server_runs_read_only_as_nobody_and_stops_when_told() {
    let Some(image) = image("the image under podman") else { return };
    let database = database::empty().await;
    let port = DatabasePort::open(&database.connect_options()).await;
    // A name, because a static program resolves names without the system's library.
    let url = format!("--env=DATABASE_URL={}", port.url("database.test"));
    let options: Vec<&str> = HARDENED.iter().copied().chain([url.as_str()]).collect();
    let server = Container::start(&image, &options, &[]).await;
    let url = server.url().await;
    let address = url.strip_prefix("https://").unwrap();

    succeed(&mut server.exec(&["/ota-server", "healthcheck", "--listen", address])).await;
    let wrong = run(&mut server.exec(&["/ota-server", "healthcheck", "--listen", "127.0.0.1:1"])).await;
    assert_eq!(wrong.status.code(), Some(1));

    // What it really has, not what it was given.
    let seen = server.inspect().await;
    let process = seen["State"]["Pid"].as_u64().unwrap();
    let status = fs::read_to_string(format!("/proc/{process}/status")).unwrap();
    let line = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).unwrap();
        line.split_whitespace().map(str::to_owned).collect::<Vec<_>>()
    };
    assert_eq!(line("Uid"), [USER.to_string(), USER.to_string(), USER.to_string(), USER.to_string()]);
    for set in ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"] {
        assert_eq!(line(set), ["0000000000000000"], "{set}");
    }
    assert_eq!(line("NoNewPrivs"), ["1"]);
    assert_eq!(line("Seccomp"), ["2"], "a filter of system calls");
    let mounts = fs::read_to_string(format!("/proc/{process}/mountinfo")).unwrap();
    let root = mounts.lines().map(|line| line.split(' ').collect::<Vec<_>>()).find(|fields| fields[4] == "/").unwrap();
    assert!(root[5].split(',').any(|option| option == "ro"), "the root is {root:?}");
    assert_eq!(seen["HostConfig"]["Memory"], 256 << 20);

    let files = ["--token-file", "/var/lib/ota/admin-token", "--ca-file", "/var/lib/ota/ca.pem"];
    let otactl = [&["/otactl", "--server", &url], files.as_slice(), &["status"]].concat();
    succeed(&mut server.exec(&otactl)).await;

    // A static program can load nothing. It says so, and does not crash.
    let release = ["upload", "/otactl", "--package", "app", "--version", "1.0.0", "--targets-key"];
    let module = ["pkcs11:object=targets?module-path=/lib/module.so"];
    let otactl = [&["/otactl", "--no-input", "--server", &url], files.as_slice(), &release, &module].concat();
    let refused = run(&mut server.exec(&otactl)).await;
    let said = String::from_utf8_lossy(&refused.stderr);
    assert_eq!(refused.status.code(), Some(1), "{said}");
    assert!(said.contains("cannot load the PKCS#11 module") && said.contains("static program"), "{said}");

    let log = server.logs().await;
    let told = log.lines().filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok()).count();
    assert!(told > 0, "the log is in JSON: {log}");
    assert_eq!(server.stop().await, 0, "{}", server.logs().await);
}
