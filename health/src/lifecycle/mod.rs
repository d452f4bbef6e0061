//! The lifecycle of the process: whether the event loops of its workers run, and whether it is draining or held.

mod drain;
mod hold;
mod workers;

pub(crate) use self::{drain::is_draining, hold::held, workers::Heartbeat};
pub use self::{
    drain::{Drain, drain},
    hold::{Hold, hold},
};
#[cfg(test)]
pub(crate) use crate::process::Holds;
