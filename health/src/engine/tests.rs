//! What users see of runs, limits and results, on a paused clock.

use std::{
    future::pending,
    sync::atomic::{AtomicU32, Ordering},
};

use tokio::{runtime::Handle, time::sleep};

use super::*;
use crate::{ProbeError, ProbeErrorKind, options::Role, report::Report, status::Status};

const CONFIG: EngineConfig = EngineConfig {
    deadline: Duration::from_millis(800),
    max_age: Duration::from_secs(1),
    refresh: None,
    if_empty: None,
};

fn engine(checks: impl IntoIterator<Item = Check>) -> Engine {
    let fixed = checks.into_iter().map(CheckEntry::Check).collect();
    Engine::new(Sources { fixed, ..Sources::default() }, CONFIG, test_executor())
}

fn test_executor() -> Executor {
    Executor::Test(Runtime::on(Handle::current()))
}

fn panics() -> Result<(), String> {
    panic!("s3cret payload")
}

async fn report(engine: &Engine) -> Report {
    report_of(engine, Selection::All).await
}

async fn report_of(engine: &Engine, selection: Selection<'_>) -> Report {
    Report::of(engine.results(selection, &[], false).await.entries)
}

fn latest(engine: &Engine) -> Report {
    Report::of(engine.latest_results(Selection::All, false))
}

async fn statuses(engine: &Engine) -> Vec<(String, Status, Option<String>)> {
    let results = engine.results(Selection::All, &[], false).await;
    let entry = |entry: &Entry| {
        let error = entry.outcome.error.as_deref().map(str::to_owned);
        (format!("{}.{}", entry.group, entry.name), entry.outcome.status, error)
    };
    results.entries.iter().map(entry).collect()
}

fn sleeping(name: &str, ms: u64) -> Check {
    Check::new("service", name, move || async move {
        sleep(Duration::from_millis(ms)).await;
        Ok::<_, String>(())
    })
}

#[tokio::test(start_paused = true)]
async fn four_checks_of_200_ms_each_take_200_ms_together() {
    let engine = engine(["a", "b", "c", "d"].map(|name| sleeping(name, 200)));
    let started = Instant::now();
    let report = report(&engine).await;
    let took = started.elapsed();
    assert_eq!(report.status(), Status::Up);
    // The clock of the runtime ticks in whole milliseconds.
    assert!((200..=202).contains(&took.as_millis()), "{took:?}");
}

#[tokio::test(start_paused = true)]
async fn a_report_is_ready_by_the_deadline_and_only_the_hung_check_is_down() {
    let hung = Check::new("cache", "hung", pending::<Result<(), String>>);
    let engine = engine([sleeping("fast", 10), hung]);
    let started = Instant::now();
    let reported = statuses(&engine).await;
    let took = started.elapsed();
    assert!((800..=802).contains(&took.as_millis()), "{took:?}");
    assert_eq!(
        reported,
        [
            ("service.fast".into(), Status::Up, None),
            ("cache.hung".into(), Status::Down, Some("timed out after 800 ms".into())),
        ]
    );
}

#[tokio::test(start_paused = true)]
async fn a_timeout_within_the_deadline_is_the_limit_of_the_run() {
    let limited = |name, ms| sleeping(name, 10_000).timeout(Duration::from_millis(ms));
    let engine = engine([limited("short", 250), limited("long", 5_000)]);
    let reported = statuses(&engine).await;
    assert_eq!(reported[0].2.as_deref(), Some("timed out after 250 ms"));
    assert_eq!(reported[1].2.as_deref(), Some("timed out after 800 ms"));
}

#[tokio::test(start_paused = true)]
async fn a_cached_report_runs_no_check_and_shows_no_old_result() {
    let runs = Arc::new(AtomicU32::new(0));
    let counted = Arc::clone(&runs);
    let check = Check::new("service", "counted", move || {
        counted.fetch_add(1, Ordering::SeqCst);
        async { Ok::<_, String>(()) }
    });
    let engine = engine([check]);
    assert_eq!(latest(&engine).status(), Status::Down, "no result yet");
    report(&engine).await;
    sleep(Duration::from_secs(59)).await;
    assert_eq!(latest(&engine).status(), Status::Up);
    sleep(Duration::from_secs(1)).await;
    let report = latest(&engine);
    assert_eq!((report.status(), report.checks()[0].error()), (Status::Down, Some("last result is 60 s old")));
    assert_eq!(runs.load(Ordering::SeqCst), 1);
}

