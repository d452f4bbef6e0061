//! `health::grpc`: the endpoints of a scope as the gRPC health service, for tonic's own client.

use std::{
    future::Future,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use actix_web::{App, HttpServer, web};
use futures_util::stream::unfold;
use health::{AllowList, Check, ConfigErrorKind, Deny, HealthCheck, IpNet, Registry, Scope};
use tokio::net::UnixListener;
use tonic::{
    Code, Request, Streaming,
    transport::{Channel, Endpoint, Server},
};
use tonic_health::pb::{
    HealthCheckRequest, HealthCheckResponse, health_check_response::ServingStatus, health_client::HealthClient,
};

use crate::{
    common::{counted::Counted, eventually, logs, test_server::TestServer},
    servers::grpc::GrpcServer,
};

const HOUR: Duration = Duration::from_secs(3600);

fn serve(scope: &Scope) -> GrpcServer {
    logs::keep();
    GrpcServer::start(Server::builder().add_service(health::grpc(scope).unwrap()))
}

fn request(service: &str) -> Request<HealthCheckRequest> {
    Request::new(HealthCheckRequest { service: service.to_owned() })
}

async fn check(channel: &Channel, service: &str) -> Result<ServingStatus, Code> {
    let response = HealthClient::new(channel.clone()).check(request(service)).await;
    response.map(|response| response.into_inner().status()).map_err(|status| {
        assert!(!status.message().contains("127.0.0.1"), "{status:?}");
        status.code()
    })
}

async fn watch(channel: &Channel, service: &str) -> Streaming<HealthCheckResponse> {
    HealthClient::new(channel.clone()).watch(request(service)).await.unwrap().into_inner()
}

async fn in_time<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(30), future).await.expect("it completes")
}

async fn next(stream: &mut Streaming<HealthCheckResponse>) -> Option<ServingStatus> {
    in_time(stream.message()).await.unwrap().map(|response| response.status())
}

/// A check that is up while the switch is on.
fn switched(group: &str, name: &str) -> (Check, Arc<AtomicBool>) {
    let switch = Arc::new(AtomicBool::new(true));
    let check = Check::new(group, name, {
        let switch = Arc::clone(&switch);
        move || {
            let is_up = switch.load(Ordering::SeqCst);
            async move { if is_up { Ok(()) } else { Err("switched off") } }
        }
    });
    (check, switch)
}

fn networks(networks: &[&str]) -> Vec<IpNet> {
    networks.iter().map(|network| network.parse().unwrap()).collect()
}

/// The services, with the paths of their endpoints.
const SERVICES: [(&str, &str); 9] = [
    ("", "/ready"),
    ("ready", "/ready"),
    ("health", ""),
    ("live", "/live"),
    ("startup", "/startup"),
    ("database", "/database"),
    ("database.eu.orders", "/database/eu.orders"),
    ("cache", "/cache"),
    ("cache.sessions", "/cache/sessions"),
];

#[actix_web::test]
async fn each_service_has_the_status_of_its_endpoint() {
    let (database, database_is_up) = switched("database", "eu.orders");
    let (cache, cache_is_up) = switched("cache", "sessions");
    let cache = cache.optional();
    let scope = move || health::scope().max_age(Duration::ZERO).check(database.clone()).check(cache.clone());
    let server = serve(&scope());
    let channel = server.channel();
    let http = TestServer::start(1, move |app| {
        app.service(scope());
    });
    let assert_not_serving = async |not_serving: &[&str]| {
        for (service, path) in SERVICES {
            let status =
                if not_serving.contains(&service) { ServingStatus::NotServing } else { ServingStatus::Serving };
            assert_eq!(check(&channel, service).await, Ok(status), "{service:?}");
            let code = if status == ServingStatus::Serving { 200 } else { 503 };
            assert_eq!(http.get(&format!("/health{path}")).await.status, code, "{path}");
        }
    };
    assert_not_serving(&[]).await;
    cache_is_up.store(false, Ordering::SeqCst);
    assert_not_serving(&[]).await;
    database_is_up.store(false, Ordering::SeqCst);
    assert_not_serving(&["", "ready", "health", "database", "database.eu.orders"]).await;
    for unknown in ["queue", "database.orders", "database.", ".", "Database", "health.drain", "orders.v1.Orders"] {
        assert_eq!(check(&channel, unknown).await, Err(Code::NotFound), "{unknown}");
    }
    assert_eq!(check(&channel, &".".repeat(100_000)).await, Err(Code::OutOfRange), "longer than any name");
}

#[derive(HealthCheck)]
struct State {
    #[health(probe)]
    counted: Counted,
}

