//! What a handler answers with: JSON and the generation that it came from.

use axum::http::{HeaderValue, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;

use super::account::Searched;
use super::problem::Problem;

/// The generation that answered, and the search that it answered, for the log.
#[derive(Debug, Clone)]
pub(super) struct AnsweredBy {
    pub(super) generation: u64,
    pub(super) searched: Option<Searched>,
}

/// A JSON body with status 200.
#[derive(Debug)]
pub(super) struct Answer<T> {
    body: T,
    by: Option<AnsweredBy>,
}

impl<T: Serialize> Answer<T> {
    pub(super) fn new(body: T) -> Self {
        Self { body, by: None }
    }

    pub(super) fn from_generation(generation: u64, body: T) -> Self {
        Self { body, by: Some(AnsweredBy { generation, searched: None }) }
    }

    pub(super) fn from_search(generation: u64, searched: Searched, body: T) -> Self {
        Self { body, by: Some(AnsweredBy { generation, searched: Some(searched) }) }
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
        if let Some(by) = self.by {
            response.extensions_mut().insert(by);
        }
        response
    }
}
