//! Takes connections until it is told to stop, then lets the requests under way end.

use std::future::Future;
use std::pin::pin;
use std::time::Duration;

use axum::body::Body;
use axum::extract::Request;
use axum::serve::Listener;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tower::ServiceExt;

use super::app::App;
use super::error::Error;
use super::router::router;

/// Serves until `shutdown` is done, then takes no more requests and waits `drain_timeout` for those under way.
///
/// # Errors
/// [`Error::Cut`] where some of them were not done by then.
pub async fn serve(mut listener: TcpListener, app: App, shutdown: impl Future<Output = ()>) -> Result<(), Error> {
    let service = router(app.clone()).map_request(|request: Request<Incoming>| request.map(Body::new));
    let service = TowerToHyperService::new(service);
    let head_timeout = Duration::from_secs(app.settings().request_timeout.clamp(1, 3600));
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new()).header_read_timeout(head_timeout);

    let draining = GracefulShutdown::new();
    let mut connections = JoinSet::new();
    let mut shutdown = pin!(shutdown);
    loop {
        tokio::select! {
            () = &mut shutdown => break,
            (stream, _) = Listener::accept(&mut listener) => {
                send_at_once(&stream);
                let connection = http.serve_connection(TokioIo::new(stream), service.clone());
                let connection = draining.watch(connection);
                connections.spawn(async move {
                    if let Err(error) = connection.await {
                        tracing::debug!(%error, "connection ended early");
                    }
                });
            }
            Some(_) = connections.join_next() => {}
        }
    }

    app.stop();
    drop(listener);
    let allowance = Duration::from_secs(app.settings().drain_timeout);
    tracing::info!(connections = connections.len(), "draining");
    if tokio::time::timeout(allowance, draining.shutdown()).await.is_ok() {
        return Ok(());
    }
    while connections.try_join_next().is_some() {}
    let error = Error::Cut { connections: connections.len(), seconds: allowance.as_secs() };
    connections.shutdown().await;
    Err(error)
}

/// Small answers leave without waiting for more to send.
fn send_at_once(stream: &TcpStream) {
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%error, "TCP_NODELAY");
    }
}
