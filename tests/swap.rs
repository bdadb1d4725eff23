//! Another generation takes over while requests go on: none fails, none mixes generations, no write is lost.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test ends by panicking")]

mod common;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use anced::encoder::{Encoder, Overrides, Side};
use anced::generation::{Machine, Manifest, Standing};
use anced::settings::{Device, Settings, Similarity};
use anced::telemetry::Metrics;
use common::corpus::{DOCUMENTS, document, fill, metrics, search};
use common::random::Random;
use common::{Server, outcome, root};
use serde_json::{Value, json};

/// Generations 1 and 2: other weights, another dimension, another similarity.
const MODELS: [&str; 2] = ["bert-mean", "roberta-ance"];

fn model(name: &str) -> PathBuf {
    root().join("tests/fixtures/reference").join(name)
}

fn index(data: &Path, model: &Path) -> Value {
    let [data, model] = [data, model].map(|path| path.to_str().unwrap());
    let built = outcome(&["index", "--json", "--data", data, "--model", model], &[]);
    assert_eq!(built.code, Some(0), "{built:?}");
    serde_json::from_str(&built.stdout).unwrap()
}

/// A data folder with some documents and a generation of either model; the second is live.
fn two_generations() -> tempfile::TempDir {
    let data = tempfile::tempdir().unwrap();
    let server = Server::start_with(data.path(), &["--model", model(MODELS[0]).to_str().unwrap()]);
    fill(&server);
    assert!(server.stop().success());
    let built = index(data.path(), &model(MODELS[1]));
    assert_eq!((&built["generation"], &built["documents"]), (&json!(2), &json!(DOCUMENTS)));
    data
}

fn activate(server: &Server, number: u64) -> Value {
    let answer = server.post(&format!("/admin/generations/{number}/activate"), &json!({}));
    assert_eq!(answer.status, 200, "{}\n{}", answer.text(), server.log());
    answer.json()
}

fn live(server: &Server) -> u64 {
    server.get("/admin/status").json()["generation"]["number"].as_u64().unwrap()
}

/// Every document that a search finds.
fn all_found(server: &Server) -> BTreeSet<String> {
    let answer = search(server, json!({"query": "anything", "k": 10_000, "exact": true, "include": []}));
    answer["hits"].as_array().unwrap().iter().map(|hit| hit["id"].as_str().unwrap().to_owned()).collect()
}

/// The encoders of the generations, apart from any server.
struct References {
    encoders: Vec<Encoder>,
    passages: HashMap<(u64, String), Vec<f32>>,
}

impl References {
    fn new() -> Self {
        let settings = Settings { device: Device::Cpu, ..Settings::default() };
        let machine = Machine::new(&settings, Arc::new(Metrics::new().unwrap())).unwrap();
        let encoders = MODELS.map(|name| machine.encoder(&model(name), Overrides::default()).unwrap());
        Self { encoders: encoders.into(), passages: HashMap::new() }
    }

    fn encoder(&self, generation: u64) -> &Encoder {
        &self.encoders[generation as usize - 1]
    }

    fn vector(&self, generation: u64, text: String, side: Side) -> Vec<f32> {
        let vector = self.encoder(generation).encode_blocking(vec![text], side).unwrap().vectors.remove(0);
        let length = vector.iter().map(|value| value * value).sum::<f32>().sqrt();
        match self.encoder(generation).checkpoint().similarity {
            Similarity::Cosine => vector.iter().map(|value| value / length).collect(),
            Similarity::Dot => vector,
        }
    }

    /// Compares every score of an answer with the one that its generation's encoder gives the query and the hit's text.
    fn check(&mut self, query: &str, answer: &Value) -> u64 {
        let generation = answer["generation"].as_u64().unwrap();
        let asked = self.vector(generation, query.into(), Side::Query);
        for hit in answer["hits"].as_array().unwrap() {
            let [title, text] = ["title", "text"].map(|part| hit[part].as_str().unwrap());
            let passage = self.encoder(generation).checkpoint().passage(title, text);
            let key = (generation, passage.clone());
            if !self.passages.contains_key(&key) {
                let vector = self.vector(generation, passage, Side::Passage);
                self.passages.insert(key.clone(), vector);
            }
            let expected: f32 = asked.iter().zip(&self.passages[&key]).map(|(one, other)| one * other).sum();
            let score = hit["score"].as_f64().unwrap() as f32;
            let size = asked.iter().map(|value| value * value).sum::<f32>().max(1.0);
            assert!((score - expected).abs() <= 1e-4 * size, "generation {generation}: {score}, {expected}: {hit}");
        }
        generation
    }
}

