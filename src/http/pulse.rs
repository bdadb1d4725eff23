//! The time that a client may take: for a request's head, between requests, and to take its answers.
//!
//! A connection that waits too long in one of these is cut; the time that the server itself takes never counts.

use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::{Body, Bytes, HttpBody};
use hyper::body::{Frame, SizeHint};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep, sleep_until};

use crate::settings::Settings;

/// How often a connection looks whether its place is wanted, and what it waits for.
const LOOK: Duration = Duration::from_secs(5);

/// How long a client may take for what.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limits {
    /// From the first byte of a request's head to its last, and for the handshake of TLS.
    pub(super) head: Duration,
    /// Between requests.
    pub(super) idle: Duration,
    /// Of a body or an answer, beyond what its bytes are worth.
    pub(super) stall: Duration,
    /// Bytes that are worth a second.
    pub(super) rate: u64,
}

impl Limits {
    pub(super) fn new(settings: &Settings) -> Self {
        let seconds = |value: u64| Duration::from_secs(value.clamp(1, 7 * 24 * 3600));
        Self {
            head: seconds(settings.head_timeout),
            idle: seconds(settings.idle_timeout),
            stall: seconds(settings.stall_timeout),
            rate: settings.min_rate.max(1),
        }
    }

    /// For a connection beyond `max_connections`, which is to end soon.
    pub(super) fn hurried(self) -> Self {
        let most = Duration::from_secs(5);
        Self { head: self.head.min(most), idle: self.idle.min(most), stall: self.stall.min(most), ..self }
    }

    /// How long so many bytes may take.
    pub(super) fn allowed(&self, bytes: u64) -> Duration {
        self.stall + Duration::from_secs(bytes / self.rate)
    }
}

/// What a connection waits for, shared by its stream and its requests.
#[derive(Debug, Clone)]
pub(super) struct Pulse(Arc<Mutex<State>>);

#[derive(Debug)]
struct State {
    limits: Limits,
    /// Several requests share the connection (HTTP/2): a byte outside of them need not be of a head.
    multiplexed: bool,
    under_way: usize,
    /// Since when a head is being read.
    head_since: Option<Instant>,
    idle_since: Instant,
    stalled_since: Option<Instant>,
    /// By when each answer of a known length must have been taken.
    ends: Vec<(u64, Instant)>,
    next: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Cut {
    /// The client says too little: the connection ends as if it had hung up.
    Silent,
    /// The client takes its answer too slowly.
    Slow,
}

impl Pulse {
    pub(super) fn new(limits: Limits, multiplexed: bool) -> Self {
        let now = Instant::now();
        Self(Arc::new(Mutex::new(State {
            limits,
            multiplexed,
            under_way: 0,
            // The first request is due at once.
            head_since: Some(now),
            idle_since: now,
            stalled_since: None,
            ends: Vec::new(),
            next: 0,
        })))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A request begins.
    pub(super) fn begin(&self) -> UnderWay {
        let mut state = self.state();
        state.under_way += 1;
        state.head_since = None;
        state.next += 1;
        UnderWay { pulse: self.clone(), number: state.next }
    }

    /// Whether no request is under way and nothing waits to be sent.
    pub(super) fn is_quiet(&self) -> bool {
        let state = self.state();
        state.under_way == 0 && state.stalled_since.is_none()
    }
}

impl State {
    fn deadline(&self, pressed: bool) -> Option<(Instant, Cut)> {
        let stalled = self.stalled_since.map(|since| since + self.limits.stall);
        let slow = self.ends.iter().map(|(_, end)| *end).chain(stalled).min().map(|end| (end, Cut::Slow));
        let silent = (self.under_way == 0).then(|| match self.head_since {
            Some(since) if !self.multiplexed => since + self.limits.head,
            _ if pressed => self.idle_since + self.limits.idle.min(LOOK),
            _ => self.idle_since + self.limits.idle,
        });
        let silent = silent.map(|end| (end, Cut::Silent));
        slow.into_iter().chain(silent).min_by_key(|(end, _)| *end)
    }
}

/// A request on its way, to the last byte of its answer.
#[derive(Debug)]
pub(super) struct UnderWay {
    pulse: Pulse,
    number: u64,
}

impl UnderWay {
    /// The answer's body, with the time that its bytes are worth. One of unknown length may take any time as long as
    /// the client takes what there is.
    pub(super) fn answer(self, body: Body) -> Body {
        if let Some(bytes) = body.size_hint().exact() {
            let mut state = self.pulse.state();
            let end = Instant::now() + state.limits.allowed(bytes);
            state.ends.push((self.number, end));
        }
        Body::new(AnswerBody { body, _under_way: self })
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        let mut state = self.pulse.state();
        state.under_way -= 1;
        state.ends.retain(|(number, _)| *number != self.number);
        state.idle_since = Instant::now();
    }
}

struct AnswerBody {
    body: Body,
    _under_way: UnderWay,
}

impl HttpBody for AnswerBody {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// A stream that ends when its client takes too long.
pub(super) struct Timed<S, P> {
    stream: S,
    pulse: Pulse,
    alarm: Pin<Box<Sleep>>,
    /// Whether places for connections are short.
    pressed: P,
}

impl<S, P: Fn() -> bool> Timed<S, P> {
    pub(super) fn new(stream: S, pulse: Pulse, pressed: P) -> Self {
        Self { stream, pulse, alarm: Box::pin(sleep_until(Instant::now())), pressed }
    }

