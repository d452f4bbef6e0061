//! An application without requests: no runs, and no wake-ups of the library's threads.

use std::{
    fs,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use health::Check;

use crate::{Measured, response::Connection, serve};

const SECONDS: u32 = 10;

pub(crate) async fn measure() -> Vec<Measured> {
    let runs = Arc::new(AtomicU32::new(0));
    let counted = Arc::clone(&runs);
    let check = Check::new("service", "counted", move || {
        counted.fetch_add(1, Ordering::SeqCst);
        async { Ok::<_, String>(()) }
    });
    let (address, handle) = serve(move |app| {
        app.service(health::scope().check(check.clone()));
    });
    Connection::open(address).await.request("/health").await;
    tokio::time::sleep(Duration::from_secs(2)).await;

    let (before, runs_before) = (wake_ups("health"), runs.load(Ordering::SeqCst));
    tokio::time::sleep(Duration::from_secs(SECONDS.into())).await;
    let (wake_ups, new_runs) = (wake_ups("health").saturating_sub(before), runs.load(Ordering::SeqCst) - runs_before);
    handle.stop(false).await;
    vec![Measured {
        what: format!("runs, and wake-ups of the library's threads, in {SECONDS} s without a request"),
        value: format!("{new_runs}, {wake_ups}"),
        bound: "0, 0".into(),
        holds: Some(new_runs == 0 && wake_ups == 0),
    }]
}

/// How often threads whose names have this prefix have woken up so far.
fn wake_ups(prefix: &str) -> u64 {
    let threads = fs::read_dir("/proc/self/task").unwrap().map(|thread| thread.unwrap().path());
    let named = threads
        .filter(|thread| fs::read_to_string(thread.join("comm")).is_ok_and(|comm| comm.trim().starts_with(prefix)));
    let switches = |status: String| {
        let line = status.lines().find_map(|line| line.strip_prefix("voluntary_ctxt_switches:")).unwrap().trim();
        line.parse::<u64>().unwrap()
    };
    named.map(|thread| switches(fs::read_to_string(thread.join("status")).unwrap())).sum()
}
