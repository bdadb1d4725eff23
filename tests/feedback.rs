//! Feedback on a running server: votes become judgments, and what is measured is never trained on.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test ends by panicking")]

mod common;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Mutex;

use anced::corpus::{Judgment, Query, Source, Split, Store};
use anced::evaluation::{Error, judged_split};
use common::Server;
use common::random::Random;
use serde_json::{Value, json};

fn start(data: &Path, dev_share: &str) -> Server {
    Server::start_with(data, &["--feedback-dev-share", dev_share])
}

fn write_documents(server: &Server, ids: &[&str]) {
    let documents: Vec<Value> = ids.iter().map(|id| json!({"id": id, "text": format!("text of {id}")})).collect();
    assert_eq!(server.post("/documents", &json!({"documents": documents})).status, 200);
}

fn vote(server: &Server, query: &str, id: &str, grade: i64) -> Value {
    let answer = server.post("/feedback", &json!({"query": query, "id": id, "grade": grade}));
    assert_eq!(answer.status, 200, "{}", answer.text());
    answer.json()
}

fn store(data: &Path) -> Store {
    Store::open(&data.join("store")).unwrap()
}

/// Puts queries and judgments of files into the store of a server that does not run.
fn judge(data: &Path, judged: &[(&str, &str, &str, i32, Split)]) {
    let store = store(data);
    for (id, text, document, grade, split) in judged {
        store.write_queries(&[Query { id: (*id).into(), text: (*text).into(), answers: Vec::new() }]).unwrap();
        let (query, document) = ((*id).into(), (*document).into());
        let judgment = Judgment { query, document, grade: *grade, split: *split, source: Source::File };
        store.write_judgments(&[judgment]).unwrap();
    }
}

/// Query text, document, grade.
fn from_feedback(store: &Store, split: Split) -> Vec<(String, String, i32)> {
    let judged = store.judged_queries(split).unwrap().into_iter();
    let judgments = judged.flat_map(|(query, judgments)| {
        let of_feedback = judgments.into_iter().filter(|judgment| judgment.source == Source::Feedback);
        of_feedback.map(move |judgment| (query.text.clone(), judgment.document, judgment.grade)).collect::<Vec<_>>()
    });
    judgments.collect()
}

#[test]
fn conflicting_votes_are_counted_over_a_restart() {
    let data = tempfile::tempdir().unwrap();
    let server = start(data.path(), "0");
    write_documents(&server, &["d1", "d2"]);
    let first = vote(&server, " find\n files ", "d1", 3);
    let expected = json!({"query_id": "feedback-a32e463d0035f31d", "split": "train", "grade": 3,
                          "votes": {"up": 1, "down": 0}});
    assert_eq!(first, expected);
    let even = vote(&server, "find files", "d1", 0);
    assert_eq!((&even["grade"], &even["votes"]), (&Value::Null, &json!({"up": 1, "down": 1})));
    let metrics = server.get("/metrics").text();
    assert!(metrics.contains("anced_feedback_total 2\n"), "{metrics}");
    assert!(server.stop().success());

    let server = start(data.path(), "1");
    let against = vote(&server, "find files", "d1", 0);
    assert_eq!((&against["split"], &against["grade"]), (&json!("train"), &json!(0)));
    assert_eq!(against["votes"], json!({"up": 1, "down": 2}));
    // Somebody changes their mind.
    let body = json!({"query": "find files", "id": "d1", "grade": 1, "replaces": 0});
    let changed = server.post("/feedback", &body).json();
    assert_eq!((&changed["grade"], &changed["votes"]), (&json!(1), &json!({"up": 2, "down": 1})));
    // Hammering counts as far as votes count, and no further.
    let hammered = (0..40).map(|_| vote(&server, "find files", "d2", 0)).collect::<Vec<_>>().pop().unwrap();
    assert_eq!(hammered["votes"], json!({"up": 0, "down": 15}));
    let outvoted = (0..8).map(|_| vote(&server, "find files", "d2", 1)).collect::<Vec<_>>().pop().unwrap();
    assert_eq!((&outvoted["grade"], &outvoted["votes"]), (&json!(1), &json!({"up": 8, "down": 7})));
    assert!(server.stop().success());

    let expected = [("find files".into(), "d1".into(), 1), ("find files".into(), "d2".into(), 1)];
    assert_eq!(from_feedback(&store(data.path()), Split::Train), expected);
}

#[test]
fn a_query_is_on_one_side_and_stays_there() {
    let data = tempfile::tempdir().unwrap();
    let server = start(data.path(), "0.5");
    write_documents(&server, &["d1", "d2"]);
    let splits = |server: &Server, id| -> BTreeMap<String, String> {
        let texts = (0..40).map(|number| format!("query {number}"));
        texts.map(|text| (text.clone(), vote(server, &text, id, 1)["split"].as_str().unwrap().into())).collect()
    };
    let first = splits(&server, "d1");
    assert!(first.values().any(|split| split == "dev") && first.values().any(|split| split == "train"), "{first:?}");
    server.kill();
    let server = start(data.path(), "0");
    assert_eq!(splits(&server, "d2"), first);
    assert!(server.stop().success());

    let store = store(data.path());
    for split in [Split::Train, Split::Dev, Split::Test] {
        let texts: Vec<&String> =
            first.iter().filter(|(_, of)| **of == split.to_string()).map(|(text, _)| text).collect();
        let found = from_feedback(&store, split);
        assert_eq!(found.len(), 2 * texts.len());
        assert!(found.iter().all(|(text, _, _)| texts.contains(&text)), "{split}: {found:?}");
    }
    let answered = store.answered_queries().unwrap();
    assert_eq!(answered.train + answered.dev, 40);
}

