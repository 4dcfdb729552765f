use std::process::Command;

use super::*;

/// Places where distributions put SoftHSM's module.
const MODULES: [&str; 5] = [
    "/usr/lib/softhsm/libsofthsm2.so",
    "/usr/lib/x86_64-linux-gnu/softhsm/libsofthsm2.so",
    "/usr/lib64/pkcs11/libsofthsm2.so",
    "/usr/lib/pkcs11/libsofthsm2.so",
    "/opt/homebrew/lib/softhsm/libsofthsm2.so",
];

/// Set for the run of this very program in which the module sees a configuration of its own.
const CHILD: &str = "OTACTL_TEST_SOFTHSM";

const PIN: &str = "4711";

/// Curves by their object identifiers, in DER.
const P256: [u8; 10] = [0x06, 0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07];
const ED25519: [u8; 14] = *b"\x13\x0cedwards25519";

#[test]
fn numbers_of_a_signature_are_written_without_needless_zeros() {
    let mut signature = [0; 64];
    signature[31] = 5;
    signature[32] = 0x80;
    let mut expected = vec![0x30, 3 + 35, 0x02, 1, 5, 0x02, 33, 0, 0x80];
    expected.extend([0; 31]);
    assert_eq!(asn1(&signature), Some(expected));
    assert_eq!(integer(&[0; 32]), [0x02, 1, 0]);
    assert_eq!(asn1(&[0; 63]), None);
}

#[test]
fn a_key_in_hardware_signs_what_its_public_key_verifies() {
    let Some(module) = MODULES.iter().find(|path| Path::new(path).exists()) else {
        eprintln!("NOT TESTED: keys behind PKCS#11. Install SoftHSM: scripts/setup.sh softhsm.");
        return;
    };
    if std::env::var_os(CHILD).is_some() {
        return in_the_token(Path::new(module));
    }
    // SoftHSM finds its configuration in the environment when it is loaded, and a process's environment must not change
    // while other tests run: so this test runs once more, alone and with that environment.
    let folder = tempfile::tempdir().unwrap();
    let tokens = folder.path().join("tokens");
    fs::create_dir(&tokens).unwrap();
    let conf = folder.path().join("softhsm2.conf");
    fs::write(&conf, format!("directories.tokendir = {}\nobjectstore.backend = file\n", tokens.display())).unwrap();
    let output = Command::new(std::env::current_exe().unwrap())
        .args([
            "--exact",
            "signing::pkcs11::tests::a_key_in_hardware_signs_what_its_public_key_verifies",
            "--nocapture",
        ])
        .env(CHILD, "1")
        .env("SOFTHSM2_CONF", &conf)
        .env(PIN_VARIABLE, PIN)
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && text.contains("1 passed"), "{text}");
}

fn in_the_token(module: &Path) {
    let context = load(module).unwrap();
    let slot = context.get_slots_with_token().unwrap()[0];
    context.init_token(slot, &AuthPin::new("0000".into()), "ota").unwrap();
    let slot = context.get_slots_with_initialized_token().unwrap()[0];
    let session = context.open_rw_session(slot).unwrap();
    session.login(UserType::So, Some(&AuthPin::new("0000".into()))).unwrap();
    session.init_pin(&AuthPin::new(PIN.into())).unwrap();
    session.logout().unwrap();
    session.login(UserType::User, Some(&AuthPin::new(PIN.into()))).unwrap();
    let keys: [(&str, u8, Mechanism, &[u8]); 2] =
        [("ecdsa", 1, Mechanism::EccKeyPairGen, &P256), ("eddsa", 2, Mechanism::EccEdwardsKeyPairGen, &ED25519)];
    for (label, id, mechanism, curve) in keys {
        let common = [Attribute::Token(true), Attribute::Label(label.into()), Attribute::Id(vec![id])];
        let public = [common.as_slice(), &[Attribute::EcParams(curve.to_vec()), Attribute::Verify(true)]].concat();
        let private = [common.as_slice(), &[Attribute::Sign(true), Attribute::Private(true)]].concat();
        session.generate_key_pair(&mechanism, &public, &private).unwrap();
    }
    session.logout().unwrap();
    drop(session);

    let uri = |rest: &str| -> Uri { format!("pkcs11:{rest}?module-path={}", module.display()).parse().unwrap() };
    let nobody = Asker::new(false);
    let mut ids = Vec::new();
    for rest in ["token=ota;object=ecdsa", "object=eddsa", "id=%01"] {
        let key = open(&uri(rest), nobody).unwrap();
        let signature = key.sign(b"message").unwrap();
        key.public_key().verify(b"message", &signature).unwrap();
        assert!(key.public_key().verify(b"another", &signature).is_err(), "{rest}");
        ids.push(key.public_key().id());
    }
    assert_eq!(ids[0], ids[2]);
    assert_ne!(ids[0], ids[1]);

    let failure = |rest: &str| open(&uri(rest), nobody).err().unwrap().to_string();
    assert!(failure("token=other;object=ecdsa").contains("there is \"ota\""));
    assert!(failure("token=ota;object=none").contains("no private key"));
    assert!(failure("token=ota").contains("2 private keys"));
}

#[test]
fn without_a_module_nothing_is_guessed() {
    if std::env::var_os(MODULE_VARIABLE).is_none() {
        let uri: Uri = "pkcs11:object=a".parse().unwrap();
        let failure = open(&uri, Asker::new(false)).err().unwrap();
        assert!(failure.to_string().contains("module-path"), "{failure}");
    }
    let uri: Uri = "pkcs11:object=a?module-path=/nowhere/module.so".parse().unwrap();
    let failure = open(&uri, Asker::new(false)).err().unwrap();
    assert!(failure.to_string().contains("/nowhere/module.so"), "{failure}");
}
