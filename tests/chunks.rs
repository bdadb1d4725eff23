//! Long documents in several pieces: by the command line and over HTTP, in search and in training.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test ends by panicking")]

mod common;

use std::path::Path;

use common::{Outcome, Server, outcome, tiny_model};
use serde_json::{Value, json};

const WORDS: [&str; 16] = [
    "data",
    "training",
    "command",
    "document",
    "first",
    "model",
    "passage",
    "retrieval",
    "download",
    "result",
    "query",
    "negative",
    "output",
    "dense",
    "process",
    "sparse",
];
/// Words of a piece: `--max-seq-length 16` without two special tokens.
const PIECE: usize = 14;

fn words(from: usize, count: usize, stride: usize) -> String {
    (0..count).map(|at| WORDS[(from * 3 + at * stride + at / 16) % 16]).collect::<Vec<_>>().join(" ")
}

/// A document's text: three pieces, of which the third is its own.
fn text(at: usize) -> String {
    format!("{} {}", words(0, 2 * PIECE, 1), own(at))
}

fn own(at: usize) -> String {
    words(at, PIECE, 1 + at % 11)
}

/// Documents that differ in their third pieces only, and queries that say those; without others, all look alike.
fn write_set(folder: &Path) {
    let line = |value: Value| value.to_string() + "\n";
    let documents: String =
        (0..24).map(|at| line(json!({"_id": format!("d{at}"), "title": "", "text": text(at)}))).collect();
    let queries: String = (0..24).map(|at| line(json!({"_id": format!("q{at}"), "text": own(at)}))).collect();
    let judged = |range: std::ops::Range<usize>| {
        let lines = range.map(|at| format!("q{at}\td{at}\t1\n")).collect::<String>();
        format!("query-id\tcorpus-id\tscore\n{lines}")
    };
    std::fs::create_dir_all(folder.join("qrels")).unwrap();
    std::fs::write(folder.join("corpus.jsonl"), documents).unwrap();
    std::fs::write(folder.join("queries.jsonl"), queries).unwrap();
    std::fs::write(folder.join("qrels/train.tsv"), judged(0..14)).unwrap();
    std::fs::write(folder.join("qrels/dev.tsv"), judged(14..24)).unwrap();
}

fn anced(data: &Path, verb: &str, more: &[&str]) -> Outcome {
    let mut arguments = vec![verb, "--data", data.to_str().unwrap()];
    arguments.extend(more);
    let done = outcome(&arguments, &[]);
    assert_eq!(done.code, Some(0), "{arguments:?}: {done:?}");
    done
}

fn index(data: &Path, chunks: &str) {
    let model = tiny_model();
    anced(data, "index", &["--model", model.to_str().unwrap(), "--max-seq-length", "16", "--chunks", chunks]);
}

fn dev_recall(data: &Path) -> f64 {
    let measured = anced(data, "evaluate", &["--split", "dev", "--exact", "--json"]);
    let measured: Value = serde_json::from_str(&measured.stdout).unwrap();
    measured["measures"]["MRR@10"].as_f64().unwrap()
}

#[test]
fn the_third_piece_answers_and_is_trained_on() {
    let (set, folder) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let data = folder.path();
    write_set(set.path());
    anced(data, "import", &[set.path().to_str().unwrap()]);
    index(data, "1");
    let without = dev_recall(data);
    index(data, "3");
    let with = dev_recall(data);
    assert!(with > 0.99 && without < 0.5, "MRR@10 {with} with pieces, {without} without");

    let quick = ["--rounds", "2", "--steps", "3", "--batch", "4", "--depth", "5", "--tolerance", "1", "--json"];
    for more in [["--loss", "in-batch"], ["--loss", "pairwise"]] {
        let done = anced(data, "train", &[&quick[..], &more[..]].concat());
        let done: Value = serde_json::from_str(done.stdout.lines().last().unwrap()).unwrap();
        let (ours, theirs) = (&done["measures"]["MRR@10"], dev_recall(data));
        assert!((ours.as_f64().unwrap() - theirs).abs() < 1e-9, "{done}, evaluate says {theirs}");
        let number = done["generation"].as_u64().unwrap();
        let manifest = std::fs::read(data.join(format!("generations/{number:06}/manifest.json"))).unwrap();
        let manifest: Value = serde_json::from_slice(&manifest).unwrap();
        assert_eq!((&manifest["encoder"]["chunks"], &manifest["documents"]), (&json!(3), &json!(24)));
        // The measures of the round that was chosen are those of the generation: both score by the best piece.
        let round = &done["rounds"][done["best_round"].as_u64().unwrap() as usize]["MRR@10"];
        assert!((round.as_f64().unwrap() - theirs).abs() < 1e-6, "{done}");
    }
}

#[test]
fn a_server_answers_by_the_best_piece_before_and_after_a_kill() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path();
    let first = ["--max-seq-length", "16", "--chunks", "3"];
    let server = Server::start_with(data, &first);
    let documents: Vec<Value> = (0..24).map(|at| json!({"id": format!("d{at}"), "text": text(at)})).collect();
    assert_eq!(server.post("/documents", &json!({"documents": documents})).status, 200);
    let ask = |server: &Server, at: usize| {
        let answer = server.post("/search", &json!({"query": own(at), "k": 24, "include": ["vector"]}));
        let hits = answer.json()["hits"].as_array().unwrap().clone();
        assert_eq!(hits.len(), 24, "every document once");
        let embedded = server.post("/embed", &json!({"texts": [own(at)], "kind": "query"})).json();
        assert_eq!(embedded["vectors"][0].as_array().unwrap().len(), hits[0]["vector"].as_array().unwrap().len());
        hits
    };
    for at in [3, 17] {
        let hit = &ask(&server, at)[0];
        assert!(hit["id"] == format!("d{at}") && (hit["score"].as_f64().unwrap() - 1.0).abs() < 1e-4, "{hit}");
    }
    assert_eq!(server.post("/documents", &json!({"documents": [{"id": "d3", "text": words(0, 10, 1)}]})).status, 200);
    assert_eq!(server.delete("/documents/d17").status, 200);
    assert_eq!(server.post("/documents", &json!({"documents": [{"id": "e", "text": text(17)}]})).status, 200);
    server.kill();
    // The generation's own value counts, not what this start says.
    let server = Server::start_with(data, &[]);
    assert!(ask(&server, 3)[0]["id"] != "d3");
    assert_eq!(ask(&server, 17)[0]["id"], "e");
    let status = server.get("/admin/status").json();
    assert_eq!((&status["documents"], &status["indexed"]), (&json!(24), &json!(24)));
    assert!(server.stop().success());
}
