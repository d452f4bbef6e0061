//! Access control behind nginx and `HAProxy`, on real connections, with the documented configuration for forwarding.
//!
//! Clients and proxies have different loopback addresses.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    sync::LazyLock,
};

use actix_web::{HttpRequest, HttpResponse, web};
use health::{Check, Deny, ForwardingHeader, Scope};

use crate::common::{
    http::{self, Response},
    logs,
    process::chown,
    reverse_proxy::{Header, Kind, ReverseProxy, USER, Upstream},
    test_server::TestServer,
};

/// The address that the scopes allow, unless a test sets another.
const LISTED: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 1, 2, 3));
const UNLISTED: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 9, 9, 9));
const SIX: IpAddr = IpAddr::V6(Ipv6Addr::LOCALHOST);

/// The address of the proxy next to the application, and of one in front of it.
const NEAR: Ipv4Addr = Ipv4Addr::new(127, 0, 7, 1);
const FAR: Ipv4Addr = Ipv4Addr::new(127, 0, 7, 2);

const PROXIES: [(Kind, Header); 4] = [
    (Kind::Nginx, Header::XForwardedFor),
    (Kind::Nginx, Header::Forwarded),
    (Kind::HaProxy, Header::XForwardedFor),
    (Kind::HaProxy, Header::Forwarded),
];

/// Headers of a client that pretends to be [`LISTED`], or to be behind another trusted proxy.
const FORGED: &[&[&str]] = &[
    &["X-Forwarded-For: 127.1.2.3", "Forwarded: for=127.1.2.3"],
    &["x-forwarded-for: 127.1.2.3", "forwarded: for=127.1.2.3"],
    &["X-Forwarded-For: 127.1.2.3", "X-Forwarded-For: 127.1.2.3", "X-Forwarded-For: 127.1.2.3"],
    &["Forwarded: for=127.1.2.3", "Forwarded: for=127.1.2.3;proto=https", "Forwarded: For=\"127.1.2.3:80\""],
    &["X-Forwarded-For: 127.1.2.3, 127.0.7.1, 127.0.7.2", "X-Forwarded-For: 127.0.7.1"],
    &["Forwarded: for=127.1.2.3;by=127.0.7.2, for=127.0.7.2;by=127.0.7.1", "Forwarded: for=127.0.7.1"],
    &["X-Forwarded-For: 127.1.2.3,", "Forwarded: for=127.1.2.3,"],
    &["X-Forwarded-For:", "Forwarded:"],
    // Quotes that would include what the proxy appends.
    &["Forwarded: for=127.1.2.3, for=\""],
    &["Forwarded: for=127.1.2.3;by=\"\\"],
    &["Forwarded: for=127.1.2.3, for=\"[::1]\", for=\"[", "X-Forwarded-For: 127.1.2.3, \""],
    // Headers that the next proxy removes if it follows `Connection`.
    &["Connection: X-Forwarded-For, Forwarded", "X-Forwarded-For: 127.1.2.3", "Forwarded: for=127.1.2.3"],
    &["X_Forwarded_For: 127.1.2.3", "X-Real-IP: 127.1.2.3", "Client-IP: 127.1.2.3", "True-Client-IP: 127.1.2.3"],
];

/// A scope that allows one address.
fn scope(path: &str, listed: impl Into<IpAddr>) -> Scope {
    static CHECK: LazyLock<Check> = LazyLock::new(|| Check::new("service", "fine", || async { Ok::<_, String>(()) }));

    health::scope().path(path).allow([listed.into().into()]).check(CHECK.clone())
}

fn trust(scope: Scope, header: Header, proxies: &[Ipv4Addr]) -> Scope {
    let proxies = proxies.iter().map(|&proxy| IpAddr::from(proxy).into());
    match header {
        Header::XForwardedFor => scope.trust_proxies(proxies),
        Header::Forwarded => scope.trust_proxies(proxies).forwarding_header(ForwardingHeader::Forwarded),
    }
}

/// An application with a scope that trusts one proxy, and that proxy.
fn behind(kind: Kind, header: Header, configured: fn(Scope) -> Scope) -> (TestServer, ReverseProxy) {
    let server = TestServer::start(1, move |app| {
        app.service(configured(trust(scope("/health", LISTED), header, &[NEAR])));
        app.route("/seen", web::get().to(seen));
    });
    let front = ReverseProxy::start(kind, header, Upstream::Tcp { server: server.address, from: NEAR });
    (server, front)
}

