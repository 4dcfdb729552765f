//! `otactl login --oidc`: somebody opens a page and types a code, and is who the identity provider says.

use std::process::Stdio;

use chrono::Utc;
use ota_e2e::{
    Binaries, Issuer,
    binaries::{run, succeed},
    eventually,
    issuer::{IssuerKey, KeyKind},
    process::ServerProcess,
};
use serde_json::{Value, json};
use tokio::process::Command;

use crate::fleet::PATIENCE;

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn claims(issuer: &Issuer, group: &str, seconds: i64) -> Value {
    let now = Utc::now().timestamp();
    json!({
        "iss": issuer.url(), "aud": "otactl", "sub": "ada-1", "name": "Ada", "groups": [group],
        "iat": now, "nbf": now, "exp": now + seconds,
    })
}

/// `otactl`, as somebody with a configuration of their own and no token.
fn otactl(server: &ServerProcess) -> Command {
    let mut command = Command::new(&Binaries::get().otactl);
    command.env("OTACTL_CONFIG", server.scratch().join("person/config.toml")).env_remove("OTACTL_TOKEN");
    command.arg("--no-input").kill_on_drop(true);
    command
}

/// Logs in while `decide` is done at the provider's page. Returns the exit code and what the person was told.
async fn log_in(server: &ServerProcess, issuer: &Issuer, decide: impl FnOnce()) -> (Option<i32>, String) {
    issuer.forget();
    let mut command = otactl(server);
    command.args(["login", &server.url(), "--oidc", "--ca-file"]).arg(server.authority_file());
    let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("otactl starts");
    eventually("otactl waits", PATIENCE, async || (issuer.polls() > 0).then_some(())).await;
    decide();
    let output = child.wait_with_output().await.expect("otactl ends");
    (output.status.code(), text(&output.stderr))
}

#[tokio::test]
async fn somebody_who_types_the_code_is_who_the_provider_says() {
    let issuer = Issuer::start(vec![IssuerKey::generate("k1", KeyKind::Es256)]).await;
    let url = issuer.url();
    let flags = ["--oidc-issuer", &url, "--oidc-client-id", "otactl", "--oidc-role", "fleet-admins=admin"];
    let server = ServerProcess::start_with(&[&flags[..], &["--oidc-role", "readers=viewer"]].concat()).await;

    let (code, words) = log_in(&server, &issuer, || issuer.deny()).await;
    assert_eq!(code, Some(4), "{words}");
    assert!(words.contains("denied"), "{words}");
    // Somebody to whom the server gives no role.
    let (code, words) = log_in(&server, &issuer, || issuer.approve(claims(&issuer, "strangers", 600))).await;
    assert_ne!(code, Some(0), "{words}");
    let output = run(otactl(&server).arg("status")).await;
    assert_ne!(output.status.code(), Some(0), "a login that failed is kept");

    // Good for less than what a command may take: renewed before the next one.
    let (code, words) = log_in(&server, &issuer, || issuer.approve(claims(&issuer, "fleet-admins", 30))).await;
    assert_eq!(code, Some(0), "{words}");
    for part in ["WDJB-MJHT", "/page", "Ada (admin"] {
        assert!(words.contains(part), "{part} is not in {words}");
    }
    issuer.approve(claims(&issuer, "fleet-admins", 600));
    succeed(otactl(&server).args(["package", "create", "gateway-fw"])).await;
    succeed(otactl(&server).arg("status")).await;
    assert_eq!(issuer.renewals(), 1);
    let events = text(&succeed(otactl(&server).args(["event", "list", "-o", "json"])).await.stdout);
    assert!(events.contains("ada-1") || events.contains("Ada"), "{events}");

    // What they do is sealed, and whoever keeps the last seal sees that nothing was changed.
    let seal = server.scratch().join("person/last.seal");
    let verify = async || run(otactl(&server).args(["event", "verify", "-o", "json", "--from"]).arg(&seal)).await;
    let sealed = eventually("the events are sealed", PATIENCE, async || {
        let output = verify().await;
        assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
        let shown: Value = serde_json::from_slice(&output.stdout).expect("otactl writes JSON");
        (shown["seals"].as_u64()? > 0).then_some(shown)
    });
    assert!(sealed.await["records"].as_u64().is_some_and(|records| records > 0));
    // Of another server, or of one that was rewritten.
    std::fs::write(&seal, text(&std::fs::read(&seal).expect("the seal is kept")).replace(['a', 'b', 'c'], "d"))
        .expect("a file in the scratch folder");
    assert_eq!(verify().await.status.code(), Some(1));
}

#[tokio::test]
async fn a_server_without_a_provider_says_so() {
    let server = ServerProcess::start().await;
    let mut command = otactl(&server);
    let output = run(command.args(["login", &server.url(), "--oidc", "--ca-file"]).arg(server.authority_file())).await;
    assert_ne!(output.status.code(), Some(0));
    let words = text(&output.stderr);
    assert!(words.contains("hint:") && !words.contains("panicked"), "{words}");
}
