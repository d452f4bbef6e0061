//! `probes::http::Get`, against a server in the test's own process that answers whatever it is told to.
//!
//! Every row of the suite fits but saturation: the probe has one connection, which nobody else uses.

use std::{any::Any, time::Duration};

use actix_web::{http::StatusCode, web};
use health::{HealthCheck, probes::http::Get};

use crate::{
    acceptance::{Backend, ExpectedMessage, Password, Unsupported, WRONG, acceptance},
    common::{
        PASSWORD, USER, eventually, logs,
        proxy::{Fault, Proxy},
        responses::{assert_down, assert_not_leaked, assert_up},
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
        Ok(Get::new(format!("http://{USER}:{password}@127.0.0.1:{}/canarybase?key={PASSWORD}", server.port())).unwrap())
    }

    fn unreachable(server: &Stub) -> (ExpectedMessage, &'static str) {
        let message = format!("unable to connect to http server at 127.0.0.1:{}", server.port());
        (ExpectedMessage::Message(message), "Connection refused")
    }

    fn rejected(server: &Stub) -> Result<(ExpectedMessage, &'static str), Unsupported> {
        let message = format!("http server at 127.0.0.1:{} denied access", server.port());
        Ok((ExpectedMessage::Message(message), "it answered 401"))
    }

    async fn saturate(_: &Get) -> Result<(Box<dyn Any>, u32), Unsupported> {
        Err("its one connection is used by nobody but the probe: there is nothing to use up")
    }

    async fn questions(server: &Stub) -> Result<u64, Unsupported> {
        Ok(server.questions())
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

fn get(stub: &Stub) -> Get {
    Get::new(format!("http://127.0.0.1:{}/live", stub.port())).unwrap()
}

fn plain(status: u16, body: &str) -> Page {
    Page::Plain(status, "", body.to_owned())
}

async fn is_failed(rig: &TestServer, stub: &Stub, logged: &str) {
    let message = format!("unexpected response from http server at 127.0.0.1:{}", stub.port());
    let answer = assert_down(rig, "service", "shop", &message).await;
    assert_not_leaked(rig, &answer, &[logged]).await;
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
    // Each run that fails on the kept connection tries a new one, which is not kept if it fails there too.
    assert_eq!(stub.accepted(), 1 + 7, "one connection for each run that failed");
}

#[actix_web::test]
async fn the_expected_status_is_the_only_one_that_is_up() {
    let stub = Stub::page(plain(418, ""));
    let rig = serve(get(&stub).status(StatusCode::IM_A_TEAPOT));
    assert_up(&rig, "service", "shop").await;
    stub.show(plain(200, ""));
    is_failed(&rig, &stub, "it answered 200").await;
}

#[actix_web::test]
async fn a_redirect_is_not_followed() {
    let other = Stub::page(plain(200, ""));
    let stub = Stub::page(plain(200, ""));
    let location: &'static str = format!("location: http://127.0.0.1:{}/", other.port()).leak();
    stub.show(Page::Plain(302, location, String::new()));
    is_failed(&serve(get(&stub)), &stub, "it answered 302").await;
    assert_eq!(other.accepted(), 0);
}

#[actix_web::test]
async fn the_body_must_have_the_expected_text() {
    let stub = Stub::page(plain(200, r#"{"status":"green"}"#));
    let rig = serve(get(&stub).body_contains(r#""status":"green""#));
    assert_up(&rig, "service", "shop").await;
    stub.show(plain(200, &("x".repeat(60_000) + r#""status":"green""#)));
    assert_up(&rig, "service", "shop").await;
    for body in ["", r#"{"status":"yellow"}"#, &("x".repeat(70_000) + r#""status":"green""#)] {
        stub.show(plain(200, body));
        is_failed(&rig, &stub, "without the expected text").await;
    }
}

#[actix_web::test]
async fn a_body_without_end_is_read_no_further_than_it_must_be() {
    let stub = Stub::page(Page::Endless("all is well"));
    assert_up(&serve(get(&stub)), "service", "shop").await;
    assert_up(&serve(get(&stub).body_contains("is well")), "service", "shop").await;
    is_failed(&serve(get(&stub).body_contains("is bad")), &stub, "without the expected text").await;
    eventually("what was not read to the end is closed", || async { stub.open() == 0 }).await;
}

#[actix_web::test]
async fn the_rest_of_a_body_is_waited_for_by_who_wants_it() {
    let stub = Stub::page(Page::Unfinished);
    for get in [get(&stub), get(&stub).body_contains("is well")] {
        assert_up(&serve(get), "service", "shop").await;
    }
    assert_down(&serve(get(&stub).body_contains("is bad")), "service", "shop", "timed out after 800 ms").await;
}

#[actix_web::test]
async fn what_speaks_no_http_is_down() {
    let stub = Stub::page(Page::Garbage);
    is_failed(&serve(get(&stub)), &stub, "invalid HTTP version").await;
    stub.show(Page::EndlessHead);
    is_failed(&serve(get(&stub)), &stub, "too large").await;
}

#[actix_web::test]
async fn who_closes_without_an_answer_is_unreachable() {
    let stub = Stub::page(Page::HangsUp);
    let rig = serve(get(&stub));
    let message = format!("unable to connect to http server at 127.0.0.1:{}", stub.port());
    assert_down(&rig, "service", "shop", &message).await;
}

#[actix_web::test]
async fn a_slow_or_silent_answer_is_waited_for_no_longer_than_the_deadline() {
    let stub = Stub::page(Page::Slow);
    for page in [Page::Slow, Page::Silent] {
        stub.show(page);
        let answer = assert_down(&serve(get(&stub)), "service", "shop", "timed out after 800 ms").await;
        assert!(answer.took < Duration::from_secs(5), "{:?}", answer.took);
    }
}

#[actix_web::test]
async fn a_connection_that_the_server_closes_after_each_answer_is_no_outage() {
    let stub = Stub::page(Page::ClosesAfterwards);
    let rig = serve(get(&stub));
    for _ in 0..10 {
        assert_up(&rig, "service", "shop").await;
    }
    assert_eq!(stub.questions(), 10);
}

#[actix_web::test]
async fn a_connection_that_is_forgotten_on_the_way_is_no_outage() {
    let stub = Stub::page(plain(200, ""));
    let proxy = Proxy::start(stub.port()).await;
    let rig = serve(Get::new(format!("http://127.0.0.1:{}/", proxy.port)).unwrap());
    assert_up(&rig, "service", "shop").await;
    proxy.set(Fault::HalfOpen);
    assert_up(&rig, "service", "shop").await;
    assert_up(&rig, "service", "shop").await;
    assert_eq!(stub.accepted(), 2);
}

#[actix_web::test]
async fn a_kept_connection_to_a_bad_backend_is_left_for_a_new_one_to_a_good_one() {
    let [bad, good] = [(); 2].map(|()| Stub::page(plain(200, "all is well")));
    let balancer = Balancer::start(bad.port());
    let shop = Get::new(format!("http://127.0.0.1:{}/", balancer.port)).unwrap().body_contains("all is well");
    let rig = serve(shop);
    for page in [plain(503, ""), plain(200, "all is lost"), plain(401, ""), Page::Garbage, Page::HangsUp, Page::Silent]
    {
        bad.show(plain(200, "all is well"));
        balancer.lead_to(bad.port());
        // The connection to the good one is closed by it.
        good.show(Page::HangsUp);
        assert_up(&rig, "service", "shop").await;
        good.show(plain(200, "all is well"));
        let before = balancer.accepted();

        bad.show(page.clone());
        balancer.lead_to(good.port());
        for _ in 0..3 {
            assert_up(&rig, "service", "shop").await;
        }
        assert_eq!(balancer.accepted(), before + 1, "{page:?}: the new connection is kept");
    }
    assert!(logs::lines().iter().all(|line| !line.contains("is DOWN")), "{:#?}", logs::lines());
}

#[actix_web::test]
async fn a_server_that_is_far_away_is_requested_on_one_connection() {
    for distance in [80, 150, 250, 350] {
        let stub = Stub::page(plain(200, ""));
        let balancer = Balancer::start(stub.port());
        balancer.delay_replies(Duration::from_millis(distance));
        let rig = serve(Get::new(format!("http://127.0.0.1:{}/", balancer.port)).unwrap());
        for _ in 0..6 {
            assert_up(&rig, "service", "shop").await;
        }
        assert_eq!((balancer.accepted(), stub.questions()), (1, 6), "{distance} ms away");
    }
}

#[actix_web::test]
async fn headers_are_sent_and_nothing_of_the_request_is_told() {
    let stub = Stub::page(plain(500, "canary body"));
    let url = format!("http://127.0.0.1:{}/path-canary?query-canary=1", stub.port());
    let shop = Get::new(url).unwrap().header("authorization", &format!("Bearer {PASSWORD}")).unwrap();
    let rig = serve(shop.clone());
    is_failed(&rig, &stub, "it answered 500").await;
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

    use super::{Duration, Page, Stub, Talk, TestServer, assert_down, assert_not_leaked, assert_up, plain, serve};
    use crate::tls::{Authority, days, install_provider};
    use health::probes::http::Get;

    fn get(stub: &Stub, authority: &Authority) -> Get {
        let url = format!("https://localhost:{}/", stub.port());
        Get::new(url).unwrap().trusting(authority.pem()).unwrap()
    }

    async fn is_rejected(rig: &TestServer, stub: &Stub, logged: &str) {
        let message = format!("https server at localhost:{} denied access", stub.port());
        let answer = assert_down(rig, "service", "shop", &message).await;
        assert_not_leaked(rig, &answer, &[logged]).await;
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
    async fn a_certificate_that_is_not_to_be_trusted_is_down() {
        let authority = Authority::new();
        let stub = Stub::start(authority.server("localhost", days(-1), days(30)));
        stub.show(plain(200, ""));
        let stranger = serve(Get::new(format!("https://localhost:{}/", stub.port())).unwrap());
        is_rejected(&stranger, &stub, "UnknownIssuer").await;

        stub.talk(authority.server("other.example", days(-1), days(30)));
        is_rejected(&serve(get(&stub, &authority)), &stub, "not valid for name").await;
        stub.talk(authority.server("localhost", days(-30), days(-1)));
        is_rejected(&serve(get(&stub, &authority)), &stub, "expired").await;
        stub.talk(Talk::Http);
        stub.show(Page::Garbage);
        let answer = serve(get(&stub, &authority)).health().await;
        assert_eq!(answer.status, 503, "it speaks no TLS: {answer:?}");
    }

    #[actix_web::test]
    async fn a_handshake_without_end_is_waited_for_no_longer_than_the_deadline() {
        let stub = Stub::start(Talk::Tcp);
        let rig = serve(get(&stub, &Authority::new()));
        let answer = assert_down(&rig, "service", "shop", "timed out after 800 ms").await;
        assert!(answer.took < Duration::from_secs(5), "{:?}", answer.took);
    }

    #[test]
    fn a_bad_authority_is_told_when_the_probe_is_made() {
        install_provider();
        let get = || Get::new("https://localhost/").unwrap();
        get().trusting("no certificate").unwrap_err();
        get().trusting("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n").unwrap_err();
        Get::new("http://localhost/").unwrap().trusting(Authority::new().pem()).unwrap_err();
    }
}
