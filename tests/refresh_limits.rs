//! A training process that hangs or takes too much memory is killed and told, and its job goes on.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test ends by panicking")]

mod common;

use std::process::Command;

use common::Server;
use common::corpus::wait_for;
use common::judged::prepared;
use serde_json::{Value, json};

fn job(server: &Server, id: &str) -> Value {
    server.get(&format!("/admin/jobs/{id}")).json()
}

fn start(server: &Server) -> String {
    let body = json!({"rounds": 2, "steps": 5000, "batch": 4, "depth": 10, "query_tokens": 16, "passage_tokens": 24});
    let answer = server.post("/admin/refresh", &body);
    assert_eq!(answer.status, 202, "{}", answer.text());
    answer.json()["job"].as_str().unwrap().to_owned()
}

/// Waits until a job was killed for a reason, and checks that it goes on without the limit.
fn killed_and_gone_on_with(data: &std::path::Path, server: Server, id: &str, reason: &str) {
    wait_for("the end of the job", || job(&server, id)["state"] != "running");
    let failed = job(&server, id);
    assert_eq!((&failed["state"], &failed["resumable"]), (&json!("failed"), &json!(true)), "{failed}");
    assert!(failed["reason"].as_str().unwrap().contains(reason), "{failed}");
    assert!(server.log().contains("refresh failed"), "{}", server.log());
    let found = Command::new("pgrep").args(["-f", &format!("train --json --job {id}")]).output().unwrap();
    assert!(found.stdout.is_empty(), "its process is gone");
    assert!(server.stop().success());

    let server = Server::start(data);
    let at = job(&server, id)["step"].as_u64().unwrap();
    assert_eq!(server.post(&format!("/admin/jobs/{id}/resume"), &json!({})).status, 202);
    wait_for("a step", || {
        let job = job(&server, id);
        assert_eq!(job["state"], "running", "{job}");
        job["step"].as_u64().unwrap() > at
    });
    assert!(server.stop().success());
}

#[test]
fn a_process_that_hangs_is_killed() {
    let folder = tempfile::tempdir().unwrap();
    prepared(folder.path());
    let server = Server::start_with(folder.path(), &["--refresh-stall", "10"]);
    let id = start(&server);
    wait_for("a step", || job(&server, &id)["step"].as_u64().unwrap() > 1);
    let found = Command::new("pgrep").args(["-f", &format!("train --json --job {id}")]).output().unwrap();
    let process = String::from_utf8(found.stdout).unwrap().lines().next().unwrap().to_owned();
    assert!(Command::new("kill").args(["-STOP", &process]).status().unwrap().success());
    killed_and_gone_on_with(folder.path(), server, &id, "said nothing for 10 s");
}

#[test]
fn a_process_that_holds_too_much_memory_is_killed() {
    let folder = tempfile::tempdir().unwrap();
    prepared(folder.path());
    let server = Server::start_with(folder.path(), &["--refresh-memory", "4"]);
    let id = start(&server);
    killed_and_gone_on_with(folder.path(), server, &id, "refresh_memory is 4");
}
