//! What needs no process.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test ends by panicking")]

use super::disk::{self, Sizes};
use super::events::EventLog;
use super::job::Said;
use super::{Error, Events, Job};
use crate::ance::Plan;
use crate::generation::Manifest;
use crate::settings::Settings;

#[tokio::test]
async fn who_comes_late_hears_everything_once_and_in_order() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("events");
    // The second line was cut off by a kill.
    std::fs::write(&path, "{\"event\": \"started\"}\n{\"eve").unwrap();
    let log = EventLog::open(&path).unwrap();
    log.tell(r#"{"event": "step", "step": 1}"#, true);
    let mut late = log.listen(0).unwrap();
    let mut later = log.listen(2).unwrap();
    log.tell(r#"{"event": "phase"}"#, false);
    log.tell(r#"{"event": "ended"}"#, true);
    let mut heard = Vec::new();
    while let Some(told) = late.next().await {
        heard.push((told.number, told.kind));
    }
    let expected = [(Some(1), "started"), (Some(3), "step"), (None, "phase"), (Some(4), "ended")];
    assert_eq!(heard, expected.map(|(number, kind)| (number, kind.to_owned())));
    assert_eq!(later.next().await.unwrap().number, Some(3));
    let mut past = Events::past(&path, 3).unwrap();
    assert_eq!(past.next().await.unwrap().kind, "ended", "progress is not kept");
    assert!(past.next().await.is_none());
}

#[tokio::test]
async fn who_is_slow_or_comes_late_misses_nothing_that_is_kept() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("events");
    let log = EventLog::open(&path).unwrap();
    let mut slow = log.listen(0).unwrap();
    for step in 1..=12_000 {
        log.tell(&format!(r#"{{"event": "step", "step": {step}}}"#), true);
        if step == 6_000 {
            // It hears some and is then left behind.
            for number in 1..=3_000 {
                assert_eq!(slow.next().await.unwrap().number, Some(number));
            }
        }
    }
    let mut late = log.listen(0).unwrap();
    log.tell(r#"{"event": "ended"}"#, true);
    for (listener, first) in [(&mut slow, 3_001), (&mut late, 1)] {
        for number in first..=12_001 {
            assert_eq!(listener.next().await.unwrap().number, Some(number));
        }
        assert!(listener.next().await.is_none());
    }
    drop(log);
    let log = EventLog::open(&path).unwrap();
    log.tell(r#"{"event": "started"}"#, true);
    assert_eq!(log.listen(12_001).unwrap().next().await.unwrap().number, Some(12_002));
}

#[test]
fn a_full_disk_is_told_with_what_is_missing() {
    let folder = tempfile::tempdir().unwrap();
    disk::check(folder.path(), 1).unwrap();
    let error = disk::check(folder.path(), u64::MAX).unwrap_err();
    let Error::NoRoom { needed, free, .. } = &error else { panic!("{error}") };
    assert!(error.to_string().contains(&format!("{} are missing", needed - free)), "{error}");
}

#[test]
fn what_a_run_keeps_of_documents_and_queries_is_counted() {
    let file = |bytes: u64| serde_json::json!({"bytes": bytes, "sha256": ""});
    let manifest: Manifest = serde_json::from_value(serde_json::json!({
        "number": 1, "parent": null, "created": "", "model": "", "checkpoint_digest": "", "dimension": 4,
        "similarity": "dot", "store": "", "documents": 100, "applied_sequence": 100, "measures": {}, "checksum": "",
        "vectors_file": "vectors", "graph_file": "graph",
        "files": {"checkpoint/model.safetensors": file(1000), "vectors": file(100 * 16), "graph": file(5000)},
    }))
    .unwrap();
    let plan = |settings: Settings| Plan::from_settings(&settings).unwrap();
    let usual = plan(Settings::default());
    let sizes = |documents: u64, queries: u64| Sizes { parameters: 250, documents, queries };
    let needed = |documents: u64, queries: u64, plan: &Plan| disk::needed(&manifest, sizes(documents, queries), plan);
    // State, four checkpoints, an index, two files of vectors, 128 tokens a document, 100 candidates a query and round.
    assert_eq!(needed(100, 50, &usual), 6000 + 4000 + 6600 + 4800 + 100 * 128 * 6 + 50 * 100 * 4 * 3);
    let few = plan(Settings { negatives_per_query: Some(20), ..Settings::default() });
    assert_eq!(needed(100, 50, &usual) - needed(100, 50, &few), 50 * 80 * 4 * 3);
    let pieces = disk::needed(&Manifest { dimension: 2, ..manifest.clone() }, sizes(100, 0), &usual);
    assert!(pieces > 200 * 128 * 6, "documents of two pieces: {pieces}");
    // The same bytes as weights of 16 bits: 250 more bytes of state each, and checkpoints of twice the size.
    let narrow = disk::needed(&manifest, Sizes { parameters: 500, ..sizes(100, 50) }, &usual);
    assert_eq!(narrow - needed(100, 50, &usual), 6000 + 4 * 1000);
    assert_eq!(needed(u64::MAX, u64::MAX, &usual), u64::MAX);
}

#[test]
fn what_is_built_of_an_earlier_round_sets_no_job_back() {
    let plan = Plan::from_settings(&Settings::default()).unwrap();
    let mut job = Job::new("job".into(), plan);
    let said = |round: u64, phase: &str| Said::Phase { round, phase: phase.into(), done: 0, beside: false };
    for (round, phase, expected) in [(3, "train", 3), (3, "encode", 3), (2, "build", 3), (2, "gate", 3)] {
        assert!(job.saw(&said(round, phase)), "{phase}");
        assert_eq!((job.round, job.phase.as_deref()), (expected, Some(phase)));
    }
}
