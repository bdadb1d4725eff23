//! `anced snapshot` and `anced restore`: a copy taken under load is whole, a damaged one is refused.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test ends by panicking")]

mod common;

use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use common::generations::{activate, two_generations};
use common::jobs::{ended, job, quick, resume, start, stepping};
use common::judged::prepared;
use common::random::Random;
use common::{Ending, Outcome, Server, anced, outcome};
use serde_json::{Value, json};

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

fn snapshot(data: &Path, target: &Path) -> Outcome {
    outcome(&["snapshot", "--json", "--data", text(data), text(target)], &[])
}

fn restore(snapshot: &Path, data: &Path) -> Outcome {
    outcome(&["restore", "--json", "--data", text(data), text(snapshot)], &[])
}

fn verify(data: &Path) -> Outcome {
    outcome(&["verify", "--json", "--data", text(data)], &[])
}

fn object(outcome: &Outcome) -> Value {
    assert_eq!(outcome.code, Some(0), "{outcome:?}");
    serde_json::from_str(&outcome.stdout).unwrap()
}

fn refused(outcome: &Outcome, says: &str) {
    assert_eq!(outcome.code, Some(1), "{outcome:?}");
    assert!(outcome.stderr.contains(says) && !outcome.stderr.contains("panicked"), "`{says}`: {outcome:?}");
}

#[test]
fn a_snapshot_under_writes_and_swaps_has_every_acknowledged_document() {
    let data = two_generations();
    let backups = tempfile::tempdir().unwrap();
    // Saved after every few writes: the index files are replaced all the time.
    let server = Server::start_with(data.path(), &["--save-after", "5"]);
    let done = AtomicBool::new(false);
    let acknowledged: Mutex<Vec<(String, String)>> = Mutex::default();
    let known: Vec<Vec<(String, String)>> = std::thread::scope(|scope| {
        let writing = scope.spawn(|| {
            let mut random = Random::from_seed("snapshot");
            let mut at = 0;
            while !done.load(Ordering::Acquire) {
                let (id, words) = (format!("new-{at}"), random.text(6));
                let documents = json!([{"id": id, "text": words}, {"id": "changing", "text": random.text(3)}]);
                let answer = server.post("/documents", &json!({"documents": documents}));
                assert_eq!(answer.status, 200, "{}", answer.text());
                acknowledged.lock().unwrap().push((id, words));
                at += 1;
            }
        });
        let swapping = scope.spawn(|| {
            for turn in 0.. {
                if done.load(Ordering::Acquire) {
                    return turn;
                }
                activate(&server, 1 + turn % 2);
            }
            0
        });
        // What is asserted here must end the test, not only this thread.
        let _ended = Ending(&done);
        let known = (0..4).map(|number| {
            std::thread::sleep(Duration::from_millis(150));
            let known = acknowledged.lock().unwrap().clone();
            let taken = object(&snapshot(data.path(), &backups.path().join(number.to_string())));
            assert_eq!((&taken["generations"], &taken["left_out"]), (&json!([1, 2]), &json!([])), "{taken}");
            assert!(taken["documents"].as_u64().unwrap() > known.len() as u64, "{taken}");
            known
        });
        let known = known.collect();
        done.store(true, Ordering::Release);
        writing.join().unwrap();
        assert!(swapping.join().unwrap() > 0, "no swap came");
        known
    });
    assert!(known[3].len() > known[0].len(), "nothing was written meanwhile");
    drop(server);
    for (number, known) in known.iter().enumerate().skip(2) {
        let folder = backups.path().join(format!("restored-{number}"));
        let restored = object(&restore(&backups.path().join(number.to_string()), &folder));
        let checked = object(&verify(&folder));
        assert_eq!((&checked["findings"], &checked["sound"]), (&json!([]), &json!([1, 2])), "{checked}");
        let server = Server::start(&folder);
        let status = server.get("/admin/status").json();
        assert_eq!(status["generation"]["number"], restored["live"], "{status}");
        assert_eq!(status["documents"], status["indexed"], "{status}");
        for (id, words) in known {
            assert_eq!(server.get(&format!("/documents/{id}")).status, 200, "{id}");
            assert!(server.search_ids(words, 10_000).contains(id), "{id}");
        }
        // It goes on from there, and the other generation too.
        let other = 3 - restored["live"].as_u64().unwrap();
        assert_eq!(server.post("/documents", &json!({"documents": [{"id": "z", "text": "zz"}]})).status, 200);
        activate(&server, other);
        assert_eq!(server.get("/admin/status").json()["indexed"], json!(restored["documents"].as_u64().unwrap() + 1));
    }
}

#[test]
fn a_killed_snapshot_leaves_nothing_that_looks_whole() {
    const CUT: usize = 6;
    const TRIES: usize = 200;
    let data = tempfile::tempdir().unwrap();
    prepared(data.path());
    let backups = tempfile::tempdir().unwrap();
    let target = backups.path().join("backup");
    let mut random = Random::from_seed("killed snapshot");
    // As long as one takes here, and a little more.
    let since = Instant::now();
    object(&snapshot(data.path(), &target));
    let mut most = since.elapsed().mul_f64(1.2);
    std::fs::remove_dir_all(&target).unwrap();
    let (mut cut, mut tries) = (0, 0);
    while cut < CUT || tries < 20 {
        tries += 1;
        assert!(tries <= TRIES, "{cut} of {TRIES} were cut off");
        let mut child = anced(&["snapshot", "--data", text(data.path()), text(&target)])
            .stdout(std::process::Stdio::null())
            .spawn()
            .unwrap();
        std::thread::sleep(Duration::from_micros(random.below(most.as_micros() as u64)));
        child.kill().unwrap();
        match child.wait().unwrap().code() {
            None => cut += 1,
            // The machine has become quicker since it was timed.
            Some(_) => most = most.mul_f64(0.9).max(Duration::from_micros(1)),
        }
        if target.exists() {
            // It had its name before the kill: then it is whole.
            let place = backups.path().join("restored");
            object(&restore(&target, &place));
            std::fs::remove_dir_all(place).unwrap();
            std::fs::remove_dir_all(&target).unwrap();
        }
    }
    let unfinished = backups.path().join("backup.unfinished");
    if unfinished.exists() {
        refused(&restore(&unfinished, &backups.path().join("of-half")), "not a sound snapshot");
    }
    object(&snapshot(data.path(), &target));
    assert!(!unfinished.exists(), "what the killed ones left is gone");
    object(&restore(&target, &backups.path().join("data")));
}

