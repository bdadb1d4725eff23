//! `GET /admin/refresh`: what a refresh would do, and why none can start.

use axum::extract::State;
use serde::Serialize;
use utoipa::ToSchema;

use super::answer::Answer;
use super::app::App;
use super::problem::{Problem, Reason};
use crate::ance::Plan;
use crate::settings::RecipeChoice;

/// A refresh that is started with an empty body.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Outlook)]
pub(super) struct OutlookAnswer {
    /// Why none can start now, as `POST /admin/refresh` would say; null where one can.
    #[schema(example = "0 train queries with a positive, at least 32 are needed: send feedback or import judgments")]
    refused: Option<String>,
    /// The server's recipe.
    #[schema(value_type = String, example = "default")]
    recipe: RecipeChoice,
    /// Rounds; null where the server's settings cannot be.
    #[schema(example = 3)]
    rounds: Option<u64>,
    /// Steps a round; null where the server's settings cannot be.
    #[schema(example = 100)]
    steps: Option<u64>,
    /// Queries with a relevant document, to train on.
    train_queries: u64,
    /// Those to measure with between rounds.
    dev_queries: u64,
}

/// What a refresh would do
///
/// Nothing is started.
#[utoipa::path(
    get,
    path = "/admin/refresh",
    tag = "admin",
    responses((status = 200, description = "The server's settings, what there is to learn from, and why none can start", body = OutlookAnswer))
)]
pub(super) async fn read(State(app): State<App>) -> Result<Answer<OutlookAnswer>, Problem> {
    let settings = app.settings().clone();
    let recipe = settings.recipe;
    let plan = Plan::from_settings(&settings).ok();
    let (queries, check) =
        app.refreshing(move |refresh| Ok((refresh.answered_queries()?, refresh.check(&settings)))).await?;
    let refused = match check.map_err(Problem::from) {
        Ok(_) => None,
        Err(problem) if problem.reason == Reason::Internal => return Err(problem),
        Err(problem) => Some(problem.detail),
    };
    Ok(Answer::new(OutlookAnswer {
        refused,
        recipe,
        rounds: plan.as_ref().map(|plan| plan.rounds),
        steps: plan.as_ref().map(|plan| plan.recipe.schedule.steps / plan.rounds.max(1)),
        train_queries: queries.train,
        dev_queries: queries.dev,
    }))
}
