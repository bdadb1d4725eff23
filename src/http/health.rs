//! Whether the process lives, whether it answers searches, and its metrics.

use axum::extract::State;
use axum::http::header;
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use utoipa::ToSchema;

use super::answer::Answer;
use super::app::App;
use super::problem::{Problem, Reason};
use crate::generation::{Retriever, Status};
use crate::telemetry::Metrics;

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
    if app.ready()
        && let Ok(status) = app.blocking(Retriever::status).await
    {
        show(&status, app.metrics());
    }
    let text = app.metrics().text().map_err(Problem::internal)?;
    Ok(([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], text).into_response())
}

/// Brings the gauges that nothing else moves up to date.
fn show(status: &Status, metrics: &Metrics) {
    let gauge = |value: u64| i64::try_from(value).unwrap_or(i64::MAX);
    metrics.index_documents.set(gauge(status.indexed));
    metrics.index_bytes.set(gauge(status.index_bytes));
    let Some(generation) = &status.generation else { return };
    metrics.live_generation.set(gauge(generation.number));
    if let Ok(created) = OffsetDateTime::parse(&generation.created, &Rfc3339) {
        metrics.live_generation_age.set((OffsetDateTime::now_utc() - created).whole_seconds().max(0));
    }
}
