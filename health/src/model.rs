//! The engine against a model: random sequences of results, polls, registrations and clock steps, on a paused clock.
//!
//! The model knows nothing of tasks, locks and wake-ups: for each check, when its run began and what comes of it.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use proptest::prelude::*;
use tokio::{
    runtime::{self, Handle},
    time::{Instant, sleep},
};

use crate::{
    Check, ProbeError, ProbeErrorKind, Registry,
    engine::{Engine, Selection, Settings, Sources},
    home::Home,
    report::Status::{self, Degraded, Down, Up},
};

const DEADLINE: u64 = 800;
const MAX_AGE: u64 = 1_000;
const HARD_LIMIT: u64 = 30_000;

/// What comes of a run, and after how many milliseconds.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Answer {
    Now(Status),
    /// Within the limit.
    Late(Status),
    /// After the limit, and before the hard limit.
    TooLate(Status),
    Never,
}

impl Answer {
    fn after(self) -> u64 {
        match self {
            Self::Now(_) => 0,
            Self::Late(_) => 300,
            Self::TooLate(_) => 1_100,
            Self::Never => HARD_LIMIT,
        }
    }

    fn status(self) -> Status {
        match self {
            Self::Now(status) | Self::Late(status) | Self::TooLate(status) => status,
            Self::Never => Down,
        }
    }
}

#[derive(Clone, Debug)]
enum Step {
    /// From now on the check of that number answers so.
    Answers(usize, Answer),
    Poll,
    Wait(u64),
    Register(usize),
    Unregister(usize),
}

const CHECKS: usize = 3;

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let status = prop_oneof![3 => Just(Up), 3 => Just(Down), 1 => Just(Degraded)];
    let answer = prop_oneof![
        4 => status.clone().prop_map(Answer::Now),
        2 => status.clone().prop_map(Answer::Late),
        2 => status.prop_map(Answer::TooLate),
        1 => Just(Answer::Never),
    ];
    let waits = prop_oneof![Just(37_u64), Just(211), Just(503), Just(997), Just(1_511), Just(7_013), Just(31_019)];
    let step = prop_oneof![
        4 => (0..CHECKS, answer).prop_map(|(check, answer)| Step::Answers(check, answer)),
        6 => Just(Step::Poll),
        4 => waits.prop_map(Step::Wait),
        1 => (0..CHECKS).prop_map(Step::Register),
        1 => (0..CHECKS).prop_map(Step::Unregister),
    ];
    prop::collection::vec(step, 1..60)
}

/// What each number's check is made with: `rise`, `fall`, and whether it is critical.
const OPTIONS: [(u32, u32, bool); CHECKS] = [(1, 1, true), (2, 3, true), (1, 2, false)];

#[derive(Default)]
struct Model {
    shown: Option<Status>,
    against: u32,
    finished: u64,
    due: bool,
    /// When the run in flight began, and what comes of it.
    run: Option<(u64, Answer)>,
    overdue: bool,
}

impl Model {
    fn record(&mut self, number: usize, status: Status, at: u64) {
        (self.shown, self.against) = self.damped(number, status);
        (self.finished, self.due) = (at, false);
    }

    fn damped(&self, number: usize, status: Status) -> (Option<Status>, u32) {
        let (rise, fall, _) = OPTIONS[number];
        let needed = if status == Down { fall } else { rise };
        match self.shown {
            Some(shown) if (shown == Down) != (status == Down) && self.against + 1 < needed => {
                (Some(shown), self.against + 1)
            }
            _ => (Some(status), 0),
        }
    }

    /// When something happens next by itself.
    fn next(&self) -> Option<u64> {
        let (began, answer) = self.run?;
        let ends = began + answer.after();
        Some(if self.overdue { ends } else { ends.min(began + DEADLINE) })
    }

    fn advance(&mut self, number: usize, now: u64) {
        while let Some(at) = self.next().filter(|&at| at <= now) {
            let (began, answer) = self.run.expect("something happens to it");
            if self.overdue {
                (self.run, self.overdue) = (None, false);
                match answer {
                    // It failed after all: that is a result too, and as old as it is.
                    Answer::TooLate(Down | Degraded) => self.finished = at,
                    _ => self.due = true,
                }
            } else if at < began + DEADLINE {
                self.run = None;
                self.record(number, answer.status(), at);
            } else {
                self.overdue = true;
                self.record(number, Down, at);
            }
        }
    }

    fn start_if_due(&mut self, number: usize, now: u64, answer: Answer) -> bool {
        let fresh = self.shown.is_some() && !self.due && now < self.finished + MAX_AGE;
        if !fresh && self.overdue {
            // Still no answer, where a new one is due.
            self.record(number, Down, now);
        }
        let starts = self.run.is_none() && !fresh;
        if starts {
            self.run = Some((now, answer));
        }
        starts
    }

    /// Nothing happens so close to now that a rounded clock may see it on either side.
    fn is_clear(&self, now: u64) -> bool {
        let clear = |at: u64| at.abs_diff(now) > 5;
        self.next().is_none_or(clear) && (self.shown.is_none() || clear(self.finished + MAX_AGE))
    }
}

