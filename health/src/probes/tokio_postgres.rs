//! `tokio_postgres::Client`, in an `Arc`, and how errors of tokio-postgres are told apart.
//!
//! Each round asks `SELECT 1` on the application's own connection: the simple protocol, so one round trip, and nothing is
//! prepared. A client sends what it is asked one after the other: behind a statement that runs for long, the check has no
//! answer in time.
//!
//! | what happens | kind | status |
//! | --- | --- | --- |
//! | the connection is closed | [`ProbeErrorKind::Unreachable`] | DOWN |
//! | no answer: frozen, or busy with another statement | [`ProbeErrorKind::TimedOut`] | DOWN |
//! | in a transaction that has failed; anything else | [`ProbeErrorKind::Failed`] | DOWN |
//!
//! A client never connects again: once its connection is closed it is down for good, for the application as for its check.
//! `deadpool_postgres::Pool` does. A client does not tell where it is connected to, and so neither do the messages.

use std::{error::Error as _, io};

use tokio_postgres::{Client, Error};

use super::{driver::Described, sqlstate::classify_code};
use crate::{
    error::{ProbeError, ProbeErrorKind, classify_io},
    probe::Probe,
};

const NAME: &str = "postgres";

impl Probe for Client {
    const GROUP: &'static str = "database";
    const NEVER_BLOCKS: bool = true;

    async fn probe(&self) -> Result<(), ProbeError> {
        ask(self).await.map_err(|error| {
            let kind = classify(&error);
            ProbeError::new(kind, kind.message(NAME)).with_source(error)
        })
    }

    fn resource(&self) -> Option<String> {
        Some(NAME.to_owned())
    }
}

impl From<Error> for ProbeError {
    fn from(error: Error) -> Self {
        Self::from_error(error)
    }
}

pub(super) async fn ask(client: &Client) -> Result<(), Error> {
    client.simple_query("SELECT 1").await.map(drop)
}

/// The kind of an error, by the server's code or the system's error in it, else by its kind.
pub(crate) fn classify(error: &Error) -> ProbeErrorKind {
    if let Some(code) = error.code() {
        return classify_code(code.code());
    }
    if let Some(error) = error.source().and_then(|source| source.downcast_ref::<io::Error>()) {
        return classify_io(error);
    }
    if error.is_closed() {
        return ProbeErrorKind::Unreachable;
    }
    // The other kinds are to be had only by their names, as they are printed.
    let is = |kind| Described::by_debug(error).0.starts_with(&format!("Error {{ kind: {kind},"));
    if is("Tls") || is("Authentication") || is("Config") { ProbeErrorKind::Rejected } else { ProbeErrorKind::Failed }
}
