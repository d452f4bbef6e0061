//! The lifecycle of the process: whether the event loops of its workers run, and whether it is draining.

mod drain;
mod workers;

pub use self::drain::{Drain, drain};
pub(crate) use self::{drain::is_draining, workers::Heartbeat};
