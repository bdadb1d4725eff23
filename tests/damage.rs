//! Damaged files of a data folder: the start refuses them by name where nothing sound is left, falls back where something
//! is, and serves as before when they are put back.
#![allow(clippy::unwrap_used, clippy::panic)]

mod common;

use std::path::Path;

use anced::corpus::Store;
use anced::generation::{Manifest, Standing};
use common::corpus::wait_for;
use common::generations::{activate, live, two_generations};
use common::random::Random;
use common::{Outcome, Server, outcome, tiny_model};
use serde_json::json;

/// Puts documents into a new data folder and stops the server, so that everything is saved.
fn filled(data: &Path) -> Vec<String> {
    let server = Server::start(data);
    let mut random = Random::from_seed("damage");
    let texts: Vec<String> = (0..40).map(|_| random.text(6)).collect();
    let documents: Vec<_> =
        texts.iter().enumerate().map(|(at, text)| json!({"id": at.to_string(), "text": text})).collect();
    assert_eq!(server.post("/documents", &json!({"documents": documents})).status, 200);
    assert!(server.stop().success());
    texts
}

fn assert_all_there(data: &Path, texts: &[String]) {
    let server = Server::start(data);
    let status = server.get("/admin/status").json();
    assert_eq!((&status["documents"], &status["indexed"]), (&json!(texts.len()), &json!(texts.len())), "{status}");
    for (at, text) in texts.iter().enumerate() {
        assert_eq!(server.search_ids(text, 1), [at.to_string()]);
    }
    assert!(server.stop().success());
}

fn verb(verb: &str, data: &Path, more: &[&str]) -> Outcome {
    let model = tiny_model();
    let mut arguments = vec![verb, "--data", data.to_str().unwrap()];
    if verb == "serve" {
        arguments.extend(["--listen", "127.0.0.1:0"]);
    }
    if verb != "import" {
        arguments.extend(["--model", model.to_str().unwrap()]);
    }
    arguments.extend(more);
    outcome(&arguments, &[])
}

fn assert_refused(what: &str, outcome: &Outcome, says: &[&str]) {
    assert_eq!(outcome.code, Some(1), "{what}: {outcome:?}");
    for part in says {
        assert!(outcome.stderr.contains(part), "{what}: `{part}` is not in {outcome:?}");
    }
    assert!(!outcome.stderr.contains("panicked"), "{what}: {outcome:?}");
}

/// What becomes of a file's contents; none where the file vanishes.
type Damage = fn(&mut Random, Vec<u8>) -> Option<Vec<u8>>;

const DAMAGES: [(&str, Damage); 4] = [
    ("a bit flipped", |random, mut contents| {
        let place = random.below(contents.len() as u64) as usize;
        contents[place] ^= 1 << random.below(8);
        Some(contents)
    }),
    ("cut short", |random, contents| Some(contents[..random.below(contents.len() as u64) as usize].to_vec())),
    ("something more", |_, mut contents| {
        contents.extend(b"more");
        Some(contents)
    }),
    ("gone", |_, _| None),
];

#[test]
fn a_damaged_file_of_the_live_generation_is_named_and_can_be_put_back() {
    let data = tempfile::tempdir().unwrap();
    let texts = filled(data.path());
    let mut random = Random::from_seed("damaged generation");
    let generation = data.path().join("generations/000001");
    let manifest: serde_json::Value =
        serde_json::from_slice(&std::fs::read(generation.join("manifest.json")).unwrap()).unwrap();
    let files = ["vectors_file", "graph_file"].map(|key| manifest[key].as_str().unwrap().to_owned());
    let mut files: Vec<&str> = files.iter().map(String::as_str).collect();
    files.extend(["manifest.json", "checkpoint/model.safetensors", "checkpoint/tokenizer.json"]);
    for name in files {
        let file = generation.join(name);
        let sound = std::fs::read(&file).unwrap();
        for (what, damage) in DAMAGES {
            match damage(&mut random, sound.clone()) {
                Some(contents) => std::fs::write(&file, contents).unwrap(),
                None => std::fs::remove_file(&file).unwrap(),
            }
            let what = format!("{name}: {what}");
            let says = [name, "restore", "anced index"];
            let refused = verb("serve", data.path(), &[]);
            assert_refused(&what, &refused, &says);
            assert!(refused.stdout.is_empty(), "{refused:?}");
            assert_refused(&what, &verb("search", data.path(), &["anything"]), &says);
        }
        std::fs::write(&file, sound).unwrap();
        assert_all_there(data.path(), &texts);
    }

    // Or built anew, as the text says.
    std::fs::write(generation.join("checkpoint/model.safetensors"), "damaged").unwrap();
    let built = verb("index", data.path(), &[]);
    assert_eq!(built.code, Some(0), "{built:?}");
    assert_eq!(std::fs::read_to_string(data.path().join("LIVE")).unwrap(), "2\n");
    assert_all_there(data.path(), &texts);
}

