//! `Arc<Mutex<rusqlite::Connection>>` and `r2d2::Pool<SqliteConnectionManager>`.

use std::{
    fs,
    path::Path,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use ::rusqlite::{Connection, Error};
use health::{Probe, ProbeError, ProbeErrorKind};
use r2d2::Pool;
use r2d2_sqlite::SqliteConnectionManager;

use crate::{
    acceptance::{serve, values},
    common::responses::{MAX_AGE, assert_degraded, assert_down, assert_not_leaked, assert_recovers, assert_up},
};

fn shared(file: &Path) -> Arc<Mutex<Connection>> {
    Arc::new(Mutex::new(Connection::open(file).unwrap()))
}

fn pool(file: &Path) -> Pool<SqliteConnectionManager> {
    Pool::builder().max_size(2).build_unchecked(SqliteConnectionManager::file(file))
}

fn busy_timeout_ms(connection: &Connection) -> u32 {
    connection.query_row("PRAGMA busy_timeout", [], |row| row.get(0)).unwrap()
}

fn insert_a_note(connection: &Connection) -> Result<usize, Error> {
    connection.execute("INSERT INTO notes VALUES ('a')", [])
}

/// A database with a table, and a connection that does not wait for others.
fn database(file: &Path) -> Connection {
    let connection = Connection::open(file).unwrap();
    connection.busy_timeout(Duration::ZERO).unwrap();
    connection.execute_batch("CREATE TABLE notes (text TEXT)").unwrap();
    connection
}

#[actix_web::test]
async fn a_shared_connection_is_up_and_while_its_mutex_is_locked_it_is_degraded() {
    let folder = tempfile::tempdir().unwrap();
    let connection = shared(&folder.path().join("canary.db"));
    let rig = serve(Arc::clone(&connection));
    assert_up(&rig, "database", "resource").await;
    let (lock, is_locked) = std::sync::mpsc::channel();
    let (unlock, is_unlocked) = std::sync::mpsc::channel::<()>();
    let holder = std::thread::spawn(move || {
        let _locked = connection.lock().unwrap();
        lock.send(()).unwrap();
        is_unlocked.recv().unwrap();
    });
    is_locked.recv().unwrap();
    tokio::time::sleep(MAX_AGE).await;
    for _ in 0..2 {
        assert_degraded(&rig, "database", "resource", "connection pool exhausted (1 of 1 in use)").await;
        tokio::time::sleep(MAX_AGE).await;
    }
    unlock.send(()).unwrap();
    holder.join().unwrap();
    assert_recovers(&rig, "database", "resource").await;
}

#[actix_web::test]
async fn a_poisoned_mutex_is_down() {
    let folder = tempfile::tempdir().unwrap();
    let connection = shared(&folder.path().join("canary.db"));
    let rig = serve(Arc::clone(&connection));
    std::thread::spawn(move || {
        let _locked = connection.lock().unwrap();
        panic!("while it is locked");
    })
    .join()
    .unwrap_err();
    assert_down(&rig, "database", "resource", "the mutex of the connection is poisoned").await;
}

async fn is_degraded_while_a_writer_locks_it<R: Probe + Clone>(file: &Path, resource: R) {
    let rig = serve(resource);
    assert_up(&rig, "database", "resource").await;
    let writer = Connection::open(file).unwrap();
    writer.execute_batch("BEGIN EXCLUSIVE").unwrap();
    tokio::time::sleep(MAX_AGE).await;
    let response = assert_degraded(&rig, "database", "resource", "sqlite is locked by a writer").await;
    assert_not_leaked(&rig, &response, &["database is locked"]).await;
    writer.execute_batch("ROLLBACK").unwrap();
    assert_recovers(&rig, "database", "resource").await;
}

#[actix_web::test]
async fn a_locked_database_is_degraded() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("canary.db");
    is_degraded_while_a_writer_locks_it(&file, shared(&file)).await;
    is_degraded_while_a_writer_locks_it(&file, pool(&file)).await;
}

