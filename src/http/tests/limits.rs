//! Bodies that are too large, streams that are wrong, requests that take too long.

use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::http::StatusCode;
use axum::routing;
use futures_util::stream;
use tokio::task::JoinHandle;

use super::super::router::surrounded;
use super::*;

fn small() -> Router {
    server(Settings { max_body_bytes: 100, ..Settings::default() })
}

#[tokio::test]
async fn a_body_of_the_limit_passes_and_one_byte_more_does_not() {
    let server = small();
    let body = |length: usize| format!("{:<length$}", r#"{"query": "a"}"#);
    assert_eq!(post(&server, "/search", body(100)).await.status, StatusCode::SERVICE_UNAVAILABLE);
    let seen = post(&server, "/search", body(101)).await;
    assert_eq!((seen.status, &seen.json()["limit"]), (StatusCode::PAYLOAD_TOO_LARGE, &100.into()));
    let chunks = stream::iter((0..50).map(|_| Ok::<_, std::io::Error>(Bytes::from_static(b"     "))));
    let seen = post(&server, "/search", Body::from_stream(chunks)).await;
    assert_eq!(seen.status, StatusCode::PAYLOAD_TOO_LARGE);
}

#[tokio::test]
async fn a_line_is_bounded_and_a_stream_is_not() {
    let server = small();
    let long = format!("{{\"id\": \"a\"}}\n{{\"id\": \"b\", \"text\": \"{}\"}}\n", "x".repeat(100));
    let seen = send(&server, "/documents", "application/x-ndjson", long).await;
    assert_eq!(seen.status, StatusCode::SERVICE_UNAVAILABLE, "line 1 is written first: {}", seen.text());

    let long = format!("\n{{\"id\": \"b\", \"text\": \"{}\"}}\n", "x".repeat(100));
    let seen = send(&server, "/documents", "application/x-ndjson", long).await;
    let problem = seen.json();
    assert_eq!(
        (seen.status, &problem["line"], &problem["written"]),
        (StatusCode::PAYLOAD_TOO_LARGE, &2.into(), &0.into())
    );

    let blank = " \n".repeat(1000);
    let seen = send(&server, "/documents", "application/x-ndjson", blank).await;
    assert_eq!(seen.status, StatusCode::UNPROCESSABLE_ENTITY, "{}", seen.text());
    assert!(seen.detail().contains("empty"), "{}", seen.detail());
}

#[tokio::test]
async fn a_wrong_line_is_named() {
    let server = server(Settings::default());
    let cases = [
        ("\n\n{", 400, 3, "column 1"),
        ("{\"id\": \"\"}", 422, 1, "the id is empty"),
        ("[]", 422, 1, "expected an object"),
        ("\r\n{\"id\": \"a\", \"body\": 1}\r\n", 422, 2, "`body`"),
        ("\n{\"id\": 7}", 422, 2, "id: invalid type"),
    ];
    for (body, status, line, part) in cases {
        let seen = send(&server, "/documents", "application/x-ndjson", body).await;
        assert_eq!(
            (seen.status.as_u16(), seen.json()["line"].as_u64()),
            (status, Some(line)),
            "{body:?}: {}",
            seen.text()
        );
        assert!(seen.detail().starts_with(&format!("line {line}: ")), "{body:?}: {}", seen.detail());
        assert!(seen.detail().contains(part), "{body:?}: {}", seen.detail());
    }
}

#[tokio::test]
async fn details_do_not_repeat_megabytes() {
    let server = server(Settings::default());
    let seen = post(&server, "/search", format!(r#"{{"query": "a", "k": "{}"}}"#, "ä".repeat(1_000_000))).await;
    assert_eq!(seen.status, StatusCode::UNPROCESSABLE_ENTITY);
    assert!(seen.bytes.len() < 2000, "{} bytes", seen.bytes.len());
}

#[tokio::test]
async fn an_unknown_field_of_any_length_is_told_shortly() {
    let server = server(Settings::default());
    let long = "ä".repeat(1_000_000);
    for body in [format!(r#"{{"{long}": 1}}"#), format!(r#"{{"documents": [{{"id": "a", "{long}": 1}}]}}"#)] {
        let path = if body.starts_with(r#"{"documents"#) { "/documents" } else { "/search" };
        let seen = post(&server, path, body).await;
        assert_eq!(seen.json()["type"], "urn:anced:problem:unknown-field");
        assert!(seen.bytes.len() < 4000, "{} bytes", seen.bytes.len());
        assert!(seen.detail().contains("unknown field `ä") && seen.detail().contains("expected"), "{}", seen.detail());
        assert!(seen.json()["field"].as_str().unwrap().contains("ää"));
    }
}

#[tokio::test]
async fn an_answer_that_takes_too_long_is_given_up() {
    let app = app(Settings { request_timeout: 1, ..Settings::default() });
    let slow = Router::new().route("/slow", routing::get(|| tokio::time::sleep(Duration::from_secs(3600))));
    let server = surrounded(slow, app);
    let seen = get(&server, "/slow").await;
    assert_eq!((seen.status, seen.header("retry-after")), (StatusCode::SERVICE_UNAVAILABLE, "1"));
    assert_eq!(seen.json()["type"], "urn:anced:problem:timeout");
    assert_eq!(get(&server, "/nothing").await.status, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn a_body_that_keeps_coming_may_take_longer_than_the_answer() {
    let app = app(Settings { request_timeout: 1, ..Settings::default() });
    let parts = stream::unfold(0, |at| async move {
        tokio::time::sleep(Duration::from_millis(300)).await;
        (at < 6).then_some((Ok::<_, std::io::Error>(Bytes::from_static(b"part ")), at + 1))
    });
    let count = |body: String| async move { body.len().to_string() };
    let server = surrounded(Router::new().route("/length", routing::post(count)), app);
    let seen = send(&server, "/length", "text/plain", Body::from_stream(parts)).await;
    assert_eq!((seen.status, seen.text()), (StatusCode::OK, "30".into()));
}

#[tokio::test]
async fn a_connection_of_the_reserve_gets_health_and_refusals() {
    let server = server(Settings::default());
    let asked = |path: &str| {
        let mut request = axum::http::Request::get(path).body(Body::empty()).unwrap();
        request.extensions_mut().insert(super::super::places::InReserve);
        request
    };
    let seen = ask(&server, asked("/search?q=a")).await;
    assert_eq!((seen.status, seen.header("retry-after")), (StatusCode::SERVICE_UNAVAILABLE, "1"));
    assert_eq!(seen.json()["type"], "urn:anced:problem:queue-full");
    assert!(seen.detail().contains("connections"), "{}", seen.detail());
    for path in ["/healthz", "/metrics"] {
        assert_eq!(ask(&server, asked(path)).await.status, StatusCode::OK, "{path}");
    }
}

/// Sends the head of a request whose body does not come.
async fn announce(server: &Router, path: &'static str, kind: &'static str) -> JoinHandle<Seen> {
    let server = server.clone();
    let body = Body::from_stream(stream::pending::<Result<Bytes, std::io::Error>>());
    let asked = tokio::spawn(async move { send(&server, path, kind, body).await });
    for _ in 0..10 {
        tokio::task::yield_now().await;
    }
    asked
}

#[tokio::test]
async fn a_full_house_turns_away_all_but_health() {
    let server = server(Settings { max_requests: 1, ..Settings::default() });
    let held = announce(&server, "/documents", "application/x-ndjson").await;
    for seen in [get(&server, "/search?q=a").await, post(&server, "/search", r#"{"query": "a"}"#).await] {
        assert_eq!(seen.json()["type"], "urn:anced:problem:queue-full");
        assert_eq!(seen.header("retry-after"), "1");
    }
    assert_eq!(get(&server, "/healthz").await.status, StatusCode::OK);
    assert!(get(&server, "/metrics").await.text().contains("anced_rejected_requests_total{reason=\"queue_full\"} 2"));
    held.abort();
    assert!(held.await.is_err());
    assert_eq!(get(&server, "/search?q=a").await.json()["type"], "urn:anced:problem:not-ready");
}

#[tokio::test]
async fn bodies_that_do_not_come_keep_nobody_out() {
    let server = server(Settings { max_requests: 4, ..Settings::default() });
    for _ in 0..20 {
        announce(&server, "/search", "application/json").await;
    }
    // Those that are worked on while they come take half of the places at most.
    let streams = [
        announce(&server, "/documents", "application/x-ndjson").await,
        announce(&server, "/documents", "application/x-ndjson").await,
    ];
    assert!(streams.iter().all(|stream| !stream.is_finished()));
    let third = send(&server, "/documents", "application/x-ndjson", "{}").await;
    assert_eq!(third.json()["type"], "urn:anced:problem:queue-full");
    for seen in [get(&server, "/search?q=a").await, post(&server, "/search", r#"{"query": "a"}"#).await] {
        assert_eq!(seen.json()["type"], "urn:anced:problem:not-ready", "{}", seen.text());
    }
}
