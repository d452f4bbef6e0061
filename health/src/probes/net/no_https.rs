//! Replaces `https` without that feature.

use std::io;

use tokio::net::TcpStream;

use crate::probes::support::endpoint::InvalidProbe;

pub(super) use crate::error::classify_io as classify;

#[derive(Clone)]
pub(super) enum TlsClient {}

impl TlsClient {
    pub(super) fn new(_: &str) -> Result<Self, InvalidProbe> {
        Err(InvalidProbe::new("an `https://` URL needs the feature `https` of health"))
    }

    pub(super) async fn handshake(&self, _: TcpStream) -> io::Result<TcpStream> {
        match *self {}
    }
}
