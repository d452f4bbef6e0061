//! Many databases: a map of pools, with one check per key, and a nested struct that derives `HealthCheck` too.

use std::{collections::BTreeMap, error::Error};

use actix_web::{App, HttpServer, web};
use health::HealthCheck;
use sqlx::SqlitePool;

#[derive(HealthCheck)]
struct AppState {
    /// `database.primary` and `database.replica`; without `flatten` `database.databases.primary`
    #[health(flatten)]
    databases: BTreeMap<String, SqlitePool>,
    /// `database.reports.archive` and `database.reports.scratch`
    reports: Reports,
}

#[derive(HealthCheck)]
struct Reports {
    archive: SqlitePool,
    /// Degrades the service when it is down.
    #[health(optional)]
    scratch: Option<SqlitePool>,
}

#[actix_web::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let memory = || SqlitePool::connect_lazy("sqlite::memory:");
    let state = web::Data::new(AppState {
        databases: BTreeMap::from([("primary".to_owned(), memory()?), ("replica".to_owned(), memory()?)]),
        reports: Reports { archive: memory()?, scratch: Some(memory()?) },
    });
    let server =
        HttpServer::new(move || App::new().app_data(state.clone()).service(health::scope())).bind(("127.0.0.1", 0))?;
    println!("listening on http://{0}; try: curl -i http://{0}/health/database", server.addrs()[0]);
    Ok(server.run().await?)
}
