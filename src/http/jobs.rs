//! `/admin/refresh` and `/admin/jobs`: trainings beside the server.

use std::convert::Infallible;
use std::time::Duration;

use axum::extract::State;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use futures_util::Stream;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::answer::Answer;
use super::app::App;
use super::body::JsonBody;
use super::parameters::JobId;
use super::problem::{Problem, Reason};
use crate::refresh::{Error, Job, Told};
use crate::settings::{LossChoice, Negatives, OptimizerChoice, RecipeChoice, Settings};

/// A comment is sent after so long without an event, so that nobody in between closes the connection.
const KEEP_ALIVE: Duration = Duration::from_secs(15);

macro_rules! refresh_body {
    ($($(#[doc = $doc:literal])+ $(#[schema($($schema:tt)+)])? $key:ident: $type:ty => $wrap:expr;)+) => {
        /// What to train; what is left away is the server's setting, and else the recipe's.
        #[derive(Debug, Clone, Default, Deserialize, ToSchema)]
        #[schema(as = Refresh)]
        #[serde(deny_unknown_fields, default)]
        pub(super) struct RefreshBody {
            $($(#[doc = $doc])+ $(#[schema($($schema)+)])? $key: Option<$type>,)+
        }

        impl RefreshBody {
            /// The server's settings with those of the request over them.
            fn over(self, settings: &Settings) -> Settings {
                let mut settings = settings.clone();
                $(if let Some(value) = self.$key {
                    settings.$key = $wrap(value);
                })+
                settings
            }
        }
    };
}

refresh_body! {
    /// `default` for normalised encoders, `paper` for ANCE as published.
    #[schema(value_type = Option<String>)]
    recipe: RecipeChoice => std::convert::identity;
    /// Rounds: before each, negatives are mined with what was trained so far.
    rounds: u64 => Some;
    /// Optimiser steps a round.
    steps: u64 => Some;
    /// Triples a batch.
    batch: usize => Some;
    /// Batches a step.
    accumulation: usize => Some;
    /// The highest learning rate.
    lr: f32 => Some;
    /// Steps of the warm-up.
    warmup: u64 => Some;
    /// `adamw` or `lamb`.
    #[schema(value_type = Option<String>)]
    optimizer: OptimizerChoice => Some;
    /// The decay of weights.
    weight_decay: f32 => Some;
    /// The largest norm of the gradient.
    clip: f32 => Some;
    /// `in-batch` or `pairwise`.
    #[schema(value_type = Option<String>)]
    loss: LossChoice => Some;
    /// What scores are multiplied by in the loss.
    scale: f32 => Some;
    /// `ance`, `bm25`, `random`, `bm25+random` or `none`.
    #[schema(value_type = Option<String>)]
    negatives: Negatives => Some;
    /// How many of the best documents of a query are candidates for negatives.
    depth: usize => Some;
    /// Candidates that score higher than a query's best positive by more than this are left out.
    margin: f32 => Some;
    /// Candidates that score this share of a query's best positive or more are left out.
    positive_share: f32 => Some;
    /// So many of the best candidates are left out.
    skip: usize => Some;
    /// Candidates kept of each query; 0 keeps all.
    negatives_per_query: usize => Some;
    /// One part in so many of the train queries takes part in a round.
    slices: usize => Some;
    /// Mine before the first round only.
    mine_once: bool => std::convert::identity;
    /// Encode and mine beside training instead of in turn.
    overlap: bool => std::convert::identity;
    /// Tokens after which queries are cut.
    query_tokens: usize => Some;
    /// Tokens after which passages are cut.
    passage_tokens: usize => Some;
    /// Drop what the checkpoint's configuration says.
    dropout: bool => std::convert::identity;
    /// Of every choice by chance.
    seed: u64 => std::convert::identity;
    /// What chooses the best round and decides whether its generation goes live: `nDCG@10`, `MRR@10`, `Recall@100` or
    /// `Recall@1000`.
    measure: String => std::convert::identity;
    /// How much lower than the live generation's the measure may be.
    tolerance: f64 => std::convert::identity;
}

/// The receipt of a refresh.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = StartedJob)]
pub(super) struct StartedAnswer {
    /// The job's id.
    job: String,
}

/// The dev measures of a round's checkpoint.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = RoundMeasures)]
pub(super) struct RoundBody {
    /// 0 for the one that training started from.
    round: u64,
    /// By name.
    #[schema(example = json!({"nDCG@10": 0.665}))]
    measures: std::collections::BTreeMap<String, f64>,
}

/// A refresh: what it was told to do, and how far it is.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Job)]
pub(super) struct JobBody {
    /// Its id.
    id: String,
    /// RFC 3339, UTC.
    created: String,
    /// When its state last changed.
    updated: String,
    /// `running`, `stopped`, `failed`, `rejected`, `done` or `cancelled`.
    #[schema(example = "running")]
    state: &'static str,
    /// Why it is in this state.
    reason: Option<String>,
    /// Whether it can be gone on with.
    resumable: bool,
    /// From 1; 0 before the first.
    round: u64,
    /// encode, mine, train, build, gate, swap; null where it does not run.
    phase: Option<String>,
    /// Steps done, over all rounds.
    step: u64,
    /// Steps there are to do.
    steps: u64,
    /// The loss of the last step.
    loss: Option<f64>,
    /// The dev measures of each round.
    measures: Vec<RoundBody>,
    /// The generation that it made.
    generation: Option<u64>,
    /// How often it was gone on with.
    resumes: u64,
    /// Every setting of the run.
    #[schema(value_type = Object)]
    plan: crate::ance::Plan,
}

/// Every job.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Jobs)]
pub(super) struct JobsAnswer {
    /// Oldest first.
    jobs: Vec<JobBody>,
}

impl From<Job> for JobBody {
    fn from(job: Job) -> Self {
        let measures = job.measures.iter().map(|of| RoundBody { round: of.round, measures: of.measures.clone() });
        Self {
            resumable: job.is_resumable(),
            measures: measures.collect(),
            id: job.id,
            created: job.created,
            updated: job.updated,
            state: job.state.as_str(),
            reason: job.reason,
            round: job.round,
            phase: job.phase,
            step: job.step,
            steps: job.plan.recipe.schedule.steps,
            loss: job.loss,
            generation: job.generation,
            resumes: job.resumes,
            plan: job.plan,
        }
    }
}

/// Train on the judgments
///
/// ANCE rounds in a process beside the server. The best round's generation goes live if it measures no worse than the
/// live one on the dev queries. One refresh runs at a time.
#[utoipa::path(
    post,
    path = "/admin/refresh",
    tag = "admin",
    request_body(content = RefreshBody, example = json!({"rounds": 3, "steps": 200})),
    responses(
        (status = 202, description = "It runs; Location leads to its job", body = StartedAnswer),
        (status = 409, description = "One runs already", body = super::openapi::ProblemDetails, content_type = "application/problem+json"),
        (status = 507, description = "The disk is too small", body = super::openapi::ProblemDetails, content_type = "application/problem+json")
    )
)]
pub(super) async fn start(State(app): State<App>, JsonBody(body): JsonBody<RefreshBody>) -> Result<Response, Problem> {
    let settings = body.over(app.settings());
    accepted(app.refreshing(move |refresh| refresh.start(&settings)).await?)
}

/// The jobs
#[utoipa::path(get, path = "/admin/jobs", tag = "admin", responses((status = 200, description = "Oldest first", body = JobsAnswer)))]
pub(super) async fn list(State(app): State<App>) -> Result<Answer<JobsAnswer>, Problem> {
    let jobs = app.refreshing(|refresh| refresh.jobs()).await?;
    Ok(Answer::new(JobsAnswer { jobs: jobs.into_iter().map(Into::into).collect() }))
}

/// A job
#[utoipa::path(
    get,
    path = "/admin/jobs/{id}",
    tag = "admin",
    params(("id" = String, Path, description = "The job's id")),
    responses(
        (status = 200, description = "What it was told to do, and how far it is", body = JobBody),
        (status = 404, description = "No such job", body = super::openapi::ProblemDetails, content_type = "application/problem+json")
    )
)]
pub(super) async fn read(State(app): State<App>, JobId(id): JobId) -> Result<Answer<JobBody>, Problem> {
    Ok(Answer::new(app.refreshing(move |refresh| refresh.job(&id)).await?.into()))
}

