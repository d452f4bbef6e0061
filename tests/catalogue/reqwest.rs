//! `probes::reqwest::Get`, against a stub server in the test's process.
//!
//! The acceptance suite applies without saturation: the client opens as many connections as it needs.

use std::{any::Any, time::Duration};

use ::reqwest::{
    Certificate, Client, StatusCode,
    header::{AUTHORIZATION, HeaderValue},
    redirect::Policy,
};
use actix_web::web;
use health::{HealthCheck, probes::reqwest::Get};

use serde_json::json;

use crate::{
    acceptance::{Backend, ExpectedMessage, Password, Unsupported, WRONG, acceptance, values},
    certificate::{Authority, days, install_provider},
    common::{
        PASSWORD, USER, eventually,
        http::Response,
        logs,
        proxy::{Fault, Proxy},
        responses::{assert_degraded, assert_down, assert_not_leaked, assert_up},
        test_server::TestServer,
    },
    servers::{
        balancer::Balancer,
        stub::{Page, Stub, Talk},
    },
};

struct Http;

acceptance!(get, Http);

impl Backend for Http {
    type Resource = Get;
    type Server = Stub;

    fn prepare() -> Stub {
        Stub::prepared(Talk::Http)
    }

    async fn open(server: &Stub, password: Password) -> Result<Get, Unsupported> {
        let password = if password == Password::Right { PASSWORD } else { WRONG };
        Ok(get_url(&format!("http://{USER}:{password}@127.0.0.1:{}/canarybase?key={PASSWORD}", server.port())))
    }

    fn unreachable(server: &Stub) -> (ExpectedMessage, &'static str) {
        let message = format!("unable to connect to http server at 127.0.0.1:{}", server.port());
        (ExpectedMessage::Message(message), "Connection refused")
    }

    fn rejected(server: &Stub) -> Result<(ExpectedMessage, &'static str), Unsupported> {
        let message = format!("http server at 127.0.0.1:{} denied access", server.port());
        Ok((ExpectedMessage::Message(message), "the status is 401"))
    }

    async fn saturate(_: &Get) -> Result<(Box<dyn Any>, u32), Unsupported> {
        Err("a client has no maximum of connections")
    }

    async fn queries(server: &Stub) -> Result<u64, Unsupported> {
        Ok(server.requests())
    }

    async fn connections(server: &Stub) -> Result<usize, Unsupported> {
        Ok(server.open())
    }
}

#[derive(HealthCheck)]
struct State {
    shop: Get,
}

fn serve(shop: Get) -> TestServer {
    let state = web::Data::new(State { shop });
    TestServer::start(1, move |app| {
        app.service(health::scope().max_age(Duration::ZERO).state(&state));
    })
}

/// A client as applications have it.
fn client() -> Client {
    // With TLS, a client is built only if the process has a provider.
    install_provider();
    Client::new()
}

fn get_url(url: &str) -> Get {
    Get::new(client(), url.parse().unwrap())
}

fn get(stub: &Stub) -> Get {
    get_url(&format!("http://127.0.0.1:{}/live", stub.port()))
}

fn plain(status: u16, body: &str) -> Page {
    Page::Plain(status, "", body.to_owned())
}

async fn is_failed(rig: &TestServer, stub: &Stub, logged: &str) {
    let message = format!("unexpected response from http server at 127.0.0.1:{}", stub.port());
    let response = assert_down(rig, "service", "shop", &message).await;
    assert_not_leaked(rig, &response, &[logged]).await;
}

#[actix_web::test]
async fn any_success_is_up_and_any_other_status_is_down() {
    let stub = Stub::page(plain(204, ""));
    let rig = serve(get(&stub));
    for status in [200, 204, 299] {
        stub.show(plain(status, ""));
        assert_up(&rig, "service", "shop").await;
    }
    for (status, message) in [
        (304, "unexpected response from {}"),
        (404, "unexpected response from {}"),
        (429, "unexpected response from {}"),
        (503, "unexpected response from {}"),
        (403, "{} denied access"),
        (407, "{} denied access"),
    ] {
        stub.show(plain(status, ""));
        let message = message.replace("{}", &format!("http server at 127.0.0.1:{}", stub.port()));
        assert_down(&rig, "service", "shop", &message).await;
    }
    stub.show(plain(504, ""));
    assert_down(&rig, "service", "shop", &format!("no response from http server at 127.0.0.1:{}", stub.port())).await;
    assert_eq!(values(&rig, "service", "shop").await, json!({"http_status": 504}));
    assert_eq!(stub.accepted(), 1, "the connection is reused after any response");
}

