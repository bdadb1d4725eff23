//! Generations by the REST API: which there are, which are refused, which are removed.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test ends by panicking")]

mod common;

use anced::generation::{Manifest, Standing};
use common::Server;
use common::corpus::metrics;
use common::generations::{MODELS, activate, index, live, model, two_generations};
use serde_json::{Value, json};

#[test]
fn what_cannot_be_made_live_or_removed_is_refused_and_changes_nothing() {
    let data = two_generations();
    let server = &Server::start(data.path());
    let refused = |answer: common::Answer, status: u16, kind: &str, says: &str| {
        let problem = answer.json();
        let detail = problem["detail"].as_str().unwrap();
        assert_eq!(
            (answer.status, &problem["type"]),
            (status, &json!(format!("urn:anced:problem:{kind}"))),
            "{}",
            answer.text()
        );
        assert!(detail.contains(says), "{detail}");
        assert_eq!((live(server), server.search_ids("index", 5).len()), (2, 5));
    };
    let ask = |number: &str| server.post(&format!("/admin/generations/{number}/activate"), &json!({}));
    refused(ask("7"), 404, "unknown-generation", "no generation 7");
    refused(ask("2"), 409, "conflict", "live already");
    for number in ["one", "-1", "1.5", "99999999999999999999"] {
        refused(ask(number), 422, "invalid-field", "not the number of a generation");
    }
    refused(server.delete("/admin/generations/2"), 409, "conflict", "is live");
    refused(server.delete("/admin/generations/7"), 404, "unknown-generation", "no generation 7");
    refused(server.get("/admin/generations/1"), 405, "method-not-allowed", "");

    // A damaged file, a file that is gone: the live one goes on.
    let first = data.path().join("generations/000001");
    let (weights, aside) = (first.join("checkpoint/model.safetensors"), data.path().join("aside"));
    std::fs::rename(&weights, &aside).unwrap();
    refused(ask("1"), 409, "unsound-generation", "model.safetensors");
    let mut bytes = std::fs::read(&aside).unwrap();
    let last = bytes.len() - 1;
    bytes[last] ^= 1;
    std::fs::write(&weights, &bytes).unwrap();
    refused(ask("1"), 409, "unsound-generation", "checksum");
    std::fs::rename(&aside, &weights).unwrap();
    // LIVE cannot be written.
    let live_file = data.path().join("LIVE");
    std::fs::remove_file(&live_file).unwrap();
    std::fs::create_dir(&live_file).unwrap();
    assert_eq!(ask("1").status, 500);
    assert_eq!((live(server), server.search_ids("index", 5).len()), (2, 5));
    std::fs::remove_dir(&live_file).unwrap();
    std::fs::write(&live_file, "2\n").unwrap();
    let samples = metrics(server);
    assert_eq!(samples["anced_swaps_total{result=\"failed\"}"], 3.0);
    assert_eq!(samples["anced_swaps_total{result=\"done\"}"], 0.0);

    // Of two at once one is refused, and so is a removal meanwhile.
    let mut statuses: Vec<u16> = std::thread::scope(|scope| {
        let asked: Vec<_> = (0..2).map(|_| scope.spawn(|| ask("1").status)).collect();
        asked.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    statuses.sort_unstable();
    assert_eq!((statuses, live(server)), (vec![200, 409], 1));
    assert_eq!(std::fs::read_to_string(&live_file).unwrap(), "1\n");
}

#[test]
fn generations_are_listed_with_their_standing_and_a_rejected_one_says_so() {
    let data = two_generations();
    let folder = data.path().join("generations/000001");
    let text = std::fs::read_to_string(folder.join("manifest.json")).unwrap();
    assert!(!text.contains("\"status\""), "manifests of earlier versions must keep their checksum: {text}");
    let mut manifest = Manifest::read(&folder).unwrap();
    assert_eq!(manifest.status, Standing::Ready);
    manifest.status = Standing::Rejected;
    manifest.measures.insert("nDCG@10".into(), 0.25);
    manifest.write(&folder).unwrap();

    let server = Server::start(data.path());
    let listed = server.get("/admin/generations").json();
    let first = &listed["generations"][0];
    assert_eq!((&first["status"], &first["measures"]), (&json!("rejected"), &json!({"nDCG@10": 0.25})), "{listed}");
    assert_eq!((&first["model"], &first["live"], &first["parent"]), (&json!("bert-mean"), &json!(false), &Value::Null));
    let on_disk: u64 = manifest.files.keys().map(|name| std::fs::metadata(folder.join(name)).unwrap().len()).sum();
    assert!(on_disk > 100_000 && first["bytes"] == json!(on_disk), "{on_disk}: {first}");
    assert_eq!(listed["generations"][1]["status"], "ready");

    let report = activate(&server, 1);
    assert_eq!(report["status"], "rejected");
    assert!(report["note"].as_str().unwrap().contains("was rejected"), "{report}");

    let removed = server.delete("/admin/generations/2");
    assert_eq!((removed.status, &removed.json()["removed"]), (200, &json!(2)), "{}", removed.text());
    assert!(removed.json()["bytes"].as_u64().unwrap() > 100_000);
    assert_eq!(server.get("/admin/generations").json()["generations"].as_array().unwrap().len(), 1);
    assert_eq!(server.post("/admin/generations/2/activate", &json!({})).status, 404);
    assert!(server.stop().success());
    // What a killed removal leaves is removed by the next start, and the number is not given again.
    let generations = data.path().join("generations");
    std::fs::create_dir_all(generations.join("000002.removed/checkpoint")).unwrap();
    assert_eq!(index(data.path(), &model(MODELS[1]))["generation"], 3);
    let mut names: Vec<_> = std::fs::read_dir(generations).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    names.sort();
    assert_eq!(names, ["000001", "000003"]);
}
