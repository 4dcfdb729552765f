//! Every migration runs on tables that hold data, and on those it leaves behind the next one does.
//!
//! Beside each migration lies a file of the same name in `tests/data/migrations`, with rows for what the migration made
//! or changed. What fails only on non-empty tables, such as `ADD COLUMN … NOT NULL` without a default, fails here.

#![expect(clippy::unwrap_used, reason = "a test ends at what it did not expect")]

use std::path::{Path, PathBuf};

use ota_e2e::database;
use ota_server::db::MIGRATOR;
use sqlx::{AssertSqlSafe, PgConnection, PgPool};

fn data_files() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/migrations")
}

/// Runs several statements as one transaction, as the migrator does.
async fn run(connection: &mut PgConnection, sql: String) -> sqlx::Result<()> {
    // Both kinds of files are part of this repository.
    let sql = AssertSqlSafe(format!("BEGIN;\n{sql}\n;COMMIT;"));
    sqlx::raw_sql(sql).execute(connection).await.map(|_| ())
}

async fn empty_tables(pool: &PgPool) -> Vec<String> {
    let statement = "SELECT tablename::text FROM pg_tables WHERE schemaname = 'public' ORDER BY tablename";
    let tables: Vec<String> = sqlx::query_scalar(statement).fetch_all(pool).await.unwrap();
    let mut empty = Vec::new();
    for table in tables {
        let statement = AssertSqlSafe(format!("SELECT EXISTS (SELECT FROM {table})"));
        if !sqlx::query_scalar::<_, bool>(statement).fetch_one(pool).await.unwrap() {
            empty.push(table);
        }
    }
    empty
}

#[tokio::test]
async fn every_migration_applies_to_non_empty_tables() {
    let database = database::empty().await;
    let mut connection = database.pool().acquire().await.unwrap();
    for migration in MIGRATOR.iter() {
        let name = format!("{}_{}.sql", migration.version, migration.description.replace(' ', "_"));
        let migrated = run(&mut connection, migration.sql.as_str().to_owned()).await;
        migrated.unwrap_or_else(|error| panic!("the migration {name}: {error}"));
        let file = data_files().join(&name);
        let data = std::fs::read_to_string(&file).unwrap_or_else(|error| {
            panic!("the migration {name} lacks its rows for the next one, {}: {error}", file.display())
        });
        run(&mut connection, data).await.unwrap_or_else(|error| panic!("the rows of {name}: {error}"));
        assert_eq!(empty_tables(database.pool()).await, [""; 0], "give these rows too in {}", file.display());
    }
}

#[test]
fn every_file_of_rows_has_its_migration() {
    let migrations: Vec<_> =
        MIGRATOR.iter().map(|one| format!("{}_{}.sql", one.version, one.description.replace(' ', "_"))).collect();
    for file in std::fs::read_dir(data_files()).unwrap() {
        let name = file.unwrap().file_name().into_string().unwrap();
        assert!(migrations.contains(&name), "{name} has no migration");
    }
}

#[tokio::test]
async fn a_column_that_old_rows_cannot_fill_is_noticed() {
    let database = database::empty().await;
    let mut connection = database.pool().acquire().await.unwrap();
    run(&mut connection, "CREATE TABLE made (id INT); INSERT INTO made VALUES (1)".to_owned()).await.unwrap();
    let error = run(&mut connection, "ALTER TABLE made ADD COLUMN added INT NOT NULL".to_owned()).await.unwrap_err();
    assert_eq!(error.as_database_error().unwrap().code().unwrap(), "23502", "{error}");
}
