//! The query on a pooled connection to Redis, whatever the pool.

use redis::{ErrorKind, RedisError, aio::MultiplexedConnection};

use super::{
    pooled::Driver,
    redis::{Answer, ask, classify},
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
        match ask(connection).await? {
            Answer::AsWritten => Ok(()),
            Answer::Other => Err((ErrorKind::UnexpectedReturnType, "the value read is not the value written").into()),
        }
    }

    fn classify(error: &RedisError) -> ProbeErrorKind {
        classify(error)
    }
}
