//! What a check reports after something happened to its server, beside what the application's own operations return.

use std::time::Duration;

use super::{
    application::{Application, Row, Status},
    table::Cell,
};
use crate::common::{eventually, proxy::Proxy, responses::MAX_AGE};

/// An application that works, and the way of its connections.
pub(crate) struct Subject {
    pub(crate) application: Application,
    pub(crate) proxy: Proxy,
}

impl Subject {
    /// With all connections that it may have, and a check that is UP.
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
    /// Idle connections are silent. The application's first operation begins with the first run of the check: where it hangs, not
    /// all is well. And it is not DOWN if the application works in the end, for new connections do.
    Silent,
    Degraded,
    Down,
}

/// So many operations of the application are compared with the check.
const OPERATIONS: usize = 3;

/// Polls the check, then does what the application does, then polls again.
async fn observe(application: &Application, time: Duration, right: Right) -> Cell {
    // What was found before is not served any more.
    tokio::time::sleep(MAX_AGE).await;
    let (polled, hangs) = if right == Right::Silent {
        let (first, polled) = tokio::join!(application.operate(), application.poll(time));
        (polled, first.is_err())
    } else {
        (application.poll(time).await, false)
    };
    let mut errors = Vec::new();
    // With all its connections in use it would wait for one.
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

/// A line for each driver, a column for each thing that happened.
pub(crate) fn lines(table: &mut super::table::Table, rows: &[Row], columns: Vec<Vec<Cell>>) {
    let mut columns: Vec<_> = columns.into_iter().map(Vec::into_iter).collect();
    for row in rows {
        table.line(&[row.name], columns.iter_mut().map(|column| column.next().expect("a cell for each row")).collect());
    }
}
