//! Bodies in: bounded, of the right type, and every fault named with its place.

use axum::body::{Body, BodyDataStream, Bytes};
use axum::extract::{FromRequest, Request};
use axum::http::{HeaderMap, header};
use bytes::BytesMut;
use futures_util::StreamExt;
use serde::de::DeserializeOwned;

use super::app::App;
use super::pace::TooSlow;
use super::problem::{Problem, Reason, shortened};

/// Bytes read past a refused body at most, so that a client which is still sending gets to read the refusal.
const MOST_DISCARDED: usize = 64 << 20;

/// Characters of a name that a detail repeats at most.
const NAME_CHARS: usize = 100;

/// A JSON object as a body.
#[derive(Debug)]
pub(super) struct JsonBody<T>(pub(super) T);

impl<T: DeserializeOwned> FromRequest<App> for JsonBody<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, app: &App) -> Result<Self, Problem> {
        let kind = MediaType::of(request.headers())?;
        if kind != MediaType::Json {
            return Err(unsupported("the body's type must be application/json"));
        }
        // It is there already, and was let in.
        let bytes = read(request.into_body(), app.settings().max_body_bytes, |_| Ok(())).await?;
        parse(&bytes).map(Self)
    }
}

/// The body types that some route takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum MediaType {
    Json,
    NdJson,
}

impl MediaType {
    /// What the headers say about the body.
    pub(super) fn of(headers: &HeaderMap) -> Result<Self, Problem> {
        let text = |name| headers.get(name).map(|value| value.to_str().unwrap_or_default().trim().to_ascii_lowercase());
        if text(header::CONTENT_ENCODING).is_some_and(|encoding| encoding != "identity") {
            return Err(unsupported("compressed bodies are not taken; send the body without Content-Encoding"));
        }
        let Some(value) = text(header::CONTENT_TYPE) else {
            return Err(unsupported("Content-Type is missing; send application/json"));
        };
        match value.split(';').next().unwrap_or_default().trim() {
            "application/json" => Ok(Self::Json),
            "application/x-ndjson" | "application/ndjson" | "application/jsonl" => Ok(Self::NdJson),
            kind if kind.starts_with("application/") && kind.ends_with("+json") => Ok(Self::Json),
            kind => Err(unsupported(format!("`{kind}` is not taken here; send application/json"))),
        }
    }
}

pub(super) fn unsupported(detail: impl Into<String>) -> Problem {
    Problem::new(Reason::UnsupportedMediaType, detail)
}

pub(super) fn too_large(what: &str, limit: usize) -> Problem {
    Problem::new(Reason::BodyTooLarge, format!("{what} is larger than {limit} bytes (max_body_bytes)"))
        .with("limit", limit)
}

pub(super) fn broken(error: impl std::error::Error + 'static) -> Problem {
    match TooSlow::caused(&error) {
        Some(slow) => Problem::new(Reason::TooSlow, format!("the body is given up: {slow}")),
        None => Problem::new(Reason::MalformedRequest, format!("the body broke off: {error}")),
    }
}

/// The whole body, `limit` bytes at most; `room` is asked for each part.
pub(super) async fn read(
    body: Body,
    limit: usize,
    mut room: impl FnMut(usize) -> Result<(), Problem>,
) -> Result<Bytes, Problem> {
    let mut bytes = BytesMut::new();
    let mut chunks = body.into_data_stream();
    while let Some(chunk) = chunks.next().await {
        let chunk = chunk.map_err(broken)?;
        let taken = match chunk.len() > limit - bytes.len() {
            true => Err(too_large("the body", limit)),
            false => room(chunk.len()),
        };
        if let Err(problem) = taken {
            drop((bytes, chunk));
            discard(chunks).await;
            return Err(problem);
        }
        // A body in one part stays where it is.
        match bytes.is_empty() {
            true => bytes = chunk.into(),
            false => bytes.extend_from_slice(&chunk),
        }
    }
    Ok(bytes.freeze())
}

async fn discard(mut chunks: BodyDataStream) {
    let mut discarded = 0;
    while let Some(Ok(chunk)) = chunks.next().await {
        discarded += chunk.len();
        if discarded > MOST_DISCARDED {
            return;
        }
    }
}

/// Reads one JSON object.
pub(super) fn parse<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, Problem> {
    let mut reader = serde_json::Deserializer::from_slice(bytes);
    // A list would pass for an object whose fields come in order.
    if bytes.trim_ascii_start().first() == Some(&b'[') {
        return match serde_json::from_slice::<serde::de::IgnoredAny>(bytes) {
            Ok(_) => Err(Problem::new(Reason::InvalidField, "a list, expected an object")),
            Err(error) => Err(refusal(".", &error)),
        };
    }
    let value = serde_path_to_error::deserialize(&mut reader)
        .map_err(|error| refusal(&error.path().to_string(), error.inner()))?;
    reader.end().map_err(|error| refusal(".", &error))?;
    Ok(value)
}

fn refusal(path: &str, error: &serde_json::Error) -> Problem {
    let (line, column) = (error.line(), error.column());
    let text = error.to_string();
    let text = text.strip_suffix(&format!(" at line {line} column {column}")).unwrap_or(&text);
    if !error.is_data() {
        return Problem::new(Reason::MalformedJson, format!("{text} at line {line}, column {column}"))
            .with("line", line)
            .with("column", column);
    }
    field_refusal(path, text)
}

/// A value that does not fit its field, in serde's words.
pub(super) fn field_refusal(path: &str, text: &str) -> Problem {
    let Some(rest) = text.strip_prefix("unknown field `") else {
        return match path {
            "." | "" => Problem::new(Reason::InvalidField, text),
            path => Problem::field(path, text),
        };
    };
    let (name, expected) = rest.split_once('`').unwrap_or((rest, ""));
    // Where the path ends with the name itself, of any length, the rule comes before it.
    let parent = path.strip_suffix(name).filter(|parent| parent.is_empty() || parent.ends_with('.'));
    let parent = parent.unwrap_or(path).trim_end_matches('.');
    let place = if parent.is_empty() { String::new() } else { format!("{}: ", shortened(parent, NAME_CHARS)) };
    let detail = format!("{place}unknown field `{}`{expected}", shortened(name, NAME_CHARS));
    let field = if parent.is_empty() { name.to_owned() } else { format!("{parent}.{name}") };
    Problem::new(Reason::UnknownField, detail).at(&field)
}