/// Writes, updates and deletes documents of its own until told to end; returns the texts of those that are there.
fn write(server: &Server, name: &str, mut random: Random, end: &AtomicBool) -> (BTreeMap<String, String>, usize) {
    let mut there: BTreeMap<String, String> = BTreeMap::new();
    let mut requests = 0;
    while !end.load(Ordering::Acquire) {
        let known = (!there.is_empty()).then(|| random.below(there.len() as u64) as usize);
        let some = known.and_then(|at| there.keys().nth(at).cloned());
        match (random.below(3), some) {
            (0, Some(id)) => {
                let answer = server.delete(&format!("/documents/{id}"));
                assert_eq!(answer.status, 200, "{}", answer.text());
                there.remove(&id);
                let found = server.search_ids("anything", 10_000);
                assert!(!found.contains(&id), "{id} is found after it was deleted");
            }
            (kind, some) => {
                let fresh = format!("{name}-{requests}");
                let id = some.filter(|_| kind == 1).unwrap_or(fresh);
                let text = random.text(4);
                let answer = server.post("/documents", &json!({"documents": [{"id": id, "text": text}]}));
                assert_eq!(answer.status, 200, "{}", answer.text());
                let body = json!({"query": text, "k": 10_000, "exact": true, "include": ["text"]});
                let answer = search(server, body);
                let hit = answer["hits"].as_array().unwrap().iter().find(|hit| hit["id"] == *id);
                let hit = hit.unwrap_or_else(|| panic!("{id} is not found after it was written: {}", server.log()));
                assert_eq!(hit["text"], text, "{id}");
                there.insert(id, text);
            }
        }
        requests += 1;
    }
    (there, requests)
}

#[test]
fn generations_change_places_under_load_and_nothing_is_lost_or_mixed() {
    const SWAPS: usize = 14;
    let mut random = Random::from_seed("swap");
    let data = two_generations();
    let server = &Server::start(data.path());
    assert_eq!(live(server), 2);
    let end = &AtomicBool::new(false);
    let answers = &Mutex::new(Vec::new());
    let (mut holds, mut totals) = (Vec::new(), Vec::new());

    let written: Vec<_> = std::thread::scope(|scope| {
        let writers: Vec<_> = (0..2)
            .map(|number| {
                let random = random.fork();
                scope.spawn(move || write(server, &format!("w{number}"), random, end))
            })
            .collect();
        for _ in 0..2 {
            let mut random = random.fork();
            scope.spawn(move || {
                while !end.load(Ordering::Acquire) {
                    let query = random.text(3);
                    let exact = random.below(2) == 0;
                    let filter = if random.below(3) == 0 { json!({"lang": "en"}) } else { json!({}) };
                    let body = json!({"query": query, "k": 4, "exact": exact, "filter": filter});
                    answers.lock().unwrap().push((query, search(server, body)));
                    let embedded = server.post("/v1/embeddings", &json!({"input": "a", "model": "any"})).json();
                    let size = embedded["data"][0]["embedding"].as_array().unwrap().len();
                    let expected = if embedded["model"] == MODELS[0] { 32 } else { 48 };
                    assert_eq!(size, expected, "{embedded}");
                }
            });
        }
        // What the writers and searchers assert must end the test, not only their threads.
        let _ended = Ending(end);
        for round in 0..SWAPS {
            std::thread::sleep(Duration::from_millis(random.below(200)));
            let number = 1 + round as u64 % 2;
            let report = activate(server, number);
            assert_eq!((&report["generation"], &report["previous"]), (&json!(number), &json!(3 - number)));
            assert_eq!((&report["status"], report.get("note")), (&json!("ready"), None));
            assert_eq!(live(server), number);
            holds.push(report["hold_seconds"].as_f64().unwrap() * 1e3);
            totals.push(report["total_seconds"].as_f64().unwrap());
        }
        end.store(true, Ordering::Release);
        writers.into_iter().map(|writer| writer.join().unwrap()).collect()
    });

    let requests: usize = written.iter().map(|(_, requests)| requests).sum();
    let mut expected: BTreeSet<String> = (0..DOCUMENTS).map(|at| document(at)["id"].as_str().unwrap().into()).collect();
    expected.extend(written.iter().flat_map(|(there, _)| there.keys().cloned()));
    for number in [1, 2] {
        if live(server) != number {
            activate(server, number);
        }
        assert_eq!(all_found(server), expected, "generation {number}");
    }

    let answers = std::mem::take(&mut *answers.lock().unwrap());
    let mut references = References::new();
    let mut by_generation = BTreeMap::new();
    for (query, answer) in &answers {
        *by_generation.entry(references.check(query, answer)).or_insert(0) += 1;
    }
    let samples = metrics(server);
    assert_eq!(samples["anced_live_generation"], 2.0);
    assert_eq!(samples["anced_index_documents"], expected.len() as f64);
    assert!(samples["anced_swaps_total{result=\"done\"}"] >= SWAPS as f64);
    assert_eq!(samples["anced_swaps_total{result=\"failed\"}"], 0.0);
    assert!(samples["anced_swap_duration_seconds_count"] >= SWAPS as f64);
    let info: Vec<_> = samples.keys().filter(|name| name.starts_with("anced_encoder_info{")).collect();
    assert!(info.len() == 1 && info[0].contains("roberta-ance"), "{info:?}");
    let failed: Vec<_> = samples
        .iter()
        .filter(|(name, count)| name.contains("status=\"5") && !name.contains("/readyz") && **count > 0.0)
        .collect();
    assert!(failed.is_empty(), "{failed:?}");

    holds.sort_by(f64::total_cmp);
    totals.sort_by(f64::total_cmp);
    println!(
        "{SWAPS} swaps of {:.2} to {:.2} s, writers held for {:.1} ms (median) to {:.1} ms, {requests} writes, {} answers \
         recomputed: {by_generation:?}",
        totals[0],
        totals[SWAPS - 1],
        holds[SWAPS / 2],
        holds[SWAPS - 1],
        answers.len(),
    );
    assert!(by_generation.len() == 2 && by_generation.values().all(|count| *count > 20), "{by_generation:?}");
    assert!(requests > SWAPS, "{requests} writes prove little");
    // Far more than it takes: a slow disk under other tests is no fault.
    assert!(holds[SWAPS - 1] < 1000.0, "{holds:?}");
    assert!(!server.log().contains("panicked"), "{}", server.log());
}

