//! The conversion of any error into a [`ProbeError`], by the drivers that are enabled. `error` does not depend on them.

use std::{error::Error, io};

use crate::error::{BoxError, ProbeError, ProbeErrorKind};

impl ProbeError {
    /// Converts any error.
    ///
    /// A `ProbeError` anywhere in its chain of sources keeps its kind and message. Otherwise the kind is determined by the types in
    /// the chain, which may be of the standard library or of a driver whose feature is enabled; it is
    /// [`ProbeErrorKind::Failed`] if none is known. The text of the error is only logged.
    ///
    /// # Examples
    ///
    /// ```
    /// use health::{ProbeError, ProbeErrorKind};
    ///
    /// let error = ProbeError::from_error("relation \"jobs\" does not exist");
    /// assert_eq!(error.kind(), ProbeErrorKind::Failed);
    /// assert_eq!(error.to_string(), "the check failed");
    /// ```
    pub fn from_error(error: impl Into<BoxError>) -> Self {
        Self::classified(error.into(), classify)
    }
}

impl From<io::Error> for ProbeError {
    fn from(error: io::Error) -> Self {
        Self::from_error(error)
    }
}

/// The kind of a driver's error, determined by its type.
fn classify(error: &(dyn Error + 'static)) -> Option<ProbeErrorKind> {
    #[cfg(feature = "sqlx")]
    if let Some(error) = error.downcast_ref() {
        return Some(super::sqlx::classify(error));
    }
    #[cfg(feature = "sqlx-0_8")]
    if let Some(error) = error.downcast_ref() {
        return Some(super::sqlx_0_8::classify(error));
    }
    #[cfg(feature = "redis")]
    if let Some(error) = error.downcast_ref() {
        return Some(super::redis::classify(error));
    }
    #[cfg(feature = "sea-orm")]
    if let Some(error) = error.downcast_ref() {
        return Some(super::sea_orm::classify(error));
    }
    #[cfg(feature = "tokio-postgres")]
    if let Some(error) = error.downcast_ref() {
        return Some(super::tokio_postgres::classify(error));
    }
    #[cfg(feature = "deadpool-postgres")]
    if let Some(kind) = error.downcast_ref().and_then(super::deadpool::classify::<::tokio_postgres::Error>) {
        return Some(kind);
    }
    #[cfg(feature = "deadpool-redis")]
    if let Some(kind) = error.downcast_ref().and_then(super::deadpool::classify::<::redis::RedisError>) {
        return Some(kind);
    }
    #[cfg(feature = "bb8-redis")]
    if let Some(kind) = error.downcast_ref().and_then(super::bb8::classify::<::redis::RedisError>) {
        return Some(kind);
    }
    #[cfg(feature = "diesel")]
    if let Some(kind) = super::diesel::classify(error) {
        return Some(kind);
    }
    #[cfg(feature = "diesel-async")]
    if let Some(kind) = super::diesel_async::classify(error) {
        return Some(kind);
    }
    #[cfg(feature = "http")]
    if let Some(error) = error.downcast_ref() {
        return Some(super::http::classify(error));
    }
    #[cfg(feature = "async-nats")]
    if let Some(kind) = super::nats::classify(error) {
        return Some(kind);
    }
    #[cfg(feature = "lapin")]
    if let Some(error) = error.downcast_ref() {
        return Some(super::lapin::classify(error));
    }
    #[cfg(feature = "rumqttc")]
    if let Some(kind) = super::rumqttc::classify(error) {
        return Some(kind);
    }
    #[cfg(feature = "fred")]
    if let Some(error) = error.downcast_ref() {
        return Some(super::fred::classify(error));
    }
    #[cfg(feature = "memcache")]
    if let Some(error) = error.downcast_ref() {
        return Some(super::memcache::classify(error));
    }
    #[cfg(feature = "memcache")]
    if let Some(error) = error.downcast_ref() {
        return Some(super::memcache::classify_blocking(error));
    }
    let _ = error;
    None
}
