//! The check would keep a clone of the cell, and a later `set` would not reach it.
use std::sync::{Arc, OnceLock};

use actix_web::web;
use health::HealthCheck;
use sqlx::PgPool;
use tokio::sync::{Mutex, OnceCell};

#[derive(HealthCheck)]
struct State {
    #[health(with = ok)]
    once: OnceCell<PgPool>,
    #[health(with = ok)]
    lock: OnceLock<PgPool>,
    #[health(with = ok)]
    mutex: Option<Mutex<PgPool>>,
    #[health(with = ok)]
    shared: Arc<OnceCell<PgPool>>,
    #[health(with = ok)]
    data: web::Data<Mutex<PgPool>>,
    #[health(with = ok)]
    leaked: &'static OnceCell<PgPool>,
}

async fn ok<T>(_: &T) -> Result<(), String> {
    Ok(())
}

fn main() {}
