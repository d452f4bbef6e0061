//! [`heartbeat`]: the heartbeat of workers that serve no scope.

use std::rc::Rc;

use actix_web::{
    HttpResponse,
    dev::{self, AppService, HttpServiceFactory, ResourceDef, ServiceRequest, ServiceResponse},
    guard::{Guard, fn_guard},
};
use futures_util::future::{Ready, ready};

use super::workers::{Heartbeat, MAX_INTERVAL};

/// Registers the workers of a server whose `App` has no [`scope`](crate::scope), so that the `/health/live` of a management server
/// ([`serve`](crate::serve)) reports a worker whose event loop is blocked. It adds no route. An `App` with a scope does not need it.
///
/// # Examples
///
/// ```no_run
/// # use actix_web::{App, HttpServer};
/// # #[actix_web::main] async fn main() -> std::io::Result<()> {
/// health::serve("0.0.0.0:9000", health::scope)?;
/// HttpServer::new(|| App::new().service(health::heartbeat())).bind(("0.0.0.0", 8080))?.run().await
/// # }
/// ```
pub fn heartbeat() -> impl HttpServiceFactory + 'static {
    HeartbeatFactory
}

struct HeartbeatFactory;

impl HttpServiceFactory for HeartbeatFactory {
    fn register(self, app: &mut AppService) {
        // Only a service lives as long as its worker, and a service has a pattern. The guard rejects every request. As paths begin with
        // a slash, the pattern is not the result of `HttpRequest::match_pattern` either.
        let never: Box<dyn Guard> = Box::new(fn_guard(|_| false));
        app.register_service(ResourceDef::new("health-heartbeat"), Some(vec![never]), self, None);
    }
}

impl dev::ServiceFactory<ServiceRequest> for HeartbeatFactory {
    type Response = ServiceResponse;
    type Error = actix_web::Error;
    type Config = ();
    type Service = HeartbeatService;
    type InitError = ();
    type Future = Ready<Result<HeartbeatService, ()>>;

    fn new_service(&self, (): ()) -> Self::Future {
        // The scopes that observe the worker shorten its interval.
        ready(Ok(HeartbeatService { _heartbeat: Heartbeat::of_this_worker(4 * MAX_INTERVAL) }))
    }
}

/// Holds the heartbeat of a worker until the worker drops its services.
struct HeartbeatService {
    _heartbeat: Rc<Heartbeat>,
}

impl dev::Service<ServiceRequest> for HeartbeatService {
    type Response = ServiceResponse;
    type Error = actix_web::Error;
    type Future = Ready<Result<ServiceResponse, actix_web::Error>>;

    dev::always_ready!();

    fn call(&self, request: ServiceRequest) -> Self::Future {
        ready(Ok(request.into_response(HttpResponse::NotFound())))
    }
}
