//! Every refusal: the one table from a reason to a status, and how it is written (RFC 9457, or OpenAI's shape).

use std::collections::BTreeSet;
use std::time::Duration;

use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};

use crate::{corpus, generation};

/// Characters of a detail at most: a message may quote what the client sent.
const DETAIL_CHARS: usize = 500;

/// Why a request was refused or failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reason {
    MalformedRequest,
    MalformedJson,
    Unauthorized,
    UnknownRoute,
    UnknownDocument,
    UnknownGeneration,
    UnknownJob,
    Conflict,
    UnsoundGeneration,
    MethodNotAllowed,
    BodyTooLarge,
    UnsupportedMediaType,
    ForeignOrigin,
    ForeignHost,
    TooSlow,
    TargetTooLong,
    UnknownField,
    InvalidField,
    CannotTrain,
    Internal,
    QueueFull,
    NotReady,
    Stopping,
    Timeout,
    StorageFull,
}

/// The table: reason, status, the last part of the problem's type, its title.
const TABLE: [(Reason, StatusCode, &str, &str); 25] = [
    (Reason::MalformedRequest, StatusCode::BAD_REQUEST, "malformed-request", "The request cannot be read"),
    (Reason::MalformedJson, StatusCode::BAD_REQUEST, "malformed-json", "The body is not JSON"),
    (Reason::Unauthorized, StatusCode::UNAUTHORIZED, "unauthorized", "A key is needed"),
    (Reason::UnknownRoute, StatusCode::NOT_FOUND, "unknown-route", "There is nothing here"),
    (Reason::UnknownDocument, StatusCode::NOT_FOUND, "unknown-document", "No such document"),
    (Reason::UnknownGeneration, StatusCode::NOT_FOUND, "unknown-generation", "No such generation"),
    (Reason::UnknownJob, StatusCode::NOT_FOUND, "unknown-job", "No such job"),
    (Reason::Conflict, StatusCode::CONFLICT, "conflict", "Not as things are now"),
    (Reason::UnsoundGeneration, StatusCode::CONFLICT, "unsound-generation", "The generation cannot be loaded"),
    (Reason::MethodNotAllowed, StatusCode::METHOD_NOT_ALLOWED, "method-not-allowed", "Not with this method"),
    (Reason::BodyTooLarge, StatusCode::PAYLOAD_TOO_LARGE, "body-too-large", "The body is too large"),
    (Reason::UnsupportedMediaType, StatusCode::UNSUPPORTED_MEDIA_TYPE, "unsupported-media-type", "Not in this format"),
    (Reason::ForeignOrigin, StatusCode::FORBIDDEN, "foreign-origin", "Not for pages of other origins"),
    (Reason::ForeignHost, StatusCode::MISDIRECTED_REQUEST, "foreign-host", "Not by this name"),
    (Reason::TooSlow, StatusCode::REQUEST_TIMEOUT, "too-slow", "The request came too slowly"),
    (Reason::TargetTooLong, StatusCode::URI_TOO_LONG, "target-too-long", "The target is too long"),
    (Reason::UnknownField, StatusCode::UNPROCESSABLE_ENTITY, "unknown-field", "A field is unknown"),
    (Reason::InvalidField, StatusCode::UNPROCESSABLE_ENTITY, "invalid-field", "A field breaks a rule"),
    (Reason::CannotTrain, StatusCode::UNPROCESSABLE_ENTITY, "cannot-train", "There is nothing to train on or with"),
    (Reason::Internal, StatusCode::INTERNAL_SERVER_ERROR, "internal", "The server failed"),
    (Reason::QueueFull, StatusCode::SERVICE_UNAVAILABLE, "queue-full", "Too much waits already"),
    (Reason::NotReady, StatusCode::SERVICE_UNAVAILABLE, "not-ready", "The server is not ready"),
    (Reason::Stopping, StatusCode::SERVICE_UNAVAILABLE, "stopping", "The server is stopping"),
    (Reason::Timeout, StatusCode::SERVICE_UNAVAILABLE, "timeout", "The answer took too long"),
    (Reason::StorageFull, StatusCode::INSUFFICIENT_STORAGE, "storage-full", "No room to write"),
];

