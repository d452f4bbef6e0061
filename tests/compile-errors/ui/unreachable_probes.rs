//! Probes inside types that are not searched for probes.
use std::{
    collections::{HashMap, VecDeque},
    sync::{OnceLock, RwLock},
};

use health::{HealthCheck, Probe, ProbeError};

#[derive(Clone)]
struct Mailer;

impl Probe for Mailer {
    const GROUP: &'static str = "service";

    async fn probe(&self) -> Result<(), ProbeError> {
        Ok(())
    }
}

#[derive(HealthCheck)]
struct Nested {
    mailer: Mailer,
}

trait Storage: Send + Sync {}

impl Probe for dyn Storage {
    const GROUP: &'static str = "storage";

    async fn probe(&self) -> Result<(), ProbeError> {
        Ok(())
    }
}

#[derive(PartialEq, Eq, Hash)]
enum Region {
    Eu,
}

#[derive(HealthCheck)]
struct State {
    mailer: Mailer,
    locked: RwLock<Mailer>,
    both: (Mailer, u8),
    array: [Option<Mailer>; 2],
    queue: VecDeque<Nested>,
    later: OnceLock<Box<Nested>>,
    keyed: HashMap<Region, Mailer>,
    boxed: Box<dyn Storage>,
}

fn main() {}
