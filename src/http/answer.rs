//! What a handler answers with: JSON and the generation that it came from.

use std::io;

use axum::http::{HeaderValue, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;

use super::account::Searched;
use super::problem::{Problem, Reason};

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
    most: usize,
}

impl<T: Serialize> Answer<T> {
    pub(super) fn new(body: T) -> Self {
        Self { body, by: None, most: usize::MAX }
    }

    pub(super) fn from_generation(generation: u64, body: T) -> Self {
        Self { by: Some(AnsweredBy { generation, searched: None }), ..Self::new(body) }
    }

    pub(super) fn from_search(generation: u64, searched: Searched, body: T) -> Self {
        Self { by: Some(AnsweredBy { generation, searched: Some(searched) }), ..Self::new(body) }
    }

    /// Refuses where the body would have more bytes than this.
    pub(super) fn at_most(self, most: usize) -> Self {
        Self { most, ..self }
    }
}

impl<T: Serialize> IntoResponse for Answer<T> {
    fn into_response(self) -> Response {
        let mut bounded = Bounded { bytes: Vec::new(), most: self.most };
        if let Err(error) = serde_json::to_writer(&mut bounded, &self.body) {
            let problem = if error.is_io() { too_much(self.most) } else { Problem::internal(error) };
            return problem.into_response();
        }
        let bytes = bounded.bytes;
        let mut response =
            ([(header::CONTENT_TYPE, HeaderValue::from_static("application/json"))], bytes).into_response();
        if let Some(by) = self.by {
            response.extensions_mut().insert(by);
        }
        response
    }
}

fn too_much(most: usize) -> Problem {
    let detail = format!(
        "the answer has more than {most} bytes (max_answer_bytes): ask for fewer hits (k), fewer queries, or less of each \
         hit (include)"
    );
    Problem::new(Reason::InvalidField, detail).with("limit", most)
}

/// Bytes that are not written beyond a limit; nothing else can fail.
struct Bounded {
    bytes: Vec<u8>,
    most: usize,
}

impl io::Write for Bounded {
    fn write(&mut self, more: &[u8]) -> io::Result<usize> {
        if more.len() > self.most - self.bytes.len() {
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        self.bytes.extend_from_slice(more);
        Ok(more.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use axum::http::StatusCode;

    use super::*;

    #[test]
    fn an_answer_of_the_limit_passes_and_one_byte_more_does_not() {
        let status = |most: usize| Answer::new("12345678").at_most(most).into_response().status();
        assert_eq!(
            (status(10), status(9), status(0)),
            (StatusCode::OK, too_much(9).reason.status(), too_much(0).reason.status())
        );
    }
}
