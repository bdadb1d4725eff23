//! Searches, documents and embeddings on a running server, as clients use them.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test ends by panicking")]

mod common;

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, Weak};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use common::Server;
use common::corpus::{DOCUMENTS, assert_same_hits, document, fill, ids, scores, search};
use serde_json::{Value, json};

/// One server with a small corpus for the tests that only read.
struct Shared {
    server: Server,
    _data: tempfile::TempDir,
}

/// The server that another test holds now, or a new one: it ends with the last test that holds it.
fn shared() -> Arc<Shared> {
    static RUNNING: Mutex<Weak<Shared>> = Mutex::new(Weak::new());
    let mut running = RUNNING.lock().unwrap();
    if let Some(shared) = running.upgrade() {
        return shared;
    }
    let data = tempfile::tempdir().unwrap();
    let server = Server::start(data.path());
    fill(&server);
    let shared = Arc::new(Shared { server, _data: data });
    *running = Arc::downgrade(&shared);
    shared
}

fn numbers(vector: &Value) -> Vec<f64> {
    vector.as_array().unwrap().iter().map(|number| number.as_f64().unwrap()).collect()
}

fn assert_close(left: &[f64], right: &[f64], tolerance: f64) {
    assert_eq!(left.len(), right.len());
    assert!(left.iter().zip(right).all(|(one, other)| (one - other).abs() <= tolerance), "{left:?}\n{right:?}");
}

#[test]
fn a_search_is_the_same_by_get_by_post_and_in_a_batch() {
    let shared = shared();
    let server = &shared.server;
    let filter = json!({"lang": ["en", "de"], "year": {"gte": 2003}});
    let queries = ["retrieval about index", "a query of the model", "VECTORS & ümlauts? 100%"];
    let common = json!({"k": 7, "offset": 2, "filter": filter, "include": ["title", "metadata"]});
    let with = |field: &str, value: Value| {
        let mut body = common.clone();
        body[field] = value;
        body
    };
    let batch = search(server, with("queries", json!(queries)));
    assert_eq!(batch["results"].as_array().unwrap().len(), queries.len());
    assert!(batch.get("hits").is_none());
    for (query, result) in queries.iter().zip(batch["results"].as_array().unwrap()) {
        let posted = search(server, with("query", json!(query)));
        let got = server.get(&format!(
            "/search?q={}&k=7&offset=2&filter={}&include=title,metadata",
            percent(query),
            percent(&filter.to_string())
        ));
        assert_eq!(got.status, 200, "{}", got.text());
        assert_same_hits(&posted["hits"], &got.json()["hits"]);
        assert_same_hits(&posted["hits"], &result["hits"]);
        assert_eq!(posted["hits"].as_array().unwrap().len(), 7);
        assert_eq!(posted["generation"], 1);
        let first = &posted["hits"][0];
        let members: BTreeSet<_> = first.as_object().unwrap().keys().map(String::as_str).collect();
        assert_eq!(members, BTreeSet::from(["id", "score", "title", "metadata"]));
        let stages: BTreeSet<_> = posted["took_ms"].as_object().unwrap().keys().map(String::as_str).collect();
        assert_eq!(stages, BTreeSet::from(["queue", "tokenize", "encode", "search", "fetch", "total"]));
    }
}

fn percent(text: &str) -> String {
    text.bytes().map(|byte| format!("%{byte:02X}")).collect()
}

type Holds = fn(usize) -> bool;

