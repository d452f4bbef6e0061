//! The query on a pooled connection to Redis, for all pools.

use redis::{RedisError, aio::MultiplexedConnection};

use super::{
    pooled::Driver,
    redis::{classify, write_and_read_back},
    unique_key::unique_key,
};
use crate::error::ProbeErrorKind;

#[derive(Clone, Copy)]
pub(super) struct WriteAndRead;

impl Driver for WriteAndRead {
    type Connection = MultiplexedConnection;
    type Error = RedisError;

    // The pool sends a `PING` before it returns the connection.
    const QUERIES: u32 = 2;

    async fn query(connection: &mut MultiplexedConnection) -> Result<(), RedisError> {
        write_and_read_back(connection, &unique_key()).await
    }

    fn classify(error: &RedisError) -> ProbeErrorKind {
        classify(error)
    }
}
