//! SQLite, whose server is a file: one that was removed or is not a database is DOWN, though open connections still read it.

use std::{fs, path::Path};

use actix_web::web;
use health::HealthCheck;
use sqlx::{
    AnyPool, SqlitePool,
    any::install_default_drivers,
    sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions},
};
use tempfile::TempDir;

use crate::common::{
    eventually,
    responses::{MAX_AGE, assert_degraded, assert_down, assert_not_leaked, assert_recovers, assert_up},
    test_server::TestServer,
};

#[derive(HealthCheck)]
struct State {
    db: SqlitePool,
}

fn serve(db: SqlitePool) -> TestServer {
    let state = web::Data::new(State { db });
    TestServer::start(1, move |app| {
        app.app_data(state.clone()).service(health::scope().max_age(MAX_AGE));
    })
}

/// A database with a table in it.
async fn database(file: &Path, mode: SqliteJournalMode) -> SqlitePool {
    let options = SqliteConnectOptions::new().filename(file).create_if_missing(true).journal_mode(mode);
    let pool = SqlitePool::connect_with(options).await.unwrap();
    sqlx::raw_sql("CREATE TABLE notes (text TEXT); INSERT INTO notes VALUES ('one'); PRAGMA wal_checkpoint(TRUNCATE)")
        .execute(&pool)
        .await
        .unwrap();
    pool
}

const MODES: [SqliteJournalMode; 2] = [SqliteJournalMode::Delete, SqliteJournalMode::Wal];

fn folder() -> TempDir {
    tempfile::Builder::new().prefix("canarybase").tempdir().unwrap()
}

#[actix_web::test]
async fn a_file_that_was_removed_is_down_and_not_created_again() {
    for mode in MODES {
        let folder = folder();
        let file = folder.path().join("notes.db");
        let server = serve(database(&file, mode).await);
        assert_up(&server, "database", "db").await;

        fs::remove_file(&file).unwrap();
        tokio::time::sleep(MAX_AGE).await;
        let response = assert_down(&server, "database", "db", "unable to connect to sqlite").await;
        assert_not_leaked(&server, &response, &["No such file"]).await;
        assert!(!file.exists());
    }
}

#[actix_web::test]
async fn a_file_that_is_overwritten_is_down() {
    for mode in MODES {
        let folder = folder();
        let file = folder.path().join("notes.db");
        let server = serve(database(&file, mode).await);
        assert_up(&server, "database", "db").await;

        fs::write(&file, "not a database, whatever its length".repeat(1000)).unwrap();
        tokio::time::sleep(MAX_AGE).await;
        let response = assert_down(&server, "database", "db", "unexpected response from sqlite").await;
        assert_not_leaked(&server, &response, &["not a database"]).await;
    }
}

#[actix_web::test]
async fn a_missing_file_is_down_until_it_exists() {
    let folder = folder();
    let file = folder.path().join("notes.db");
    let server = serve(SqlitePool::connect_lazy(&format!("sqlite://{}", file.display())).unwrap());
    let response = assert_down(&server, "database", "db", "unable to connect to sqlite").await;
    assert_not_leaked(&server, &response, &["unable to open database file"]).await;
    database(&file, SqliteJournalMode::Delete).await;
    assert_recovers(&server, "database", "db").await;
}

#[actix_web::test]
async fn an_exhausted_pool_is_degraded() {
    let folder = folder();
    let pool = database(&folder.path().join("notes.db"), SqliteJournalMode::Wal).await;
    let server = serve(pool.clone());
    let mut held = Vec::new();
    for _ in 0..pool.options().get_max_connections() {
        held.push(pool.acquire().await.unwrap());
    }
    assert_degraded(&server, "database", "db", "connection pool exhausted (10 of 10 in use)").await;
    drop(held);
    assert_recovers(&server, "database", "db").await;
}

#[derive(HealthCheck)]
struct Any {
    db: AnyPool,
}

#[actix_web::test]
async fn databases_in_memory_on_unusual_paths_and_of_any_pools_are_up() {
    install_default_drivers();
    let folder = folder();
    let odd = folder.path().join("a 'b\" #100% ü?.db");
    assert_up(&serve(database(&odd, SqliteJournalMode::Wal).await), "database", "db").await;
    assert_up(&serve(SqlitePool::connect_lazy("sqlite::memory:").unwrap()), "database", "db").await;

    let file = folder.path().join("any db.sqlite");
    drop(database(&file, SqliteJournalMode::Delete).await);
    let url = format!("sqlite://{}", file.display().to_string().replace(' ', "%20"));
    let state = web::Data::new(Any { db: AnyPool::connect_lazy(&url).unwrap() });
    let server = TestServer::start(1, move |app| {
        app.app_data(state.clone()).service(health::scope().max_age(MAX_AGE));
    });
    assert_up(&server, "database", "db").await;
    fs::remove_file(&file).unwrap();
    tokio::time::sleep(MAX_AGE).await;
    assert_down(&server, "database", "db", "unable to connect to sqlite").await;
}