#[test]
fn filters_pass_what_a_naive_evaluation_passes() {
    let shared = shared();
    let server = &shared.server;
    let cases: Vec<(Value, Holds)> = vec![
        (json!({}), |_| true),
        (json!({"lang": "en"}), |at| at.is_multiple_of(3)),
        (json!({"lang": ["en", "fr", "nl"]}), |at| at % 3 != 1),
        (json!({"lang": []}), |_| false),
        (json!({"lang": "EN"}), |_| false),
        (json!({"year": 2007}), |at| at % 25 == 7),
        (json!({"year": 2007.0}), |at| at % 25 == 7),
        (json!({"year": "2007"}), |_| false),
        (json!({"year": {"gte": 2005, "lt": 2010}}), |at| (5..10).contains(&(at % 25))),
        (json!({"year": {"gt": 2005, "lte": 2010}}), |at| (6..=10).contains(&(at % 25))),
        (json!({"year": {"gt": 2010, "lt": 2005}}), |_| false),
        (json!({"lang": {"gte": "de", "lt": "en"}}), |at| at % 3 == 1),
        (json!({"tags": "vector"}), |at| at % 8 == 7 || at / 8 % 8 == 7),
        (json!({"author.name": "author 3"}), |at| at % 7 == 3),
        (json!({"reviewed": true}), |at| at.is_multiple_of(10)),
        (json!({"reviewed": false}), |at| at % 10 == 5),
        (json!({"not": {"reviewed": [true, false]}}), |at| !at.is_multiple_of(5)),
        (json!({"nothing": 1}), |_| false),
        (json!({"not": {"nothing": 1}}), |_| true),
        (json!({"lang": "en", "year": {"lt": 2003}}), |at| at.is_multiple_of(3) && at % 25 < 3),
        (json!({"and": [{"lang": "en"}, {"not": {"tags": "index"}}]}), |at| {
            at.is_multiple_of(3) && at % 8 != 1 && at / 8 % 8 != 1
        }),
        (json!({"or": [{"year": 2001}, {"and": [{"lang": "de"}, {"tags": ["model"]}]}]}), |at| {
            at % 25 == 1 || (at % 3 == 1 && (at % 8 == 6 || at / 8 % 8 == 6))
        }),
        (json!({"and": []}), |_| true),
        (json!({"or": []}), |_| false),
    ];
    for (filter, holds) in cases {
        let wanted: BTreeSet<String> =
            (0..DOCUMENTS).filter(|at| holds(*at)).map(|at| document(at)["id"].as_str().unwrap().to_owned()).collect();
        for exact in [false, true] {
            let body = json!({"query": "a vector", "k": DOCUMENTS, "filter": filter, "exact": exact});
            let answer = search(server, body);
            let found: BTreeSet<String> = ids(&answer["hits"]).into_iter().map(str::to_owned).collect();
            assert_eq!(found, wanted, "{filter}, exact {exact}");
            // The filtered hits are the unfiltered ones in their order, less those that do not pass.
            let top = search(server, json!({"query": "a vector", "k": 5, "filter": filter, "exact": exact}));
            assert_close(&scores(&top["hits"]), &scores(&answer["hits"])[..wanted.len().min(5)], 1e-5);
        }
    }
}

#[test]
fn the_graph_finds_what_exact_search_finds() {
    let shared = shared();
    let server = &shared.server;
    for query in ["retrieval", "number 17 about training", "passage and vector", "x"] {
        let graph = search(server, json!({"query": query, "k": 20}));
        let exact = search(server, json!({"query": query, "k": 20, "exact": true}));
        assert_same_hits(&graph["hits"], &exact["hits"]);
        assert!(scores(&exact["hits"]).is_sorted_by(|one, other| one >= other));
    }
}

#[test]
fn pages_follow_each_other_without_gaps_or_repeats() {
    // A server of its own: beside other queries in a batch, a vector may differ in its last bits, and near ties swap.
    let data = tempfile::tempdir().unwrap();
    let server = &Server::start(data.path());
    fill(server);
    for exact in [false, true] {
        let body =
            |k: usize, offset: usize| json!({"query": "index training", "k": k, "offset": offset, "exact": exact});
        let whole = search(server, body(DOCUMENTS, 0));
        let mut paged = Vec::new();
        for offset in (0..DOCUMENTS + 30).step_by(30) {
            let page = search(server, body(30, offset));
            paged.extend(ids(&page["hits"]).into_iter().map(str::to_owned));
        }
        assert_eq!(paged, ids(&whole["hits"]), "exact {exact}");
        assert_eq!(paged.iter().collect::<BTreeSet<_>>().len(), DOCUMENTS);
    }
}

#[test]
fn no_hit_is_below_the_least_score() {
    let shared = shared();
    let server = &shared.server;
    let all = search(server, json!({"query": "negatives", "k": 50}));
    let all = scores(&all["hits"]);
    let least = (all[9] + all[10]) / 2.0;
    let some = search(server, json!({"query": "negatives", "k": 50, "min_score": least}));
    assert_eq!(scores(&some["hits"]), all[..10]);
    let none = search(server, json!({"query": "negatives", "k": 50, "min_score": 1e6}));
    assert_eq!(none["hits"], json!([]));
}

#[test]
fn a_hit_carries_the_vector_that_embed_gives_and_its_product_is_the_score() {
    let shared = shared();
    let server = &shared.server;
    let query = "a query about passages";
    let answer = search(server, json!({"query": query, "k": 5, "include": ["title", "text", "vector"]}));
    let asked = server.post("/embed", &json!({"texts": [query], "kind": "query"})).json();
    let asked = numbers(&asked["vectors"][0]);
    for hit in answer["hits"].as_array().unwrap() {
        let passage = format!("{} {}", hit["title"].as_str().unwrap(), hit["text"].as_str().unwrap());
        let embedded = server.post("/embed", &json!({"texts": [passage], "kind": "passage"})).json();
        let vector = numbers(&hit["vector"]);
        assert_close(&vector, &numbers(&embedded["vectors"][0]), 1e-5);
        let product: f64 = vector.iter().zip(&asked).map(|(one, other)| one * other).sum();
        assert_close(&[product], &[hit["score"].as_f64().unwrap()], 1e-4);
    }
}

