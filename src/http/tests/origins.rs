//! Pages of other origins.

use axum::body::Body;
use axum::http::{Request, StatusCode};

use super::*;

const FRIEND: &str = "https://friend.example";

fn open_to_a_friend() -> Router {
    server(Settings { cors_origins: Some(FRIEND.into()), admin_key: Some("admin".into()), ..Settings::default() })
}

async fn asked(server: &Router, method: &str, path: &str, headers: &[(&str, &str)]) -> Seen {
    let request = Request::builder().method(method).uri(path);
    let request = headers.iter().fold(request, |request, (name, value)| request.header(*name, *value));
    ask(server, request.body(Body::empty()).unwrap()).await
}

#[tokio::test]
async fn no_origin_may_ask_by_default() {
    let server = server(Settings::default());
    let preflight = [("origin", FRIEND), ("access-control-request-method", "POST")];
    let seen = asked(&server, "OPTIONS", "/search", &preflight).await;
    assert_eq!(seen.status, StatusCode::METHOD_NOT_ALLOWED);
    let seen_get = asked(&server, "GET", "/healthz", &[("origin", FRIEND)]).await;
    for seen in [seen, seen_get] {
        assert!(!seen.headers.keys().any(|name| name.as_str().starts_with("access-control")), "{:?}", seen.headers);
    }
}

#[tokio::test]
async fn a_listed_origin_may_ask_and_no_other() {
    let server = open_to_a_friend();
    // A preflight carries no key.
    let preflight = [("origin", FRIEND), ("access-control-request-method", "DELETE")];
    let seen = asked(&server, "OPTIONS", "/admin/generations/1", &preflight).await;
    assert_eq!((seen.status, seen.header("access-control-allow-origin")), (StatusCode::OK, FRIEND));
    assert!(seen.header("access-control-allow-methods").contains("DELETE"));
    assert!(seen.header("access-control-allow-headers").contains("authorization"));
    // Refusals can be read, too.
    let seen = asked(&server, "GET", "/admin/status", &[("origin", FRIEND)]).await;
    assert_eq!((seen.status, seen.header("access-control-allow-origin")), (StatusCode::UNAUTHORIZED, FRIEND));
    assert!(seen.header("vary").contains("origin"), "{:?}", seen.headers);
    for other in ["https://friend.example.evil", "http://friend.example", "https://friend.example:8443", "null"] {
        let seen = asked(&server, "GET", "/healthz", &[("origin", other)]).await;
        assert_eq!((seen.status, seen.header("access-control-allow-origin")), (StatusCode::OK, ""), "{other}");
    }
}

#[tokio::test]
async fn a_foreign_page_changes_nothing() {
    let server = server(Settings { cors_origins: Some(FRIEND.into()), ..Settings::default() });
    let activate = "/admin/generations/1/activate";
    for site in ["cross-site", "same-site"] {
        let seen =
            asked(&server, "POST", activate, &[("sec-fetch-site", site), ("origin", "https://evil.example")]).await;
        assert_eq!(seen.status, StatusCode::FORBIDDEN, "{site}");
        assert_eq!(seen.json()["type"], "urn:anced:problem:foreign-origin");
        // A link leads here, and a friend may ask.
        assert_eq!(asked(&server, "GET", "/", &[("sec-fetch-site", site)]).await.status, StatusCode::OK);
        let seen = asked(&server, "POST", activate, &[("sec-fetch-site", site), ("origin", FRIEND)]).await;
        assert_eq!(seen.status, StatusCode::SERVICE_UNAVAILABLE);
    }
    for site in ["same-origin", "none"] {
        let seen = asked(&server, "POST", activate, &[("sec-fetch-site", site)]).await;
        assert_eq!(seen.status, StatusCode::SERVICE_UNAVAILABLE, "{site}");
    }
}
