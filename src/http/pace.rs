//! Bodies that come too slowly, and those that nobody reads to their end.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};

use axum::body::{Body, Bytes, HttpBody};
use hyper::body::{Frame, Incoming, SizeHint};
use tokio::time::{Instant, Sleep, sleep_until};

use super::pulse::Limits;

/// A client took longer to send its body than its bytes are worth.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("it came too slowly: {bytes} bytes took more than {seconds} s of waiting (stall_timeout, min_rate)")]
pub(super) struct TooSlow {
    bytes: u64,
    seconds: u64,
}

impl TooSlow {
    /// Whether an error comes from this one.
    pub(super) fn caused<'e>(error: &'e (dyn std::error::Error + 'static)) -> Option<&'e Self> {
        std::iter::successors(Some(error), |error| error.source()).find_map(|error| error.downcast_ref())
    }
}

/// Whether a body was let go before its end: the rest of it stands where the next request would begin.
#[derive(Debug, Clone, Default)]
pub(super) struct Unread(Arc<AtomicBool>);

impl Unread {
    pub(super) fn is_left(&self) -> bool {
        self.0.load(Ordering::Acquire)
    }
}

/// A body whose client may be waited for only so long. The time in which nobody asks for it does not count.
pub(super) struct Paced {
    body: Incoming,
    limits: Limits,
    bytes: u64,
    /// The waiting of before, and since when there is some now.
    waited: std::time::Duration,
    since: Option<Instant>,
    alarm: Option<Pin<Box<Sleep>>>,
    ended: bool,
    unread: Unread,
}

impl Paced {
    pub(super) fn body(body: Incoming, limits: Limits, unread: Unread) -> Body {
        // Most requests have none, or it is there already.
        if body.is_end_stream() {
            return Body::empty();
        }
        let waited = std::time::Duration::ZERO;
        Body::new(Self { body, limits, bytes: 0, waited, since: None, alarm: None, ended: false, unread })
    }
}

impl Drop for Paced {
    fn drop(&mut self) {
        if !self.ended && !self.body.is_end_stream() {
            self.unread.0.store(true, Ordering::Release);
        }
    }
}

impl HttpBody for Paced {
    type Data = Bytes;
    type Error = Box<dyn std::error::Error + Send + Sync>;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        let now = Instant::now();
        if let Poll::Ready(frame) = Pin::new(&mut self.body).poll_frame(context) {
            if let Some(since) = self.since.take() {
                self.waited += now - since;
            }
            self.ended = frame.is_none();
            if let Some(Ok(data)) = frame.as_ref().map(|frame| frame.as_ref().map(Frame::data_ref)) {
                self.bytes += data.map_or(0, |data| data.len() as u64);
            }
            return Poll::Ready(frame.map(|frame| frame.map_err(Into::into)));
        }
        let since = *self.since.get_or_insert(now);
        let allowed = self.limits.allowed(self.bytes);
        let end = since + allowed.saturating_sub(self.waited);
        if end <= now {
            return Poll::Ready(Some(Err(TooSlow { bytes: self.bytes, seconds: allowed.as_secs() }.into())));
        }
        let alarm = self.alarm.get_or_insert_with(|| Box::pin(sleep_until(end)));
        alarm.as_mut().reset(end);
        match alarm.as_mut().poll(context) {
            Poll::Pending => Poll::Pending,
            Poll::Ready(()) => Poll::Ready(Some(Err(TooSlow { bytes: self.bytes, seconds: allowed.as_secs() }.into()))),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
