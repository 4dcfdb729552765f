//! The cluster as a whole, with a real Postgres. A server that gets killed is played by this test binary itself.

use std::{env, fs, os::unix::fs::PermissionsExt as _, path::Path, process::Stdio, time::Duration};

use rustix::process::{Pid, Signal, kill_process};
use sqlx::{Connection as _, PgConnection};
use tempfile::TempDir;
use tokio::{
    io::{AsyncBufReadExt as _, BufReader},
    process::{Child, Command},
};

use super::{Cluster, Durability, StartError, pidfile, socket};

/// Tells the binary that it is the server of the folder.
const FOLDER: &str = "OTA_TEST_POSTGRES_FOLDER";

#[tokio::test]
async fn data_outlives_a_stop() {
    let home = home();
    let folder = home.path().join("postgres");
    let cluster = start(&folder).await;
    execute(&cluster, "CREATE TABLE kept (id int)").await;
    cluster.stop().await.unwrap();

    let cluster = start(&folder).await;
    execute(&cluster, "SELECT id FROM kept").await;
    cluster.stop().await.unwrap();
}

#[tokio::test]
async fn url_leads_to_the_database() {
    let home = home();
    let cluster = start(&home.path().join("with space, \"quotes\" and %")).await;
    let mut connection = PgConnection::connect(&cluster.url()).await.unwrap();
    let name: String = sqlx::query_scalar("SELECT current_database()::text").fetch_one(&mut connection).await.unwrap();
    assert_eq!(name, "ota");
    cluster.stop().await.unwrap();
}

#[tokio::test]
async fn killed_server_leaves_its_data_to_the_next_one() {
    let home = home();
    let folder = home.path().join("postgres");
    let mut server = serve(&folder);
    wait_ready(&mut server).await;
    let mut connection = PgConnection::connect(&url(&folder)).await.unwrap();
    sqlx::query("CREATE TABLE kept (id int)").execute(&mut connection).await.unwrap();
    server.kill().await.unwrap();

    // At once, so while the first Postgres is still shutting down.
    let cluster = start(&folder).await;
    execute(&cluster, "SELECT id FROM kept").await;
    cluster.stop().await.unwrap();
}

#[tokio::test]
async fn killed_server_takes_postgres_with_it() {
    let home = home();
    let folder = home.path().join("postgres");
    let mut server = serve(&folder);
    wait_ready(&mut server).await;
    let pidfile = folder.join("data/postmaster.pid");
    assert!(pidfile.exists());
    server.kill().await.unwrap();
    until(|| !pidfile.exists()).await;
}

#[tokio::test]
async fn killed_first_start_leaves_no_half_cluster() {
    let home = home();
    let folder = home.path().join("postgres");
    let mut server = serve(&folder);
    until(|| unfinished(&folder) > 0).await;
    server.kill().await.unwrap();
    assert!(!folder.join("data").exists());

    let cluster = start(&folder).await;
    execute(&cluster, "SELECT 1").await;
    cluster.stop().await.unwrap();
}

#[tokio::test]
async fn second_server_on_a_folder_is_refused() {
    let home = home();
    let folder = home.path().join("postgres");
    let cluster = start(&folder).await;
    let error = Cluster::start(&folder, Durability::None).await.unwrap_err();
    assert!(matches!(error, StartError::Locked { .. }), "{error}");
    let expected = format!("in use by another ota-server (process {})", std::process::id());
    assert!(error.to_string().contains(&expected), "{error}");
    execute(&cluster, "SELECT 1").await;
    cluster.stop().await.unwrap();
}

#[tokio::test]
async fn left_over_number_of_a_stranger_does_not_stop_the_start() {
    let home = home();
    let folder = home.path().join("postgres");
    start(&folder).await.stop().await.unwrap();
    let pid = std::process::id();
    fs::write(folder.join("data/postmaster.pid"), format!("{pid}\n{}\n1\n5432\n", folder.display())).unwrap();
    fs::write(folder.join("run/.s.PGSQL.5432.lock"), format!("{pid}\n")).unwrap();
    start(&folder).await.stop().await.unwrap();
}

#[tokio::test]
async fn folder_too_long_for_a_socket_works() {
    let home = home();
    let folder = home.path().join("long".repeat(30));
    let cluster = start(&folder).await;
    execute(&cluster, "SELECT 1").await;
    let sockets = cluster.connect_options().get_socket().unwrap().clone();
    assert!(sockets.starts_with("/tmp"), "{sockets:?}");
    cluster.stop().await.unwrap();
    fs::remove_dir_all(sockets).unwrap();
}

#[tokio::test]
async fn last_words_of_postgres_are_in_the_error() {
    let home = home();
    let settings = [("shared_buffers", "plenty")];
    let error = Cluster::start_with(&home.path().join("postgres"), Durability::None, &settings).await.unwrap_err();
    assert!(error.to_string().contains("shared_buffers"), "{error}");
}

#[tokio::test]
async fn death_of_postgres_is_noticed() {
    let home = home();
    let folder = home.path().join("postgres");
    let mut cluster = start(&folder).await;
    kill_process(postmaster(&folder), Signal::QUIT).unwrap();
    cluster.died().await.unwrap();
}

/// The server that other tests kill. Without a folder, as in a plain test run, there is nothing for it to do.
#[tokio::test]
async fn serve_until_killed() {
    let Some(folder) = env::var_os(FOLDER) else {
        return;
    };
    let _cluster = start(Path::new(&folder)).await;
    println!("\nready");
    std::future::pending::<()>().await;
}

/// A folder that the account lent by root may enter.
fn home() -> TempDir {
    let home = tempfile::tempdir_in("/tmp").unwrap();
    fs::set_permissions(home.path(), fs::Permissions::from_mode(0o755)).unwrap();
    home
}

async fn start(folder: &Path) -> Cluster {
    Cluster::start(folder, Durability::None).await.unwrap()
}

async fn execute(cluster: &Cluster, statement: &'static str) {
    let mut connection = PgConnection::connect_with(&cluster.connect_options()).await.unwrap();
    sqlx::query(statement).execute(&mut connection).await.unwrap();
}

fn serve(folder: &Path) -> Child {
    Command::new(env::current_exe().unwrap())
        .args(["--exact", "postgres::tests::serve_until_killed", "--nocapture"])
        .env(FOLDER, folder)
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap()
}

async fn wait_ready(server: &mut Child) {
    let mut lines = BufReader::new(server.stdout.take().unwrap()).lines();
    while let Some(line) = lines.next_line().await.unwrap() {
        if line == "ready" {
            return;
        }
    }
    panic!("the server ended");
}

fn url(folder: &Path) -> String {
    socket::url(&folder.join("run"), "ota", "ota")
}

fn postmaster(folder: &Path) -> Pid {
    pidfile::parse(&fs::read_to_string(folder.join("data/postmaster.pid")).unwrap()).unwrap().pid
}

fn unfinished(folder: &Path) -> usize {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries.filter(|entry| entry.file_name().to_string_lossy().starts_with("data.new")).count()
}

async fn until(condition: impl Fn() -> bool) {
    let mut looks = tokio::time::interval(Duration::from_millis(5));
    while !condition() {
        looks.tick().await;
    }
}