#[actix_web::test]
async fn the_connection_is_reused_after_a_failure_with_a_body() {
    let stub = Stub::page(plain(503, &"x".repeat(60_000)));
    let rig = serve(get(&stub));
    for _ in 0..3 {
        is_failed(&rig, &stub, "the status is 503").await;
    }
    assert_eq!(stub.accepted(), 1);
}

#[actix_web::test]
async fn a_url_that_the_client_does_not_support_is_down() {
    let rig = serve(get_url("ftp://files.internal/path-canary"));
    let message = "unable to send a request to server at files.internal:21";
    let response = assert_down(&rig, "service", "shop", message).await;
    assert_not_leaked(&rig, &response, &["builder error"]).await;
    assert!(!logs::text().contains("path-canary"), "{}", logs::text());
}

#[actix_web::test]
async fn the_expected_status_is_the_only_one_that_is_up() {
    let stub = Stub::page(plain(418, ""));
    let rig = serve(get(&stub).status(StatusCode::IM_A_TEAPOT));
    assert_up(&rig, "service", "shop").await;
    stub.show(plain(200, ""));
    is_failed(&rig, &stub, "the status is 200").await;
}

#[actix_web::test]
async fn the_client_decides_whether_redirects_are_followed() {
    let other = Stub::page(plain(200, ""));
    let stub = Stub::page(plain(200, ""));
    let location: &'static str = format!("location: http://127.0.0.1:{}/", other.port()).leak();
    stub.show(Page::Plain(302, location, String::new()));
    assert_up(&serve(get(&stub)), "service", "shop").await;
    assert_eq!(other.requests(), 1);
    install_provider();
    let follows_none = Client::builder().redirect(Policy::none()).build().unwrap();
    let url = format!("http://127.0.0.1:{}/", stub.port()).parse().unwrap();
    is_failed(&serve(Get::new(follows_none, url)), &stub, "the status is 302").await;
    assert_eq!(other.requests(), 1);
    // A server that redirects to itself.
    let location: &'static str = format!("location: http://127.0.0.1:{}/", stub.port()).leak();
    stub.show(Page::Plain(302, location, String::new()));
    is_failed(&serve(get(&stub)), &stub, "redirect").await;
}

#[actix_web::test]
async fn the_server_that_responds_after_a_redirect_is_named() {
    let other = Stub::page(plain(503, ""));
    let location: &'static str = format!("location: http://127.0.0.1:{}/path-canary", other.port()).leak();
    let stub = Stub::page(Page::Plain(302, location, String::new()));
    is_failed(&serve(get(&stub)), &other, "the status is 503").await;
    other.show(plain(401, ""));
    let message = format!("http server at 127.0.0.1:{} denied access", other.port());
    assert_down(&serve(get(&stub)), "service", "shop", &message).await;
    other.show(plain(200, ""));
    is_failed(&serve(get(&stub).body_contains("is well")), &other, "does not contain the expected text").await;
    other.show(Page::CutBody);
    let message = format!("unable to connect to http server at 127.0.0.1:{}", other.port());
    assert_down(&serve(get(&stub).body_contains("is bad")), "service", "shop", &message).await;
    assert!(!logs::text().contains("path-canary"), "{}", logs::text());
}

#[actix_web::test]
async fn behind_a_proxy_the_server_of_the_url_is_named() {
    install_provider();
    let stub = Stub::page(plain(407, ""));
    let proxy = format!("http://{USER}:{PASSWORD}@127.0.0.1:{}", stub.port());
    let client = Client::builder().proxy(::reqwest::Proxy::all(proxy).unwrap()).build().unwrap();
    for (url, name) in [
        ("http://shop.internal/", "http server at shop.internal:80"),
        ("https://shop.internal/", "https server at shop.internal:443"),
    ] {
        let rig = serve(Get::new(client.clone(), url.parse().unwrap()));
        let response = assert_down(&rig, "service", "shop", &format!("{name} denied access")).await;
        assert_not_leaked(&rig, &response, &[]).await;
    }
    assert!(stub.last_head().starts_with("CONNECT shop.internal:443 "), "{}", stub.last_head());
}

