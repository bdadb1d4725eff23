//! One connection, from its first byte to its last.

use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::Request;
use axum::http::{HeaderMap, HeaderValue, Version, header};
use hyper::body::Incoming;
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulConnection;
use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::{Notify, watch};
use tokio_rustls::TlsAcceptor;
use tower::ServiceExt;

use super::outgoing::Outgoing;
use super::pace::{Paced, Unread};
use super::places::{InReserve, Place, Places};
use super::problem::{Problem, Reason};
use super::pulse::{Limits, Pulse};
use super::request_id::{self, RequestId};
use super::timed::Timed;
use crate::settings::Settings;

/// hyper takes no smaller buffer.
const SMALLEST_BUFFER: usize = 8192;
/// What hyper takes without memory of its own for each request.
const USUAL_HEADERS: usize = 100;
/// Requests at once on a connection of HTTP/2.
const STREAMS: u32 = 128;
/// How long a stopping server waits for a request on a connection that has none.
const LAST_CALL: Duration = Duration::from_millis(500);

/// Bytes that the system holds unsent at most: with more, a slow client is not told from one that takes nothing.
const UNSENT: u32 = 128 << 10;

/// What all connections have in common.
#[derive(Clone)]
pub(super) struct Common {
    pub(super) router: Router,
    pub(super) places: Places,
    pub(super) limits: Limits,
    pub(super) settings: Arc<Settings>,
    pub(super) tls: Option<TlsAcceptor>,
    /// Becomes true when the server stops.
    pub(super) stopping: watch::Receiver<bool>,
}

impl Common {
    /// Serves a connection to its end.
    pub(super) async fn serve(self, stream: TcpStream, place: Place) {
        // Small answers leave without waiting for more to send.
        let set = stream.set_nodelay(true).and_then(|()| SockRef::from(&stream).set_tcp_notsent_lowat(UNSENT));
        if let Err(error) = set {
            tracing::debug!(%error, "TCP_NODELAY, TCP_NOTSENT_LOWAT");
        }
        let ended = match self.tls.clone() {
            None => self.http1(stream, &place).await,
            Some(acceptor) => self.secured(acceptor, stream, &place).await,
        };
        if let Err(error) = ended {
            tracing::debug!(%error, "connection ended early");
        }
    }

    async fn secured(self, acceptor: TlsAcceptor, stream: TcpStream, place: &Place) -> io::Result<()> {
        let mut stopping = self.stopping.clone();
        let handshake = async {
            let mut first = [0];
            if stream.peek(&mut first).await? > 0 && first[0].is_ascii_uppercase() {
                let mut stream = stream;
                stream.write_all(speak_tls().as_bytes()).await?;
                stream.shutdown().await?;
                return Ok(None);
            }
            acceptor.accept(stream).await.map(Some)
        };
        let secured = tokio::select! {
            secured = tokio::time::timeout(self.limits(place).head, handshake) => secured.map_err(io::Error::from)??,
            _ = stopping.wait_for(|stopping| *stopping) => return Ok(()),
        };
        let Some(stream) = secured else { return Ok(()) };
        match stream.get_ref().1.alpn_protocol() {
            Some(b"h2") => self.http2(stream, place).await,
            _ => self.http1(stream, place).await,
        }
    }

    fn limits(&self, place: &Place) -> Limits {
        if place.in_reserve { self.limits.hurried() } else { self.limits }
    }

    async fn http1(self, stream: impl AsyncRead + AsyncWrite + Unpin + 'static, place: &Place) -> io::Result<()> {
        let most = self.settings.max_head_bytes;
        let mut http = http1::Builder::new();
        http.timer(TokioTimer::new()).header_read_timeout(None);
        http.max_header_size(most).max_buf_size(most.max(SMALLEST_BUFFER)).keep_alive(!place.in_reserve);
        if self.settings.max_headers != USUAL_HEADERS {
            http.max_headers(self.settings.max_headers);
        }
        let pulse = Pulse::new(self.limits(place), false);
        let (stream, last) = (TokioIo::new(self.timed(stream, &pulse)), Last::of(place));
        let connection = http.serve_connection(stream, service_fn(self.answering(place, &pulse, &last)));
        drive(connection, &pulse, &last, self.stopping).await
    }