/// Responds with the forwarding headers as they arrive at the application.
async fn seen(request: HttpRequest) -> HttpResponse {
    let lines = |name: &str| -> Vec<_> { request.headers().get_all(name).map(|line| line.to_str().unwrap()).collect() };
    HttpResponse::Ok().json(["X-Forwarded-For", "Forwarded"].map(|name| lines(name).join(", ")))
}

async fn get(front: SocketAddr, client: IpAddr, path: &str, lines: &[&str]) -> Response {
    http::request_with(client, front, "GET", path, lines).await
}

async fn status(front: SocketAddr, client: IpAddr, path: &str) -> u16 {
    get(front, client, path, &[]).await.status
}

/// Forged headers neither allow an unlisted client nor deny a listed one.
async fn assert_forgery_ignored(front: &ReverseProxy, what: &str) {
    for listener in front.listeners(UNLISTED) {
        for lines in FORGED {
            let response = get(listener, UNLISTED, "/health", lines).await;
            assert_eq!((response.status, &*response.body), (403, ""), "{what}: {lines:#?}");
            assert_eq!(
                get(listener, LISTED, "/health", lines).await.status,
                200,
                "{what}: {lines:#?}\n{}",
                logs::text()
            );
        }
    }
}

#[actix_web::test]
async fn behind_a_trusted_proxy_access_is_decided_by_the_address_of_the_client() {
    for (kind, header) in PROXIES {
        let server = TestServer::start(1, move |app| {
            app.service(trust(scope("/four", LISTED), header, &[NEAR]));
            app.service(trust(scope("/six", SIX), header, &[NEAR]));
        });
        let front = ReverseProxy::start(kind, header, Upstream::Tcp { server: server.address, from: NEAR });
        for (path, client, expected) in [
            ("/four", LISTED, 200),
            ("/four", UNLISTED, 403),
            ("/four", SIX, 403),
            ("/six", SIX, 200),
            ("/six", LISTED, 403),
        ] {
            for listener in front.listeners(client) {
                let status = status(listener, client, path).await;
                assert_eq!(status, expected, "{kind:?}, {header:?}: {client} at {listener}{path}\n{}", logs::text());
            }
        }
    }
    for client in [UNLISTED, SIX, LISTED] {
        let denied = format!("denied {client}: the address that the trusted proxy {NEAR} forwarded in X-Forwarded-For");
        assert!(logs::text().contains(&denied), "{client}: {}", logs::text());
    }
}

/// The other tests depend on this.
#[actix_web::test]
async fn the_proxies_append_to_one_header_and_pass_on_the_other() {
    for (kind, header) in PROXIES {
        let (_rig, front) = behind(kind, header, |scope| scope);
        let [four, six, mapped] = match header {
            Header::XForwardedFor => ["127.1.2.3", "::1", "::ffff:127.1.2.3"],
            Header::Forwarded => ["for=127.1.2.3", "for=\"[::1]\"", "for=\"[::ffff:127.1.2.3]\""],
        };
        for (listener, client, element) in
            [(front.v4, LISTED, four), (front.v6, SIX, six), (front.dual, LISTED, mapped)]
        {
            let seen = get(listener, client, "/seen", &["X-Forwarded-For: forged", "Forwarded: for=forged"]).await;
            let [x_forwarded_for, forwarded] = serde_json::from_str::<[String; 2]>(&seen.body).unwrap();
            let (written, forged, other_is_unchanged) = match header {
                Header::XForwardedFor => (x_forwarded_for, "forged", forwarded == "for=forged"),
                Header::Forwarded => (forwarded, "for=forged", x_forwarded_for == "forged"),
            };
            assert!(written.starts_with(forged) && written.ends_with(element), "{kind:?}: {seen:?}");
            assert!(other_is_unchanged, "{kind:?}: {seen:?}");
        }
    }
}

#[actix_web::test]
async fn a_header_that_the_client_forges_is_ignored() {
    for (kind, header) in PROXIES {
        let (_rig, front) = behind(kind, header, |scope| scope);
        assert_forgery_ignored(&front, &format!("{kind:?}, {header:?}")).await;
    }
}

