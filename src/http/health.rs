//! Whether the process lives, whether it answers searches, and its metrics.

use axum::extract::State;
use axum::http::header;
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use utoipa::ToSchema;

use super::answer::Answer;
use super::app::App;
use super::problem::{Problem, Reason};

/// What health routes answer.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Health {
    /// `ok` or `ready`.
    #[schema(example = "ok")]
    status: &'static str,
    /// The version of the program.
    version: &'static str,
}

const VERSION: &str = env!("CARGO_PKG_VERSION");

/// Whether the process lives
#[utoipa::path(get, path = "/healthz", tag = "server", responses((status = 200, description = "It does", body = Health)))]
pub(super) async fn live() -> Answer<Health> {
    Answer::new(Health { status: "ok", version: VERSION })
}

/// Whether searches are answered
///
/// 503 while the server starts or drains.
#[utoipa::path(get, path = "/readyz", tag = "server", responses((status = 200, description = "They are", body = Health)))]
pub(super) async fn ready(State(app): State<App>) -> Result<Answer<Health>, Problem> {
    if app.stopping() {
        return Err(Problem::stopping());
    }
    if !app.ready() {
        return Err(Problem::new(
            Reason::NotReady,
            "no generation is live yet: the server is starting or has no index",
        ));
    }
    Ok(Answer::new(Health { status: "ready", version: VERSION }))
}

/// Metrics for Prometheus
#[utoipa::path(
    get,
    path = "/metrics",
    tag = "server",
    responses((status = 200, description = "The exposition format, version 0.0.4", body = String, content_type = "text/plain"))
)]
pub(super) async fn metrics(State(app): State<App>) -> Result<Response, Problem> {
    // The disk and locks may be waited for.
    let text = tokio::task::spawn_blocking(move || {
        app.observe();
        app.metrics().text()
    });
    let text = text.await.map_err(Problem::internal)?.map_err(Problem::internal)?;
    Ok(([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], text).into_response())
}
