//! `/admin/refresh`: a training beside the server whose generation goes live, cancelled, killed, resumed, rejected.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test ends by panicking")]

mod common;

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use common::generations::live;
use common::jobs::{PATIENCE, child_of, ended, job, kill, quick, resume, start, stepping};
use common::judged::prepared;
use common::{Ending, Server};
use serde_json::{Value, json};

/// So many that nothing here waits for the end.
const MANY: u64 = 5000;

/// The events of a job to the end of the answer.
fn events(server: &Server, id: &str) -> Vec<Value> {
    let answer = server.listen(&format!("/admin/jobs/{id}/events"));
    assert_eq!(answer.headers["content-type"], "text/event-stream");
    let text = answer.text();
    let data = text.lines().filter_map(|line| line.strip_prefix("data: "));
    data.map(|json| serde_json::from_str(json).unwrap()).collect()
}

fn kinds(events: &[Value]) -> Vec<&str> {
    events.iter().map(|event| event["event"].as_str().unwrap()).collect()
}

fn data() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    prepared(folder.path());
    folder
}

fn on_disk(data: &Path, id: &str, name: &str) -> bool {
    data.join("jobs").join(id).join(name).exists()
}

/// The names in a folder, sorted.
fn files(folder: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(folder).unwrap();
    let mut names: Vec<String> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[test]
fn a_refresh_goes_live_while_searches_and_writes_go_on() {
    let folder = data();
    let server = Server::start(folder.path());
    let outlook = json!({"refused": null, "recipe": "default", "rounds": 3, "steps": 200, "train_queries": 40,
        "dev_queries": 20});
    assert_eq!(server.get("/admin/refresh").json(), outlook);
    let done = AtomicBool::new(false);
    let (id, written) = std::thread::scope(|scope| {
        let searching = scope.spawn(|| {
            while !done.load(Ordering::Acquire) {
                assert_eq!(server.search_ids("when river breaks 0", 3).len(), 3);
            }
        });
        let writing = scope.spawn(|| {
            let mut written = 0;
            while !done.load(Ordering::Acquire) {
                let text = format!("a lamp number {written} of the harbour");
                let answer =
                    server.post("/documents", &json!({"documents": [{"id": format!("n{written}"), "text": text}]}));
                assert_eq!(answer.status, 200, "{}", answer.text());
                written += 1;
                std::thread::sleep(Duration::from_millis(50));
            }
            written
        });
        // What is asserted here must end the test, not only this thread.
        let _ended = Ending(&done);
        let id = start(&server, &quick(6));
        let again = server.post("/admin/refresh", &json!({}));
        assert_eq!((again.status, &again.json()["job"]), (409, &json!(id)), "{}", again.text());
        let outlook = server.get("/admin/refresh").json();
        assert!(outlook["refused"].as_str().unwrap().contains(&format!("job {id} runs")), "{outlook}");
        let metrics = server.get("/metrics").text();
        assert!(metrics.contains("anced_refresh_running 1"), "{metrics}");
        let told = events(&server, &id);
        done.store(true, Ordering::Release);
        let told_kinds = kinds(&told);
        for kind in ["started", "data", "phase", "measures", "took", "done", "live"] {
            assert!(told_kinds.contains(&kind), "{kind}: {told_kinds:?}");
        }
        assert_eq!(told_kinds.iter().filter(|kind| **kind == "step").count(), 12);
        // Each phase comes on to its end: one that says nothing for long is taken for hung.
        for phase in ["encode", "mine", "build"] {
            let is_over = |event: &&Value| event["phase"] == phase && event["total"].as_u64() == event["done"].as_u64();
            assert!(told.iter().any(|event| event["event"] == "phase" && is_over(&event)), "{phase}");
        }
        let last = told.last().unwrap();
        assert_eq!((&last["event"], &last["state"], &last["generation"]), (&json!("ended"), &json!("done"), &json!(2)));
        searching.join().unwrap();
        (id, writing.join().unwrap())
    });
    assert_eq!(live(&server), 2);
    let job = job(&server, &id);
    assert_eq!((&job["state"], &job["step"], &job["generation"]), (&json!("done"), &json!(12), &json!(2)), "{job}");
    assert_eq!((job["measures"].as_array().unwrap().len(), &job["resumable"]), (3, &json!(false)), "{job}");
    assert_eq!(job["round"], 2, "whichever round was the best: {job}");
    for number in 0..written {
        let found = server.search_ids(&format!("a lamp number {number} of the harbour"), 60 + written);
        assert!(found.contains(&format!("n{number}")), "n{number} of {written}");
    }
    assert_eq!(kinds(&events(&server, &id)).last(), Some(&"ended"), "told again afterwards");
    let metrics = server.get("/metrics").text();
    for part in [
        "anced_refresh_running 0",
        "anced_refresh_step 12",
        "anced_refresh_steps 12",
        "anced_refreshes_total{result=\"done\"} 1",
        "anced_swaps_total{result=\"done\"} 1",
        "anced_swap_duration_seconds_count 1",
        "anced_refresh_measure{generation=\"2\",measure=\"nDCG@10\"}",
        "anced_refresh_measure{generation=\"1\",measure=\"nDCG@10\"}",
        "anced_refresh_phase_duration_seconds_count{phase=\"swap\"} 1",
        "anced_live_generation 2",
    ] {
        assert!(metrics.contains(part), "{part}: {metrics}");
    }
    let left =
        ["done.json", "events.jsonl", "generation", "log", "measures-0.json", "measures-1.json", "measures-2.json"];
    let left = left.into_iter().chain(["parent", "plan.json", "settings.json"]);
    assert_eq!(files(&folder.path().join("jobs").join(&id)), left.collect::<Vec<_>>(), "no state, no candidates");
    for path in [format!("/admin/jobs/{id}/resume"), "/admin/jobs/nobody/resume".into()] {
        let answer = server.post(&path, &json!({}));
        assert_eq!(answer.status, if path.contains("nobody") { 404 } else { 409 }, "{}", answer.text());
    }
    assert_eq!(server.delete(&format!("/admin/jobs/{id}")).status, 409);
    assert_eq!(server.delete("/admin/jobs/nobody").status, 404);
    assert_eq!(server.get("/admin/jobs/nobody/events").status, 404);
}

#[test]
fn what_cannot_be_trained_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(folder.path());
    let nothing = server.post("/admin/refresh", &json!({}));
    assert!(nothing.status == 422 && nothing.text().contains("0 train queries with a positive"), "{}", nothing.text());
    let outlook = server.get("/admin/refresh").json();
    assert_eq!(outlook["refused"], nothing.json()["detail"], "told before it is tried");
    for (body, says) in [
        (json!({"rounds": 0}), "rounds"),
        (json!({"lr": 0}), "learning rate"),
        (json!({"measure": "speed"}), "speed"),
        (json!({"negatives": "guess"}), "guess"),
        (json!({"loss": "pairwise", "negatives": "none"}), "negatives"),
        (json!({"stepps": 5}), "stepps"),
        (json!({"steps": -1}), "steps"),
    ] {
        let told = server.post("/admin/refresh", &body);
        assert!(told.status == 422 && told.text().contains(says), "{body}: {}", told.text());
    }
    assert_eq!(server.get("/admin/jobs").json(), json!({"jobs": []}));
}

