//! Renders a report, one file per format. Depends neither on the engine nor on HTTP.

pub(crate) mod json;
mod text;
