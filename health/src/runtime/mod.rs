//! Where things run. Supervision and execution are apart, so that a check can hurt only itself:
//!
//! | thread | runs |
//! | --- | --- |
//! | `health` | the [`supervisor`], which records what passed its limit, and background tasks of the library. Never user code |
//! | `health-probes` | the library's own probes. Hooks of the application's pools may run in them: see [`polling`] |
//! | `health-check` (up to 128) | users' checks, each run polled on one thread to its end: see [`threads`] |
//! | `health-io` (up to 32) | I/O, timers and spawned tasks of users' checks: see [`check_io`] |
//! | `health-blocking` | blocking calls of users' checks |
//! | `health-log` | log subscribers, and drops of what users own |
//!
//! Each thread is started by its first use. None ends before the process does, but for idle `health-check` threads.

mod check_io;
mod polling;
mod supervisor;
mod threads;

use std::{
    future::Future,
    io,
    sync::{
        Arc, OnceLock, Weak,
        mpsc::{self, SyncSender, TrySendError},
    },
    thread,
};

use once_cell::sync::OnceCell;
use parking_lot::Mutex;
use tokio::{
    runtime::{Builder, Handle},
    task::AbortHandle,
    time::Instant,
};

pub(crate) use self::{check_io::CheckIo, supervisor::Supervised};
use self::{check_io::IoRuntimes, polling::Polling, supervisor::Supervisor, threads::CheckThreads};

/// Log lines that may wait for a subscriber that is slow. Further ones are lost.
const MAX_DEFERRED: usize = 1024;

/// Where an engine runs its checks.
#[derive(Clone)]
pub(crate) enum Executor {
    /// On the threads of the process.
    Global,
    /// On the runtime of a test, whose clock may be paused.
    #[cfg(test)]
    Test(Arc<Runtime>),
}

impl Executor {
    /// # Errors
    ///
    /// The thread of the supervisor cannot be started. The next call tries again.
    pub(crate) fn runtime(&self) -> io::Result<Arc<Runtime>> {
        match self {
            Self::Global => Runtime::of_this_process(),
            #[cfg(test)]
            Self::Test(runtime) => runtime.test.as_ref().expect("it is one of a test").started(runtime),
        }
    }
}

/// The threads of one process.
pub(crate) struct Runtime {
    process: u32,
    /// The thread `health`.
    handle: Handle,
    supervisor: Supervisor,
    polling: Arc<Polling>,
    probes: OnceCell<Handle>,
    check_threads: Arc<CheckThreads>,
    io_runtimes: IoRuntimes,
    deferred: OnceCell<SyncSender<Deferred>>,
    #[cfg(test)]
    test: Option<test::Faults>,
}

type Deferred = Box<dyn FnOnce() + Send>;

/// What a run is, as far as it matters where it runs.
pub(crate) enum Work<'a> {
    /// A probe of the library, which never blocks by itself. The names are for the log.
    Library { group: Arc<str>, name: Arc<str> },
    /// Anything else.
    User { io: &'a CheckIo },
}

impl Runtime {
    fn of_this_process() -> io::Result<Arc<Self>> {
        static FIRST: OnceLock<Arc<Runtime>> = OnceLock::new();
        /// That of a process that was forked: none of the threads above is in it.
        static FORKED: Mutex<Option<Arc<Runtime>>> = Mutex::new(None);
        static STARTING: Mutex<()> = Mutex::new(());

        let process = std::process::id();
        if FIRST.get().is_none() {
            let _starting = STARTING.lock();
            if FIRST.get().is_none() {
                let started = Self::start(process)?;
                return Ok(Arc::clone(FIRST.get_or_init(|| started)));
            }
        }
        if let Some(runtime) = FIRST.get().filter(|runtime| runtime.process == process) {
            return Ok(Arc::clone(runtime));
        }
        let mut forked = FORKED.lock();
        match forked.as_ref().filter(|runtime| runtime.process == process) {
            Some(runtime) => Ok(Arc::clone(runtime)),
            None => Ok(Arc::clone(forked.insert(Self::start(process)?))),
        }
    }

    fn start(process: u32) -> io::Result<Arc<Self>> {
        Ok(Self::new(process, drive("health", Builder::new_current_thread().enable_all())?).supervised())
    }

    fn new(process: u32, handle: Handle) -> Self {
        Self {
            process,
            handle,
            supervisor: Supervisor::default(),
            polling: Arc::default(),
            probes: OnceCell::new(),
            check_threads: Arc::default(),
            io_runtimes: IoRuntimes::default(),
            deferred: OnceCell::new(),
            #[cfg(test)]
            test: None,
        }
    }

    fn supervised(self) -> Arc<Self> {
        let runtime = Arc::new(self);
        runtime.handle.spawn(supervisor::run(Arc::clone(&runtime)));
        runtime
    }

    /// The process that the threads belong to.
    pub(crate) fn process(&self) -> u32 {
        self.process
    }

