//! `tonic::transport::Channel` and `GrpcService`, against etcd and against servers with tonic-health.

use std::{any::Any, time::Duration};

use ::tonic::{
    Request, Status,
    service::{Routes, interceptor::InterceptedService},
    transport::{Channel, Endpoint, Server},
};
use health::{ProbeError, ProbeErrorKind, probes::tonic::GrpcService};
use tonic_health::{
    ServingStatus,
    pb::{HealthCheckRequest, health_client::HealthClient},
    server::{HealthReporter, health_reporter},
};

use crate::{
    acceptance::{Backend, ExpectedMessage, Password, Unsupported, acceptance, serve_uncached},
    common::{
        daemon::Daemon,
        eventually,
        responses::{assert_degraded, assert_down, assert_not_leaked, assert_up},
        servers::FaultInjection as _,
        test_server::TestServer,
    },
    servers::{
        connections_to,
        etcd::Etcd,
        grpc::GrpcServer,
        stub::{Page, Stub, Talk},
    },
};

struct OfEtcd;

acceptance!(channel, OfEtcd);

fn channel_to(port: u16) -> Channel {
    Endpoint::from_shared(format!("http://127.0.0.1:{port}")).unwrap().connect_lazy()
}

impl Backend for OfEtcd {
    type Resource = Channel;
    type Server = Etcd;

    fn prepare() -> Etcd {
        Etcd::prepared()
    }

    async fn open(etcd: &Etcd, _: Password) -> Result<Channel, Unsupported> {
        Ok(channel_to(etcd.port()))
    }

    fn unreachable(_: &Etcd) -> (ExpectedMessage, &'static str) {
        (ExpectedMessage::Message("unable to connect to the grpc server".to_owned()), "Connection refused")
    }

    fn rejected(_: &Etcd) -> Result<(ExpectedMessage, &'static str), Unsupported> {
        Err("the credentials of gRPC are in each call, and a channel contains none; see the test of an interceptor")
    }

    async fn saturate(_: &Channel) -> Result<(Box<dyn Any>, u32), Unsupported> {
        Err("all calls of a channel share one connection: there is nothing to use up")
    }

    async fn queries(etcd: &Etcd) -> Result<u64, Unsupported> {
        Ok(etcd.checks())
    }

    async fn connections(etcd: &Etcd) -> Result<usize, Unsupported> {
        Ok(connections_to(etcd.port()))
    }
}

/// A server whose health service knows `orders`.
async fn server_with_orders(status: ServingStatus) -> (GrpcServer, HealthReporter) {
    let (reporter, service) = health_reporter();
    reporter.set_service_status("orders", status).await;
    (GrpcServer::start(Server::builder().add_service(service)), reporter)
}

/// The value that the latest run has observed.
async fn serving_status(rig: &TestServer) -> serde_json::Value {
    rig.get("/health?details").await.json()["details"]["service"]["resource"]["data"]["serving_status"].clone()
}

#[actix_web::test]
async fn a_service_has_the_status_that_its_server_reports() {
    let (server, reporter) = server_with_orders(ServingStatus::Serving).await;
    let rig = serve_uncached(GrpcService::new(server.channel(), "orders"));
    assert_up(&rig, "service", "resource").await;
    assert_eq!(serving_status(&rig).await, "SERVING");
    reporter.set_service_status("orders", ServingStatus::NotServing).await;
    let response = assert_down(&rig, "service", "resource", "the grpc server reports NOT_SERVING").await;
    assert_not_leaked(&rig, &response, &[]).await;
    assert_eq!(serving_status(&rig).await, "NOT_SERVING");
    reporter.set_service_status("orders", ServingStatus::Unknown).await;
    assert_down(&rig, "service", "resource", "the grpc server reports UNKNOWN").await;
    assert_up(&serve_uncached(server.channel()), "service", "resource").await;
}

#[actix_web::test]
async fn a_service_that_the_server_does_not_know_is_down() {
    let (server, mut reporter) = server_with_orders(ServingStatus::Serving).await;
    let rig = serve_uncached(GrpcService::new(server.channel(), "canary.orders"));
    let response = assert_down(&rig, "service", "resource", "the grpc server does not know the service").await;
    assert_not_leaked(&rig, &response, &["canary.orders"]).await;
    reporter.clear_service_status("").await;
    assert_down(&serve_uncached(server.channel()), "service", "resource", "the grpc server does not know the service")
        .await;
}

#[actix_web::test]
async fn a_server_without_health_service_is_up_as_a_channel_and_says_so_but_not_as_a_service() {
    let server = GrpcServer::start(Server::builder().add_routes(Routes::default()));
    let rig = serve_uncached(server.channel());
    assert_up(&rig, "service", "resource").await;
    assert_eq!(serving_status(&rig).await, "UNIMPLEMENTED");
    let rig = serve_uncached(GrpcService::new(server.channel(), "orders"));
    assert_down(&rig, "service", "resource", "the grpc server has no health service").await;
    assert_eq!(serving_status(&rig).await, "UNIMPLEMENTED");
}