#[actix_web::test]
async fn a_run_holds_the_mutex_of_a_locked_database_briefly_and_does_not_change_its_busy_timeout() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("canary.db");
    let writer = database(&file);
    writer.execute_batch("BEGIN EXCLUSIVE").unwrap();
    let connection = shared(&file);
    // The first is the default of rusqlite.
    for busy_timeout in [5000, 101, 100, 20, 0] {
        connection.lock().unwrap().busy_timeout(Duration::from_millis(busy_timeout.into())).unwrap();
        let started = Instant::now();
        let error = connection.probe().await.unwrap_err();
        let after = busy_timeout_ms(&connection.lock().unwrap());
        assert_eq!((error.kind(), after), (ProbeErrorKind::Saturated, busy_timeout));
        assert!(started.elapsed() < Duration::from_secs(1), "{:?}", started.elapsed());
    }
    let pool = pool(&file);
    assert_eq!(pool.probe().await.unwrap_err().kind(), ProbeErrorKind::Saturated);
    for connection in [pool.get().unwrap(), pool.get().unwrap()] {
        assert_eq!(busy_timeout_ms(&connection), 5000);
    }
    // After a success, too.
    writer.execute_batch("ROLLBACK").unwrap();
    connection.lock().unwrap().busy_timeout(Duration::from_secs(5)).unwrap();
    connection.probe().await.unwrap();
    assert_eq!(busy_timeout_ms(&connection.lock().unwrap()), 5000);
}

#[actix_web::test]
async fn a_run_keeps_a_busy_handler_of_the_application() {
    static CALLS: AtomicUsize = AtomicUsize::new(0);

    fn count(_: i32) -> bool {
        CALLS.fetch_add(1, Ordering::SeqCst);
        false
    }

    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("canary.db");
    let writer = database(&file);
    writer.execute_batch("BEGIN EXCLUSIVE").unwrap();
    let connection = shared(&file);
    connection.lock().unwrap().busy_handler(Some(count)).unwrap();
    connection.probe().await.unwrap_err();
    let calls = CALLS.load(Ordering::SeqCst);
    insert_a_note(&connection.lock().unwrap()).unwrap_err();
    assert!(calls > 0 && CALLS.load(Ordering::SeqCst) > calls, "{calls}, {CALLS:?}");
}

#[actix_web::test]
async fn a_run_in_a_transaction_of_the_application_takes_no_lock_that_keeps_others_from_writing() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("canary.db");
    let other = database(&file);
    let connection = shared(&file);
    connection.lock().unwrap().execute_batch("BEGIN").unwrap();
    connection.probe().await.unwrap();
    insert_a_note(&other).unwrap();
    connection.lock().unwrap().execute_batch("COMMIT").unwrap();
    connection.probe().await.unwrap();
}

#[actix_web::test]
async fn a_file_that_is_no_database_is_down() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("other");
    fs::write(&file, [b'x'; 4096]).unwrap();
    let connection = serve(Arc::new(Mutex::new(Connection::open(&file).unwrap())));
    let response = assert_down(&connection, "database", "resource", "unexpected response from sqlite").await;
    assert_not_leaked(&connection, &response, &["file is not a database"]).await;
}

#[actix_web::test]
async fn a_pool_is_degraded_while_all_connections_are_in_use_and_down_if_it_cannot_open_one() {
    let folder = tempfile::tempdir().unwrap();
    let pool_of_file = pool(&folder.path().join("canary.db"));
    let rig = serve(pool_of_file.clone());
    assert_up(&rig, "database", "resource").await;
    let held = [pool_of_file.get().unwrap(), pool_of_file.get().unwrap()];
    tokio::time::sleep(MAX_AGE).await;
    assert_degraded(&rig, "database", "resource", "connection pool exhausted (2 of 2 in use)").await;
    assert_eq!(values(&rig, "database", "resource").await["connections_in_use"], 2);
    drop(held);
    assert_recovers(&rig, "database", "resource").await;

    let rig = serve(pool(&folder.path().join("nowhere/canary.db")));
    let response = assert_down(&rig, "database", "resource", "unable to connect to sqlite").await;
    assert_not_leaked(&rig, &response, &["unable to open database file"]).await;
}

#[actix_web::test]
async fn the_class_of_an_error_survives_a_check_of_the_users() {
    let missing = Connection::open("/nowhere/canary.db").unwrap_err();
    assert_eq!(ProbeError::from(missing).kind(), ProbeErrorKind::Unreachable);
    let syntax = Connection::open_in_memory().unwrap().execute_batch("SELEKT").unwrap_err();
    let syntax = anyhow::Error::from(syntax).context("while a note is stored");
    assert_eq!(ProbeError::from_error(syntax).kind(), ProbeErrorKind::Failed);
}
