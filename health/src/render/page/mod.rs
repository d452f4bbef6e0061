//! The page `/health/page`, for people. It is complete without script, and reads well without style.

mod checks;
mod sparkline;
mod units;

use std::time::SystemTime;

use maud::{DOCTYPE, Markup, PreEscaped, html};

use self::units::{rfc3339, time_of_day};
use crate::{
    report::{Entry, Overview, Release},
    status::Status,
};

const STYLE: &str = include_str!("page.css");
const SCRIPT: &str = include_str!("page.js");

/// How many names the summary lists.
const MAX_NAMES: usize = 5;

/// The `Content-Security-Policy`, with the hashes of the style and the script. A test computes them.
pub(crate) fn security_policy() -> &'static str {
    "default-src 'none'; style-src 'sha256-rrfwPJm4F9aGXnvhTtL/ODTm1VxOY78rgq8y1GeWTYo='; script-src 'sha256-NAxJXfuw5KjPA2D0fO8dvomqLL46mEhdg3wdvp2dJGM='; connect-src 'self'; img-src data:; base-uri 'none'; \
     form-action 'none'; frame-ancestors 'none'"
}

/// The HTML document. `refresh` is the interval in seconds at which a browser without script loads it again. `scope` is the URL of
/// `/health`, relative to that of the request: `./`, or `../` after a trailing slash.
pub(crate) fn body(overview: &Overview, refresh: Option<u32>, scope: &str) -> String {
    let Overview { health, release, .. } = overview;
    let status = health.status();
    let document = html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                title { (status) " · " (release.as_ref().map_or("health", |release| &*release.service)) }
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="color-scheme" content="light dark";
                // An interval of zero would load it without a pause.
                @if let Some(seconds @ 1..) = refresh {
                    noscript { meta http-equiv="refresh" content=(seconds); }
                }
                link rel="icon" href=(icon(status));
                style { (PreEscaped(STYLE)) }
            }
            body {
                header {
                    (heading(release.as_ref()))
                    button #updates type="button" hidden { "Pause updates" }
                }
                // For the script, which replaces only the heading and `main`.
                p #notice hidden {}
                p #announcement .visually-hidden role="status" {}
                main {
                    (banner(overview))
                    (strip(overview, scope))
                    (checks::table(health.checks(), overview.time))
                    (footer(overview, scope))
                }
                script { (PreEscaped(SCRIPT)) }
            }
        }
    };
    document.into_string()
}

fn heading(release: Option<&Release>) -> Markup {
    html! {
        h1 {
            @match release {
                Some(Release { service, version }) => { bdi { (service) } " " bdi .version { (version) } }
                None => "Health",
            }
        }
    }
}

/// The status, and the checks that cause it.
fn banner(overview: &Overview) -> Markup {
    let status = overview.health.status();
    // What the process says of itself is not a check.
    let checks: Vec<_> = overview.health.checks().iter().filter(|entry| entry.group() != "health").collect();
    html! {
        div .banner.(class(status)) {
            p .status { (shape_and_word(status)) }
            p {
                @if overview.is_draining { "Server is draining. " }
                @if let Some(held) = &overview.held { bdi { (capitalized(held)) } ". " }
                span #summary { (summary(&checks)) }
                @if let Some(since) = since(&checks) { " Since " (units::time(since, overview.time)) "." }
            }
        }
    }
}

fn summary(checks: &[&Entry]) -> Markup {
    let of = |status| checks.iter().filter(|check| check.status() == status).copied().collect::<Vec<_>>();
    let (down, degraded) = (of(Status::Down), of(Status::Degraded));
    let s = if checks.len() == 1 { "" } else { "s" };
    html! {
        @match (checks.len(), down.len(), degraded.len()) {
            (0, ..) => "No checks registered.",
            (1, 0, 0) => "1 check up.",
            (all, 0, 0) => { "All " (all) " checks up." }
            (all, 0, n) => { (n) " of " (all) " check" (s) " degraded: " (names(&degraded)) "." }
            (all, n, 0) => { (n) " of " (all) " check" (s) " down: " (names(&down)) "." }
            (all, n, m) => {
                (n) " of " (all) " checks down: " (names(&down)) "; " (m) " degraded: " (names(&degraded)) "."
            }
        }
    }
}

fn names(checks: &[&Entry]) -> Markup {
    html! {
        @for (index, check) in checks.iter().take(MAX_NAMES).enumerate() {
            @if index > 0 { ", " }
            bdi { (check.group()) "." (check.name()) }
        }
        @if checks.len() > MAX_NAMES { " and " (checks.len() - MAX_NAMES) " more" }
    }
}

