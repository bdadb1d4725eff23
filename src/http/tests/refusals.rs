//! Wrong requests: each is refused with its status, its kind and a detail that names the fault.

use axum::body::Body;
use axum::http::{Request, StatusCode};
use axum::routing;

use super::super::router::surrounded;
use super::*;

#[tokio::test]
async fn wrong_bodies_are_refused_by_name() {
    let server = server(Settings { max_batch: 3, max_query_chars: 20, ..Settings::default() });
    let cases: &[(&str, &str, u16, &str, &str)] = &[
        ("/search", "", 400, "malformed-json", "line 1, column 0"),
        ("/search", "{", 400, "malformed-json", "line 1, column 1"),
        ("/search", "{\"query\": \"a\",\n \"k\": }", 400, "malformed-json", "line 2, column 7"),
        ("/search", "{\"query\": \"a\"} x", 400, "malformed-json", "trailing"),
        ("/search", "{\"query\": \"\\ud800\"}", 400, "malformed-json", "line 1"),
        ("/search", "{\"query\": \"\\udc00 x\"}", 400, "malformed-json", "line 1"),
        ("/search", "{\"query\": \"a\", \"min_score\": NaN}", 400, "malformed-json", "line 1"),
        ("/search", "{\"query\": \"a\", \"min_score\": Infinity}", 400, "malformed-json", "line 1"),
        ("/search", "[", 400, "malformed-json", "line 1"),
        ("/search", "[\"a\"]", 422, "invalid-field", "expected an object"),
        ("/search", "\"a\"", 422, "invalid-field", "expected an object"),
        ("/search", "null", 422, "invalid-field", "expected an object"),
        ("/search", "{}", 422, "invalid-field", "query: missing"),
        ("/search", r#"{"query": "a", "queries": ["b"]}"#, 422, "invalid-field", "not both"),
        ("/search", r#"{"query": "a", "top": 3}"#, 422, "unknown-field", "`top`"),
        ("/search", r#"{"query": 7}"#, 422, "invalid-field", "query: invalid type"),
        ("/search", r#"{"queries": ["a", 7]}"#, 422, "invalid-field", "queries[1]: invalid type"),
        ("/search", r#"{"query": ""}"#, 422, "invalid-field", "query: empty"),
        ("/search", r#"{"query": " \n\t"}"#, 422, "invalid-field", "query: empty"),
        ("/search", r#"{"queries": []}"#, 422, "invalid-field", "queries: empty"),
        ("/search", r#"{"queries": ["a", ""]}"#, 422, "invalid-field", "queries[1]: empty"),
        ("/search", r#"{"queries": ["a", "b", "c", "d"]}"#, 422, "invalid-field", "max_batch"),
        ("/search", r#"{"query": "ÄÄÄÄÄÄÄÄÄÄÄÄÄÄÄÄÄÄÄÄÄ"}"#, 422, "invalid-field", "max_query_chars"),
        ("/search", r#"{"query": "a", "k": 0}"#, 422, "invalid-field", "k: 0"),
        ("/search", r#"{"query": "a", "k": -1}"#, 422, "invalid-field", "k: invalid value"),
        ("/search", r#"{"query": "a", "k": 1.5}"#, 422, "invalid-field", "k: invalid type"),
        ("/search", r#"{"query": "a", "k": 1000000000}"#, 422, "invalid-field", "max_hits"),
        ("/search", r#"{"query": "a", "k": 18446744073709551615, "offset": 1}"#, 422, "invalid-field", "max_hits"),
        ("/search", r#"{"query": "a", "k": 1, "offset": 10000}"#, 422, "invalid-field", "offset: k + offset = 10001"),
        ("/search", r#"{"query": "a", "ef": 0}"#, 422, "invalid-field", "ef: 0"),
        ("/search", r#"{"query": "a", "ef": 1000000000}"#, 422, "invalid-field", "max_hits"),
        ("/search", r#"{"query": "a", "exact": "yes"}"#, 422, "invalid-field", "exact: invalid type"),
        ("/search", r#"{"query": "a", "min_score": 1e300}"#, 422, "invalid-field", "min_score"),
        (
            "/search",
            r#"{"query": "a", "include": ["title", "body"]}"#,
            422,
            "invalid-field",
            "include[1]: unknown variant `body`",
        ),
        ("/search", r#"{"query": "a", "filter": []}"#, 422, "invalid-field", "filter"),
        ("/search", r#"{"query": "a", "filter": {"year": {"above": 3}}}"#, 422, "invalid-field", "filter.year.above"),
        ("/documents", r#"{"documents": []}"#, 422, "invalid-field", "documents: empty"),
        (
            "/documents",
            r#"{"documents": [{"id": "a"}, {"title": "b"}]}"#,
            422,
            "invalid-field",
            "documents[1]: missing field `id`",
        ),
        ("/documents", r#"{"documents": [{"id": "a", "body": "b"}]}"#, 422, "unknown-field", "`body`"),
        ("/documents", r#"{"documents": [["a", "b"]]}"#, 422, "invalid-field", "documents[0]: invalid type: sequence"),
        ("/documents", r#"{"documents": [{"id": ""}]}"#, 422, "invalid-field", "documents[0]"),
        ("/documents", r#"{"documents": [{"id": "a", "metadata": 3}]}"#, 422, "invalid-field", "documents[0].metadata"),
        ("/documents/delete", r#"{"ids": []}"#, 422, "invalid-field", "ids: empty"),
        ("/documents/delete", r#"{"ids": "a"}"#, 422, "invalid-field", "ids: invalid type"),
        ("/feedback", "{", 400, "malformed-json", "line 1"),
        ("/feedback", "[]", 422, "invalid-field", "expected an object"),
        ("/feedback", "{}", 422, "invalid-field", "missing field `query`"),
        ("/feedback", r#"{"query": "a", "id": "b"}"#, 422, "invalid-field", "missing field `grade`"),
        ("/feedback", r#"{"query": "a", "id": "b", "grade": 1, "user": "c"}"#, 422, "unknown-field", "`user`"),
        ("/feedback", r#"{"query": "a", "id": "b", "grade": 4}"#, 422, "invalid-field", "grade: 4"),
        ("/feedback", r#"{"query": "a", "id": "b", "grade": -1}"#, 422, "invalid-field", "grade: -1"),
        ("/feedback", r#"{"query": "a", "id": "b", "grade": 1.0}"#, 422, "invalid-field", "grade: invalid type"),
        ("/feedback", r#"{"query": "a", "id": "b", "grade": "1"}"#, 422, "invalid-field", "grade: invalid type"),
        ("/feedback", r#"{"query": "a", "id": "b", "grade": true}"#, 422, "invalid-field", "grade: invalid type"),
        ("/feedback", r#"{"query": "a", "id": "b", "grade": null}"#, 422, "invalid-field", "grade: invalid type"),
        ("/feedback", r#"{"query": "a", "id": "b", "grade": 1e99}"#, 422, "invalid-field", "grade: invalid type"),
        ("/feedback", r#"{"query": "a", "id": "b", "grade": 1, "replaces": 9}"#, 422, "invalid-field", "replaces: 9"),
        ("/feedback", r#"{"query": " \t\u00a0", "id": "b", "grade": 1}"#, 422, "invalid-field", "query: empty"),
        ("/feedback", r#"{"query": 7, "id": "b", "grade": 1}"#, 422, "invalid-field", "query: invalid type"),
        ("/feedback", r#"{"query": "a", "id": "", "grade": 1}"#, 422, "invalid-field", "id: empty"),
        (
            "/feedback",
            r#"{"query": "aaaaaaaaaaaaaaaaaaaaa", "id": "b", "grade": 1}"#,
            422,
            "invalid-field",
            "max_query",
        ),
        ("/embed", r#"{"texts": []  , "kind": "query"}"#, 422, "invalid-field", "texts: empty"),
        ("/embed", r#"{"texts": ["a"], "kind": "document"}"#, 422, "invalid-field", "unknown variant `document`"),
        ("/embed", r#"{"texts": ["a"]}"#, 422, "invalid-field", "missing field `kind`"),
        ("/embed", r#"{"texts": ["a", "b", "c", "d"], "kind": "query"}"#, 422, "invalid-field", "max_batch"),
    ];
    for (path, body, status, kind, part) in cases {
        let seen = post(&server, path, *body).await;
        let problem = seen.json();
        assert_eq!(seen.status.as_u16(), *status, "{path} {body}: {problem}");
        assert_eq!(seen.header("content-type"), "application/problem+json", "{path} {body}");
        assert_eq!(problem["type"], format!("urn:anced:problem:{kind}"), "{path} {body}");
        assert_eq!(problem["status"], *status, "{path} {body}");
        assert!(seen.detail().contains(part), "{path} {body}: {}", seen.detail());
        assert_eq!(problem["request_id"], seen.header("x-request-id"), "{path} {body}");
        assert!(problem["title"].is_string(), "{path} {body}");
    }
}

#[tokio::test]
async fn wrong_parameters_are_refused_by_name() {
    let server = server(Settings::default());
    let cases = [
        ("/search", "missing field `q`"),
        ("/search?q=", "query: empty"),
        ("/search?q=a&k=0", "k: 0"),
        ("/search?q=a&k=x", "k: invalid digit"),
        ("/search?q=a&top=3", "unknown field `top`"),
        ("/search?q=a&q=b", "duplicate field `q`"),
        ("/search?q=a&min_score=NaN", "min_score"),
        ("/search?q=a&min_score=inf", "min_score"),
        ("/search?q=a&include=title,body", "`body`"),
        ("/search?q=a&exact=maybe", "exact"),
        ("/search?q=a&filter=%7B%22year%22%3A%7B%22above%22%3A3%7D%7D", "filter.year.above"),
        ("/search/examples?limit=0", "limit: 0"),
        ("/search/examples?limit=1000000", "limit: 1000000"),
        ("/documents?limit=0", "limit: 0"),
        ("/documents?limit=1001", "limit: 1001"),
        ("/documents?before=x", "unknown field `before`"),
    ];
    for (path, part) in cases {
        let seen = get(&server, path).await;
        assert_eq!(seen.status, StatusCode::UNPROCESSABLE_ENTITY, "{path}: {}", seen.text());
        assert!(seen.detail().contains(part), "{path}: {}", seen.detail());
    }
    let seen = get(&server, "/search?q=a&filter=%7B").await;
    assert_eq!(
        (seen.status, seen.detail().starts_with("filter: ")),
        (StatusCode::BAD_REQUEST, true),
        "{}",
        seen.text()
    );
}

#[tokio::test]
async fn an_unknown_field_is_named_with_its_path() {
    let server = server(Settings::default());
    let seen = post(&server, "/search", r#"{"query": "a", "top": 3}"#).await;
    assert_eq!(seen.json()["field"], "top");
    let seen = post(&server, "/documents", r#"{"documents": [{"id": "a", "body": "b"}]}"#).await;
    assert_eq!(seen.json()["field"], "documents[0].body");
    let seen = get(&server, "/search?q=a&top=3").await;
    assert_eq!(
        (seen.json()["field"].as_str(), seen.json()["type"].as_str()),
        (Some("top"), Some("urn:anced:problem:unknown-field"))
    );
}

#[tokio::test]
async fn valid_requests_wait_for_a_generation() {
    let server = server(Settings::default());
    let posts = [
        ("/search", r#"{"query": "a"}"#),
        (
            "/search",
            r#"{"queries": ["a", "b"], "k": 5, "offset": 2, "filter": {"lang": "en"}, "exact": true, "ef": 64,
                       "min_score": -0.5, "include": ["title", "vector"]}"#,
        ),
        ("/search", r#"{"query": "a", "queries": null, "filter": null, "include": []}"#),
        ("/documents", r#"{"documents": [{"id": "a", "title": "", "text": "b", "metadata": {"x": [1]}}]}"#),
        ("/documents/delete", r#"{"ids": ["a"]}"#),
        ("/feedback", r#"{"query": "a", "id": "b", "grade": 0, "replaces": 3}"#),
        ("/embed", r#"{"texts": ["a", ""], "kind": "passage"}"#),
        ("/v1/embeddings", r#"{"input": "a", "model": "any", "encoding_format": "base64"}"#),
    ];
    for (path, body) in posts {
        let seen = post(&server, path, body).await;
        assert_eq!(seen.status, StatusCode::SERVICE_UNAVAILABLE, "{path} {body}: {}", seen.text());
        assert_eq!(seen.header("retry-after"), "1", "{path} {body}");
    }
    let paths = [
        "/search?q=a&k=3&min_score=0.2&include=title,%20vector&filter=%7B%22lang%22:%22en%22%7D",
        "/documents/a%2Fb",
        "/readyz",
    ];
    for path in paths {
        let seen = get(&server, path).await;
        assert_eq!(seen.status, StatusCode::SERVICE_UNAVAILABLE, "{path}: {}", seen.text());
        assert_eq!(seen.json()["type"], "urn:anced:problem:not-ready", "{path}");
    }
    assert_eq!(get(&server, "/healthz").await.json()["status"], "ok");
    let metrics = get(&server, "/metrics").await.text();
    assert!(metrics.contains("anced_rejected_requests_total{reason=\"not_ready\"} 11"), "{metrics}");
}

#[tokio::test]
async fn unknown_routes_and_wrong_methods() {
    let server = server(Settings::default());
    for path in ["/nothing", "/search/", "/admin", "/v2/embeddings"] {
        let seen = get(&server, path).await;
        assert_eq!(seen.status, StatusCode::NOT_FOUND, "{path}");
        assert_eq!(seen.json()["type"], "urn:anced:problem:unknown-route", "{path}");
    }
    let request = |method: &str, path: &str| Request::builder().method(method).uri(path).body(Body::empty()).unwrap();
    for (method, path, allowed) in [
        ("DELETE", "/search", &["POST", "GET", "HEAD"][..]),
        ("PUT", "/documents/a", &["GET", "HEAD", "DELETE"]),
        ("PATCH", "/documents/delete", &["GET", "HEAD", "DELETE", "POST"]),
        ("POST", "/healthz", &["GET", "HEAD"]),
        ("BREW", "/embed", &["POST"]),
    ] {
        let seen = ask(&server, request(method, path)).await;
        assert_eq!(seen.status, StatusCode::METHOD_NOT_ALLOWED, "{method} {path}");
        assert_eq!(seen.json()["type"], "urn:anced:problem:method-not-allowed", "{method} {path}");
        let mut allow: Vec<_> = seen.header("allow").split(',').map(str::trim).collect();
        let mut allowed = allowed.to_vec();
        allow.sort_unstable();
        allowed.sort_unstable();
        assert_eq!(allow, allowed, "{method} {path}");
    }
    let metrics = get(&server, "/metrics").await.text();
    assert!(metrics.contains(r#"anced_http_requests_total{method="GET",route="other",status="404"} 4"#), "{metrics}");
    assert!(
        metrics.contains(r#"anced_http_requests_total{method="other",route="/embed",status="405"} 1"#),
        "{metrics}"
    );
}

#[tokio::test]
async fn bodies_of_other_types_are_refused() {
    let server = server(Settings::default());
    for kind in ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data", "application/jsonx", ""] {
        let seen = send(&server, "/search", kind, "{}").await;
        assert_eq!(seen.status, StatusCode::UNSUPPORTED_MEDIA_TYPE, "{kind}");
    }
    assert_eq!(send(&server, "/search", "application/x-ndjson", "{}").await.status, StatusCode::UNSUPPORTED_MEDIA_TYPE);
    for kind in ["application/json; charset=utf-8", "Application/JSON", "application/vnd.x+json"] {
        assert_eq!(send(&server, "/search", kind, "{}").await.status, StatusCode::UNPROCESSABLE_ENTITY, "{kind}");
    }
    let bare = Request::post("/search").body(Body::from("{}")).unwrap();
    assert_eq!(ask(&server, bare).await.status, StatusCode::UNSUPPORTED_MEDIA_TYPE);
    let packed = Request::post("/search").header("content-type", "application/json").header("content-encoding", "gzip");
    assert_eq!(ask(&server, packed.body(Body::from("{}")).unwrap()).await.status, StatusCode::UNSUPPORTED_MEDIA_TYPE);
}

#[tokio::test]
async fn a_panic_is_answered_without_its_message() {
    let app = app(Settings::default());
    async fn panicking() -> String {
        panic!("secret {}", 7)
    }
    let panicking = Router::new().route("/panic", routing::get(panicking));
    let server = surrounded(panicking, app);
    let seen = get(&server, "/panic").await;
    assert_eq!(seen.status, StatusCode::INTERNAL_SERVER_ERROR);
    assert_eq!(seen.json()["type"], "urn:anced:problem:internal");
    assert!(!seen.text().contains("secret"), "{}", seen.text());
}

#[tokio::test]
async fn request_ids_are_echoed() {
    let server = server(Settings::default());
    let asked = Request::get("/nothing").header("x-request-id", "abc-1").body(Body::empty()).unwrap();
    let seen = ask(&server, asked).await;
    assert_eq!((seen.header("x-request-id"), &seen.json()["request_id"]), ("abc-1", &"abc-1".into()));
    let made = get(&server, "/healthz").await;
    assert_eq!(made.header("x-request-id").len(), 36);
}

#[tokio::test]
async fn refusals_under_v1_have_the_shape_of_openai() {
    let server = server(Settings::default());
    let cases = [
        (r#"{"input": "a"}"#, 422, None, "missing field `model`"),
        (r#"{"input": [1, 2], "model": "m"}"#, 422, Some("input"), "token ids"),
        (r#"{"input": [[1, 2]], "model": "m"}"#, 422, Some("input"), "token ids"),
        (r#"{"input": {}, "model": "m"}"#, 422, Some("input"), "neither a text"),
        (r#"{"input": "a", "model": "m", "encoding_format": "hex"}"#, 422, Some("encoding_format"), "`hex`"),
        (r#"{"input": "a", "model": "m", "size": 3}"#, 422, Some("size"), "unknown field `size`"),
        ("{", 400, None, "line 1"),
        (r#"{"input": "a", "model": "m"}"#, 503, None, "no generation is live"),
    ];
    for (body, status, param, part) in cases {
        let seen = post(&server, "/v1/embeddings", body).await;
        let error = &seen.json()["error"];
        assert_eq!(seen.status.as_u16(), status, "{body}: {error}");
        assert_eq!(seen.header("content-type"), "application/json", "{body}");
        assert_eq!(error["param"].as_str(), param, "{body}: {error}");
        assert!(error["message"].as_str().unwrap().contains(part), "{body}: {error}");
        let class = if status == 503 { "server_error" } else { "invalid_request_error" };
        assert_eq!(error["type"], class, "{body}");
        assert!(error["code"].is_string(), "{body}");
    }
    assert!(get(&server, "/v1/nothing").await.json()["error"]["message"].is_string());
}
