//! What operators rely on: readiness, metrics, request ids, limits, keys, a folder with its own ONNX file.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test ends by panicking")]

mod common;

use std::time::Duration;

use common::Server;
use common::corpus::{DOCUMENTS, assert_same_hits, fill, metrics, search, wait_for};
use common::raw::{exchange, request};
use serde_json::json;

#[test]
fn metrics_are_there_before_the_first_request_and_move_with_it() {
    let data = tempfile::tempdir().unwrap();
    let server = Server::start(data.path());
    let before = metrics(&server);
    let stages: Vec<String> = ["queue", "tokenize", "encode", "search", "fetch"]
        .map(|stage| format!("anced_search_stage_duration_seconds_count{{stage=\"{stage}\"}}"))
        .into();
    for stage in &stages {
        assert_eq!(before[stage], 0.0, "{stage}");
    }
    let requests = "anced_http_requests_total{method=\"POST\",route=\"/search\",status=\"200\"}";
    let durations = "anced_http_request_duration_seconds_count{route=\"/search\"}";
    for name in
        [requests, durations, "anced_encoder_queue_depth", "anced_index_documents", "anced_documents_written_total"]
    {
        assert_eq!(before[name], 0.0, "{name}");
    }
    for reason in ["queue_full", "stopping", "not_ready", "timeout"] {
        assert!(before.contains_key(&format!("anced_rejected_requests_total{{reason=\"{reason}\"}}")), "{reason}");
    }
    for (route, method, status) in [
        ("/documents", "POST", 507),
        ("/documents/{id}", "DELETE", 404),
        ("/admin/refresh", "POST", 202),
        ("/admin/refresh", "POST", 409),
        ("/admin/status", "GET", 401),
    ] {
        let name = format!("anced_http_requests_total{{method=\"{method}\",route=\"{route}\",status=\"{status}\"}}");
        assert_eq!(before.get(&name), Some(&0.0), "{name}");
    }
    for result in ["done", "rejected", "failed", "stopped", "cancelled"] {
        assert_eq!(before[&format!("anced_refreshes_total{{result=\"{result}\"}}")], 0.0);
    }
    assert!(before["anced_refresh_loss"].is_nan() && before.contains_key("anced_encoder_fallback"));
    assert!(before["anced_live_generation_since_timestamp_seconds"] >= before["process_start_time_seconds"]);
    assert!((1.0..=before["anced_data_disk_size_bytes"]).contains(&before["anced_data_disk_free_bytes"]));
    let info = before.iter().find(|(name, _)| name.starts_with("anced_encoder_info{")).unwrap();
    assert!(info.0.contains("device=\"cpu\"") && info.0.contains("precision=\"fp32\"") && *info.1 == 1.0, "{info:?}");
    assert_eq!(before["anced_live_generation"], 1.0);
    assert!(
        before.contains_key("anced_live_generation_age_seconds")
            && before.contains_key("process_resident_memory_bytes")
    );

    fill(&server);
    for _ in 0..3 {
        search(&server, json!({"query": "a", "k": 1}));
    }
    assert_eq!(server.post("/search", &json!({"query": "a", "k": 0})).status, 422);
    let after = metrics(&server);
    for stage in &stages {
        assert_eq!(after[stage], 3.0, "{stage}");
    }
    assert_eq!((after[requests], after[durations]), (3.0, 4.0));
    assert_eq!(after[&requests.replace("200", "422")], 1.0);
    assert_eq!(after["anced_index_documents"], DOCUMENTS as f64);
    assert_eq!(after["anced_documents_written_total"], DOCUMENTS as f64);
    assert!(after["anced_index_bytes"] > 0.0);
    for name in ["anced_encoder_batch_queries_count", "anced_encoder_batch_tokens_sum"] {
        assert!(after[name] > before[name], "{name}");
    }
    // A series that only a request brings would break dashboards; other statuses than these may come later.
    let new: Vec<_> = after.keys().filter(|name| !before.contains_key(*name)).collect();
    assert!(new.is_empty(), "{new:?}");
}

#[test]
fn it_lives_but_is_not_ready_while_it_starts() {
    let data = tempfile::tempdir().unwrap();
    let corpus = data.path().join("corpus.jsonl");
    let long = "a long text about dense retrieval and negatives ".repeat(40);
    let lines: String =
        (0..3000).map(|at| format!("{}\n", json!({"_id": format!("d{at}"), "title": "", "text": long}))).collect();
    std::fs::write(&corpus, lines).unwrap();
    let server = Server::spawn(&data.path().join("data"), &["--sample", corpus.to_str().unwrap()]);
    let mut refused = 0;
    let ready = loop {
        let Some(answer) = server.try_get("/readyz") else {
            std::thread::sleep(Duration::from_millis(2));
            continue;
        };
        if answer.status == 200 {
            break answer;
        }
        refused += 1;
        assert_eq!((answer.status, &answer.json()["type"]), (503, &json!("urn:anced:problem:not-ready")));
        assert!(answer.headers.contains_key("retry-after"));
        assert_eq!(server.get("/healthz").status, 200);
        assert_eq!(server.get("/metrics").status, 200);
        let search = server.post("/search", &json!({"query": "a"}));
        assert!(matches!(search.status, 503 | 200), "{}", search.text());
    };
    assert_eq!(ready.json()["status"], "ready");
    assert!(refused > 0, "it was ready before it was asked");
    assert_eq!(server.search_ids("dense retrieval", 5).len(), 5);
}