#[tokio::test(start_paused = true)]
async fn a_result_is_reused_until_max_age() {
    let runs = Arc::new(AtomicU32::new(0));
    let counted = Arc::clone(&runs);
    let engine = engine([Check::new("a", "b", move || {
        counted.fetch_add(1, Ordering::SeqCst);
        async { Ok::<_, String>(()) }
    })]);
    statuses(&engine).await;
    sleep(Duration::from_millis(900)).await;
    statuses(&engine).await;
    assert_eq!(runs.load(Ordering::SeqCst), 1);
    sleep(Duration::from_millis(101)).await;
    statuses(&engine).await;
    assert_eq!(runs.load(Ordering::SeqCst), 2);
}

#[tokio::test(start_paused = true)]
async fn a_client_that_disconnects_does_not_cancel_the_run() {
    let runs = Arc::new(AtomicU32::new(0));
    let counted = Arc::clone(&runs);
    let engine = engine([Check::new("a", "b", move || {
        counted.fetch_add(1, Ordering::SeqCst);
        async {
            sleep(Duration::from_millis(200)).await;
            Ok::<_, String>(())
        }
    })]);
    let disconnected = tokio::time::timeout(Duration::from_millis(50), report(&engine)).await;
    assert!(disconnected.is_err());
    assert_eq!(statuses(&engine).await[0].1, Status::Up);
    assert_eq!(runs.load(Ordering::SeqCst), 1);
}

#[tokio::test(start_paused = true)]
async fn a_stuck_check_is_not_run_again_before_the_hard_limit_and_delays_no_report() {
    let runs = Arc::new(AtomicU32::new(0));
    let counted = Arc::clone(&runs);
    let engine = engine([Check::new("a", "b", move || {
        counted.fetch_add(1, Ordering::SeqCst);
        pending::<Result<(), String>>()
    })]);
    let started = Instant::now();
    statuses(&engine).await;
    for _ in 0..28 {
        sleep(Duration::from_secs(1)).await;
        let requested = Instant::now();
        assert_eq!(statuses(&engine).await[0].1, Status::Down);
        assert_eq!(requested.elapsed(), Duration::ZERO);
    }
    assert_eq!(runs.load(Ordering::SeqCst), 1);
    tokio::time::sleep_until(started + Duration::from_millis(30_002)).await;
    assert_eq!(statuses(&engine).await[0].1, Status::Down);
    assert_eq!(runs.load(Ordering::SeqCst), 2);
}

#[tokio::test(start_paused = true)]
async fn a_success_after_the_limit_is_not_up_and_the_next_request_runs_the_check_again() {
    let took = Arc::new(AtomicU32::new(1_500));
    let ms = Arc::clone(&took);
    let engine = engine([Check::new("database", "cold", move || {
        let ms = ms.load(Ordering::SeqCst);
        async move {
            sleep(Duration::from_millis(ms.into())).await;
            Ok::<_, String>(())
        }
    })]);
    assert_eq!(statuses(&engine).await[0].1, Status::Down);
    took.store(5, Ordering::SeqCst);
    sleep(Duration::from_millis(710)).await;
    assert_eq!(statuses(&engine).await[0].1, Status::Up);
}

#[tokio::test(start_paused = true)]
async fn a_panicking_check_is_down_and_the_others_are_up() {
    let in_future = Check::new("a", "future", || async { panics() });
    let in_call = Check::new("a", "call", || std::future::ready(panics()));
    let engine = engine([in_future, in_call, sleeping("fine", 10)]);
    let panicked = || (Status::Down, Some("the check panicked".to_owned()));
    let reported: Vec<_> = statuses(&engine).await.into_iter().map(|(_, status, error)| (status, error)).collect();
    assert_eq!(reported, [panicked(), panicked(), (Status::Up, None)]);
}

