//! What stands in for `https` where that feature is off.

use std::io;

use tokio::net::TcpStream;

use super::InvalidProbe;

pub(super) use crate::error::classify_io as classify;

#[derive(Clone)]
pub(super) enum Security {}

impl Security {
    pub(super) fn of(_: &str) -> Result<Self, InvalidProbe> {
        Err(InvalidProbe::new("an `https://` URL needs the feature `https` of health"))
    }

    pub(super) async fn secure(&self, _: TcpStream) -> io::Result<TcpStream> {
        match *self {}
    }
}
