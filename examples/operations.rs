//! A service as it is operated: its health check has a port of its own, where it responds while every worker is busy; at SIGTERM the
//! service leaves the rotation before it stops; an operator takes it out for maintenance by a route of the application; and
//! `operations healthcheck [path]` is the health check of its container.
//!
//! It listens on `IP` (default 127.0.0.1) with `PORT` (8080) and `MANAGEMENT_PORT` (9000), and drains for `DRAIN_SECONDS` (15).
//! `examples/deploy` runs it in Docker and Kubernetes.

use std::{
    env,
    error::Error,
    net::IpAddr,
    str::FromStr,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use actix_web::{App, HttpServer, Responder, web};
use health::{HealthCheck, Hold};
use sqlx::SqlitePool;

#[derive(HealthCheck)]
struct AppState {
    #[health(name = "default")]
    db: SqlitePool,
}

/// The current maintenance.
type Maintenance = Mutex<Option<Hold>>;

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

    let maintenance = web::Data::new(Maintenance::default());
    let server = HttpServer::new(move || {
        App::new()
            .app_data(state.clone())
            .app_data(maintenance.clone())
            .route("/", web::get().to(index))
            // In a real service these need an authentication.
            .route("/maintenance/{seconds}", web::put().to(start_maintenance))
            .route("/maintenance", web::delete().to(end_maintenance))
            // Makes `/health/live` report a blocked worker.
            .service(health::heartbeat())
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

/// Takes this process out of rotation. It is back after that time, even if `end_maintenance` is forgotten.
async fn start_maintenance(maintenance: web::Data<Maintenance>, seconds: web::Path<u64>) -> impl Responder {
    let hold = health::hold("maintenance", Duration::from_secs(*seconds));
    maintenance.lock().unwrap_or_else(PoisonError::into_inner).replace(hold);
    "out of rotation\n"
}

async fn end_maintenance(maintenance: web::Data<Maintenance>) -> impl Responder {
    maintenance.lock().unwrap_or_else(PoisonError::into_inner).take();
    "in rotation\n"
}

/// An environment variable, or its default.
fn variable<T: FromStr>(name: &str, default: &str) -> Result<T, Box<dyn Error>>
where
    T::Err: Error,
{
    let text = env::var(name).unwrap_or_else(|_| default.to_owned());
    text.parse().map_err(|error| format!("{name}: `{text}`: {error}").into())
}
