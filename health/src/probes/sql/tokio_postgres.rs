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
//! `deadpool_postgres::Pool` and `bb8::Pool` reconnect. A client does not expose its address, so messages do not contain one.

use std::{error::Error as _, io, sync::Arc};

use tokio_postgres::{Client, Error};

use super::sqlstate::classify_code;
use crate::{
    error::{ProbeError, ProbeErrorKind, classify_io},
    probe::{LibraryProbe, Probe, Session},
    probes::{
        classify::Classify,
        support::{debug_fields::DebugFields, label::Label},
    },
};

pub(super) const LABEL: Label = Label::new("postgres");

impl Probe for Client {
    const GROUP: &'static str = "database";

    async fn probe(&self) -> Result<(), ProbeError> {
        select_one(self).await.map_err(|error| LABEL.error(error))
    }

    fn resource(&self) -> Option<String> {
        Some(LABEL.to_string())
    }

    fn shared_session(this: &Arc<Self>) -> Option<Session> {
        Some(Session::of_library(ClientProbe(Arc::clone(this))))
    }
}

struct ClientProbe(Arc<Client>);

impl LibraryProbe for ClientProbe {
    async fn probe(&self) -> Result<(), ProbeError> {
        Probe::probe(&*self.0).await
    }

    fn resource(&self) -> Option<String> {
        Probe::resource(&*self.0)
    }
}

pub(super) async fn select_one(client: &Client) -> Result<(), Error> {
    client.simple_query("SELECT 1").await.map(drop)
}

impl Classify for Error {
    fn classify(&self) -> ProbeErrorKind {
        if let Some(code) = self.code() {
            return classify_code(code.code());
        }
        if let Some(error) = self.source().and_then(|source| source.downcast_ref::<io::Error>()) {
            return classify_io(error);
        }
        if self.is_closed() {
            return ProbeErrorKind::Unreachable;
        }
        // The driver's kind has no accessor, but the `Debug` output contains it.
        let fields = DebugFields::of(self);
        let is = |kind| fields.starts_with(&format!("Error {{ kind: {kind},"));
        if is("Tls") || is("Authentication") || is("Config") {
            ProbeErrorKind::Rejected
        } else {
            ProbeErrorKind::Failed
        }
    }
}
