//! A wall clock that jumps: nothing is refused, lost or taken for hung, and no age is negative.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test ends by panicking")]

mod common;

use std::path::{Path, PathBuf};

use common::corpus::metrics;
use common::jobs::{ended, start};
use common::judged::prepared;
use common::{Server, root};
use serde_json::json;

/// The library that tells a process another time than it is, from Debian's package.
fn library() -> Option<PathBuf> {
    let unpacked = root().join(".cache/libfaketime/usr/lib");
    let folders = std::fs::read_dir("/usr/lib").unwrap().chain(std::fs::read_dir(unpacked).into_iter().flatten());
    let place = |folder: std::fs::DirEntry| folder.path().join("faketime/libfaketimeMT.so.1");
    folders.map(|folder| place(folder.unwrap())).find(|file| file.is_file())
}

/// A server whose clock is as far from the true one as a file says.
fn server_by(clock: &Path, library: &Path, data: &Path) -> Server {
    let variables = [
        format!("LD_PRELOAD={}", library.display()),
        format!("FAKETIME_TIMESTAMP_FILE={}", clock.display()),
        "FAKETIME_NO_CACHE=1".to_owned(),
        // As when somebody sets the clock: what counts time since the start knows nothing of it.
        "FAKETIME_DONT_FAKE_MONOTONIC=1".to_owned(),
    ];
    let starter: Vec<&str> = std::iter::once("env").chain(variables.iter().map(String::as_str)).collect();
    let server = Server::spawn_by(&starter, data, &[]);
    server.wait_until_ready();
    server
}

fn year_of(time: &serde_json::Value) -> i32 {
    time.as_str().unwrap()[..4].parse().unwrap()
}

#[test]
fn a_clock_that_jumps_hurts_nothing() {
    let Some(library) = library() else {
        common::skipped("libfaketime is not on this machine; `make clock` fetches it");
        return;
    };
    let folder = tempfile::tempdir().unwrap();
    prepared(folder.path());
    let clock = folder.path().join("clock");
    let set = |offset: &str| {
        // All of it or nothing: it is read at every look at the clock.
        std::fs::write(clock.with_extension("new"), offset).unwrap();
        std::fs::rename(clock.with_extension("new"), &clock).unwrap();
    };
    set("+0");
    let server = server_by(&clock, &library, folder.path());
    let mut written = 0;
    let mut use_it = |server: &Server| {
        let id = format!("n{written}");
        let text = format!("a lamp number {written} of the harbour");
        let answer = server.post("/documents", &json!({"documents": [{"id": &id, "text": &text}]}));
        assert_eq!(answer.status, 200, "{}", answer.text());
        assert_eq!(server.search_ids(&text, 1), [id.as_str()]);
        let vote = server.post("/feedback", &json!({"query": "a lamp", "id": &id, "grade": 1}));
        assert_eq!(vote.status, 200, "{}", vote.text());
        for (name, value) in metrics(server) {
            let is_moment = name.contains("since") || name.contains("start_time");
            let is_time = name.contains("seconds") && !is_moment;
            assert!(!is_time || (0.0..1e8).contains(&value), "{name} {value}");
        }
        written += 1;
    };
    use_it(&server);

    // Forward and back, in a refresh and beside it.
    let settings = json!({"rounds": 2, "steps": 30, "batch": 4, "depth": 10, "tolerance": 1});
    let id = start(&server, &settings);
    for offset in ["+400d", "-800d", "+3d"] {
        set(offset);
        use_it(&server);
    }
    let job = ended(&server, &id);
    assert_eq!(job["state"], "done", "{job}");
    assert_eq!(server.get("/admin/status").json()["generation"]["number"], 2);

    set("-800d");
    let id = start(&server, &settings);
    let job = ended(&server, &id);
    assert_eq!(job["state"], "done", "{job}");
    let today = year_of(&server.get("/admin/generations").json()["generations"][0]["created"]);
    assert!(year_of(&job["created"]) < today, "the clock is not another one: {job}");
    use_it(&server);
    assert!(!server.log().contains("panicked"), "{}", server.log());
    assert!(server.stop().success());

    // A start with a clock from before everything that it finds.
    let server = server_by(&clock, &library, folder.path());
    let status = server.get("/admin/status").json();
    assert_eq!((&status["generation"]["number"], &status["fallback"]), (&json!(3), &json!(null)), "{status}");
    assert_eq!(status["documents"], status["indexed"]);
    use_it(&server);
    let jobs = server.get("/admin/jobs").json();
    assert_eq!(jobs["jobs"].as_array().unwrap().len(), 2);
    assert!(server.stop().success());
}
