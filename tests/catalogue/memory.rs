//! `probes::memory::Available`, on this machine. Unit tests in `probes/memory.rs` cover the limits of control groups, which a test cannot
//! create on every machine.
//!
//! The acceptance suite is about servers and connections, and does not apply.

use std::time::Duration;

use actix_web::web;
use health::{
    HealthCheck,
    probes::{Amount, memory::Available},
};

use crate::acceptance::values;
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
    // The memory of the machine may be used up, which this does not test.
    let any = Amount::bytes(1);
    let rig = serve(Available::new().degraded_below(any).down_below(any));
    assert_up(&rig, "system", "memory").await;
    let values = values(&rig, "system", "memory").await;
    assert!(values["left_bytes"].as_u64() > Some(1), "{values}");
    assert!(values["left_percent"].as_u64().is_some_and(|percent| percent <= 100), "{values}");
}

#[actix_web::test]
async fn less_memory_than_wanted_is_degraded_or_down() {
    let all = Amount::percent(100);
    for (memory, status, code) in [
        (Available::new().degraded_below(all).down_below(Amount::bytes(0)), "DEGRADED", 200),
        (Available::new().down_below(all), "DOWN", 503),
    ] {
        let response = serve(memory).health().await;
        assert_eq!(response.status, code, "{response:?}");
        assert_eq!(response.json()["status"], status);
        let message = response.json()["errors"]["system"]["memory"].as_str().unwrap().to_owned();
        assert!(message.starts_with("only ") && message.ends_with("of the memory is left"), "{message}");
    }
}
