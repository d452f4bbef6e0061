//! [`CheckOptions`]: how a check runs and counts, and [`Role`]: what it does to the service while it is down.

use std::time::Duration;

use derive_more::Display;

/// The options of a [`Check`](crate::Check), as its setters or the [`Probe::OPTIONS`](crate::Probe::OPTIONS) of its resource have set them.
/// See there for their meaning.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct CheckOptions {
    /// What the check does to the service while it is down. Set by [`Check::critical`](crate::Check::critical),
    /// [`Check::optional`](crate::Check::optional) and [`Check::shared`](crate::Check::shared).
    pub role: Role,
    /// The limit of a run; `None` for the longest deadline of the scopes that show the check. Set by [`Check::timeout`](crate::Check::timeout).
    pub timeout: Option<Duration>,
    /// The maximum age of a result; `None` for that of the scope. Set by [`Check::max_age`](crate::Check::max_age).
    pub max_age: Option<Duration>,
    /// Whether the check counts for liveness. Set by [`Check::live`](crate::Check::live).
    pub live: bool,
    /// How many successes in a row bring the check up. Set by [`Check::rise`](crate::Check::rise).
    pub rise: u32,
    /// How many failures in a row take the check down. Set by [`Check::fall`](crate::Check::fall).
    pub fall: u32,
}

impl CheckOptions {
    /// The options of a [`Check`](crate::Check) on which no setter was called, also in constants, as for
    /// [`Probe::OPTIONS`](crate::Probe::OPTIONS).
    pub const fn new() -> Self {
        Self { role: Role::Critical, timeout: None, max_age: None, live: false, rise: 1, fall: 1 }
    }
}

impl Default for CheckOptions {
    fn default() -> Self {
        Self::new()
    }
}

/// What a check that is down does to the service.
#[derive(Clone, Copy, Debug, Default, Display, PartialEq, Eq, Hash)]
#[display("{}", self.as_str())]
#[non_exhaustive]
pub enum Role {
    /// The service is `DOWN`.
    #[default]
    Critical,
    /// The service is `DEGRADED`.
    Optional,
    /// `/health` is `DOWN`. Readiness is `DOWN` only until the service has started once, and `DEGRADED` from then on.
    Shared,
}

impl Role {
    /// Returns `critical`, `optional` or `shared`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Critical => "critical",
            Self::Optional => "optional",
            Self::Shared => "shared",
        }
    }
}