#[test]
fn documents_are_streamed_listed_read_and_deleted() {
    let data = tempfile::tempdir().unwrap();
    let server = Server::start(data.path());
    let id = |at: usize| format!("stream/{at:05}");
    let lines: String =
        (0..5000).map(|at| format!("{}\n", json!({"id": id(at), "text": format!("line {at} of it")}))).collect();
    let answer = server.post_raw("/documents", "application/x-ndjson", lines.as_bytes());
    assert_eq!((answer.status, &answer.json()["written"]), (200, &json!(5000)), "{}", answer.text());
    assert_eq!(answer.json()["sequence"], 5000);
    // The same again changes nothing.
    let again = server.post_raw("/documents", "application/x-ndjson", lines.as_bytes());
    assert_eq!(again.json(), json!({"written": 5000, "sequence": 5000}));

    let mut listed = Vec::new();
    let mut address = "/documents?limit=999".to_owned();
    loop {
        let page = server.get(&address).json();
        listed.extend(ids(&page["documents"]).into_iter().map(str::to_owned));
        let Some(next) = page["next"].as_str() else { break };
        assert_eq!(Some(next), listed.last().map(String::as_str));
        address = format!("/documents?limit=999&after={}", percent(next));
    }
    assert_eq!(listed, (0..5000).map(id).collect::<Vec<_>>());

    let path = |at: usize| format!("/documents/{}", percent(&id(at)));
    assert_eq!(server.get(&path(4321)).json()["text"], "line 4321 of it");
    let found = |query: &str| search(&server, json!({"query": query, "k": 3, "exact": true}));
    assert!(ids(&found("line 4321 of it")["hits"]).contains(&id(4321).as_str()));
    assert_eq!(server.delete(&path(4321)).json(), json!({"deleted": 1, "sequence": 5001}));
    assert_eq!((server.delete(&path(4321)).status, server.get(&path(4321)).status), (404, 404));
    assert!(!ids(&found("line 4321 of it")["hits"]).contains(&id(4321).as_str()));
    let many: Vec<String> = (0..1000).map(id).chain(["unknown".to_owned()]).collect();
    let answer = server.post("/documents/delete", &json!({"ids": many})).json();
    assert_eq!(answer["deleted"], 1000);
    let status = server.get("/admin/status").json();
    assert_eq!((&status["documents"], &status["indexed"]), (&json!(3999), &json!(3999)));
    let first = server.get("/documents?limit=1").json();
    assert_eq!(ids(&first["documents"]), [id(1000)]);
    let all = search(&server, json!({"query": "line", "k": 5000, "exact": true, "include": []}));
    assert_eq!(all["hits"].as_array().unwrap().len(), 3999);
}

#[test]
fn embeddings_agree_in_every_shape() {
    let shared = shared();
    let server = &shared.server;
    let texts = json!(["dense retrieval", "", "a second text that is longer than the first one"]);
    let embedded = server.post("/embed", &json!({"texts": texts, "kind": "passage"})).json();
    let openai = |format: &str| {
        let answer = server.post("/v1/embeddings", &json!({"input": texts, "model": "any", "encoding_format": format}));
        assert_eq!(answer.status, 200, "{}", answer.text());
        answer.json()
    };
    let (float, base64) = (openai("float"), openai("base64"));
    assert_eq!(float["usage"]["total_tokens"], embedded["tokens"]);
    for at in 0..3 {
        let vector = numbers(&embedded["vectors"][at]);
        assert_eq!(float["data"][at]["index"], at);
        assert_close(&numbers(&float["data"][at]["embedding"]), &vector, 1e-6);
        let bytes = STANDARD.decode(base64["data"][at]["embedding"].as_str().unwrap()).unwrap();
        let decoded: Vec<f64> =
            bytes.chunks_exact(4).map(|bytes| f64::from(f32::from_le_bytes(bytes.try_into().unwrap()))).collect();
        assert_close(&decoded, &vector, 1e-6);
    }
    let one = server.post("/v1/embeddings", &json!({"input": "dense retrieval", "model": "any"})).json();
    assert_close(&numbers(&one["data"][0]["embedding"]), &numbers(&embedded["vectors"][0]), 1e-5);
    let models = server.get("/v1/models").json();
    assert_eq!(models["data"][0]["id"], one["model"]);
}
