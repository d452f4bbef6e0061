//! What the tests of the formats render: the same service in each. `examples/` has the metrics.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::{
    error::ProbeErrorKind,
    observe::observed,
    options::{CheckOptions, Role},
    report::{Counters, Details, Entry, LastError, Outcome, Overview, Release, Report, Worker},
    status::Status,
};

/// A database that is up and has timed out before, and an optional cache that is down and has no result yet.
pub(super) fn overview() -> Overview {
    overview_of(vec![database(), cache()])
}

pub(super) fn overview_of(entries: Vec<Entry>) -> Overview {
    Overview {
        health: Report::of(entries),
        ready: Status::Degraded,
        live: Status::Up,
        startup: Status::Up,
        workers: vec![Worker { number: 0, blocked: Duration::from_micros(412_300), is_blocked: false }],
        is_draining: false,
        holds: 0,
        held: None,
        pending: Vec::new(),
        denied: 0,
        release: Some(Release { service: "orders".to_owned(), version: "1.4.2".to_owned() }),
        time: at(1_795_690_438_432),
    }
}

pub(super) fn cache() -> Entry {
    let message = "unable to connect to redis at 127.0.0.1:6379";
    Entry {
        options: Some(CheckOptions { role: Role::Optional, ..CheckOptions::default() }),
        outcome: Outcome::down(message),
        ..entry("cache", "sessions")
    }
}

/// A critical check that is up, without details.
pub(super) fn entry(group: &str, name: &str) -> Entry {
    Entry {
        group: group.into(),
        name: name.into(),
        options: Some(CheckOptions::default()),
        outcome: Outcome { status: Status::Up, error: None },
        details: None,
    }
}

fn database() -> Entry {
    let details = Details {
        latency: Duration::from_micros(1_204),
        age: Duration::from_millis(312),
        since: at(1_795_690_000_500),
        last_success: Some(at(1_795_690_438_120)),
        last_error: Some(LastError { message: "timed out after 800 ms".into(), time: at(1_795_689_990_000) }),
        runs: 815,
        consecutive_failures: 0,
        raw: Status::Up,
        data: observed([("connections_in_use", 3.into()), ("primary", true.into()), ("version", "16.4".into())]),
        last_run: at(1_795_690_438_120),
        counters: Counters {
            results: [812, 0, 3],
            failures: vec![(ProbeErrorKind::TimedOut, 3)],
            transitions: 2,
            durations: [700, 100, 10, 1, 1, 3, 0],
            total_duration: Duration::from_millis(3_210),
        },
        history: Vec::new(),
    };
    Entry { details: Some(details), ..entry("database", "db") }
}

fn at(ms: u64) -> SystemTime {
    UNIX_EPOCH + Duration::from_millis(ms)
}
