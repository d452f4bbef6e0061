//! [`sparkline`]: a bar for each of the latest results, the newest at the right.

use std::{fmt::Write as _, time::Duration};

use maud::{Markup, html};

use super::units::latency;
use crate::{report::Sample, status::Status};

const MAX_BARS: usize = 60;

/// The distance of two bars.
const PITCH: usize = 3;

/// The space at the left and at the right.
const MARGIN: usize = 2;

const WIDTH: usize = MAX_BARS * PITCH + 2 * MARGIN;

const HEIGHT: usize = 24;

/// The SVG, of one path for each status, because an element for each bar would be most of the page.
pub(super) fn sparkline(history: &[Sample]) -> Markup {
    let latest = &history[history.len().saturating_sub(MAX_BARS)..];
    let first = MARGIN + (MAX_BARS - latest.len()) * PITCH;
    let (mut up, mut degraded, mut down) = (String::new(), String::new(), String::new());
    for (index, sample) in latest.iter().enumerate() {
        let left = first + index * PITCH;
        // A bar is as wide as its stroke, and begins at `left`.
        let written = match sample.status {
            Status::Up => write!(up, "M{} {HEIGHT}v-{:.0}", left + 1, up_height(sample.latency)),
            Status::Degraded => write!(degraded, "M{} {HEIGHT}v-10m0-4v-10", left + 1),
            Status::Down => write!(down, "M{}.5 {HEIGHT}V0", left + 1),
        };
        written.expect("writing to a string never fails");
    }
    html! {
        @if !latest.is_empty() {
            svg role="img" aria-label=(label(latest)) width=(WIDTH) height=(HEIGHT) viewBox={ "0 0 " (WIDTH) " " (HEIGHT) }
                fill="none" stroke="currentColor" stroke-width="2" {
                @for (class, path) in [("up", up), ("degraded", degraded)] {
                    @if !path.is_empty() { path class=(class) d=(path) {} }
                }
                @if !down.is_empty() { path .down stroke-width="3" d=(down) {} }
            }
        }
    }
}

/// From 2 at 0.1 ms to 80 % of the height at 1 s, by the logarithm.
fn up_height(latency: Duration) -> f64 {
    const DECADES: f64 = 4.0;

    2.0 + (latency.as_secs_f64() / 1e-4).log10().clamp(0.0, DECADES) / DECADES * 17.0
}

fn label(samples: &[Sample]) -> String {
    let counts = [(Status::Up, "up"), (Status::Degraded, "degraded"), (Status::Down, "down")];
    let counts = counts.map(|(status, word)| (samples.iter().filter(|sample| sample.status == status).count(), word));
    let counts: Vec<_> =
        counts.iter().filter(|(count, _)| *count > 0).map(|(count, word)| format!("{count} {word}")).collect();
    let mut latencies: Vec<_> = samples.iter().map(|sample| sample.latency).collect();
    latencies.sort_unstable();
    let (median, max) = (latencies[(latencies.len() - 1) / 2], latencies[latencies.len() - 1]);
    let results = if samples.len() == 1 { "last result".to_owned() } else { format!("last {} results", samples.len()) };
    format!("{results}: {}; median {}, max {}", counts.join(", "), latency(median), latency(max))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn samples(statuses: impl IntoIterator<Item = (Status, u64)>) -> Vec<Sample> {
        let sample = |(status, us)| Sample { age: Duration::ZERO, latency: Duration::from_micros(us), status };
        statuses.into_iter().map(sample).collect()
    }

    #[test]
    fn the_label_counts_the_results_and_has_the_median_and_the_maximum_of_their_latencies() {
        let results = (0..57).map(|_| (Status::Up, 900)).chain([(Status::Down, 500_000); 3]);
        assert_eq!(label(&samples(results)), "last 60 results: 57 up, 3 down; median 0.9 ms, max 500 ms");
        let one = samples([(Status::Degraded, 12_400_000)]);
        assert_eq!(label(&one), "last result: 1 degraded; median 12.4 s, max 12.4 s");
        let two = samples([(Status::Up, 4), (Status::Up, 44)]);
        assert_eq!(label(&two), "last 2 results: 2 up; median < 0.01 ms, max 0.04 ms");
    }

    #[test]
    fn each_status_has_a_shape_of_its_own_and_the_newest_is_at_the_right() {
        let history = samples([(Status::Up, 50), (Status::Degraded, 1), (Status::Down, 1), (Status::Up, 2_000_000)]);
        let svg = sparkline(&history).into_string();
        for path in [
            r#"<path class="up" d="M171 24v-2M180 24v-19"></path>"#,
            r#"<path class="degraded" d="M174 24v-10m0-4v-10"></path>"#,
            r#"<path class="down" stroke-width="3" d="M177.5 24V0"></path>"#,
        ] {
            assert!(svg.contains(path), "{path}: {svg}");
        }
        assert!(svg.contains(r#"width="184" height="24" viewBox="0 0 184 24""#), "{svg}");
        assert_eq!(sparkline(&[]).into_string(), "");
    }

    #[test]
    fn sixty_results_fill_the_width() {
        let svg = sparkline(&samples([(Status::Down, 1); 70])).into_string();
        assert!(svg.contains(r#"d="M3.5 24V0M6.5 24V0M"#) && svg.contains(r#"M180.5 24V0""#), "{svg}");
        assert_eq!(svg.matches("V0").count(), 60);
    }
}
