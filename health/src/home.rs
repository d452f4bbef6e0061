//! Where checks run: threads of their own, so that neither a worker nor a main thread that is blocked holds them up.
//!
//! The library's own probes never block, and share one thread, which is woken once for all of a round. Everybody else's may
//! block, whatever the documentation says, and have several, so that one that does so does not hold up the others.
//!
//! Connections that a probe opens here serve the application too, as long as their runtime lives: so it never ends.

use std::{future::Future, sync::LazyLock, thread};

use tokio::runtime::{self, Handle, Runtime};

/// So many checks but one may block their threads at once before the others wait.
const GUESTS_THREADS: usize = 4;

/// Where an engine has its checks run.
#[derive(Clone)]
pub(crate) enum Home {
    /// On the threads of the process.
    Process,
    /// On one runtime, whose clock a test may have paused.
    #[cfg(test)]
    Given(Handle),
}

impl Home {
    pub(crate) fn spawn(&self, never_blocks: bool, run: impl Future<Output = ()> + Send + 'static) {
        match self {
            Self::Process if never_blocks => own().spawn(run),
            Self::Process => guests().spawn(run),
            #[cfg(test)]
            Self::Given(handle) => handle.spawn(run),
        };
    }

    /// For what is the library's own and no check.
    pub(crate) fn handle(&self) -> Handle {
        match self {
            Self::Process => own().clone(),
            #[cfg(test)]
            Self::Given(handle) => handle.clone(),
        }
    }
}

fn own() -> &'static Handle {
    static OWN: LazyLock<Handle> = LazyLock::new(|| {
        let runtime =
            runtime::Builder::new_current_thread().enable_all().build().expect("no runtime for health checks");
        let handle = runtime.handle().clone();
        thread::Builder::new()
            .name("health".to_owned())
            .spawn(move || runtime.block_on(std::future::pending::<()>()))
            .expect("no thread for health checks");
        handle
    });
    &OWN
}

fn guests() -> &'static Handle {
    static GUESTS: LazyLock<Runtime> = LazyLock::new(|| {
        runtime::Builder::new_multi_thread()
            .worker_threads(GUESTS_THREADS)
            .thread_name("health-guest")
            .enable_all()
            .build()
            .expect("no threads for health checks")
    });
    GUESTS.handle()
}
