//! A server of S3 for the tests, whose buckets are folders, and which prints a line for each request. Arguments: port, access key, secret key, folder.

use std::env::args;

use hyper::{
    Request,
    body::Incoming,
    server::conn::http1,
    service::{Service, service_fn},
};
use hyper_util::rt::TokioIo;
use s3s::{auth::SimpleAuth, service::S3ServiceBuilder};
use s3s_fs::FileSystem;
use tokio::net::TcpListener;

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let [port, access_key, secret_key, folder]: [String; 4] =
        args().skip(1).collect::<Vec<_>>().try_into().expect("four arguments");
    let mut builder = S3ServiceBuilder::new(FileSystem::new(folder).expect("the folder exists"));
    builder.set_auth(SimpleAuth::from_single(access_key, secret_key));
    let service = builder.build();
    let logged = service_fn(move |request: Request<Incoming>| {
        println!("{} {}", request.method(), request.uri());
        Service::call(&service, request)
    });
    let listener = TcpListener::bind(format!("127.0.0.1:{port}")).await.expect("the port is free");
    loop {
        let (stream, _) = listener.accept().await.expect("connections are accepted");
        let connection = http1::Builder::new().serve_connection(TokioIo::new(stream), logged.clone());
        tokio::spawn(connection);
    }
}
