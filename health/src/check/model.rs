//! A property test of [`State`] against a model: random sequences of results, polls and clock steps, without a runtime.
//!
//! [`Simulation`] calls [`State`] as `run` does, one event at a time. The [`Model`] is simpler: it has neither run numbers nor
//! phases, only the start of a run and its planned end.

use std::time::{Duration, SystemTime};

use proptest::{prelude::*, strategy::ValueTree as _, test_runner::TestRunner};
use tokio::time::Instant;

use super::state::{Expired, Rules, Start, State, Timestamp};
use crate::{
    ProbeError, ProbeErrorKind,
    observe::Observations,
    status::Status::{self, Degraded, Down, Up},
};

const LIMIT: u64 = 800;
const HARD_LIMIT: u64 = 30_000;
const PROCESS: u32 = 1;

/// How a run ends.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Plan {
    /// A result after that time.
    Ends(u64, Status),
    /// Pending until its future is dropped.
    Hangs,
    /// Blocks its thread for that time, so that its future cannot be dropped before.
    Blocks(u64, Status),
}

impl Plan {
    /// The time from the start of the run to its end.
    fn duration(self) -> u64 {
        match self {
            Self::Ends(after, _) | Self::Blocks(after, _) => after,
            Self::Hangs => HARD_LIMIT,
        }
    }

    /// The result; `None` if the future is dropped before it has one.
    fn status(self) -> Option<Status> {
        match self {
            Self::Ends(after, status) | Self::Blocks(after, status) if after < HARD_LIMIT => Some(status),
            Self::Blocks(..) | Self::Ends(..) | Self::Hangs => None,
        }
    }
}

#[derive(Clone, Copy, Debug)]
enum Step {
    /// Sets how further runs end.
    Plan(Plan),
    /// Sets how long further runs wait for a thread.
    Queue(u64),
    Poll,
    Wait(u64),
}

fn step() -> impl Strategy<Value = Step> {
    let status = prop_oneof![3 => Just(Up), 3 => Just(Down), 1 => Just(Degraded)];
    let plan = prop_oneof![
        4 => status.clone().prop_map(|status| Plan::Ends(0, status)),
        2 => status.clone().prop_map(|status| Plan::Ends(300, status)),
        2 => status.clone().prop_map(|status| Plan::Ends(1_100, status)),
        1 => Just(Plan::Hangs),
        1 => status.prop_map(|status| Plan::Blocks(45_000, status)),
    ];
    let waits = prop_oneof![Just(37_u64), Just(211), Just(503), Just(997), Just(1_511), Just(7_013), Just(31_019)];
    prop_oneof![
        4 => plan.prop_map(Step::Plan),
        1 => prop_oneof![Just(0_u64), Just(450), Just(1_300)].prop_map(Step::Queue),
        6 => Just(Step::Poll),
        4 => waits.prop_map(Step::Wait),
    ]
}

fn result(status: Status) -> Result<(), ProbeError> {
    match status {
        Up => Ok(()),
        Degraded => Err(ProbeError::new(ProbeErrorKind::Saturated, "busy")),
        Down => Err(ProbeError::new(ProbeErrorKind::Failed, "down")),
    }
}

/// The status that a check shows, by the documented rules.
#[derive(Default)]
struct Model {
    rise: u32,
    fall: u32,
    /// The maximum age of a result, which a check can override.
    max_age: u64,
    shown: Option<Status>,
    streak: u32,
    finished: u64,
    due: bool,
    run: Option<ModelRun>,
    results: u64,
}

struct ModelRun {
    queued: u64,
    began: u64,
    plan: Plan,
    timed_out: bool,
    /// A timeout was recorded while the run waited for its thread.
    late_to_begin: bool,
}

impl Model {
    fn record(&mut self, status: Status, at: u64) {
        let required = if status == Down { self.fall } else { self.rise };
        match self.shown {
            Some(shown) if (shown == Down) != (status == Down) && self.streak + 1 < required => self.streak += 1,
            _ => (self.shown, self.streak) = (Some(status), 0),
        }
        (self.finished, self.due) = (at, false);
        self.results += 1;
    }

    /// The time of the next event.
    fn next(&self) -> Option<u64> {
        let run = self.run.as_ref()?;
        let ends = run.began + run.plan.duration();
        let mut next = ends;
        if !run.late_to_begin && run.queued + LIMIT < run.began {
            next = next.min(run.queued + LIMIT);
        }
        if !run.timed_out {
            next = next.min(run.began + LIMIT);
        }
        Some(next)
    }

    fn advance(&mut self, now: u64) {
        while let Some(at) = self.next().filter(|&at| at <= now) {
            let run = self.run.as_mut().expect("it has an event");
            if at < run.began {
                run.late_to_begin = true;
                self.record(Down, at);
            } else if !run.timed_out && at < run.began + run.plan.duration() {
                run.timed_out = true;
                self.record(Down, at);
            } else {
                let run = self.run.take().expect("it is there");
                match run.plan.status() {
                    Some(status) if !run.timed_out => self.record(status, at),
                    Some(Down | Degraded) => self.finished = at,
                    _ => self.due = true,
                }
            }
        }
    }

    fn poll(&mut self, now: u64, plan: Plan, queue: u64) {
        let is_fresh = self.shown.is_some() && !self.due && now < self.finished + self.max_age;
        if is_fresh {
            return;
        }
        match &self.run {
            None => {
                self.run =
                    Some(ModelRun { queued: now, began: now + queue, plan, timed_out: false, late_to_begin: false });
            }
            Some(run) if run.timed_out || (run.late_to_begin && now < run.began) => {
                // It counts once per maximum age, or once per limit if that is longer.
                if now >= self.finished + self.max_age.max(LIMIT) {
                    self.record(Down, now);
                }
            }
            Some(_) => {}
        }
    }

