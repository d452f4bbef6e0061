//! A service with a database and a cache, and its health check.
//!
//! It runs without configuration, on SQLite in memory. If `DATABASE_URL` (`postgres://…` or `mysql://…`) or `REDIS_URL` are set,
//! it uses them too. It listens on `PORT`, which defaults to 8080.

use std::{env, error::Error};

use actix_web::{App, HttpServer, web};
use health::HealthCheck;
use redis::aio::{ConnectionManager, ConnectionManagerConfig};
use sqlx::{AnyPool, SqlitePool, any::install_default_drivers};

#[derive(HealthCheck)]
struct AppState {
    #[health(name = "default")]
    db: SqlitePool,
    orders: Option<AnyPool>,
    #[health(name = "default")]
    cache: Option<ConnectionManager>,
    title: String,
}

#[actix_web::main]
async fn main() -> Result<(), Box<dyn Error>> {
    tracing_subscriber::fmt().init();
    install_default_drivers();

    // All of them connect on first use, so the service starts even if a backend is down.
    let state = web::Data::new(AppState {
        db: SqlitePool::connect_lazy("sqlite::memory:")?,
        orders: env::var("DATABASE_URL").ok().map(|url| AnyPool::connect_lazy(&url)).transpose()?,
        cache: env::var("REDIS_URL").ok().map(connect_cache).transpose()?,
        title: "Quickstart".to_owned(),
    });

    let port = env::var("PORT").map_or(Ok(8080), |port| port.parse())?;
    let server = HttpServer::new(move || {
        App::new().app_data(state.clone()).route("/", web::get().to(index)).service(health::scope())
    })
    .bind(("127.0.0.1", port))?;
    let address = server.addrs()[0];
    println!("listening on http://{address}; try: curl -i http://{address}/health");
    Ok(server.run().await?)
}

fn connect_cache(url: String) -> redis::RedisResult<ConnectionManager> {
    ConnectionManager::new_lazy_with_config(redis::Client::open(url)?, ConnectionManagerConfig::new())
}

async fn index(state: web::Data<AppState>) -> String {
    let cache = if state.cache.is_some() { "with a cache" } else { "without a cache" };
    format!("{} {cache}, database connections: {}\n", state.title, state.db.size())
}
