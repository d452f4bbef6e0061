//! Times and durations for people.

use std::time::{Duration, SystemTime};

use maud::{Markup, html};

pub(super) use crate::render::json::timestamp as rfc3339;

/// `12:03:05 UTC (3 min)`, with the date if it is not that of `now`.
pub(super) fn time(time: SystemTime, now: SystemTime) -> Markup {
    let (at, today) = (rfc3339(time), rfc3339(now));
    html! {
        time datetime=(at) {
            @if at[..10] != today[..10] { (at[..10]) " " }
            (time_of_day(&at))
        }
        " "
        span .ago { "(" (age(now.duration_since(time).unwrap_or_default())) ")" }
    }
}

/// `12:03:05 UTC`
pub(super) fn time_of_day(rfc3339: &str) -> Markup {
    html! { (rfc3339[11..19]) " UTC" }
}

/// Rounded down, in the largest unit of which there are two.
pub(super) fn age(age: Duration) -> String {
    match age.as_secs() {
        0 => format!("{} ms", age.as_millis()),
        seconds @ 1..120 => format!("{seconds} s"),
        seconds @ 120..7_200 => format!("{} min", seconds / 60),
        seconds @ 7_200..172_800 => format!("{} h", seconds / 3_600),
        seconds => format!("{} d", seconds / 86_400),
    }
}

/// With two digits, or more if they are before the point.
pub(super) fn latency(latency: Duration) -> String {
    let ms = latency.as_secs_f64() * 1e3;
    match ms {
        ..0.01 => "< 0.01 ms".to_owned(),
        ..0.1 => format!("{ms:.2} ms"),
        ..10.0 => format!("{ms:.1} ms"),
        ..10_000.0 => format!("{ms:.0} ms"),
        _ => format!("{:.1} s", ms / 1e3),
    }
}
