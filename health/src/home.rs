//! Where checks run: threads of their own, so that neither a worker nor a main thread that is blocked holds them up.
//!
//! The library's own probes never block, and share one thread, which is woken once for all of a round. Everybody else's may
//! block, whatever the documentation says. They have several threads, each with a runtime of its own, for on a runtime that
//! several share, one that blocks can hold up the clock and the sockets of all. A run goes where the fewest are under way, and
//! a check that has blocked a thread gets one to itself from then on.
//!
//! Connections that a probe opens here serve the application too, as long as their runtime lives: so those never end.

use std::{
    future::Future,
    sync::{
        LazyLock,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
};

use tokio::runtime::{Builder, Handle, Runtime};

const GUEST_THREADS: usize = 4;

/// Where an engine has its checks run.
#[derive(Clone)]
pub(crate) enum Home {
    /// On the threads of the process.
    Process,
    /// On one runtime, whose clock a test may have paused.
    #[cfg(test)]
    Given(Handle),
}

/// What a run may do to its thread.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Manners {
    /// It never blocks: it is the library's own.
    Known,
    Unknown,
    /// It was seen to block.
    Blocks,
}

impl Home {
    pub(crate) fn spawn(&self, manners: Manners, run: impl Future<Output = ()> + Send + 'static) {
        match self {
            Self::Process => match manners {
                Manners::Known => drop(own().spawn(run)),
                Manners::Unknown => guest(run),
                Manners::Blocks => alone(run),
            },
            #[cfg(test)]
            Self::Given(handle) => drop(handle.spawn(run)),
        }
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
    static OWN: LazyLock<Handle> = LazyLock::new(|| on_a_thread("health"));
    &OWN
}

/// A thread for runs that may block it, and how many are under way there.
struct Guests {
    handle: Handle,
    under_way: AtomicUsize,
}

fn guest(run: impl Future<Output = ()> + Send + 'static) {
    static GUESTS: LazyLock<[Guests; GUEST_THREADS]> = LazyLock::new(|| {
        std::array::from_fn(|_| Guests { handle: on_a_thread("health-guest"), under_way: AtomicUsize::new(0) })
    });

    struct UnderWay(&'static Guests);

    impl Drop for UnderWay {
        fn drop(&mut self) {
            self.0.under_way.fetch_sub(1, Ordering::Relaxed);
        }
    }

    let fewest = GUESTS.iter().min_by_key(|guests| guests.under_way.load(Ordering::Relaxed)).expect("there are some");
    fewest.under_way.fetch_add(1, Ordering::Relaxed);
    let under_way = UnderWay(fewest);
    fewest.handle.spawn(async move {
        let _under_way = under_way;
        run.await;
    });
}

/// On a thread that ends with the run: there is one run of a check at a time, so one thread.
fn alone(run: impl Future<Output = ()> + Send + 'static) {
    let spawned = thread::Builder::new().name("health-alone".to_owned()).spawn(move || runtime().block_on(run));
    if let Err(error) = spawned {
        // The run is dropped, and says so by its end.
        tracing::error!(%error, "no thread for a health check that blocks");
    }
}

fn on_a_thread(name: &str) -> Handle {
    let runtime = runtime();
    let handle = runtime.handle().clone();
    thread::Builder::new()
        .name(name.to_owned())
        .spawn(move || runtime.block_on(std::future::pending::<()>()))
        .expect("no thread for health checks");
    handle
}

fn runtime() -> Runtime {
    Builder::new_current_thread().enable_all().build().expect("no runtime for health checks")
}
