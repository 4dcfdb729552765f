//! The program as a shell sees it: arguments, environment, the two output streams and the exit code. Needs no server.

#![expect(clippy::unwrap_used, reason = "a test ends at what it did not expect")]

use std::{
    fs,
    io::{Read, Write},
    net::TcpListener,
    path::Path,
    process::{Command, Output, Stdio},
};

/// Makes a run that sees neither the person's own contexts nor their environment.
fn otactl(home: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_otactl"));
    command.env_clear().env("HOME", home).env("TMPDIR", home).stdin(Stdio::null());
    command
}

fn run(command: &mut Command) -> (i32, String, String) {
    let Output { status, stdout, stderr } = command.output().expect("otactl is built");
    let text = |bytes| String::from_utf8(bytes).expect("all output is UTF-8");
    (status.code().expect("no signal ends it"), text(stdout), text(stderr))
}

/// A port of this machine on which nobody listens.
fn dead_server() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port is free");
    format!("http://{}", listener.local_addr().expect("it is bound"))
}

fn home() -> tempfile::TempDir {
    tempfile::tempdir().expect("temporary folders can be made")
}

#[test]
fn a_server_that_does_not_answer_is_named_with_the_reason_and_a_hint() {
    let home = home();
    let server = dead_server();
    let (code, out, err) =
        run(otactl(home.path()).args(["device", "list", "--server", &server]).env("OTACTL_TOKEN", "ota_x"));
    assert_eq!((code, out.as_str()), (1, ""));
    assert!(err.starts_with(&format!("error: cannot reach {server}: connection refused\nhint: ")), "{err}");
}

/// A server that ends the TLS handshake well, shows the chain of an authority of its own, and then says nothing.
struct EncryptedServer {
    url: String,
    authority: rcgen::Certificate,
    thread: std::thread::JoinHandle<Vec<u8>>,
}

impl EncryptedServer {
    /// Stops it and returns all that it was sent.
    fn stop(self) -> String {
        // A connection that says nothing is the sign to end.
        drop(std::net::TcpStream::connect(self.url.trim_start_matches("https://")).unwrap());
        String::from_utf8_lossy(&self.thread.join().unwrap()).into_owned()
    }
}

fn encrypted_server() -> EncryptedServer {
    use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.distinguished_name.push(DnType::CommonName, "ota certificate authority");
    let authority = params.self_signed(&key).unwrap();
    let issuer = Issuer::new(params, key);
    let leaf_key = KeyPair::generate().unwrap();
    let mut leaf = CertificateParams::new(vec!["ota.example".to_owned()]).unwrap();
    leaf.extended_key_usages = vec![rcgen::ExtendedKeyUsagePurpose::ServerAuth];
    let leaf = leaf.signed_by(&leaf_key, &issuer).unwrap();
    let provider = std::sync::Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(
            vec![leaf.der().clone(), authority.der().clone()],
            rustls::pki_types::PrivatePkcs8KeyDer::from(leaf_key.serialize_der()).into(),
        )
        .unwrap();
    config.alpn_protocols = vec![b"h2".to_vec()];
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("https://{}", listener.local_addr().unwrap());
    let config = std::sync::Arc::new(config);
    let thread = std::thread::spawn(move || {
        let mut sent = Vec::new();
        loop {
            let (stream, _) = listener.accept().unwrap();
            if stream.peek(&mut [0]).unwrap() == 0 {
                return sent;
            }
            let connection = rustls::ServerConnection::new(config.clone()).unwrap();
            // The client goes away without a word; what it sent before counts.
            let _ = rustls::StreamOwned::new(connection, stream).read_to_end(&mut sent);
        }
    });
    EncryptedServer { url, authority, thread }
}

#[test]
fn a_server_whose_authority_nobody_named_gets_no_token_from_a_pipe() {
    let home = home();
    let server = encrypted_server();
    let (code, _, err) = run(otactl(home.path()).args(["login", &server.url]).env("OTACTL_TOKEN", "ota_secret"));
    assert_eq!(code, 2);
    assert!(err.contains("nothing says which certificate") && err.contains("sha256:"), "{err}");
    assert!(err.contains("--ca-file") && err.contains("--pin"), "{err}");
    assert!(!server.stop().contains("secret"));
    assert!(!home.path().join(".config/otactl").exists());
}

#[test]
fn a_server_with_another_authority_than_the_pin_gets_no_token() {
    let home = home();
    let server = encrypted_server();
    let pin = "0".repeat(64);
    let (code, _, err) =
        run(otactl(home.path()).args(["login", &server.url, "--pin", &pin]).env("OTACTL_TOKEN", "ota_secret"));
    assert_eq!(code, 1);
    assert!(err.contains("is not the server that the pin stands for"), "{err}");
    assert!(!server.stop().contains("secret"));
}

