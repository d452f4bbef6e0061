//! The OpenAPI document for applications that use utoipa.

use super::openapi::openapi;

/// The paths of a scope at `/health`, for [`utoipa`]: the document of [`openapi`](crate::openapi).
///
/// # Examples
///
/// ```
/// use utoipa::OpenApi as _;
///
/// # let mut api = utoipa::openapi::OpenApi::default();
/// // `api` is the document of the application.
/// api.merge(health::ApiDoc::openapi());
/// assert!(api.paths.paths.contains_key("/health/ready"));
/// ```
#[derive(Clone, Copy, Debug)]
pub struct ApiDoc;

impl utoipa::OpenApi for ApiDoc {
    fn openapi() -> utoipa::openapi::OpenApi {
        serde_json::from_value(openapi("/health")).expect("utoipa reads any document of OpenAPI 3.1")
    }
}

#[cfg(test)]
mod tests {
    use utoipa::OpenApi as _;

    use super::*;

    #[test]
    fn utoipa_keeps_the_whole_document() {
        assert_eq!(serde_json::to_value(ApiDoc::openapi()).unwrap(), openapi("/health"));
    }
}
