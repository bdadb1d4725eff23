//! Pages of other origins: which may ask (CORS), and that the others change nothing.

use axum::extract::{Request, State};
use axum::http::{HeaderName, HeaderValue, Method, Uri, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use tower_http::cors::{AllowOrigin, CorsLayer};

use super::app::App;
use super::error::Error;
use super::problem::{Problem, Reason};
use super::request_id;

/// The origins of the setting `cors_origins`, parted by commas.
///
/// # Errors
/// [`Error::BadOrigin`] where one is not as browsers send it: `https://example.org`, `http://localhost:3000`.
pub(super) fn allowed(list: Option<&str>) -> Result<Vec<HeaderValue>, Error> {
    let origins = list.unwrap_or_default().split(',').map(str::trim).filter(|origin| !origin.is_empty());
    origins.map(|origin| parsed(origin).ok_or_else(|| Error::BadOrigin { origin: origin.to_owned() })).collect()
}

fn parsed(origin: &str) -> Option<HeaderValue> {
    let uri: Uri = origin.parse().ok()?;
    let (scheme, authority) = (uri.scheme_str()?, uri.authority()?);
    let is_exact = format!("{scheme}://{authority}") == origin && origin == origin.to_ascii_lowercase();
    (is_exact && matches!(scheme, "http" | "https") && !authority.as_str().contains('@'))
        .then(|| HeaderValue::from_str(origin).ok())
        .flatten()
}

/// What answers browsers that ask for pages of these origins; none where there are none.
pub(super) fn cors(origins: &[HeaderValue]) -> Option<CorsLayer> {
    if origins.is_empty() {
        return None;
    }
    let exposed = [header::LOCATION, header::RETRY_AFTER, request_id::HEADER];
    let sent =
        [header::AUTHORIZATION, header::CONTENT_TYPE, HeaderName::from_static("last-event-id"), request_id::HEADER];
    let layer = CorsLayer::new()
        .allow_origin(AllowOrigin::list(origins.iter().cloned()))
        .allow_methods([Method::GET, Method::POST, Method::DELETE])
        .allow_headers(sent)
        .expose_headers(exposed);
    Some(layer.max_age(std::time::Duration::from_secs(600)))
}

/// Refuses what changes something where a browser says that a page from elsewhere asks for it: a server without keys is
/// open to whoever sits at the machine, not to each page that they look at.
pub(super) async fn no_foreign_writes(State(app): State<App>, request: Request, next: Next) -> Response {
    let headers = request.headers();
    let site = headers.get("sec-fetch-site").map(HeaderValue::as_bytes);
    let is_foreign = matches!(site, Some(b"cross-site" | b"same-site"));
    let is_allowed = headers.get(header::ORIGIN).is_some_and(|origin| app.origins().contains(origin));
    if is_foreign && !is_allowed && !request.method().is_safe() {
        let detail = "a page of another origin may not ask this; name the origin in cors_origins";
        return Problem::new(Reason::ForeignOrigin, detail).into_response();
    }
    next.run(request).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn origins_are_as_browsers_send_them() {
        assert!(allowed(None).unwrap().is_empty() && allowed(Some(" ,")).unwrap().is_empty());
        let two = allowed(Some("https://example.org, http://localhost:3000")).unwrap();
        assert_eq!(two, ["https://example.org", "http://localhost:3000"]);
        for odd in [
            "*",
            "null",
            "example.org",
            "https://example.org/",
            "https://Example.org",
            "ftp://a",
            "https://a@b",
            "https://a?b",
        ] {
            let error = allowed(Some(odd)).unwrap_err().to_string();
            assert!(error.contains(odd) && error.contains("cors_origins"), "{error}");
        }
    }
}