/// What a job tells
///
/// Server-sent events: those that were, then those that come, to the job's end. The header Last-Event-ID leaves out what
/// was heard before.
#[utoipa::path(
    get,
    path = "/admin/jobs/{id}/events",
    tag = "admin",
    params(("id" = String, Path, description = "The job's id")),
    responses(
        (status = 200, description = "`started`, `data`, `phase`, `step`, `measures`, `took`, `done`, `live`, `ended`", body = String, content_type = "text/event-stream"),
        (status = 404, description = "No such job", body = super::openapi::ProblemDetails, content_type = "application/problem+json")
    )
)]
pub(super) async fn events(
    State(app): State<App>,
    JobId(id): JobId,
    headers: HeaderMap,
) -> Result<Sse<impl Stream<Item = Result<Event, Infallible>>>, Problem> {
    let after = headers.get("last-event-id").and_then(|value| value.to_str().ok()?.trim().parse().ok()).unwrap_or(0);
    let events = app.refreshing(move |refresh| refresh.events(&id, after)).await?;
    let stream = futures_util::stream::unfold(events, |mut events| async {
        let told = events.next().await?;
        Some((Ok(event(&told)), events))
    });
    Ok(Sse::new(stream).keep_alive(KeepAlive::new().interval(KEEP_ALIVE)))
}

