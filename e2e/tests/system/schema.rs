//! Who brings the schema up to date, and which servers go with one that others have changed.

#![expect(clippy::unwrap_used, reason = "a test ends at what it did not expect")]

use std::{
    process::{Output, Stdio},
    time::Duration,
};

use ota_e2e::{
    Binaries,
    binaries::run,
    database::{self, TestDatabase},
    process::ServerProcess,
};
use tokio::{
    io::{AsyncBufReadExt as _, BufReader},
    process::Command,
};

/// Notes a migration that only a newer server has.
async fn changed_by_a_newer_server(database: &TestDatabase, description: &str) {
    sqlx::query(
        "INSERT INTO _sqlx_migrations (version, description, success, checksum, execution_time)
         VALUES (99990101000000, $1, TRUE, '', 0)",
    )
    .bind(description)
    .execute(database.pool())
    .await
    .unwrap();
}

fn ota_server(database: &TestDatabase, folder: &tempfile::TempDir) -> Command {
    let mut command = Command::new(&Binaries::get().server);
    command.args(["--listen", "127.0.0.1:0", "--database-url", &database.url(), "--data-dir"]).arg(folder.path());
    command.kill_on_drop(true);
    command
}

/// Runs a server that has to refuse to start: one that starts would never end.
async fn refused(command: &mut Command) -> Output {
    let ended = tokio::time::timeout(Duration::from_secs(60), run(command.kill_on_drop(true))).await;
    ended.expect("it does not start")
}

#[tokio::test]
async fn a_server_that_waits_makes_no_schema_and_starts_when_there_is_one() {
    let (database, folder) = (database::empty().await, tempfile::tempdir().unwrap());
    let mut waiting = ota_server(&database, &folder);
    waiting.args(["--schema", "wait"]).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut waiting = waiting.spawn().unwrap();
    let mut log = BufReader::new(waiting.stderr.take().unwrap()).lines();
    while !log.next_line().await.unwrap().expect("it waits").contains("waiting for somebody") {}
    let tables: i64 = sqlx::query_scalar("SELECT count(*) FROM pg_tables WHERE schemaname = 'public'")
        .fetch_one(database.pool())
        .await
        .unwrap();
    assert_eq!(tables, 0);

    // As where one environment is for servers and for the job that migrates.
    let migrated = run(ota_server(&database, &folder).arg("migrate").env("OTA_SCHEMA", "wait")).await;
    assert!(migrated.status.success(), "{}", String::from_utf8_lossy(&migrated.stderr));
    let mut out = BufReader::new(waiting.stdout.take().unwrap()).lines();
    let address = out.next_line().await.unwrap().expect("it starts");
    assert!(address.starts_with("https://127.0.0.1:"), "{address}");
}

#[tokio::test]
async fn a_server_that_waits_stops_when_it_is_told_to() {
    let database = database::empty().await;
    let folder = tempfile::tempdir().unwrap();
    let mut waiting = ota_server(&database, &folder);
    let mut waiting = waiting.args(["--schema", "wait"]).stderr(Stdio::piped()).spawn().unwrap();
    let mut log = BufReader::new(waiting.stderr.take().unwrap()).lines();
    while !log.next_line().await.unwrap().expect("it waits").contains("waiting for somebody") {}
    let pid = rustix::process::Pid::from_raw(waiting.id().unwrap().try_into().unwrap()).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
    assert!(waiting.wait().await.unwrap().success());
}

#[tokio::test]
async fn nobody_waits_for_the_schema_of_a_private_postgres() {
    let folder = tempfile::tempdir().unwrap();
    let mut command = Command::new(&Binaries::get().server);
    command.env_remove("DATABASE_URL").args(["--schema", "wait", "--data-dir"]).arg(folder.path());
    let output = refused(&mut command).await;
    assert_eq!(output.status.code(), Some(1));
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(said.contains("--schema wait") && said.contains("--database-url"), "{said}");
}

#[tokio::test]
async fn an_older_server_starts_on_a_schema_to_which_a_newer_one_added() {
    for schema in ["migrate", "wait"] {
        let database = database::fresh().await;
        changed_by_a_newer_server(&database, "add a table").await;
        let server = ServerProcess::start_with(&["--database-url", &database.url(), "--schema", schema]).await;
        server.admin().enroll().await;
    }
}

#[tokio::test]
async fn an_older_server_refuses_a_schema_from_which_a_newer_one_took() {
    for schema in ["migrate", "wait"] {
        let (database, folder) = (database::fresh().await, tempfile::tempdir().unwrap());
        changed_by_a_newer_server(&database, "contract drop a table").await;
        let output = refused(ota_server(&database, &folder).args(["--schema", schema])).await;
        assert_eq!(output.status.code(), Some(1));
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(said.contains("99990101000000") && said.contains("contract drop a table"), "{said}");
        assert!(said.contains("hint:"), "{said}");
    }
}
