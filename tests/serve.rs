//! A server from an empty data folder: write, search, delete, stop, start again.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test ends by panicking")]

mod common;

use common::Server;
use common::raw::{exchange, request};
use serde_json::json;

fn document(id: &str, text: &str) -> serde_json::Value {
    json!({"id": id, "title": "", "text": text, "metadata": {"kind": "test"}})
}

#[test]
fn what_is_written_is_found_and_outlives_the_server() {
    let data = tempfile::tempdir().unwrap();
    let server = Server::start(data.path());
    assert!(server.search_ids("anything", 10).is_empty());

    let texts = ["dense text retrieval", "the index is refreshed", "negatives come from the index"];
    let documents: Vec<_> = texts.iter().enumerate().map(|(at, text)| document(&format!("d{at}"), text)).collect();
    let answer = server.post("/documents", &json!({"documents": documents}));
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert_eq!(answer.json()["written"], 3);
    assert_eq!(server.search_ids("the index is refreshed", 1), ["d1"]);

    // An update replaces: the old text is never returned.
    let answer = server.post("/documents", &json!({"documents": [document("d1", "something else entirely")]}));
    assert_eq!(answer.status, 200, "{}", answer.text());
    let answer = server.post("/search", &json!({"query": "the index is refreshed", "k": 10})).json();
    assert!(answer["hits"].as_array().unwrap().iter().all(|hit| hit["text"] != "the index is refreshed"), "{answer}");

    assert_eq!(server.delete("/documents/d0").status, 200);
    assert!(server.stop().success());

    let server = Server::start(data.path());
    let mut ids = server.search_ids("dense text retrieval", 10);
    ids.sort();
    assert_eq!(ids, ["d1", "d2"]);
    assert_eq!(server.search_ids("something else entirely", 1), ["d1"]);
    assert!(server.stop().success());
}

#[test]
fn keys_of_the_environment_are_taken_as_they_stand() {
    let data = tempfile::tempdir().unwrap();
    let keys = ["env", "ANCED_SEARCH_KEY=0012", "ANCED_WRITE_KEY=true", "ANCED_ADMIN_KEY=[1.50"];
    let server = Server::spawn_by(&keys, data.path(), &[]);
    server.wait_until_ready();
    let status = |path: &str, key: &str| {
        let answer = exchange(server.port(), &request("GET", path, &format!("authorization: Bearer {key}\r\n"), b""));
        answer.status
    };
    for (key, search, admin) in [("0012", 200, 401), ("12", 401, 401), ("true", 200, 401), ("[1.50", 200, 200)] {
        assert_eq!((status("/search?q=a", key), status("/admin/status", key)), (search, admin), "{key}");
    }
    assert!(server.stop().success());
}