#[actix_web::test]
async fn a_run_serves_http_and_grpc() {
    let counted = Counted::default();
    let data = web::Data::new(State { counted: counted.clone() });
    let scope = || health::scope().max_age(HOUR);
    // The scope is dropped before the first request.
    let server = serve(&scope().state(&data));
    let http = TestServer::start(2, move |app| {
        app.app_data(data.clone()).service(scope()).service(scope().deadline(HOUR).path("/other"));
    });
    for _ in 0..3 {
        assert_eq!(check(&server.channel(), "").await, Ok(ServingStatus::Serving));
        assert_eq!(http.health().await.status, 200);
        assert_eq!(http.get("/other").await.status, 200);
    }
    assert_eq!(counted.runs(), 1);
}

#[actix_web::test]
async fn a_scope_without_a_check_is_not_serving_and_the_log_names_the_step() {
    let server = serve(&health::scope());
    let channel = server.channel();
    for service in ["", "ready", "health", "startup"] {
        assert_eq!(check(&channel, service).await, Ok(ServingStatus::NotServing), "{service:?}");
    }
    // As over HTTP: a restart does not add a check.
    assert_eq!(check(&channel, "live").await, Ok(ServingStatus::Serving));
    let missing = |line: &String| line.contains("ERROR") && line.contains("no state was found");
    eventually("the step is logged", || async { logs::lines().iter().any(missing) }).await;
    let line = logs::lines().into_iter().find(missing).unwrap();
    assert!(line.contains("add `.state(&data)` to health::scope()"), "{line}");
    assert!(!line.contains(".app_data("), "gRPC has none: {line}");
}

#[actix_web::test]
async fn a_state_that_only_http_serves_is_logged_once() {
    let data = web::Data::new(State { counted: Counted::broken() });
    let server = serve(&health::scope().check(switched("queue", "orders").0));
    let http = TestServer::start(2, move |app| {
        app.app_data(data.clone()).service(health::scope()).service(health::scope().deadline(HOUR).path("/other"));
    });
    for _ in 0..3 {
        assert_eq!(http.health().await.status, 503);
        assert_eq!(http.get("/other").await.status, 503);
        assert_eq!(check(&server.channel(), "").await, Ok(ServingStatus::Serving), "it has no state");
    }
    let mut warnings = logs::lines();
    warnings.retain(|line| line.contains("WARN") && line.contains("health::grpc"));
    assert_eq!(warnings.len(), 1, "{}", logs::text());
    assert!(warnings[0].contains("grpc::State") && warnings[0].contains("add `.state(&data)`"), "{warnings:?}");
}

#[actix_web::test]
async fn a_state_that_both_serve_is_not_logged() {
    let data = web::Data::new(State { counted: Counted::default() });
    let server = serve(&health::scope().state(&data));
    let http = TestServer::start(1, move |app| {
        app.app_data(data.clone()).service(health::scope());
    });
    assert_eq!(http.health().await.status, 200);
    assert_eq!(check(&server.channel(), "").await, Ok(ServingStatus::Serving));
    assert!(!logs::lines().iter().any(|line| line.contains("WARN")), "{}", logs::text());
}

#[actix_web::test]
async fn a_name_that_several_have_is_unknown() {
    let up = |group, name| switched(group, name).0;
    let checks = [("a", "b.c"), ("a.b", "c"), ("x", "y"), ("x.y", "z"), ("queue", "live"), ("queue", "x.y")];
    let scope = checks.into_iter().fold(health::scope(), |scope, (group, name)| scope.check(up(group, name)));
    let server = serve(&scope);
    let channel = server.channel();
    for ambiguous in ["a.b.c", "x.y"] {
        assert_eq!(check(&channel, ambiguous).await, Err(Code::NotFound), "{ambiguous}");
        assert_eq!(next(&mut watch(&channel, ambiguous).await).await, Some(ServingStatus::ServiceUnknown));
    }
    for unique in ["a", "a.b", "x", "x.y.z", "queue.live", "queue.x.y"] {
        assert_eq!(check(&channel, unique).await, Ok(ServingStatus::Serving), "{unique}");
    }
}

#[actix_web::test]
async fn services_of_one_state_keep_no_more_than_one() {
    let state = Arc::new(State { counted: Counted::default() });
    let data = web::Data::from(Arc::clone(&state));
    for _ in 0..100 {
        drop(health::grpc(&health::scope().state(&data)).unwrap());
    }
    assert_eq!(Arc::weak_count(&state), 1, "it keeps the address unique");
}

