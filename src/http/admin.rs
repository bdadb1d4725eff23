//! What operators and the web page ask about the server.

use axum::extract::State;
use serde::Serialize;
use utoipa::ToSchema;

use super::answer::Answer;
use super::app::App;
use super::generations::GenerationBody;
use super::problem::Problem;
use crate::generation::{Fallback, Retriever};

/// The state of the server.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct StatusAnswer {
    /// The version of the program.
    version: &'static str,
    /// Whether searches are answered.
    ready: bool,
    /// Seconds since the start.
    uptime_seconds: u64,
    /// The live generation; null while starting.
    generation: Option<GenerationBody>,
    /// Documents in the store.
    documents: u64,
    /// Documents in the live index.
    indexed: u64,
    /// The number of the newest write.
    sequence: u64,
    /// Bytes of memory that the index takes.
    index_bytes: u64,
    /// Where the encoder really runs.
    #[schema(example = "cpu")]
    device: String,
    /// The precision it runs in.
    #[schema(example = "fp32")]
    precision: String,
    /// The checkpoint's name.
    #[schema(example = "all-MiniLM-L6-v2")]
    model: String,
    /// Texts waiting for the encoder.
    queue_depth: usize,
    /// Why another generation answers than the one that was made live; null where that one does.
    fallback: Option<FallbackBody>,
}

/// The damage that keeps a generation from answering.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Fallback)]
pub(super) struct FallbackBody {
    /// The generation that should answer; null where the data folder names none.
    #[schema(example = 2)]
    named: Option<u64>,
    /// What is wrong with it, and what to do.
    reason: String,
}

/// The state of the server
#[utoipa::path(get, path = "/admin/status", tag = "admin", responses((status = 200, description = "The state", body = StatusAnswer)))]
pub(super) async fn status(State(app): State<App>) -> Result<Answer<StatusAnswer>, Problem> {
    let status = app.blocking(Retriever::status).await?;
    Ok(Answer::new(StatusAnswer {
        version: env!("CARGO_PKG_VERSION"),
        ready: app.ready(),
        uptime_seconds: app.uptime_seconds(),
        generation: status.generation.map(Into::into),
        documents: status.documents,
        indexed: status.indexed,
        sequence: status.sequence,
        index_bytes: status.index_bytes,
        device: status.device,
        precision: status.precision,
        model: status.model,
        queue_depth: status.queue_depth,
        fallback: status.fallback.map(|Fallback { named, reason }| FallbackBody { named, reason }),
    }))
}
