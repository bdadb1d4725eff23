//! `/v1`: embeddings in OpenAI's shape, so that its clients work unchanged.

use axum::extract::State;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use utoipa::ToSchema;

use super::answer::Answer;
use super::app::App;
use super::body::JsonBody;
use super::embed::{Kind, encode};
use super::problem::Problem;
use crate::generation::{Embedded, Retriever};

/// A request for embeddings.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, expecting = "an object")]
pub(super) struct EmbeddingsBody {
    /// A text or a list of texts; token ids are not taken.
    #[schema(value_type = TextOrTexts)]
    input: Value,
    /// Any name: the live checkpoint answers, and the answer's `model` names it.
    #[schema(example = "all-MiniLM-L6-v2")]
    #[allow(dead_code)]
    model: String,
    /// `float` by default.
    encoding_format: Option<EncodingFormat>,
    /// The checkpoint's own dimension, or absent.
    #[schema(minimum = 1)]
    dimensions: Option<usize>,
    /// Taken and ignored.
    #[allow(dead_code)]
    user: Option<String>,
    /// Which side of the encoder the texts are for, an extension of ours; `passage` by default.
    kind: Option<Kind>,
}

/// A text or several.
#[derive(Debug, Serialize, ToSchema)]
#[serde(untagged)]
#[allow(dead_code)] // describes `input` in the OpenAPI document
pub(super) enum TextOrTexts {
    /// One text.
    Text(String),
    /// Several texts.
    Texts(Vec<String>),
}

/// How a vector is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub(super) enum EncodingFormat {
    /// A list of numbers.
    Float,
    /// Base64 of little-endian 32-bit floats.
    Base64,
}

/// Embeddings.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct EmbeddingsAnswer {
    /// Always `list`.
    object: &'static str,
    data: Vec<Embedding>,
    /// The checkpoint that answered.
    model: String,
    usage: Usage,
}

/// One embedding.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Embedding {
    /// Always `embedding`.
    object: &'static str,
    /// The position of its text.
    index: usize,
    embedding: Vector,
}

/// A vector as it was asked for.
#[derive(Debug, Serialize, ToSchema)]
#[serde(untagged)]
pub(super) enum Vector {
    /// A list of numbers.
    Numbers(Vec<f32>),
    /// Base64 of little-endian 32-bit floats.
    Base64(String),
}

/// What it cost.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Usage {
    prompt_tokens: usize,
    total_tokens: usize,
}

/// The models that answer.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Models {
    /// Always `list`.
    object: &'static str,
    data: Vec<Model>,
}

/// A model.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Model {
    /// The checkpoint's name.
    id: String,
    /// Always `model`.
    object: &'static str,
    /// Unix seconds.
    created: i64,
    /// Always `anced`.
    owned_by: &'static str,
}

/// Embeddings in OpenAI's shape
#[utoipa::path(
    post,
    path = "/v1/embeddings",
    tag = "embeddings",
    request_body = EmbeddingsBody,
    responses((status = 200, description = "One embedding a text", body = EmbeddingsAnswer))
)]
pub(super) async fn embeddings(
    State(app): State<App>,
    JsonBody(body): JsonBody<EmbeddingsBody>,
) -> Result<Answer<EmbeddingsAnswer>, Problem> {
    let texts = texts(body.input)?;
    let embedded = encode(&app, "input", texts, body.kind.unwrap_or(Kind::Passage)).await?;
    // Of the generation that answered: another may have become live since the request came.
    check_dimensions(body.dimensions, &embedded)?;
    let written = |vector: Vec<f32>| match body.encoding_format.unwrap_or(EncodingFormat::Float) {
        EncodingFormat::Float => Vector::Numbers(vector),
        EncodingFormat::Base64 => Vector::Base64(base64_of(&vector)),
    };
    let vectors = embedded.vectors.into_iter().map(written).enumerate();
    let data = vectors.map(|(index, embedding)| Embedding { object: "embedding", index, embedding }).collect();
    let usage = Usage { prompt_tokens: embedded.tokens, total_tokens: embedded.tokens };
    Ok(Answer::from_generation(
        embedded.generation,
        EmbeddingsAnswer { object: "list", data, model: embedded.model, usage },
    ))
}

/// The model that answers
#[utoipa::path(get, path = "/v1/models", tag = "embeddings", responses((status = 200, description = "The live checkpoint", body = Models)))]
pub(super) async fn models(State(app): State<App>) -> Result<Answer<Models>, Problem> {
    let status = app.blocking(Retriever::status).await?;
    let data = status.generation.map(|generation| {
        let created = OffsetDateTime::parse(&generation.created, &Rfc3339).map_or(0, OffsetDateTime::unix_timestamp);
        Model { id: status.model, object: "model", created, owned_by: "anced" }
    });
    Ok(Answer::new(Models { object: "list", data: data.into_iter().collect() }))
}

fn texts(input: Value) -> Result<Vec<String>, Problem> {
    let items = match input {
        Value::String(text) => return Ok(vec![text]),
        Value::Array(items) => items,
        _ => return Err(Problem::field("input", "neither a text nor a list of texts")),
    };
    let text = |(position, item)| match item {
        Value::String(text) => Ok(text),
        Value::Number(_) | Value::Array(_) => {
            Err(Problem::field("input", "token ids are not taken; send the texts themselves"))
        }
        _ => Err(Problem::field(format!("input[{position}]"), "not a text")),
    };
    items.into_iter().enumerate().map(text).collect()
}

fn check_dimensions(asked: Option<usize>, embedded: &Embedded) -> Result<(), Problem> {
    let (Some(asked), Some(own)) = (asked, embedded.vectors.first().map(Vec::len)) else { return Ok(()) };
    if asked == own {
        return Ok(());
    }
    let rule = format_args!(
        "{asked} cannot be had: `{}` gives {own} and vectors are not cut; leave `dimensions` away",
        embedded.model
    );
    Err(Problem::field("dimensions", rule))
}

fn base64_of(vector: &[f32]) -> String {
    let bytes: Vec<u8> = vector.iter().flat_map(|value| value.to_le_bytes()).collect();
    STANDARD.encode(bytes)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn base64_holds_little_endian_floats() {
        assert_eq!(base64_of(&[1.0, -2.5]), "AACAPwAAIMA=");
        assert_eq!(base64_of(&[]), "");
    }

    #[test]
    fn texts_are_a_text_or_a_list_of_texts() {
        assert_eq!(texts(json!("a")).unwrap(), ["a"]);
        assert_eq!(texts(json!(["a", ""])).unwrap(), ["a", ""]);
        for tokens in [json!([1, 2]), json!([[1, 2], [3]])] {
            let problem = texts(tokens).unwrap_err();
            assert!(problem.detail.contains("token ids"), "{}", problem.detail);
        }
        for wrong in [json!(null), json!(3), json!({}), json!([null]), json!(["a", true])] {
            assert!(texts(wrong.clone()).is_err(), "{wrong}");
        }
    }
}
