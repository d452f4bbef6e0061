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
use crate::{Probe, Session, error::ProbeError, probe::LibraryProbe};

/// For the benchmarks: a session that runs where the library's own probes do.
pub fn library_session(probe: impl Probe) -> Session {
    struct Library<P>(P);

    impl<P: Probe> LibraryProbe for Library<P> {
        fn probe(&self) -> impl Future<Output = Result<(), ProbeError>> + Send {
            self.0.probe()
        }

        fn resource(&self) -> Option<String> {
            self.0.resource()
        }
    }

    Session::of_library(Library(probe))
}