#[test]
fn a_server_that_another_authority_signed_gets_no_token() {
    let home = home();
    let server = encrypted_server();
    let other = encrypted_server();
    let file = home.path().join("ca.pem");
    fs::write(&file, other.authority.pem()).unwrap();
    let (code, _, err) =
        run(otactl(home.path()).args(["login", &server.url, "--ca-file"]).arg(&file).env("OTACTL_TOKEN", "ota_secret"));
    assert_eq!(code, 1);
    assert!(err.contains("signed by another authority") && err.contains("hint: "), "{err}");
    assert!(!server.stop().contains("secret"));
    other.stop();
}

#[test]
fn the_wrong_scheme_is_named() {
    let home = home();
    let server = encrypted_server();
    let plain = server.url.replace("https://", "http://");
    let (code, _, err) = run(otactl(home.path()).args(["status", "--server", &plain]).env("OTACTL_TOKEN", "ota_x"));
    assert_eq!(code, 1);
    assert!(err.contains("speaks TLS on this port") && err.contains("https://"), "{err}");
    server.stop();

    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("https://{}", listener.local_addr().unwrap());
    let thread = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        stream.write_all(b"HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\n\r\n").unwrap();
        let _ = stream.read(&mut [0; 1024]);
    });
    let (code, _, err) = run(otactl(home.path()).args(["login", &url]).env("OTACTL_TOKEN", "ota_x"));
    thread.join().unwrap();
    assert_eq!(code, 1);
    assert!(err.contains("does not speak TLS") && err.contains("http://"), "{err}");
}

#[test]
fn something_else_that_listens_there_is_not_taken_for_a_server() {
    let home = home();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let server = format!("http://{}", listener.local_addr().unwrap());
    let thread = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut request = [0; 24];
        stream.read_exact(&mut request).unwrap();
        stream.write_all(b"HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\n\r\n").unwrap();
    });
    let (code, _, err) = run(otactl(home.path()).args(["status", "--server", &server]).env("OTACTL_TOKEN", "ota_x"));
    thread.join().unwrap();
    assert_eq!(code, 1);
    assert!(err.starts_with("error: ") && err.contains("hint: ") && !err.contains("transport error"), "{err}");
}

#[test]
fn without_a_login_every_command_that_needs_one_says_so_and_exits_with_4() {
    let home = home();
    for arguments in [&["status"][..], &["device", "list"], &["assign", "p@1.0.0", "--all"], &["event", "list"]] {
        let (code, out, err) = run(otactl(home.path()).args(arguments));
        assert_eq!((code, out.as_str()), (4, ""), "{arguments:?}");
        assert!(err.starts_with("error: not logged in\nhint: "), "{err}");
    }
}

#[test]
fn wrong_usage_exits_with_2_before_anything_is_sent() {
    let home = home();
    let table: [&[&str]; 15] = [
        &["frobnicate"],
        &["upload"],
        &["upload", ".", "--package", "../up", "--version", "1.0.0"],
        &["upload", ".", "--package", "p", "--version", "1.0"],
        &["upload", ".", "--package", "p", "--version", "1.0.0", "--hardware", "a/b"],
        &["assign", "gateway-fw@1.2.0"],
        &["assign", "gateway-fw@1.2.0", "-l", ""],
        &["assign", "gateway-fw@1.2.0", "-l", "site in ("],
        &["assign", "gateway-fw@1.2.0", "--all", "-l", "site=lab"],
        &["device", "label", "8057", "a b=c"],
        &["device", "list", "--limit", "0"],
        &["login", "ftp://ota.example"],
        &["login", "https://ota.example", "--pin", "abc"],
        &["export", "--device", "4f21a0c3", "-l", "site=lab", "x.bundle"],
        &["export", "x.bundle"],
    ];
    for arguments in table {
        let (code, out, err) = run(otactl(home.path()).args(arguments));
        assert_eq!((code, out.as_str()), (2, ""), "{arguments:?}: {err}");
        assert!(err.starts_with("error: "), "{arguments:?}: {err}");
    }
}

#[test]
fn a_token_is_not_sent_unencrypted_to_another_machine() {
    let home = home();
    let mut command = otactl(home.path());
    command.args(["login", "http://192.0.2.1:1"]).env("OTACTL_TOKEN", "ota_x");
    let (code, _, err) = run(&mut command);
    assert_eq!(code, 2);
    assert!(err.contains("not encrypted") && err.contains("--insecure"), "{err}");
}

