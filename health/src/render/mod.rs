//! Renders a report, one file per format. Depends neither on the engine nor on HTTP.

#[cfg(feature = "utoipa")]
mod api_doc;
pub(crate) mod health_json;
pub(crate) mod json;
pub(crate) mod metrics;
pub(crate) mod openapi;
#[cfg(feature = "page")]
pub(crate) mod page;
pub(crate) mod schema;
pub(crate) mod text;

#[cfg(test)]
mod examples;

#[cfg(feature = "utoipa")]
pub use api_doc::ApiDoc;