#[actix_web::test]
async fn a_state_is_not_taken_for_an_earlier_one_that_was_dropped() {
    let scope = |counted| health::scope().max_age(HOUR).state(&web::Data::new(State { counted }));
    let server = serve(&scope(Counted::default()));
    assert_eq!(check(&server.channel(), "").await, Ok(ServingStatus::Serving));
    // The memory of the first state is free.
    let other = serve(&scope(Counted::broken()));
    assert_eq!(check(&other.channel(), "").await, Ok(ServingStatus::NotServing));
}

#[actix_web::test]
async fn the_resources_of_a_state_are_dropped_with_the_servers() {
    let counted = Counted::default();
    let data = web::Data::new(State { counted: counted.clone() });
    let server = serve(&health::scope().state(&data));
    assert_eq!(check(&server.channel(), "").await, Ok(ServingStatus::Serving));
    drop(data);
    assert_eq!(check(&server.channel(), "").await, Ok(ServingStatus::Serving), "the check has the resource");
    assert!(Arc::strong_count(&counted.runs) > 1);
    drop(server);
    eventually("it is dropped", || async { Arc::strong_count(&counted.runs) == 1 }).await;
}

#[actix_web::test]
async fn a_watch_sends_the_status_and_each_change() {
    let (database, is_up) = switched("database", "orders");
    let registry = Registry::new();
    let scope = health::scope().max_age(Duration::ZERO).check(database).registry(&registry);
    let server = serve(&scope);
    let channel = server.channel();
    let mut ready = watch(&channel, "").await;
    let mut unknown = watch(&channel, "queue").await;
    assert_eq!(next(&mut ready).await, Some(ServingStatus::Serving));
    assert_eq!(next(&mut unknown).await, Some(ServingStatus::ServiceUnknown));
    is_up.store(false, Ordering::SeqCst);
    assert_eq!(next(&mut ready).await, Some(ServingStatus::NotServing));
    registry.register(switched("queue", "jobs").0).unwrap();
    assert_eq!(next(&mut unknown).await, Some(ServingStatus::Serving));
    is_up.store(true, Ordering::SeqCst);
    assert_eq!(next(&mut ready).await, Some(ServingStatus::Serving));
    registry.unregister("queue", "jobs");
    assert_eq!(next(&mut unknown).await, Some(ServingStatus::ServiceUnknown));
}

#[actix_web::test]
async fn denied_clients_run_no_check_and_get_what_the_scope_sets() {
    let counted = Counted::default();
    let scope = |deny| {
        let scope = health::scope().max_age(Duration::ZERO).probe("counted", counted.clone());
        scope.allow(networks(&["192.0.2.0/24"])).deny(deny)
    };
    let services = ["", "live", "service", "service.counted", "unknown"];

    let forbidden = serve(&scope(Deny::Forbidden));
    let hidden = serve(&scope(Deny::NotFound));
    let without = GrpcServer::start(Server::builder().add_routes(tonic::service::Routes::default()));
    for service in services {
        assert_eq!(check(&forbidden.channel(), service).await, Err(Code::PermissionDenied), "{service:?}");
        let response = async |channel| HealthClient::new(channel).check(request(service)).await.unwrap_err();
        let (hidden, without) = (response(hidden.channel()).await, response(without.channel()).await);
        assert_eq!((hidden.code(), hidden.message()), (without.code(), without.message()), "{service:?}");
        let watched = HealthClient::new(forbidden.channel()).watch(request(service)).await;
        assert_eq!(watched.unwrap_err().code(), Code::PermissionDenied);
    }
    assert_eq!(counted.runs(), 0);
    let denials = || logs::lines().into_iter().filter(|line| line.contains("denied 127.0.0.1")).count();
    eventually("the denial is logged once", || async { denials() == 1 }).await;

    let status_only = serve(&scope(Deny::StatusOnly));
    let channel = status_only.channel();
    assert_eq!(check(&channel, "").await, Ok(ServingStatus::NotServing), "there is no result yet");
    assert_eq!(check(&channel, "live").await, Ok(ServingStatus::Serving));
    for service in ["service", "service.counted", "unknown"] {
        assert_eq!(check(&channel, service).await, Err(Code::NotFound), "{service:?}");
    }
    assert_eq!(next(&mut watch(&channel, "").await).await, Some(ServingStatus::NotServing));
    assert_eq!(counted.runs(), 0);
}

