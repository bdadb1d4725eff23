//! What jobs leave behind: their records, the generations that they need, and those that are too many.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test ends by panicking")]

mod common;

use std::path::Path;

use anced::corpus::Store;
use common::Server;
use common::generations::{activate, live};
use common::jobs::{child_of, ended, ended_at_once, job, kill, quick, resume, start, stepping};
use common::judged::prepared;
use serde_json::{Value, json};

/// So many that nothing here waits for the end.
const MANY: u64 = 5000;

fn data() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    prepared(folder.path());
    folder
}

fn numbers(server: &Server) -> Vec<u64> {
    let answer = server.get("/admin/generations").json();
    answer["generations"].as_array().unwrap().iter().map(|of| of["number"].as_u64().unwrap()).collect()
}

/// A job's record as the store has it.
fn record(data: &Path, id: &str) -> Value {
    let records = Store::open(&data.join("store")).unwrap().jobs().unwrap();
    let mut records = records.iter().map(|record| serde_json::from_str::<Value>(record).unwrap());
    records.find(|job| job["id"] == id).unwrap()
}

#[test]
fn a_job_that_has_ended_makes_room_for_the_next_and_removes_old_generations() {
    let folder = data();
    let server = Server::start_with(folder.path(), &["--keep-generations", "1"]);
    let mut body = quick(1);
    body["tolerance"] = json!(-1);
    for number in 2..6 {
        // At the moment when it is seen to have ended.
        let id = start(&server, &body);
        let rejected = ended_at_once(&server, &id);
        assert_eq!((&rejected["state"], &rejected["generation"]), (&json!("rejected"), &json!(number)), "{rejected}");
        assert_eq!(numbers(&server), [1, number]);
    }
    assert_eq!(ended_at_once(&server, &start(&server, &quick(1)))["state"], "done");
    // The newest of those that passed, the one that it was trained from, and the newest of those that did not.
    assert_eq!((live(&server), numbers(&server)), (6, vec![1, 5, 6]));
}

#[test]
fn what_a_job_needs_stays_while_it_runs() {
    let folder = data();
    let server = Server::start(folder.path());
    assert_eq!(ended(&server, &start(&server, &quick(1)))["state"], "done");
    assert_eq!(ended(&server, &start(&server, &quick(1)))["state"], "done");
    let id = start(&server, &quick(MANY));
    stepping(&server, &id, 1);
    activate(&server, 1);
    let refused = |answer: common::Answer, says: &str| {
        assert_eq!((answer.status, &answer.json()["job"]), (409, &json!(id)), "{}", answer.text());
        assert!(answer.text().contains(says), "{}", answer.text());
    };
    refused(server.delete("/admin/generations/3"), "started from it");
    // As it is noted when the job has built one.
    let note = folder.path().join("jobs").join(&id).join("generation");
    std::fs::write(&note, "2\n").unwrap();
    refused(server.delete("/admin/generations/2"), "built it");
    refused(server.post("/admin/generations/2/activate", &json!({})), "compares it");
    std::fs::remove_file(&note).unwrap();
    assert_eq!(server.delete("/admin/generations/2").status, 200);

    assert_eq!(server.delete(&format!("/admin/jobs/{id}")).status, 200);
    assert_eq!(ended(&server, &id)["resumable"], true);
    assert_eq!(server.delete("/admin/generations/3").status, 200);
    assert_eq!(job(&server, &id)["resumable"], false);
    let lost = server.post(&format!("/admin/jobs/{id}/resume"), &json!({}));
    assert_eq!(lost.status, 409);
    assert!(lost.text().contains("generation 3, which it started from, was removed"), "{}", lost.text());
    assert_eq!(server.delete(&format!("/admin/jobs/{id}")).status, 200, "what it keeps can be given up");
    assert!(!folder.path().join("jobs").join(&id).exists());
}

