//! A disk that is full, for which a limit on file size stands in: writes are refused, nothing that was acknowledged is
//! lost, and the server lives on.
#![allow(clippy::unwrap_used, clippy::panic)]

mod common;

use std::path::Path;

use common::corpus::wait_for;
use common::random::Random;
use common::{Outcome, Server, outcome, starter, tiny_model};
use serde_json::{Value, json};

fn size(file: &Path) -> u64 {
    std::fs::metadata(file).unwrap().len()
}

fn post(server: &Server, documents: &[Value]) -> common::Answer {
    server.post("/documents", &json!({"documents": documents}))
}

fn assert_whole(server: &Server, acknowledged: &[(String, String)]) {
    let status = server.get("/admin/status").json();
    let count = json!(acknowledged.len());
    assert_eq!((&status["documents"], &status["indexed"]), (&count, &count), "{status}");
    let queries: Vec<&str> = acknowledged.iter().map(|(_, text)| text.get(..40).unwrap_or(text)).collect();
    for (id, text) in acknowledged {
        let answer = server.get(&format!("/documents/{id}"));
        assert_eq!((answer.status, answer.json()["text"].as_str()), (200, Some(text.as_str())), "{id}");
    }
    let answer = server.post("/search", &json!({"queries": queries, "k": acknowledged.len(), "include": []})).json();
    for result in answer["results"].as_array().unwrap() {
        assert_eq!(result["hits"].as_array().unwrap().len(), acknowledged.len());
    }
}

#[test]
fn a_server_without_room_refuses_writes_and_loses_none() {
    let data = tempfile::tempdir().unwrap();
    let mut random = Random::from_seed("no room");
    let mut document = |number: usize| (format!("d{number}"), random.text(500));
    let body = |documents: &[(String, String)]| -> Vec<Value> {
        documents.iter().map(|(id, text)| json!({"id": id, "text": text})).collect()
    };
    let mut server = Server::start(data.path());
    let mut acknowledged = vec![document(0)];
    assert_eq!(post(&server, &body(&acknowledged)).status, 200);

    let room = size(&data.path().join("store/data.mdb")) + 200_000;
    server.limit_files(Some(room));
    let mut refused = Vec::new();
    let mut answers = Vec::new();
    for number in 1..200 {
        // Several a write, so that one could be kept by half.
        let documents: Vec<_> = (0..3).map(|part| document(number * 10 + part)).collect();
        let answer = post(&server, &body(&documents));
        match answer.status {
            200 => acknowledged.extend(documents),
            _ => {
                refused.extend(documents);
                answers.push(answer);
            }
        }
        if answers.len() == 5 {
            break;
        }
    }
    assert_eq!(answers.len(), 5, "the limit does not hold");
    assert!(acknowledged.len() > 20, "{} acknowledged", acknowledged.len());
    for answer in &answers {
        let problem = answer.json();
        assert_eq!(
            (answer.status, problem["type"].as_str()),
            (507, Some("urn:anced:problem:storage-full")),
            "{problem}"
        );
        let detail = problem["detail"].as_str().unwrap();
        assert!(detail.contains("file size") && detail.contains("nothing of this write was kept"), "{problem}");
    }
    // A stream says how much of it is on disk.
    let lines: String = body(&refused[..3]).iter().map(|line| format!("{line}\n")).collect();
    let streamed = server.post_raw("/documents", "application/x-ndjson", lines.as_bytes());
    assert_eq!((streamed.status, &streamed.json()["written"]), (507, &json!(0)), "{}", streamed.text());
    assert!(server.is_alive());
    for (id, _) in &refused {
        assert_eq!(server.get(&format!("/documents/{id}")).status, 404, "{id} was refused and is there");
    }
    assert_whole(&server, &acknowledged);
    assert_eq!(server.get("/readyz").status, 200);

    // Room again: the same server goes on.
    server.limit_files(None);
    assert_eq!(post(&server, &body(&refused[..3])).status, 200);
    acknowledged.extend_from_slice(&refused[..3]);
    assert_whole(&server, &acknowledged);
    assert!(!server.log().contains("panicked"), "{}", server.log());
    server.kill();
    let server = Server::start(data.path());
    assert_whole(&server, &acknowledged);
}

