//! The lifecycle of the process: whether the event loops of its workers run, and whether it is draining or held.

mod drain;
mod heartbeat;
mod hold;
mod workers;

pub(crate) use self::{
    drain::is_draining,
    hold::{held, hold_count},
    workers::{Heartbeat, MissingWorkers, unobserved_workers},
};
pub use self::{
    drain::{Drain, drain},
    heartbeat::heartbeat,
    hold::{Hold, hold},
};
#[cfg(test)]
pub(crate) use crate::process::Holds;
