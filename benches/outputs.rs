//! `GET /health/metrics` and `/health/page` of 20 checks with fresh results, each compared with a bare handler that returns the same
//! bytes.

use std::sync::{Arc, OnceLock};

use actix_web::{
    HttpResponse,
    http::header::{CACHE_CONTROL, CONTENT_TYPE, HeaderValue},
    web::{self, Bytes},
};
use health::Check;

use crate::{
    Measured, median,
    response::{Connection, load},
    serve,
};

const CHECKS: usize = 20;
const ROUNDS: usize = 5;

pub(crate) async fn measure() -> Vec<Measured> {
    let mut measured = Vec::new();
    for (path, least) in [("/health/metrics", 0.5), ("/health/page", 1.0 / 3.0)] {
        let checks: Vec<_> =
            (0..CHECKS).map(|n| Check::new("service", format!("{n}"), || async { Ok::<_, String>(()) })).collect();
        let body: Arc<OnceLock<Bytes>> = Arc::default();
        let served = Arc::clone(&body);
        let (address, handle) = serve(move |app| {
            let scope = checks.iter().cloned().fold(health::scope(), health::Scope::check);
            let body = Arc::clone(&served);
            let bare = move || {
                let body = body.get().cloned().unwrap_or_default();
                async {
                    HttpResponse::Ok()
                        .insert_header((CACHE_CONTROL, HeaderValue::from_static("no-store")))
                        .insert_header((CONTENT_TYPE, HeaderValue::from_static("text/plain")))
                        .body(body)
                }
            };
            app.route("/bare", web::get().to(bare)).service(scope);
        });
        let response = Connection::open(address).await.get(path).await;
        let (_, text) = response.split_once("\r\n\r\n").unwrap();
        assert!(text.len() > 1_000 && response.starts_with("HTTP/1.1 200"), "{response}");
        body.set(Bytes::from(text.to_owned())).unwrap();

        let mut ratios = Vec::new();
        for round in 0..ROUNDS {
            // Alternating, so that neither is always measured second, on a warmer machine.
            let order = if round % 2 == 0 { [path, "/bare"] } else { ["/bare", path] };
            let [first, second] = [load(address, order[0]).await, load(address, order[1]).await];
            ratios.push(if round % 2 == 0 { first / second } else { second / first });
        }
        handle.stop(false).await;
        let ratio = median(ratios);
        measured.push(Measured {
            what: format!(
                "requests per second of `GET {path}` of {CHECKS} checks ÷ of a bare handler that returns its {} bytes",
                text.len()
            ),
            value: format!("{ratio:.2}"),
            bound: format!("at least {least:.2}"),
            holds: Some(ratio >= least),
        });
    }
    measured
}
