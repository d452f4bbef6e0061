//! [`Status`]: whether a check or the whole service works.

use derive_more::Display;

/// The status of a check, or of the whole service.
#[derive(Clone, Copy, Debug, Display, PartialEq, Eq, Hash)]
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
