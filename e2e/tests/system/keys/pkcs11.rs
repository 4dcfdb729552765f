//! A key that never leaves its token signs releases: SoftHSM in the place of hardware.

use std::{fs, path::Path};

use ota_e2e::binaries::{run, succeed};
use rcgen::{KeyPair, PKCS_ECDSA_P256_SHA256};
use tokio::process::Command;

use super::{Scene, path, tells, text};
use crate::fleet;

/// Places where distributions put SoftHSM's module.
const MODULES: [&str; 4] = [
    "/usr/lib/softhsm/libsofthsm2.so",
    "/usr/lib/x86_64-linux-gnu/softhsm/libsofthsm2.so",
    "/usr/lib64/pkcs11/libsofthsm2.so",
    "/usr/lib/pkcs11/libsofthsm2.so",
];

const PIN: &str = "4711";

#[tokio::test]
async fn a_key_in_a_token_signs_what_devices_install() {
    let Some(module) = MODULES.iter().find(|path| Path::new(path).exists()) else {
        assert!(std::env::var("CI").as_deref() != Ok("true"), "SoftHSM is missing: scripts/setup.sh softhsm");
        eprintln!("NOT TESTED: a key in a token signs. Install SoftHSM: scripts/setup.sh softhsm.");
        return;
    };
    let scene = Scene::start().await;
    let scratch = scene.server.scratch();
    let (tokens, conf, pem) = (scratch.join("tokens"), scratch.join("softhsm2.conf"), scratch.join("token-key.pem"));
    fs::create_dir(&tokens).unwrap();
    fs::write(&conf, format!("directories.tokendir = {}\nobjectstore.backend = file\n", tokens.display())).unwrap();
    fs::write(&pem, KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).unwrap().serialize_pem()).unwrap();
    let softhsm = async |arguments: &[&str]| {
        succeed(Command::new("softhsm2-util").env("SOFTHSM2_CONF", &conf).args(arguments)).await;
    };
    softhsm(&["--init-token", "--free", "--label", "ota", "--so-pin", "0000", "--pin", PIN]).await;
    let import = ["--import", path(&pem), "--token", "ota", "--label", "targets", "--id", "01", "--pin", PIN];
    softhsm(&import).await;
    fs::remove_file(&pem).unwrap();

    let upload = |uri: &str, pin: Option<&str>, version: &str| {
        let mut command = scene.command(&["upload"]);
        command.arg(scene.release(version)).args(["--package", "app", "--version", version]);
        command.args(["--targets-key", uri]).env("SOFTHSM2_CONF", &conf).env_remove("OTACTL_PKCS11_PIN");
        if let Some(pin) = pin {
            command.env("OTACTL_PKCS11_PIN", pin);
        }
        command
    };
    let uri = format!("pkcs11:token=ota;object=targets?module-path={module}");
    let refused = async |uri: &str, pin: Option<&str>| {
        let output = run(&mut upload(uri, pin, "1.0.0")).await;
        assert_ne!(output.status.code(), Some(0));
        text(&output.stderr)
    };
    tells(&refused(&uri, None).await, &["OTACTL_PKCS11_PIN"]);
    refused(&uri, Some("0815")).await;
    tells(&refused(&uri.replace("=targets", "=other"), Some(PIN)).await, &["no private key"]);
    tells(&refused(&format!("{uri}&pin-value=1"), Some(PIN)).await, &["pin-source"]);

    succeed(&mut upload(&uri, Some(PIN), "1.0.0")).await;
    fleet::assign(&scene.server, "1.0.0", &scene.agent.name()).await;
    scene.checks_in().await;
    scene.runs("1.0.0");
}
