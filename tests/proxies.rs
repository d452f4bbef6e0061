//! Who is let in behind the proxies that people run: nginx and `HAProxy`, on real connections, with their ordinary
//! configuration for forwarding.
//!
//! Clients and proxies are told apart by their addresses, of which loopback has many.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    sync::LazyLock,
};

use actix_web::{HttpRequest, HttpResponse, web};
use health::{Check, Deny, Scope};

use crate::common::{
    front::{Front, Header, Kind, USER, Upstream},
    http::{self, Response},
    logs,
    process::give,
    rig::Rig,
};

/// Whom the scopes let in, unless a test says otherwise.
const LISTED: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 1, 2, 3));
const STRANGER: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 9, 9, 9));
const SIX: IpAddr = IpAddr::V6(Ipv6Addr::LOCALHOST);

/// From where the proxy next to the application asks, and from where one in front of that.
const NEAR: Ipv4Addr = Ipv4Addr::new(127, 0, 7, 1);
const FAR: Ipv4Addr = Ipv4Addr::new(127, 0, 7, 2);

const PROXIES: [(Kind, Header); 4] = [
    (Kind::Nginx, Header::XForwardedFor),
    (Kind::Nginx, Header::Forwarded),
    (Kind::HaProxy, Header::XForwardedFor),
    (Kind::HaProxy, Header::Forwarded),
];

/// What a client may send to be taken for [`LISTED`], or for somebody behind one more trusted proxy.
const FORGED: &[&[&str]] = &[
    &["X-Forwarded-For: 127.1.2.3", "Forwarded: for=127.1.2.3"],
    &["x-forwarded-for: 127.1.2.3", "forwarded: for=127.1.2.3"],
    &["X-Forwarded-For: 127.1.2.3", "X-Forwarded-For: 127.1.2.3", "X-Forwarded-For: 127.1.2.3"],
    &["Forwarded: for=127.1.2.3", "Forwarded: for=127.1.2.3;proto=https", "Forwarded: For=\"127.1.2.3:80\""],
    &["X-Forwarded-For: 127.1.2.3, 127.0.7.1, 127.0.7.2", "X-Forwarded-For: 127.0.7.1"],
    &["Forwarded: for=127.1.2.3;by=127.0.7.2, for=127.0.7.2;by=127.0.7.1", "Forwarded: for=127.0.7.1"],
    &["X-Forwarded-For: 127.1.2.3,", "Forwarded: for=127.1.2.3,"],
    &["X-Forwarded-For:", "Forwarded:"],
    // Quotes that would swallow what the proxy appends.
    &["Forwarded: for=127.1.2.3, for=\""],
    &["Forwarded: for=127.1.2.3;by=\"\\"],
    &["Forwarded: for=127.1.2.3, for=\"[::1]\", for=\"[", "X-Forwarded-For: 127.1.2.3, \""],
    // Headers that end at the next proxy, if it goes by that.
    &["Connection: X-Forwarded-For, Forwarded", "X-Forwarded-For: 127.1.2.3", "Forwarded: for=127.1.2.3"],
    &["X_Forwarded_For: 127.1.2.3", "X-Real-IP: 127.1.2.3", "Client-IP: 127.1.2.3", "True-Client-IP: 127.1.2.3"],
];

/// A scope that lets one address in.
fn scope(path: &str, listed: impl Into<IpAddr>) -> Scope {
    static CHECK: LazyLock<Check> = LazyLock::new(|| Check::new("service", "fine", || async { Ok::<_, String>(()) }));

    health::scope().path(path).allow([listed.into().into()]).check(CHECK.clone())
}

fn trust(scope: Scope, header: Header, proxies: &[Ipv4Addr]) -> Scope {
    let proxies = proxies.iter().map(|&proxy| IpAddr::from(proxy).into());
    match header {
        Header::XForwardedFor => scope.trust_proxies(proxies),
        Header::Forwarded => scope.trust_forwarded(proxies),
    }
}

