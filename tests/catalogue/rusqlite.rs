//! `Arc<Mutex<rusqlite::Connection>>` and `r2d2::Pool<SqliteConnectionManager>`.

use std::{
    fs,
    path::Path,
    sync::{Arc, Mutex},
    time::Duration,
};

use ::rusqlite::Connection;
use health::{Probe, ProbeError, ProbeErrorKind};
use r2d2::Pool;
use r2d2_sqlite::SqliteConnectionManager;

use crate::{
    acceptance::values,
    common::responses::{MAX_AGE, assert_degraded, assert_down, assert_not_leaked, assert_recovers, assert_up},
    pools::serve,
};

fn shared(file: &Path) -> Arc<Mutex<Connection>> {
    let connection = Connection::open(file).unwrap();
    connection.busy_timeout(Duration::from_millis(100)).unwrap();
    Arc::new(Mutex::new(connection))
}

fn pool(file: &Path) -> Pool<SqliteConnectionManager> {
    let manager = SqliteConnectionManager::file(file);
    let manager = manager.with_init(|connection| connection.busy_timeout(Duration::from_millis(100)));
    Pool::builder().max_size(2).build_unchecked(manager)
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
