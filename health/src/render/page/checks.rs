//! The table of checks, the worst first, each with its details.

use std::{cmp::Reverse, time::SystemTime};

use maud::{Markup, html};

use super::{
    class, shape_and_word,
    sparkline::sparkline,
    units::{age, latency, time},
};
use crate::{
    options::Role,
    report::{Details, Entry},
};

pub(super) fn table(entries: &[Entry], now: SystemTime) -> Markup {
    let mut sorted: Vec<_> = entries.iter().collect();
    sorted.sort_by_key(|entry| Reverse(entry.status()));
    html! {
        @if !sorted.is_empty() {
            table {
                caption { "Checks" @if sorted.len() > 1 { ", the worst first" } }
                thead {
                    tr {
                        @for heading in ["Status", "Check", "Message", "Since"] { th scope="col" { (heading) } }
                        th .latency scope="col" { "Latency" }
                        th scope="col" { "Latest results" }
                    }
                }
                tbody {
                    @for entry in sorted { (row(entry, now)) }
                }
            }
        }
    }
}

fn row(entry: &Entry, now: SystemTime) -> Markup {
    html! {
        // For browsers without style, such as w3m.
        tr valign="top" {
            td .state { span .chip.(class(entry.status())) { (shape_and_word(entry.status())) } }
            th .name scope="row" {
                bdi { span .group { (entry.group()) "." } (entry.name()) }
                @for badge in badges(entry) { " " span .badge { (badge) } }
            }
            td .message {
                @if let Some(message) = entry.error() { p { bdi { (message) } } }
                @if let Some(details) = entry.details() { (details_of(entry, details, now)) }
            }
            td .since { @if let Some(details) = entry.details() { (time(details.since, now)) } }
            td .latency { @if let Some(details) = entry.details() { (latency(details.latency)) } }
            td .history { @if let Some(details) = entry.details() { (sparkline(&details.history)) } }
        }
    }
}

fn badges(entry: &Entry) -> impl Iterator<Item = &'static str> {
    let role = Some(entry.role()).filter(|role| *role != Role::Critical).map(Role::as_str);
    let live = entry.options().is_some_and(|options| options.live).then_some("live");
    role.into_iter().chain(live)
}

fn details_of(entry: &Entry, details: &Details, now: SystemTime) -> Markup {
    html! {
        details data-check={ (entry.group()) "." (entry.name()) } {
            summary { "Details" span .visually-hidden { " of " bdi { (entry.group()) "." (entry.name()) } } }
            dl {
                dt { "Last success" }
                dd { @match details.last_success { Some(success) => (time(success, now)), None => "none" } }
                dt { "Last error" }
                dd {
                    @match &details.last_error {
                        Some(error) => { bdi { (error.message) } ", " (time(error.time, now)) }
                        None => "none",
                    }
                }
                dt { "Latency" } dd { (latency(details.latency)) }
                dt { "Age" } dd { (age(details.age)) }
                dt { "Runs" } dd { (details.runs) }
                dt { "Consecutive failures" } dd { (details.consecutive_failures) }
                @if let Some(options) = entry.options() {
                    dt { "Rise and fall" }
                    dd { "up after " (options.rise) ", down after " (options.fall) }
                }
                @if details.raw != entry.status() { dt { "Latest result" } dd { (details.raw) } }
                @for (key, value) in details.data() { dt { code { (key) } } dd { bdi { (value) } } }
            }
        }
    }
}
