//! The program of README, which a test compares and starts.
#![allow(dead_code, reason = "its state has a field that is not a resource")]

use actix_web::{App, HttpServer, web};
use health::HealthCheck;
use redis::aio::{ConnectionManager, ConnectionManagerConfig};

#[derive(HealthCheck)]
struct AppState {
    db: sqlx::PgPool,            // probed: database.db
    sessions: ConnectionManager, // probed: cache.sessions
    title: String,               // not a resource: ignored
}

#[actix_web::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    // Both connect on first use, so the service starts even if a backend is down.
    let redis = redis::Client::open("redis://127.0.0.1")?;
    let state = web::Data::new(AppState {
        db: sqlx::PgPool::connect_lazy("postgres://localhost/app")?,
        sessions: ConnectionManager::new_lazy_with_config(redis, ConnectionManagerConfig::new())?,
        title: "Orders".to_owned(),
    });
    let app = move || App::new().app_data(state.clone()).service(health::scope());
    Ok(HttpServer::new(app).bind(("127.0.0.1", 8080))?.run().await?)
}