#[test]
fn texts_that_files_measure_on_are_never_trained_on() {
    let data = tempfile::tempdir().unwrap();
    let server = start(data.path(), "0");
    write_documents(&server, &["d1", "d2"]);
    // Before the files know these texts.
    for text in ["dev text", "test text", "train text", "free text"] {
        assert_eq!(vote(&server, text, "d2", 1)["split"], "train");
    }
    assert!(server.stop().success());
    judge(
        data.path(),
        &[
            ("q1", "Dev text", "d1", 1, Split::Dev),
            ("q2", "test  text", "d1", 1, Split::Test),
            ("q3", "train text", "d1", 1, Split::Train),
        ],
    );
    let server = start(data.path(), "0.5");
    for (text, kept) in [("dev text", Value::Null), ("TEST text", Value::Null), ("train text", json!("train"))] {
        for id in ["d1", "d2"] {
            assert_eq!(vote(&server, text, id, 0)["split"], kept, "{text}");
        }
    }
    // The file's grade holds where both judge the same document.
    let outcome = vote(&server, "train text", "d1", 0);
    assert_eq!((&outcome["query_id"], &outcome["grade"]), (&json!("q3"), &json!(1)));
    vote(&server, "train text", "d2", 1);
    assert!(server.stop().success());

    let store = store(data.path());
    let expected = [("free text".into(), "d2".into(), 1), ("train text".into(), "d2".into(), 1)];
    assert_eq!(from_feedback(&store, Split::Train), expected);
    for split in [Split::Dev, Split::Test] {
        assert_eq!(from_feedback(&store, split), []);
        assert_eq!(store.judgments(split).unwrap().len(), 1);
    }
}

#[test]
fn unknown_and_deleted_documents_have_no_judgments() {
    let data = tempfile::tempdir().unwrap();
    let server = start(data.path(), "1");
    write_documents(&server, &["d1", "d2"]);
    let unknown = server.post("/feedback", &json!({"query": "a", "id": "d9", "grade": 1}));
    assert_eq!((unknown.status, unknown.json()["type"].as_str()), (404, Some("urn:anced:problem:unknown-document")));
    assert!(unknown.json()["detail"].as_str().unwrap().contains("`d9`"), "{}", unknown.text());
    vote(&server, "one", "d1", 1);
    vote(&server, "two", "d2", 1);
    vote(&server, "three", "d2", 0);
    assert_eq!(server.delete("/documents/d1").status, 200);
    assert_eq!(server.post("/feedback", &json!({"query": "one", "id": "d1", "grade": 1})).status, 404);
    // What was asked is for nobody else to read.
    assert_eq!(server.get("/search/examples?limit=10").json()["queries"], json!([]));
    assert!(server.stop().success());

    let store = store(data.path());
    let measured = judged_split(&store, Split::Dev).unwrap();
    // `one` has no document, `three` nothing relevant.
    assert_eq!(measured.queries.iter().map(|query| &query.text[..]).collect::<Vec<_>>(), ["two"]);
    assert_eq!(measured.judgments.len(), 1);
    store.delete(&["d2".into()]).unwrap();
    assert!(matches!(judged_split(&store, Split::Dev), Err(Error::NoJudgments(Split::Dev))));
    assert_eq!(store.answered_queries().unwrap().dev, 0);
}

#[test]
fn killed_at_any_moment_no_acknowledged_vote_is_lost() {
    let data = tempfile::tempdir().unwrap();
    let server = start(data.path(), "0");
    write_documents(&server, &["d1"]);
    server.kill();
    let mut random = Random::from_seed("feedback");
    let kept = Mutex::new(BTreeMap::<String, u64>::new());
    for round in 0..4_u64 {
        let server = start(data.path(), "0");
        let kill_after = 5 + random.below(60);
        std::thread::scope(|scope| {
            let mut voters = Vec::new();
            for voter in 0..3 {
                let (server, kept) = (&server, &kept);
                voters.push(scope.spawn(move || {
                    for number in 0.. {
                        let query = format!("query {round} {voter} {number}");
                        for votes in 1..=2_u64 {
                            let body = json!({"query": query, "id": "d1", "grade": 1}).to_string();
                            let Some(answer) = server.try_post_raw("/feedback", "application/json", body.as_bytes())
                            else {
                                return;
                            };
                            assert_eq!((answer.status, &answer.json()["votes"]["up"]), (200, &json!(votes)));
                            kept.lock().unwrap().insert(query.clone(), votes);
                        }
                    }
                }));
            }
            let before = kept.lock().unwrap().len() as u64;
            while (kept.lock().unwrap().len() as u64) < before + kill_after
                && voters.iter().any(|voter| !voter.is_finished())
            {
                std::thread::yield_now();
            }
            server.signal("KILL");
        });
    }
    let kept = kept.into_inner().unwrap();
    let server = start(data.path(), "0");
    for (query, votes) in kept.iter().step_by(17) {
        // One that was not acknowledged may have been kept too.
        let now = vote(&server, query, "d1", 1)["votes"]["up"].as_u64().unwrap();
        assert!(now == votes + 1 || (*votes == 1 && now == 3), "{query}: {now} after {votes}");
    }
    assert!(server.stop().success());
    let found = from_feedback(&store(data.path()), Split::Train);
    for query in kept.keys() {
        assert!(
            found.iter().any(|(text, document, grade)| (text, &document[..], *grade) == (query, "d1", 1)),
            "{query}"
        );
    }
}
