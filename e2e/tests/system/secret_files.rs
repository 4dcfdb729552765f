//! Secrets that orchestrators leave in files: the database's address and password, the object store's key, the first
//! admin's token.

#![expect(clippy::unwrap_used, reason = "a test ends at what it did not expect")]

use std::{fs, path::Path};

use futures_util::future::join_all;
use ota_e2e::{
    Binaries, Operator,
    binaries::run,
    database::{self, TestDatabase},
    process::ServerProcess,
};
use ota_proto::admin::v1::{GetStatusRequest, ListApiTokensRequest};
use tokio::process::Command;

/// As a Helm template writes it: a random UUID, and 43 digits of which the first makes 32 bytes of them.
const TOKEN: &str = "ota_5f0c1b0e2d3c4f5e8a9b0c1d2e3f4a5b_zAbCdEfGhJkMnPqRsTuVwXyZ123456789aBcDeFgHjK";

fn file(folder: &Path, name: &str, content: &str) -> String {
    let path = folder.join(name);
    fs::write(&path, content).unwrap();
    path.to_str().unwrap().to_owned()
}

/// What the program says that does not start, and its exit code.
async fn refusal(arguments: &[&str], variables: &[(&str, &str)]) -> (Option<i32>, String) {
    let folder = tempfile::tempdir().unwrap();
    let mut command = Command::new(&Binaries::get().server);
    command.env_remove("DATABASE_URL").args(["--listen", "127.0.0.1:0", "--data-dir"]).arg(folder.path());
    let output = run(command.args(arguments).envs(variables.iter().copied())).await;
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0, "something was made before the refusal");
    (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
}

async fn works(server: &ServerProcess, token: &str) {
    Operator::new(&server.url(), token).status().get_status(GetStatusRequest {}).await.unwrap();
}

/// The names of all tokens there are.
async fn tokens(server: &ServerProcess, token: &str) -> Vec<String> {
    let admin = Operator::new(&server.url(), token);
    let listed = admin.access().list_api_tokens(ListApiTokensRequest::default()).await.unwrap().into_inner();
    listed.api_tokens.into_iter().map(|token| token.display_name).collect()
}

#[tokio::test]
async fn the_database_and_the_first_token_come_from_files() {
    let (database, folder) = (database::empty().await, tempfile::tempdir().unwrap());
    let url = file(folder.path(), "url", &format!("{}\n", database.url()));
    let token = file(folder.path(), "token", &format!("{TOKEN}\n"));
    let server = ServerProcess::start_with(&["--database-url-file", &url, "--admin-token-file", &token]).await;
    works(&server, TOKEN).await;
    assert!(!server.admin_token_file().exists(), "a token was left that nobody asked for");
    assert!(!server.data_dir().join("postgres").exists(), "a private Postgres was made");
}

#[tokio::test]
async fn of_several_servers_one_makes_the_first_admin_and_all_go_on() {
    let (database, folder) = (database::fresh().await, tempfile::tempdir().unwrap());
    let token = file(folder.path(), "token", TOKEN);
    let key = folder.path().join("key").to_str().unwrap().to_owned();
    let url = database.url();
    let arguments = ["--database-url", &url, "--admin-token-file", &token, "--key-file", &key];
    let servers = join_all([(); 3].map(|()| ServerProcess::start_with(&arguments))).await;
    for server in &servers {
        assert_eq!(tokens(server, TOKEN).await, ["first admin"]);
    }
}

#[tokio::test]
async fn where_there_is_a_token_the_file_is_not_read() {
    let (database, folder) = (database::fresh().await, tempfile::tempdir().unwrap());
    let token = file(folder.path(), "token", TOKEN);
    let url = database.url();
    let mut server = ServerProcess::start_with(&["--database-url", &url, "--admin-token-file", &token]).await;
    server.terminate().await;
    fs::write(&token, "ota_nonsense").unwrap();
    server.restart().await;
    assert_eq!(tokens(&server, TOKEN).await, ["first admin"]);
}

