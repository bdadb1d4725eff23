//! A training process that hangs or takes too much memory is killed and told, and its job goes on.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test ends by panicking")]

mod common;

use std::process::Command;

use common::Server;
use common::jobs::{child_of, ended, job, quick, resume, start, stepping, wait};
use common::judged::prepared;
use serde_json::json;

/// Steps that nothing here waits for the end of.
const MANY: u64 = 5000;

/// Waits until a job was killed for a reason, and checks that it goes on without the limit.
fn killed_and_gone_on_with(data: &std::path::Path, server: Server, id: &str, reason: &str) {
    let failed = ended(&server, id);
    assert_eq!((&failed["state"], &failed["resumable"]), (&json!("failed"), &json!(true)), "{failed}");
    assert!(failed["reason"].as_str().unwrap().contains(reason), "{failed}");
    assert!(server.log().contains("refresh failed"), "{}", server.log());
    assert_eq!(child_of(id), None, "its process is gone");
    assert!(server.stop().success());

    let server = Server::start(data);
    let at = job(&server, id)["step"].as_u64().unwrap();
    resume(&server, id);
    stepping(&server, id, at + 1);
    assert!(server.stop().success());
}

#[test]
fn a_process_that_hangs_is_killed() {
    let folder = tempfile::tempdir().unwrap();
    prepared(folder.path());
    let server = Server::start_with(folder.path(), &["--refresh-stall", "20"]);
    let id = start(&server, &quick(MANY));
    wait(&server, &id, |job| {
        if job["state"] != "running" {
            // On a busy machine it had not even begun.
            assert!(job["reason"].as_str().unwrap().contains("said nothing"), "{job}");
            resume(&server, &id);
        }
        job["step"].as_u64().unwrap() > 1
    });
    let process = child_of(&id).unwrap();
    assert!(Command::new("kill").args(["-STOP", &process]).status().unwrap().success());
    killed_and_gone_on_with(folder.path(), server, &id, "said nothing for 20 s");
}

#[test]
fn a_process_that_holds_too_much_memory_is_killed() {
    let folder = tempfile::tempdir().unwrap();
    prepared(folder.path());
    let server = Server::start_with(folder.path(), &["--refresh-memory", "4"]);
    let id = start(&server, &quick(MANY));
    killed_and_gone_on_with(folder.path(), server, &id, "refresh_memory is 4");
}
