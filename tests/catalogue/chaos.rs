//! Random faults over ten backends at once, each on a server of its own. At each poll the reported status is compared with the state of
//! the server.
//!
//! `CHAOS_MINUTES` (60 by default) is the duration, and `CHAOS_SEED` repeats the faults of an earlier run.

use std::{
    env,
    fmt::Write as _,
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use actix_web::{rt::System, web};
use fastrand::Rng;
use health::{HealthCheck, Probe};

use crate::{
    acceptance::{Backend, Password},
    common::{docs, responses::MAX_AGE, servers::FaultInjection as _, test_server::TestServer},
};

/// The time after a fault until the next run has a result: the age of the result before the fault, and the limit of a run.
const NOTICED: Duration = Duration::from_millis(500 + 800);

/// The time after a fault by which a driver has to be connected again, with the pauses between its attempts.
const RECOVERED: Duration = Duration::from_secs(15);

const POLL_INTERVAL: Duration = Duration::from_millis(200);

#[derive(Clone, Copy, Debug)]
enum Fault {
    /// The server is stopped for some seconds.
    Stop,
    /// The server is stopped and started at once.
    Restart,
    /// The server is frozen for some seconds.
    Freeze,
    /// Its connections are closed, as by a firewall that is restarted.
    Cut,
}

#[derive(Default)]
struct Outcome {
    faults: u32,
    polls: u32,
    false_up: u32,
    false_down: u32,
    slowest_recovery: Duration,
}

#[derive(HealthCheck)]
struct State<R> {
    #[health(probe)]
    resource: R,
}

struct Chaos<B: Backend> {
    name: &'static str,
    port: u16,
    server: B::Server,
    rig: TestServer,
    rng: Rng,
    outcome: Outcome,
}

impl<B: Backend> Chaos<B> {
    async fn start(name: &'static str, port: fn(&B::Server) -> u16, seed: u64) -> Self {
        let mut server = B::prepare();
        server.restart();
        let resource = B::open(&server, Password::Right).await.expect("a resource can be opened while its server runs");
        let state = web::Data::new(State { resource });
        let rig = TestServer::start(1, move |app| {
            app.service(health::scope().max_age(MAX_AGE).state(&state));
        });
        Self { name, port: port(&server), server, rig, rng: Rng::with_seed(seed), outcome: Outcome::default() }
    }

    fn some_seconds(&mut self) -> Duration {
        Duration::from_millis(self.rng.u64(2_500..12_000))
    }

    async fn status(&mut self) -> (String, String) {
        self.outcome.polls += 1;
        let response = self.rig.health().await;
        let status = response.json()["checks"][<B::Resource as Probe>::GROUP]["resource"].clone();
        (status.as_str().unwrap_or("none").to_owned(), response.body)
    }

    fn report(&self, what: &str, fault: Fault, since: Instant, body: &str) {
        println!("{}: {what} {:?} after {fault:?}: {body}", self.name, since.elapsed());
    }

    /// The server works: the check is UP, at the latest when the driver has had time to connect again.
    async fn works(&mut self, fault: Fault) {
        let (since, until) = (Instant::now(), Instant::now() + self.some_seconds());
        let mut recovered = false;
        while Instant::now() < until || !recovered {
            let (status, body) = self.status().await;
            if status == "UP" {
                if !recovered {
                    self.outcome.slowest_recovery = self.outcome.slowest_recovery.max(since.elapsed());
                }
                recovered = true;
            } else if status == "DOWN" && (recovered && since.elapsed() > NOTICED || since.elapsed() > RECOVERED) {
                self.outcome.false_down += 1;
                self.report("false DOWN", fault, since, &body);
                if since.elapsed() > 2 * RECOVERED {
                    return;
                }
            }
            actix_web::rt::time::sleep(POLL_INTERVAL).await;
        }
    }

    /// The server does not respond: the check is DOWN as soon as a run has noticed.
    async fn fails(&mut self, fault: Fault) {
        let (since, until) = (Instant::now(), Instant::now() + self.some_seconds());
        while Instant::now() < until {
            let polled = Instant::now();
            let (status, body) = self.status().await;
            if status != "DOWN" && polled - since > NOTICED {
                self.outcome.false_up += 1;
                self.report("false UP", fault, since, &body);
            }
            actix_web::rt::time::sleep(POLL_INTERVAL).await;
        }
    }

    async fn fault(&mut self) -> Fault {
        let fault =
            *self.rng.choice(&[Fault::Stop, Fault::Restart, Fault::Freeze, Fault::Cut]).expect("there are some");
        self.outcome.faults += 1;
        match fault {
            Fault::Stop => {
                self.server.stop();
                self.fails(fault).await;
                self.server.restart();
            }
            Fault::Restart => {
                self.server.stop();
                self.server.restart();
            }
            Fault::Freeze => {
                self.server.freeze();
                self.fails(fault).await;
                self.server.resume();
            }
            Fault::Cut => cut(self.port),
        }
        fault
    }
}

/// Closes all connections to a port of this machine.
fn cut(port: u16) {
    let port = format!(":{port}");
    let status = Command::new("ss")
        .args(["-K", "dst", "127.0.0.1", "dport", "=", &port])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .expect("ss is installed with iproute2");
    assert!(status.success(), "ss: {status}");
}

fn run<B: Backend>(name: &'static str, port: fn(&B::Server) -> u16, seed: u64, until: Instant) -> Outcome {
    System::new().block_on(async {
        let mut chaos = Chaos::<B>::start(name, port, seed).await;
        let mut fault = Fault::Restart;
        while Instant::now() < until {
            chaos.works(fault).await;
            fault = chaos.fault().await;
        }
        chaos.works(fault).await;
        chaos.outcome
    })
}

#[test]
fn long_chaos_is_reported_as_it_is() {
    let number = |name: &str| env::var(name).ok().map(|value| value.parse::<u64>().expect("it is a number"));
    let minutes = number("CHAOS_MINUTES").unwrap_or(60);
    let seed = number("CHAOS_SEED").unwrap_or_else(|| fastrand::u64(..));
    println!("CHAOS_SEED={seed}");
    let until = Instant::now() + Duration::from_secs(60 * minutes);

    let mut backends = Vec::new();
    macro_rules! backends {
        ($($name:literal $backend:ty;)*) => {$(
            let seed = seed.wrapping_add(backends.len() as u64);
            backends.push(($name, thread::spawn(move || run::<$backend>($name, |server| server.port(), seed, until))));
        )*};
    }
    backends! {
        "sqlx, PostgreSQL" crate::sqlx::Postgres;
        "sqlx 0.8, MariaDB" crate::sqlx_0_8::MariaDb;
        "deadpool-postgres" crate::deadpool_postgres::Deadpool;
        "diesel" crate::diesel::R2d2;
        "deadpool-redis" crate::deadpool_redis::Deadpool;
        "bb8-redis" crate::bb8_redis::Bb8;
        "redis::aio::ConnectionManager" crate::redis::Manager;
        "fred" crate::fred::One;
        "async-nats" crate::nats::Core;
        "memcache" crate::memcache::Asynchronous;
    }

    let mut table = format!("Duration: {minutes} minutes. Seed: {seed}.\n\n");
    table += "| backend | faults | polls | false UP | false DOWN | slowest recovery |\n| --- | --- | --- | --- | --- | --- |\n";
    let mut false_reports = 0;
    for (name, backend) in backends {
        let outcome = backend.join().expect("the faults can be injected");
        false_reports += outcome.false_up + outcome.false_down;
        let _ = writeln!(
            table,
            "| {name} | {} | {} | {} | {} | {:.1} s |",
            outcome.faults,
            outcome.polls,
            outcome.false_up,
            outcome.false_down,
            outcome.slowest_recovery.as_secs_f64()
        );
    }
    println!("{table}");
    docs::update("chaos", &table);
    assert_eq!(false_reports, 0, "{table}");
}
