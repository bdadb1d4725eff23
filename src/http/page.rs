//! The web page, its files, and the page of the API: all from the binary, nothing from elsewhere.

use std::borrow::Cow;
use std::sync::{Arc, LazyLock};

use axum::body::Body;
use axum::extract::Path;
use axum::http::{HeaderMap, HeaderValue, StatusCode, Uri, header};
use axum::response::{IntoResponse, Redirect, Response};
use sha2::{Digest, Sha256};
use utoipa_swagger_ui::Config;

use super::problem::{Problem, Reason};

/// The page loads from its own server and nowhere else.
const PAGE_POLICY: &str =
    "default-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'; object-src 'none'";
/// Swagger UI sets styles from its scripts and holds its pictures in its style sheet.
const DOCS_POLICY: &str = "default-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; base-uri 'none'; \
                           form-action 'self'; frame-ancestors 'none'; object-src 'none'";

static DOCS: LazyLock<Arc<Config<'static>>> = LazyLock::new(|| Arc::new(Config::from("/openapi.json")));

#[derive(rust_embed::Embed)]
#[folder = "static/"]
#[allow_missing = true]
struct Assets;

/// The names of the page's files.
pub(super) fn files() -> impl Iterator<Item = Cow<'static, str>> {
    Assets::iter()
}

/// The web page.
pub(super) async fn index(headers: HeaderMap) -> Response {
    asset("index.html", &headers)
}

/// The part of the web page that trains.
pub(super) async fn training(headers: HeaderMap) -> Response {
    asset("training.html", &headers)
}

/// A file of the web page.
pub(super) async fn file(uri: Uri, headers: HeaderMap) -> Response {
    asset(uri.path().trim_start_matches('/'), &headers)
}

fn asset(name: &str, headers: &HeaderMap) -> Response {
    let Some(file) = Assets::get(name) else {
        return missing(name);
    };
    let kind = file.metadata.mimetype();
    let charset = if kind.starts_with("text/") || kind.ends_with("javascript") { "; charset=utf-8" } else { "" };
    let digest = file.metadata.sha256_hash();
    content(headers, file.data, &format!("{kind}{charset}"), &digest, PAGE_POLICY)
}

/// `/docs` without the slash, which its relative links need.
pub(super) async fn docs_redirect() -> Redirect {
    Redirect::permanent("/docs/")
}

/// The page of the API.
pub(super) async fn docs(path: Option<Path<String>>, headers: HeaderMap) -> Response {
    let name = path.map(|Path(name)| name).unwrap_or_default();
    match utoipa_swagger_ui::serve(&name, DOCS.clone()) {
        Ok(Some(file)) => {
            let digest = Sha256::digest(&file.bytes);
            content(&headers, file.bytes.into_owned().into(), &file.content_type, &digest, DOCS_POLICY)
        }
        Ok(None) => missing(&name),
        Err(error) => Problem::internal(error).into_response(),
    }
}

fn missing(name: &str) -> Response {
    Problem::new(Reason::UnknownRoute, format!("there is no file `{name}`")).into_response()
}

/// Bytes with their type, a tag to ask again with, and a policy for what they may load.
pub(super) fn content(
    headers: &HeaderMap,
    bytes: Cow<'static, [u8]>,
    kind: &str,
    digest: &[u8],
    policy: &'static str,
) -> Response {
    // Weak, since the same content may leave compressed.
    let tag: String = digest.iter().take(16).map(|byte| format!("{byte:02x}")).collect();
    let tag = format!("W/\"{tag}\"");
    let known = headers.get(header::IF_NONE_MATCH).and_then(|sent| sent.to_str().ok());
    let unchanged = known.is_some_and(|sent| sent.split(',').any(|one| one.trim() == tag || one.trim() == "*"));
    let mut response = match unchanged {
        true => StatusCode::NOT_MODIFIED.into_response(),
        false => Body::from(bytes.into_owned()).into_response(),
    };
    let fields = [
        (header::CONTENT_TYPE, HeaderValue::from_str(kind)),
        (header::ETAG, HeaderValue::from_str(&tag)),
        (header::CACHE_CONTROL, Ok(HeaderValue::from_static("no-cache"))),
        (header::CONTENT_SECURITY_POLICY, Ok(HeaderValue::from_static(policy))),
        (header::REFERRER_POLICY, Ok(HeaderValue::from_static("no-referrer"))),
    ];
    for (name, value) in fields {
        if let Ok(value) = value {
            response.headers_mut().insert(name, value);
        }
    }
    response
}