/// Tells the threads beside a failing one to end.
struct Ending<'a>(&'a AtomicBool);

impl Drop for Ending<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Release);
    }
}

#[test]
fn killed_while_generations_change_places_it_comes_back_on_either() {
    const KILLS: u64 = 16;
    let mut random = Random::from_seed("swap-kill");
    let data = two_generations();
    let mut took = Duration::from_millis(300);
    let mut there: BTreeSet<String> = all_found(&Server::start(data.path()));
    // Asked for without an answer: each may be there or not.
    let mut open = BTreeSet::new();
    let mut outcomes = BTreeMap::new();
    for round in 0..=KILLS {
        let mut server = Server::start(data.path());
        let now = live(&server);
        let found = all_found(&server);
        let (missing, foreign): (Vec<_>, Vec<_>) = (
            there.difference(&found).filter(|id| !open.contains(*id)).collect(),
            found.difference(&there).filter(|id| !open.contains(*id)).collect(),
        );
        assert!(missing.is_empty() && foreign.is_empty(), "{missing:?}, {foreign:?}\n{}", server.log());
        there = found;
        open.clear();
        let left: Vec<_> = std::fs::read_dir(data.path().join("generations")).unwrap().flatten().collect();
        assert_eq!(left.len(), 2, "{left:?}");
        if round == KILLS {
            break;
        }
        let wanted = 3 - now;
        // Told to stop now and then: it comes to a good end, whatever is under way.
        let stopped = round % 4 == 3;
        let killed = AtomicBool::new(false);
        std::thread::scope(|scope| {
            let (server, killed, there, open) = (&server, &killed, &mut there, &mut open);
            scope.spawn(move || {
                for at in 0.. {
                    if killed.load(Ordering::Acquire) {
                        return;
                    }
                    let id = format!("r{round}-{at}");
                    let body = json!({"documents": [{"id": id, "text": format!("round {round} text {at}")}]});
                    open.insert(id.clone());
                    let answer = server.try_post_raw("/documents", "application/json", body.to_string().as_bytes());
                    let Some(answer) = answer.filter(|answer| !stopping(answer)) else { return };
                    assert_eq!(answer.status, 200, "{}", answer.text());
                    open.remove(&id);
                    there.insert(id);
                    if at % 3 == 2 {
                        let id = format!("r{round}-{}", at - 1);
                        open.insert(id.clone());
                        let answer = server.try_delete(&format!("/documents/{id}"));
                        let Some(answer) = answer.filter(|answer| !stopping(answer)) else { return };
                        assert_eq!(answer.status, 200, "{}", answer.text());
                        open.remove(&id);
                        there.remove(&id);
                    }
                }
            });
            scope.spawn(move || {
                server.try_post_raw(&format!("/admin/generations/{wanted}/activate"), "text/plain", b"")
            });
            std::thread::sleep(Duration::from_micros(random.below(took.as_micros() as u64)));
            killed.store(true, Ordering::Release);
            server.signal(if stopped { "TERM" } else { "KILL" });
        });
        assert_eq!(server.wait().code(), stopped.then_some(0), "{}", server.log());
        assert!(!server.log().contains("panicked"), "{}", server.log());
        let next: u64 = std::fs::read_to_string(data.path().join("LIVE")).unwrap().trim().parse().unwrap();
        assert!([now, wanted].contains(&next), "{next}");
        *outcomes.entry(if next == now { "old" } else { "new" }).or_insert(0) += 1;
        // Kills come about as often before as after the change.
        took = if next == now { took.mul_f64(1.3).min(Duration::from_secs(5)) } else { took.mul_f64(0.6) };
    }
    println!("{KILLS} kills and stops: {outcomes:?}");
}

