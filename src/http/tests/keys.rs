//! Which key opens which route.

use axum::body::Body;
use axum::http::{Request, StatusCode};

use super::super::keys::Access;
use super::super::router::routes;
use super::*;

fn keyed(search: Option<&str>) -> Router {
    server(Settings {
        search_key: search.map(str::to_owned),
        write_key: Some("writer".into()),
        admin_key: Some("admin".into()),
        ..Settings::default()
    })
}

async fn status(server: &Router, method: &str, path: &str, key: Option<&str>) -> Seen {
    let mut request = Request::builder().method(method).uri(path.replace("{id}", "a").replace("{number}", "7"));
    if let Some(key) = key {
        request = request.header("authorization", format!("Bearer {key}"));
    }
    ask(server, request.body(Body::empty()).unwrap()).await
}

#[tokio::test]
async fn every_route_opens_to_its_keys_only() {
    let server = keyed(Some("searcher"));
    for route in routes() {
        let opened: &[&str] = match route.access {
            Access::Open => &["", "wrong", "searcher", "writer", "admin"],
            Access::Search => &["searcher", "writer", "admin"],
            Access::Write => &["writer", "admin"],
            Access::Admin => &["admin"],
        };
        for key in ["", "wrong", "searcher", "writer", "admin"] {
            let presented = Some(key).filter(|key| !key.is_empty());
            let seen = status(&server, route.method.as_str(), route.path, presented).await;
            let refused = seen.status == StatusCode::UNAUTHORIZED;
            assert_eq!(refused, !opened.contains(&key), "{} {} `{key}`: {}", route.method, route.path, seen.text());
            if refused {
                assert_eq!(seen.header("www-authenticate"), "Bearer realm=\"anced\"");
                assert!(!seen.text().contains("searcher"), "{}", seen.text());
            }
        }
    }
}

#[tokio::test]
async fn the_document_named_delete_is_guarded_as_any_other() {
    let server = keyed(Some("searcher"));
    assert_eq!(status(&server, "GET", "/documents/delete", None).await.status, StatusCode::UNAUTHORIZED);
    assert_eq!(
        status(&server, "GET", "/documents/delete", Some("searcher")).await.status,
        StatusCode::SERVICE_UNAVAILABLE
    );
    assert_eq!(status(&server, "DELETE", "/documents/delete", Some("searcher")).await.status, StatusCode::UNAUTHORIZED);
    assert_eq!(
        status(&server, "DELETE", "/documents/delete", Some("writer")).await.status,
        StatusCode::SERVICE_UNAVAILABLE
    );
}

#[tokio::test]
async fn searches_are_open_without_a_search_key() {
    let server = keyed(None);
    assert_eq!(status(&server, "GET", "/search?q=a", None).await.status, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(status(&server, "DELETE", "/documents/a", None).await.status, StatusCode::UNAUTHORIZED);
    assert_eq!(status(&server, "GET", "/admin/status", None).await.status, StatusCode::UNAUTHORIZED);
}

#[tokio::test]
async fn a_missing_key_under_v1_is_told_as_openai_does() {
    let seen = status(&keyed(Some("searcher")), "POST", "/v1/embeddings", None).await;
    assert_eq!(
        (seen.status, &seen.json()["error"]["type"]),
        (StatusCode::UNAUTHORIZED, &"authentication_error".into())
    );
}