    async fn http2(self, stream: impl AsyncRead + AsyncWrite + Unpin + 'static, place: &Place) -> io::Result<()> {
        let limits = self.limits(place);
        let mut http = http2::Builder::new(TokioExecutor::new());
        http.timer(TokioTimer::new()).max_concurrent_streams(STREAMS);
        http.max_header_list_size(u32::try_from(self.settings.max_head_bytes).unwrap_or(u32::MAX));
        // A client that is gone without a word is found out also while all its requests wait for something else.
        http.keep_alive_interval(limits.stall).keep_alive_timeout(limits.stall);
        let pulse = Pulse::new(limits, true);
        let (stream, last) = (TokioIo::new(self.timed(stream, &pulse)), Last::of(place));
        let connection = http.serve_connection(stream, service_fn(self.answering(place, &pulse, &last)));
        drive(connection, &pulse, &last, self.stopping).await
    }

    fn timed<S>(&self, stream: S, pulse: &Pulse) -> Timed<S, impl Fn() -> bool + Unpin + use<S>> {
        let places = self.places.clone();
        Timed::new(stream, pulse.clone(), move || places.are_short())
    }

    /// Hands requests to the router, within the limits of their connection.
    fn answering(
        &self,
        place: &Place,
        pulse: &Pulse,
        last: &Last,
    ) -> impl Fn(Request<Incoming>) -> Answering + Clone + use<> {
        let (router, limits, in_reserve) = (self.router.clone(), self.limits(place), place.in_reserve);
        let (pulse, last) = (pulse.clone(), last.clone());
        move |request| {
            let under_way = pulse.begin();
            last.begun();
            let (unread, version) = (Unread::default(), request.version());
            let mut request = request.map(|body| Paced::body(body, limits, unread.clone()));
            if in_reserve {
                request.extensions_mut().insert(InReserve);
            }
            let answer = router.clone().oneshot(request);
            Box::pin(async move {
                let mut answer = answer.await?;
                let room = answer.extensions_mut().remove();
                let mut answer = answer.map(|body| Outgoing::new(body, under_way, room));
                // The connection ends then, and a client that is not told sends its next request into the void.
                if unread.is_left() && version != Version::HTTP_2 {
                    answer.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
                }
                Ok(answer)
            })
        }
    }
}

type Answering =
    std::pin::Pin<Box<dyn Future<Output = Result<axum::http::Response<Outgoing>, std::convert::Infallible>> + Send>>;

/// Says when the last request of a connection has begun: of one in the reserve that is the first.
#[derive(Clone)]
struct Last(Option<Arc<Notify>>);

impl Last {
    fn of(place: &Place) -> Self {
        Self(place.in_reserve.then(Arc::default))
    }

    fn begun(&self) {
        if let Some(notify) = &self.0 {
            notify.notify_one();
        }
    }

    async fn has_begun(&self) {
        match &self.0 {
            Some(notify) => notify.notified().await,
            None => std::future::pending().await,
        }
    }
}

/// Runs a connection; when the server stops, or its last request has begun, it ends with those that are under way.
async fn drive<C>(connection: C, pulse: &Pulse, last: &Last, mut stopping: watch::Receiver<bool>) -> io::Result<()>
where
    C: GracefulConnection,
    C::Error: std::error::Error + Send + Sync + 'static,
{
    let mut connection = pin!(connection);
    tokio::select! {
        ended = connection.as_mut() => return ended.map_err(io::Error::other),
        // An error is the end of the server, too.
        _ = stopping.wait_for(|stopping| *stopping) => {}
        () = last.has_begun() => {}
    }
    connection.as_mut().graceful_shutdown();
    loop {
        match tokio::time::timeout(LAST_CALL, connection.as_mut()).await {
            Ok(ended) => return ended.map_err(io::Error::other),
            Err(_) if pulse.is_quiet() => return Ok(()),
            Err(_) => {}
        }
    }
}

/// The answer to plain HTTP where TLS is spoken.
fn speak_tls() -> String {
    let problem = Problem::new(Reason::MalformedRequest, "this port speaks TLS: ask with https://");
    let id = RequestId::of(&HeaderMap::new());
    let body = problem.details(id.as_str()).to_string();
    format!(
        "HTTP/1.1 400 Bad Request\r\ncontent-type: application/problem+json\r\nconnection: close\r\n\
         {}: {}\r\ncontent-length: {}\r\n\r\n{body}",
        request_id::HEADER,
        id.as_str(),
        body.len()
    )
}

#[cfg(test)]
mod tests;