impl Reason {
    fn row(self) -> (StatusCode, &'static str, &'static str) {
        TABLE
            .iter()
            .find(|row| row.0 == self)
            .map_or((StatusCode::INTERNAL_SERVER_ERROR, "internal", "The server failed"), |row| (row.1, row.2, row.3))
    }

    pub(super) fn status(self) -> StatusCode {
        self.row().0
    }

    /// Every status that a refusal may have, each once.
    pub(super) fn statuses() -> BTreeSet<StatusCode> {
        TABLE.iter().map(|row| row.1).collect()
    }

    /// The label of `rejected_requests_total`, for requests that were turned away unanswered.
    pub(super) fn rejection(self) -> Option<&'static str> {
        match self {
            Self::QueueFull => Some("queue_full"),
            Self::NotReady => Some("not_ready"),
            Self::Stopping => Some("stopping"),
            Self::Timeout => Some("timeout"),
            _ => None,
        }
    }
}

/// A refusal or a failure, on its way to the envelope that writes it.
#[derive(Debug, Clone)]
pub(super) struct Problem {
    pub(super) reason: Reason,
    /// For the client.
    pub(super) detail: String,
    /// The field at fault, as a path into the body.
    pub(super) field: Option<String>,
    /// For the log only.
    pub(super) cause: Option<String>,
    /// Further members of the problem details.
    members: Vec<(&'static str, Value)>,
    retry_after: Option<Duration>,
}

impl Problem {
    pub(super) fn new(reason: Reason, detail: impl Into<String>) -> Self {
        let wait = reason.rejection().map(|_| Duration::from_secs(1));
        Self {
            reason,
            detail: shortened(&detail.into(), DETAIL_CHARS),
            field: None,
            cause: None,
            members: Vec::new(),
            retry_after: wait,
        }
    }

    /// A field that breaks a rule; `rule` reads on after the field's name.
    pub(super) fn field(field: impl AsRef<str>, rule: impl std::fmt::Display) -> Self {
        let field = field.as_ref();
        let place = shortened(field, DETAIL_CHARS / 2);
        Self::new(Reason::InvalidField, format!("{place}: {rule}")).at(field)
    }

    /// Names the field at fault.
    pub(super) fn at(mut self, field: &str) -> Self {
        self.field = Some(shortened(field, DETAIL_CHARS));
        self
    }

    /// A failure of ours: the log gets the cause, the client does not.
    pub(super) fn internal(cause: impl std::fmt::Display) -> Self {
        let detail = "the server failed; its log has the cause beside this request id";
        Self { cause: Some(cause.to_string()), ..Self::new(Reason::Internal, detail) }
    }

    pub(super) fn stopping() -> Self {
        Self::new(Reason::Stopping, "the server is stopping; ask another one, or later")
    }

    /// Adds a member to the problem details.
    pub(super) fn with(mut self, member: &'static str, value: impl Into<Value>) -> Self {
        self.members.push((member, value.into()));
        self
    }

    /// Puts a text before the detail: where the fault lies.
    pub(super) fn within(mut self, place: impl std::fmt::Display) -> Self {
        self.detail = format!("{place}: {}", self.detail);
        self
    }

    /// The body as RFC 9457 has it.
    pub(super) fn details(&self, request_id: &str) -> Value {
        let (status, kind, title) = self.reason.row();
        let mut details = json!({
            "type": format!("urn:anced:problem:{kind}"),
            "title": title,
            "status": status.as_u16(),
            "detail": self.detail,
            "request_id": request_id,
        });
        if let Value::Object(members) = &mut details {
            members.extend(self.field.iter().map(|field| ("field".to_owned(), field.clone().into())));
            members.extend(self.members.iter().map(|(member, value)| ((*member).to_owned(), value.clone())));
        }
        details
    }

    /// The body as OpenAI's clients expect it.
    pub(super) fn openai(&self, request_id: &str) -> Value {
        let (status, kind, _) = self.reason.row();
        let class = match status {
            StatusCode::UNAUTHORIZED => "authentication_error",
            _ if status.is_server_error() => "server_error",
            _ => "invalid_request_error",
        };
        json!({"error": {
            "message": self.detail,
            "type": class,
            "param": self.field,
            "code": kind.replace('-', "_"),
            "request_id": request_id,
        }})
    }
}

/// Leaves the body to the envelope, which knows the request's id and shape.
impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let mut response = self.reason.status().into_response();
        if let Some(wait) = self.retry_after {
            let seconds = wait.as_millis().div_ceil(1000).clamp(1, 3600) as u64;
            response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        if self.reason == Reason::Unauthorized {
            response.headers_mut().insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer realm=\"anced\""));
        }
        response.extensions_mut().insert(self);
        response
    }
}