#[actix_web::test]
async fn the_metadata_of_a_trusted_proxy_decides() {
    let scope = health::scope().allow_empty().allow(networks(&["192.0.2.7/32"]));
    let server = serve(&scope.trust_proxies(networks(&["127.0.0.1/32"])));
    let check_as = async |forwarded: &[&'static str]| {
        let mut request = request("");
        for value in forwarded {
            request.metadata_mut().append("x-forwarded-for", value.parse().unwrap());
        }
        let response = HealthClient::new(server.channel()).check(request).await;
        response.map(|response| response.into_inner().status()).map_err(|status| status.code())
    };
    assert_eq!(check_as(&["192.0.2.7"]).await, Ok(ServingStatus::Serving));
    assert_eq!(check_as(&["192.0.2.8", "192.0.2.7"]).await, Ok(ServingStatus::Serving));
    assert_eq!(check_as(&["192.0.2.7", "192.0.2.8"]).await, Err(Code::PermissionDenied));
    assert_eq!(check_as(&["192.0.2.7, nonsense"]).await, Err(Code::PermissionDenied));
    assert_eq!(check_as(&[]).await, Err(Code::PermissionDenied));
}

#[actix_web::test]
async fn a_client_that_is_removed_from_the_allow_list_gets_nothing_more() {
    let list = AllowList::new(networks(&["127.0.0.0/8"])).unwrap();
    let server = serve(&health::scope().allow_empty().allow_list(&list));
    let channel = server.channel();
    let mut stream = watch(&channel, "").await;
    assert_eq!(next(&mut stream).await, Some(ServingStatus::Serving));
    list.remove("127.0.0.0/8".parse().unwrap());
    let ended = in_time(stream.message()).await.unwrap_err();
    assert_eq!(ended.code(), Code::PermissionDenied);
    assert_eq!(check(&channel, "").await, Err(Code::PermissionDenied));
}

#[actix_web::test]
async fn a_unix_socket_is_denied_unless_it_is_allowed() {
    let folder = tempfile::tempdir().unwrap();
    let check_at = async |name: &str, scope: Scope| {
        let path = folder.path().join(name);
        let listener = UnixListener::bind(&path).unwrap();
        let incoming = unfold(listener, |listener| async {
            let accepted = listener.accept().await.map(|(stream, _)| stream);
            Some((accepted, listener))
        });
        let router = Server::builder().add_service(health::grpc(&scope).unwrap());
        let server = tokio::spawn(router.serve_with_incoming(Box::pin(incoming)));
        let channel = Endpoint::from_shared(format!("unix:{}", path.display())).unwrap().connect_lazy();
        let result = check(&channel, "").await;
        server.abort();
        result
    };
    assert_eq!(check_at("denied", health::scope().allow_empty()).await, Err(Code::PermissionDenied));
    let allowed = check_at("allowed", health::scope().allow_empty().allow_unix()).await;
    assert_eq!(allowed, Ok(ServingStatus::Serving));
}

#[actix_web::test]
async fn a_held_process_is_not_serving() {
    let server = serve(&health::scope().check(switched("database", "orders").0));
    let channel = server.channel();
    let hold = health::hold("maintenance", HOUR);
    for (service, status) in [
        ("", ServingStatus::NotServing),
        ("health", ServingStatus::NotServing),
        ("live", ServingStatus::Serving),
        ("database", ServingStatus::Serving),
    ] {
        assert_eq!(check(&channel, service).await, Ok(status), "{service:?}");
    }
    drop(hold);
    assert_eq!(check(&channel, "").await, Ok(ServingStatus::Serving));
}

#[actix_web::test]
async fn a_drain_ends_open_streams_so_that_the_server_can_shut_down() {
    let mut server = serve(&health::scope().allow_empty());
    let channel = server.channel();
    let mut ready = watch(&channel, "").await;
    let mut live = watch(&channel, "live").await;
    assert_eq!(next(&mut ready).await, Some(ServingStatus::Serving));
    assert_eq!(next(&mut live).await, Some(ServingStatus::Serving));
    let http = HttpServer::new(App::new).workers(1).disable_signals().bind(("127.0.0.1", 0)).unwrap().run();
    health::drain(http.handle(), HOUR).start();
    actix_web::rt::spawn(http);
    assert_eq!(next(&mut ready).await, Some(ServingStatus::NotServing));
    assert_eq!(next(&mut ready).await, None);
    assert_eq!(next(&mut live).await, None);
    assert_eq!(check(&channel, "").await, Ok(ServingStatus::NotServing));
    server.shut_down();
    eventually("the server has shut down", || async { server.has_ended() }).await;
}

#[actix_web::test]
async fn a_predicate_of_actix_requests_is_an_error() {
    let error = health::grpc(&health::scope().allow_empty().authorize(|_| true)).unwrap_err();
    assert_eq!(error.kind(), ConfigErrorKind::Authorize);
    assert!(error.to_string().contains("interceptor"), "{error}");
    let error = health::grpc(&health::scope().deadline(Duration::ZERO)).unwrap_err();
    assert_eq!(error.kind(), ConfigErrorKind::Duration);
}
