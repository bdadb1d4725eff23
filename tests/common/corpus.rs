//! A small corpus, searches in it, and what is compared.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::{PATIENCE, Server};

pub const TOPICS: [&str; 8] = ["retrieval", "index", "negatives", "training", "query", "passage", "model", "vector"];
pub const LANGUAGES: [&str; 3] = ["en", "de", "fr"];
pub const DOCUMENTS: usize = 300;

pub fn document(at: usize) -> Value {
    let mut metadata = json!({
        "lang": LANGUAGES[at % 3],
        "year": 2000 + at % 25,
        "tags": [TOPICS[at % 8], TOPICS[at / 8 % 8]],
        "author": {"name": format!("author {}", at % 7)},
    });
    if at.is_multiple_of(5) {
        metadata["reviewed"] = json!(at.is_multiple_of(2));
    }
    let text = format!("{} number {at} about {} and {}", TOPICS[at % 8], TOPICS[at / 8 % 8], TOPICS[at / 64]);
    json!({"id": format!("d{at:04}"), "title": format!("title {at}"), "text": text, "metadata": metadata})
}

pub fn fill(server: &Server) {
    let documents: Vec<Value> = (0..DOCUMENTS).map(document).collect();
    let answer = server.post("/documents", &json!({"documents": documents}));
    assert_eq!((answer.status, &answer.json()["written"]), (200, &json!(DOCUMENTS)), "{}", answer.text());
}

pub fn search(server: &Server, body: Value) -> Value {
    let answer = server.post("/search", &body);
    assert_eq!(answer.status, 200, "{body}: {}", answer.text());
    answer.json()
}

pub fn ids(hits: &Value) -> Vec<&str> {
    hits.as_array().unwrap().iter().map(|hit| hit["id"].as_str().unwrap()).collect()
}

pub fn scores(hits: &Value) -> Vec<f64> {
    hits.as_array().unwrap().iter().map(|hit| hit["score"].as_f64().unwrap()).collect()
}

/// The same hits; neighbours whose scores are closer than rounding may change places.
pub fn assert_same_hits(left: &Value, right: &Value) {
    let (ours, theirs) = (scores(left), scores(right));
    assert_eq!(ours.len(), theirs.len());
    assert!(ours.iter().zip(&theirs).all(|(one, other)| (one - other).abs() <= 1e-5), "{ours:?}\n{theirs:?}");
    for (at, (one, other)) in ids(left).iter().zip(ids(right)).enumerate() {
        let is_tie = ours.iter().enumerate().any(|(place, score)| place != at && (score - ours[at]).abs() <= 1e-5);
        assert!(*one == other || is_tie || at + 1 == ours.len(), "{one} and {other} at {at}");
    }
}

pub fn wait_for(what: &str, mut holds: impl FnMut() -> bool) {
    let started = Instant::now();
    while !holds() {
        assert!(started.elapsed() < PATIENCE, "{what} did not come");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// Samples of the exposition format by name and labels, `_bucket` series left out; every line must parse.
pub fn metrics(server: &Server) -> BTreeMap<String, f64> {
    let text = server.get("/metrics").text();
    let mut samples = BTreeMap::new();
    let mut declared = BTreeSet::new();
    for line in text.lines() {
        if let Some(comment) = line.strip_prefix("# ") {
            let words: Vec<_> = comment.splitn(4, ' ').collect();
            assert!(matches!(words[0], "HELP" | "TYPE") && words.len() >= 3, "{line}");
            declared.insert(words[1].to_owned());
            continue;
        }
        let (name, value) = line.rsplit_once(' ').unwrap();
        let value: f64 = value.parse().unwrap_or_else(|_| panic!("{line}"));
        let family = name.split('{').next().unwrap();
        let base = ["_bucket", "_sum", "_count"].iter().find_map(|end| family.strip_suffix(end)).unwrap_or(family);
        assert!(declared.contains(family) || declared.contains(base), "{line}");
        assert!(samples.insert(name.to_owned(), value).is_none(), "twice: {line}");
    }
    samples.retain(|name, _| !name.contains("_bucket{"));
    samples
}
