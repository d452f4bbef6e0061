//! What is asked on a pooled connection to Redis, whatever the pool.

use redis::{ErrorKind, RedisError, aio::MultiplexedConnection};

use super::{
    pooled::Question,
    redis::{Answer, ask, classify},
};
use crate::error::ProbeErrorKind;

pub(super) struct WriteAndRead;

impl Question for WriteAndRead {
    type Connection = MultiplexedConnection;
    type Error = RedisError;

    async fn ask(connection: &mut MultiplexedConnection) -> Result<(), RedisError> {
        match ask(connection).await? {
            Answer::AsWritten => Ok(()),
            Answer::Other => Err((ErrorKind::UnexpectedReturnType, "the value read is not the value written").into()),
        }
    }

    fn classify(error: &RedisError) -> ProbeErrorKind {
        classify(error)
    }
}
