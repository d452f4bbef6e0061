//! The mark that distinguishes a connection on a Unix socket from a TCP connection that has lost its address.

use std::any::Any;

use actix_web::dev::Extensions;

/// The mark in the data of a connection on a Unix socket.
#[derive(Clone, Copy)]
pub(super) struct UnixSocket;

/// Marks connections on Unix sockets, so that [`Scope::allow_unix`](crate::Scope::allow_unix) and
/// [`Scope::trust_unix`](crate::Scope::trust_unix) recognize them. Pass it to
/// [`HttpServer::on_connect`](actix_web::HttpServer::on_connect), before the server's sockets are added, and add the Unix socket with
/// [`HttpServer::listen_uds`](actix_web::HttpServer::listen_uds): `bind_uds` of actix-web 4.18 never calls this function.
///
/// The mark is needed because a missing peer address proves nothing: a TCP connection that the client has reset has none
/// either. Without the mark, requests without a peer address are denied.
///
/// # Examples
///
/// ```no_run
/// use std::os::unix::net::UnixListener;
///
/// use actix_web::{App, HttpServer};
///
/// # #[actix_web::main] async fn main() -> std::io::Result<()> {
/// HttpServer::new(|| App::new().service(health::scope().allow_empty().trust_unix()))
///     .on_connect(health::on_connect)
///     .listen_uds(UnixListener::bind("/run/app.sock")?)?
///     .run()
///     .await
/// # }
/// ```
///
/// A server has only one such function. If yours exists already, call this one from it:
///
/// ```
/// # use actix_web::{App, HttpServer};
/// HttpServer::new(App::new).on_connect(|connection, data| {
///     health::on_connect(connection, data);
///     // …
/// });
/// ```
pub fn on_connect(connection: &dyn Any, data: &mut Extensions) {
    #[cfg(unix)]
    if connection.is::<actix_web::rt::net::UnixStream>() {
        data.insert(UnixSocket);
    }
    #[cfg(not(unix))]
    let _ = (connection, data);
}
