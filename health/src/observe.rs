//! [`observe`]: values that a run reports next to its result, such as the depth of a queue.

use std::{cell::RefCell, fmt};

use serde::{Serialize, Serializer};

use crate::redact::label;

/// The number of keys that a run can report.
const MAX_KEYS: usize = 16;

/// The length of a key.
const MAX_KEY_LEN: usize = 40;

tokio::task_local! {
    /// Set while the future of a run is polled.
    static OBSERVATIONS: RefCell<Observations>;
}

/// Attaches a value to the run of a check, from within the check or a [`Probe`](crate::Probe). `?details` shows it under `data`.
///
/// The key consists of 1 to 40 of the characters `a-z`, `0-9` and `_`; a value with another key is dropped, which a debug log line
/// records. A later value of the same key replaces an earlier one. A run can have 16 keys; further ones are dropped. Texts are cut,
/// and credentials in them are redacted.
///
/// Outside of a run, and in tasks that the check spawns, it has no effect.
///
/// # Examples
///
/// ```
/// let orders = health::Check::new("queue", "orders", || async {
///     let depth = 1204;
///     health::observe("depth", depth);
///     if depth < 10_000 { Ok(()) } else { Err("too many orders are waiting") }
/// });
/// ```
pub fn observe(key: &str, value: impl Into<Observation>) {
    // Converted before the values are borrowed: the conversion may be the user's.
    let value = value.into();
    let outcome = OBSERVATIONS.try_with(|observations| observations.borrow_mut().set(key, value));
    if let Ok(Err(reason)) = outcome {
        let key = label(key);
        tracing::debug!(key, "health: the observation {key} is dropped: {reason}");
    }
}

/// A value of [`observe`]: a number, a text or a bool.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum Observation {
    /// An integer.
    Integer(i64),
    /// Any other number.
    Float(f64),
    /// A text.
    Text(String),
    /// True or false.
    Bool(bool),
}

/// The values of a run, in the order of their first observation.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Observations(Vec<(String, Observation)>);

impl Observations {
    fn set(&mut self, key: &str, value: Observation) -> Result<(), &'static str> {
        let is_valid = |c: u8| c.is_ascii_lowercase() || c.is_ascii_digit() || c == b'_';
        if key.is_empty() || key.len() > MAX_KEY_LEN || !key.bytes().all(is_valid) {
            return Err("a key consists of 1 to 40 of the characters a-z, 0-9 and _");
        }
        if let Some((_, known)) = self.0.iter_mut().find(|(known, _)| known == key) {
            *known = value;
        } else if self.0.len() < MAX_KEYS {
            self.0.push((key.to_owned(), value));
        } else {
            return Err("the run has 16 keys already");
        }
        Ok(())
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (&str, &Observation)> {
        self.0.iter().map(|(key, value)| (&**key, value))
    }
}

/// Runs a future, and returns its output with the values that it observed.
pub(crate) async fn observing<F: Future>(future: F) -> (F::Output, Observations) {
    let observed = async {
        let output = future.await;
        (output, OBSERVATIONS.with(RefCell::take))
    };
    OBSERVATIONS.scope(RefCell::default(), observed).await
}

/// Serializes as the number, text or bool; a number that JSON does not have, such as NaN, as `null`.
impl Serialize for Observation {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Integer(value) => serializer.serialize_i64(*value),
            Self::Float(value) => serializer.serialize_f64(*value),
            Self::Text(value) => serializer.serialize_str(value),
            Self::Bool(value) => serializer.serialize_bool(*value),
        }
    }
}

impl fmt::Display for Observation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Integer(value) => value.fmt(f),
            Self::Float(value) => value.fmt(f),
            Self::Text(value) => value.fmt(f),
            Self::Bool(value) => value.fmt(f),
        }
    }
}

macro_rules! from_small_integers {
    ($($integer:ty),*) => {$(
        impl From<$integer> for Observation {
            fn from(value: $integer) -> Self {
                Self::Integer(value.into())
            }
        }
    )*};
}

from_small_integers!(i8, i16, i32, i64, u8, u16, u32);

macro_rules! from_large_integers {
    ($($integer:ty),*) => {$(
        impl From<$integer> for Observation {
            /// A number that is greater than [`i64::MAX`] becomes the nearest float.
            #[allow(clippy::cast_precision_loss, reason = "documented")]
            fn from(value: $integer) -> Self {
                i64::try_from(value).map_or(Self::Float(value as f64), Self::Integer)
            }
        }
    )*};
}

from_large_integers!(isize, u64, usize);

impl From<f32> for Observation {
    fn from(value: f32) -> Self {
        Self::Float(value.into())
    }
}

impl From<f64> for Observation {
    fn from(value: f64) -> Self {
        Self::Float(value)
    }
}

impl From<bool> for Observation {
    fn from(value: bool) -> Self {
        Self::Bool(value)
    }
}

impl From<&str> for Observation {
    /// The text is cut, and credentials in it are redacted.
    fn from(value: &str) -> Self {
        Self::Text(label(value))
    }
}

impl From<String> for Observation {
    /// The text is cut, and credentials in it are redacted.
    fn from(value: String) -> Self {
        value.as_str().into()
    }
}

#[cfg(test)]
pub(crate) fn observed<const N: usize>(values: [(&str, Observation); N]) -> Observations {
    Observations(values.map(|(key, value)| (key.to_owned(), value)).into())
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn values_of(observe: impl FnOnce()) -> Vec<(String, Observation)> {
        observing(async { observe() }).await.1.0
    }

    #[tokio::test]
    async fn a_later_value_replaces_an_earlier_one_and_invalid_keys_are_dropped() {
        let values = values_of(|| {
            observe("depth", 1);
            observe("", 1);
            observe("Depth", 1);
            observe("de pth", 1);
            observe(&"x".repeat(41), 1);
            observe("url", "amqp://bob:hunter2@queue");
            observe("depth", 1204_u64);
        })
        .await;
        assert_eq!(
            values,
            [
                ("depth".into(), Observation::Integer(1204)),
                ("url".into(), Observation::Text("amqp://***@queue".into()))
            ]
        );
    }

    #[tokio::test]
    async fn a_run_has_sixteen_keys_at_most() {
        let values = values_of(|| (0..20).for_each(|n| observe(&format!("key_{n}"), n))).await;
        assert_eq!(values.len(), 16);
        assert_eq!(values[15], ("key_15".into(), Observation::Integer(15)));
    }

    #[test]
    fn outside_of_a_run_an_observation_has_no_effect() {
        observe("depth", 1);
    }

    #[test]
    fn numbers_keep_their_value() {
        assert_eq!(Observation::from(i64::MIN), Observation::Integer(i64::MIN));
        assert_eq!(Observation::from(u64::MAX), Observation::Float(18_446_744_073_709_551_615.0));
        assert_eq!(serde_json::to_string(&Observation::from(1204)).unwrap(), "1204");
        assert_eq!(serde_json::to_string(&Observation::from(f64::NAN)).unwrap(), "null");
    }
}
