//! [`Status`]: whether a check or the whole service works, and [`Role`]: what a check that is down does to the service.

use derive_more::Display;
use serde::{Serialize, Serializer};

/// The status of a check, or of the whole service. A worse status is greater: `Up < Degraded < Down`.
///
/// # Examples
///
/// ```
/// use health::Status;
///
/// let worst = [Status::Up, Status::Down, Status::Degraded].into_iter().max();
/// assert_eq!(worst, Some(Status::Down));
/// assert_eq!(serde_json::to_string(&Status::Down)?, r#""DOWN""#);
/// # Ok::<_, serde_json::Error>(())
/// ```
#[derive(Clone, Copy, Debug, Display, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[display("{}", self.as_str())]
pub enum Status {
    /// It works.
    Up,
    /// It works with restrictions: an optional check is down, or a resource is saturated. The response code is 200.
    Degraded,
    /// It does not work. The response code is 503.
    Down,
}

impl Status {
    /// Returns `UP`, `DEGRADED` or `DOWN`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Up => "UP",
            Self::Degraded => "DEGRADED",
            Self::Down => "DOWN",
        }
    }
}

/// Serializes as `"UP"`, `"DEGRADED"` or `"DOWN"`.
impl Serialize for Status {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
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
