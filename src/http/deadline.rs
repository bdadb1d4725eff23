//! How long a request may take.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
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

/// Answers with 503 when a request's time is over.
pub(super) async fn within_deadline(State(app): State<App>, mut request: Request, next: Next) -> Response {
    let allowance = Duration::from_secs(app.settings().request_timeout.clamp(1, 7 * 24 * 3600));
    let deadline = Deadline::new(allowance);
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
