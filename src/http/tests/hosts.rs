//! Names that lead here without being ours, and pages that ask without saying from where.

use axum::body::Body;
use axum::http::{Request, StatusCode};

use super::super::router::routes;
use super::*;

async fn asked(server: &Router, method: &str, path: &str, headers: &[(&str, &str)]) -> Seen {
    let request = Request::builder().method(method).uri(path);
    let request = headers.iter().fold(request, |request, (name, value)| request.header(*name, *value));
    ask(server, request.body(Body::empty()).unwrap()).await
}

#[tokio::test]
async fn a_name_that_leads_here_opens_nothing_without_keys() {
    let open = server(Settings { allowed_hosts: Some("search.example".into()), ..Settings::default() });
    let rebound = [("host", "evil.example"), ("origin", "http://evil.example"), ("sec-fetch-site", "same-origin")];
    for route in routes() {
        let path = route.path.replace("{id}", "a").replace("{number}", "7");
        let seen = asked(&open, route.method.as_str(), &path, &rebound).await;
        if matches!(route.path, "/healthz" | "/readyz" | "/metrics") {
            assert_ne!(seen.status, StatusCode::MISDIRECTED_REQUEST, "{path}");
            continue;
        }
        assert_eq!(seen.status, StatusCode::MISDIRECTED_REQUEST, "{} {path}", route.method);
        if !path.starts_with("/v1/") {
            assert_eq!(seen.json()["type"], "urn:anced:problem:foreign-host");
            assert!(
                seen.detail().contains("evil.example") && seen.detail().contains("allowed_hosts"),
                "{}",
                seen.detail()
            );
        }
    }
    assert_eq!(asked(&open, "GET", "/", &rebound).await.status, StatusCode::MISDIRECTED_REQUEST);
    for host in ["localhost:8080", "127.0.0.1:8080", "[::1]:8080", "search.example"] {
        let seen = asked(&open, "DELETE", "/documents/d0", &[("host", host)]).await;
        assert_eq!(seen.status, StatusCode::SERVICE_UNAVAILABLE, "{host}");
    }
}

#[tokio::test]
async fn keys_open_to_any_name() {
    let keys = Settings { write_key: Some("w".into()), admin_key: Some("a".into()), ..Settings::default() };
    let seen = asked(&server(keys), "GET", "/search?q=a", &[("host", "any.example")]).await;
    assert_eq!(seen.status, StatusCode::SERVICE_UNAVAILABLE);
}

#[tokio::test]
async fn an_origin_alone_tells_a_foreign_page() {
    let server = server(Settings { cors_origins: Some("https://friend.example".into()), ..Settings::default() });
    for path in ["/admin/generations/1/activate", "/admin/jobs/a/resume"] {
        for origin in ["http://evil.example", "http://localhost:9999", "http://localhost", "null", "not an origin"] {
            let seen = asked(&server, "POST", path, &[("host", "localhost:8080"), ("origin", origin)]).await;
            assert_eq!(seen.status, StatusCode::FORBIDDEN, "{path} {origin}");
            assert_eq!(seen.json()["type"], "urn:anced:problem:foreign-origin");
        }
        for origin in ["http://localhost:8080", "https://localhost:8080", "https://friend.example"] {
            let seen = asked(&server, "POST", path, &[("host", "localhost:8080"), ("origin", origin)]).await;
            assert_eq!(seen.status, StatusCode::SERVICE_UNAVAILABLE, "{path} {origin}");
        }
        let seen = asked(&server, "POST", path, &[("host", "localhost:8080")]).await;
        assert_eq!(seen.status, StatusCode::SERVICE_UNAVAILABLE, "what is no browser");
    }
    let seen = asked(&server, "GET", "/search?q=a", &[("origin", "http://evil.example")]).await;
    assert_eq!(seen.status, StatusCode::SERVICE_UNAVAILABLE, "what changes nothing");
}
