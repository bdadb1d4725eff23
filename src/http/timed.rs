//! A stream that ends when its client takes too long.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep, sleep_until};

use super::pulse::{Cut, LOOK, Pulse};

/// The stream of a connection, which its pulse may cut.
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
            let deadline = self.pulse.deadline((self.pressed)());
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

    /// Cuts a write that has waited too long.
    fn poll_unsent<T>(&mut self, context: &mut Context<'_>) -> Poll<io::Result<T>> {
        match self.poll_cut(context) {
            Poll::Ready(_) => Poll::Ready(Err(io::ErrorKind::TimedOut.into())),
            Poll::Pending => Poll::Pending,
        }
    }

    fn poll_written(&mut self, written: Poll<io::Result<usize>>, context: &mut Context<'_>) -> Poll<io::Result<usize>> {
        self.pulse.wrote(written.is_ready());
        if written.is_ready() { written } else { self.poll_unsent(context) }
    }

    fn poll_flushed(&mut self, flushed: Poll<io::Result<()>>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.pulse.flushed(flushed.is_ready());
        if flushed.is_ready() { flushed } else { self.poll_unsent(context) }
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
                self.pulse.heard();
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
        self.poll_flushed(flushed, context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let shut = Pin::new(&mut self.stream).poll_shutdown(context);
        self.poll_flushed(shut, context)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::io::AsyncReadExt as _;

    use super::super::pulse::Limits;
    use super::*;
    use crate::settings::Settings;

    #[tokio::test]
    async fn a_connection_whose_last_request_ends_in_another_task_is_cut() {
        let limits = Limits { idle: Duration::from_millis(10), ..Limits::new(&Settings::default()) };
        let pulse = Pulse::new(limits, true);
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
}
