//! A small set to train on: documents, queries and judgments.

use std::path::Path;

use serde_json::json;

use super::Server;
use super::corpus::fill;

const DOCUMENTS: usize = 60;

/// A small BEIR set: a query's positive says what the query says.
pub fn write_set(folder: &Path) {
    let subject = ["river", "engine", "paper", "winter", "garden", "signal"];
    let verb = ["breaks", "grows", "turns", "stops", "carries"];
    let words = |at: usize| format!("{} {} {}", subject[at % 6], verb[at / 6 % 5], at);
    let documents: Vec<String> = (0..DOCUMENTS)
        .map(|at| json!({"_id": format!("d{at}"), "title": "", "text": format!("the {} again", words(at))}).to_string())
        .collect();
    let queries: Vec<String> = (0..DOCUMENTS)
        .map(|at| json!({"_id": format!("q{at}"), "text": format!("when {}", words(at))}).to_string())
        .collect();
    let judged = |range: std::ops::Range<usize>| {
        let lines = range.map(|at| format!("q{at}\td{at}\t1\n")).collect::<String>();
        format!("query-id\tcorpus-id\tscore\n{lines}")
    };
    std::fs::create_dir_all(folder.join("qrels")).unwrap();
    std::fs::write(folder.join("corpus.jsonl"), documents.join("\n")).unwrap();
    std::fs::write(folder.join("queries.jsonl"), queries.join("\n")).unwrap();
    std::fs::write(folder.join("qrels/train.tsv"), judged(0..40)).unwrap();
    std::fs::write(folder.join("qrels/dev.tsv"), judged(40..60)).unwrap();
}

/// A data folder with documents, judgments and one generation.
pub fn prepared(data: &Path) {
    let set = tempfile::tempdir().unwrap();
    write_set(set.path());
    let model = super::tiny_model();
    for arguments in [
        vec!["import", "--data", data.to_str().unwrap(), set.path().to_str().unwrap()],
        vec!["index", "--data", data.to_str().unwrap(), "--model", model.to_str().unwrap()],
    ] {
        let done = super::outcome(&arguments, &[]);
        assert_eq!(done.code, Some(0), "{done:?}");
    }
}

/// A refresh over the small set, on the tiny checkpoint: the rate makes it learn something in a few steps.
const LEARNS: [&str; 5] =
    ["env", "ANCED_LR=0.002", "ANCED_QUERY_TOKENS=16", "ANCED_PASSAGE_TOKENS=24", "ANCED_TOLERANCE=1"];

/// A server over such a folder that learns quickly, with some more documents.
pub fn serve(data: &Path, more: &[&str]) -> Server {
    prepared(data);
    let server = Server::spawn_by(&LEARNS, data, more);
    server.wait_until_ready();
    fill(&server);
    server
}
