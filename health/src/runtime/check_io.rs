//! The tokio runtimes of users' checks. They drive I/O and timers, and run what a check spawns: tasks, and blocking calls such as
//! those of `actix_web::web::block`.
//!
//! A check keeps the runtime of its first run. The first [`MAX_RUNTIMES`] checks have one each, and further checks share these, so
//! a spawned task that blocks its thread usually stalls only the I/O of its own check. A runtime lives as long as the process, so
//! connections that a run opens outlive the run and the check.
//!
//! Dropping a run does not stop what it has spawned. So a run does not start while a task blocks the runtime, or while too many
//! blocking calls have not returned: otherwise each run could leave another task or thread behind.

use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use parking_lot::{Condvar, Mutex};
use tokio::runtime::{Builder, Handle};

use super::drive;

/// The maximum number of runtimes in use. Each costs a thread, three file descriptors, and about 11 KiB of memory, most of it for timers.
const MAX_RUNTIMES: usize = 32;

/// The maximum number of runtimes, with those that checks have left blocked when they were removed.
const MAX_RUNTIMES_EVER: usize = 128;

/// How often a run that waits for its runtime looks whether its check was removed.
const REMOVAL_INTERVAL: Duration = Duration::from_secs(1);

/// A check with this number of blocking calls that have not returned does not run until one of them returns.
const MAX_BLOCKING_CALLS: usize = 4;

/// tokio's default of 1,024 events costs 16 KiB, and a check has few connections.
const EVENTS_PER_TICK: usize = 64;

/// The runtimes of this process.
#[derive(Default)]
pub(super) struct IoRuntimes(Mutex<Vec<Arc<IoRuntime>>>);

/// The runtime of one check, once it has run.
#[derive(Default)]
pub(crate) struct CheckIo(Mutex<Option<Assigned>>);

struct Assigned {
    /// A forked child does not have the thread of the runtime.
    process: u32,
    runtime: Arc<IoRuntime>,
}

pub(super) struct IoRuntime {
    handle: Handle,
    /// The number of checks that use this runtime.
    checks: AtomicUsize,
    load: Arc<Load>,
}

/// What earlier runs have left on a runtime.
#[derive(Default)]
struct Load {
    state: Mutex<LoadState>,
    reduced: Condvar,
}

#[derive(Default)]
struct LoadState {
    /// Blocking calls that have not returned.
    blocking_calls: usize,
    /// When an empty task was spawned that has not been polled yet.
    ping_sent: Option<Instant>,
}

impl CheckIo {
    /// The runtime of the check, which the first call assigns.
    pub(super) fn runtime(&self, process: u32, runtimes: &IoRuntimes) -> io::Result<Arc<IoRuntime>> {
        let mut assigned = self.0.lock();
        if let Some(assigned) = assigned.as_ref().filter(|assigned| assigned.process == process) {
            return Ok(Arc::clone(&assigned.runtime));
        }
        let runtime = runtimes.assign()?;
        *assigned = Some(Assigned { process, runtime: Arc::clone(&runtime) });
        Ok(runtime)
    }

    /// Why the next run has to wait, if it does, for the log.
    pub(crate) fn wait_reason(&self) -> Option<String> {
        let assigned = self.0.lock();
        let runtime = &assigned.as_ref()?.runtime;
        let LoadState { blocking_calls, ping_sent } = *runtime.load.state.lock();
        let spawner = match runtime.checks.load(Ordering::Relaxed) {
            0 | 1 => "it".to_owned(),
            checks => format!("it or another of the {checks} checks of its runtime"),
        };
        if blocking_calls >= runtime.max_blocking_calls() {
            return Some(format!("{blocking_calls} blocking calls that {spawner} made have not returned"));
        }
        let since = ping_sent?.elapsed().as_millis();
        Some(format!("a task that {spawner} spawned blocks the runtime, for {since} ms"))
    }

    /// What may stall a run that has a thread, for the log.
    pub(crate) fn busy_reason(&self) -> Option<&'static str> {
        let assigned = self.0.lock();
        let is_busy = !assigned.as_ref()?.runtime.is_idle();
        is_busy.then_some("its runtime is busy: a task that it spawned may block the thread")
    }
}

impl Drop for Assigned {
    fn drop(&mut self) {
        // So that a runtime on which the check has left a task that blocks is not assigned again.
        self.runtime.ping_if_busy(&mut self.runtime.load.state.lock());
        self.runtime.checks.fetch_sub(1, Ordering::Relaxed);
    }
}

impl IoRuntimes {
    /// An unused runtime, else a new one, else the one that the fewest checks use. One on which a removed check has left something
    /// that blocks is not used again.
    fn assign(&self) -> io::Result<Arc<IoRuntime>> {
        let mut runtimes = self.0.lock();
        let in_use = runtimes.iter().filter(|runtime| runtime.checks.load(Ordering::Relaxed) > 0).count();
        let may_start = in_use < MAX_RUNTIMES && runtimes.len() < MAX_RUNTIMES_EVER;
        let least_used = runtimes.iter().min_by_key(|runtime| runtime.rank()).cloned();
        let runtime = match least_used {
            Some(unused) if unused.rank() == (false, 0) && unused.is_idle() => unused,
            least_used if may_start => match (IoRuntime::start(), least_used) {
                (Ok(new), _) => {
                    runtimes.push(Arc::clone(&new));
                    new
                }
                (Err(_), Some(shared)) => shared,
                (Err(error), None) => return Err(error),
            },
            Some(shared) => shared,
            None => unreachable!("there are {MAX_RUNTIMES} runtimes"),
        };
        runtime.checks.fetch_add(1, Ordering::Relaxed);
        Ok(runtime)
    }
}

