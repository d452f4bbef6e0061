//! A service as it is operated: its health check has a port of its own, where it responds while every worker is busy; at SIGTERM the
//! service leaves the rotation before it stops; and `operations healthcheck [path]` is the health check of its container.
//!
//! It listens on `IP` (default 127.0.0.1) with `PORT` (8080) and `MANAGEMENT_PORT` (9000), and drains for `DRAIN_SECONDS` (15).
//! `examples/deploy` runs it in Docker and Kubernetes.

use std::{env, error::Error, net::IpAddr, str::FromStr, time::Duration};

use actix_web::{App, HttpServer, web};
use health::HealthCheck;
use sqlx::SqlitePool;

#[derive(HealthCheck)]
struct AppState {
    #[health(name = "default")]
    db: SqlitePool,
}

#[actix_web::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let ip: IpAddr = variable("IP", "127.0.0.1")?;
    let management = (ip, variable("MANAGEMENT_PORT", "9000")?);
    // First, because with the argument `healthcheck` it does not return.
    health::self_check(management);

    tracing_subscriber::fmt().init();
    let state = web::Data::new(AppState { db: SqlitePool::connect_lazy("sqlite::memory:")? });

    // Its scope does not see the `app_data` below.
    let managed = state.clone();
    let management = health::serve(management, move || health::scope().state(&managed))?;

    // The heartbeat makes `/health/live` report a blocked worker.
    let server = HttpServer::new(move || {
        App::new().app_data(state.clone()).route("/", web::get().to(index)).service(health::heartbeat())
    })
    // `drain` handles SIGTERM.
    .disable_signals()
    .bind((ip, variable("PORT", "8080")?))?;
    println!("listening on http://{}; try: curl -i http://{}/health", server.addrs()[0], management.addrs()[0]);
    let server = server.run();
    health::drain(server.handle(), Duration::from_secs(variable("DRAIN_SECONDS", "15")?));
    // The management server responds until the process ends.
    Ok(server.await?)
}

async fn index(state: web::Data<AppState>) -> String {
    format!("database connections: {}\n", state.db.size())
}

/// An environment variable, or its default.
fn variable<T: FromStr>(name: &str, default: &str) -> Result<T, Box<dyn Error>>
where
    T::Err: Error,
{
    let text = env::var(name).unwrap_or_else(|_| default.to_owned());
    text.parse().map_err(|error| format!("{name}: `{text}`: {error}").into())
}