struct World {
    began: Instant,
    registry: Registry,
    engine: Engine,
    answers: [Arc<Mutex<Answer>>; CHECKS],
    runs: Arc<AtomicUsize>,
    models: BTreeMap<usize, Model>,
    /// In the order of registration.
    order: Vec<usize>,
    modelled_runs: usize,
}

impl World {
    fn new() -> Self {
        let registry = Registry::new();
        let settings = Settings {
            deadline: Duration::from_millis(DEADLINE),
            max_age: Duration::from_millis(MAX_AGE),
            refresh: None,
        };
        let sources = Sources { fixed: Vec::new(), registries: vec![registry.clone()] };
        Self {
            began: Instant::now(),
            registry,
            engine: Engine::new(sources, settings, Home::Given(Handle::current())),
            answers: std::array::from_fn(|_| Arc::new(Mutex::new(Answer::Now(Up)))),
            runs: Arc::default(),
            models: BTreeMap::new(),
            order: Vec::new(),
            modelled_runs: 0,
        }
    }

    fn now(&self) -> u64 {
        u64::try_from(self.began.elapsed().as_millis()).unwrap()
    }

    fn check(&self, number: usize) -> Check {
        let (answers, runs) = (Arc::clone(&self.answers[number]), Arc::clone(&self.runs));
        let (rise, fall, critical) = OPTIONS[number];
        let check = Check::new("model", number.to_string(), move || {
            runs.fetch_add(1, Ordering::SeqCst);
            let answer = *answers.lock().unwrap();
            async move {
                match answer {
                    Answer::Never => std::future::pending().await,
                    Answer::Now(_) => {}
                    late => sleep(Duration::from_millis(late.after())).await,
                }
                match answer.status() {
                    Up => Ok(()),
                    Degraded => Err(ProbeError::new(ProbeErrorKind::Saturated, "busy")),
                    Down => Err(ProbeError::new(ProbeErrorKind::Failed, "down")),
                }
            }
        });
        let check = check.rise(rise).fall(fall);
        if critical { check } else { check.optional() }
    }

    fn advance(&mut self) {
        let now = self.now();
        for (&number, model) in &mut self.models {
            model.advance(number, now);
        }
    }

    async fn step(&mut self, step: &Step) {
        match *step {
            Step::Answers(number, answer) => *self.answers[number].lock().unwrap() = answer,
            Step::Wait(ms) => sleep(Duration::from_millis(ms)).await,
            Step::Register(number) => {
                let registered = self.registry.register(self.check(number)).is_ok();
                assert_eq!(registered, !self.models.contains_key(&number));
                if registered {
                    self.models.insert(number, Model::default());
                    self.order.push(number);
                }
            }
            Step::Unregister(number) => {
                let removed = self.registry.unregister("model", &number.to_string());
                assert_eq!(removed, self.models.remove(&number).is_some());
                self.order.retain(|&other| other != number);
            }
            Step::Poll => self.poll().await,
        }
    }

    async fn poll(&mut self) {
        self.advance();
        while !self.models.values().all(|model| model.is_clear(self.now())) {
            sleep(Duration::from_millis(7)).await;
            self.advance();
        }
        let asked = self.now();
        for (&number, model) in &mut self.models {
            let answer = *self.answers[number].lock().unwrap();
            self.modelled_runs += usize::from(model.start_if_due(number, asked, answer));
        }
        let unsettled = self.models.values().filter(|model| !model.overdue).filter_map(Model::next);
        let answered = unsettled.max().map_or(asked, |at| at.min(asked + DEADLINE));

        let (report, ..) = self.engine.report(Selection::All, false).await.unwrap();
        let took = self.now() - asked;
        assert!(took.abs_diff(answered - asked) <= 3, "answered after {took} ms, and not {}", answered - asked);
        assert_eq!(self.runs.load(Ordering::SeqCst), self.modelled_runs, "runs");

        // Past what happens in the same tick.
        sleep(Duration::from_millis(7)).await;
        self.advance();
        let shown: Vec<_> =
            self.order.iter().map(|number| (number.to_string(), self.models[number].shown.unwrap())).collect();
        if shown.is_empty() {
            assert_eq!(report.status, Down);
            return;
        }
        let told: Vec<_> = report.entries.iter().map(|entry| (entry.name.to_string(), entry.outcome.status)).collect();
        assert_eq!(told, shown);
        let critical_down =
            self.order.iter().any(|&number| OPTIONS[number].2 && self.models[&number].shown == Some(Down));
        let expected = match (critical_down, shown.iter().all(|(_, status)| *status == Up)) {
            (true, _) => Down,
            (false, true) => Up,
            (false, false) => Degraded,
        };
        assert_eq!(report.status, expected);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_engine_answers_as_the_model_does(steps in steps()) {
        let runtime = runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap();
        runtime.block_on(async {
            let mut world = World::new();
            world.step(&Step::Register(0)).await;
            for step in &steps {
                world.step(step).await;
            }
            world.step(&Step::Poll).await;
        });
    }
}
