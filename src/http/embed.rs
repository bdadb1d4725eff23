//! `/embed`: texts in, vectors out.

use axum::extract::State;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::answer::Answer;
use super::app::App;
use super::body::JsonBody;
use super::problem::Problem;
use crate::encoder::Side;
use crate::generation::Embedded;

/// Which side of the encoder a text is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub(super) enum Kind {
    /// What a user asks.
    Query,
    /// What is found.
    Passage,
}

impl From<Kind> for Side {
    fn from(kind: Kind) -> Self {
        match kind {
            Kind::Query => Self::Query,
            Kind::Passage => Self::Passage,
        }
    }
}

/// Texts to encode.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, expecting = "an object")]
pub(super) struct EmbedBody {
    /// At least one; an empty text is allowed.
    #[schema(min_items = 1)]
    texts: Vec<String>,
    kind: Kind,
}

/// Vectors.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct EmbedAnswer {
    /// The generation whose encoder answered.
    generation: u64,
    /// One a text, in the order of the texts.
    vectors: Vec<Vec<f32>>,
    /// Tokens read, special ones included.
    tokens: usize,
}

/// Encode texts
///
/// The vectors are those that searches compare, so they are normalised where the checkpoint normalises.
#[utoipa::path(
    post,
    path = "/embed",
    tag = "embeddings",
    request_body = EmbedBody,
    responses((status = 200, description = "One vector a text", body = EmbedAnswer))
)]
pub(super) async fn post(
    State(app): State<App>,
    JsonBody(body): JsonBody<EmbedBody>,
) -> Result<Answer<EmbedAnswer>, Problem> {
    let Embedded { generation, vectors, tokens, .. } = encode(&app, "texts", body.texts, body.kind).await?;
    Ok(Answer::from_generation(generation, EmbedAnswer { generation, vectors, tokens }))
}

/// The path that every embedding takes.
pub(super) async fn encode(app: &App, field: &str, texts: Vec<String>, kind: Kind) -> Result<Embedded, Problem> {
    let most = app.settings().max_batch;
    if texts.is_empty() {
        return Err(Problem::field(field, "empty; give at least one text"));
    }
    if texts.len() > most {
        return Err(Problem::field(field, format_args!("{} texts, at most {most} (max_batch)", texts.len())));
    }
    Ok(app.retriever()?.embed(texts, kind.into()).await?)
}