impl IoRuntime {
    fn start() -> io::Result<Arc<Self>> {
        let load = Arc::<Load>::default();
        let (starting, stopping) = (Arc::clone(&load), Arc::clone(&load));
        let mut builder = Builder::new_current_thread();
        builder
            .enable_all()
            .max_io_events_per_tick(EVENTS_PER_TICK)
            // tokio calls the hooks only on threads of blocking calls. Idle ones end at once, so each thread is one call.
            .thread_name("health-blocking")
            .thread_keep_alive(Duration::ZERO)
            .on_thread_start(move || starting.state.lock().blocking_calls += 1)
            .on_thread_stop(move || {
                stopping.state.lock().blocking_calls -= 1;
                stopping.reduced.notify_all();
            });
        Ok(Arc::new(Self { handle: drive("health-io", &mut builder)?, checks: AtomicUsize::new(0), load }))
    }

    /// Runtimes with a lower rank are assigned first.
    fn rank(&self) -> (bool, usize) {
        let LoadState { blocking_calls, ping_sent } = *self.load.state.lock();
        (ping_sent.is_some() || blocking_calls > 0, self.checks.load(Ordering::Relaxed))
    }

    fn max_blocking_calls(&self) -> usize {
        MAX_BLOCKING_CALLS * self.checks.load(Ordering::Relaxed).max(1)
    }

    /// Waits until the runtime is usable, and polls a run on this thread to its end. Drops it if it is no longer needed by then.
    pub(super) fn poll(&self, run: impl Future<Output = ()>, is_needed: impl Fn() -> bool) {
        if self.wait_until_usable(is_needed) {
            self.handle.block_on(run);
        }
    }

    fn wait_until_usable(&self, is_needed: impl Fn() -> bool) -> bool {
        let mut state = self.load.state.lock();
        self.ping_if_busy(&mut state);
        while state.ping_sent.is_some() || state.blocking_calls >= self.max_blocking_calls() {
            let is_due = self.load.reduced.wait_for(&mut state, REMOVAL_INTERVAL).timed_out();
            if is_due && !is_needed() {
                return false;
            }
        }
        true
    }

    /// Spawns an empty task, unless none is needed to know that no task blocks the runtime.
    fn ping_if_busy(&self, state: &mut LoadState) {
        if state.ping_sent.is_some() || self.is_idle() {
            return;
        }
        state.ping_sent = Some(Instant::now());
        let load = Arc::clone(&self.load);
        self.handle.spawn(async move {
            load.state.lock().ping_sent = None;
            load.reduced.notify_all();
        });
    }

    /// Whether the thread of the runtime waits for events, so that no task blocks it. `false` does not imply the opposite.
    fn is_idle(&self) -> bool {
        #[cfg(target_has_atomic = "64")]
        return !self.handle.metrics().worker_park_unpark_count(0).is_multiple_of(2);
        #[cfg(not(target_has_atomic = "64"))]
        false
    }
}

#[cfg(test)]
mod tests {
    use std::{sync::mpsc, thread};

    use super::*;

    fn assign(checks: &[CheckIo], runtimes: &IoRuntimes) -> Vec<Arc<IoRuntime>> {
        checks.iter().map(|check| check.runtime(1, runtimes).unwrap()).collect()
    }

    fn new_checks<const N: usize>() -> [CheckIo; N] {
        std::array::from_fn(|_| CheckIo::default())
    }

    #[test]
    fn checks_have_a_runtime_each_and_share_evenly_above_the_maximum() {
        let runtimes = IoRuntimes::default();
        let checks = new_checks::<{ 2 * MAX_RUNTIMES }>();
        let mut assigned = assign(&checks, &runtimes);
        assert!(Arc::ptr_eq(&assigned[0], &checks[0].runtime(1, &runtimes).unwrap()), "a check keeps its runtime");
        assigned.sort_by_key(Arc::as_ptr);
        assigned.dedup_by(|a, b| Arc::ptr_eq(a, b));
        assert_eq!(assigned.len(), MAX_RUNTIMES);
        assert!(assigned.iter().all(|runtime| runtime.checks.load(Ordering::Relaxed) == 2));
        drop(checks);
        assert!(assigned.iter().all(|runtime| runtime.checks.load(Ordering::Relaxed) == 0));
    }

    #[test]
    fn the_runtime_of_a_dropped_check_is_reused_unless_a_task_blocks_it() {
        let runtimes = IoRuntimes::default();
        let first = CheckIo::default().runtime(1, &runtimes).unwrap();
        // Until the thread of the runtime has started, and has run the empty task that the dropped check may have spawned.
        while first.rank().0 || !first.is_idle() {
            thread::yield_now();
        }
        let second = CheckIo::default().runtime(1, &runtimes).unwrap();
        assert!(Arc::ptr_eq(&first, &second));

        let (unblock, blocked) = mpsc::channel::<()>();
        let (start, started) = mpsc::channel();
        first.handle.spawn(async move {
            start.send(()).unwrap();
            blocked.recv()
        });
        // Until it runs, the runtime may still look idle.
        started.recv().unwrap();
        let waiting = thread::spawn({
            let first = Arc::clone(&first);
            move || first.poll(async {}, || true)
        });
        while first.load.state.lock().ping_sent.is_none() {
            thread::yield_now();
        }
        let third = CheckIo::default().runtime(1, &runtimes).unwrap();
        assert!(!Arc::ptr_eq(&first, &third));
        unblock.send(()).unwrap();
        waiting.join().unwrap();
    }

    #[test]
    fn a_forked_process_assigns_its_own_runtimes() {
        let (parent, child) = (IoRuntimes::default(), IoRuntimes::default());
        let check = CheckIo::default();
        let before = check.runtime(1, &parent).unwrap();
        assert!(!Arc::ptr_eq(&before, &check.runtime(2, &child).unwrap()));
    }
}
