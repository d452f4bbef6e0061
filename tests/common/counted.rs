//! A resource that counts its runs.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use health::{Probe, ProbeError, ProbeErrorKind};

/// A resource that counts its runs. Nothing shows that its clones are one resource.
#[derive(Clone, Default)]
pub(crate) struct Counted {
    pub(crate) runs: Arc<AtomicUsize>,
    pub(crate) broken: bool,
}

impl Counted {
    pub(crate) fn broken() -> Self {
        Self { broken: true, ..Self::default() }
    }

    pub(crate) fn runs(&self) -> usize {
        self.runs.load(Ordering::SeqCst)
    }
}

impl Probe for Counted {
    const GROUP: &'static str = "service";

    async fn probe(&self) -> Result<(), ProbeError> {
        self.runs.fetch_add(1, Ordering::SeqCst);
        if self.broken {
            return Err(ProbeError::new(ProbeErrorKind::Failed, "it is broken"));
        }
        Ok(())
    }
}
