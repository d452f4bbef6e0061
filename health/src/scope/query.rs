//! [`Query`]: the parameters of a request.

use actix_web::{HttpRequest, web};

pub(super) struct Query {
    pub(super) details: bool,
    /// The groups and checks that the response leaves out.
    pub(super) exclude: Vec<String>,
}

impl Query {
    /// Reads the query. Unknown parameters are ignored, and so is a query that is not percent-encoded UTF-8.
    pub(super) fn of(request: &HttpRequest) -> Self {
        let mut query = Self { details: false, exclude: Vec::new() };
        let pairs = web::Query::<Vec<(String, String)>>::from_query(request.query_string());
        for (name, value) in pairs.map(web::Query::into_inner).unwrap_or_default() {
            match &*name {
                // Of several values, the last one counts.
                "details" => query.details = matches!(&*value, "" | "1") || value.eq_ignore_ascii_case("true"),
                "exclude" => query.exclude.push(value),
                _ => {}
            }
        }
        query
    }
}
