//! Refreshes of a server under test.

use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::Server;

/// Far more than anything here takes; a training has the lowest priority, and the machine other things to do.
pub const PATIENCE: Duration = Duration::from_secs(600);

/// A run of two rounds that always passes the gate; `steps` a round.
pub fn quick(steps: u64) -> Value {
    json!({
        "rounds": 2, "steps": steps, "batch": 4, "depth": 10,
        "query_tokens": 16, "passage_tokens": 24, "tolerance": 1,
    })
}

pub fn start(server: &Server, settings: &Value) -> String {
    let answer = server.post("/admin/refresh", settings);
    assert_eq!(answer.status, 202, "{}", answer.text());
    let id = answer.json()["job"].as_str().unwrap().to_owned();
    assert_eq!(answer.headers["location"], format!("/admin/jobs/{id}"));
    id
}

pub fn job(server: &Server, id: &str) -> Value {
    let answer = server.get(&format!("/admin/jobs/{id}"));
    assert_eq!(answer.status, 200, "{}", answer.text());
    answer.json()
}

/// Waits until a job is as wanted.
pub fn wait(server: &Server, id: &str, wanted: impl Fn(&Value) -> bool) -> Value {
    let started = Instant::now();
    loop {
        let job = job(server, id);
        if wanted(&job) {
            return job;
        }
        assert!(started.elapsed() < PATIENCE, "{job}\n{}", server.log());
        std::thread::sleep(Duration::from_millis(30));
    }
}

pub fn ended(server: &Server, id: &str) -> Value {
    wait(server, id, |job| job["state"] != "running")
}

/// As [`ended`], without a pause between two looks.
pub fn ended_at_once(server: &Server, id: &str) -> Value {
    let started = Instant::now();
    loop {
        let job = job(server, id);
        if job["state"] != "running" {
            return job;
        }
        assert!(started.elapsed() < PATIENCE, "{job}\n{}", server.log());
    }
}

/// Waits until a job that runs has done so many steps.
pub fn stepping(server: &Server, id: &str, step: u64) -> Value {
    wait(server, id, |job| {
        assert_eq!(job["state"], "running", "{job}\n{}", server.log());
        job["step"].as_u64().unwrap() >= step
    })
}

/// Goes on with a job.
pub fn resume(server: &Server, id: &str) {
    let answer = server.post(&format!("/admin/jobs/{id}/resume"), &json!({}));
    assert_eq!(answer.status, 202, "{}", answer.text());
}

/// The training process of a job.
pub fn child_of(id: &str) -> Option<String> {
    let found = Command::new("pgrep").args(["-f", &format!("train --json --job {id}")]).output().unwrap();
    String::from_utf8(found.stdout).unwrap().lines().next().map(str::to_owned)
}

pub fn kill(process: &str) {
    assert!(Command::new("kill").args(["-9", process]).status().unwrap().success());
}
