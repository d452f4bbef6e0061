//! 300 polls with a deadlocked check and one that blocks leave threads, descriptors and memory unchanged.

use std::{fs, thread, time::Duration};

use health::Check;
use stats_alloc::Region;

use crate::{
    ALLOCATOR, Measured,
    response::{Connection, settle},
    serve,
};

const POLLS: usize = 300;

pub(crate) async fn measure() -> Vec<Measured> {
    let deadlocked = Check::new("service", "deadlocked", || async {
        loop {
            thread::park();
        }
        #[allow(unreachable_code)]
        Ok::<_, String>(())
    });
    let blocking = Check::new("service", "blocking", || async {
        thread::sleep(Duration::from_millis(100));
        Ok::<_, String>(())
    });
    let (address, server) = serve(move |app| {
        let scope = health::scope().max_age(Duration::ZERO).deadline(Duration::from_millis(20));
        app.service(scope.check(deadlocked.clone()).check(blocking.clone()));
    });
    let mut connection = Connection::open(address).await;
    for _ in 0..POLLS {
        connection.request("/health").await;
    }
    settle().await;
    let before = (count("task"), count("fd"));
    let region = Region::new(ALLOCATOR);
    for _ in 0..POLLS {
        connection.request("/health").await;
    }
    settle().await;
    let change = region.change();
    let after = (count("task"), count("fd"));
    let bytes = change.bytes_allocated.saturating_sub(change.bytes_deallocated);
    server.stop(false).await;
    // Buffers of the client and the server may grow at any time.
    let holds = after.0 <= before.0 && after.1 <= before.1 && bytes <= 16 * 1024;
    vec![Measured {
        what: format!(
            "additional threads, descriptors and bytes after {POLLS} polls with a deadlocked and a blocking check"
        ),
        value: format!("{}, {}, {bytes}", after.0.saturating_sub(before.0), after.1.saturating_sub(before.1)),
        bound: "0, 0, at most 16 KiB".into(),
        holds: Some(holds),
    }]
}

fn count(folder: &str) -> usize {
    fs::read_dir(format!("/proc/self/{folder}")).unwrap().count()
}
