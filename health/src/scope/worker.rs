//! [`WorkerScope`]: a scope in one worker, which responds from its cache or with a new report.

use std::{cell::OnceCell, rc::Rc, time::Duration};

use actix_web::{HttpRequest, HttpResponse, dev::ServiceRequest, http::StatusCode};
use tokio::time::Instant;

use super::{
    assess::{ProcessState, assess},
    cache::{CachedResponse, ResponseCache, Slot},
    config::{ScopeConfig, ServerKind},
    connection::UnixSocket,
    endpoint::{Endpoint, Route},
    guard::Deny,
    overview::overview,
    query::{Query, accepts},
    resolve::Resolved,
    response::{Format, Rendered, forbidden, is_method_allowed, method_not_allowed, not_found, status_code},
};
use crate::{
    discovery::state::AppData,
    engine::{Engine, Results, Selection},
    lifecycle::Heartbeat,
    render::{health_json, json, metrics, openapi, schema, text},
    report::{Entry, Overview, Worker},
};

/// How long a response is served again if it shows times that pass without a change of generation: that of a hold or a worker.
const MAX_CACHED_TIME: Duration = Duration::from_secs(1);

/// A scope in one worker.
pub(super) struct WorkerScope {
    pub(super) config: Rc<ScopeConfig>,
    heartbeat: Rc<Heartbeat>,
    resolved: OnceCell<Resolved>,
    cache: ResponseCache,
}

impl WorkerScope {
    pub(super) fn start(config: Rc<ScopeConfig>) -> Rc<Self> {
        let heartbeat = match config.server {
            ServerKind::Main => Heartbeat::of_this_worker(config.stall),
            ServerKind::Management => Heartbeat::of_management_server(config.stall),
        };
        Rc::new(Self { config, heartbeat, resolved: OnceCell::new(), cache: ResponseCache::default() })
    }

    pub(super) fn authorize_and_log(&self, route: Route, request: &ServiceRequest) -> bool {
        let access = &self.config.access;
        // A guard has allowed the request, except where it could not decide.
        let is_guarded = access.deny == Deny::NotFound || route.is_named();
        let is_undecided = || request.head().peer_addr.is_none() && access.policy.distinguishes_unix();
        (is_guarded && !is_undecided())
            || access.authorize_and_log(&request.guard_ctx(), request.conn_data::<UnixSocket>().is_some())
    }

    /// The response, if it needs no wait: to a method that is not allowed, or from the cache.
    pub(super) fn immediate_response(&self, route: Route, request: &HttpRequest) -> Option<HttpResponse> {
        if !is_method_allowed(request) {
            return Some(method_not_allowed(request));
        }
        if !request.query_string().is_empty() {
            return None;
        }
        let slot = match route {
            Route::Health | Route::Ready if accepts(request, "application/health+json") => return None,
            Route::Health => Slot::Health,
            Route::Ready => Slot::Ready,
            Route::Metrics if accepts(request, "application/openmetrics-text") => Slot::OpenMetrics,
            Route::Metrics => Slot::Prometheus,
            #[cfg(feature = "page")]
            Route::Page if !has_trailing_slash(request) => Slot::Page,
            _ => return None,
        };
        self.cache.response(slot).map(Rendered::into_response)
    }

    /// The response to a denied client, which must not reveal which groups and checks exist.
    pub(super) fn denied(&self, route: Route, request: &HttpRequest) -> HttpResponse {
        let deny = self.config.access.deny;
        if deny == Deny::NotFound || route.is_named() {
            return not_found();
        }
        let Some(endpoint) = route.endpoint(request.path()).filter(|_| deny == Deny::StatusOnly) else {
            return forbidden();
        };
        if !is_method_allowed(request) {
            return method_not_allowed(request);
        }
        let status = self.cache.status(&endpoint, || {
            let engine = &self.resolved(AppData::Request(request)).engine;
            let results = engine.latest_results(endpoint.selection(), false);
            assess(&endpoint, results, &self.process_state(engine), || self.worker_entries()).status()
        });
        Rendered::new(status_code(status), Format::Json, json::status_body(status)).into_response()
    }

    pub(super) async fn respond(&self, route: Route, request: &HttpRequest) -> HttpResponse {
        let query = Query::of(request);
        let rendered = match (route, route.endpoint(request.path())) {
            (_, Some(endpoint)) => match query.report_format(request) {
                Ok(format) => match self.report(&endpoint, &query, format, request).await {
                    Some(rendered) => rendered,
                    // The check was removed meanwhile.
                    None => return not_found(),
                },
                Err(message) => bad_request(message),
            },
            (Route::Schema, None) => Rendered::new(StatusCode::OK, Format::Schema, schema::SCHEMA),
            (Route::OpenApi, None) => {
                // An outer scope of the application adds its own path.
                let path = request.uri().path().trim_end_matches('/').trim_end_matches("/openapi.json");
                let document = openapi::openapi(path).to_string();
                Rendered::new(StatusCode::OK, Format::Json, document)
            }
            #[cfg(feature = "page")]
            (Route::Page, None) => self.page(&query, request).await,
            _ => match query.metrics_format(request) {
                Ok(format) => self.metrics(format, request).await,
                Err(message) => bad_request(message),
            },
        };
        rendered.into_response()
    }

