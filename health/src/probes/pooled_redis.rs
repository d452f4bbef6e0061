//! The query on a pooled connection to Redis, whatever the pool.

use redis::{RedisError, aio::MultiplexedConnection};

use super::{
    key,
    pooled::Driver,
    redis::{classify, write_and_read_back},
};
use crate::error::ProbeErrorKind;

#[derive(Clone, Copy)]
pub(super) struct WriteAndRead;

impl Driver for WriteAndRead {
    type Connection = MultiplexedConnection;
    type Error = RedisError;

    // The pool's `PING` before ours.
    const ROUND_TRIPS: u32 = 2;

    async fn query(connection: &mut MultiplexedConnection) -> Result<(), RedisError> {
        write_and_read_back(connection, &key::fresh()).await
    }

    fn classify(error: &RedisError) -> ProbeErrorKind {
        classify(error)
    }
}