#[actix_web::test]
async fn an_http_server_without_the_path_is_no_grpc_server() {
    let mut haproxy = Daemon::new((), "root", "haproxy");
    let text = format!(
        "defaults\n mode http\n timeout connect 1s\n timeout client 9s\n timeout server 1s\n\
         frontend all\n bind {} proto h2\n http-request return status 404\n",
        haproxy.address()
    );
    haproxy.write("configuration", &text);
    haproxy.add_args(&["-db", "-f", &haproxy.path("configuration")]);
    haproxy.restart();
    let rig = serve_uncached(channel_to(haproxy.port()));
    let response = assert_down(&rig, "service", "resource", "unexpected response from the grpc server").await;
    assert_not_leaked(&rig, &response, &["HTTP status code 404"]).await;
}

#[actix_web::test]
async fn a_server_of_another_protocol_is_no_grpc_server() {
    for server in [
        Stub::page(Page::Plain(400, "connection: close", "canary page".to_owned())),
        Stub::page(Page::Garbage),
        Stub::start(Talk::Greets),
    ] {
        let rig = serve_uncached(channel_to(server.port()));
        // The connection may also end before the request is sent.
        eventually("the response is unexpected", || async {
            let response = rig.health().await;
            assert_eq!(response.status, 503);
            response.json()["errors"]["service"]["resource"] == "unexpected response from the grpc server"
        })
        .await;
    }
    let closes = Stub::page(Page::HangsUp);
    let rig = serve_uncached(channel_to(closes.port()));
    assert_down(&rig, "service", "resource", "unable to connect to the grpc server").await;
}

/// A server whose health service refuses each call.
fn refusing(refuse: fn() -> Status) -> GrpcServer {
    let (_, service) = health_reporter();
    let service = InterceptedService::new(service, move |_: Request<()>| Err(refuse()));
    GrpcServer::start(Server::builder().add_service(service))
}

#[actix_web::test]
async fn the_code_of_a_refusal_determines_the_status() {
    let server = refusing(|| Status::unauthenticated("canary token"));
    let rig = serve_uncached(server.channel());
    let response = assert_down(&rig, "service", "resource", "the grpc server denied access").await;
    assert_not_leaked(&rig, &response, &["canary token"]).await;
    let server = refusing(|| Status::resource_exhausted("too many calls"));
    assert_degraded(
        &serve_uncached(server.channel()),
        "service",
        "resource",
        "the grpc server reports RESOURCE_EXHAUSTED",
    )
    .await;
    let server = refusing(|| Status::unavailable("starting"));
    assert_down(&serve_uncached(server.channel()), "service", "resource", "unable to connect to the grpc server").await;
    let server = refusing(|| Status::internal("broken"));
    assert_down(&serve_uncached(server.channel()), "service", "resource", "unexpected response from the grpc server")
        .await;
}

#[actix_web::test]
async fn while_a_limit_of_the_channel_is_reached_a_second_channel_is_up() {
    let (_reporter, service) = health_reporter();
    let server = GrpcServer::start(Server::builder().max_concurrent_streams(1).add_service(service));
    let (channel, second) = (server.channel(), server.channel());
    let rig = serve_uncached(channel.clone());
    assert_up(&rig, "service", "resource").await;
    let request = HealthCheckRequest { service: String::new() };
    let stream = HealthClient::new(channel).watch(request).await.unwrap();
    assert_down(&rig, "service", "resource", "timed out after 800 ms").await;
    assert_up(&serve_uncached(second), "service", "resource").await;
    drop(stream);
    eventually("it is up again", || async { rig.health().await.status == 200 }).await;
}

#[actix_web::test]
async fn a_server_that_restarted_between_two_runs_is_up_at_once() {
    let mut etcd = Etcd::prepared();
    etcd.restart();
    let rig = serve_uncached(channel_to(etcd.port()));
    assert_up(&rig, "service", "resource").await;
    for _ in 0..3 {
        etcd.stop();
        etcd.restart();
        assert_up(&rig, "service", "resource").await;
    }
}

#[actix_web::test]
async fn the_timeout_of_the_channel_is_a_timeout_of_the_check() {
    let mut etcd = Etcd::prepared();
    etcd.restart();
    let endpoint = Endpoint::from_shared(format!("http://127.0.0.1:{}", etcd.port())).unwrap();
    let rig = serve_uncached(endpoint.timeout(Duration::from_millis(200)).connect_lazy());
    assert_up(&rig, "service", "resource").await;
    etcd.freeze();
    assert_down(&rig, "service", "resource", "no response from the grpc server").await;
    etcd.resume();
    eventually("it is up again", || async { rig.health().await.status == 200 }).await;
}

#[actix_web::test]
async fn the_class_of_an_error_survives_a_check_of_the_users() {
    let error = anyhow::Error::from(Status::permission_denied("no")).context("while an order is sent");
    assert_eq!(ProbeError::from_error(error).kind(), ProbeErrorKind::Rejected);
    assert_eq!(ProbeError::from(Status::deadline_exceeded("late")).kind(), ProbeErrorKind::TimedOut);
    assert_eq!(ProbeError::from(Status::unavailable("gone")).kind(), ProbeErrorKind::Unreachable);
}
