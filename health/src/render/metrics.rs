//! The metrics of a scope, in the formats of Prometheus and OpenMetrics.

use crate::{report::Overview, status::Status};

pub(crate) fn prometheus(overview: &Overview) -> String {
    let is_up = u8::from(overview.health.status() != Status::Down);
    format!("# TYPE health_up gauge\nhealth_up{{endpoint=\"health\"}} {is_up}\n")
}

pub(crate) fn openmetrics(overview: &Overview) -> String {
    prometheus(overview) + "# EOF\n"
}
