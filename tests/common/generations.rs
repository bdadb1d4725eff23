//! A data folder with two generations, and what a test asks about them.

use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use super::corpus::{DOCUMENTS, fill};
use super::{Server, outcome, root};

/// Generations 1 and 2: other weights, another dimension, another similarity.
pub const MODELS: [&str; 2] = ["bert-mean", "roberta-ance"];

pub fn model(name: &str) -> PathBuf {
    root().join("tests/fixtures/reference").join(name)
}

pub fn index(data: &Path, model: &Path) -> Value {
    let [data, model] = [data, model].map(|path| path.to_str().unwrap());
    let built = outcome(&["index", "--json", "--data", data, "--model", model], &[]);
    assert_eq!(built.code, Some(0), "{built:?}");
    serde_json::from_str(&built.stdout).unwrap()
}

/// A data folder with some documents and a generation of either model; the second is live.
pub fn two_generations() -> tempfile::TempDir {
    let data = tempfile::tempdir().unwrap();
    let server = Server::start_with(data.path(), &["--model", model(MODELS[0]).to_str().unwrap()]);
    fill(&server);
    assert!(server.stop().success());
    let built = index(data.path(), &model(MODELS[1]));
    assert_eq!((&built["generation"], &built["documents"]), (&json!(2), &json!(DOCUMENTS)));
    data
}

pub fn activate(server: &Server, number: u64) -> Value {
    let answer = server.post(&format!("/admin/generations/{number}/activate"), &json!({}));
    assert_eq!(answer.status, 200, "{}\n{}", answer.text(), server.log());
    answer.json()
}

pub fn live(server: &Server) -> u64 {
    server.get("/admin/status").json()["generation"]["number"].as_u64().unwrap()
}
