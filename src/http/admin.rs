//! What operators and the web page ask about the server.

use axum::extract::State;
use serde::Serialize;
use utoipa::ToSchema;

use super::answer::Answer;
use super::app::App;
use super::problem::Problem;
use crate::generation::{GenerationInfo, Retriever};

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
}

/// A generation: a checkpoint and the index that it made.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Generation)]
pub(super) struct GenerationBody {
    /// 1, 2, 3, …
    number: u64,
    /// RFC 3339, UTC.
    created: String,
    /// Documents in its index.
    documents: u64,
    /// Components of a vector.
    dimension: usize,
    /// How vectors are compared.
    #[schema(example = "cosine")]
    similarity: String,
    /// The checkpoint's sha256 in hexadecimal.
    checkpoint: String,
    /// Whether it answers now.
    live: bool,
}

/// Every generation on disk.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct GenerationsAnswer {
    /// Oldest first.
    generations: Vec<GenerationBody>,
}

impl From<GenerationInfo> for GenerationBody {
    fn from(info: GenerationInfo) -> Self {
        let GenerationInfo { number, created, documents, dimension, similarity, checkpoint, live } = info;
        Self { number, created, documents, dimension, similarity, checkpoint, live }
    }
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
    }))
}

/// The generations on disk
#[utoipa::path(
    get,
    path = "/admin/generations",
    tag = "admin",
    responses((status = 200, description = "Oldest first", body = GenerationsAnswer))
)]
pub(super) async fn generations(State(app): State<App>) -> Result<Answer<GenerationsAnswer>, Problem> {
    let generations = app.blocking(Retriever::generations).await?;
    Ok(Answer::new(GenerationsAnswer { generations: generations.into_iter().map(Into::into).collect() }))
}