#[test]
fn a_cancelled_job_goes_on_and_a_killed_one_too() {
    let folder = data();
    let server = Server::start(folder.path());
    let id = start(&server, &quick(500));
    stepping(&server, &id, 3);
    assert_eq!(server.delete(&format!("/admin/jobs/{id}")).status, 200);
    let cancelled = ended(&server, &id);
    assert_eq!((&cancelled["state"], &cancelled["resumable"]), (&json!("cancelled"), &json!(true)), "{cancelled}");
    assert_eq!(kinds(&events(&server, &id)).last(), Some(&"ended"));

    // What the run learns from stays as it was, whatever is written meanwhile.
    let written = json!({"documents": [{"id": "d3", "text": "another text"}, {"id": "new", "text": "a new one"}]});
    assert_eq!(server.post("/documents", &written).status, 200);
    resume(&server, &id);
    let at = cancelled["step"].as_u64().unwrap();
    stepping(&server, &id, at + 2);
    kill(&child_of(&id).unwrap());
    let killed = ended(&server, &id);
    assert_eq!((&killed["state"], &killed["resumable"]), (&json!("failed"), &json!(true)), "{killed}");
    assert!(killed["reason"].as_str().unwrap().contains("signal: 9"), "{killed}");
    assert_eq!(live(&server), 1);

    resume(&server, &id);
    let done = ended(&server, &id);
    assert_eq!((&done["state"], &done["step"], &done["resumes"]), (&json!("done"), &json!(1000), &json!(2)), "{done}");
    assert_eq!(live(&server), 2);
    assert!(server.search_ids("a new one", 100).contains(&"new".into()));
}

