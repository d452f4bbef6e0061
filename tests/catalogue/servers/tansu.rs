//! A tansu for one test: a broker that speaks the protocol of Kafka, and stores everything in memory.

use super::tool;
use crate::common::daemon::Daemon;

pub(crate) type Tansu = Daemon<Kind>;

pub(crate) struct Kind;

impl Tansu {
    /// Prepares a broker without starting it.
    pub(crate) fn prepared() -> Self {
        let mut tansu = Self::new(Kind, "root", &tool("tansu/bin/tansu"));
        let url = format!("tcp://{}", tansu.address());
        tansu.add_args(&["broker", "--listener-url", &url, "--advertised-listener-url", &url]);
        tansu
    }
}
