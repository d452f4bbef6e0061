//! [`Query`]: the parameters of a request, and the format of the response.

use actix_web::{
    HttpRequest,
    http::header::{ACCEPT, Accept, Header as _, Quality},
    web,
};

use super::response::Format;

#[derive(Default)]
pub(super) struct Query {
    pub(super) details: bool,
    pub(super) verbose: bool,
    /// The groups and checks that the response leaves out.
    pub(super) exclude: Vec<String>,
    pub(super) format: Option<String>,
    /// The interval in seconds at which a browser loads the page again.
    pub(super) refresh: Option<u32>,
}

/// The formats of reports, by the value of `format`. A raw `+` in a query is a space.
const REPORT_FORMATS: [(&str, Format); 4] = [
    ("json", Format::Json),
    ("text", Format::Text),
    ("health+json", Format::HealthJson),
    ("health json", Format::HealthJson),
];

const METRICS_FORMATS: [(&str, Format); 2] = [("prometheus", Format::Prometheus), ("openmetrics", Format::OpenMetrics)];

impl Query {
    /// Reads the query. Unknown parameters are ignored, and so is a query that is not percent-encoded UTF-8.
    pub(super) fn of(request: &HttpRequest) -> Self {
        let mut query = Self::default();
        let pairs = web::Query::<Vec<(String, String)>>::from_query(request.query_string());
        // Of several values, the last one counts.
        for (name, value) in pairs.map(web::Query::into_inner).unwrap_or_default() {
            match &*name {
                "details" => query.details = is_set(&value),
                "verbose" => query.verbose = is_set(&value),
                "exclude" => query.exclude.push(value),
                "format" => query.format = Some(value),
                "refresh" => query.refresh = value.parse().ok(),
                _ => {}
            }
        }
        query
    }

    /// The format of a report. JSON unless another format is named: browsers and monitors send an `Accept` that prefers HTML or text.
    ///
    /// # Errors
    ///
    /// The query names an unknown format: returns the known ones.
    pub(super) fn report_format(&self, request: &HttpRequest) -> Result<Format, String> {
        match &self.format {
            Some(name) => find_format(&REPORT_FORMATS, name),
            None if self.verbose => Ok(Format::Text),
            None if accepts(request, "application/health+json") => Ok(Format::HealthJson),
            None => Ok(Format::Json),
        }
    }

    /// The format of metrics.
    ///
    /// # Errors
    ///
    /// As for [`report_format`](Self::report_format).
    pub(super) fn metrics_format(&self, request: &HttpRequest) -> Result<Format, String> {
        match &self.format {
            Some(name) => find_format(&METRICS_FORMATS, name),
            None if accepts(request, "application/openmetrics-text") => Ok(Format::OpenMetrics),
            None => Ok(Format::Prometheus),
        }
    }
}

/// Whether a flag is empty, `1` or `true`.
fn is_set(value: &str) -> bool {
    matches!(value, "" | "1") || value.eq_ignore_ascii_case("true")
}

fn find_format(formats: &[(&str, Format)], name: &str) -> Result<Format, String> {
    let names =
        || formats.iter().map(|(name, _)| *name).filter(|name| !name.contains(' ')).collect::<Vec<_>>().join(", ");
    let found = formats.iter().find(|(known, _)| *known == name).map(|(_, format)| *format);
    found.ok_or_else(|| format!("unknown format; the formats of this path are {}", names()))
}

/// Whether the request names the media type in `Accept`, with a quality above zero.
pub(super) fn accepts(request: &HttpRequest, media_type: &str) -> bool {
    // Parsing costs more than the whole response, and hardly a client names these types.
    let (_, subtype) = media_type.split_once('/').unwrap_or_default();
    let is_mentioned =
        |value: &[u8]| value.windows(subtype.len()).any(|part| part.eq_ignore_ascii_case(subtype.as_bytes()));
    request.headers().get_all(ACCEPT).any(|value| is_mentioned(value.as_bytes()))
        && Accept::parse(request).is_ok_and(|accept| {
            accept.0.iter().any(|item| item.item.essence_str() == media_type && item.quality > Quality::ZERO)
        })
}