/// Cancel a job
///
/// One that runs ends soon, with its state kept: it can be gone on with. One that was cut off or cancelled before loses
/// what it keeps on the disk.
#[utoipa::path(
    delete,
    path = "/admin/jobs/{id}",
    tag = "admin",
    params(("id" = String, Path, description = "The job's id")),
    responses(
        (status = 200, description = "The job, which may still be about to end", body = JobBody),
        (status = 404, description = "No such job", body = super::openapi::ProblemDetails, content_type = "application/problem+json"),
        (status = 409, description = "It came to its end already", body = super::openapi::ProblemDetails, content_type = "application/problem+json")
    )
)]
pub(super) async fn cancel(State(app): State<App>, JobId(id): JobId) -> Result<Answer<JobBody>, Problem> {
    Ok(Answer::new(app.refreshing(move |refresh| refresh.cancel(&id)).await?.into()))
}

/// Go on with a job
///
/// One that stopped, failed or was cancelled goes on from what it saved last.
#[utoipa::path(
    post,
    path = "/admin/jobs/{id}/resume",
    tag = "admin",
    params(("id" = String, Path, description = "The job's id")),
    responses(
        (status = 202, description = "It runs; Location leads to it", body = StartedAnswer),
        (status = 404, description = "No such job", body = super::openapi::ProblemDetails, content_type = "application/problem+json"),
        (status = 409, description = "One runs already, this one came to its end, or a generation that it needs was removed", body = super::openapi::ProblemDetails, content_type = "application/problem+json"),
        (status = 507, description = "The disk is too small", body = super::openapi::ProblemDetails, content_type = "application/problem+json")
    )
)]
pub(super) async fn resume(State(app): State<App>, JobId(id): JobId) -> Result<Response, Problem> {
    accepted(app.refreshing(move |refresh| refresh.resume(&id)).await?)
}

fn accepted(job: Job) -> Result<Response, Problem> {
    let place = HeaderValue::try_from(format!("/admin/jobs/{}", job.id)).map_err(Problem::internal)?;
    let mut response = Answer::new(StartedAnswer { job: job.id }).into_response();
    *response.status_mut() = StatusCode::ACCEPTED;
    response.headers_mut().insert(header::LOCATION, place);
    Ok(response)
}

fn event(told: &Told) -> Event {
    let event = Event::default().event(&told.kind).data(&told.json);
    match told.number {
        Some(number) => event.id(number.to_string()),
        None => event,
    }
}

impl From<Error> for Problem {
    fn from(error: Error) -> Self {
        match error {
            Error::Running(ref id) => {
                let job = id.clone();
                Self::new(Reason::Conflict, error.to_string()).with("job", job)
            }
            Error::Needed { ref job, .. } => {
                let job = job.clone();
                Self::new(Reason::Conflict, error.to_string()).with("job", job)
            }
            Error::NotResumable { .. } | Error::Lost { .. } | Error::Ended { .. } => {
                Self::new(Reason::Conflict, error.to_string())
            }
            Error::Unknown(_) => Self::new(Reason::UnknownJob, error.to_string()),
            Error::Refused(reason) => Self::new(Reason::CannotTrain, reason),
            Error::NoRoom { needed, free, .. } => {
                let missing = needed.saturating_sub(free);
                let detail = format!(
                    "the training needs about {needed} bytes on the disk and {free} are free: {missing} are missing; make \
                     room, or train fewer rounds"
                );
                Self::new(Reason::StorageFull, detail).with("missing", missing)
            }
            Error::Stopping => Self::stopping(),
            Error::Corpus(error) => error.into(),
            Error::Generation(error) => error.into(),
            other => Self::internal(other),
        }
    }
}