#[test]
fn a_stop_that_cannot_save_says_so_and_the_next_start_makes_up_for_it() {
    let data = tempfile::tempdir().unwrap();
    let mut random = Random::from_seed("stop without room");
    let documents: Vec<(String, String)> = (0..200).map(|number| (format!("d{number}"), random.text(10))).collect();
    let body: Vec<Value> = documents.iter().map(|(id, text)| json!({"id": id, "text": text})).collect();
    let mut server = Server::start(data.path());
    assert_eq!(post(&server, &body).status, 200);
    // Vectors of 200 documents take 26 kB, their graph more.
    for bytes in [20_000, 27_500, 30_000] {
        server.limit_files(Some(bytes));
        server.signal("TERM");
        assert_eq!(server.wait().code(), Some(1), "{bytes}: {}", server.log());
        let log = server.log();
        let says = ["could not be saved", "nothing is lost", "000001/"];
        assert!(says.iter().all(|part| log.contains(part)) && !log.contains("panicked"), "{log}");
        let files: Vec<_> = std::fs::read_dir(data.path().join("generations/000001"))
            .unwrap()
            .map(|file| file.unwrap().file_name())
            .collect();
        assert_eq!(files.len(), 4, "the old files and nothing else: {files:?}");

        // A start under the same limit serves too: only its save fails.
        let command = format!("ulimit -Sf {}; exec \"$0\" \"$@\"", bytes / 512);
        server = Server::spawn_by(&["sh", "-c", &command], data.path(), &[]);
        server.wait_until_ready();
        wait_for("the error of the save", || server.log().contains("could not be saved"));
        assert_whole(&server, &documents);
    }
    server.kill();
    let server = Server::start(data.path());
    assert_whole(&server, &documents);
    assert!(server.stop().success());
}

#[test]
fn a_save_that_fails_while_writes_go_on_is_not_tried_at_every_one() {
    let data = tempfile::tempdir().unwrap();
    let mut random = Random::from_seed("save without room");
    let server = Server::start_with(data.path(), &["--save-after", "100"]);
    let fill = |server: &Server, documents: &[(String, String)]| {
        let body: Vec<Value> = documents.iter().map(|(id, text)| json!({"id": id, "text": text})).collect();
        assert_eq!(post(server, &body).status, 200);
    };
    let mut new = |from: usize, to: usize| -> Vec<(String, String)> {
        (from..to).map(|number| (format!("d{number}"), random.text(6))).collect()
    };
    // The hundredth write saves, and finds something in its way.
    let generation = data.path().join("generations/000001");
    std::fs::create_dir(generation.join("index-100.usearch")).unwrap();
    let mut documents = new(0, 90);
    fill(&server, &documents);
    for document in new(90, 120) {
        fill(&server, std::slice::from_ref(&document));
        documents.push(document);
    }
    wait_for("the error of the save", || server.log().contains("could not be saved"));
    let failures = server.log().matches("could not be saved").count();
    assert_eq!(failures, 1, "{}", server.log());
    assert_whole(&server, &documents);
    let last = new(120, 200);
    fill(&server, &last);
    documents.extend(last);
    assert!(generation.join("index-200.usearch").is_file() && !generation.join("vectors-100.safetensors").exists());
    server.kill();
    assert_whole(&Server::start(data.path()), &documents);
}

fn limited(blocks: u32, arguments: &[&str]) -> Outcome {
    let output = starter("sh")
        .args(["-c", &format!("ulimit -f {blocks}; exec \"$0\" \"$@\""), env!("CARGO_BIN_EXE_anced")])
        .args(arguments)
        .output()
        .unwrap();
    let [stdout, stderr] = [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
    Outcome { code: output.status.code(), stdout, stderr }
}

#[test]
fn commands_without_room_fail_and_leave_what_was_there() {
    let data = tempfile::tempdir().unwrap();
    let folder = data.path().to_str().unwrap();
    let model = tiny_model();
    let index = ["index", "--data", folder, "--model", model.to_str().unwrap()];
    assert_eq!(outcome(&["import", "--data", folder, "tests/fixtures/import/beir"], &[]).code, Some(0));
    assert_eq!(outcome(&index, &[]).code, Some(0));
    // A limit in blocks of 512 bytes: below the checkpoint's weights, and below its ONNX file.
    for blocks in [200, 290] {
        let failed = limited(blocks, &index);
        assert_eq!(failed.code, Some(1), "{failed:?}");
        assert!(failed.stderr.contains("000002.new/checkpoint/"), "{failed:?}");
        assert!(!failed.stderr.contains("panicked") && failed.stdout.is_empty(), "{failed:?}");
        let names: Vec<_> = std::fs::read_dir(data.path().join("generations")).unwrap().flatten().collect();
        assert_eq!(names.len(), 1, "{names:?}");
        assert_eq!(std::fs::read_to_string(data.path().join("LIVE")).unwrap(), "1\n");
    }
    let import = ["import", "--data", folder, "tests/data/nl2bash"];
    let failed = limited(1500, &import);
    assert_eq!(failed.code, Some(1), "{failed:?}");
    assert!(failed.stderr.contains("file size") && !failed.stderr.contains("panicked"), "{failed:?}");

    let server = Server::start(data.path());
    let status = server.get("/admin/status").json();
    assert_eq!(status["documents"], status["indexed"], "{status}");
    assert!(status["documents"].as_u64().unwrap() >= 3, "{status}");
}
