//! The query on a pooled connection to Redis, for all pools.

use redis::{RedisError, aio::MultiplexedConnection};

use super::redis::write_and_read_back;
use crate::probes::{pool::driver::Driver, support::round_trip::unique_key};

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
}
