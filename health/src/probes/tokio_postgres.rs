//! `tokio_postgres::Client`, in an `Arc`, and how errors of tokio-postgres are classified.
//!
//! Each run executes `SELECT 1` on the application's own connection, with the simple protocol: one round trip, without a prepared
//! statement. A client executes its queries in order, so the check times out while a long statement runs.
//!
//! | what happens | kind | status |
//! | --- | --- | --- |
//! | the connection is closed | [`ProbeErrorKind::Unreachable`] | DOWN |
//! | no response: frozen, or busy with another statement | [`ProbeErrorKind::TimedOut`] | DOWN |
//! | in a transaction that has failed; anything else | [`ProbeErrorKind::Failed`] | DOWN |
//!
//! A client never reconnects: once its connection is closed, the check is DOWN until the application creates a new client.
//! `deadpool_postgres::Pool` reconnects. A client does not expose its address, so messages do not contain one.

use std::{error::Error as _, io};

use tokio_postgres::{Client, Error};

use super::{driver::DebugFields, sqlstate::classify_code};
use crate::{
    error::{ProbeError, ProbeErrorKind, classify_io},
    probe::Probe,
};

const DISPLAY_NAME: &str = "postgres";

impl Probe for Client {
    const GROUP: &'static str = "database";
    const NEVER_BLOCKS: bool = true;

    async fn probe(&self) -> Result<(), ProbeError> {
        select_one(self).await.map_err(|error| {
            let kind = classify(&error);
            ProbeError::new(kind, kind.message(DISPLAY_NAME)).with_source(error)
        })
    }

    fn resource(&self) -> Option<String> {
        Some(DISPLAY_NAME.to_owned())
    }
}

impl From<Error> for ProbeError {
    fn from(error: Error) -> Self {
        Self::from_error(error)
    }
}

pub(super) async fn select_one(client: &Client) -> Result<(), Error> {
    client.simple_query("SELECT 1").await.map(drop)
}

/// Returns the kind of an error, from the server's code, the I/O error in it, or the driver's kind.
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
    // The driver's kind has no accessor, but the `Debug` output contains it.
    let is = |kind| DebugFields::of(error).0.starts_with(&format!("Error {{ kind: {kind},"));
    if is("Tls") || is("Authentication") || is("Config") { ProbeErrorKind::Rejected } else { ProbeErrorKind::Failed }
}
