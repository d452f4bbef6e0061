//! The errors of drivers, and the conversion of any error into a [`ProbeError`]. `error` does not depend on drivers.

use std::{error::Error, io};

use crate::error::{BoxError, ProbeError, ProbeErrorKind, classify_io};

/// An error of a driver. Its meaning is determined by types, variants and codes, never by the text that the driver shows to people.
pub(super) trait Classify: Error + Send + Sync + 'static {
    fn classify(&self) -> ProbeErrorKind;

    /// Returns the public message. `name` is what messages call the resource.
    fn message(&self, name: &str) -> String {
        self.classify().message(name)
    }

    /// Whether a connection is unusable after this error.
    fn breaks_connection(&self) -> bool {
        self.classify() == ProbeErrorKind::Unreachable
    }

    /// Whether the driver returns this error when a response times out.
    fn is_timeout(&self) -> bool {
        self.classify() == ProbeErrorKind::TimedOut
    }

    /// Whether the server has reached its maximum number of connections.
    fn is_full(&self) -> bool {
        self.classify() == ProbeErrorKind::Saturated
    }

    /// Whether a server that rejects a new connection with this error may still serve its open connections.
    fn may_serve_others(&self) -> bool {
        self.is_full()
    }
}

impl Classify for io::Error {
    fn classify(&self) -> ProbeErrorKind {
        classify_io(self)
    }
}

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

/// Lists the errors of drivers by feature: [`classify`] knows them, and `?` converts them.
macro_rules! errors_of_drivers {
    ($($feature:literal: $($error:ty),+;)*) => {
        /// The kind of a driver's error, determined by its type.
        fn classify(error: &(dyn Error + 'static)) -> Option<ProbeErrorKind> {
            $(
                #[cfg(feature = $feature)]
                {$(
                    if let Some(error) = error.downcast_ref::<$error>() {
                        return Some(error.classify());
                    }
                )+}
            )*
            let _ = error;
            None
        }

        $($(
            #[cfg(feature = $feature)]
            impl From<$error> for ProbeError {
                fn from(error: $error) -> Self {
                    Self::from_error(error)
                }
            }
        )+)*
    };
}

errors_of_drivers! {
    "sqlx": sqlx::Error;
    "sqlx-0_8": sqlx_0_8::Error;
    "sea-orm": sea_orm::DbErr;
    "diesel": diesel::result::Error, diesel::ConnectionError, diesel::r2d2::PoolError;
    "diesel-async":
        diesel_async::pooled_connection::PoolError,
        deadpool::managed::PoolError<diesel_async::pooled_connection::PoolError>,
        bb8::RunError<diesel_async::pooled_connection::PoolError>;
    "mysql_async": mysql_async::Error;
    "mysql": mysql::Error;
    "rusqlite": rusqlite::Error;
    "tokio-postgres": tokio_postgres::Error;
    "deadpool-postgres": deadpool_postgres::PoolError;
    "bb8-postgres": bb8::RunError<tokio_postgres::Error>;
    "mongodb": mongodb::error::Error;
    "redis": redis::RedisError;
    "deadpool-redis": deadpool_redis::PoolError;
    "bb8-redis": bb8::RunError<redis::RedisError>;
    "fred": fred::error::Error;
    "memcache": memcache::exp::Error, memcache::MemcacheError;
    "reqwest": reqwest::Error;
    "lettre": lettre::transport::smtp::Error;
    "lapin": lapin::Error;
    "deadpool-lapin": deadpool_lapin::PoolError;
    "async-nats":
        async_nats::RequestError,
        async_nats::jetstream::context::RequestError,
        async_nats::ConnectError,
        async_nats::PublishError;
    "tonic": tonic::Status;
    "rdkafka": rdkafka::error::KafkaError;
    "rskafka": rskafka::client::error::Error;
    "object_store": object_store::Error;
    "rumqttc": rumqttc::ClientError, rumqttc::PublishNoticeError;
}
