//! What the code that the derive generates refers to. Not part of the public API: it changes without notice.

pub use inventory;

pub use crate::discovery::{
    dispatch::{
        Discover, Dispatch, EitherProbeOrHealthCheck, Fallback, InnerDispatch, InnerFallback, clone_field, same_group,
    },
    field::{in_group, modified, skipped},
    require,
    state::StateType,
};
// Not for the derive: a hidden method of `Probe` has this type in its signature.
pub use crate::probe::DynProbe;
