//! `/feedback`: what users think of what they found.

use axum::extract::State;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::answer::Answer;
use super::app::App;
use super::body::JsonBody;
use super::documents::unknown;
use super::problem::Problem;
use crate::corpus::{Feedback, FeedbackOutcome, Grade, Split};

/// A vote on a document as an answer to a query.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, expecting = "an object")]
pub(super) struct FeedbackBody {
    /// What was asked. White space is folded: trimmed, and every run of it one space.
    #[schema(min_length = 1, example = "find files larger than 10 megabytes")]
    query: String,
    /// The document's id.
    #[schema(min_length = 1, max_length = 500, example = "c01905")]
    id: String,
    /// 0 is not relevant (thumb down), 1 to 3 are relevant, higher is more.
    #[schema(minimum = 0, maximum = 3, example = 1)]
    grade: i64,
    /// The sender's earlier vote on the same document, whose place this one takes.
    #[schema(minimum = 0, maximum = 3)]
    replaces: Option<i64>,
}

/// Where a query of feedback is.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub(super) enum FeedbackSplit {
    /// The next refresh trains on it.
    Train,
    /// The next refresh measures on it.
    Dev,
}

/// The votes that count: the last 15.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Votes)]
pub(super) struct VotesBody {
    /// Votes of grade 1 and more.
    #[schema(example = 3)]
    up: u64,
    /// Votes of grade 0.
    #[schema(example = 1)]
    down: u64,
}

/// The receipt of feedback: on disk.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = FeedbackReceipt)]
pub(super) struct FeedbackAnswer {
    /// The query that the judgment belongs to.
    #[schema(example = "feedback-1f0c7a6f3f0be0d2")]
    query_id: String,
    /// Null where files measure on this text: the votes are kept and make no judgment.
    #[schema(required = true)]
    split: Option<FeedbackSplit>,
    /// What the document is judged to be for the query now; null where there is no judgment.
    #[schema(required = true, example = 1)]
    grade: Option<i32>,
    votes: VotesBody,
}

/// Say whether a document answers a query
///
/// Makes a judgment that the next refresh trains on or measures with. It comes from search pages, so the search key
/// is enough. When the answer comes, the vote is on disk.
///
/// - **Query.** The same text but for white space is one query, `feedback-` and the start of its sha256.
/// - **Grade.** The last 15 votes on a document for a query decide, whoever cast them: relevant where more are above 0
///   than are 0, with the middle grade of those above 0 (of two, the lower); not relevant (0) where fewer are; no
///   judgment where they are even. Every vote counts, an exact repetition too; `replaces` changes one's mind.
/// - **Split.** A share of the queries, `feedback_dev_share`, is kept aside for dev, drawn by the text; the rest is
///   train, none is test. A query stays where it is.
/// - **Files come first.** A text that files judge in dev or test, whatever its case, gets no judgment from feedback.
///   Where they judge it in train only, feedback adds to their query, and their grade of the same document holds.
/// - **A deleted document** takes its judgments with it.
#[utoipa::path(
    post,
    path = "/feedback",
    tag = "search",
    request_body = FeedbackBody,
    responses(
        (status = 200, description = "The vote is kept", body = FeedbackAnswer),
        (status = 404, description = "No such document", body = super::openapi::ProblemDetails,
            content_type = "application/problem+json"),
        (status = 507, description = "No room to write", body = super::openapi::ProblemDetails,
            content_type = "application/problem+json")
    )
)]
pub(super) async fn post(
    State(app): State<App>,
    JsonBody(body): JsonBody<FeedbackBody>,
) -> Result<Answer<FeedbackAnswer>, Problem> {
    let settings = app.settings();
    let (most, dev_share) = (settings.max_query_chars, settings.feedback_dev_share);
    if body.query.trim().is_empty() {
        return Err(Problem::field("query", "empty; give the text that was asked"));
    }
    if body.query.chars().nth(most).is_some() {
        return Err(Problem::field("query", format_args!("longer than {most} characters (max_query_chars)")));
    }
    if body.id.is_empty() {
        return Err(Problem::field("id", "empty; give a document's id"));
    }
    let grade = graded("grade", body.grade)?;
    let replaces = body.replaces.map(|replaced| graded("replaces", replaced)).transpose()?;
    let missing = unknown(&body.id);
    let feedback = Feedback { query: body.query, document: body.id, grade, replaces };
    let outcome = app.blocking(move |retriever| retriever.store().write_feedback(&feedback, dev_share)).await?;
    let FeedbackOutcome { query, split, grade, votes } = outcome.ok_or(missing)?;
    app.metrics().feedback.inc();
    let split = split.map(|split| if split == Split::Dev { FeedbackSplit::Dev } else { FeedbackSplit::Train });
    Ok(Answer::new(FeedbackAnswer {
        query_id: query,
        split,
        grade,
        votes: VotesBody { up: votes.up, down: votes.down },
    }))
}

fn graded(field: &str, number: i64) -> Result<Grade, Problem> {
    Grade::new(number).ok_or_else(|| {
        Problem::field(field, format_args!("{number}; give 0 (not relevant) or 1 to 3 (relevant, higher is more)"))
    })
}
