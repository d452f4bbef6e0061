//! [`grpc`]: the endpoints of a scope as the gRPC health service, from the same engine and with the same access rules as over HTTP.

use std::{
    fmt,
    pin::Pin,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use futures_util::{Stream, stream::unfold};
use tokio::time::sleep;
use tonic::{Request, Response, async_trait, metadata::MetadataMap};
use tonic_health::pb::{
    HealthCheckRequest, HealthCheckResponse,
    health_check_response::ServingStatus,
    health_server::{Health, HealthServer},
};

use super::{
    Scope,
    assess::{ProcessState, assess},
    config::{ConfigError, Invalid},
    endpoint::Endpoint,
    guard::{Denial, Deny, warn_untrusted_proxy_once},
    resolve::Resolved,
};
use crate::{
    access::{AccessDenied, ForwardingHeader, Peer, Policy},
    discovery::{
        Checks,
        state::{AppData, ResolvedState},
    },
    engine::Engine,
    lifecycle,
    process::GRPC_WITHOUT_STATE,
    report::Worker,
    status::Status,
};

/// How often the status of a watched service is determined.
const WATCH_INTERVAL: Duration = Duration::from_secs(1);

/// The longest request, in bytes: more than those of the longest names of a group and a check.
const MAX_REQUEST_LEN: usize = 4096;

/// Serves the endpoints of a scope as the
/// [gRPC health service](https://github.com/grpc/grpc/blob/master/doc/health-checking.md) `grpc.health.v1.Health`, for an application
/// that serves gRPC in addition to HTTP: add the returned service to tonic's server.
///
/// | `service` of a request | endpoint |
/// | --- | --- |
/// | empty, or `ready` | `/health/ready` |
/// | `health`, `live`, `startup` | `/health`, `/health/live`, `/health/startup` |
/// | a group, such as `database` | `/health/database` |
/// | a group and a check, such as `database.orders` | `/health/database/orders` |
///
/// The response is `SERVING` if the status is `UP` or `DEGRADED`, and `NOT_SERVING` if it is `DOWN`. It contains nothing else: messages
/// and details are served over HTTP only. For another service, `Check` returns `NOT_FOUND` and `Watch` sends `SERVICE_UNKNOWN`. So they do
/// for a name that several have because of dots in names, such as `a.b.c` of the check `b.c` in the group `a` and `c` in `a.b`.
///
/// `Watch` sends the status, and each change within a second and the maximum age of a result. It runs the checks that are due, as a client
/// that polls every second does. While the process is draining, it sends the status and ends, because a graceful shutdown of the server
/// waits for open streams.
///
/// Runs and results are shared with scopes over HTTP that have the same states, checks and settings.
///
/// # States
///
/// **A state that is only in `app_data` is not part of the status over gRPC**, because there is no request of actix-web to read it from:
/// pass each state to [`Scope::state`]. If the scope has no state and another scope of the process finds one, that is logged as a warning,
/// once. A scope without any check is `NOT_SERVING`, except `live`, unless it has [`Scope::allow_empty`]; the log has the line to add.
///
/// # Access
///
/// The allow-list, the trusted proxies (by the metadata of their requests) and Unix sockets are those of the scope. The address of the
/// client is that of tonic's own transport; a service in another server, such as axum's, denies every request. A change of an
/// [`AllowList`](crate::AllowList) also affects open streams.
///
/// | [`Scope::deny`] | response to denied clients |
/// | --- | --- |
/// | [`Deny::Forbidden`] | `PERMISSION_DENIED` |
/// | [`Deny::NotFound`] | `UNIMPLEMENTED`, as if there were no health service |
/// | [`Deny::StatusOnly`] | the status of the latest results, of which no check runs; `NOT_FOUND` for groups and checks |
///
/// # Errors
///
/// A setting of the scope is invalid, or it has a predicate of [`Scope::authorize`], which takes a request of actix-web. Write an
/// interceptor of tonic instead, and pass a scope without the predicate.
///
/// # Examples
///
/// ```
/// # #[derive(Clone)] struct Mailer;
/// # impl health::Probe for Mailer {
/// #     const GROUP: &'static str = "service";
/// #     async fn probe(&self) -> Result<(), health::ProbeError> { Ok(()) }
/// # }
/// use actix_web::web;
///
/// #[derive(health::HealthCheck)]
/// struct AppState {
///     mailer: Mailer,
/// }
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let state = web::Data::new(AppState { mailer: Mailer });
/// let service = health::grpc(&health::scope().state(&state))?;
/// // tonic::transport::Server::builder().add_service(service).serve("0.0.0.0:50051".parse()?).await?;
/// # drop(service);
/// # Ok(())
/// # }
/// ```
pub fn grpc(scope: &Scope) -> Result<HealthServer<GrpcHealth>, ConfigError> {
    let options = &scope.options;
    let config = options.validate()?;
    if options.authorize.is_some() {
        return Err(Invalid::PredicateOverGrpc.into());
    }
    let Resolved { engine, states } = Resolved::new(&config.sources, AppData::None);
    if states.is_empty() {
        GRPC_WITHOUT_STATE.store(true, Ordering::Relaxed);
    }
    let inner = Inner {
        engine,
        _checks: states.iter().map(ResolvedState::pin).collect(),
        policy: config.access.policy.clone(),
        deny: config.access.deny,
        stall: config.stall,
    };
    Ok(HealthServer::new(GrpcHealth(Arc::new(inner))).max_decoding_message_size(MAX_REQUEST_LEN))
}

/// The implementation of the health service that [`grpc`] returns.
#[derive(Clone)]
pub struct GrpcHealth(Arc<Inner>);

struct Inner {
    // Dropped before the checks, whose states are part of its key.
    engine: Arc<Engine>,
    _checks: Vec<Arc<Checks>>,
    policy: Policy,
    deny: Deny,
    stall: Duration,
}

/// The sender of a request.
struct Client {
    peer: Peer,
    metadata: MetadataMap,
}

/// Which status a client may see.
#[derive(Clone, Copy, PartialEq)]
enum Access {
    /// The current one: the checks that are due run.
    Allowed,
    /// That of the latest results.
    StatusOnly,
}

impl Inner {
    /// Decides on a request. Counts and logs a denial.
    fn authorize(&self, client: &Client) -> Result<Access, tonic::Status> {
        let denied = match self.evaluate(client) {
            Ok(address) => {
                let contains = |header| !client.values(header).is_empty();
                warn_untrusted_proxy_once(&self.policy, address, contains);
                return Ok(Access::Allowed);
            }
            Err(denied) => denied,
        };
        Denial::ByPolicy(denied).count_and_log();
        match self.deny {
            Deny::Forbidden => Err(tonic::Status::permission_denied("")),
            Deny::NotFound => Err(tonic::Status::unimplemented("")),
            Deny::StatusOnly => Ok(Access::StatusOnly),
        }
    }

    fn evaluate(&self, client: &Client) -> Result<Peer, AccessDenied> {
        self.policy.evaluate(client.peer, |header| client.values(header))
    }

    /// The endpoint of a service; `None` if no group or check has the name, or if several have it.
    fn endpoint<'a>(&self, service: &'a str, access: Access) -> Option<Endpoint<'a>> {
        Some(match service {
            "" | "ready" => Endpoint::Ready,
            "health" => Endpoint::Health,
            "live" => Endpoint::Live,
            "startup" => Endpoint::Startup,
            _ if access == Access::StatusOnly => return None,
            _ => {
                // A group and a name may contain dots, so the group may end at any of them, or at the end.
                let names = service.match_indices('.').map(|(at, _)| (&service[..at], &service[at + 1..]));
                let checks = names.map(|(group, name)| Endpoint::Check(group.into(), name.into()));
                let all = checks.chain([Endpoint::Group(service.into())]);
                let mut known = all.filter(|endpoint| self.engine.contains(endpoint.selection()));
                let endpoint = known.next()?;
                // The status of one must not be taken for that of another.
                return known.next().is_none().then_some(endpoint);
            }
        })
    }

    /// The status of a service; `None` if it has no [endpoint](Self::endpoint).
    async fn status(&self, service: &str, access: Access) -> Option<ServingStatus> {
        let endpoint = self.endpoint(service, access)?;
        let results = match access {
            Access::Allowed => self.engine.results(endpoint.selection(), &[], false).await.entries,
            Access::StatusOnly => self.engine.latest_results(endpoint.selection(), false),
        };
        if results.is_empty() && endpoint.fixed_index().is_none() {
            // The check was removed meanwhile.
            return None;
        }
        let workers = || lifecycle::unobserved_workers(self.stall).iter().map(Worker::entry).collect();
        let report = assess(&endpoint, results, &ProcessState::now(&self.engine), workers);
        Some(if report.status() == Status::Down { ServingStatus::NotServing } else { ServingStatus::Serving })
    }
}