#[actix_web::test]
async fn names_of_databases_in_memory_are_not_treated_as_paths() {
    for name in [":memory:", "", "file:memory?mode=memory&cache=shared"] {
        let pool = SqlitePool::connect_lazy_with(SqliteConnectOptions::new().filename(name));
        assert_up(&serve(pool), "database", "db").await;
    }
    assert_up(&serve(SqlitePool::connect_lazy_with(SqliteConnectOptions::new())), "database", "db").await;
}

#[actix_web::test]
async fn a_database_that_a_writer_locks_is_busy_and_not_dead() {
    let folder = folder();
    let file = folder.path().join("notes.db");
    let pool = database(&file, SqliteJournalMode::Delete).await;
    let server = serve(pool.clone());
    assert_up(&server, "database", "db").await;
    let mut writer = pool.acquire().await.unwrap();
    sqlx::raw_sql("BEGIN EXCLUSIVE").execute(&mut *writer).await.unwrap();
    tokio::time::sleep(MAX_AGE).await;
    assert_degraded(&server, "database", "db", "sqlite is locked by a writer").await;
    sqlx::raw_sql("ROLLBACK").execute(&mut *writer).await.unwrap();
    assert_recovers(&server, "database", "db").await;
}

#[actix_web::test]
async fn a_closed_pool_is_down_also_while_all_its_connections_are_in_use() {
    let pool = SqlitePoolOptions::new().max_connections(1).connect_lazy("sqlite::memory:").unwrap();
    let held = pool.acquire().await.unwrap();
    drop(pool.close());
    let server = serve(pool);
    let response = assert_down(&server, "database", "db", "unexpected response from sqlite").await;
    assert_not_leaked(&server, &response, &["closed pool"]).await;
    drop(held);
}

#[actix_web::test]
async fn a_file_that_is_replaced_is_down_until_all_connections_have_the_new_one() {
    for mode in MODES {
        let folder = folder();
        let (file, restored) = (folder.path().join("notes.db"), folder.path().join("restored.db"));
        let pool = database(&file, mode).await;
        let server = serve(pool.clone());
        assert_up(&server, "database", "db").await;
        drop(database(&restored, mode).await);

        // As a restore does. The pool opens a further connection to the new file; the first one still uses the old file.
        fs::rename(&restored, &file).unwrap();
        tokio::time::sleep(MAX_AGE).await;
        let response = assert_down(&server, "database", "db", "unable to connect to sqlite").await;
        assert_not_leaked(&server, &response, &["replaced"]).await;
        // A task returns the connection of the run to the pool. Until then, `acquire` would open the new connection first.
        eventually("all are idle", || async { pool.num_idle() == pool.size() as usize }).await;
        let both = [pool.acquire().await.unwrap(), pool.acquire().await.unwrap()];
        tokio::time::sleep(MAX_AGE).await;
        let [first, second] = both;
        drop(second);
        tokio::time::sleep(MAX_AGE).await;
        assert_down(&server, "database", "db", "unable to connect to sqlite").await;

        first.close().await.unwrap();
        tokio::time::sleep(MAX_AGE).await;
        assert_recovers(&server, "database", "db").await;
    }
}

#[actix_web::test]
async fn a_file_that_was_moved_away_and_replaced_before_the_first_run_is_down() {
    let folder = folder();
    let (file, moved) = (folder.path().join("notes.db"), folder.path().join("moved.db"));
    let pool = database(&file, SqliteJournalMode::Delete).await;
    fs::rename(&file, &moved).unwrap();
    fs::copy(&moved, &file).unwrap();
    let server = serve(pool.clone());
    assert_down(&server, "database", "db", "unable to connect to sqlite").await;
    fs::rename(&moved, &file).unwrap();
    assert_recovers(&server, "database", "db").await;
}

/// The locks of this process on a file.
#[cfg(target_os = "linux")]
fn locks(file: &Path) -> Vec<String> {
    use std::os::unix::fs::MetadataExt as _;

    let (process, inode) = (format!(" {} ", std::process::id()), format!(":{} ", fs::metadata(file).unwrap().ino()));
    let locks = fs::read_to_string("/proc/locks").unwrap();
    locks.lines().filter(|line| line.contains(&process) && line.contains(&inode)).map(str::to_owned).collect()
}

/// A process that closes a file loses all locks that it has on it: <https://www.sqlite.org/howtocorrupt.html>, 2.2. Another process could
/// then write at the same time.
#[cfg(target_os = "linux")]
#[actix_web::test]
async fn a_run_keeps_the_locks_of_the_application_on_the_file() {
    for mode in MODES {
        let folder = folder();
        let file = folder.path().join("notes.db");
        let pool = database(&file, mode).await;
        let server = serve(pool.clone());
        assert_up(&server, "database", "db").await;
        let mut writer = pool.acquire().await.unwrap();
        sqlx::raw_sql("BEGIN; INSERT INTO notes VALUES ('two')").execute(&mut *writer).await.unwrap();
        let before = locks(&file);
        assert!(!before.is_empty());
        tokio::time::sleep(MAX_AGE).await;
        assert_up(&server, "database", "db").await;
        assert_eq!(locks(&file).len(), before.len(), "{mode:?}: {before:?}, then {:?}", locks(&file));
        sqlx::raw_sql("COMMIT").execute(&mut *writer).await.unwrap();
    }
}
