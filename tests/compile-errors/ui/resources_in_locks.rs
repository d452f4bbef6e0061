//! Pools and connections in locks and cells.
use std::{
    cell::RefCell,
    sync::{Arc, OnceLock},
};

use health::HealthCheck;
use sqlx::PgPool;
use tokio::sync::{Mutex, OnceCell, RwLock};

#[derive(HealthCheck)]
struct State {
    cache: redis::Client,
    locked: Arc<Mutex<PgPool>>,
    replaceable: RwLock<PgPool>,
    connected_later: OnceCell<PgPool>,
    optional: Option<Arc<OnceLock<Box<PgPool>>>>,
    connection: Arc<Mutex<redis::Connection>>,
    client: RefCell<redis::Client>,
}

fn main() {}
