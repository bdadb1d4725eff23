//! `anced verify`: what it finds, and what it puts right.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test ends by panicking")]

mod common;

use std::path::{Path, PathBuf};

use anced::corpus::{Document, Store};
use anced::generation::Manifest;
use common::corpus::DOCUMENTS;
use common::generations::two_generations;
use common::{Ending, Outcome, Server, outcome};
use serde_json::{Value, json};

fn verify(data: &Path, more: &[&str]) -> (Value, Outcome) {
    let told = outcome(&[&["verify", "--json", "--data", data.to_str().unwrap()], more].concat(), &[]);
    assert!(!told.stderr.contains("panicked"), "{told:?}");
    let value: Value = serde_json::from_str(&told.stdout).unwrap_or_else(|error| panic!("{error}: {told:?}"));
    let is_sound = value["findings"].as_array().unwrap().is_empty();
    assert_eq!(told.code, Some(if is_sound { 0 } else { 1 }), "{told:?}");
    (value, told)
}

/// Each finding as its place and whether it can be repaired.
fn findings(data: &Path) -> Vec<(String, bool)> {
    let (value, _) = verify(data, &[]);
    let all = value["findings"].as_array().unwrap().iter();
    all.map(|one| (one["place"].as_str().unwrap().to_owned(), one["repairable"].as_bool().unwrap())).collect()
}

fn repairable(place: &str) -> (String, bool) {
    (place.to_owned(), true)
}

fn index_file(data: &Path, number: u64, graph: bool) -> PathBuf {
    let folder = data.join(format!("generations/{number:06}"));
    let manifest = Manifest::read(&folder).unwrap();
    folder.join(if graph { manifest.graph_file } else { manifest.vectors_file })
}

fn assert_serves(data: &Path, live: u64, documents: usize) {
    let server = Server::start(data);
    let status = server.get("/admin/status").json();
    assert_eq!(status["generation"]["number"], live, "{status}");
    assert_eq!((&status["documents"], &status["indexed"]), (&json!(documents), &json!(documents)), "{status}");
    assert_eq!(status["fallback"], Value::Null, "{status}");
    assert_eq!(server.search_ids("vector number 15 about index", 5).len(), 5);
    assert!(server.stop().success());
}

const GENERATION_1: &str = "generations/000001";
const GENERATION_2: &str = "generations/000002";

#[test]
fn a_damaged_index_is_found_and_built_anew() {
    let folder = two_generations();
    let data = folder.path();
    let (sound, told) = verify(data, &[]);
    assert_eq!((&sound["sound"], &sound["live"], &sound["notes"]), (&json!([1, 2]), &json!(2), &json!([])), "{told:?}");
    assert_eq!(sound["store"]["documents"], json!(DOCUMENTS), "{told:?}");

    // Both files of the one, one of the other, in different ways.
    std::fs::remove_file(index_file(data, 1, true)).unwrap();
    std::fs::write(index_file(data, 1, false), "damaged").unwrap();
    let graph = index_file(data, 2, true);
    let mut contents = std::fs::read(&graph).unwrap();
    let middle = contents.len() / 2;
    contents[middle] ^= 4;
    std::fs::write(&graph, contents).unwrap();
    let expected = ["generations/000001", "generations/000002", "LIVE"].map(repairable);
    assert_eq!(findings(data), expected);
    let (_, told) = verify(data, &[]);
    assert!(told.stdout.contains("anced verify --repair"), "{told:?}");

    let (repaired, told) = verify(data, &["--repair"]);
    assert_eq!((&repaired["sound"], &repaired["findings"]), (&json!([1, 2]), &json!([])), "{told:?}");
    assert_eq!(repaired["repaired"].as_array().unwrap().len(), 2, "{told:?}");
    assert_eq!(repaired["live"], 2, "LIVE names what it did: {told:?}");
    assert_serves(data, 2, DOCUMENTS);
    let (again, _) = verify(data, &["--repair"]);
    assert_eq!(again["repaired"], json!([]));
}

#[test]
fn an_index_that_is_not_the_stores_is_found_and_built_anew() {
    let folder = two_generations();
    let data = folder.path();
    // Writes that an index claims to have seen and has not.
    {
        let store = Store::open(&data.join("store")).unwrap();
        let document = |id: &str| -> Document {
            serde_json::from_value(json!({"id": id, "title": "", "text": "another", "metadata": {}})).unwrap()
        };
        store.write(&[document("later"), document("d0003")]).unwrap();
        store.delete(&["d0004".to_owned()]).unwrap();
        assert!(store.check().unwrap().findings.is_empty());
        let place = data.join(GENERATION_2);
        let mut manifest = Manifest::read(&place).unwrap();
        manifest.applied_sequence = store.last_sequence().unwrap();
        manifest.write(&place).unwrap();
    }
    let (found, told) = verify(data, &[]);
    assert_eq!(found["sound"], json!([1]), "{told:?}");
    let problem = found["findings"][0]["problem"].as_str().unwrap();
    assert!(
        problem.contains("2 documents are missing") && problem.contains("2 vectors are of no document"),
        "{problem}"
    );
    let (repaired, told) = verify(data, &["--repair"]);
    assert_eq!(repaired["sound"], json!([1, 2]), "{told:?}");
    assert_serves(data, 2, DOCUMENTS);
}