impl Client {
    fn of(metadata: MetadataMap, extensions: tonic::Extensions) -> Self {
        let request = Request::from_parts(MetadataMap::new(), extensions, ());
        let peer = match request.remote_addr() {
            Some(address) => Peer::Address(address.ip()),
            None if is_unix(request.extensions()) => Peer::Unix,
            None => Peer::Unknown,
        };
        Self { peer, metadata }
    }

    fn values(&self, header: ForwardingHeader) -> Vec<&[u8]> {
        self.metadata.get_all(header.name()).iter().map(tonic::metadata::MetadataValue::as_encoded_bytes).collect()
    }
}

#[cfg(unix)]
fn is_unix(extensions: &tonic::Extensions) -> bool {
    extensions.get::<tonic::transport::server::UdsConnectInfo>().is_some()
}

#[cfg(not(unix))]
fn is_unix(_: &tonic::Extensions) -> bool {
    false
}

#[async_trait]
impl Health for GrpcHealth {
    type WatchStream = Pin<Box<dyn Stream<Item = Result<HealthCheckResponse, tonic::Status>> + Send>>;

    async fn check(
        &self,
        request: Request<HealthCheckRequest>,
    ) -> Result<Response<HealthCheckResponse>, tonic::Status> {
        let (metadata, extensions, HealthCheckRequest { service }) = request.into_parts();
        let access = self.0.authorize(&Client::of(metadata, extensions))?;
        let status = self.0.status(&service, access).await;
        let status =
            status.ok_or_else(|| tonic::Status::not_found("no group or check has this name, or several have it"))?;
        Ok(Response::new(response(status)))
    }

