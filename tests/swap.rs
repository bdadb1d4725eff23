//! Another generation takes over while requests go on: none fails, none mixes generations, no write is lost.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test ends by panicking")]

mod common;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use common::corpus::{DOCUMENTS, document, metrics, search};
use common::generations::{MODELS, activate, live, two_generations};
use common::random::Random;
use common::references::References;
use common::{Ending, Server};
use serde_json::json;

/// How long writers may be held at most: far more than it takes, since a slow machine under other tests is no fault.
const LONGEST_HOLD_MS: f64 = 60_000.0;

/// Every document that a search finds.
fn all_found(server: &Server) -> BTreeSet<String> {
    let answer = search(server, json!({"query": "anything", "k": 10_000, "exact": true, "include": []}));
    answer["hits"].as_array().unwrap().iter().map(|hit| hit["id"].as_str().unwrap().to_owned()).collect()
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
    let mut references = References::new(data.path());
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
    assert!(holds[SWAPS - 1] < LONGEST_HOLD_MS, "{holds:?}");
    assert!(!server.log().contains("panicked"), "{}", server.log());
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
            // A write that is encoded again for each change would never end if changes came faster than it is encoded.
            std::thread::sleep(Duration::from_millis(300));
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
    assert!(reports.iter().all(|[held, ..]| *held < LONGEST_HOLD_MS), "{reports:?}");
}
