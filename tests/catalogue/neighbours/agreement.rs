//! Compares what a check reports after a fault of its server with the results of the application's own operations.

use std::time::Duration;

use super::{
    application::{Application, Row, Status},
    table::Cell,
};
use crate::common::{eventually, proxy::Proxy, responses::MAX_AGE};

/// A working application, and the proxy in front of its server.
pub(crate) struct Subject {
    pub(crate) application: Application,
    pub(crate) proxy: Proxy,
}

impl Subject {
    /// Opens its maximum number of connections, and waits until the check is UP.
    pub(crate) async fn working(row: Row, server: u16) -> Self {
        let proxy = Proxy::start(server).await;
        let application = row.open(proxy.port).await;
        application.warm_up().await;
        eventually("it is UP before anything is broken", || async { application.status().await.is_up() }).await;
        Self { application, proxy }
    }

    pub(crate) async fn all(rows: &[Row], server: u16) -> Vec<Self> {
        let mut subjects = Vec::new();
        for &row in rows {
            subjects.push(Self::working(row, server).await);
        }
        subjects
    }
}

/// What is right.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Right {
    /// UP in every response if the application works, and not UP in the end if it does not.
    AsTheApplication,
    /// Idle connections are silent, and the application's first operation begins together with the first run. If that operation hangs, not
    /// all responses may be UP. None may be DOWN if later operations work, because new connections do.
    Silent,
    Degraded,
    Down,
}

/// The number of operations of the application that are compared with the check.
const OPERATIONS: usize = 3;

/// Polls the check, runs operations of the application, and polls again.
async fn observe(application: &Application, time: Duration, right: Right) -> Cell {
    // Cached results expire.
    tokio::time::sleep(MAX_AGE).await;
    let (polled, hangs) = if right == Right::Silent {
        let (first, polled) = tokio::join!(application.operate(), application.poll(time));
        (polled, first.is_err())
    } else {
        (application.poll(time).await, false)
    };
    let mut errors = Vec::new();
    // With all connections in use it would wait for one.
    let operations = if right == Right::Degraded { 0 } else { OPERATIONS };
    for _ in 0..operations {
        if let Err(error) = application.operate().await {
            errors.push(format!("{error:#}"));
        }
    }
    let after = application.poll(Duration::from_secs(1)).await;
    let fails = errors.len() == OPERATIONS;
    let is_right = match right {
        Right::AsTheApplication if errors.is_empty() => polled.all(Status::is_up) && after.all(Status::is_up),
        Right::Silent if !fails => {
            let is_down = polled.any(Status::is_down) || after.any(Status::is_down);
            !is_down && (!hangs || !polled.all(Status::is_up))
        }
        Right::AsTheApplication | Right::Silent => !fails || !after.last().is_up(),
        Right::Degraded => polled.all(Status::is_degraded),
        Right::Down => polled.last().is_down() && after.last().is_down(),
    };
    let mut parts = vec![polled.to_string()];
    if after.to_string() != parts[0] {
        parts[0] = format!("{polled}, then {after}");
    }
    if right != Right::Degraded {
        parts.push(match OPERATIONS - errors.len() {
            OPERATIONS => "works".to_owned(),
            0 => "fails".to_owned(),
            works => format!("{works} of {OPERATIONS} work"),
        });
    }
    if hangs {
        parts.push("its first operation hangs".to_owned());
    }
    if !is_right {
        let messages = [polled.message().or(after.message()), errors.last().map(String::as_str)];
        parts.extend(messages.into_iter().flatten().map(|message| message.replace(['\n', '|'], " ")));
    }
    Cell::new(parts.join("; "), is_right)
}

/// Observes all at the same time.
pub(crate) async fn observe_all(subjects: Vec<Subject>, time: Duration, right: Right) -> Vec<Cell> {
    let observing = subjects.into_iter().map(|Subject { application, proxy }| {
        actix_web::rt::spawn(async move {
            let cell = observe(&application, time, right).await;
            drop(proxy);
            application.close().await;
            cell
        })
    });
    let observing: Vec<_> = observing.collect();
    let mut cells = Vec::new();
    for observed in observing {
        cells.push(observed.await.unwrap());
    }
    cells
}

/// Adds a line for each driver, with a column for each event.
pub(crate) fn lines(table: &mut super::table::Table, rows: &[Row], columns: Vec<Vec<Cell>>) {
    let mut columns: Vec<_> = columns.into_iter().map(Vec::into_iter).collect();
    for row in rows {
        table.line(&[row.name], columns.iter_mut().map(|column| column.next().expect("a cell for each row")).collect());
    }
}
