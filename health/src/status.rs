//! [`Status`]: whether a check or the whole service works.

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