#[test]
fn each_bit_of_a_manifest_counts() {
    let data = tempfile::tempdir().unwrap();
    filled(data.path());
    let folder = data.path().join("generations/000001");
    let file = folder.join("manifest.json");
    let sound = Manifest::read(&folder).unwrap();
    let text = std::fs::read(&file).unwrap();
    let mut refused = 0;
    for bit in (0..text.len() * 8).step_by(9) {
        let mut damaged = text.clone();
        damaged[bit / 8] ^= 1 << (bit % 8);
        std::fs::write(&file, &damaged).unwrap();
        match Manifest::read(&folder) {
            // White space says nothing.
            Ok(read) => assert_eq!(read, sound, "bit {bit}"),
            Err(_) => refused += 1,
        }
    }
    assert!(refused > text.len() / 2, "{refused} of {} bytes", text.len());
}

#[test]
fn a_live_file_that_names_no_generation_is_told_and_left() {
    let data = tempfile::tempdir().unwrap();
    let texts = filled(data.path());
    let live = data.path().join("LIVE");
    for (contents, says) in [
        ("7\n", vec!["000007", "no such generation", "anced index", "LIVE"]),
        ("one\n", vec!["LIVE", "`one` is no generation's number", "generations/"]),
        ("", vec!["LIVE", "no generation's number"]),
        ("-1", vec!["LIVE", "no generation's number"]),
    ] {
        std::fs::write(&live, contents).unwrap();
        assert_refused(contents, &verb("search", data.path(), &["anything"]), &says);
        // The only generation is sound: it answers.
        let server = Server::start(data.path());
        let status = server.get("/admin/status").json();
        let reason = status["fallback"]["reason"].as_str().unwrap();
        assert!(status["generation"]["number"] == 1 && says.iter().all(|part| reason.contains(part)), "{status}");
        assert!(server.stop().success());
        assert_eq!(std::fs::read_to_string(&live).unwrap(), contents, "the file is left as it was");
    }
    std::fs::write(&live, "1\n").unwrap();
    assert_all_there(data.path(), &texts);
}

/// A refresh that an earlier server stopped.
fn stopped_job(data: &Path) -> &'static str {
    let id = "0190a6f0-0000-7000-8000-000000000000";
    let plan = anced::ance::Plan::from_settings(&anced::settings::Settings::default()).unwrap();
    let record = json!({
        "id": id, "created": "", "updated": "", "state": "stopped", "reason": null, "plan": plan, "round": 1,
        "phase": null, "step": 5, "loss": null, "measures": [], "generation": null, "resumes": 0, "kept": true,
    });
    std::fs::create_dir_all(data.join("jobs").join(id)).unwrap();
    Store::open(&data.join("store")).unwrap().put_job(id, &record.to_string()).unwrap();
    id
}

#[test]
fn a_start_falls_back_to_the_newest_sound_generation_until_it_is_settled() {
    let data = two_generations();
    let (live_file, second) = (data.path().join("LIVE"), data.path().join("generations/000002"));
    let weights = second.join("checkpoint/model.safetensors");
    let sound = std::fs::read(&weights).unwrap();
    std::fs::write(&weights, &sound[..sound.len() / 2]).unwrap();
    let job = stopped_job(data.path());

    let server = Server::start(data.path());
    let status = server.get("/admin/status").json();
    assert_eq!((&status["generation"]["number"], &status["fallback"]["named"]), (&json!(1), &json!(2)), "{status}");
    assert!(status["fallback"]["reason"].as_str().unwrap().contains("model.safetensors"), "{status}");
    wait_for("the log", || server.log().contains("ERROR") && server.log().contains("generation 1 answers instead"));
    // What is written meanwhile is in both.
    assert_eq!(server.post("/documents", &json!({"documents": [{"id": "x", "text": "meanwhile"}]})).status, 200);
    assert_eq!(server.post("/admin/generations/2/activate", &json!({})).status, 409);
    for refresh in ["/admin/refresh".to_owned(), format!("/admin/jobs/{job}/resume")] {
        let refused = server.post(&refresh, &json!({}));
        let told = refused.text();
        assert!(refused.status == 422 && told.contains("answers instead of a damaged one"), "{refresh}: {told}");
    }
    assert_eq!(server.get("/admin/status").json()["fallback"]["named"], 2);
    assert!(server.stop().success());
    assert_eq!(std::fs::read_to_string(&live_file).unwrap(), "2\n", "what was wanted stays");

    // Put back, it is live again, with what was written.
    std::fs::write(&weights, &sound).unwrap();
    let server = Server::start(data.path());
    let status = server.get("/admin/status").json();
    assert_eq!((&status["generation"]["number"], &status["fallback"]), (&json!(2), &json!(null)), "{status}");
    assert_eq!(server.search_ids("meanwhile", 1), ["x"]);
    assert!(server.stop().success());

    // Only its index: the text says what rebuilds it. An operator settles it instead.
    let manifest = Manifest::read(&second).unwrap();
    std::fs::remove_file(second.join(&manifest.graph_file)).unwrap();
    let server = Server::start(data.path());
    let status = server.get("/admin/status").json();
    assert!(status["fallback"]["reason"].as_str().unwrap().contains("anced verify --repair"), "{status}");
    let settled = activate(&server, 1);
    assert_eq!((&settled["generation"], live(&server)), (&json!(1), 1));
    assert_eq!(server.get("/admin/status").json()["fallback"], json!(null));
    assert_eq!(std::fs::read_to_string(&live_file).unwrap(), "1\n");
    assert_eq!(server.post("/admin/generations/1/activate", &json!({})).status, 409, "as ever");
    assert!(server.stop().success());

    // One that did not pass its gate is no way out.
    std::fs::write(&live_file, "2\n").unwrap();
    let first = data.path().join("generations/000001");
    let mut manifest = Manifest::read(&first).unwrap();
    for standing in [Standing::Candidate, Standing::Rejected] {
        manifest.status = standing;
        manifest.write(&first).unwrap();
        assert_refused(standing.as_str(), &verb("serve", data.path(), &[]), &["000002", "anced verify --repair"]);
    }
}