/// An application whose one scope trusts one proxy, and that proxy.
fn behind(kind: Kind, header: Header, configured: fn(Scope) -> Scope) -> (Rig, Front) {
    let rig = Rig::start(1, move |app| {
        app.service(configured(trust(scope("/health", LISTED), header, &[NEAR])));
        app.route("/seen", web::get().to(seen));
    });
    let front = Front::start(kind, header, Upstream::Tcp { server: rig.address, from: NEAR });
    (rig, front)
}

/// Tells what of the headers arrives at the application.
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

/// Nothing that a stranger says lets him in, and nothing that somebody else has said keeps a listed client out.
async fn assert_not_believed(front: &Front, what: &str) {
    for listener in front.listeners(STRANGER) {
        for lines in FORGED {
            let answer = get(listener, STRANGER, "/health", lines).await;
            assert_eq!((answer.status, &*answer.body), (403, ""), "{what}: {lines:#?}");
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
async fn behind_a_proxy_the_clients_address_is_judged() {
    for (kind, header) in PROXIES {
        let rig = Rig::start(1, move |app| {
            app.service(trust(scope("/four", LISTED), header, &[NEAR]));
            app.service(trust(scope("/six", SIX), header, &[NEAR]));
        });
        let front = Front::start(kind, header, Upstream::Tcp { server: rig.address, from: NEAR });
        for (path, client, expected) in [
            ("/four", LISTED, 200),
            ("/four", STRANGER, 403),
            ("/four", SIX, 403),
            ("/six", SIX, 200),
            ("/six", LISTED, 403),
        ] {
            for listener in front.listeners(client) {
                let answered = status(listener, client, path).await;
                assert_eq!(answered, expected, "{kind:?}, {header:?}: {client} at {listener}{path}\n{}", logs::text());
            }
        }
    }
    let refused = |whom| format!("refused {whom}, whom the trusted proxy {NEAR} names in X-Forwarded-For");
    for whom in [STRANGER, SIX, LISTED] {
        assert!(logs::text().contains(&refused(whom)), "{whom}: {}", logs::text());
    }
}

/// What the other tests rest on.
#[actix_web::test]
async fn proxies_append_to_one_header_and_hand_on_the_other() {
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
            let (written, forged, other) = match header {
                Header::XForwardedFor => (x_forwarded_for, "forged", forwarded == "for=forged"),
                Header::Forwarded => (forwarded, "for=forged", x_forwarded_for == "forged"),
            };
            assert!(written.starts_with(forged) && written.ends_with(element), "{kind:?}: {seen:?}");
            assert!(other, "{kind:?}: {seen:?}");
        }
    }
}

#[actix_web::test]
async fn a_header_that_the_client_forges_is_not_believed() {
    for (kind, header) in PROXIES {
        let (_rig, front) = behind(kind, header, |scope| scope);
        assert_not_believed(&front, &format!("{kind:?}, {header:?}")).await;
    }
}

#[actix_web::test]
async fn of_two_headers_the_one_that_is_not_trusted_means_nothing() {
    for (kind, header) in PROXIES {
        let (_rig, front) = behind(kind, header, |scope| scope);
        let other = |of: IpAddr| match header {
            Header::XForwardedFor => format!("Forwarded: for={of}"),
            Header::Forwarded => format!("X-Forwarded-For: {of}"),
        };
        let forged = get(front.v4, STRANGER, "/health", &[&other(LISTED)]).await;
        assert_eq!(forged.status, 403, "{kind:?}, {header:?}");
        for harmless in [other(STRANGER), "Forwarded: nonsense".to_owned(), "X-Forwarded-For: nonsense".to_owned()] {
            assert_eq!(get(front.v4, LISTED, "/health", &[&harmless]).await.status, 200, "{kind:?}: {harmless}");
        }
    }
}

#[actix_web::test]
async fn a_proxy_that_is_not_trusted_is_judged_itself() {
    for (kind, header) in PROXIES {
        let rig = Rig::start(1, move |app| {
            app.service(scope("/client", LISTED)).service(scope("/proxy", NEAR));
            app.service(trust(scope("/other", LISTED), header, &[FAR]));
        });
        let front = Front::start(kind, header, Upstream::Tcp { server: rig.address, from: NEAR });
        for (client, path, expected) in
            [(LISTED, "/client", 403), (LISTED, "/other", 403), (STRANGER, "/proxy", 200), (LISTED, "/proxy", 200)]
        {
            assert_eq!(status(front.v4, client, path).await, expected, "{kind:?}, {header:?}: {client} at {path}");
        }
    }
    let refused = format!("refused {NEAR}, the address of the peer itself");
    assert!(logs::text().contains(&refused), "{}", logs::text());
}

#[actix_web::test]
async fn of_two_proxies_in_a_row_each_must_be_trusted() {
    for ((far, header), near) in PROXIES.into_iter().zip([Kind::HaProxy, Kind::HaProxy, Kind::Nginx, Kind::Nginx]) {
        let rig = Rig::start(1, move |app| {
            app.service(trust(scope("/health", LISTED), header, &[NEAR, FAR]));
            // Only the nearer one is trusted, so it is the farther one that asks.
            app.service(trust(scope("/near/client", LISTED), header, &[NEAR]));
            app.service(trust(scope("/near/proxy", FAR), header, &[NEAR]));
            // Only the farther one is trusted, and the nearer one asks.
            app.service(trust(scope("/far/client", LISTED), header, &[FAR]));
            app.service(trust(scope("/far/proxy", NEAR), header, &[FAR]));
        });
        let what = format!("{near:?} behind {far:?}, {header:?}");
        let near = Front::start(near, header, Upstream::Tcp { server: rig.address, from: NEAR });
        // HAProxy adds a line of its own, and of several lines nginx before 1.23 reads the first one, which is the client's:
        // so there the outermost proxy has to drop that.
        let further =
            if (far, header) == (Kind::HaProxy, Header::Forwarded) { "http-request del-header Forwarded" } else { "" };
        let far = Front::start_with(far, header, Upstream::Tcp { server: near.v4, from: FAR }, further);
        for (path, listed, stranger) in [
            ("/health", 200, 403),
            ("/near/client", 403, 403),
            ("/near/proxy", 200, 200),
            ("/far/client", 403, 403),
            ("/far/proxy", 200, 200),
        ] {
            for listener in [far.v4, far.dual] {
                let answered = (status(listener, LISTED, path).await, status(listener, STRANGER, path).await);
                assert_eq!(answered, (listed, stranger), "{what}: {path}\n{}", logs::text());
            }
        }
        assert_not_believed(&far, &what).await;
    }
    let refused = format!("refused {FAR}, whom the trusted proxy {NEAR} names in X-Forwarded-For");
    assert!(logs::text().contains(&refused), "{}", logs::text());
}

#[actix_web::test]
async fn where_a_trusted_proxy_does_not_tell_who_asks_the_request_is_refused() {
    for (kind, header) in PROXIES {
        let rig = Rig::start(1, move |app| {
            app.service(trust(scope("/health", LISTED), header, &[NEAR, FAR]));
        });
        let front = Front::start(kind, header, Upstream::Tcp { server: rig.address, from: NEAR });
        // The client is the farther proxy.
        for (hop, expected) in
            [("127.0.7.2", 200), ("unknown", 403), ("_hidden", 403), ("nonsense", 403), ("127.0.7", 403)]
        {
            let line = match header {
                Header::XForwardedFor => format!("X-Forwarded-For: 127.1.2.3, {hop}"),
                Header::Forwarded => format!("Forwarded: for=127.1.2.3, for={hop}"),
            };
            let answer = get(front.v4, FAR.into(), "/health", &[&line]).await;
            assert_eq!(answer.status, expected, "{kind:?}: {line}\n{}", logs::text());
        }
    }
}

#[actix_web::test]
async fn behind_a_proxy_on_a_unix_socket_the_clients_address_is_judged_if_such_are_trusted() {
    let folder = tempfile::tempdir().unwrap();
    for (kind, header) in PROXIES {
        let socket = folder.path().join(format!("{kind:?}-{header:?}"));
        let _rig = Rig::start_at(Some(&socket), 1, move |app| {
            app.service(trust(scope("/health", LISTED), header, &[]).trust_unix());
            app.service(trust(scope("/neither", LISTED), header, &[NEAR]));
            app.service(scope("/allowed", LISTED).allow_unix());
        });
        give(folder.path(), USER);
        let front = Front::start(kind, header, Upstream::Unix(&socket));
        for (path, listed, stranger) in [("/health", 200, 403), ("/neither", 403, 403), ("/allowed", 200, 200)] {
            let answered = (status(front.v4, LISTED, path).await, status(front.v4, STRANGER, path).await);
            assert_eq!(answered, (listed, stranger), "{kind:?}, {header:?}: {path}\n{}", logs::text());
        }
        assert_not_believed(&front, &format!("{kind:?} on a Unix socket, {header:?}")).await;
        // Who comes to the socket past the proxy tells nothing.
        assert_eq!(http::request_unix(&socket, "GET", "/health").await.status, 403);
    }
}

#[actix_web::test]
async fn refused_as_not_found_behind_a_proxy_looks_like_any_unknown_path() {
    /// All but the time of day.
    fn looks(answer: &Response) -> (Vec<&str>, &str) {
        let lines = answer.head.lines().filter(|line| !line.to_ascii_lowercase().starts_with("date:"));
        (lines.collect(), &answer.body)
    }

    for (kind, header) in PROXIES {
        let rig = Rig::start(1, move |app| {
            app.service(trust(scope("/health", LISTED), header, &[NEAR]).deny(Deny::NotFound));
            app.default_service(web::to(|| async {
                HttpResponse::NotFound().insert_header(("X-Of", "the application")).body("no such page")
            }));
        });
        let front = Front::start(kind, header, Upstream::Tcp { server: rig.address, from: NEAR });
        let unknown = get(front.v4, STRANGER, "/unknown", &[]).await;
        assert_eq!((unknown.status, &*unknown.body), (404, "no such page"));
        for path in ["/health", "/health/", "/health/live", "/health/service/fine", "/health/nothing"] {
            for lines in [&[][..], &["X-Forwarded-For: 127.1.2.3", "Forwarded: for=127.1.2.3"]] {
                let hidden = get(front.v4, STRANGER, path, lines).await;
                assert_eq!(looks(&hidden), looks(&unknown), "{kind:?}, {header:?}: {path}");
            }
        }
        assert_eq!(status(front.v4, LISTED, "/health").await, 200);
    }
}

#[actix_web::test]
async fn refused_behind_a_proxy_a_load_balancer_outside_learns_the_status_alone() {
    for (kind, header) in PROXIES {
        let (_rig, front) = behind(kind, header, |scope| scope.deny(Deny::StatusOnly));
        let forged = ["X-Forwarded-For: 127.1.2.3", "Forwarded: for=127.1.2.3"];
        // What is known is from when somebody asked who is let in.
        let all = get(front.v4, LISTED, "/health", &[]).await;
        assert_eq!(all.json(), serde_json::json!({"status": "UP", "checks": {"service": {"fine": "UP"}}}));
        for lines in [&[][..], &forged] {
            let answer = get(front.v4, STRANGER, "/health?details", lines).await;
            assert_eq!((answer.status, &*answer.body), (200, r#"{"status":"UP"}"#), "{kind:?}, {header:?}");
            assert_eq!(get(front.v4, STRANGER, "/health/service", lines).await.status, 403, "{kind:?}, {header:?}");
        }
    }
}