impl From<generation::Error> for Problem {
    fn from(error: generation::Error) -> Self {
        match error {
            generation::Error::InvalidRequest(detail) => Self::new(Reason::InvalidField, detail),
            generation::Error::NotReady => Self::new(Reason::NotReady, error.to_string()),
            generation::Error::Stopping => Self::new(Reason::Stopping, error.to_string()),
            generation::Error::Overloaded { retry_after } => {
                Self { retry_after: Some(retry_after), ..Self::new(Reason::QueueFull, error.to_string()) }
            }
            generation::Error::UnknownGeneration(_) => Self::new(Reason::UnknownGeneration, error.to_string()),
            generation::Error::AlreadyLive(_)
            | generation::Error::SwapRunning
            | generation::Error::Live(_)
            | generation::Error::NotPassed(_)
            | generation::Error::NotCompared { .. }
            | generation::Error::Overtaken { .. } => Self::new(Reason::Conflict, error.to_string()),
            generation::Error::Corpus(error) => error.into(),
            generation::Error::Io { ref source, .. } if is_full(source) => {
                Self { cause: Some(error.to_string()), ..Self::new(Reason::StorageFull, FULL) }
            }
            other => Self::internal(other),
        }
    }
}

const FULL: &str = "the disk is full or a limit on file size is reached; what was acknowledged is kept";

fn is_full(error: &std::io::Error) -> bool {
    use std::io::ErrorKind::{FileTooLarge, QuotaExceeded, StorageFull};
    matches!(error.kind(), FileTooLarge | QuotaExceeded | StorageFull)
}

impl From<corpus::Error> for Problem {
    fn from(error: corpus::Error) -> Self {
        match error {
            corpus::Error::Document(_) | corpus::Error::Query { .. } => {
                Self::new(Reason::InvalidField, error.to_string())
            }
            corpus::Error::Full { reason, .. } => {
                let detail = format!("{reason}; nothing of this write was kept, all earlier ones were");
                Self { cause: Some(error.to_string()), ..Self::new(Reason::StorageFull, detail) }
            }
            other => Self::internal(other),
        }
    }
}

/// The first `most` characters of a text.
pub(super) fn shortened(text: &str, most: usize) -> String {
    match text.char_indices().nth(most) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Error as IoError, ErrorKind};

    use super::*;

    fn answered(error: generation::Error) -> (u16, String, Problem) {
        let problem = Problem::from(error);
        let response = problem.clone().into_response();
        let wait = response.headers().get(header::RETRY_AFTER).map_or("", |value| value.to_str().unwrap());
        (response.status().as_u16(), wait.to_owned(), problem)
    }

    #[test]
    fn every_reason_is_in_the_table_once_and_kinds_differ() {
        for (position, row) in TABLE.iter().enumerate() {
            assert_eq!(row.0.row(), (row.1, row.2, row.3));
            assert_eq!(TABLE.iter().position(|other| other.2 == row.2), Some(position), "{}", row.2);
        }
        assert_eq!(Reason::StorageFull as usize + 1, TABLE.len(), "a reason without a row");
    }

    #[test]
    fn errors_of_the_retriever_have_their_status() {
        let full = Duration::from_millis(2500);
        assert_eq!(answered(generation::Error::Overloaded { retry_after: full }).1, "3");
        assert_eq!(answered(generation::Error::Overloaded { retry_after: Duration::ZERO }).1, "1");
        assert_eq!(answered(generation::Error::Stopping).0, 503);
        assert_eq!(answered(generation::Error::NotReady).0, 503);
        assert_eq!(answered(generation::Error::InvalidRequest("k: odd".into())).0, 422);
        let io = |kind| generation::Error::Io { path: "/secret/place".into(), source: IoError::from(kind) };
        assert_eq!(answered(io(ErrorKind::StorageFull)).0, 507);
        let (status, _, problem) = answered(io(ErrorKind::PermissionDenied));
        assert_eq!((status, problem.detail.contains("secret")), (500, false));
        assert!(problem.cause.unwrap().contains("/secret/place"));
    }
}