    /// Whether no event is within a millisecond of `now`, where the order of events would matter.
    fn is_clear(&self, now: u64) -> bool {
        let is_clear = |at: u64| at.abs_diff(now) > 1;
        let began = self.run.as_ref().is_none_or(|run| is_clear(run.began));
        let due = [self.max_age, self.max_age.max(LIMIT)].map(|age| is_clear(self.finished + age));
        began && self.next().is_none_or(is_clear) && (self.shown.is_none() || due == [true, true])
    }
}

/// The state machine with a clock, a thread for the run, and a supervisor.
struct Simulation {
    epoch: Instant,
    now: u64,
    state: State,
    rules: Rules,
    run: Option<Thread>,
}

struct Thread {
    number: u64,
    began: u64,
    has_begun: bool,
    ends: u64,
    plan: Plan,
}

impl Simulation {
    fn at(&self, ms: u64) -> Timestamp {
        Timestamp { instant: self.epoch + Duration::from_millis(ms), wall: SystemTime::UNIX_EPOCH }
    }

    fn ms(&self, at: Instant) -> u64 {
        u64::try_from(at.duration_since(self.epoch).as_millis()).unwrap()
    }

    /// Processes the events until that time, in order.
    fn advance(&mut self, to: u64) {
        loop {
            let thread = self.run.as_ref().map(|run| if run.has_begun { run.ends } else { run.began });
            let expiry = self.state.next_expiry(self.rules).map(|at| self.ms(at));
            let Some(next) = thread.into_iter().chain(expiry).min().filter(|&next| next <= to) else { break };
            self.now = self.now.max(next);
            let now = self.at(self.now);
            if thread == Some(next) {
                let run = self.run.as_mut().expect("it has a time");
                if run.has_begun {
                    let run = self.run.take().expect("it is there");
                    let result = run.plan.status().map(result);
                    self.state.finish(run.number, now, result.as_ref(), Observations::default(), self.rules);
                } else {
                    run.has_begun = true;
                    assert!(self.state.begin(run.number, now.instant));
                }
            } else if let Expired::Abandoned = self.state.expire(now, self.rules) {
                // A pending future is dropped at once, one that blocks its thread when that returns.
                let run = self.run.as_mut().expect("a run was abandoned");
                if !matches!(run.plan, Plan::Blocks(..)) {
                    run.ends = self.now;
                }
            }
        }
        self.now = to;
    }

    fn poll(&mut self, plan: Plan, queue: u64, max_age: u64) {
        let now = self.at(self.now);
        if let Start::New(number) = self.state.start(now, Duration::from_millis(max_age), self.rules, PROCESS) {
            assert!(self.run.is_none(), "two runs at a time");
            let began = self.now + queue;
            self.run = Some(Thread { number, began, has_begun: false, ends: began + plan.duration(), plan });
        }
    }

    fn shown(&self) -> Option<Status> {
        let outcome = self.state.latest_outcome(self.at(self.now).instant, Duration::MAX);
        outcome.map(|outcome| outcome.status)
    }
}

/// A check, its model, and how its next runs end.
struct Compared {
    simulation: Simulation,
    model: Model,
    plan: Plan,
    queue: u64,
}

impl Compared {
    fn new(rise: u32, fall: u32, max_age: u64) -> Self {
        let rules = Rules { limit: Duration::from_millis(LIMIT), rise, fall };
        Self {
            simulation: Simulation { epoch: Instant::now(), now: 0, state: State::default(), rules, run: None },
            model: Model { rise, fall, max_age, ..Model::default() },
            plan: Plan::Ends(0, Up),
            queue: 0,
        }
    }

    fn advance(&mut self, ms: u64) {
        self.simulation.advance(self.simulation.now + ms);
        self.model.advance(self.simulation.now);
    }

    /// Applies a step, and compares what is shown.
    fn step(&mut self, step: Step) -> Result<(), TestCaseError> {
        match step {
            Step::Plan(plan) => self.plan = plan,
            Step::Queue(queue) => self.queue = queue,
            Step::Wait(ms) => self.advance(ms),
            Step::Poll => {
                while !self.model.is_clear(self.simulation.now) {
                    self.advance(1);
                }
                self.simulation.poll(self.plan, self.queue, self.model.max_age);
                self.model.poll(self.simulation.now, self.plan, self.queue);
                // Beyond events at the same time.
                self.advance(2);
            }
        }
        prop_assert_eq!(self.simulation.shown(), self.model.shown);
        Ok(())
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 4_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_check_shows_what_the_model_shows(
        steps in prop::collection::vec(step(), 1..60),
        rise in 1_u32..3, fall in 1_u32..4, max_age in prop_oneof![Just(300_u64), Just(1_000), Just(7_000)],
    ) {
        let mut compared = Compared::new(rise, fall, max_age);
        for step in steps {
            compared.step(step)?;
        }
    }
}

#[test]
fn long_thirty_days_of_one_check_show_what_the_model_shows() {
    const THIRTY_DAYS: u64 = 30 * 24 * 60 * 60 * 1000;
    let mut random = TestRunner::default();
    let mut compared = Compared::new(2, 3, 1_000);
    let mut polls = 0;
    while compared.simulation.now < THIRTY_DAYS {
        let step = step().new_tree(&mut random).unwrap().current();
        polls += u32::from(matches!(step, Step::Poll));
        compared.step(step).unwrap();
    }
    println!("{polls} polls in 30 days");
}
