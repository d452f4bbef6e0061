//! The probes of the library, one module a backend, each behind the feature of its name: what exactly is asked, and what
//! each class of failure means.

// The backends' `cfg` lines are here and nowhere else.

#[cfg(feature = "redis")]
pub mod redis;
#[cfg(feature = "sqlx")]
pub mod sqlx;

#[cfg(any(feature = "redis", feature = "sqlx"))]
mod driver;

use crate::error::Class;

/// The class of a driver's error, by its type.
pub(crate) fn class_of(error: &(dyn std::error::Error + 'static)) -> Option<Class> {
    #[cfg(feature = "sqlx")]
    if let Some(error) = error.downcast_ref() {
        return Some(sqlx::class_of(error));
    }
    #[cfg(feature = "redis")]
    if let Some(error) = error.downcast_ref() {
        return Some(redis::class_of(error));
    }
    let _ = error;
    None
}
