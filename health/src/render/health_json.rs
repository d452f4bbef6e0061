//! The body of `application/health+json`.

use serde_json::json;

use crate::{
    report::{Release, Report},
    status::Status,
};

pub(crate) fn body(report: &Report, release: Option<&Release>) -> String {
    let status = match report.status() {
        Status::Up => "pass",
        Status::Degraded => "warn",
        Status::Down => "fail",
    };
    let (service, version) = (release.map(|release| &release.service), release.map(|release| &release.version));
    json!({ "status": status, "serviceId": service, "releaseId": version }).to_string()
}
