//! The header Host, as HTTP asks for it.

use axum::extract::Request;
use axum::http::{Version, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

use super::problem::{Problem, Reason};

/// Refuses a request of HTTP/1.1 without exactly one Host (RFC 9112, 3.2): proxies and servers that each pick another one
/// are how requests get to the wrong place.
pub(super) async fn one_host(request: Request, next: Next) -> Response {
    let hosts = request.headers().get_all(header::HOST).iter().count();
    let detail = match hosts {
        1 => return next.run(request).await,
        0 if request.version() != Version::HTTP_11 => return next.run(request).await,
        0 => "the header Host is missing; HTTP/1.1 asks for it",
        _ => "more than one header Host; HTTP asks for one",
    };
    Problem::new(Reason::MalformedRequest, detail).into_response()
}
