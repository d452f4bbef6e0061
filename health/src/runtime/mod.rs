//! The threads of the library. Supervision and execution are separate, so that a check that blocks affects only itself:
//!
//! | thread | runs |
//! | --- | --- |
//! | `health` | the [`supervisor`], which records limits that have passed, and background tasks of the library. Never user code |
//! | `health-probes` | the library's own probes, in which hooks of the application's pools may run: see [`polling`] |
//! | `health-check` (up to 128) | users' checks; each run is polled on one thread to its end: see [`threads`] |
//! | `health-io` (up to 32) | I/O, timers and spawned tasks of users' checks: see [`check_io`] |
//! | `health-blocking` | blocking calls of users' checks |
//! | `health-log` | log subscribers |
//! | `health-drop` | destructors of what users own |
//!
//! A thread is started when it is first needed. Except for idle `health-check` and `health-blocking` threads, none ends before the
//! process. After a `fork` the child starts its own threads.

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

/// The number of log lines that wait for a slow subscriber. Further ones are dropped.
const MAX_DEFERRED: usize = 1024;

/// The runtime of an engine.
#[derive(Clone)]
pub(crate) enum Executor {
    /// That of the process.
    Global,
    /// One that runs everything on the tokio runtime of a test, whose clock may be paused.
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
            Self::Test(runtime) => runtime.test.as_ref().expect("it is a test runtime").start(runtime),
        }
    }
}

/// The threads of one process.
pub(crate) struct Runtime {
    process: u32,
    /// The tokio runtime of the thread `health`.
    handle: Handle,
    supervisor: Supervisor,
    polling: Arc<Polling>,
    probes: OnceCell<Handle>,
    check_threads: Arc<CheckThreads>,
    io_runtimes: IoRuntimes,
    log: OnceCell<SyncSender<Deferred>>,
    drops: OnceCell<SyncSender<Deferred>>,
    #[cfg(test)]
    test: Option<test::Faults>,
}

type Deferred = Box<dyn FnOnce() + Send>;

/// Whose code a run is, which determines the thread that polls it.
pub(crate) enum Work<'a> {
    /// A probe of the library, which does not block. Group and name are those of the check, for the log.
    Library { group: Arc<str>, name: Arc<str> },
    /// A user's check.
    User {
        io: &'a CheckIo,
        /// Whether anything still holds the check apart from the run.
        is_needed: Box<dyn Fn() -> bool + Send>,
    },
}

impl Runtime {
    fn of_this_process() -> io::Result<Arc<Self>> {
        static FIRST: OnceLock<Arc<Runtime>> = OnceLock::new();
        /// The runtime of a forked child, which does not have the threads of its parent.
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
            log: OnceCell::new(),
            drops: OnceCell::new(),
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
    /// The operating system cannot start a thread for it.
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
            Work::User { io, is_needed } => {
                let runtime = io.runtime(self.process, &self.io_runtimes)?;
                self.check_threads.execute(move || runtime.poll(run, is_needed))
            }
        }
    }

    /// Schedules a call of [`Supervised::expire`] by the supervisor.
    pub(crate) fn supervise(&self, supervised: Weak<dyn Supervised>, at: Instant) {
        self.supervisor.add(supervised, at);
    }

    /// Why runs may be waiting for a thread, for the log.
    pub(crate) fn wait_reason(&self) -> String {
        match (self.polling.blocked(), self.check_threads.wait_reason()) {
            (Some(blocked), _) => blocked,
            (None, Some(exhausted)) => exhausted,
            (None, None) => "the machine is overloaded".to_owned(),
        }
    }

    /// The probe that blocks the thread of the library's probes and for how long, for the log.
    pub(crate) fn blocked_by(&self) -> Option<String> {
        self.polling.blocked()
    }

    /// Runs a task of the library on the thread of the supervisor. It must not run user code.
    pub(crate) fn spawn_background(&self, task: impl Future<Output = ()> + Send + 'static) -> AbortHandle {
        self.handle.spawn(task).abort_handle()
    }

    /// The tokio runtime of background tasks, for example to register a signal with.
    pub(crate) fn handle(&self) -> &Handle {
        &self.handle
    }

    /// Calls a log subscriber on the thread `health-log`. The call is lost if that thread cannot be started, or is too slow.
    pub(crate) fn defer(&self, call: impl FnOnce() + Send + 'static) {
        #[cfg(test)]
        if self.test.is_some() {
            return call();
        }
        call_on("health-log", &self.log, call);
    }

    /// Drops a handle, and the value by [`Runtime::drop_later`] if it was the last one.
    pub(crate) fn release<T: Send + Sync + 'static>(&self, handle: Arc<T>) {
        if let Some(owned) = Arc::into_inner(handle) {
            self.drop_later(owned);
        }
    }

    /// Drops a value of the user's on the thread `health-drop`.
    pub(crate) fn drop_later<T: Send + 'static>(&self, owned: T) {
        #[cfg(test)]
        if self.test.is_some() {
            return drop(owned);
        }
        call_on("health-drop", &self.drops, move || drop(owned));
    }
}