#[test]
fn the_end_of_a_job_is_recorded_when_there_is_room_again() {
    let folder = data();
    let server = Server::start(folder.path());
    let id = start(&server, &quick(MANY));
    stepping(&server, &id, 1);
    // Of the store's file only the first page can be written.
    server.limit_files(Some(4096));
    kill(&child_of(&id).unwrap());
    assert_eq!(ended(&server, &id)["state"], "failed", "{}", server.log());
    assert_eq!(record(folder.path(), &id)["state"], "running");
    let refused = server.post("/admin/refresh", &quick(1));
    assert!(![202, 409].contains(&refused.status), "{}", refused.text());
    let folders = std::fs::read_dir(folder.path().join("jobs")).unwrap().count();
    assert_eq!(folders, 1, "a job that did not start leaves nothing");

    server.limit_files(None);
    assert_eq!(job(&server, &id)["state"], "failed");
    assert_eq!(record(folder.path(), &id)["state"], "failed", "{}", server.log());
    resume(&server, &id);
    stepping(&server, &id, 1);
}

#[test]
fn a_job_goes_on_only_where_there_is_room() {
    let folder = data();
    let server = Server::start(folder.path());
    let id = start(&server, &quick(MANY));
    stepping(&server, &id, 1);
    assert_eq!(server.delete(&format!("/admin/jobs/{id}")).status, 200);
    assert_eq!(ended(&server, &id)["state"], "cancelled");
    assert!(server.stop().success());
    // As if the disk had become too small meanwhile.
    let mut large = record(folder.path(), &id);
    large["plan"]["rounds"] = json!(1_000_000_000);
    large["plan"]["recipe"]["schedule"]["steps"] = json!(1_000_000_000);
    Store::open(&folder.path().join("store")).unwrap().put_job(&id, &large.to_string()).unwrap();

    let server = Server::start(folder.path());
    let refused = server.post(&format!("/admin/jobs/{id}/resume"), &json!({}));
    assert_eq!(refused.status, 507, "{}", refused.text());
    assert!(refused.json()["missing"].as_u64().unwrap() > 0 && job(&server, &id)["resumable"] == true);
}

#[test]
fn a_program_that_was_replaced_goes_on_training() {
    let folder = data();
    // Not the binary itself: it is everybody's.
    let program = folder.path().join("anced");
    std::fs::copy(env!("CARGO_BIN_EXE_anced"), &program).unwrap();
    let run_copy = format!("shift; exec {} \"$@\"", program.display());
    let server = Server::spawn_by(&["sh", "-c", &run_copy, "sh"], folder.path(), &[]);
    server.wait_until_ready();
    std::fs::remove_file(&program).unwrap();
    std::fs::write(&program, "not a program").unwrap();
    let done = ended(&server, &start(&server, &quick(1)));
    assert_eq!(done["state"], "done", "{done}");
}

#[test]
fn a_record_that_cannot_be_read_hides_no_other() {
    let folder = data();
    let server = Server::start(folder.path());
    let id = start(&server, &quick(1));
    assert_eq!(ended(&server, &id)["state"], "done");
    assert!(server.stop().success());
    // As a newer version may write it.
    let mut newer = record(folder.path(), &id);
    newer["id"] = json!("newer");
    newer["plan"]["momentum"] = json!(0.9);
    Store::open(&folder.path().join("store")).unwrap().put_job("newer", &newer.to_string()).unwrap();

    let server = Server::start(folder.path());
    assert!(server.log().contains("newer") && server.log().contains("momentum"), "{}", server.log());
    let jobs = server.get("/admin/jobs").json();
    assert_eq!((jobs["jobs"].as_array().unwrap().len(), &jobs["jobs"][0]["id"]), (1, &json!(id)), "{jobs}");
    assert_eq!(server.get("/admin/jobs/newer").status, 404);
    assert_eq!(ended(&server, &start(&server, &quick(1)))["state"], "done");
}