#[tokio::test(start_paused = true)]
async fn rise_and_fall_damp_the_shown_status() {
    // One result per second (true is up), and the status shown after it with fall 2 and rise 3.
    let raw = [true, false, true, false, false, true, true, false, true, true, true];
    let shown = [true, true, true, true, false, false, false, false, false, false, true];
    let step = Arc::new(AtomicU32::new(0));
    let engine = engine([Check::new("a", "b", move || {
        let up = raw[step.fetch_add(1, Ordering::SeqCst) as usize];
        async move { if up { Ok(()) } else { Err("down") } }
    })
    .fall(2)
    .rise(3)]);
    for (at, up) in shown.into_iter().enumerate() {
        let status = statuses(&engine).await[0].1;
        assert_eq!(status == Status::Up, up, "result {at}");
        sleep(Duration::from_secs(1)).await;
    }
}

#[tokio::test]
async fn two_checks_of_one_name_are_down_and_the_error_has_the_name() {
    let engine = engine([sleeping("main", 0), sleeping("other", 0), sleeping("main", 0)]);
    let reported = statuses(&engine).await;
    assert_eq!(reported.len(), 2);
    assert_eq!(reported[0].1, Status::Down);
    assert!(reported[0].2.as_deref().unwrap().starts_with("two checks are named service.main"), "{reported:?}");
    assert_eq!(reported[1].1, Status::Up);
}

#[tokio::test]
async fn a_check_from_two_sources_is_one_check() {
    let check = sleeping("main", 0);
    let engine = engine([check.clone(), check]);
    assert_eq!(statuses(&engine).await, [("service.main".into(), Status::Up, None)]);
}

#[tokio::test]
async fn a_check_that_is_invalid_is_down_with_the_reason_and_does_not_run() {
    let (runs, check) = counted("main");
    let engine = engine([check.timeout(Duration::ZERO)]);
    let expected = ("service.main".into(), Status::Down, Some("timeout must be greater than zero".into()));
    assert_eq!(statuses(&engine).await, [expected]);
    assert_eq!(runs.load(Ordering::SeqCst), 0);
}

#[tokio::test]
async fn an_engine_without_checks_is_down_unless_it_may_be_empty() {
    for (if_empty, status) in [(Some("there are no checks"), Status::Down), (None, Status::Up)] {
        let engine = Engine::new(Sources::default(), EngineConfig { if_empty, ..CONFIG }, test_executor());
        let report = report(&engine).await;
        assert_eq!((report.status(), report.checks().first().and_then(|check| check.error())), (status, if_empty));
    }
}

#[tokio::test]
async fn only_selected_checks_run() {
    let engine = engine([
        sleeping("a", 0),
        Check::new("cache", "b", || async { Err(ProbeError::new(ProbeErrorKind::Failed, "it ran")) }),
    ]);
    assert_eq!(report_of(&engine, Selection::Group("service")).await.status(), Status::Up);
    assert!(!engine.contains(Selection::Check("service", "b")));
    assert!(!engine.contains(Selection::Group("queue")));
    assert!(engine.contains(Selection::Check("cache", "b")));
    assert_eq!(report_of(&engine, Selection::Check("cache", "b")).await.status(), Status::Down);
}

#[tokio::test]
async fn checks_can_be_registered_and_unregistered_between_reports() {
    let registry = Registry::new();
    let sources = Sources {
        fixed: vec![CheckEntry::Check(sleeping("fixed", 0))],
        registries: vec![registry.clone()],
        ..Sources::default()
    };
    let engine = Engine::new(sources, CONFIG, test_executor());
    assert_eq!(statuses(&engine).await.len(), 1);
    registry.register(sleeping("late", 0)).unwrap();
    assert_eq!(statuses(&engine).await.len(), 2);
    registry.unregister("service", "late");
    assert_eq!(statuses(&engine).await.len(), 1);
}

fn counted(name: &str) -> (Arc<AtomicU32>, Check) {
    let runs = Arc::new(AtomicU32::new(0));
    let counted = Arc::clone(&runs);
    let check = Check::new("service", name, move || {
        counted.fetch_add(1, Ordering::SeqCst);
        async { Ok::<_, String>(()) }
    });
    (runs, check)
}