    /// `None` if the endpoint names a group or a check that does not exist.
    async fn report(
        &self,
        endpoint: &Endpoint<'_>,
        query: &Query,
        format: Format,
        request: &HttpRequest,
    ) -> Option<Rendered> {
        // A service that has not started must not seem to.
        let exclude = if *endpoint == Endpoint::Startup { &[][..] } else { &query.exclude };
        let details = query.details || format == Format::HealthJson;
        let Resolved { engine, .. } = self.resolved(AppData::Request(request));
        let Results { entries, valid_until, generation, excluded, unmatched } =
            engine.results(endpoint.selection(), exclude, details).await;
        if entries.is_empty() && excluded.is_empty() && endpoint.fixed_index().is_none() {
            return None;
        }
        let process = self.process_state(engine);
        let mut report = assess(endpoint, entries, &process, || self.worker_entries());
        report.excluded = excluded;
        let body = match format {
            Format::HealthJson => health_json::body(&report, self.config.sources.release.as_ref()),
            Format::Text => text::body(&report, &endpoint.name(), &unmatched),
            _ => json::body(&report, query.details),
        };
        let rendered = Rendered::new(status_code(report.status()), format, body);
        let slot = match endpoint {
            Endpoint::Health => Some(Slot::Health),
            Endpoint::Ready => Some(Slot::Ready),
            _ => None,
        };
        let is_default = format == Format::Json && !query.details && exclude.is_empty();
        if let (Some(slot), Some(mut valid_until)) = (slot.filter(|_| is_default), valid_until) {
            if process.held.is_some() {
                valid_until = valid_until.min(Instant::now() + MAX_CACHED_TIME);
            }
            self.cache.store(slot, CachedResponse { valid_until, generation, rendered: rendered.clone() });
        }
        Some(rendered)
    }

    async fn metrics(&self, format: Format, request: &HttpRequest) -> Rendered {
        let (slot, render): (_, fn(&Overview) -> String) = match format {
            Format::OpenMetrics => (Slot::OpenMetrics, metrics::openmetrics),
            _ => (Slot::Prometheus, metrics::prometheus),
        };
        self.overview(Some(slot), format, request, render).await
    }

    #[cfg(feature = "page")]
    async fn page(&self, query: &Query, request: &HttpRequest) -> Rendered {
        let has_slash = has_trailing_slash(request);
        let slot = (query.refresh.is_none() && !has_slash).then_some(Slot::Page);
        let scope = if has_slash { "../" } else { "./" };
        let render = |overview: &Overview| crate::render::page::body(overview, query.refresh, scope);
        self.overview(slot, Format::Page, request, render).await
    }

    /// What `render` makes of the overview. It is 200 whatever is down: an error would hide the values exactly during an outage.
    async fn overview(
        &self,
        slot: Option<Slot>,
        format: Format,
        request: &HttpRequest,
        render: impl FnOnce(&Overview) -> String,
    ) -> Rendered {
        let Resolved { engine, .. } = self.resolved(AppData::Request(request));
        let Results { entries, valid_until, generation, .. } = engine.results(Selection::All, &[], true).await;
        let overview =
            overview(entries, &self.process_state(engine), self.workers(), self.config.sources.release.as_ref());
        let rendered = Rendered::new(StatusCode::OK, format, render(&overview));
        if let (Some(slot), Some(valid_until)) = (slot, valid_until) {
            let valid_until = valid_until.min(Instant::now() + MAX_CACHED_TIME);
            self.cache.store(slot, CachedResponse { valid_until, generation, rendered: rendered.clone() });
        }
        rendered
    }

    pub(super) fn resolved(&self, app_data: AppData<'_>) -> &Resolved {
        self.resolved.get_or_init(|| Resolved::new(&self.config.sources, app_data))
    }

    fn process_state(&self, engine: &Engine) -> ProcessState {
        ProcessState { missing_workers: self.heartbeat.missing_workers(), ..ProcessState::now(engine) }
    }

    fn workers(&self) -> Vec<Worker> {
        self.heartbeat.workers(self.config.stall)
    }

    fn worker_entries(&self) -> Vec<Entry> {
        self.workers().iter().map(Worker::entry).collect()
    }
}

/// Relative links of the page depend on it.
#[cfg(feature = "page")]
fn has_trailing_slash(request: &HttpRequest) -> bool {
    request.path().ends_with('/')
}

fn bad_request(message: String) -> Rendered {
    Rendered::new(StatusCode::BAD_REQUEST, Format::Text, message)
}
