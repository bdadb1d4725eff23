//! How long an answer may take.

use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::{Body, Bytes, HttpBody};
use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use hyper::body::{Frame, SizeHint};
use tokio::sync::watch;
use tokio::time::{Instant, timeout_at};

use super::app::App;
use super::problem::{Problem, Reason};

/// The end of a request's time; a handler that makes progress may move it.
#[derive(Debug, Clone)]
pub(super) struct Deadline {
    at: Arc<watch::Sender<Instant>>,
    allowance: Duration,
}

impl Deadline {
    fn new(allowance: Duration) -> Self {
        Self { at: Arc::new(watch::Sender::new(Instant::now() + allowance)), allowance }
    }

    /// Starts the allowance anew.
    pub(super) fn extend(&self) {
        self.at.send_replace(Instant::now() + self.allowance);
    }

    /// Waits for work that ends by itself and that nobody should give up, however long it takes.
    pub(super) async fn without_end<T>(&self, work: impl Future<Output = T>) -> T {
        let mut work = pin!(work);
        loop {
            self.extend();
            if let Ok(done) = tokio::time::timeout(self.allowance / 2, &mut work).await {
                return done;
            }
        }
    }

    fn at(&self) -> Instant {
        *self.at.borrow()
    }
}

/// A body each part of which starts the allowance anew: how long a client may take to send it has limits of its own
/// (`stall_timeout`, `min_rate`).
struct Extending {
    body: Body,
    deadline: Deadline,
}

impl HttpBody for Extending {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let polled = Pin::new(&mut self.body).poll_frame(context);
        if polled.is_ready() {
            self.deadline.extend();
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// Answers with 503 when a request's time is over.
pub(super) async fn within_deadline(State(app): State<App>, request: Request, next: Next) -> Response {
    let allowance = Duration::from_secs(app.settings().request_timeout.clamp(1, 7 * 24 * 3600));
    let deadline = Deadline::new(allowance);
    let mut request = request.map(|body| match body.is_end_stream() {
        true => body,
        false => Body::new(Extending { body, deadline: deadline.clone() }),
    });
    request.extensions_mut().insert(deadline.clone());
    let mut answer = pin!(next.run(request));
    loop {
        let at = deadline.at();
        match timeout_at(at, &mut answer).await {
            Ok(response) => return response,
            Err(_) if deadline.at() > at => {}
            Err(_) => {
                let detail = format!("no answer within {} s (request_timeout)", allowance.as_secs());
                return Problem::new(Reason::Timeout, detail).into_response();
            }
        }
    }
}
