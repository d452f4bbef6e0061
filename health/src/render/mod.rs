//! A report as bytes, one file a format. Rendering knows neither the engine nor HTTP.

pub(crate) mod json;
