//! `ota-server` on the command line: what it takes, what it refuses, what it says.

use std::{fs, process::Stdio};

use ota_e2e::{
    Binaries, Operator, binaries::run, credential, database, eventually, process::ServerProcess, server::scrape,
};
use ota_proto::admin::v1::GetStatusRequest;
use rustix::process::{Pid, Signal, kill_process};
use tokio::{
    io::{AsyncBufReadExt as _, BufReader},
    net::TcpListener,
    process::Command,
};
use tonic_health::pb::{HealthCheckRequest, health_check_response::ServingStatus, health_client::HealthClient};

use crate::fleet::PATIENCE;

fn ota_server() -> Command {
    let mut command = Command::new(&Binaries::get().server);
    command.env_remove("DATABASE_URL").env_remove("OTA_DATA_DIR").env_remove("OTA_LISTEN");
    command
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[tokio::test]
async fn the_health_check_tells_a_server_that_is_ready_from_one_that_is_gone() {
    for flags in [["--no-tls"].as_slice(), &[]] {
        let mut server = if flags.is_empty() { ServerProcess::start().await } else { ServerProcess::plain().await };
        let address = server.address().to_string();
        let check = || async { run(ota_server().args(["healthcheck", "--listen", &address]).args(flags)).await };
        eventually("the server is ready", PATIENCE, async || check().await.status.success().then_some(())).await;
        server.terminate().await;
        let output = check().await;
        assert_eq!(output.status.code(), Some(1));
        assert!(text(&output.stderr).contains(&address), "{}", text(&output.stderr));
    }
}

#[tokio::test]
async fn plain_http_beyond_this_machine_has_to_be_insisted_on() {
    let folder = tempfile::tempdir().unwrap();
    for flag in ["--listen", "--admin-listen"] {
        let flags = ["--no-tls", flag, "0.0.0.0:0", "--data-dir"];
        let output = run(ota_server().args(flags).arg(folder.path())).await;
        assert_eq!(output.status.code(), Some(1));
        assert!(text(&output.stderr).contains("--insecure-listen"), "{}", text(&output.stderr));
    }
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0, "something was made before the refusal");
}

#[tokio::test]
async fn the_first_start_alone_makes_a_token_which_its_owner_alone_can_read() {
    use std::os::unix::fs::PermissionsExt as _;
    let mut server = ServerProcess::start().await;
    let file = server.admin_token_file();
    assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
    fs::remove_file(&file).unwrap();
    server.terminate().await;
    server.restart().await;
    assert!(!file.exists());

    // Who lost it and can reach the database gets another.
    server.terminate().await;
    let output = run(ota_server().args(["admin-token", "second", "--data-dir"]).arg(server.data_dir())).await;
    assert!(output.status.success(), "{}", text(&output.stderr));
    server.restart().await;
    let operator = Operator::new(&server.url(), text(&output.stdout).trim());
    operator.status().get_status(GetStatusRequest {}).await.unwrap();
}

#[tokio::test]
async fn migrating_twice_and_at_once_is_no_error() {
    let database = database::empty().await;
    let folder = tempfile::tempdir().unwrap();
    let migrate = || async {
        let mut command = ota_server();
        run(command.arg("migrate").args(["--database-url", &database.url(), "--data-dir"]).arg(folder.path())).await
    };
    for output in [migrate().await, migrate().await]
        .into_iter()
        .chain(futures_util::future::join_all([migrate(), migrate()]).await)
    {
        assert!(output.status.success(), "{}", text(&output.stderr));
    }
    let tables: i64 = sqlx::query_scalar("SELECT count(*) FROM pg_tables WHERE tablename = 'device'")
        .fetch_one(database.pool())
        .await
        .unwrap();
    assert_eq!(tables, 1);
}

#[tokio::test]
async fn a_data_directory_has_one_server() {
    let server = ServerProcess::start().await;
    let output = run(ota_server().args(["--listen", "127.0.0.1:0", "--data-dir"]).arg(server.data_dir())).await;
    assert_eq!(output.status.code(), Some(1));
    server.admin().status().get_status(GetStatusRequest {}).await.unwrap();
}

