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
    fn utoipa_keeps_every_path_parameter_and_response_of_the_document() {
        let read = serde_json::to_value(ApiDoc::openapi()).unwrap();
        let written = openapi("/health");
        let paths = written["paths"].as_object().unwrap();
        assert_eq!(read["paths"].as_object().unwrap().len(), paths.len());
        for (path, item) in paths {
            let (read, written) = (&read["paths"][path]["get"], &item["get"]);
            for member in ["operationId", "summary"] {
                assert_eq!(read[member], written[member], "{path}");
            }
            let names = |operation: &serde_json::Value| -> Vec<_> {
                let parameters = operation["parameters"].as_array().cloned().unwrap_or_default();
                parameters.iter().map(|parameter| parameter["name"].clone()).collect()
            };
            assert_eq!(names(read), names(written), "{path}");
            for (code, response) in written["responses"].as_object().unwrap() {
                let formats = |response: &serde_json::Value| -> Vec<String> {
                    response["content"].as_object().into_iter().flat_map(|content| content.keys().cloned()).collect()
                };
                assert_eq!(formats(&read["responses"][code]), formats(response), "{path} {code}");
            }
        }
    }
}
