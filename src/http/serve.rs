//! Takes connections until it is told to stop, then lets the requests under way end.

use std::future::Future;
use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::app::App;
use super::connection::Common;
use super::error::Error;
use super::places::Places;
use super::pulse::Limits;
use super::router::router;
use super::tls::{self, Tls};

/// How long no connection is taken after one could not be: descriptors come back when connections end.
const PAUSE: Duration = Duration::from_millis(200);
/// How often the log says that connections cannot be taken.
const REMIND: Duration = Duration::from_secs(10);

/// Serves until `shutdown` is done, then takes no more requests and waits `drain_timeout` for those under way.
///
/// # Errors
/// [`Error::Cut`] where some of them were not done by then; [`Error::HalfTls`] and [`Error::Tls`] where the certificate
/// cannot be used.
pub async fn serve(listener: TcpListener, app: App, shutdown: impl Future<Output = ()>) -> Result<(), Error> {
    let tls = Tls::open(app.settings())?;
    let (stop, stopping) = watch::channel(false);
    let common = Common {
        router: router(app.clone()),
        places: Places::new(app.settings()),
        limits: Limits::new(app.settings()),
        settings: Arc::new(app.settings().clone()),
        tls: tls.as_ref().map(Tls::acceptor).transpose()?,
        stopping,
    };
    let watched = tokio::spawn(tls::watch(tls));

    let mut connections = JoinSet::new();
    let mut shutdown = pin!(shutdown);
    let mut complained: Option<Instant> = None;
    loop {
        let next = async {
            let place = common.places.next().await;
            (place, listener.accept().await)
        };
        tokio::select! {
            () = &mut shutdown => break,
            (place, accepted) = next => match (place, accepted) {
                (Some(place), Ok((stream, _))) => {
                    connections.spawn(common.clone().serve(stream, place));
                }
                (None, _) => {}
                (Some(_), Err(error)) if is_of_one_connection(&error) => {}
                (Some(_), Err(error)) => {
                    if complained.is_none_or(|at| at.elapsed() >= REMIND) {
                        complained = Some(Instant::now());
                        tracing::error!(
                            %error,
                            connections = connections.len(),
                            "no connection can be taken now; where files are too many, raise the limit (`ulimit -n`)"
                        );
                    }
                    tokio::select! {
                        () = &mut shutdown => break,
                        () = tokio::time::sleep(PAUSE) => {}
                    }
                }
            },
            Some(_) = connections.join_next() => {}
        }
    }

    app.stop();
    drop(listener);
    watched.abort();
    let allowance = Duration::from_secs(app.settings().drain_timeout);
    tracing::info!(connections = connections.len(), "draining");
    stop.send_replace(true);
    let drained = async { while connections.join_next().await.is_some() {} };
    if tokio::time::timeout(allowance, drained).await.is_ok() {
        return Ok(());
    }
    while connections.try_join_next().is_some() {}
    let error = Error::Cut { connections: connections.len(), seconds: allowance.as_secs() };
    connections.shutdown().await;
    Err(error)
}

/// Whether only one client's connection failed, before it was taken.
fn is_of_one_connection(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset, Interrupted};
    matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset | Interrupted)
}
