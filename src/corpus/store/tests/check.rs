//! The check of a store finds what was damaged in any of its tables, and nothing in a sound one.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test ends by panicking")]

use serde_json::json;

use crate::corpus::store::Store;
use crate::corpus::{Document, Feedback, Grade, Judgment, Query, Source, Split, metadata};

fn document(id: &str, text: &str) -> Document {
    let value = json!({"id": id, "title": "", "text": text, "metadata": {"lang": "en", "tags": ["a", id]}});
    serde_json::from_value(value).unwrap()
}

/// A store with something in each table, replaced and deleted documents among it.
fn filled() -> (tempfile::TempDir, Store) {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(folder.path()).unwrap();
    store.write(&[document("a", "one"), document("b", "two"), document("c", "three")]).unwrap();
    store.write(&[document("b", "two again")]).unwrap();
    store.delete(&["c".into()]).unwrap();
    let query = |id: &str| Query { id: id.into(), text: format!("what is {id}"), answers: Vec::new() };
    store.write_queries(&[query("q1"), query("q2")]).unwrap();
    let judgment = |document: &str| Judgment {
        query: "q1".into(),
        document: document.into(),
        grade: 1,
        split: Split::Train,
        source: Source::File,
    };
    store.write_judgments(&[judgment("a"), judgment("c")]).unwrap();
    let grade = Grade::new(1).unwrap();
    let vote = Feedback { query: "which".into(), document: "b".into(), grade, replaces: None };
    store.write_feedback(&vote, 0.0).unwrap().unwrap();
    store.put_job("job", "{}").unwrap();
    (folder, store)
}

#[test]
fn a_sound_store_has_no_findings() {
    let (_folder, store) = filled();
    let check = store.check().unwrap();
    assert_eq!(check.findings, Vec::<String>::new());
    let contents = check.contents;
    assert_eq!((contents.documents, contents.writes, contents.queries), (2, 5, 2));
    assert_eq!((contents.judgments, contents.judgments_without_document), (2, 1));
    assert_eq!((contents.feedback, contents.jobs), (1, 1));
    assert_eq!(check.current.iter().collect::<Vec<_>>(), [1, 4]);
}

/// Damages a table.
type Damage = fn(&Store, &mut heed::RwTxn<'_>) -> Result<(), heed::Error>;

#[test]
fn damage_in_any_table_is_found() {
    let damages: [(&str, Damage); 15] = [
        ("documents", |store, txn| store.tables.documents.delete(txn, &1_u64.to_be_bytes()).map(drop)),
        ("documents", |store, txn| store.tables.documents.put(txn, &4_u64.to_be_bytes(), b"{\"id\"")),
        ("documents", |store, txn| {
            let json = store.tables.documents.get(txn, &1_u64.to_be_bytes())?.unwrap().to_vec();
            store.tables.documents.put(txn, &9_u64.to_be_bytes(), &json)
        }),
        ("ids", |store, txn| store.tables.ids.put(txn, b"b", &2_u64.to_be_bytes())),
        ("ids", |store, txn| store.tables.ids.put(txn, b"nobody", &7_u64.to_be_bytes())),
        ("log", |store, txn| store.tables.log.delete(txn, &2_u64.to_be_bytes()).map(drop)),
        ("log", |store, txn| store.tables.log.put(txn, &1_u64.to_be_bytes(), b"\x07")),
        ("postings", |store, txn| {
            let key = 1_u64.to_be_bytes();
            store.tables.postings.delete_one_duplicate(txn, metadata::EVERY_DOCUMENT, &key).map(drop)
        }),
        ("queries", |store, txn| store.tables.queries.put(txn, &1_u64.to_be_bytes(), b"[]")),
        ("queries", |store, txn| store.tables.query_ids.delete(txn, b"q2").map(drop)),
        ("queries", |store, txn| store.tables.query_texts.clear(txn)),
        ("feedback", |store, txn| store.tables.feedback_texts.clear(txn)),
        ("judgments", |store, txn| store.tables.judgments.put(txn, b"\x00\x00\x00\x00\x00\x00\x00\x00\x09a", b"none")),
        ("feedback", |store, txn| store.tables.feedback.clear(txn)),
        ("jobs", |store, txn| store.tables.jobs.put(txn, b"other", b"{")),
    ];
    for (at, (kind, damage)) in damages.into_iter().enumerate() {
        let (_folder, store) = filled();
        store.change("damage", |transaction| damage(&store, transaction)).unwrap();
        let findings = store.check().unwrap().findings;
        assert!(findings.iter().any(|finding| finding.starts_with(kind)), "{at} {kind}: {findings:?}");
    }
}

#[test]
fn many_findings_of_one_kind_are_counted() {
    let (_folder, store) = filled();
    store
        .change("damage", |transaction| {
            (100_u64..200).try_for_each(|at| store.tables.jobs.put(transaction, &at.to_be_bytes(), b"{"))
        })
        .unwrap();
    let findings = store.check().unwrap().findings;
    assert!(findings.len() == 6 && findings[5] == "jobs: 95 more", "{findings:?}");
}

#[test]
fn a_copy_is_the_store_at_one_moment() {
    let (folder, store) = filled();
    let copy = folder.path().join("copy");
    store.copy_to(&copy).unwrap();
    store.write(&[document("later", "later")]).unwrap();
    let copied = Store::open(&copy).unwrap();
    assert_eq!((copied.count().unwrap(), copied.identity()), (2, store.identity()));
    assert_eq!(copied.check().unwrap().findings, Vec::<String>::new());
    copied.write(&[document("mine", "mine")]).unwrap();
    assert!(store.document("mine").unwrap().is_none() && copied.document("later").unwrap().is_none());
}