#[tokio::test]
async fn help_names_every_flag_and_its_variable() {
    let output = run(ota_server().arg("--help")).await;
    assert!(output.status.success());
    let help = text(&output.stdout);
    for (flag, variable) in [
        ("--database-url", "DATABASE_URL"),
        ("--data-dir", "OTA_DATA_DIR"),
        ("--listen", "OTA_LISTEN"),
        ("--insecure-listen", "OTA_INSECURE_LISTEN"),
        ("--blob-store", "OTA_BLOB_STORE"),
        ("--database-url-file", "OTA_DATABASE_URL_FILE"),
        ("--schema", "OTA_SCHEMA"),
        ("--admin-listen", "OTA_ADMIN_LISTEN"),
        ("--metrics-listen", "OTA_METRICS_LISTEN"),
        ("--stop-delay", "OTA_STOP_DELAY"),
    ] {
        assert!(help.contains(flag) && help.contains(variable), "{flag} or {variable} is not in\n{help}");
    }
}

#[tokio::test]
async fn the_supervisor_is_answered_before_the_database_answers_anything() {
    // Takes connections and says nothing.
    let database = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (folder, url) =
        (tempfile::tempdir().unwrap(), format!("postgres://ota@{}/ota", database.local_addr().unwrap()));
    let mut command = ota_server();
    command.args(["--listen", "127.0.0.1:0", "--metrics-listen", "127.0.0.1:0", "--database-url", &url, "--data-dir"]);
    let mut server = command.arg(folder.path()).stderr(Stdio::piped()).kill_on_drop(true).spawn().unwrap();
    let mut log = BufReader::new(server.stderr.take().unwrap()).lines();
    let operations = loop {
        let line = log.next_line().await.unwrap().expect("it runs");
        if let Some((_, url)) = line.split_once("metrics and health checks are at ") {
            break url.to_owned();
        }
    };
    let (_connection, _) = database.accept().await.unwrap();
    let mut health = HealthClient::new(credential::connect(&operations));
    for (service, status) in [("liveness", ServingStatus::Serving), ("readiness", ServingStatus::NotServing)] {
        let answer = health.check(HealthCheckRequest { service: service.to_owned() }).await.unwrap();
        assert_eq!(answer.into_inner().status(), status, "{service}");
    }
    let page = scrape(operations.strip_prefix("http://").unwrap().parse().unwrap()).await;
    assert!(page.contains("ota_db_up 0\n") && !page.contains("ota_devices{"), "{page}");
    let pid = Pid::from_raw(server.id().unwrap().try_into().unwrap()).unwrap();
    kill_process(pid, Signal::TERM).unwrap();
    assert!(server.wait().await.unwrap().success());
}

#[tokio::test]
async fn anybody_learns_whether_a_server_is_ready() {
    let mut server = ServerProcess::start().await;
    let url = server.url();
    let health = async |arguments: &[&str]| {
        let mut command = Command::new(&Binaries::get().otactl);
        // As in a container: no home, no contexts.
        command.env_clear().arg("health").args(arguments);
        let output = run(&mut command).await;
        (output.status.code(), text(&output.stdout), text(&output.stderr))
    };
    let ready = (Some(0), format!("{url} is ready\n"));
    let authority = server.authority_file();
    let authority = authority.to_str().unwrap();
    eventually("the server is ready", PATIENCE, async || {
        (health(&[&url, "--ca-file", authority]).await == (ready.0, ready.1.clone(), String::new())).then_some(())
    })
    .await;
    let (code, out, err) = health(&[&url]).await;
    assert_eq!((code, out), ready);
    assert!(err.contains("the certificate of") && err.contains("was not checked"), "{err}");
    let pin = format!("sha256:{}", "0".repeat(64));
    let (code, out, _) = health(&[&url, "--pin", &pin]).await;
    assert_eq!((code, out.as_str()), (Some(1), ""), "another server's pin is believed");

    server.terminate().await;
    let (code, out, err) = health(&[&url]).await;
    assert_eq!((code, out.as_str()), (Some(1), ""));
    assert!(err.contains("cannot reach"), "{err}");
    let (code, _, err) = health(&[]).await;
    assert_eq!(code, Some(2), "{err}");
}

#[tokio::test]
async fn a_server_that_is_not_ready_is_no_success() {
    let mut server = ServerProcess::start_with(&["--stop-delay", "1h"]).await;
    server.process().signal(Signal::TERM);
    let url = server.url();
    let output = eventually("the server is not ready", PATIENCE, async || {
        let output = run(Command::new(&Binaries::get().otactl).env_clear().args(["health", &url])).await;
        (!output.status.success()).then_some(output)
    })
    .await;
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stderr).contains("is not ready"), "{}", text(&output.stderr));
    server.terminate().await;
}
