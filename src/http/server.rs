//! Connections: HTTP/1.1 and HTTP/2 on a stream that is already open, and the plain listener on
//! loopback for metrics and health.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;
use tokio::sync::Semaphore;

use super::Gateway;
use super::problem::Problem;
use crate::control::sealed::LONGEST_WAIT;

/// A request's head must arrive within this time; so long may an HTTP/1.1 connection idle, too.
const HEAD_TIMEOUT: Duration = Duration::from_secs(15);
/// An HTTP/2 connection is pinged this often,
const PING_INTERVAL: Duration = Duration::from_secs(20);
/// and closed when nothing comes back for this long.
const PING_TIMEOUT: Duration = Duration::from_secs(10);
/// Requests at once on one HTTP/2 connection.
const STREAMS: u32 = 32;
/// Most bytes of a request's head.
const HEAD_BYTES: usize = 32 * 1024;
/// What an HTTP/2 client may send ahead, in bytes: one offer.
const WINDOW: u32 = 64 * 1024;
/// After `stop`, or at its greatest age, a connection's requests have this long to finish.
const GRACE: Duration = Duration::from_secs(20);
// Who waits for the other side of a sealed call must not be cut off for the connection's age.
const _: () = assert!(GRACE.as_secs() > LONGEST_WAIT.as_secs());
/// A connection is closed, in peace, after this: none is held for ever, whatever its client does.
const MAX_AGE: Duration = Duration::from_secs(180);
/// Connections at once on the plain listener.
const LOCAL_CONNECTIONS: usize = 64;

/// Serves one connection until it ends, or until `stop` and the requests under way are done.
pub async fn serve_connection<I, F>(io: I, router: Router, stop: F)
where
    I: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    F: Future<Output = ()> + Send,
{
    let mut builder = Builder::new(TokioExecutor::new());
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .max_buf_size(HEAD_BYTES);
    builder
        .http2()
        .timer(TokioTimer::new())
        .keep_alive_interval(PING_INTERVAL)
        .keep_alive_timeout(PING_TIMEOUT)
        .max_concurrent_streams(STREAMS)
        .initial_stream_window_size(WINDOW)
        .initial_connection_window_size(WINDOW * 4)
        .max_header_list_size(HEAD_BYTES as u32);
    let service = TowerToHyperService::new(router);
    let connection = builder.serve_connection_with_upgrades(TokioIo::new(io), service);
    let mut connection = std::pin::pin!(connection);
    tokio::select! {
        // A connection that breaks is the client's business.
        _ = connection.as_mut() => return,
        () = stop => connection.as_mut().graceful_shutdown(),
        () = tokio::time::sleep(MAX_AGE) => connection.as_mut().graceful_shutdown(),
    }
    let _late = tokio::time::timeout(GRACE, connection).await;
}

/// Metrics and health, for loopback: `/metrics`, `/healthz` (the process runs), `/readyz` (it
/// takes new sessions).
pub fn local_router<G: Gateway>(gateway: G) -> Router {
    Router::new()
        .route("/metrics", get(metrics::<G>))
        .route("/healthz", get(async || "ok\n"))
        .route("/readyz", get(ready::<G>))
        .fallback(async || Problem::not_found())
        .method_not_allowed_fallback(async || Problem::wrong_method())
        .with_state(gateway)
}

/// Serves `router` over plain HTTP for ever.
///
/// # Errors
/// [`io::ErrorKind::InvalidInput`] when the listener is not on loopback.
pub async fn serve_local(listener: TcpListener, router: Router) -> io::Result<()> {
    if !listener.local_addr()?.ip().is_loopback() {
        let text = "metrics and health are served on loopback only";
        return Err(io::Error::new(io::ErrorKind::InvalidInput, text));
    }
    let slots = Arc::new(Semaphore::new(LOCAL_CONNECTIONS));
    loop {
        let Ok(slot) = Arc::clone(&slots).acquire_owned().await else { return Ok(()) };
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::warn!(%error, "accept failed");
                tokio::time::sleep(Duration::from_millis(50)).await;
                continue;
            }
        };
        let router = router.clone();
        tokio::spawn(async move {
            serve_connection(stream, router, std::future::pending()).await;
            drop(slot);
        });
    }
}

async fn metrics<G: Gateway>(State(gateway): State<G>) -> Response {
    let content_type = [(CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")];
    (content_type, gateway.metrics()).into_response()
}

async fn ready<G: Gateway>(State(gateway): State<G>) -> Response {
    match gateway.ready() {
        true => "ready\n".into_response(),
        false => (StatusCode::SERVICE_UNAVAILABLE, "not ready\n").into_response(),
    }
}