#[test]
fn what_a_killed_process_left_behind_is_removed_and_nothing_else() {
    let data = tempfile::tempdir().unwrap();
    let texts = filled(data.path());
    let generations = data.path().join("generations");
    let write = |name: &str| {
        let file = generations.join(name);
        std::fs::create_dir_all(file.parent().unwrap()).unwrap();
        std::fs::write(&file, "half").unwrap();
        file
    };
    let leftovers = [
        "000002.new/checkpoint/model.safetensors",
        "000001/vectors-9999.safetensors",
        "000001/index-9999.usearch",
        "000001/.tmpAb3dEf",
        "../.tmpAb3dEf",
    ];
    let leftovers = leftovers.map(write);
    // Folders that were whole once are not ours to remove.
    let others = ["000007/checkpoint/model.safetensors", "000001/checkpoint/notes.txt", "000001/NOTES", "keep/me"];
    let others = others.map(write);
    assert_all_there(data.path(), &texts);
    for file in &leftovers {
        assert!(!file.exists(), "{}", file.display());
    }
    for file in &others {
        assert!(file.exists(), "{}", file.display());
    }
    let server = Server::start(data.path());
    let listed = server.get("/admin/generations").json();
    assert_eq!(listed["generations"].as_array().unwrap().len(), 1, "{listed}");
    wait_for("the warning of it", || server.log().contains("generation passed over"));
}

#[test]
fn a_damaged_store_is_refused_and_serves_again_when_put_back() {
    let data = tempfile::tempdir().unwrap();
    let texts = filled(data.path());
    let file = data.path().join("store/data.mdb");
    let sound = std::fs::read(&file).unwrap();
    let mut no_meta = sound.clone();
    no_meta[..8192].fill(0xAA);
    for (what, contents) in [
        ("cut to a page", sound[..4096].to_vec()),
        ("cut in the middle of a page", sound[..12_388].to_vec()),
        ("without its head", no_meta),
        ("something else", vec![b'x'; sound.len()]),
    ] {
        std::fs::write(&file, contents).unwrap();
        assert_refused(what, &verb("serve", data.path(), &[]), &["store", "put a copy of the folder back"]);
    }
    std::fs::write(&file, &sound).unwrap();
    assert_all_there(data.path(), &texts);
}

#[test]
fn a_generation_is_not_served_with_a_store_that_it_was_not_made_from() {
    let data = tempfile::tempdir().unwrap();
    let texts = filled(data.path());
    let (store, aside) = (data.path().join("store"), data.path().join("store-aside"));
    std::fs::rename(&store, &aside).unwrap();
    let imported = verb("import", data.path(), &["tests/fixtures/import/beir"]);
    assert_eq!(imported.code, Some(0), "{imported:?}");
    // Its sequences begin at 1 again: the vectors of one document would answer for another.
    let says = ["made from another store", "anced index"];
    assert_refused("another store", &verb("serve", data.path(), &[]), &says);
    assert_refused("another store", &verb("search", data.path(), &["anything"]), &says);
    std::fs::remove_dir_all(&store).unwrap();
    std::fs::rename(&aside, &store).unwrap();
    assert_all_there(data.path(), &texts);
}