#[test]
fn a_job_outlives_its_server() {
    let folder = data();
    let server = Server::start(folder.path());
    let id = start(&server, &quick(MANY));
    stepping(&server, &id, 2);
    let child = child_of(&id).unwrap();
    server.kill();
    let started = Instant::now();
    while child_of(&id).is_some() {
        assert!(started.elapsed() < PATIENCE, "{child} still runs");
        std::thread::sleep(Duration::from_millis(20));
    }
    assert!(on_disk(folder.path(), &id, "training.safetensors"), "it saved its state");

    let server = Server::start(folder.path());
    let stopped = job(&server, &id);
    assert_eq!((&stopped["state"], &stopped["resumable"]), (&json!("stopped"), &json!(true)), "{stopped}");
    let at = stopped["step"].as_u64().unwrap();
    resume(&server, &id);
    let resumed = stepping(&server, &id, at.max(2) + 1);
    assert!(server.stop().success(), "{resumed}");
    assert_eq!(child_of(&id), None);

    let server = Server::start(folder.path());
    let stopped = job(&server, &id);
    assert_eq!((&stopped["state"], &stopped["reason"]), (&json!("stopped"), &json!("the server stopped")), "{stopped}");
    assert!(stopped["step"].as_u64() >= resumed["step"].as_u64(), "{stopped} {resumed}");
    let given_up = server.delete(&format!("/admin/jobs/{id}")).json();
    assert_eq!((&given_up["state"], &given_up["resumable"]), (&json!("cancelled"), &json!(false)), "{given_up}");
    assert!(!on_disk(folder.path(), &id, ""));
    assert_eq!(live(&server), 1);
}

#[test]
fn what_measures_worse_is_kept_and_not_live() {
    let folder = data();
    let server = Server::start(folder.path());
    let mut body = quick(2);
    body["tolerance"] = json!(-1);
    let id = start(&server, &body);
    let rejected = ended(&server, &id);
    assert_eq!((&rejected["state"], &rejected["generation"]), (&json!("rejected"), &json!(2)), "{rejected}");
    assert!(rejected["reason"].as_str().unwrap().contains("generation 1 has"), "{rejected}");
    assert_eq!(live(&server), 1);
    let generations = server.get("/admin/generations").json();
    assert_eq!(generations["generations"][1]["status"], "rejected", "{generations}");

    // Its measures are shown as long as it is on the disk, also after a restart.
    let shown = |server: &Server| {
        let text = server.get("/metrics").text();
        text.contains("anced_refresh_measure{generation=\"2\",measure=\"nDCG@10\"}")
    };
    assert!(shown(&server) && server.get("/metrics").text().contains("anced_refreshes_total{result=\"rejected\"} 1"));
    assert!(server.stop().success());
    let server = Server::start(folder.path());
    assert!(shown(&server));
    assert_eq!(server.delete("/admin/generations/2").status, 200);
    assert!(!shown(&server));
}

/// Makes the store say that a job was cut off, as a server that is killed before a swap leaves it.
fn cut_off(data: &Path, id: &str) {
    let store = anced::corpus::Store::open(&data.join("store")).unwrap();
    let records = store.jobs().unwrap();
    let records = records.iter().map(|record| serde_json::from_str::<Value>(record).unwrap());
    let mut job = records.into_iter().find(|job| job["id"] == id).unwrap();
    job["state"] = json!("stopped");
    store.put_job(id, &job.to_string()).unwrap();
}

#[test]
fn a_job_that_goes_on_late_is_compared_with_what_is_live_by_then() {
    let folder = data();
    let server = Server::start(folder.path());
    let late = start(&server, &quick(2));
    assert_eq!(ended(&server, &late)["state"], "done");
    assert!(server.stop().success());
    // As if it had been cut off before its generation was live. It would not pass a gate again.
    cut_off(folder.path(), &late);
    std::fs::write(folder.path().join("LIVE"), "1\n").unwrap();
    let file = folder.path().join("jobs").join(&late).join("settings.json");
    let mut strict: Value = serde_json::from_slice(&std::fs::read(&file).unwrap()).unwrap();
    strict["tolerance"] = json!(-1);
    std::fs::write(&file, strict.to_string()).unwrap();

    let server = Server::start(folder.path());
    assert_eq!(ended(&server, &start(&server, &quick(2)))["state"], "done");
    assert_eq!(live(&server), 3);
    resume(&server, &late);
    let rejected = ended(&server, &late);
    assert_eq!((&rejected["state"], &rejected["generation"]), (&json!("rejected"), &json!(2)), "{rejected}");
    assert!(rejected["reason"].as_str().unwrap().contains("generation 3 has"), "{rejected}");
    assert_eq!(live(&server), 3);
    let told = events(&server, &late);
    let since = told.iter().rposition(|event| event["event"] == "started").unwrap();
    assert!(!kinds(&told[since..]).contains(&"step"), "only the gate is asked again: {:?}", kinds(&told[since..]));
    assert_eq!(server.get("/admin/generations").json()["generations"][1]["status"], "rejected");
}
