//! `probes::memory::Available`, on the machine as it is. Limits, which take control groups that a test can't make everywhere,
//! are shown on made-up ones where they are read (`probes/memory.rs`).
//!
//! The suite's rows are about servers and connections: none fits.

use std::time::Duration;

use actix_web::web;
use health::{
    HealthCheck,
    probes::{Amount, memory::Available},
};

use crate::common::{responses::assert_up, test_server::TestServer};

#[derive(HealthCheck)]
struct State {
    memory: Available,
}

fn serve(memory: Available) -> TestServer {
    let state = web::Data::new(State { memory });
    TestServer::start(1, move |app| {
        app.service(health::scope().max_age(Duration::ZERO).state(&state));
    })
}

#[actix_web::test]
async fn a_machine_with_memory_is_up() {
    // The tests' machine may be busy, and this is no test of it.
    let any = Amount::bytes(1);
    assert_up(&serve(Available::new().degraded_below(any).down_below(any)), "system", "memory").await;
}

#[actix_web::test]
async fn less_memory_than_wanted_is_degraded_or_down() {
    let all = Amount::percent(100);
    for (memory, status, code) in [
        (Available::new().degraded_below(all).down_below(Amount::bytes(0)), "DEGRADED", 200),
        (Available::new().down_below(all), "DOWN", 503),
    ] {
        let answer = serve(memory).health().await;
        assert_eq!(answer.status, code, "{answer:?}");
        assert_eq!(answer.json()["status"], status);
        let message = answer.json()["errors"]["system"]["memory"].as_str().unwrap().to_owned();
        assert!(message.starts_with("only ") && message.ends_with("of the memory is left"), "{message}");
    }
}
