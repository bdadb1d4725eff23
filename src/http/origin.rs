//! Pages of other origins: which may ask (CORS), and that the others change nothing.

use axum::extract::{Request, State};
use axum::http::uri::Authority;
use axum::http::{HeaderName, HeaderValue, Method, Uri, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use tower_http::cors::{AllowOrigin, CorsLayer};

use super::app::App;
use super::error::Error;
use super::host::authority_of;
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
    let is_allowed = request.headers().get(header::ORIGIN).is_some_and(|origin| app.origins().contains(origin));
    if !request.method().is_safe() && !is_allowed && is_foreign(&request) {
        let detail = "a page of another origin may not ask this; name the origin in cors_origins";
        return Problem::new(Reason::ForeignOrigin, detail).into_response();
    }
    next.run(request).await
}

/// Whether another site's page asks. Browsers say so to addresses that they trust (TLS, loopback); to the others they
/// name the page's origin only. What is no browser says neither.
fn is_foreign(request: &Request) -> bool {
    let headers = request.headers();
    if let Some(site) = headers.get("sec-fetch-site") {
        return !matches!(site.as_bytes(), b"same-origin" | b"none");
    }
    let Some(origin) = headers.get(header::ORIGIN) else { return false };
    let page = origin.to_str().ok().and_then(|origin| origin.parse::<Uri>().ok());
    let page = page.as_ref().and_then(Uri::authority).map(Authority::as_str);
    match (page, authority_of(request)) {
        (Some(page), Some(asked)) => !page.eq_ignore_ascii_case(asked),
        _ => true,
    }
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