    /// Whether it is time to cut; wakes the connection's task when it may be.
    fn poll_cut(&mut self, context: &mut Context<'_>) -> Poll<Cut> {
        loop {
            let deadline = self.pulse.state().deadline((self.pressed)());
            let now = Instant::now();
            if let Some((_, cut)) = deadline.filter(|(end, _)| *end <= now) {
                tracing::debug!(?cut, "a client took too long");
                return Poll::Ready(cut);
            }
            // Also where nothing is due: a request of HTTP/2 may end in a task of its own, which wakes nobody here.
            // An alarm that is set too early costs one look; setting it anew for each request would cost more.
            let due = deadline.map_or(now + LOOK, |(end, _)| end.min(now + LOOK));
            let armed = self.alarm.deadline();
            if armed <= now || armed > due {
                self.alarm.as_mut().reset(due);
            }
            if self.alarm.as_mut().poll(context).is_pending() {
                return Poll::Pending;
            }
        }
    }

    /// Notes how a write went and cuts it where it has waited too long.
    fn poll_written<T>(&mut self, written: Poll<io::Result<T>>, context: &mut Context<'_>) -> Poll<io::Result<T>> {
        if written.is_ready() {
            self.pulse.state().stalled_since = None;
            return written;
        }
        self.pulse.state().stalled_since.get_or_insert_with(Instant::now);
        match self.poll_cut(context) {
            Poll::Ready(_) => Poll::Ready(Err(io::ErrorKind::TimedOut.into())),
            Poll::Pending => Poll::Pending,
        }
    }
}

impl<S: AsyncRead + Unpin, P: Fn() -> bool + Unpin> AsyncRead for Timed<S, P> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let read = Pin::new(&mut self.stream).poll_read(context, buffer);
        if read.is_ready() {
            if buffer.filled().len() > before {
                let mut state = self.pulse.state();
                if state.under_way == 0 {
                    state.head_since.get_or_insert_with(Instant::now);
                }
            }
            return read;
        }
        match self.poll_cut(context) {
            Poll::Ready(Cut::Silent) => Poll::Ready(Ok(())),
            Poll::Ready(Cut::Slow) => Poll::Ready(Err(io::ErrorKind::TimedOut.into())),
            Poll::Pending => Poll::Pending,
        }
    }
}

impl<S: AsyncWrite + Unpin, P: Fn() -> bool + Unpin> AsyncWrite for Timed<S, P> {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(context, bytes);
        self.poll_written(written, context)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(context, slices);
        self.poll_written(written, context)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = Pin::new(&mut self.stream).poll_flush(context);
        self.poll_written(flushed, context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let shut = Pin::new(&mut self.stream).poll_shutdown(context);
        self.poll_written(shut, context)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limits() -> Limits {
        let settings =
            Settings { head_timeout: 2, idle_timeout: 50, stall_timeout: 10, min_rate: 100, ..Settings::default() };
        Limits::new(&settings)
    }

    fn seconds_left(pulse: &Pulse, pressed: bool) -> Option<(u64, Cut)> {
        let state = pulse.state();
        let since = state.idle_since;
        state.deadline(pressed).map(|(end, cut)| ((end - since + Duration::from_millis(500)).as_secs(), cut))
    }

    #[tokio::test]
    async fn each_wait_has_its_limit() {
        let pulse = Pulse::new(limits(), false);
        assert_eq!(seconds_left(&pulse, false), Some((2, Cut::Silent)), "the first head");
        let request = pulse.begin();
        assert_eq!(seconds_left(&pulse, false), None, "the server's own time");
        let body = request.answer(Body::from(vec![0; 3000]));
        assert_eq!(seconds_left(&pulse, false), Some((40, Cut::Slow)), "10 s and 3000 bytes at 100 a second");
        assert!(!pulse.is_quiet());
        drop(body);
        assert!(pulse.is_quiet());
        assert_eq!(seconds_left(&pulse, false), Some((50, Cut::Silent)), "between requests");
        assert_eq!(seconds_left(&pulse, true), Some((5, Cut::Silent)), "where places are short");
        let stream = Body::from_stream(futures_util::stream::pending::<Result<Bytes, io::Error>>());
        let endless = pulse.begin().answer(stream);
        assert_eq!(seconds_left(&pulse, false), None, "an answer of unknown length");
        let since = pulse.state().idle_since;
        pulse.state().stalled_since = Some(since);
        assert_eq!(seconds_left(&pulse, false), Some((10, Cut::Slow)), "one that is not taken");
        drop(endless);
    }

    #[tokio::test]
    async fn a_connection_whose_last_request_ends_in_another_task_is_cut() {
        use tokio::io::AsyncReadExt as _;
        let pulse = Pulse::new(Limits { idle: Duration::from_millis(10), ..limits() }, true);
        let request = pulse.begin();
        let (_client, stream) = tokio::io::duplex(64);
        let mut stream = Timed::new(stream, pulse, || false);
        tokio::spawn(async move {
            tokio::time::sleep(Duration::from_millis(10)).await;
            drop(request);
        });
        let end = tokio::time::timeout(12 * LOOK, stream.read_u8()).await.expect("it is open still");
        assert_eq!(end.unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
    }

    #[tokio::test]
    async fn many_requests_at_once_each_have_their_limit() {
        let pulse = Pulse::new(limits(), true);
        assert_eq!(seconds_left(&pulse, false), Some((50, Cut::Silent)), "no head is due");
        let (long, short) =
            (pulse.begin().answer(Body::from(vec![0; 9000])), pulse.begin().answer(Body::from("short")));
        assert_eq!(seconds_left(&pulse, false), Some((10, Cut::Slow)));
        drop(short);
        assert_eq!(seconds_left(&pulse, false), Some((100, Cut::Slow)));
        drop(long);
        assert_eq!(seconds_left(&pulse, false), Some((50, Cut::Silent)));
    }
}
