//! `ota-server migrate` as Kubernetes runs it: several jobs at once, and now and then one is killed.

use std::process::Stdio;

use ota_e2e::{
    Binaries,
    binaries::run,
    database::{self, TestDatabase},
    eventually,
};
use ota_server::db::MIGRATOR;
use sqlx::{Connection as _, PgConnection};
use tokio::process::Command;

use crate::replicas::PATIENCE;

const JOBS: usize = 8;

/// The last migration before one that changes a table which is there already.
const BEFORE_IDENTITY: i64 = 20_261_121_000_005;

fn migrate(database: &TestDatabase) -> Command {
    let mut command = Command::new(&Binaries::get().server);
    command.arg("migrate").env("DATABASE_URL", database.url());
    command
}

/// Asserts that every migration was applied once and went well, and that the schema is what one run makes of it.
async fn assert_current(database: &TestDatabase) {
    let applied: Vec<(i64, bool)> = sqlx::query_as("SELECT version, success FROM _sqlx_migrations ORDER BY version")
        .fetch_all(database.pool())
        .await
        .unwrap();
    let expected: Vec<_> = MIGRATOR.iter().map(|migration| (migration.version, true)).collect();
    assert_eq!(applied, expected);
    assert_eq!(columns(database).await, columns(&database::fresh().await).await);
}

async fn columns(database: &TestDatabase) -> Vec<(String, String, String)> {
    let statement = "SELECT table_name::text, column_name::text, data_type::text FROM information_schema.columns
         WHERE table_schema = 'public' AND table_name <> '_sqlx_migrations' ORDER BY 1, 2";
    sqlx::query_as(statement).fetch_all(database.pool()).await.unwrap()
}

#[tokio::test]
async fn eight_jobs_at_once_migrate_once() {
    let database = database::empty().await;
    let jobs: Vec<_> = (0..JOBS).map(|_| async { run(&mut migrate(&database)).await }).collect();
    for output in futures_util::future::join_all(jobs).await {
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }
    assert_current(&database).await;
}

#[tokio::test]
async fn a_job_killed_in_the_middle_is_taken_over_by_the_next() {
    let database = database::empty().await;
    MIGRATOR.run_to(BEFORE_IDENTITY, database.pool()).await.unwrap();
    // The next migration changes this table: whoever looks at it holds the job up, in the middle for certain.
    let mut looking = PgConnection::connect_with(&database.connect_options()).await.unwrap();
    sqlx::raw_sql("BEGIN; LOCK TABLE device IN ACCESS SHARE MODE").execute(&mut looking).await.unwrap();
    let mut killed = migrate(&database).stderr(Stdio::null()).spawn().unwrap();
    waits(&database, "AccessExclusiveLock", "relation").await;
    let next = migrate(&database).stderr(Stdio::piped()).spawn().unwrap();
    waits(&database, "ExclusiveLock", "advisory").await;

    killed.kill().await.unwrap();
    sqlx::raw_sql("COMMIT").execute(&mut looking).await.unwrap();
    let output = next.wait_with_output().await.unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert_current(&database).await;
}

/// Waits until somebody waits for such a lock.
async fn waits(database: &TestDatabase, mode: &str, of: &str) {
    eventually(&format!("a job waits for an {mode}"), PATIENCE, async || {
        let waiting: i64 = sqlx::query_scalar(
            "SELECT count(*) FROM pg_locks
             JOIN pg_stat_activity USING (pid)
             WHERE datname = current_database() AND NOT granted AND mode = $1 AND locktype = $2",
        )
        .bind(mode)
        .bind(of)
        .fetch_one(database.pool())
        .await
        .unwrap();
        (waiting > 0).then_some(())
    })
    .await;
}