    /// Starts a run.
    ///
    /// # Errors
    ///
    /// The operating system has no thread left for it.
    pub(crate) fn spawn(&self, work: Work<'_>, run: impl Future<Output = ()> + Send + 'static) -> io::Result<()> {
        #[cfg(test)]
        if let Some(test) = &self.test {
            return test.spawn(&self.handle, run);
        }
        match work {
            Work::Library { group, name } => {
                let probes = self
                    .probes
                    .get_or_try_init(|| drive("health-probes", Builder::new_current_thread().enable_all()))?;
                drop(probes.spawn(polling::watched(Arc::clone(&self.polling), (group, name), run)));
                Ok(())
            }
            Work::User { io } => {
                let runtime = io.runtime(self.process, &self.io_runtimes)?;
                self.check_threads.execute(move || runtime.poll(run))
            }
        }
    }

    /// Has the supervisor call [`Supervised::expire`] at that time.
    pub(crate) fn supervise(&self, supervised: Weak<dyn Supervised>, at: Instant) {
        self.supervisor.add(supervised, at);
    }

    /// Why runs of the library's probes or of users' checks may wait for a thread now.
    pub(crate) fn congestion(&self) -> String {
        match (self.polling.blocked(), self.check_threads.exhausted()) {
            (Some(blocked), _) => blocked,
            (None, Some(exhausted)) => exhausted,
            (None, None) => "the machine is overloaded".to_owned(),
        }
    }

    /// The probe that blocks the thread of the library's probes, and for how long, for the log.
    pub(crate) fn blocked_by(&self) -> Option<String> {
        self.polling.blocked()
    }

    /// Runs a task of the library beside the supervisor. It must not run user code.
    pub(crate) fn spawn_background(&self, task: impl Future<Output = ()> + Send + 'static) -> AbortHandle {
        self.handle.spawn(task).abort_handle()
    }

    /// The runtime of background tasks, to register with its I/O.
    pub(crate) fn handle(&self) -> &Handle {
        &self.handle
    }

    /// Calls user code that is neither a probe nor a check on a thread where it delays nothing else.
    pub(crate) fn defer(&self, call: impl FnOnce() + Send + 'static) {
        #[cfg(test)]
        if self.test.is_some() {
            return call();
        }
        let Ok(deferred) = self.deferred.get_or_try_init(start_deferred) else { return call() };
        match deferred.try_send(Box::new(call)) {
            Ok(()) => {}
            // It must not be dropped here, either: that may be user code, too.
            Err(TrySendError::Full(call) | TrySendError::Disconnected(call)) => std::mem::forget(call),
        }
    }

    /// Drops a handle, and what it owns on another thread if it is the last one.
    pub(crate) fn release<T: Send + Sync + 'static>(&self, handle: Arc<T>) {
        if let Some(owned) = Arc::into_inner(handle) {
            self.defer(move || drop(owned));
        }
    }
}

fn start_deferred() -> io::Result<SyncSender<Deferred>> {
    let (sender, calls) = mpsc::sync_channel::<Deferred>(MAX_DEFERRED);
    thread::Builder::new().name("health-log".to_owned()).spawn(move || {
        for call in calls {
            // A subscriber or a destructor that panics ends only itself; the panic hook has seen it.
            let _ = std::panic::catch_unwind(std::panic::AssertUnwindSafe(call));
        }
    })?;
    Ok(sender)
}

/// Builds a runtime and drives it on a thread of its own, to the end of the process: connections opened on it live as long.
fn drive(thread: &str, builder: &mut Builder) -> io::Result<Handle> {
    let runtime = builder.build()?;
    let handle = runtime.handle().clone();
    thread::Builder::new().name(thread.to_owned()).spawn(move || runtime.block_on(std::future::pending::<()>()))?;
    Ok(handle)
}

/// A runtime on which everything runs at one place, and that can fail.
#[cfg(test)]
mod test {
    use std::sync::atomic::{AtomicBool, Ordering};

    use super::{Arc, Future, Handle, Runtime, io};

    #[derive(Default)]
    pub(super) struct Faults {
        /// No thread for a run.
        refuses: AtomicBool,
        /// No thread at all.
        refuses_all: AtomicBool,
    }

    impl Faults {
        pub(super) fn started(&self, runtime: &Arc<Runtime>) -> io::Result<Arc<Runtime>> {
            if self.refuses_all.load(Ordering::SeqCst) {
                Err(io::Error::other("no thread"))
            } else {
                Ok(Arc::clone(runtime))
            }
        }

        pub(super) fn spawn(&self, handle: &Handle, run: impl Future<Output = ()> + Send + 'static) -> io::Result<()> {
            if self.refuses.load(Ordering::SeqCst) {
                return Err(io::Error::other("no thread"));
            }
            drop(handle.spawn(run));
            Ok(())
        }
    }

    impl Runtime {
        pub(crate) fn on(handle: Handle) -> Arc<Self> {
            Self { test: Some(Faults::default()), ..Self::new(std::process::id(), handle) }.supervised()
        }

        pub(crate) fn refuse(&self, refuses: bool) {
            self.test.as_ref().expect("it is one of a test").refuses.store(refuses, Ordering::SeqCst);
        }

        pub(crate) fn refuse_all(&self, refuses: bool) {
            self.test.as_ref().expect("it is one of a test").refuses_all.store(refuses, Ordering::SeqCst);
        }
    }
}