#[test]
fn the_id_of_a_request_comes_back_and_is_in_the_log() {
    let data = tempfile::tempdir().unwrap();
    let server = &Server::start(data.path());
    let answer = exchange(server.port(), &request("GET", "/search?q=a", "x-request-id: mine-17\r\n", b""));
    assert_eq!((answer.status, answer.header("x-request-id")), (200, "mine-17"));
    wait_for("the log line", || server.log().contains("mine-17"));
}

#[test]
fn a_body_over_the_limit_is_refused_and_the_limit_passes() {
    let data = tempfile::tempdir().unwrap();
    let server = Server::start_with(data.path(), &["--max-body-bytes", "2000"]);
    let body = |length: usize| [r#"{"query": "a"}"#, &" ".repeat(length - 14)].concat();
    assert_eq!(server.post_raw("/search", "application/json", body(2000).as_bytes()).status, 200);
    for length in [2001, 5_000_000] {
        let answer = server.post_raw("/search", "application/json", body(length).as_bytes());
        assert_eq!((answer.status, &answer.json()["limit"]), (413, &json!(2000)));
    }
}

#[test]
fn keys_open_what_they_are_for() {
    let data = tempfile::tempdir().unwrap();
    let keys = ["--search-key", "s3arch", "--write-key", "wr1te", "--admin-key", "adm1n"];
    let mut server = Server::start_with(data.path(), &keys);
    let status = |method: &str, path: &str, key: &str, body: &str| {
        let key = if key.is_empty() { String::new() } else { format!("authorization: Bearer {key}\r\n") };
        let headers = format!("{key}content-type: application/json\r\n");
        let answer = exchange(server.port(), &request(method, path, &headers, body.as_bytes()));
        let challenge = answer.header("www-authenticate");
        assert_eq!(answer.status == 401, challenge.starts_with("bearer"), "{method} {path}: {challenge}");
        answer.status
    };
    let write = r#"{"documents": [{"id": "a", "text": "b"}]}"#;
    let rows = [
        ("GET", "/search?q=a", "", [401, 200, 200, 200, 401]),
        ("GET", "/documents", "", [401, 200, 200, 200, 401]),
        ("POST", "/documents", write, [401, 401, 200, 200, 401]),
        ("DELETE", "/documents/none", "", [401, 401, 404, 404, 401]),
        ("GET", "/admin/status", "", [401, 401, 401, 200, 401]),
        ("GET", "/healthz", "", [200; 5]),
        ("GET", "/metrics", "", [200; 5]),
        ("GET", "/", "", [200; 5]),
    ];
    for (method, path, body, wanted) in rows {
        let seen = ["", "s3arch", "wr1te", "adm1n", "s3arch2"].map(|key| status(method, path, key, body));
        assert_eq!(seen, wanted, "{method} {path}");
    }
    server.signal("TERM");
    assert!(server.wait().success());
    let log = server.log();
    assert!(log.contains("/search"), "requests are told: {log}");
    assert!(keys.iter().skip(1).step_by(2).all(|key| !log.contains(key)), "{log}");
}

/// A folder that brings its own ONNX file is indexed and searched as any other, with the same hits.
#[test]
fn a_folder_with_its_own_onnx_file_is_served() {
    let source = common::tiny_model();
    let folder = tempfile::tempdir().unwrap();
    let files = ["config.json", "tokenizer.json", "modules.json", "sentence_bert_config.json", "1_Pooling/config.json"];
    for file in files {
        let target = folder.path().join(file);
        std::fs::create_dir_all(target.parent().unwrap()).unwrap();
        std::fs::copy(source.join(file), target).unwrap();
    }
    let checkpoint = anced::encoder::Checkpoint::open(&source, &anced::encoder::Overrides::default()).unwrap();
    let mut onnx = checkpoint.to_onnx().unwrap().unwrap();
    // Under another producer's name, as an export of another program would have it.
    let at = onnx.windows(5).position(|window| window == b"anced").unwrap();
    onnx[at..at + 5].copy_from_slice(b"other");
    std::fs::create_dir(folder.path().join("onnx")).unwrap();
    std::fs::write(folder.path().join("onnx/model.onnx"), onnx).unwrap();

    let data = tempfile::tempdir().unwrap();
    let server = Server::start_with(data.path(), &["--model", folder.path().to_str().unwrap()]);
    fill(&server);
    let body = json!({"query": "vector number 15 about index", "k": 10, "include": ["title"]});
    let expected = {
        let data = tempfile::tempdir().unwrap();
        let server = Server::start(data.path());
        fill(&server);
        search(&server, body.clone())
    };
    assert_same_hits(&search(&server, body.clone())["hits"], &expected["hits"]);
    assert!(server.stop().success());
    // The generation keeps the folder: a restart needs nothing else.
    drop(folder);
    let server = Server::start(data.path());
    assert_same_hits(&search(&server, body)["hits"], &expected["hits"]);
}