#[actix_web::test]
async fn the_body_must_contain_the_expected_text() {
    let stub = Stub::page(plain(200, r#"{"status":"green"}"#));
    let rig = serve(get(&stub).body_contains(r#""status":"green""#));
    assert_up(&rig, "service", "shop").await;
    stub.show(plain(200, &("x".repeat(60_000) + r#""status":"green""#)));
    assert_up(&rig, "service", "shop").await;
    for body in ["", r#"{"status":"yellow"}"#, &("x".repeat(70_000) + r#""status":"green""#)] {
        stub.show(plain(200, body));
        is_failed(&rig, &stub, "does not contain the expected text").await;
    }
}

#[actix_web::test]
async fn an_endless_body_is_read_up_to_the_limit() {
    let stub = Stub::page(Page::Endless("all is well"));
    assert_up(&serve(get(&stub)), "service", "shop").await;
    assert_up(&serve(get(&stub).body_contains("is well")), "service", "shop").await;
    is_failed(&serve(get(&stub).body_contains("is bad")), &stub, "does not contain the expected text").await;
    eventually("what was not read to the end is closed", || async { stub.open() == 0 }).await;
}

#[actix_web::test]
async fn a_text_longer_than_the_limit_is_read_to_its_end() {
    let text = "x".repeat(70_000);
    let stub = Stub::page(plain(200, &text));
    let rig = serve(get(&stub).body_contains(text.clone()));
    assert_up(&rig, "service", "shop").await;
    stub.show(plain(200, &text[1..]));
    is_failed(&rig, &stub, "does not contain the expected text").await;
}

#[actix_web::test]
async fn the_rest_of_a_body_does_not_delay_the_result() {
    let stub = Stub::page(Page::Unfinished);
    let rig = serve(get(&stub));
    let mut latencies = Vec::new();
    for _ in 0..5 {
        let details = rig.get("/health?details").await.json()["details"]["service"]["shop"].clone();
        latencies.push(details["latency_ms"].as_f64().unwrap());
    }
    // The rest is waited for up to 100 ms.
    assert!(latencies.iter().any(|&latency| latency < 100.0), "{latencies:?}");
}

#[actix_web::test]
async fn the_body_is_read_only_if_a_text_is_expected() {
    let stub = Stub::page(Page::Unfinished);
    for get in [get(&stub), get(&stub).body_contains("is well")] {
        assert_up(&serve(get), "service", "shop").await;
    }
    assert_down(&serve(get(&stub).body_contains("is bad")), "service", "shop", "timed out after 800 ms").await;
}

#[actix_web::test]
async fn a_server_without_http_is_down() {
    let stub = Stub::page(Page::Garbage);
    is_failed(&serve(get(&stub)), &stub, "invalid HTTP version").await;
    stub.show(Page::EndlessHead);
    is_failed(&serve(get(&stub)), &stub, "too large").await;
}

#[actix_web::test]
async fn a_server_that_closes_without_a_response_is_unreachable() {
    let stub = Stub::page(Page::HangsUp);
    let rig = serve(get(&stub));
    let message = format!("unable to connect to http server at 127.0.0.1:{}", stub.port());
    assert_down(&rig, "service", "shop", &message).await;
}

#[actix_web::test]
async fn a_slow_or_silent_server_is_down_by_the_deadline() {
    let stub = Stub::page(Page::Slow);
    for page in [Page::Slow, Page::Silent] {
        stub.show(page);
        let response = assert_down(&serve(get(&stub)), "service", "shop", "timed out after 800 ms").await;
        assert!(response.took < Duration::from_secs(5), "{:?}", response.took);
    }
}

#[actix_web::test]
async fn a_connection_that_the_server_closes_after_each_response_is_up() {
    let stub = Stub::page(Page::ClosesAfterwards);
    let rig = serve(get(&stub));
    for _ in 0..10 {
        assert_up(&rig, "service", "shop").await;
    }
    assert_eq!(stub.requests(), 10);
}

#[actix_web::test]
async fn a_half_open_connection_is_degraded_until_another_one_is_in_its_place() {
    is_degraded_until_replaced(client()).await;
}

/// A connection of the client that becomes half-open is degraded in one run, and replaced for the next.
async fn is_degraded_until_replaced(client: Client) {
    let stub = Stub::page(plain(200, ""));
    let proxy = Proxy::start(stub.port()).await;
    let rig = serve(Get::new(client, format!("http://127.0.0.1:{}/", proxy.port).parse().unwrap()));
    assert_up(&rig, "service", "shop").await;
    proxy.set(Fault::HalfOpen);
    is_degraded(&rig, proxy.port).await;
    assert_up(&rig, "service", "shop").await;
    assert_eq!(stub.accepted(), 2);
}

#[actix_web::test]
async fn a_half_open_connection_from_before_the_first_run_is_degraded_at_once() {
    let stub = Stub::page(plain(200, ""));
    let proxy = Proxy::start(stub.port()).await;
    let (client, url) = (client(), format!("http://127.0.0.1:{}/", proxy.port));
    client.get(&url).send().await.unwrap().bytes().await.unwrap();
    proxy.set(Fault::HalfOpen);
    let rig = serve(Get::new(client, url.parse().unwrap()));
    is_degraded(&rig, proxy.port).await;
    assert_up(&rig, "service", "shop").await;
}

/// A request, and no later one, had no response in time.
async fn is_degraded(rig: &TestServer, port: u16) {
    assert_degraded(rig, "service", "shop", &late(port)).await;
}

fn late(port: u16) -> String {
    format!("a request to http server at 127.0.0.1:{port} had no response in time, a later one had")
}

#[actix_web::test]
async fn a_half_open_connection_is_degraded_for_a_client_with_a_short_timeout() {
    // Shorter than the delay before a silent request is repeated, and longer.
    for timeout in [200, 450].map(Duration::from_millis) {
        is_degraded_until_replaced(client_with(timeout)).await;
    }
}

#[actix_web::test]
async fn a_silent_server_is_down_for_a_client_with_a_short_timeout() {
    let stub = Stub::page(Page::Silent);
    let url = format!("http://127.0.0.1:{}/", stub.port()).parse().unwrap();
    let rig = serve(Get::new(client_with(Duration::from_millis(200)), url));
    let message = format!("no response from http server at 127.0.0.1:{}", stub.port());
    assert_down(&rig, "service", "shop", &message).await;
}

fn client_with(timeout: Duration) -> Client {
    install_provider();
    Client::builder().timeout(timeout).build().unwrap()
}

/// Polls while the server responds to the first request after this time, and to later ones at once with this page.
async fn poll_while_the_first_is_late(rig: &TestServer, stub: &Stub, late: u64, later: Page) -> Response {
    stub.show(Page::After(Duration::from_millis(late), Box::new(plain(200, ""))));
    let before = stub.requests();
    let shown = async {
        eventually("the first request is there", || async { stub.requests() > before }).await;
        stub.show(later);
    };
    tokio::join!(rig.health(), shown).0
}

#[actix_web::test]
async fn a_slow_response_is_up_if_the_server_rejects_only_the_repetition() {
    let stub = Stub::page(plain(200, ""));
    let rig = serve(get(&stub));
    assert_up(&rig, "service", "shop").await;
    for status in [429, 503] {
        let response = poll_while_the_first_is_late(&rig, &stub, 650, plain(status, "")).await;
        assert_eq!(response.json()["status"], "UP", "{status}: {}", response.body);
        // The next repetition is sent early again only if all runs were fast.
        stub.show(plain(200, ""));
        for _ in 0..20 {
            assert_up(&rig, "service", "shop").await;
        }
    }
}

#[actix_web::test]
async fn a_response_later_than_that_of_a_repetition_is_degraded() {
    let stub = Stub::page(plain(200, ""));
    let rig = serve(get(&stub));
    assert_up(&rig, "service", "shop").await;
    let response = poll_while_the_first_is_late(&rig, &stub, 700, plain(200, "")).await;
    assert_eq!(response.json()["errors"]["service"]["shop"], late(stub.port()));
    assert_eq!(response.json()["status"], "DEGRADED");
}

#[actix_web::test]
async fn a_request_that_exceeds_the_timeout_of_the_client_is_degraded() {
    let stub = Stub::page(plain(200, ""));
    let url = format!("http://127.0.0.1:{}/", stub.port()).parse().unwrap();
    let rig = serve(Get::new(client_with(Duration::from_millis(250)), url));
    for _ in 0..2 {
        let response = poll_while_the_first_is_late(&rig, &stub, 400, plain(200, "")).await;
        assert_eq!(response.json()["errors"]["service"]["shop"], late(stub.port()));
        assert_eq!(response.json()["status"], "DEGRADED");
    }
    assert_up(&rig, "service", "shop").await;
}

#[actix_web::test]
async fn a_pooled_connection_that_the_server_ends_is_replaced_by_a_new_one() {
    let [bad, good] = [(); 2].map(|()| Stub::page(plain(200, "all is well")));
    let balancer = Balancer::start(bad.port());
    let rig = serve(get_url(&format!("http://127.0.0.1:{}/", balancer.port)).body_contains("all is well"));
    for page in [Page::HangsUp, Page::Silent] {
        bad.show(plain(200, "all is well"));
        balancer.lead_to(bad.port());
        // The working server closes the connection.
        good.show(Page::HangsUp);
        assert_up(&rig, "service", "shop").await;
        good.show(plain(200, "all is well"));
        let before = balancer.accepted();

        bad.show(page.clone());
        balancer.lead_to(good.port());
        if let Page::Silent = page {
            is_degraded(&rig, balancer.port).await;
        }
        for _ in 0..3 {
            assert_up(&rig, "service", "shop").await;
        }
        assert_eq!(balancer.accepted(), before + 1, "{page:?}: the new connection is kept");
    }
    assert!(logs::lines().iter().all(|line| !line.contains("is DOWN")), "{:#?}", logs::lines());
}

#[actix_web::test]
async fn a_far_server_is_requested_on_one_connection() {
    for distance in [80, 150, 250, 350] {
        let stub = Stub::page(plain(200, ""));
        let balancer = Balancer::start(stub.port());
        balancer.delay_replies(Duration::from_millis(distance));
        let rig = serve(get_url(&format!("http://127.0.0.1:{}/", balancer.port)));
        assert_up(&rig, "service", "shop").await;
        // Before the first response it is not known how long one takes.
        let requests = if distance < 300 { 1 } else { 2 };
        let warm = (balancer.accepted(), stub.requests());
        assert_eq!(warm, (requests, requests as u64), "{distance} ms away");
        for _ in 0..5 {
            assert_up(&rig, "service", "shop").await;
        }
        assert_eq!((balancer.accepted(), stub.requests()), (warm.0, warm.1 + 5), "{distance} ms away");
    }
}

#[actix_web::test]
async fn headers_are_sent_and_responses_contain_nothing_of_the_request() {
    let stub = Stub::page(plain(500, "canary body"));
    let url = format!("http://127.0.0.1:{}/path-canary?query-canary=1", stub.port());
    let token = HeaderValue::from_str(&format!("Bearer {PASSWORD}")).unwrap();
    let shop = get_url(&url).header(AUTHORIZATION, token);
    let rig = serve(shop.clone());
    is_failed(&rig, &stub, "the status is 500").await;
    let head = stub.last_head();
    assert!(head.starts_with("GET /path-canary?query-canary=1 HTTP/1.1\r\n"), "{head}");
    assert!(head.contains(&format!("\r\nauthorization: Bearer {PASSWORD}\r\n")), "{head}");
    assert!(head.contains(&format!("\r\nhost: 127.0.0.1:{}\r\n", stub.port())), "{head}");
    let text = format!("{} {shop:?}", logs::text());
    assert!(!text.contains("-canary") && !text.contains("canary body") && !text.contains(PASSWORD), "{text}");
}

#[actix_web::test]
async fn clones_share_one_connection() {
    let stub = Stub::page(plain(200, ""));
    let shop = get(&stub);
    let [first, second] = [serve(shop.clone()), serve(shop)];
    for rig in [&first, &second, &first, &second] {
        assert_up(rig, "service", "shop").await;
    }
    assert_eq!(stub.accepted(), 1);
}

mod https {
    //! With `https://`, where the certificate counts too.

    use super::*;

    fn get(stub: &Stub, authority: &Authority) -> Get {
        let root = Certificate::from_pem(authority.pem().as_bytes()).unwrap();
        let client = Client::builder().tls_certs_only([root]).https_only(true).build().unwrap();
        Get::new(client, format!("https://localhost:{}/", stub.port()).parse().unwrap())
    }

    async fn is_rejected(rig: &TestServer, stub: &Stub, logged: &str) {
        let message = format!("https server at localhost:{} denied access", stub.port());
        let response = assert_down(rig, "service", "shop", &message).await;
        assert_not_leaked(rig, &response, &[logged]).await;
    }

    #[actix_web::test]
    async fn a_certificate_of_a_trusted_authority_is_up_on_one_connection() {
        let authority = Authority::new();
        let stub = Stub::start(authority.server("localhost", days(-1), days(30)));
        stub.show(plain(200, "all is well"));
        let rig = serve(get(&stub, &authority).body_contains("all is well"));
        for _ in 0..3 {
            assert_up(&rig, "service", "shop").await;
        }
        assert_eq!(stub.accepted(), 1);
    }

    #[actix_web::test]
    async fn an_untrusted_certificate_is_down() {
        let authority = Authority::new();
        let stub = Stub::start(authority.server("localhost", days(-1), days(30)));
        stub.show(plain(200, ""));
        is_rejected(&serve(get(&stub, &Authority::new())), &stub, "invalid peer certificate").await;

        stub.talk(authority.server("other.example", days(-1), days(30)));
        is_rejected(&serve(get(&stub, &authority)), &stub, "not valid for name").await;
        stub.talk(authority.server("localhost", days(-30), days(-1)));
        is_rejected(&serve(get(&stub, &authority)), &stub, "expired").await;
    }

    #[actix_web::test]
    async fn a_server_without_tls_did_not_deny_access() {
        let stub = Stub::start(Talk::Greets);
        let rig = serve(get(&stub, &Authority::new()));
        let message = format!("unexpected response from https server at localhost:{}", stub.port());
        let response = assert_down(&rig, "service", "shop", &message).await;
        assert_not_leaked(&rig, &response, &["corrupt message"]).await;
    }

    #[actix_web::test]
    async fn a_server_that_requires_a_client_certificate_denied_access() {
        let authority = Authority::new();
        let stub = Stub::start(authority.server_for_known_clients("localhost"));
        stub.show(plain(200, ""));
        is_rejected(&serve(get(&stub, &authority)), &stub, "CertificateRequired").await;
    }

    #[actix_web::test]
    async fn the_target_of_a_redirect_is_not_logged() {
        let authority = Authority::new();
        let stub = Stub::start(authority.server("localhost", days(-1), days(30)));
        // The client requires `https`, and its error contains an error with the URL.
        let location = format!("location: http://{USER}:{PASSWORD}@localhost/path-canary?query-canary=1");
        stub.show(Page::Plain(302, location.leak(), String::new()));
        let rig = serve(get(&stub, &authority));
        let message = format!("unexpected response from https server at localhost:{}", stub.port());
        let response = assert_down(&rig, "service", "shop", &message).await;
        assert_not_leaked(&rig, &response, &["error following redirect"]).await;
        assert!(!logs::text().contains("-canary"), "{}", logs::text());
    }

    #[actix_web::test]
    async fn an_endless_handshake_times_out_at_the_deadline() {
        let stub = Stub::start(Talk::Tcp);
        let rig = serve(get(&stub, &Authority::new()));
        let response = assert_down(&rig, "service", "shop", "timed out after 800 ms").await;
        assert!(response.took < Duration::from_secs(5), "{:?}", response.took);
    }
}
