//! Answers on their way out: how their clients take them is seen where bytes leave, not where they are queued.

use std::io::IoSlice;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use axum::body::{Body, Bytes, HttpBody};
use bytes::Buf;
use hyper::body::{Frame, SizeHint};

use super::admission::AnswerRoom;
use super::pulse::UnderWay;

/// The body of an answer, whose request is under way until the last of its bytes has left.
pub(super) struct Outgoing {
    body: Body,
    held: Arc<Held>,
}

/// What an answer holds until the last of its parts is gone.
#[derive(Debug)]
struct Held {
    under_way: UnderWay,
    _room: Option<AnswerRoom>,
}

impl Outgoing {
    pub(super) fn new(body: Body, under_way: UnderWay, room: Option<AnswerRoom>) -> Self {
        Self { body, held: Arc::new(Held { under_way, _room: room }) }
    }
}

impl HttpBody for Outgoing {
    type Data = Part;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Part>, axum::Error>>> {
        let frame = ready!(Pin::new(&mut self.body).poll_frame(context));
        let part = |bytes: Bytes| {
            self.held.under_way.offer(bytes.len());
            Part { bytes, held: Arc::clone(&self.held) }
        };
        Poll::Ready(frame.map(|frame| frame.map(|frame| frame.map_data(part))))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// Bytes of an answer that hyper holds: of HTTP/1 until the socket took them, of HTTP/2 until the client's windows did.
#[derive(Debug)]
pub(super) struct Part {
    bytes: Bytes,
    held: Arc<Held>,
}

impl Buf for Part {
    fn remaining(&self) -> usize {
        self.bytes.remaining()
    }

    fn chunk(&self) -> &[u8] {
        self.bytes.chunk()
    }

    fn chunks_vectored<'a>(&'a self, slices: &mut [IoSlice<'a>]) -> usize {
        self.bytes.chunks_vectored(slices)
    }

    fn advance(&mut self, count: usize) {
        self.bytes.advance(count);
        self.held.under_way.take(count);
    }

    fn copy_to_bytes(&mut self, length: usize) -> Bytes {
        self.held.under_way.take(length);
        self.bytes.copy_to_bytes(length)
    }
}
