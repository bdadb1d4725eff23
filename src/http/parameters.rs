//! Parameters of the query string and the path.

use axum::extract::rejection::QueryRejection;
use axum::extract::{FromRequestParts, Query, RawPathParams};
use axum::http::request::Parts;
use serde::de::DeserializeOwned;

use super::body::field_refusal;
use super::problem::{Problem, Reason};

/// The query string; unknown parameters are refused by name.
#[derive(Debug)]
pub(super) struct Parameters<T>(pub(super) T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequestParts<S> for Parameters<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        match Query::from_request_parts(parts, state).await {
            Ok(Query(parameters)) => Ok(Self(parameters)),
            Err(rejection) => Err(refusal(&rejection)),
        }
    }
}

fn refusal(rejection: &QueryRejection) -> Problem {
    let text = rejection.body_text();
    let text = text.strip_prefix("Failed to deserialize query string: ").unwrap_or(&text);
    match text.split_once(": ") {
        Some((path, rule)) => field_refusal(path, rule),
        None => field_refusal("", text),
    }
}

/// The generation's number in the path.
#[derive(Debug)]
pub(super) struct GenerationNumber(pub(super) u64);

impl<S: Send + Sync> FromRequestParts<S> for GenerationNumber {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let parameters = RawPathParams::from_request_parts(parts, state).await;
        let parameters =
            parameters.map_err(|rejection| Problem::new(Reason::MalformedRequest, rejection.body_text()))?;
        let text = parameters.iter().find_map(|(name, value)| (name == "number").then_some(value)).unwrap_or_default();
        let rule = || Problem::field("number", format_args!("`{text}` is not the number of a generation: 1, 2, 3, …"));
        text.parse().map(Self).map_err(|_| rule())
    }
}

/// The job's id in the path.
#[derive(Debug)]
pub(super) struct JobId(pub(super) String);

impl<S: Send + Sync> FromRequestParts<S> for JobId {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let parameters = RawPathParams::from_request_parts(parts, state).await;
        let parameters =
            parameters.map_err(|rejection| Problem::new(Reason::MalformedRequest, rejection.body_text()))?;
        let id = parameters.iter().find_map(|(name, value)| (name == "id").then_some(value));
        Ok(Self(id.unwrap_or_default().to_owned()))
    }
}

/// The document's id in the path, percent-decoded.
#[derive(Debug)]
pub(super) struct DocumentId(pub(super) String);

impl<S: Send + Sync> FromRequestParts<S> for DocumentId {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let parameters = RawPathParams::from_request_parts(parts, state).await;
        let parameters =
            parameters.map_err(|rejection| Problem::new(Reason::MalformedRequest, rejection.body_text()))?;
        let id = parameters.iter().find_map(|(name, value)| (name == "id").then_some(value));
        // A document may have the name of the route `/documents/delete`, which has no parameter.
        Ok(Self(id.unwrap_or("delete").to_owned()))
    }
}
