//! The lifecycle of the process: whether the event loops of its workers run, and whether it is draining.

mod drain;
mod heartbeat;
mod workers;

pub(crate) use self::{
    drain::is_draining,
    workers::{Heartbeat, MissingWorkers},
};
pub use self::{
    drain::{Drain, drain},
    heartbeat::heartbeat,
};