#[test]
fn live_names_a_sound_generation_again_and_what_cannot_be_derived_stays() {
    let folder = two_generations();
    let data = folder.path();
    let live = data.join("LIVE");
    for contents in ["7\n", "one\n", ""] {
        std::fs::write(&live, contents).unwrap();
        assert_eq!(findings(data), [repairable("LIVE")], "{contents}");
        let (repaired, told) = verify(data, &["--repair"]);
        assert_eq!((&repaired["live"], &repaired["findings"]), (&json!(2), &json!([])), "{told:?}");
    }
    // A checkpoint is nothing that could be derived.
    let weights = data.join(GENERATION_2).join("checkpoint/model.safetensors");
    let sound = std::fs::read(&weights).unwrap();
    std::fs::write(&weights, &sound[1..]).unwrap();
    assert_eq!(findings(data), [(GENERATION_2.to_owned(), false), repairable("LIVE")]);
    let (repaired, told) = verify(data, &["--repair"]);
    assert_eq!((&repaired["live"], repaired["findings"].as_array().unwrap().len()), (&json!(1), 1), "{told:?}");
    assert_eq!(std::fs::read(&weights).unwrap(), &sound[1..], "the damaged file is left to look at");
    std::fs::write(&weights, sound).unwrap();
    assert_eq!(findings(data), []);
    // None is left: nothing is made up.
    for place in [GENERATION_1, GENERATION_2] {
        std::fs::write(data.join(place).join("manifest.json"), "{}").unwrap();
    }
    let (repaired, told) = verify(data, &["--repair"]);
    assert_eq!(repaired["repaired"], json!([]), "{told:?}");
    assert_eq!(std::fs::read_to_string(&live).unwrap(), "1\n");
}

#[test]
fn leftovers_are_noted_and_dropped() {
    let folder = two_generations();
    let data = folder.path();
    let leftovers = ["generations/000003.new", "generations/000001/vectors-9999.safetensors", ".tmpAb3dEf"];
    std::fs::create_dir(data.join(leftovers[0])).unwrap();
    for file in &leftovers[1..] {
        std::fs::write(data.join(file), "half").unwrap();
    }
    let (found, told) = verify(data, &[]);
    let notes = found["notes"].to_string();
    assert!(leftovers.iter().all(|name| notes.contains(name)), "{told:?}");
    assert!(leftovers.iter().all(|name| data.join(name).exists()), "a check writes nothing");
    let (found, told) = verify(data, &["--repair"]);
    assert_eq!(found["notes"], json!([]), "{told:?}");
    assert!(leftovers.iter().all(|name| !data.join(name).exists()));
}

#[test]
fn beside_a_server_it_only_checks() {
    let folder = two_generations();
    let data = folder.path();
    let server = Server::start_with(data, &["--save-after", "3"]);
    std::fs::remove_file(index_file(data, 1, true)).unwrap();
    let done = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut at = 0;
            while !done.load(std::sync::atomic::Ordering::Acquire) {
                let documents = json!([{"id": format!("n{}", at % 50), "text": format!("number {at}")}]);
                assert_eq!(server.post("/documents", &json!({"documents": documents})).status, 200);
                if at % 5 == 4 {
                    assert!([200, 404].contains(&server.delete(&format!("/documents/n{}", at % 31)).status));
                }
                at += 1;
            }
        });
        // What is asserted here must end the test, not only this thread.
        let _ended = Ending(&done);
        for more in [&[][..], &["--repair"], &[], &[]] {
            let (found, told) = verify(data, more);
            assert_eq!((&found["in_use"], &found["sound"]), (&json!(true), &json!([2])), "{told:?}");
            assert_eq!(found["findings"].as_array().unwrap().len(), 1, "{told:?}");
            assert_eq!(found["notes"].to_string().contains("nothing is repaired"), !more.is_empty(), "{told:?}");
        }
        done.store(true, std::sync::atomic::Ordering::Release);
    });
    assert!(!index_file(data, 1, true).exists());
    assert!(server.stop().success());
    let nowhere = outcome(&["verify", "--data", "/nowhere"], &[]);
    assert!(nowhere.code == Some(1) && nowhere.stderr.contains("no data folder"), "{nowhere:?}");
}

#[test]
fn a_damaged_store_is_a_finding() {
    let folder = two_generations();
    let data = folder.path();
    let file = data.join("store/data.mdb");
    let sound = std::fs::read(&file).unwrap();
    std::fs::write(&file, &sound[..8192]).unwrap();
    let (found, told) = verify(data, &["--repair"]);
    assert!(found["findings"][0]["place"] == "store" && found["repaired"] == json!([]), "{told:?}");
    std::fs::write(&file, sound).unwrap();
    assert_eq!(findings(data), []);
}