/// Since when a check has the worst status, or all checks are up.
fn since(checks: &[&Entry]) -> Option<SystemTime> {
    let worst = checks.iter().map(|check| check.status()).max()?;
    let of_worst = checks.iter().filter(|check| check.status() == worst);
    let times = of_worst.filter_map(|check| Some(check.details()?.since));
    if worst == Status::Up { times.max() } else { times.min() }
}

/// The other endpoints, and what the process says of itself.
fn strip(overview: &Overview, scope: &str) -> Markup {
    let Overview { ready, live, startup, workers, is_draining, held, pending, .. } = overview;
    let (blocked, running): (Vec<_>, Vec<_>) = workers.iter().partition(|worker| worker.is_blocked);
    html! {
        ul .strip {
            @for (name, status) in [("ready", *ready), ("live", *live), ("startup", *startup)] {
                li .(class(status)) {
                    span aria-hidden="true" { (shape(status)) } " "
                    a href={ (scope) (name) } { (name) }
                    " " b { (if status == Status::Down { 503 } else { 200 }) }
                }
            }
            @if *is_draining { li .down { span aria-hidden="true" { (shape(Status::Down)) } " draining" } }
            @if let Some(held) = held {
                li .down { span aria-hidden="true" { (shape(Status::Down)) } " " bdi { (held) } }
            }
            @if !pending.is_empty() {
                li .degraded {
                    span aria-hidden="true" { (shape(Status::Degraded)) }
                    " not started: " bdi { (pending.iter().take(MAX_NAMES).cloned().collect::<Vec<_>>().join(", ")) }
                    @if pending.len() > MAX_NAMES { " and " (pending.len() - MAX_NAMES) " more" }
                }
            }
            @for worker in &blocked {
                li .down {
                    span aria-hidden="true" { (shape(Status::Down)) }
                    " worker " (worker.number) " blocked for " (units::age(worker.blocked))
                }
            }
            li .plain { "workers: " (running.len()) " running" }
        }
    }
}

fn footer(overview: &Overview, scope: &str) -> Markup {
    let generated = rfc3339(overview.time);
    html! {
        footer {
            p {
                "Generated on "
                time #generated datetime=(generated) { (generated[..10]) " at " (time_of_day(&generated)) }
            }
            nav aria-label="Other formats" {
                ul {
                    li { a href=(scope) { "JSON" } }
                    li { a href={ (scope) "?details" } { "JSON with details" } }
                    li { a href={ (scope) "metrics" } { "Metrics" } }
                    li { a href={ (scope) "schema" } { "Schema" } }
                }
            }
        }
    }
}

/// The status for people who see no colours, and for those who do not see.
fn shape_and_word(status: Status) -> Markup {
    html! { span aria-hidden="true" { (shape(status)) } " " (status) }
}

fn shape(status: Status) -> &'static str {
    match status {
        Status::Up => "✓",
        Status::Degraded => "!",
        Status::Down => "✕",
    }
}

fn class(status: Status) -> &'static str {
    match status {
        Status::Up => "up",
        Status::Degraded => "degraded",
        Status::Down => "down",
    }
}

/// A circle, a triangle or a square, so that the status can be seen in a list of tabs.
fn icon(status: Status) -> &'static str {
    match status {
        Status::Up => {
            "data:image/svg+xml,%3Csvg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 16 16'%3E\
             %3Ccircle cx='8' cy='8' r='8' fill='%231a7f37'/%3E\
             %3Cpath d='m4 8.5 3 3 5-6.5' fill='none' stroke='%23fff' stroke-width='2'/%3E%3C/svg%3E"
        }
        Status::Degraded => {
            "data:image/svg+xml,%3Csvg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 16 16'%3E\
             %3Cpath d='m8 0 8 15H0z' fill='%23e3b341'/%3E\
             %3Cpath d='M8 5v5m0 1.5v2' fill='none' stroke='%231f2328' stroke-width='2'/%3E%3C/svg%3E"
        }
        Status::Down => {
            "data:image/svg+xml,%3Csvg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 16 16'%3E\
             %3Cpath d='M0 0h16v16H0z' fill='%23cf222e'/%3E\
             %3Cpath d='m4 4 8 8m0-8-8 8' fill='none' stroke='%23fff' stroke-width='2.5'/%3E%3C/svg%3E"
        }
    }
}

