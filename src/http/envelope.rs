//! What surrounds every request: its id, what is told of it, the metrics, and the writing of problems.

use std::time::Instant;

use axum::body::Body;
use axum::extract::{MatchedPath, Request, State};
use axum::http::{HeaderValue, Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::Response;
use serde_json::Value;

use super::account::Account;
use super::answer::AnsweredBy;
use super::app::App;
use super::problem::{Problem, Reason};
use super::request_id::{self, RequestId};
use super::router::known_path;

/// The status under which a request counts that nobody waited for, as nginx has it.
pub(super) const CLIENT_GONE: &str = "499";

/// Runs a request and completes its answer.
pub(super) async fn envelope(State(app): State<App>, request: Request, next: Next) -> Response {
    let started = Instant::now();
    let id = RequestId::of(request.headers());
    let method = request.method().clone();
    let route = label(request.extensions().get::<MatchedPath>());
    let openai = request.uri().path().starts_with("/v1/");
    let method = method_label(&method);
    let parent = app.traces().map(|traces| traces.parent(request.headers()));
    let gone = Gone { app: &app, id: &id, method, route, started };

    let mut response = next.run(request).await;
    std::mem::forget(gone);

    let problem = problem_of(&mut response);
    if let Some(problem) = &problem {
        let (kind, body) = match openai {
            true => ("application/json", problem.openai(id.as_str())),
            false => ("application/problem+json", problem.details(id.as_str())),
        };
        write(&mut response, kind, &body);
        if let Some(reason) = problem.reason.rejection() {
            app.metrics().rejected_requests.with_label_values(&[reason]).inc();
        }
    }
    if let Some(value) = id.header() {
        response.headers_mut().insert(request_id::HEADER, value);
    }
    response.headers_mut().insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));

    let elapsed = started.elapsed();
    let status = response.status();
    app.metrics().http_requests.with_label_values(&[route, method, status.as_str()]).inc();
    app.metrics().http_request_duration.with_label_values(&[route]).observe(elapsed.as_secs_f64());

    let answered = response.extensions().get::<AnsweredBy>();
    let (parent, problem) = (parent.as_ref(), problem.as_ref());
    let (id, status) = (id.as_str(), status.as_u16());
    Account { id, method, route, status, started, elapsed, parent, answered, problem }.tell(&app);
    response
}

/// Counts and logs a request whose client left before its answer: its future is dropped, and this with it.
struct Gone<'a> {
    app: &'a App,
    id: &'a RequestId,
    method: &'static str,
    route: &'static str,
    started: Instant,
}

impl Drop for Gone<'_> {
    fn drop(&mut self) {
        let Self { app, id, method, route, started } = self;
        app.metrics().http_requests.with_label_values(&[route, method, CLIENT_GONE]).inc();
        let duration_ms = started.elapsed().as_micros() as f64 / 1e3;
        tracing::info!(request_id = id.as_str(), method, route, status = CLIENT_GONE, duration_ms, "client gone");
    }
}

/// The problem that a handler left, or one for a bare error status that a library answered with.
fn problem_of(response: &mut Response) -> Option<Problem> {
    if let Some(problem) = response.extensions_mut().remove::<Problem>() {
        return Some(problem);
    }
    let reason = match response.status() {
        StatusCode::NOT_FOUND => Reason::UnknownRoute,
        StatusCode::METHOD_NOT_ALLOWED => Reason::MethodNotAllowed,
        StatusCode::PAYLOAD_TOO_LARGE => Reason::BodyTooLarge,
        StatusCode::UNSUPPORTED_MEDIA_TYPE => Reason::UnsupportedMediaType,
        status if status.is_client_error() => Reason::MalformedRequest,
        status if status.is_server_error() => Reason::Internal,
        _ => return None,
    };
    *response.status_mut() = reason.status();
    Some(Problem::new(reason, "the request was refused before it reached a resource"))
}

fn write(response: &mut Response, kind: &'static str, body: &Value) {
    let headers = response.headers_mut();
    headers.remove(header::CONTENT_LENGTH);
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    *response.body_mut() = Body::from(body.to_string());
}

/// The route as metrics name it: a bounded set whatever clients ask for.
fn label(matched: Option<&MatchedPath>) -> &'static str {
    match matched {
        None => "other",
        Some(path) => known_path(path.as_str()).unwrap_or("static"),
    }
}

fn method_label(method: &Method) -> &'static str {
    match *method {
        Method::GET => "GET",
        Method::POST => "POST",
        Method::DELETE => "DELETE",
        Method::HEAD => "HEAD",
        Method::PUT => "PUT",
        Method::PATCH => "PATCH",
        Method::OPTIONS => "OPTIONS",
        _ => "other",
    }
}
