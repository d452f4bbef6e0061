//! An application that forks after the first health check, as pre-forking and daemonizing applications do. The child has none of
//! the threads of its parent, and starts its own.

use std::{
    process,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use actix_web::rt::System;
use fork::{Fork, fork, waitpid};
use health::{Check, Registry};

use crate::common::{eventually, test_server::TestServer};

/// Serves the registry, and waits until all of its checks are up.
async fn becomes_up(registry: &Registry) {
    let registry = registry.clone();
    let server = TestServer::start(1, move |app| {
        app.service(health::scope().registry(&registry).max_age(Duration::ZERO));
    });
    eventually("all checks are up", || async { server.health().await.status == 200 }).await;
    server.stop().await;
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
    // Its run is in flight when the process forks. The child must not wait for it.
    let (parent, hangs) = (process::id(), Arc::new(AtomicBool::new(false)));
    let hung = Arc::clone(&hangs);
    registry
        .register(Check::new("service", "hangs in the parent", move || {
            let hangs = process::id() == parent && hung.load(Ordering::SeqCst);
            async move { if hangs { std::future::pending().await } else { Ok::<_, String>(()) } }
        }))
        .unwrap();
    System::new().block_on(async {
        becomes_up(&registry).await;
        hangs.store(true, Ordering::SeqCst);
        let registry = registry.clone();
        let server = TestServer::start(1, move |app| {
            app.service(health::scope().registry(&registry).max_age(Duration::ZERO));
        });
        assert_eq!(server.health().await.status, 503);
        server.stop().await;
    });
    match fork().unwrap() {
        Fork::Child => {
            System::new().block_on(becomes_up(&registry));
            process::exit(0);
        }
        Fork::Parent(child) => assert_eq!(waitpid(child).unwrap(), 0, "the child's exit status"),
    }
    assert!(registry.unregister("service", "hangs in the parent"));
    System::new().block_on(becomes_up(&registry));
}
