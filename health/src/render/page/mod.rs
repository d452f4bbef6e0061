//! The page `/health/page`, for people.

use crate::report::Overview;

pub(crate) fn body(overview: &Overview, refresh: Option<u32>) -> String {
    let refresh = refresh.map(|seconds| format!("<meta http-equiv=refresh content={seconds}>")).unwrap_or_default();
    format!("<!doctype html>{refresh}<title>{} · health</title>", overview.health.status())
}

/// The `Content-Security-Policy`.
pub(crate) fn security_policy() -> &'static str {
    "default-src 'none'"
}