#[tokio::test]
async fn what_is_no_token_is_refused_with_its_form_and_nothing_is_made() {
    let (database, folder) = (database::fresh().await, tempfile::tempdir().unwrap());
    let token = file(folder.path(), "token", "password1");
    let (code, said) = refused_on(&database, &["--admin-token-file", &token]).await;
    assert_eq!(code, Some(1));
    assert!(said.contains("--admin-token-file") && said.contains("hint: write ota_<32"), "{said}");
    assert!(!said.contains("password1"), "{said}");
    let made: i64 = sqlx::query_scalar("SELECT count(*) FROM api_token").fetch_one(database.pool()).await.unwrap();
    assert_eq!(made, 0);
}

async fn refused_on(database: &TestDatabase, arguments: &[&str]) -> (Option<i32>, String) {
    let folder = tempfile::tempdir().unwrap();
    let mut command = Command::new(&Binaries::get().server);
    command.args(["--listen", "127.0.0.1:0", "--database-url", &database.url(), "--data-dir"]).arg(folder.path());
    let output = run(command.args(arguments)).await;
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0, "something was made before the refusal");
    (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
}

#[tokio::test]
async fn a_secret_that_is_missing_or_empty_is_named_with_its_flag() {
    let folder = tempfile::tempdir().unwrap();
    let empty = file(folder.path(), "empty", "\n");
    for path in [empty.as_str(), "/nonexistent/secret"] {
        let url = "postgres://ota@127.0.0.1:1/ota";
        for (flag, other) in
            [("--database-url-file", [].as_slice()), ("--database-password-file", &["--database-url", url])]
        {
            let (code, said) = refusal(&[&[flag, path], other].concat(), &[]).await;
            assert_eq!(code, Some(1));
            assert!(said.contains(flag) && said.contains(path), "{said}");
        }
    }
}

#[tokio::test]
async fn a_secret_is_not_given_twice() {
    let folder = tempfile::tempdir().unwrap();
    let secret = file(folder.path(), "secret", "x");
    let url = "postgres://ota:y@127.0.0.1:1/ota";
    // Flags and variables alike.
    let both = ["--database-url", url, "--database-url-file", &secret];
    let variables = [("DATABASE_URL", url), ("OTA_DATABASE_URL_FILE", secret.as_str())];
    for (arguments, variables) in [(both.as_slice(), [].as_slice()), (&[], &variables), (&["migrate"], &variables)] {
        let (code, said) = refusal(arguments, variables).await;
        assert_eq!(code, Some(2), "{said}");
        assert!(said.contains("--database-url-file"), "{said}");
    }
    let (code, said) = refusal(&["--s3-access-key-id-file", &secret], &[]).await;
    assert_eq!(code, Some(2), "{said}");
    let (code, said) = refusal(&["--database-url", url, "--database-password-file", &secret], &[]).await;
    assert_eq!(code, Some(1));
    assert!(said.contains("--database-password-file"), "{said}");
}

#[tokio::test]
async fn an_empty_variable_says_nothing() {
    let (database, folder) = (database::fresh().await, tempfile::tempdir().unwrap());
    let url = file(folder.path(), "url", &database.url());
    let mut command = Command::new(&Binaries::get().server);
    command.env("DATABASE_URL", "").env("OTA_TLS_CERT", "").env("OTA_DATABASE_URL_FILE", url);
    let output = run(command.args(["migrate", "--data-dir"]).arg(folder.path())).await;
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

#[tokio::test]
async fn the_authority_is_printed_without_the_server() {
    let database = database::fresh().await;
    let url = database.url();
    let authority = async || {
        let folder = tempfile::tempdir().unwrap();
        let mut command = Command::new(&Binaries::get().server);
        run(command.args(["authority", "--database-url", &url, "--data-dir"]).arg(folder.path())).await
    };
    let output = authority().await;
    assert_eq!(output.status.code(), Some(1), "no server has started yet");
    let server = ServerProcess::start_with(&["--database-url", &url]).await;
    let output = authority().await;
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(output.stdout, fs::read(server.authority_file()).unwrap());
}
