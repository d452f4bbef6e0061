//! `object_store::ObjectStore`, as `Arc<dyn ObjectStore>`, and how errors of `object_store` are classified.
//!
//! Each run lists the objects whose names begin with `health-probe/`, of which there are none, in one request. So the store checks the
//! credentials, and that the bucket exists; a request for an object would not distinguish a missing bucket from a missing object.
//! Permission: to list.
//!
//! | what happens | kind | status |
//! | --- | --- | --- |
//! | no response; refused, while the store retries | [`ProbeErrorKind::TimedOut`] | DOWN |
//! | refused, no such host, after the last retry | [`ProbeErrorKind::Unreachable`] | DOWN |
//! | wrong credentials, no permission to list | [`ProbeErrorKind::Rejected`] | DOWN |
//! | no such bucket; anything else | [`ProbeErrorKind::Failed`] | DOWN |
//!
//! A store retries ten times, which takes some seconds, and a trait object does not expose its options. So a store that cannot be reached
//! is reported as a timeout first, and the cause is in the log after the last retry. With `RetryConfig { max_retries: 0, .. }` it is at once.
//! While a request is silent, a run begins another one every 2 s, so the check is UP soon after the store is back. A store does not expose
//! its address, so messages do not contain one.
//!
//! What a run does not notice: `object_store` reads any other XML or HTML document of a server as an empty list, so a server that is not a
//! store may be UP; and the folder of a `LocalFileSystem` may be missing, because the next write creates it.
//!
//! What a run costs the store: one request to list. Providers bill it as a write; set a `max_age`.
//!
//! # Examples
//!
//! ```
//! # mod example {
//! use std::sync::Arc;
//!
//! use health::HealthCheck;
//! use object_store::ObjectStore;
//!
//! #[derive(HealthCheck)]
//! struct AppState {
//!     #[health(max_age = "30s")]
//!     uploads: Arc<dyn ObjectStore>, // probed: storage.uploads
//! }
//! # }
//! ```

use std::{io, sync::Arc};

use futures_util::TryStreamExt as _;
use object_store::{Error, ObjectStore, path::Path};

use crate::{
    error::{ProbeError, ProbeErrorKind, chain, classify_io},
    probe::{LibraryProbe, Probe, Session},
    probes::{
        classify::Classify,
        support::{
            attempts::{INTERVAL, first_result},
            debug_fields::DebugFields,
            label::Label,
        },
    },
};

/// The beginning of names that no object has.
const PREFIX: &str = "health-probe";

const LABEL: Label = Label::new("the object store");

impl Probe for dyn ObjectStore {
    const GROUP: &'static str = "storage";

    async fn probe(&self) -> Result<(), ProbeError> {
        // A request that is silent may wait in a long pause between two of its retries.
        let result = first_result(INTERVAL, || list(self)).await;
        result.map_err(|error| LABEL.error(error))
    }

    fn resource(&self) -> Option<String> {
        Some(self.to_string())
    }

    fn shared_session(this: &Arc<Self>) -> Option<Session> {
        Some(Session::of_library(StoreProbe(Arc::clone(this))))
    }
}

struct StoreProbe(Arc<dyn ObjectStore>);

impl LibraryProbe for StoreProbe {
    async fn probe(&self) -> Result<(), ProbeError> {
        Probe::probe(&*self.0).await
    }

    fn resource(&self) -> Option<String> {
        Probe::resource(&*self.0)
    }
}

async fn list(store: &dyn ObjectStore) -> Result<(), Error> {
    store.list(Some(&Path::from(PREFIX))).try_next().await.map(drop)
}

impl Classify for Error {
    fn classify(&self) -> ProbeErrorKind {
        if let Some(error) = chain(self).find_map(|error| error.downcast_ref::<io::Error>()) {
            return classify_io(error);
        }
        match self {
            Self::PermissionDenied { .. } | Self::Unauthenticated { .. } => ProbeErrorKind::Rejected,
            _ if matches!(status(self), Some(401 | 403)) => ProbeErrorKind::Rejected,
            _ => ProbeErrorKind::Failed,
        }
    }

    fn message(&self, name: &str) -> String {
        match self {
            Self::NotFound { .. } => format!("no such bucket in {name}"),
            _ if status(self) == Some(404) => format!("no such bucket in {name}"),
            _ => self.classify().message(name),
        }
    }
}

/// Returns the status of the response to a failed request to list. It has no accessor, but the `Debug` output contains it.
fn status(error: &Error) -> Option<u16> {
    DebugFields::of(error).number("inner: Status { status: ")
}