#[actix_web::test]
async fn the_header_that_is_not_configured_is_ignored() {
    for (kind, header) in PROXIES {
        let (_rig, front) = behind(kind, header, |scope| scope);
        let other = |of: IpAddr| match header {
            Header::XForwardedFor => format!("Forwarded: for={of}"),
            Header::Forwarded => format!("X-Forwarded-For: {of}"),
        };
        let forged = get(front.v4, UNLISTED, "/health", &[&other(LISTED)]).await;
        assert_eq!(forged.status, 403, "{kind:?}, {header:?}");
        for harmless in [other(UNLISTED), "Forwarded: nonsense".to_owned(), "X-Forwarded-For: nonsense".to_owned()] {
            assert_eq!(get(front.v4, LISTED, "/health", &[&harmless]).await.status, 200, "{kind:?}: {harmless}");
        }
    }
}

#[actix_web::test]
async fn behind_an_untrusted_proxy_access_is_decided_by_the_address_of_the_proxy() {
    for (kind, header) in PROXIES {
        let server = TestServer::start(1, move |app| {
            app.service(scope("/client", LISTED)).service(scope("/proxy", NEAR));
            app.service(trust(scope("/other", LISTED), header, &[FAR]));
        });
        let front = ReverseProxy::start(kind, header, Upstream::Tcp { server: server.address, from: NEAR });
        for (client, path, expected) in
            [(LISTED, "/client", 403), (LISTED, "/other", 403), (UNLISTED, "/proxy", 200), (LISTED, "/proxy", 200)]
        {
            assert_eq!(status(front.v4, client, path).await, expected, "{kind:?}, {header:?}: {client} at {path}");
        }
    }
    let denied = format!("denied {NEAR}: the peer address is not on the allow-list");
    assert!(logs::text().contains(&denied), "{}", logs::text());
}

#[actix_web::test]
async fn each_of_two_chained_proxies_must_be_trusted() {
    for ((far, header), near) in PROXIES.into_iter().zip([Kind::HaProxy, Kind::HaProxy, Kind::Nginx, Kind::Nginx]) {
        let server = TestServer::start(1, move |app| {
            app.service(trust(scope("/health", LISTED), header, &[NEAR, FAR]));
            // Only the nearer one is trusted, so the farther one is the client.
            app.service(trust(scope("/near/client", LISTED), header, &[NEAR]));
            app.service(trust(scope("/near/proxy", FAR), header, &[NEAR]));
            // Only the farther one is trusted, so the nearer one is the client.
            app.service(trust(scope("/far/client", LISTED), header, &[FAR]));
            app.service(trust(scope("/far/proxy", NEAR), header, &[FAR]));
        });
        let what = format!("{near:?} behind {far:?}, {header:?}");
        let near = ReverseProxy::start(near, header, Upstream::Tcp { server: server.address, from: NEAR });
        // HAProxy adds a line, and nginx before 1.23 reads only the first of several lines, which is the client's. So the
        // outermost proxy has to remove that.
        let further =
            if (far, header) == (Kind::HaProxy, Header::Forwarded) { "http-request del-header Forwarded" } else { "" };
        let far = ReverseProxy::start_with(far, header, Upstream::Tcp { server: near.v4, from: FAR }, further);
        for (path, listed, unlisted) in [
            ("/health", 200, 403),
            ("/near/client", 403, 403),
            ("/near/proxy", 200, 200),
            ("/far/client", 403, 403),
            ("/far/proxy", 200, 200),
        ] {
            for listener in [far.v4, far.dual] {
                let statuses = (status(listener, LISTED, path).await, status(listener, UNLISTED, path).await);
                assert_eq!(statuses, (listed, unlisted), "{what}: {path}\n{}", logs::text());
            }
        }
        assert_forgery_ignored(&far, &what).await;
    }
    let denied = format!("denied {FAR}: the address that the trusted proxy {NEAR} forwarded in X-Forwarded-For");
    assert!(logs::text().contains(&denied), "{}", logs::text());
}

#[actix_web::test]
async fn a_request_is_denied_if_a_trusted_proxy_does_not_forward_an_address() {
    for (kind, header) in PROXIES {
        let server = TestServer::start(1, move |app| {
            app.service(trust(scope("/health", LISTED), header, &[NEAR, FAR]));
        });
        let front = ReverseProxy::start(kind, header, Upstream::Tcp { server: server.address, from: NEAR });
        // The client is the farther proxy.
        for (hop, expected) in
            [("127.0.7.2", 200), ("unknown", 403), ("_hidden", 403), ("nonsense", 403), ("127.0.7", 403)]
        {
            let line = match header {
                Header::XForwardedFor => format!("X-Forwarded-For: 127.1.2.3, {hop}"),
                Header::Forwarded => format!("Forwarded: for=127.1.2.3, for={hop}"),
            };
            let response = get(front.v4, FAR.into(), "/health", &[&line]).await;
            assert_eq!(response.status, expected, "{kind:?}: {line}\n{}", logs::text());
        }
    }
}

