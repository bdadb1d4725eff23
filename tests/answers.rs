//! Questions with answers: no candidate contains one, and `anced evaluate` says where the answers stand.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test ends by panicking")]

mod common;

use std::path::Path;

use common::judged::write_set;
use common::{outcome, tiny_model};
use safetensors::SafeTensors;
use serde_json::{Value, json};

/// The candidates of each train query, by the documents' numbers.
fn candidates(data: &Path) -> Vec<Vec<u32>> {
    let job = std::fs::read_dir(data.join("jobs")).unwrap().next().unwrap().unwrap().path();
    let bytes = std::fs::read(job.join("candidates-1.safetensors")).unwrap();
    let tensors = SafeTensors::deserialize(&bytes).unwrap();
    let ends = tensors.tensor("ends").unwrap();
    let ends = ends.data().chunks_exact(8).map(|b| u64::from_le_bytes(b.try_into().unwrap()) as usize);
    let all = tensors.tensor("documents").unwrap();
    let all: Vec<u32> = all.data().chunks_exact(4).map(|b| u32::from_le_bytes(b.try_into().unwrap())).collect();
    let mut start = 0;
    ends.map(|end| all[std::mem::replace(&mut start, end)..end].to_vec()).collect()
}

#[test]
fn answers_are_no_negatives_and_are_measured() {
    let folder = tempfile::tempdir().unwrap();
    let (set, data) = (folder.path().join("set"), folder.path().join("data"));
    write_set(&set);
    // Document 30 says what the query says too: "the river breaks 30 again".
    let text = std::fs::read_to_string(set.join("queries.jsonl")).unwrap();
    let queries = text.lines().map(|line| {
        let mut query: Value = serde_json::from_str(line).unwrap();
        match query["_id"].as_str().unwrap() {
            "q0" => query["answers"] = json!(["River  breaks"]),
            "q40" => query["answers"] = json!(["again"]),
            "q41" => query["answers"] = json!(["nowhere", "to be found"]),
            _ => {}
        }
        query.to_string()
    });
    std::fs::write(set.join("queries.jsonl"), queries.collect::<Vec<_>>().join("\n")).unwrap();
    let data_folder = data.to_str().unwrap();
    let run = |arguments: &[&str]| {
        let done = outcome(arguments, &[]);
        assert_eq!(done.code, Some(0), "{arguments:?}: {done:?}");
        done.stdout
    };
    run(&["import", "--data", data_folder, set.to_str().unwrap()]);
    run(&["index", "--data", data_folder, "--model", tiny_model().to_str().unwrap()]);
    run(&["train", "--data", data_folder, "--rounds", "1", "--steps", "1", "--batch", "2", "--depth", "59"]);
    let found = candidates(&data);
    assert!(!found[0].contains(&30) && found[0].len() == 58, "{:?}", found[0]);
    assert!(found[1].contains(&31) && found[1].len() == 59, "no answers, nothing dropped: {:?}", found[1]);

    let measured = |split: &str| -> Value {
        serde_json::from_str(&run(&["evaluate", "--data", data_folder, "--json", "--bm25", "--split", split])).unwrap()
    };
    let dev = measured("dev");
    for measures in [&dev["measures"], &dev["bm25"]] {
        assert_eq!((&measures["Accuracy@20"], &measures["Accuracy@100"]), (&json!(0.5), &json!(0.5)), "{dev}");
        assert!(measures["nDCG@10"].is_f64());
    }
    let shown = run(&["evaluate", "--data", data_folder, "--split", "dev"]);
    assert!(shown.contains("Accuracy@20") && shown.contains("0.5000"), "{shown}");
    let without = tempfile::tempdir().unwrap();
    common::judged::prepared(without.path());
    let shown = run(&["evaluate", "--data", without.path().to_str().unwrap(), "--split", "dev", "--json"]);
    assert!(!shown.contains("Accuracy"), "{shown}");
}
