//! `/admin/generations`: which there are, which is live, and which are removed.

use std::collections::BTreeMap;
use std::time::Duration;

use axum::Extension;
use axum::extract::State;
use serde::Serialize;
use utoipa::ToSchema;

use super::answer::Answer;
use super::app::App;
use super::deadline::Deadline;
use super::parameters::GenerationNumber;
use super::problem::{Problem, Reason};
use crate::generation::{Error, GenerationInfo, Initiator, Removed, Retriever, Standing, SwapReport};

/// A generation: a checkpoint and the index that it made.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Generation)]
pub(super) struct GenerationBody {
    /// 1, 2, 3, …
    number: u64,
    /// The generation that it was trained from; null where its checkpoint came from outside.
    parent: Option<u64>,
    /// RFC 3339, UTC.
    created: String,
    /// The checkpoint's name.
    #[schema(example = "all-MiniLM-L6-v2")]
    model: String,
    /// Documents in its index files.
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
    /// `ready`; `rejected` where it measured worse than the one that was live; `candidate` where its refresh was cut
    /// off before that was known. The last two go live by hand only.
    #[schema(example = "ready")]
    status: &'static str,
    /// Measures by name, as far as they were taken.
    #[schema(example = json!({"nDCG@10": 0.665}))]
    measures: BTreeMap<String, f64>,
    /// What its files take on disk.
    bytes: u64,
}

/// Every generation on disk.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct GenerationsAnswer {
    /// Oldest first.
    generations: Vec<GenerationBody>,
}

/// How a change to another generation went.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Activated)]
pub(super) struct ActivatedAnswer {
    /// The generation that is live now.
    #[schema(example = 3)]
    generation: u64,
    /// The one that was.
    #[schema(example = 2)]
    previous: u64,
    /// `ready`, `candidate` or `rejected`.
    #[schema(example = "ready")]
    status: &'static str,
    /// What is worth knowing about it, such as that it was rejected.
    #[serde(skip_serializing_if = "Option::is_none")]
    note: Option<String>,
    /// Reading, verifying and warming it.
    load_seconds: f64,
    /// Writes and deletions that it had to catch up with.
    caught_up: u64,
    /// How long writes waited at most; searches never do.
    hold_seconds: f64,
    /// How often they did.
    holds: u32,
    /// From the request until it answered searches.
    total_seconds: f64,
}

/// The receipt of a removal.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = RemovedGeneration)]
pub(super) struct RemovedAnswer {
    /// The generation that is gone; its number is not given again.
    removed: u64,
    /// What its files took on disk.
    bytes: u64,
}

impl From<GenerationInfo> for GenerationBody {
    fn from(info: GenerationInfo) -> Self {
        Self {
            number: info.number,
            parent: info.parent,
            created: info.created,
            model: info.model,
            documents: info.documents,
            dimension: info.dimension,
            similarity: info.similarity,
            checkpoint: info.checkpoint,
            live: info.live,
            status: info.status.as_str(),
            measures: info.measures,
            bytes: info.bytes,
        }
    }
}

impl From<SwapReport> for ActivatedAnswer {
    fn from(report: SwapReport) -> Self {
        let SwapReport { number, previous, status, loading, caught_up, longest_hold, holds, total, .. } = report;
        let note = match status {
            Standing::Ready => None,
            Standing::Candidate => Some(format!(
                "generation {number} was never compared with the one that was live: its refresh was cut off"
            )),
            Standing::Rejected => Some(format!(
                "generation {number} was rejected when it was made: it measured worse than the one that was live"
            )),
        };
        let seconds = |time: Duration| time.as_micros() as f64 / 1e6;
        Self {
            generation: number,
            previous,
            status: status.as_str(),
            note,
            load_seconds: seconds(loading),
            caught_up,
            hold_seconds: seconds(longest_hold),
            holds,
            total_seconds: seconds(total),
        }
    }
}

/// The generations on disk
#[utoipa::path(
    get,
    path = "/admin/generations",
    tag = "admin",
    responses((status = 200, description = "Oldest first", body = GenerationsAnswer))
)]
pub(super) async fn list(State(app): State<App>) -> Result<Answer<GenerationsAnswer>, Problem> {
    let generations = app.blocking(Retriever::generations).await?;
    Ok(Answer::new(GenerationsAnswer { generations: generations.into_iter().map(Into::into).collect() }))
}

/// Make a generation live
///
/// It is loaded and warmed beside the live one, catches up with the documents, and takes over between two writes; no
/// request is refused for it. The answer comes when it is live. An older number is a roll-back. A rejected generation is
/// taken too, and the answer says that it was rejected.
#[utoipa::path(
    post,
    path = "/admin/generations/{number}/activate",
    tag = "admin",
    params(("number" = u64, Path, description = "The generation's number")),
    responses(
        (status = 200, description = "It is live", body = ActivatedAnswer),
        (status = 404, description = "No such generation", body = super::openapi::ProblemDetails,
            content_type = "application/problem+json"),
        (status = 409, description = "It is live already, the job that runs is measuring it, it cannot be loaded, it cannot keep \
            up with the writes, or another one is being made live or removed; the live one stays live", body = super::openapi::ProblemDetails,
            content_type = "application/problem+json"),
        (status = 507, description = "No room to write; the live one stays live", body = super::openapi::ProblemDetails,
            content_type = "application/problem+json")
    )
)]
pub(super) async fn activate(
    State(app): State<App>,
    Extension(deadline): Extension<Deadline>,
    GenerationNumber(number): GenerationNumber,
) -> Result<Answer<ActivatedAnswer>, Problem> {
    if let Some(refresh) = app.refresh() {
        refresh.refuse_activation(number)?;
    }
    let report = deadline.without_end(app.retriever()?.activate(number, Initiator::Person)).await;
    Ok(Answer::from_generation(number, report.map_err(refusal)?.into()))
}

/// Remove a generation from the disk
///
/// Its number is not given again.
#[utoipa::path(
    delete,
    path = "/admin/generations/{number}",
    tag = "admin",
    params(("number" = u64, Path, description = "The generation's number")),
    responses(
        (status = 200, description = "It is gone", body = RemovedAnswer),
        (status = 404, description = "No such generation", body = super::openapi::ProblemDetails,
            content_type = "application/problem+json"),
        (status = 409, description = "It is live, the job that runs needs it, or one is being made live or removed",
            body = super::openapi::ProblemDetails, content_type = "application/problem+json")
    )
)]
pub(super) async fn remove(
    State(app): State<App>,
    GenerationNumber(number): GenerationNumber,
) -> Result<Answer<RemovedAnswer>, Problem> {
    if let Some(refresh) = app.refresh() {
        refresh.refuse_removal(number)?;
    }
    let Removed { number, bytes } = app.retriever()?.remove(number).await?;
    Ok(Answer::new(RemovedAnswer { removed: number, bytes }))
}

/// What is wrong with a generation is told: who asks has the admin key.
fn refusal(error: Error) -> Problem {
    match error {
        Error::Damaged(reason) => Problem::new(Reason::UnsoundGeneration, reason),
        other => other.into(),
    }
}
