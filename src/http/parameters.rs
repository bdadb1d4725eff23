//! Parameters of the query string and the path.

use axum::extract::rejection::{PathRejection, QueryRejection};
use axum::extract::{FromRequestParts, Path, Query};
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

/// The document's id in the path, percent-decoded.
#[derive(Debug)]
pub(super) struct DocumentId(pub(super) String);

impl<S: Send + Sync> FromRequestParts<S> for DocumentId {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        match Path::from_request_parts(parts, state).await {
            Ok(Path(id)) => Ok(Self(id)),
            // A document may have the name of the route `/documents/delete`.
            Err(PathRejection::MissingPathParams(_)) => Ok(Self("delete".into())),
            Err(rejection) => Err(Problem::new(Reason::MalformedRequest, rejection.body_text())),
        }
    }
}
