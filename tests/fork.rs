//! An application that forks after the health check was used, as a pre-forking or daemonizing one does: the child has none of
//! the threads of its parent, and starts its own.

use std::{process, time::Duration};

use actix_web::rt::System;
use fork::{Fork, fork, waitpid};
use health::{Check, Registry};

use crate::common::rig::Rig;

async fn is_up(registry: &Registry) -> bool {
    let registry = registry.clone();
    let rig = Rig::start(1, move |app| {
        app.service(health::scope().registry(&registry).max_age(Duration::ZERO));
    });
    let response = rig.health().await;
    rig.stop().await;
    response.status == 200
}

#[test]
fn a_forked_child_runs_its_checks_on_threads_of_its_own() {
    let registry = Registry::new();
    registry
        .register(Check::new("service", "sleeps", || async {
            tokio::time::sleep(Duration::from_millis(10)).await;
            Ok::<_, String>(())
        }))
        .unwrap();
    // In flight when the process forks: the child must not wait for it.
    let parent = process::id();
    registry
        .register(Check::new("service", "hangs in the parent", move || async move {
            if process::id() == parent { std::future::pending().await } else { Ok::<_, String>(()) }
        }))
        .unwrap();
    assert!(!System::new().block_on(is_up(&registry)), "one check hangs");
    match fork().unwrap() {
        Fork::Child => process::exit(i32::from(!System::new().block_on(is_up(&registry)))),
        Fork::Parent(child) => assert_eq!(waitpid(child).unwrap(), 0, "the child's exit status"),
    }
    assert!(registry.unregister("service", "hangs in the parent"));
    assert!(System::new().block_on(is_up(&registry)), "the parent goes on as before");
}