fn call_on(thread: &'static str, calls: &OnceCell<SyncSender<Deferred>>, call: impl FnOnce() + Send + 'static) {
    // A lost call is leaked, because its destructor may be user code, too.
    match calls.get_or_try_init(|| start_deferred(thread)) {
        Ok(calls) => match calls.try_send(Box::new(call)) {
            Ok(()) => {}
            Err(TrySendError::Full(call) | TrySendError::Disconnected(call)) => std::mem::forget(call),
        },
        Err(_) => std::mem::forget(call),
    }
}

fn start_deferred(thread: &str) -> io::Result<SyncSender<Deferred>> {
    let (sender, calls) = mpsc::sync_channel::<Deferred>(MAX_DEFERRED);
    thread::Builder::new().name(thread.to_owned()).spawn(move || {
        for call in calls {
            // A panic of a subscriber or a destructor ends only this call. The panic hook has reported it.
            let _ = std::panic::catch_unwind(std::panic::AssertUnwindSafe(call));
        }
    })?;
    Ok(sender)
}

/// Builds a tokio runtime and drives it on a new thread until the process ends, so that connections opened on it stay usable.
fn drive(thread: &str, builder: &mut Builder) -> io::Result<Handle> {
    let runtime = builder.build()?;
    let handle = runtime.handle().clone();
    thread::Builder::new().name(thread.to_owned()).spawn(move || runtime.block_on(std::future::pending::<()>()))?;
    Ok(handle)
}

/// A runtime that runs everything on the tokio runtime of a test, and on which starting threads can fail.
#[cfg(test)]
mod test {
    use std::sync::atomic::{AtomicBool, Ordering};

    use super::{Arc, Future, Handle, Runtime, io};

    #[derive(Default)]
    pub(super) struct Faults {
        /// No thread can be started for a run.
        fails_to_spawn: AtomicBool,
        /// Not even the supervisor's thread can be started.
        fails_to_start: AtomicBool,
    }

    impl Faults {
        pub(super) fn start(&self, runtime: &Arc<Runtime>) -> io::Result<Arc<Runtime>> {
            if self.fails_to_start.load(Ordering::SeqCst) {
                Err(io::Error::other("no thread"))
            } else {
                Ok(Arc::clone(runtime))
            }
        }

        pub(super) fn spawn(&self, handle: &Handle, run: impl Future<Output = ()> + Send + 'static) -> io::Result<()> {
            if self.fails_to_spawn.load(Ordering::SeqCst) {
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

        pub(crate) fn fail_to_spawn(&self, fails: bool) {
            self.test.as_ref().expect("it is a test runtime").fails_to_spawn.store(fails, Ordering::SeqCst);
        }

        pub(crate) fn fail_to_start(&self, fails: bool) {
            self.test.as_ref().expect("it is a test runtime").fails_to_start.store(fails, Ordering::SeqCst);
        }
    }
}
