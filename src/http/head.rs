//! Heads of requests that HTTP does not allow, or that others could read in another way.

use axum::extract::{Request, State};
use axum::http::{HeaderValue, Method, Version, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

use super::app::App;
use super::problem::{Problem, Reason};

/// Refuses heads that are how requests get to the wrong place, and targets that are too long.
///
/// - A request of HTTP/1.1 has exactly one Host (RFC 9112, 3.2): proxies and servers that each pick another one.
/// - A target with an authority must name the same host; this is no proxy.
/// - Where pages need no key, the host must be a name that the server knows.
/// - After a chunked body the connection ends: whoever took another header for its length would send the rest of it as
///   the next request (RFC 9112, 6.3). The parser has taken a Content-Length beside it away before.
pub(super) async fn check(State(app): State<App>, request: Request, next: Next) -> Response {
    let problem = fault(&request, app.settings().max_uri_bytes).or_else(|| app.names().fault(&request));
    if let Some(problem) = problem {
        return problem.into_response();
    }
    let http_2 = request.version() == Version::HTTP_2;
    let is_chunked = !http_2 && request.headers().contains_key(header::TRANSFER_ENCODING);
    let mut response = next.run(request).await;
    if is_chunked {
        response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
    response
}

fn fault(request: &Request, most: usize) -> Option<Problem> {
    let malformed = |detail: &str| Some(Problem::new(Reason::MalformedRequest, detail));
    let uri = request.uri();
    let length = uri.path_and_query().map_or(0, |target| target.as_str().len());
    if length > most {
        let detail = format!("the target has {length} bytes, {most} are taken (max_uri_bytes); POST takes more");
        return Some(Problem::new(Reason::TargetTooLong, detail).with("limit", most));
    }
    if request.method() == Method::CONNECT {
        return malformed("this is no proxy: it takes no CONNECT");
    }
    let mut hosts = request.headers().get_all(header::HOST).iter();
    match (hosts.next(), hosts.next()) {
        (_, Some(_)) => malformed("more than one header Host; HTTP asks for one"),
        (None, None) if request.version() == Version::HTTP_11 => {
            malformed("the header Host is missing; HTTP/1.1 asks for it")
        }
        (Some(host), None) => match uri.authority() {
            Some(named) if !host.as_bytes().eq_ignore_ascii_case(named.as_str().as_bytes()) => {
                malformed("the target names another host than the header Host")
            }
            _ => None,
        },
        (None, None) => None,
    }
}