fn refreshed(checks: impl IntoIterator<Item = Check>) -> Engine {
    let fixed = checks.into_iter().map(CheckEntry::Check).collect();
    let config = EngineConfig { refresh: Some(Duration::from_secs(5)), ..CONFIG };
    Engine::new(Sources { fixed, ..Sources::default() }, config, test_executor())
}

#[tokio::test(start_paused = true)]
async fn with_refresh_only_the_first_report_waits_and_none_runs_checks() {
    let (runs, check) = counted("a");
    let engine = refreshed([check, sleeping("slow", 200)]);
    let started = Instant::now();
    assert!(statuses(&engine).await.iter().all(|(_, status, _)| *status == Status::Up));
    assert!((200..=202).contains(&started.elapsed().as_millis()));
    for _ in 0..100 {
        let requested = Instant::now();
        statuses(&engine).await;
        assert_eq!(requested.elapsed(), Duration::ZERO);
        sleep(Duration::from_millis(600)).await;
    }
    // One run every 4.5 to 5.5 s, for a minute.
    let runs = runs.load(Ordering::SeqCst);
    assert!((11..=14).contains(&runs), "{runs}");
}

#[tokio::test(start_paused = true)]
async fn results_that_are_not_refreshed_become_down_after_three_intervals() {
    let (_, check) = counted("a");
    let engine = refreshed([check]);
    assert_eq!(statuses(&engine).await[0].1, Status::Up);
    engine.refresher.lock().as_ref().unwrap().task.abort();
    sleep(Duration::from_secs(15)).await;
    assert_eq!(statuses(&engine).await[0].1, Status::Up);
    sleep(Duration::from_secs(1)).await;
    assert_eq!(statuses(&engine).await[0], ("service.a".into(), Status::Down, Some("last result is 16 s old".into())));
}

#[tokio::test(start_paused = true)]
async fn dropping_an_engine_ends_its_background_task() {
    let (runs, check) = counted("a");
    let engine = refreshed([check]);
    statuses(&engine).await;
    drop(engine);
    let before = runs.load(Ordering::SeqCst);
    sleep(Duration::from_mins(1)).await;
    assert_eq!(runs.load(Ordering::SeqCst), before);
    // That of the supervisor.
    assert_eq!(Handle::current().metrics().num_alive_tasks(), 1);
}