#[actix_web::test]
async fn behind_a_trusted_proxy_on_a_unix_socket_access_is_decided_by_the_address_of_the_client() {
    let folder = tempfile::tempdir().unwrap();
    for (kind, header) in PROXIES {
        let socket = folder.path().join(format!("{kind:?}-{header:?}"));
        let _rig = TestServer::start_at(Some(&socket), 1, move |app| {
            app.service(trust(scope("/health", LISTED), header, &[]).trust_unix());
            app.service(trust(scope("/neither", LISTED), header, &[NEAR]));
            app.service(scope("/allowed", LISTED).allow_unix());
        });
        chown(folder.path(), USER);
        let front = ReverseProxy::start(kind, header, Upstream::Unix(&socket));
        for (path, listed, unlisted) in [("/health", 200, 403), ("/neither", 403, 403), ("/allowed", 200, 200)] {
            let statuses = (status(front.v4, LISTED, path).await, status(front.v4, UNLISTED, path).await);
            assert_eq!(statuses, (listed, unlisted), "{kind:?}, {header:?}: {path}\n{}", logs::text());
        }
        assert_forgery_ignored(&front, &format!("{kind:?} on a Unix socket, {header:?}")).await;
        // A client that connects to the socket without the proxy sends no header.
        assert_eq!(http::request_unix(&socket, "GET", "/health").await.status, 403);
    }
}

#[actix_web::test]
async fn a_client_denied_as_not_found_behind_a_proxy_gets_the_response_to_an_unknown_path() {
    /// The response except for the date.
    fn without_date(response: &Response) -> (Vec<&str>, &str) {
        let lines = response.head.lines().filter(|line| !line.to_ascii_lowercase().starts_with("date:"));
        (lines.collect(), &response.body)
    }

    for (kind, header) in PROXIES {
        let server = TestServer::start(1, move |app| {
            app.service(trust(scope("/health", LISTED), header, &[NEAR]).deny(Deny::NotFound));
            app.default_service(web::to(|| async {
                HttpResponse::NotFound().insert_header(("X-Of", "the application")).body("no such page")
            }));
        });
        let front = ReverseProxy::start(kind, header, Upstream::Tcp { server: server.address, from: NEAR });
        let unknown = get(front.v4, UNLISTED, "/unknown", &[]).await;
        assert_eq!((unknown.status, &*unknown.body), (404, "no such page"));
        for path in ["/health", "/health/", "/health/live", "/health/service/fine", "/health/nothing"] {
            for lines in [&[][..], &["X-Forwarded-For: 127.1.2.3", "Forwarded: for=127.1.2.3"]] {
                let hidden = get(front.v4, UNLISTED, path, lines).await;
                assert_eq!(without_date(&hidden), without_date(&unknown), "{kind:?}, {header:?}: {path}");
            }
        }
        assert_eq!(status(front.v4, LISTED, "/health").await, 200);
    }
}

#[actix_web::test]
async fn a_denied_client_behind_a_proxy_gets_only_the_status_under_status_only() {
    for (kind, header) in PROXIES {
        let (_rig, front) = behind(kind, header, |scope| scope.deny(Deny::StatusOnly));
        let forged = ["X-Forwarded-For: 127.1.2.3", "Forwarded: for=127.1.2.3"];
        // A request of an allowed client runs the check.
        let all = get(front.v4, LISTED, "/health", &[]).await;
        assert_eq!(all.json(), serde_json::json!({"status": "UP", "checks": {"service": {"fine": "UP"}}}));
        for lines in [&[][..], &forged] {
            let response = get(front.v4, UNLISTED, "/health?details", lines).await;
            assert_eq!((response.status, &*response.body), (200, r#"{"status":"UP"}"#), "{kind:?}, {header:?}");
            assert_eq!(get(front.v4, UNLISTED, "/health/service", lines).await.status, 404, "{kind:?}, {header:?}");
        }
    }
}