#[test]
fn a_damaged_snapshot_and_a_folder_in_use_are_refused() {
    let data = tempfile::tempdir().unwrap();
    prepared(data.path());
    let backups = tempfile::tempdir().unwrap();
    let (target, place) = (backups.path().join("backup"), backups.path().join("data"));
    object(&snapshot(data.path(), &target));
    for name in ["store/data.mdb", "generations/000001/checkpoint/model.safetensors", "LIVE", "snapshot.json"] {
        let file = target.join(name);
        let sound = std::fs::read(&file).unwrap();
        let mut damaged = sound.clone();
        damaged[sound.len() / 2] ^= 1;
        for contents in [Some(damaged), Some(sound[..sound.len() / 2].to_vec()), None] {
            match contents {
                Some(contents) => std::fs::write(&file, contents).unwrap(),
                None => std::fs::remove_file(&file).unwrap(),
            }
            refused(&restore(&target, &place), name);
            assert!(!place.exists(), "{name}");
        }
        std::fs::write(&file, sound).unwrap();
    }
    refused(&snapshot(data.path(), &target), "not empty");
    refused(&restore(&target, data.path()), "not empty");

    // A copy within what it is a copy of would be copied by the next one.
    let inside = data.path().join("generations/backup");
    refused(&snapshot(data.path(), &inside), "lies in the folder");
    refused(&restore(&target, &target.join("data")), "lies in the folder");
    let linked = backups.path().join("linked");
    std::os::unix::fs::symlink(data.path(), &linked).unwrap();
    refused(&snapshot(data.path(), &linked.join("new/backup")), "lies in the folder");
    assert!(!inside.exists() && !target.join("data").exists() && !data.path().join("new").exists());
    refused(&snapshot(&backups.path().join("nowhere"), &place), "no data folder");
    refused(&restore(data.path(), &place), "not a sound snapshot");
    let file = backups.path().join("file");
    std::fs::write(&file, "").unwrap();
    refused(&snapshot(data.path(), &file), text(&file));
    let foreign = backups.path().join("new.unfinished");
    std::fs::create_dir(&foreign).unwrap();
    std::fs::write(foreign.join("mine"), "").unwrap();
    refused(&snapshot(data.path(), &backups.path().join("new")), "in the way");
    assert!(foreign.join("mine").exists());
    std::fs::create_dir(&place).unwrap();
    object(&restore(&target, &place));
}

#[test]
fn a_damaged_generation_is_left_out_and_told() {
    let data = two_generations();
    let backups = tempfile::tempdir().unwrap();
    let weights = data.path().join("generations/000002/checkpoint/model.safetensors");
    std::fs::write(&weights, "damaged").unwrap();
    let target = backups.path().join("backup");
    let taken = object(&snapshot(data.path(), &target));
    assert_eq!((&taken["generations"], &taken["live"]), (&json!([1]), &json!(1)), "{taken}");
    let told = taken["left_out"].to_string();
    assert!(told.contains("generation 2 is damaged") && told.contains(text(&weights)), "{told}");
    let place = backups.path().join("data");
    object(&restore(&target, &place));
    object(&verify(&place));
}

#[test]
fn jobs_go_on_from_a_snapshot_unless_they_ran() {
    let data = tempfile::tempdir().unwrap();
    prepared(data.path());
    let backups = tempfile::tempdir().unwrap();
    let server = Server::start(data.path());
    let id = start(&server, &quick(5000));
    stepping(&server, &id, 2);
    let taken = object(&snapshot(data.path(), &backups.path().join("running")));
    assert!(taken["left_out"].to_string().contains(&id), "{taken}");
    assert_eq!(server.delete(&format!("/admin/jobs/{id}")).status, 200);
    assert_eq!(ended(&server, &id)["state"], "cancelled");
    let taken = object(&snapshot(data.path(), &backups.path().join("cancelled")));
    assert_eq!(taken["left_out"], json!([]), "{taken}");
    drop(server);

    let place = backups.path().join("of-running");
    object(&restore(&backups.path().join("running"), &place));
    let server = Server::start(&place);
    let stopped = job(&server, &id);
    assert_eq!((&stopped["state"], &stopped["resumable"]), (&json!("stopped"), &json!(false)), "{stopped}");
    assert_eq!(server.post(&format!("/admin/jobs/{id}/resume"), &json!({})).status, 409);
    drop(server);

    let place = backups.path().join("of-cancelled");
    object(&restore(&backups.path().join("cancelled"), &place));
    let server = Server::start(&place);
    let at = job(&server, &id)["step"].as_u64().unwrap();
    resume(&server, &id);
    stepping(&server, &id, at + 1);
    assert!(server.stop().success());
}
