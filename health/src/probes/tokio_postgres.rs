//! `tokio_postgres::Client`, in an `Arc`, and how errors of tokio-postgres are told apart.
//!
//! Each round asks `SELECT 1` on the application's own connection: the simple protocol, so one round trip, and nothing is
//! prepared. A client sends what it is asked one after the other: behind a statement that runs for long, the check has no
//! answer in time.
//!
//! | what happens | class | status |
//! | --- | --- | --- |
//! | the connection is closed | [`Class::Unreachable`] | DOWN |
//! | no answer: frozen, or busy with another statement | [`Class::TimedOut`] | DOWN |
//! | in a transaction that has failed; anything else | [`Class::Failed`] | DOWN |
//!
//! A client never connects again: once its connection is closed it is down for good, for the application as for its check.
//! `deadpool_postgres::Pool` does. A client does not tell where it is connected to, and so neither do the sentences.

use std::{error::Error as _, io};

use tokio_postgres::{Client, Error};

use super::{driver::Described, sqlstate::class_of_code};
use crate::{
    error::{Class, ProbeError, class_of_io},
    probe::Probe,
};

const NAME: &str = "postgres";

impl Probe for Client {
    const GROUP: &'static str = "database";
    const NEVER_BLOCKS: bool = true;

    async fn probe(&self) -> Result<(), ProbeError> {
        ask(self).await.map_err(|error| {
            let class = class_of(&error);
            ProbeError::new(class, class.sentence(NAME)).with_source(error)
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

/// The class of an error, by the server's code or the system's error in it, else by its kind.
pub(crate) fn class_of(error: &Error) -> Class {
    if let Some(code) = error.code() {
        return class_of_code(code.code());
    }
    if let Some(error) = error.source().and_then(|source| source.downcast_ref::<io::Error>()) {
        return class_of_io(error);
    }
    if error.is_closed() {
        return Class::Unreachable;
    }
    // The other kinds are to be had only by their names, as they are printed.
    let is = |kind| Described::by_debug(error).0.starts_with(&format!("Error {{ kind: {kind},"));
    if is("Tls") || is("Authentication") || is("Config") { Class::Rejected } else { Class::Failed }
}