fn stopping(answer: &common::Answer) -> bool {
    answer.status == 503 && answer.json()["type"] == "urn:anced:problem:stopping"
}

#[test]
fn what_cannot_be_made_live_or_removed_is_refused_and_changes_nothing() {
    let data = two_generations();
    let server = &Server::start(data.path());
    let refused = |answer: common::Answer, status: u16, kind: &str, says: &str| {
        let problem = answer.json();
        let detail = problem["detail"].as_str().unwrap();
        assert_eq!(
            (answer.status, &problem["type"]),
            (status, &json!(format!("urn:anced:problem:{kind}"))),
            "{}",
            answer.text()
        );
        assert!(detail.contains(says), "{detail}");
        assert_eq!((live(server), server.search_ids("index", 5).len()), (2, 5));
    };
    let ask = |number: &str| server.post(&format!("/admin/generations/{number}/activate"), &json!({}));
    refused(ask("7"), 404, "unknown-generation", "no generation 7");
    refused(ask("2"), 409, "conflict", "live already");
    for number in ["one", "-1", "1.5", "99999999999999999999"] {
        refused(ask(number), 422, "invalid-field", "not the number of a generation");
    }
    refused(server.delete("/admin/generations/2"), 409, "conflict", "is live");
    refused(server.delete("/admin/generations/7"), 404, "unknown-generation", "no generation 7");
    refused(server.get("/admin/generations/1"), 405, "method-not-allowed", "");

    // A damaged file, a file that is gone: the live one goes on.
    let first = data.path().join("generations/000001");
    let (weights, aside) = (first.join("checkpoint/model.safetensors"), data.path().join("aside"));
    std::fs::rename(&weights, &aside).unwrap();
    refused(ask("1"), 409, "unsound-generation", "model.safetensors");
    let mut bytes = std::fs::read(&aside).unwrap();
    let last = bytes.len() - 1;
    bytes[last] ^= 1;
    std::fs::write(&weights, &bytes).unwrap();
    refused(ask("1"), 409, "unsound-generation", "checksum");
    std::fs::rename(&aside, &weights).unwrap();
    // LIVE cannot be written.
    let live_file = data.path().join("LIVE");
    std::fs::remove_file(&live_file).unwrap();
    std::fs::create_dir(&live_file).unwrap();
    assert_eq!(ask("1").status, 500);
    assert_eq!((live(server), server.search_ids("index", 5).len()), (2, 5));
    std::fs::remove_dir(&live_file).unwrap();
    std::fs::write(&live_file, "2\n").unwrap();
    let samples = metrics(server);
    assert_eq!(samples["anced_swaps_total{result=\"failed\"}"], 3.0);
    assert_eq!(samples["anced_swaps_total{result=\"done\"}"], 0.0);

    // Of two at once one is refused, and so is a removal meanwhile.
    let mut statuses: Vec<u16> = std::thread::scope(|scope| {
        let asked: Vec<_> = (0..2).map(|_| scope.spawn(|| ask("1").status)).collect();
        asked.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    statuses.sort_unstable();
    assert_eq!((statuses, live(server)), (vec![200, 409], 1));
    assert_eq!(std::fs::read_to_string(&live_file).unwrap(), "1\n");
}

#[test]
fn generations_are_listed_with_their_standing_and_a_rejected_one_says_so() {
    let data = two_generations();
    let folder = data.path().join("generations/000001");
    let text = std::fs::read_to_string(folder.join("manifest.json")).unwrap();
    assert!(!text.contains("\"status\""), "manifests of earlier versions must keep their checksum: {text}");
    let mut manifest = Manifest::read(&folder).unwrap();
    assert_eq!(manifest.status, Standing::Ready);
    manifest.status = Standing::Rejected;
    manifest.measures.insert("nDCG@10".into(), 0.25);
    manifest.write(&folder).unwrap();

    let server = Server::start(data.path());
    let listed = server.get("/admin/generations").json();
    let first = &listed["generations"][0];
    assert_eq!((&first["status"], &first["measures"]), (&json!("rejected"), &json!({"nDCG@10": 0.25})), "{listed}");
    assert_eq!((&first["model"], &first["live"], &first["parent"]), (&json!("bert-mean"), &json!(false), &Value::Null));
    let on_disk: u64 = manifest.files.keys().map(|name| std::fs::metadata(folder.join(name)).unwrap().len()).sum();
    assert!(on_disk > 100_000 && first["bytes"] == json!(on_disk), "{on_disk}: {first}");
    assert_eq!(listed["generations"][1]["status"], "ready");

    let report = activate(&server, 1);
    assert_eq!(report["status"], "rejected");
    assert!(report["note"].as_str().unwrap().contains("was rejected"), "{report}");

    let removed = server.delete("/admin/generations/2");
    assert_eq!((removed.status, &removed.json()["removed"]), (200, &json!(2)), "{}", removed.text());
    assert!(removed.json()["bytes"].as_u64().unwrap() > 100_000);
    assert_eq!(server.get("/admin/generations").json()["generations"].as_array().unwrap().len(), 1);
    assert_eq!(server.post("/admin/generations/2/activate", &json!({})).status, 404);
    assert!(server.stop().success());
    // What a killed removal leaves is removed by the next start, and the number is not given again.
    let generations = data.path().join("generations");
    std::fs::create_dir_all(generations.join("000002.removed/checkpoint")).unwrap();
    assert_eq!(index(data.path(), &model(MODELS[1]))["generation"], 3);
    let mut names: Vec<_> = std::fs::read_dir(generations).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    names.sort();
    assert_eq!(names, ["000001", "000003"]);
}

#[test]
fn a_stream_of_writes_goes_on_while_generations_change_places() {
    const STREAM: usize = 6000;
    let mut random = Random::from_seed("swap-stream");
    let data = two_generations();
    let server = &Server::start(data.path());
    let lines: String =
        (0..STREAM).map(|at| format!("{}\n", json!({"id": format!("s{at}"), "text": random.text(12)}))).collect();
    let done = &AtomicBool::new(false);
    let reports = std::thread::scope(|scope| {
        scope.spawn(move || {
            let _done = Ending(done);
            let answer = server.post_raw("/documents", "application/x-ndjson", lines.as_bytes());
            assert_eq!((answer.status, &answer.json()["written"]), (200, &json!(STREAM)), "{}", answer.text());
        });
        let mut reports = Vec::new();
        for number in [1, 2].into_iter().cycle() {
            if done.load(Ordering::Acquire) {
                break;
            }
            let report = activate(server, number);
            reports.push([
                report["hold_seconds"].as_f64().unwrap() * 1e3,
                report["holds"].as_f64().unwrap(),
                report["caught_up"].as_f64().unwrap(),
            ]);
        }
        reports
    });
    println!("longest hold in ms, holds, changes caught up: {reports:.1?}");
    assert!(
        reports.iter().any(|[.., caught_up]| *caught_up > 0.0),
        "nothing was written meanwhile: this proves little"
    );
    for number in [1, 2] {
        if live(server) != number {
            activate(server, number);
        }
        assert_eq!(all_found(server).len(), DOCUMENTS + STREAM, "generation {number}");
    }
    assert!(reports.iter().all(|[held, ..]| *held < 5000.0), "{reports:?}");
}
