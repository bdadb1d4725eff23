//! Answers are bounded in bytes: pages of documents end before, and searches are told what to ask less of.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test ends by panicking")]

mod common;

use common::Server;
use serde_json::{Value, json};

const MOST: usize = 20_000;

fn ids(page: &Value) -> Vec<String> {
    page["documents"].as_array().unwrap().iter().map(|document| document["id"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn pages_and_searches_keep_to_the_bytes_of_an_answer() {
    let data = tempfile::tempdir().unwrap();
    let server = Server::start_with(data.path(), &["--max-answer-bytes", &MOST.to_string()]);
    let large = |at: usize| if at == 7 { 3 * MOST } else { 2000 };
    let documents: Vec<_> =
        (0..30).map(|at| json!({"id": format!("d{at:02}"), "text": "x ".repeat(large(at) / 2)})).collect();
    assert_eq!(server.post("/documents", &json!({"documents": documents})).status, 200);

    let (mut seen, mut path) = (Vec::new(), "/documents?limit=1000".to_owned());
    loop {
        let answer = server.get(&path);
        let page = answer.json();
        let (ids, bytes) = (ids(&page), answer.body.len());
        // One that is larger than the bound stands alone.
        assert!(bytes < MOST + 100 || ids == ["d07"], "{ids:?}: {bytes}");
        seen.extend(ids);
        let Some(next) = page["next"].as_str() else { break };
        assert_eq!(Some(next), seen.last().map(String::as_str));
        path = format!("/documents?limit=1000&after={next}");
    }
    let all: Vec<String> = (0..30).map(|at| format!("d{at:02}")).collect();
    assert_eq!(seen, all);

    let search = |body: &Value| server.post("/search", body);
    let refused = search(&json!({"query": "x", "k": 30}));
    let problem = refused.json();
    assert_eq!((refused.status, &problem["limit"]), (422, &json!(MOST)), "{problem}");
    for part in ["max_answer_bytes", "(k)", "queries", "(include)"] {
        assert!(problem["detail"].as_str().unwrap().contains(part), "{problem}");
    }
    let batch = search(&json!({"queries": ["x", "x x", "x x x"], "k": 9, "include": ["text"]}));
    assert_eq!(batch.status, 422, "{}", batch.text());
    assert_eq!(search(&json!({"query": "x", "k": 30, "include": ["title"]})).status, 200);
    assert!(server.stop().success());
}
