//! The page of the API, and what every file is sent with.

use axum::body::Body;
use axum::http::{Request, StatusCode};

use super::super::page::files;
use super::*;

#[tokio::test]
async fn files_have_a_type_a_policy_and_a_tag() {
    let server = server(Settings::default());
    let mut paths = vec![
        "/docs/".to_owned(),
        "/training".into(),
        "/docs/swagger-ui.css".into(),
        "/docs/swagger-initializer.js".into(),
        "/openapi.json".into(),
    ];
    paths.extend(files().map(|file| format!("/{file}")));
    for path in paths {
        let seen = get(&server, &path).await;
        assert_eq!(seen.status, StatusCode::OK, "{path}");
        let (kind, policy) = (seen.header("content-type"), seen.header("content-security-policy"));
        let expected = match path.rsplit_once('.').map_or("html", |(_, end)| end) {
            "css" => "text/css",
            "js" => "text/javascript",
            "json" => "application/json",
            "svg" => "image/svg+xml",
            "txt" => "text/plain",
            "md" => "text/markdown",
            _ => "text/html",
        };
        assert!(kind.starts_with(expected), "{path}: {kind}");
        assert!(policy.starts_with("default-src 'self'") || policy == "default-src 'none'", "{path}: {policy}");
        assert!(!policy.contains("http"), "{path}: {policy}");
        assert_eq!(seen.header("x-content-type-options"), "nosniff", "{path}");

        let again = Request::get(&path).header("if-none-match", seen.header("etag")).body(Body::empty()).unwrap();
        let again = ask(&server, again).await;
        assert_eq!((again.status, again.bytes.len()), (StatusCode::NOT_MODIFIED, 0), "{path}");
    }
}

#[tokio::test]
async fn files_are_compressed_where_that_is_asked_for() {
    let server = server(Settings::default());
    let plain = get(&server, "/docs/swagger-ui.css").await;
    let asked = Request::get("/docs/swagger-ui.css").header("accept-encoding", "gzip").body(Body::empty()).unwrap();
    let packed = ask(&server, asked).await;
    assert_eq!((plain.header("content-encoding"), packed.header("content-encoding")), ("", "gzip"));
    assert!(packed.bytes.len() * 2 < plain.bytes.len());
}

#[tokio::test]
async fn the_page_of_the_api_shows_our_document() {
    let server = server(Settings::default());
    let moved = get(&server, "/docs").await;
    assert_eq!((moved.status.is_redirection(), moved.header("location")), (true, "/docs/"));
    assert!(get(&server, "/docs/swagger-initializer.js").await.text().contains("/openapi.json"));
    let page = get(&server, "/docs/").await.text();
    assert!(!page.contains("src=\"http") && !page.contains("href=\"http"), "{page}");
    let missing = get(&server, "/docs/nothing.js").await;
    assert_eq!((missing.status, missing.header("content-type")), (StatusCode::NOT_FOUND, "application/problem+json"));
}