#[tokio::test(start_paused = true)]
async fn ten_thousand_polls_of_a_hung_check_leave_one_task() {
    let engine = engine([Check::new("a", "b", pending::<Result<(), String>>)]);
    for poll in 0..10_000 {
        statuses(&engine).await;
        // That of the run, and that of the supervisor.
        assert_eq!(Handle::current().metrics().num_alive_tasks(), 2, "poll {poll}");
        sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_later_scope_with_a_longer_deadline_gets_the_result_of_the_run_in_flight() {
    for polled_after in [50, 150, 250] {
        let slow = sleeping("slow", 300);
        let with = |ms| {
            let config = EngineConfig { deadline: Duration::from_millis(ms), ..CONFIG };
            let fixed = vec![CheckEntry::Check(slow.clone())];
            Engine::new(Sources { fixed, ..Sources::default() }, config, test_executor())
        };
        let (first, second) = (with(100), with(3_000));
        let later = async {
            sleep(Duration::from_millis(polled_after)).await;
            statuses(&second).await
        };
        let (first, second) = tokio::join!(statuses(&first), later);
        assert_eq!(first[0].2.as_deref(), Some("timed out after 100 ms"));
        assert_eq!(second[0].1, Status::Up, "polled after {polled_after} ms: {second:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_check_whose_abandoned_future_panics_on_drop_runs_again() {
    struct PanicsOnDrop;

    impl Drop for PanicsOnDrop {
        fn drop(&mut self) {
            panic!("in the destructor")
        }
    }

    let runs = AtomicU32::new(0);
    let engine = engine([Check::new("a", "b", move || {
        let is_first = runs.fetch_add(1, Ordering::SeqCst) == 0;
        async move {
            if is_first {
                let _guard = PanicsOnDrop;
                pending::<()>().await;
            }
            Ok::<_, String>(())
        }
    })]);
    assert_eq!(statuses(&engine).await[0].1, Status::Down);
    sleep(Duration::from_secs(31)).await;
    assert_eq!(statuses(&engine).await[0].1, Status::Up);
}

#[tokio::test(start_paused = true)]
async fn a_timeout_beyond_the_deadline_is_the_limit_of_the_run() {
    let engine = engine([sleeping("slow", 2_000).timeout(Duration::from_secs(5))]);
    assert_eq!(statuses(&engine).await[0].2.as_deref(), Some("timed out after 800 ms"));
    sleep(Duration::from_millis(1_300)).await;
    // The run has succeeded within its limit meanwhile.
    assert_eq!(statuses(&engine).await[0].1, Status::Up);
}

#[tokio::test]
async fn unregistering_a_check_drops_it_at_once() {
    let (pool, registry) = (Arc::new(()), Registry::new());
    let owned = Arc::clone(&pool);
    let check = Check::new("database", "plugin", move || {
        let _pool = Arc::clone(&owned);
        async { Ok::<_, String>(()) }
    });
    registry.register(check).unwrap();
    let sources = Sources {
        fixed: vec![CheckEntry::Check(sleeping("fixed", 0))],
        registries: vec![registry.clone()],
        ..Sources::default()
    };
    let engine = Engine::new(sources, CONFIG, test_executor());
    assert_eq!(statuses(&engine).await.len(), 2);
    assert!(registry.unregister("database", "plugin"));
    assert_eq!(Arc::strong_count(&pool), 1);
    assert_eq!(statuses(&engine).await.len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_run_that_cannot_start_is_down_whatever_the_last_result_was() {
    let runtime = Runtime::on(Handle::current());
    let sources = Sources { fixed: vec![CheckEntry::Check(sleeping("up", 0))], ..Sources::default() };
    let engine = Engine::new(sources, CONFIG, Executor::Test(Arc::clone(&runtime)));
    assert_eq!(statuses(&engine).await[0].1, Status::Up);
    runtime.fail_to_spawn(true);
    for _ in 0..3 {
        sleep(Duration::from_millis(1_001)).await;
        let failed = ("service.up".into(), Status::Down, Some("the check could not start".into()));
        assert_eq!(statuses(&engine).await, [failed]);
    }
    runtime.fail_to_spawn(false);
    sleep(Duration::from_millis(1_001)).await;
    assert_eq!(statuses(&engine).await[0].1, Status::Up);
}

#[tokio::test(start_paused = true)]
async fn a_report_without_threads_has_an_error_and_a_later_one_is_complete() {
    let runtime = Runtime::on(Handle::current());
    let sources = Sources { fixed: vec![CheckEntry::Check(sleeping("up", 0))], ..Sources::default() };
    let engine = Engine::new(sources, CONFIG, Executor::Test(Arc::clone(&runtime)));
    runtime.fail_to_start(true);
    let message = "the threads of the health check cannot be started";
    assert_eq!(statuses(&engine).await, [("health.runtime".into(), Status::Down, Some(message.into()))]);
    runtime.fail_to_start(false);
    assert_eq!(statuses(&engine).await[0].1, Status::Up);
}

#[tokio::test(start_paused = true)]
async fn a_short_deadline_does_not_change_the_report_of_a_scope_with_a_longer_one() {
    let slow = sleeping("slow", 300);
    let with = |ms| {
        let config = EngineConfig { deadline: Duration::from_millis(ms), ..CONFIG };
        let fixed = vec![CheckEntry::Check(slow.clone())];
        Engine::new(Sources { fixed, ..Sources::default() }, config, test_executor())
    };
    let (short, long) = (with(100), with(3_000));
    let (first, second) = tokio::join!(statuses(&short), statuses(&long));
    assert_eq!(first[0].2.as_deref(), Some("timed out after 100 ms"));
    assert_eq!(second[0].1, Status::Up);
    for _ in 0..3 {
        sleep(Duration::from_millis(1_001)).await;
        assert_eq!(statuses(&short).await[0].1, Status::Down);
        assert_eq!(statuses(&long).await[0].1, Status::Up);
    }
}

#[tokio::test]
async fn a_check_that_blocks_its_thread_beyond_its_limit_is_down() {
    let blocking = Check::new("a", "b", || async {
        std::thread::sleep(Duration::from_millis(100));
        Ok::<_, String>(())
    });
    let engine = engine([blocking.timeout(Duration::from_millis(20))]);
    assert_eq!(statuses(&engine).await[0].2.as_deref(), Some("timed out after 20 ms"));
}

#[tokio::test(start_paused = true)]
async fn a_run_that_another_request_starts_meanwhile_does_not_count_as_a_timeout() {
    // `first` is fresh when the second request arrives, and due before `second` has a result for it.
    let engine = engine([sleeping("first", 200), sleeping("second", 400)]);
    let first = report_of(&engine, Selection::Check("service", "first"));
    let second = async {
        sleep(Duration::from_millis(100)).await;
        statuses(&engine).await
    };
    tokio::join!(first, second);
    // Now `first` has a result from 200 ms and `second` one from 500 ms, and other requests run `first` meanwhile.
    sleep(Duration::from_millis(1_000)).await;
    let all = async {
        let up = |(_, status, _): &(String, Status, Option<String>)| *status == Status::Up;
        assert!(statuses(&engine).await.iter().all(up));
    };
    let other = async {
        for _ in 0..20 {
            sleep(Duration::from_millis(20)).await;
            let report = report_of(&engine, Selection::Check("service", "first")).await;
            assert_eq!(report.status(), Status::Up);
        }
    };
    tokio::join!(all, other);
}

#[tokio::test(start_paused = true)]
async fn a_hung_check_counts_towards_fall_each_time_a_result_is_due() {
    let first = Arc::new(AtomicU32::new(0));
    let engine = engine([Check::new("a", "b", move || {
        let first = first.fetch_add(1, Ordering::SeqCst) == 0;
        async move { if first { Ok::<_, String>(()) } else { pending().await } }
    })
    .fall(3)]);
    let started = Instant::now();
    while statuses(&engine).await[0].1 == Status::Up {
        sleep(Duration::from_secs(1)).await;
    }
    // The run at 1 s times out at 1.8 s, and counts twice more when a result is due.
    assert!(started.elapsed() < Duration::from_millis(4_900), "{:?}", started.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_run_that_starts_during_a_report_does_not_count_as_a_timeout_in_any_order() {
    for names in [["slow", "quick"], ["quick", "slow"]] {
        let check = |name: &str| sleeping(name, if name == "slow" { 700 } else { 750 });
        let engine = engine(names.map(check));
        statuses(&engine).await;
        // The result of `quick` is 50 ms younger than that of `slow`.
        sleep(Duration::from_millis(980)).await;
        let all = statuses(&engine);
        let other = async {
            sleep(Duration::from_millis(150)).await;
            report_of(&engine, Selection::Check("service", "quick")).await.status()
        };
        let (all, other) = tokio::join!(all, other);
        assert!(all.iter().all(|(_, status, _)| *status == Status::Up), "{all:?}");
        assert_eq!(other, Status::Up);
    }
}

#[tokio::test(start_paused = true)]
async fn without_max_age_each_of_many_clients_gets_the_result_of_the_run_it_joined() {
    let config = EngineConfig { max_age: Duration::ZERO, ..CONFIG };
    let sources = Sources { fixed: vec![CheckEntry::Check(sleeping("slow", 500))], ..Sources::default() };
    let engine = Arc::new(Engine::new(sources, config, test_executor()));
    let clients: Vec<_> = (0..50)
        .map(|n| {
            let engine = Arc::clone(&engine);
            tokio::spawn(async move {
                sleep(Duration::from_millis(n * 13)).await;
                for _ in 0..10 {
                    assert_eq!(statuses(&engine).await[0].1, Status::Up);
                }
            })
        })
        .collect();
    for client in clients {
        client.await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn with_refresh_a_check_that_is_registered_later_runs_at_once() {
    let registry = Registry::new();
    let config = EngineConfig { refresh: Some(Duration::from_mins(1)), ..CONFIG };
    let sources = Sources {
        fixed: vec![CheckEntry::Check(sleeping("first", 0))],
        registries: vec![registry.clone()],
        ..Sources::default()
    };
    let engine = Engine::new(sources, config, test_executor());
    statuses(&engine).await;
    registry.register(sleeping("late", 100)).unwrap();
    assert!(statuses(&engine).await.iter().all(|(_, status, _)| *status == Status::Up));
}

#[tokio::test]
async fn a_panic_payload_is_dropped_even_if_its_destructor_panics() {
    struct Payload(Arc<AtomicU32>, bool);

    impl Drop for Payload {
        fn drop(&mut self) {
            self.0.fetch_add(1, Ordering::SeqCst);
            assert!(!self.1, "in the destructor");
        }
    }

    let dropped = Arc::new(AtomicU32::new(0));
    for again in [false, true] {
        let counted = Arc::clone(&dropped);
        let check = Check::new("a", "b", move || -> std::future::Ready<Result<(), String>> {
            std::panic::panic_any(Payload(Arc::clone(&counted), again))
        });
        assert_eq!(statuses(&engine([check])).await[0].2.as_deref(), Some("the check panicked"));
    }
    assert_eq!(dropped.load(Ordering::SeqCst), 2);
}

#[tokio::test(start_paused = true)]
async fn a_probe_whose_resource_method_panics_runs_again() {
    #[derive(Clone)]
    struct PanicsInResource(Arc<AtomicU32>);

    impl crate::Probe for PanicsInResource {
        const GROUP: &'static str = "service";

        async fn probe(&self) -> Result<(), ProbeError> {
            if self.0.fetch_add(1, Ordering::SeqCst) == 0 {
                sleep(Duration::from_millis(1_200)).await;
            }
            Ok(())
        }

        fn resource(&self) -> Option<String> {
            panic!("in resource()")
        }
    }

    let engine = engine([Check::probe("panics", PanicsInResource(Arc::default()))]);
    assert_eq!(statuses(&engine).await[0].1, Status::Down);
    sleep(Duration::from_secs(1)).await;
    assert_eq!(statuses(&engine).await[0].1, Status::Up);
}

#[test]
fn checks_can_be_registered_while_reports_are_made() {
    let registry = Registry::new();
    let sources = Sources { fixed: Vec::new(), registries: vec![registry.clone()], ..Sources::default() };
    let engine = Engine::new(sources, CONFIG, Executor::Global);
    let (done, is_done) = std::sync::mpsc::channel();
    let registering = std::thread::spawn(move || {
        for _ in 0..20_000 {
            registry.register(Check::new("a", "b", || async { Ok::<_, String>(()) })).unwrap();
            registry.unregister("a", "b");
        }
        done.send(()).unwrap();
    });
    let reporting = std::thread::spawn(move || {
        while is_done.try_recv().is_err() {
            latest(&engine);
        }
    });
    // A deadlock of the two stops both for good.
    let deadline = std::time::Instant::now() + Duration::from_secs(60);
    while !(registering.is_finished() && reporting.is_finished()) {
        assert!(std::time::Instant::now() < deadline, "registering and reporting wait for each other");
        std::thread::sleep(Duration::from_millis(10));
    }
}

#[tokio::test(start_paused = true)]
async fn the_maximum_age_of_a_check_overrides_that_of_the_scope() {
    let (often, one) = counted("often");
    let (rarely, other) = counted("rarely");
    let engine = engine([one.max_age(Duration::ZERO), other.max_age(Duration::from_secs(30))]);
    for _ in 0..20 {
        statuses(&engine).await;
        sleep(Duration::from_millis(1_500)).await;
    }
    assert_eq!(often.load(Ordering::SeqCst), 20);
    assert_eq!(rarely.load(Ordering::SeqCst), 1);
    sleep(Duration::from_millis(1)).await;
    statuses(&engine).await;
    assert_eq!(rarely.load(Ordering::SeqCst), 2);
}

#[tokio::test(start_paused = true)]
async fn in_the_background_a_check_runs_at_its_own_maximum_age() {
    let (often, one) = counted("often");
    let (rarely, other) = counted("rarely");
    let (usual, third) = counted("usual");
    let engine = refreshed([one.max_age(Duration::from_secs(1)), other.max_age(Duration::from_secs(60)), third]);
    statuses(&engine).await;
    sleep(Duration::from_secs(300)).await;
    let runs = |count: &AtomicU32| count.load(Ordering::SeqCst);
    assert!((270..=340).contains(&runs(&often)), "{}", runs(&often));
    assert!((5..=7).contains(&runs(&rarely)), "{}", runs(&rarely));
    assert!((55..=68).contains(&runs(&usual)), "{}", runs(&usual));
    // A result of `rarely` is valid for three of its own intervals.
    assert!(statuses(&engine).await.iter().all(|(_, status, _)| *status == Status::Up));
}

#[tokio::test(start_paused = true)]
async fn in_the_background_a_check_without_a_maximum_age_runs_with_pauses() {
    let (runs, check) = counted("always");
    let engine = refreshed([check.max_age(Duration::ZERO)]);
    statuses(&engine).await;
    sleep(Duration::from_secs(10)).await;
    assert!((90..=112).contains(&runs.load(Ordering::SeqCst)), "{}", runs.load(Ordering::SeqCst));
}

#[tokio::test(start_paused = true)]
async fn an_excluded_check_does_not_run_and_has_no_path() {
    let (excluded_runs, excluded) = counted("excluded");
    let (runs, included) = counted("included");
    let fixed = [excluded, included].map(CheckEntry::Check).into();
    let filter = Filter { include: None, exclude: vec![(".exclude", "service.excluded".to_owned())] };
    let engine = Engine::new(Sources { fixed, filter, ..Sources::default() }, CONFIG, test_executor());
    assert_eq!(statuses(&engine).await.len(), 1);
    assert!(!engine.contains(Selection::Check("service", "excluded")));
    let results = engine.results(Selection::All, &["service".to_owned()], false).await;
    assert!(results.entries.is_empty());
    assert_eq!(results.excluded, ["service.included"]);
    assert_eq!((excluded_runs.load(Ordering::SeqCst), runs.load(Ordering::SeqCst)), (0, 1));
}

#[tokio::test(start_paused = true)]
async fn an_engine_whose_checks_are_all_excluded_is_up() {
    for filter in [
        Filter { include: None, exclude: vec![("HEALTHCHECK_EXCLUDE", "service".to_owned())] },
        Filter { include: Some(vec!["service.a".to_owned()]), exclude: vec![(".exclude", "service".to_owned())] },
    ] {
        let fixed = vec![CheckEntry::Check(sleeping("a", 0))];
        let engine = Engine::new(Sources { fixed, filter, ..Sources::default() }, CONFIG, test_executor());
        assert_eq!(report(&engine).await.status(), Status::Up);
        assert!(engine.pending_startup().is_empty());
    }
}

#[tokio::test(start_paused = true)]
async fn an_engine_is_down_if_no_check_matches_the_included_names() {
    let fixed = vec![CheckEntry::Check(sleeping("a", 0))];
    let filter = Filter { include: Some(vec!["Service".to_owned(), String::new()]), exclude: Vec::new() };
    let engine = Engine::new(Sources { fixed, filter, ..Sources::default() }, CONFIG, test_executor());
    let report = report(&engine).await;
    assert_eq!(report.status(), Status::Down);
    assert!(report.checks()[0].error().unwrap().starts_with("no check matches `.include`"));
}

#[tokio::test(start_paused = true)]
async fn a_service_has_started_once_each_check_that_is_not_optional_has_been_up() {
    let down = |name: &str| Check::new("service", name, || async { Err::<(), _>("down") });
    let engine = engine([sleeping("critical", 0), down("shared").shared(), down("optional").optional()]);
    let report = report(&engine).await;
    assert_eq!(report.checks()[1].role(), Role::Shared);
    assert_eq!(engine.pending_startup(), ["service.shared"]);
}