#[test]
fn a_failed_login_saves_nothing() {
    let home = home();
    let token = home.path().join("token");
    fs::write(&token, "ota_x\n").unwrap();
    let (code, _, _) = run(otactl(home.path()).args(["login", &dead_server(), "--token-file"]).arg(&token));
    assert_eq!(code, 1);
    assert!(!home.path().join(".config/otactl").exists());
}

#[test]
fn what_devices_would_refuse_is_refused_before_the_server_is_asked() {
    let home = home();
    let folder = home.path().join("build");
    fs::create_dir(&folder).unwrap();
    std::os::unix::fs::symlink("/etc/passwd", folder.join("a")).unwrap();
    std::os::unix::fs::symlink("/etc/passwd", folder.join("b")).unwrap();
    let (code, _, err) = run(otactl(home.path()).args(["upload", "--package", "p", "--version", "1.0.0"]).arg(&folder));
    assert_eq!(code, 2);
    assert!(err.contains("entries that devices would refuse\n  \"a\" is a symbolic link"), "{err}");
}

#[test]
fn completion_scripts_come_for_every_shell() {
    let home = home();
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let (code, out, err) = run(otactl(home.path()).args(["completion", shell]));
        assert_eq!((code, err.as_str()), (0, ""), "{shell}");
        assert!(out.contains("enroll-token"), "{shell}");
    }
}

#[test]
fn there_is_a_manual_page_for_every_command() {
    let home = home();
    let dir = home.path().join("man1");
    let (code, _, err) = run(otactl(home.path()).args(["man", "--dir"]).arg(&dir));
    assert_eq!((code, err.as_str()), (0, ""));
    for page in ["otactl.1", "otactl-upload.1", "otactl-device-label.1", "otactl-enroll-token-create.1"] {
        let text = fs::read_to_string(dir.join(page)).unwrap();
        assert!(text.contains(".SH NAME") && text.contains("Examples:"), "{page}");
    }
    let (code, out, _) = run(otactl(home.path()).arg("man"));
    assert!(code == 0 && out.contains(".SH NAME"));
}

#[test]
fn a_reader_that_stops_reading_is_no_error() {
    let home = home();
    let mut child =
        otactl(home.path()).args(["completion", "bash"]).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    drop(child.stdout.take());
    let Output { status, stderr, .. } = child.wait_with_output().unwrap();
    assert_eq!((status.code(), String::from_utf8(stderr).unwrap().as_str()), (Some(0), ""));
}

#[test]
fn contexts_are_listed_chosen_and_forgotten_without_a_server() {
    let home = home();
    let file = home.path().join(".config/otactl/config.toml");
    fs::create_dir_all(file.parent().unwrap()).unwrap();
    let saved = "current = \"lab\"\n\
        [contexts.lab]\nserver = \"http://127.0.0.1:1\"\ntoken = \"ota_hush\"\n\
        [contexts.site]\nserver = \"http://127.0.0.1:2\"\ntoken = \"ota_hush\"\n";
    fs::write(&file, saved).unwrap();
    let (code, out, err) = run(otactl(home.path()).args(["context", "list"]));
    assert_eq!(code, 0);
    assert_eq!(
        out,
        "NAME   CURRENT   SERVER\nlab    yes       http://127.0.0.1:1\nsite   no        http://127.0.0.1:2\n"
    );
    assert!(err.contains("chmod 600"), "{err}");

    assert_eq!(run(otactl(home.path()).args(["context", "use", "site"])).0, 0);
    let (_, out, _) = run(otactl(home.path()).args(["context", "show", "-o", "json"]));
    let shown: serde_json::Value = serde_json::from_str(&out).unwrap();
    assert_eq!((&shown["name"], &shown["server"]), (&"site".into(), &"http://127.0.0.1:2".into()));
    assert!(!out.contains("hush"));

    assert_eq!(run(otactl(home.path()).arg("logout")).0, 0);
    assert_eq!(run(otactl(home.path()).args(["context", "show"])).0, 4);
    assert!(!fs::read_to_string(&file).unwrap().contains("site"));
}

#[test]
fn colours_are_for_terminals_unless_asked_for() {
    let home = home();
    let colored = |arguments: &[&str], variable: Option<(&str, &str)>| {
        let mut command = otactl(home.path());
        command.args(["status"]).args(arguments).envs(variable);
        run(&mut command).2.contains('\u{1b}')
    };
    assert!(!colored(&[], None));
    assert!(colored(&["--color", "always"], None));
    assert!(colored(&[], Some(("CLICOLOR_FORCE", "1"))));
    assert!(!colored(&["--color", "never"], Some(("CLICOLOR_FORCE", "1"))));
}