fn capitalized(text: &str) -> String {
    let mut chars = text.chars();
    chars.next().map(|first| first.to_uppercase().chain(chars).collect()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use base64::{Engine as _, prelude::BASE64_STANDARD};
    use sha2::{Digest as _, Sha256};

    use super::*;
    use crate::{
        observe::Observations,
        options::{CheckOptions, Role},
        report::{Counters, Details, LastError, Outcome, Report, Sample},
    };

    /// 2026-01-02 12:06:05 UTC
    fn now() -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(1_767_355_565)
    }

    fn seconds_ago(seconds: u64) -> SystemTime {
        now() - Duration::from_secs(seconds)
    }

    fn entry(group: &str, name: &str, status: Status, message: &str, since: SystemTime) -> Entry {
        let latency = Duration::from_micros(1_204);
        Entry {
            group: group.into(),
            name: name.into(),
            options: Some(CheckOptions { role: Role::Shared, live: true, rise: 2, ..CheckOptions::default() }),
            outcome: Outcome { status, error: (status != Status::Up).then(|| message.into()) },
            details: Some(Details {
                latency,
                age: Duration::from_millis(312),
                since,
                last_success: Some(seconds_ago(200_000)),
                last_error: Some(LastError { message: message.into(), time: seconds_ago(1) }),
                runs: 7,
                consecutive_failures: 3,
                raw: Status::Up,
                data: Observations::default(),
                last_run: now(),
                counters: Counters::default(),
                history: vec![Sample { age: Duration::ZERO, latency, status }],
            }),
        }
    }

    fn overview(entries: Vec<Entry>) -> Overview {
        Overview {
            health: Report::of(entries),
            ready: Status::Up,
            live: Status::Up,
            startup: Status::Down,
            workers: Vec::new(),
            is_draining: false,
            holds: 0,
            held: None,
            pending: Vec::new(),
            denied: 0,
            release: None,
            time: now(),
        }
    }

    /// The text of the element with that start tag, without the tags in it.
    fn text(body: &str, start: &str, end: &str) -> String {
        let (_, rest) = body.split_once(start).unwrap_or_else(|| panic!("no {start}: {body}"));
        let element = rest.split_once(end).unwrap().0;
        element.split('<').map(|part| part.rsplit('>').next().unwrap()).collect()
    }

    fn banner_of(entries: Vec<Entry>) -> String {
        text(&body(&overview(entries), None, "./"), "</span> DOWN</p>", "</div>")
    }

    #[test]
    fn the_policy_has_the_hashes_of_the_style_and_the_script() {
        for (directive, content) in [("style-src", STYLE), ("script-src", SCRIPT)] {
            let hash = BASE64_STANDARD.encode(Sha256::digest(content));
            let expected = format!("; {directive} 'sha256-{hash}';");
            assert!(security_policy().contains(&expected), "write into the policy: {expected}");
        }
        let body = body(&overview(Vec::new()), None, "./");
        assert!(
            body.contains(&format!("<style>{STYLE}</style>")) && body.contains(&format!("<script>{SCRIPT}</script>"))
        );
    }

    #[test]
    fn hostile_names_messages_and_releases_are_text() {
        let hostile = "</td><script>alert(1)</script>\"' onerror=alert(1) style='color:red' \u{202e}";
        let mut overview = overview(vec![entry(hostile, hostile, Status::Down, hostile, now())]);
        overview.release = Some(Release { service: hostile.to_owned(), version: hostile.to_owned() });
        overview.held = Some(hostile.to_owned());
        overview.pending = vec![hostile.to_owned()];
        let body = body(&overview, None, "./");
        assert_eq!(body.matches("<script").count(), 1, "{body}");
        assert!(!body.contains("alert(1)</script>") && body.contains("&lt;script&gt;alert(1)&lt;/script&gt;&quot;' "));
    }

    #[test]
    fn no_element_has_a_style_attribute_which_the_policy_would_block() {
        let down = entry("cache", "sessions", Status::Down, "timed out", now());
        assert!(!body(&overview(vec![down]), Some(1), "./").contains(" style="));
    }

    #[test]
    fn the_banner_names_the_checks_that_are_not_up_and_since_when() {
        let down = |name: &str, seconds| entry("cache", name, Status::Down, "timed out", seconds_ago(seconds));
        let degraded = entry("queue", "orders", Status::Degraded, "saturated", seconds_ago(1_000));
        let up = entry("database", "db", Status::Up, "", seconds_ago(5));
        assert_eq!(
            banner_of(vec![up.clone(), down("sessions", 180)]),
            "1 of 2 checks down: cache.sessions. Since 12:03:05 UTC (3 min)."
        );
        assert_eq!(
            banner_of(vec![degraded, down("a", 180), down("b", 200_000), up]),
            "2 of 4 checks down: cache.a, cache.b; 1 degraded: queue.orders. Since 2025-12-31 04:32:45 UTC (2 d)."
        );
        let many = (0..7).map(|n| down(&n.to_string(), 1)).collect();
        assert_eq!(
            banner_of(many),
            "7 of 7 checks down: cache.0, cache.1, cache.2, cache.3, cache.4 and 2 more. Since 12:06:04 UTC (1 s)."
        );
        let mut held = overview(vec![Entry::down("health", "hold", "held: maintenance, 12 min left")]);
        (held.held, held.is_draining) = (Some("held: maintenance, 12 min left".to_owned()), true);
        assert_eq!(
            text(&body(&held, None, "./"), "</span> DOWN</p>", "</div>"),
            "Server is draining. Held: maintenance, 12 min left. No checks registered."
        );
    }

    #[test]
    fn the_worst_checks_are_first_and_otherwise_in_the_order_of_registration() {
        let check = |name, status| entry("g", name, status, "it failed", now());
        let (up, degraded, down) = (Status::Up, Status::Degraded, Status::Down);
        let checks = vec![check("1", up), check("2", down), check("3", degraded), check("4", up), check("5", down)];
        let body = body(&overview(checks), None, "./");
        let names: Vec<_> = body.split("data-check=\"g.").skip(1).map(|rest| &rest[..1]).collect();
        assert_eq!(names, ["2", "5", "3", "1", "4"]);
    }

    #[test]
    fn details_have_what_is_known_of_a_check() {
        let body = body(&overview(vec![entry("cache", "sessions", Status::Down, "timed out", now())]), None, "./");
        let details = text(&body, "<dl>", "</dl>");
        for part in [
            "Last success2025-12-31 04:32:45 UTC (2 d)",
            "Last errortimed out, 12:06:04 UTC (1 s)",
            "Latency1.2 ms",
            "Age312 ms",
            "Runs7",
            "Consecutive failures3",
            "Rise and fallup after 2, down after 1",
            "Latest resultUP",
        ] {
            assert!(details.contains(part), "{part}: {details}");
        }
        assert!(body.contains(r#"<span class="badge">shared</span> <span class="badge">live</span>"#), "{body}");
    }

    #[test]
    fn only_a_requested_refresh_is_timed_and_only_without_script() {
        let overview = overview(Vec::new());
        for not_timed in [None, Some(0)] {
            assert!(!body(&overview, not_timed, "./").contains("http-equiv"));
        }
        let refreshed = body(&overview, Some(10), "./");
        assert!(refreshed.contains(r#"<noscript><meta http-equiv="refresh" content="10"></noscript>"#), "{refreshed}");
    }

    /// The contrast of two colours, as WCAG defines it.
    fn contrast(a: &str, b: &str) -> f64 {
        let luminance = |color: &str| {
            let channel = |start| {
                let value = f64::from(u8::from_str_radix(&color[start..start + 2], 16).unwrap()) / 255.0;
                if value <= 0.03928 { value / 12.92 } else { ((value + 0.055) / 1.055).powf(2.4) }
            };
            0.2126 * channel(1) + 0.7152 * channel(3) + 0.0722 * channel(5)
        };
        let (a, b) = (luminance(a), luminance(b));
        (a.max(b) + 0.05) / (a.min(b) + 0.05)
    }

    #[test]
    fn each_pair_of_colours_has_a_contrast_of_at_least_six() {
        let (light, dark) = STYLE.split_once("@media screen and (prefers-color-scheme: dark)").unwrap();
        for theme in [light, dark] {
            let color = |name: &str| theme.split_once(&format!("--{name}: ")).unwrap().1.split(';').next().unwrap();
            for name in ["text", "muted", "link"] {
                assert!(contrast(color(name), color("background")) >= 6.0, "{name}");
            }
            for name in ["up", "degraded", "down"] {
                let tint = color(&format!("{name}-tint"));
                assert!(contrast(color(name), tint) >= 6.0 && contrast(color("text"), tint) >= 6.0, "{name}");
            }
        }
    }
}