    async fn watch(&self, request: Request<HealthCheckRequest>) -> Result<Response<Self::WatchStream>, tonic::Status> {
        let (metadata, extensions, HealthCheckRequest { service }) = request.into_parts();
        let client = Client::of(metadata, extensions);
        let access = self.0.authorize(&client)?;
        let watch = Watch { health: self.clone(), client, service, access, last: None, has_ended: false };
        let changes = unfold(watch, |mut watch| async move { Some((watch.next_change().await?, watch)) });
        Ok(Response::new(Box::pin(changes)))
    }
}

/// A stream of the status of a service.
struct Watch {
    health: GrpcHealth,
    client: Client,
    service: String,
    access: Access,
    last: Option<ServingStatus>,
    has_ended: bool,
}

impl Watch {
    async fn next_change(&mut self) -> Option<Result<HealthCheckResponse, tonic::Status>> {
        loop {
            if self.has_ended {
                return None;
            }
            if self.last.is_some() {
                sleep(WATCH_INTERVAL).await;
                if let Err(denied) = self.authorize_again() {
                    self.has_ended = true;
                    return Some(Err(denied));
                }
            }
            let status = self.health.0.status(&self.service, self.access).await;
            let status = status.unwrap_or(ServingStatus::ServiceUnknown);
            self.has_ended = lifecycle::is_draining();
            if self.last.replace(status) != Some(status) {
                return Some(Ok(response(status)));
            }
        }
    }

    /// Evaluates the access rules, which may have changed. A denial is counted once.
    fn authorize_again(&mut self) -> Result<(), tonic::Status> {
        let is_allowed = self.health.0.evaluate(&self.client).is_ok();
        if is_allowed != (self.access == Access::Allowed) {
            self.access = self.health.0.authorize(&self.client)?;
        }
        Ok(())
    }
}

fn response(status: ServingStatus) -> HealthCheckResponse {
    HealthCheckResponse { status: status.into() }
}

impl fmt::Debug for GrpcHealth {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("GrpcHealth").finish_non_exhaustive()
    }
}
