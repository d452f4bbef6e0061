//! [`Rendered`]: a body with its format and code, and the HTTP response for it.

use actix_web::{
    HttpRequest, HttpResponse, HttpResponseBuilder,
    http::{
        Method, StatusCode,
        header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE, HeaderValue, VARY, X_CONTENT_TYPE_OPTIONS},
    },
    web::Bytes,
};

use crate::{process::METHOD_WARNING, redact::label, status::Status};

/// The formats of responses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Format {
    Json,
    HealthJson,
    Text,
    Prometheus,
    OpenMetrics,
    Schema,
    #[cfg(feature = "page")]
    Page,
}

impl Format {
    fn content_type(self) -> &'static str {
        match self {
            Self::Json => "application/json",
            Self::HealthJson => "application/health+json",
            Self::Text => "text/plain; charset=utf-8",
            Self::Prometheus => "text/plain; version=0.0.4; charset=utf-8",
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
            Self::Schema => "application/schema+json",
            #[cfg(feature = "page")]
            Self::Page => "text/html; charset=utf-8",
        }
    }
}

/// A body with its format and code. Cloning is cheap.
#[derive(Clone, Debug)]
pub(super) struct Rendered {
    pub(super) code: StatusCode,
    pub(super) format: Format,
    pub(super) body: Bytes,
}

impl Rendered {
    pub(super) fn new(code: StatusCode, format: Format, body: impl Into<Bytes>) -> Self {
        Self { code, format, body: body.into() }
    }

    pub(super) fn into_response(self) -> HttpResponse {
        let mut response = response(self.code);
        response.insert_header((CONTENT_TYPE, HeaderValue::from_static(self.format.content_type())));
        match self.format {
            Format::Json | Format::HealthJson | Format::Schema => {}
            Format::Text => {
                response.insert_header((X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff")));
            }
            Format::Prometheus | Format::OpenMetrics => {
                response.insert_header((VARY, HeaderValue::from_static("Accept")));
            }
            #[cfg(feature = "page")]
            Format::Page => {
                use actix_web::http::header::{CONTENT_SECURITY_POLICY, REFERRER_POLICY};

                let policy = HeaderValue::from_static(crate::render::page::security_policy());
                response
                    .insert_header((X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff")))
                    .insert_header((REFERRER_POLICY, HeaderValue::from_static("no-referrer")))
                    .insert_header((CONTENT_SECURITY_POLICY, policy));
            }
        }
        response.body(self.body)
    }
}

pub(super) fn is_method_allowed(request: &HttpRequest) -> bool {
    matches!(*request.method(), Method::GET | Method::HEAD)
}

pub(super) fn method_not_allowed(request: &HttpRequest) -> HttpResponse {
    // A health check with such a method fails without a visible reason.
    if METHOD_WARNING.claim() {
        let (method, path) = (label(request.method().as_str()), label(request.path()));
        tracing::warn!(
            "health scope responded with 405 to {method} {path}: only GET and HEAD are allowed; in HAProxy, `option httpchk` sends \
             OPTIONS by default; use `http-check send meth GET uri /health/ready`"
        );
    }
    response(StatusCode::METHOD_NOT_ALLOWED).insert_header((ALLOW, HeaderValue::from_static("GET, HEAD"))).finish()
}

pub(super) fn forbidden() -> HttpResponse {
    response(StatusCode::FORBIDDEN).finish()
}

/// The response of an application without such a path.
pub(super) fn not_found() -> HttpResponse {
    HttpResponse::NotFound().finish()
}

pub(super) fn status_code(status: Status) -> StatusCode {
    if status == Status::Down { StatusCode::SERVICE_UNAVAILABLE } else { StatusCode::OK }
}

/// A response with the headers that every response has.
fn response(code: StatusCode) -> HttpResponseBuilder {
    let mut response = HttpResponse::build(code);
    response.insert_header((CACHE_CONTROL, HeaderValue::from_static("no-store")));
    response
}
