//! What a handler answers with: JSON and the generation that it came from.

use axum::http::{HeaderValue, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;

use super::problem::Problem;

/// The generation that answered, for the access log.
#[derive(Debug, Clone, Copy)]
pub(super) struct AnsweredBy(pub(super) u64);

/// A JSON body with status 200.
#[derive(Debug)]
pub(super) struct Answer<T> {
    body: T,
    generation: Option<u64>,
}

impl<T: Serialize> Answer<T> {
    pub(super) fn new(body: T) -> Self {
        Self { body, generation: None }
    }

    pub(super) fn from_generation(generation: u64, body: T) -> Self {
        Self { body, generation: Some(generation) }
    }
}

impl<T: Serialize> IntoResponse for Answer<T> {
    fn into_response(self) -> Response {
        let bytes = match serde_json::to_vec(&self.body) {
            Ok(bytes) => bytes,
            Err(error) => return Problem::internal(error).into_response(),
        };
        let mut response =
            ([(header::CONTENT_TYPE, HeaderValue::from_static("application/json"))], bytes).into_response();
        if let Some(generation) = self.generation {
            response.extensions_mut().insert(AnsweredBy(generation));
        }
        response
    }
}
