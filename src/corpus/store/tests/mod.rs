//! Tests of the store against a model in memory.

mod check;
mod feedback;
mod filter;
mod meaning;
mod reader;

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::corpus::{Document, Filter, Judgment, Query, Source, Split};

pub(super) fn open() -> (tempfile::TempDir, Store) {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(&folder.path().join("store")).unwrap();
    (folder, store)
}

pub(super) fn document(id: &str, text: &str, metadata: Value) -> Document {
    let Value::Object(metadata) = metadata else { panic!("not an object") };
    Document { id: id.into(), title: String::new(), text: text.into(), metadata }
}

fn plain(id: &str, text: &str) -> Document {
    document(id, text, json!({}))
}

#[test]
fn writes_get_sequences_and_unchanged_documents_keep_theirs() {
    let (_folder, store) = open();
    assert_eq!((store.count().unwrap(), store.last_sequence().unwrap()), (0, 0));
    let outcomes = store.write(&[plain("a", "1"), plain("b", "1")]).unwrap();
    assert_eq!(outcomes[0], WriteOutcome { sequence: 1, replaced: None, changed: true });
    assert_eq!(outcomes[1], WriteOutcome { sequence: 2, replaced: None, changed: true });
    let outcomes = store.write(&[plain("a", "1"), plain("b", "2")]).unwrap();
    assert_eq!(outcomes[0], WriteOutcome { sequence: 1, replaced: None, changed: false });
    assert_eq!(outcomes[1], WriteOutcome { sequence: 3, replaced: Some(2), changed: true });
    assert_eq!(
        store.by_sequence(&[1, 2, 3, 4]).unwrap().iter().map(Option::is_some).collect::<Vec<_>>(),
        [true, false, true, false]
    );

    let removals = store.delete(&["a".into(), "x".into(), "a".into(), String::new()]).unwrap();
    assert_eq!(removals, [Removal { id: "a".into(), sequence: 4, removed: 1 }]);
    assert_eq!(store.document("a").unwrap(), None);
    assert_eq!(
        store.write(&[plain("a", "1")]).unwrap()[0],
        WriteOutcome { sequence: 5, replaced: None, changed: true }
    );
    assert_eq!((store.count().unwrap(), store.last_sequence().unwrap()), (2, 5));
}

#[test]
fn of_one_id_twice_in_a_call_the_last_wins() {
    let (_folder, store) = open();
    let outcomes = store.write(&[plain("a", "first"), plain("b", "x"), plain("a", "last")]).unwrap();
    assert_eq!(outcomes[0], WriteOutcome { sequence: 2, replaced: None, changed: false });
    assert_eq!(outcomes[2], WriteOutcome { sequence: 2, replaced: None, changed: true });
    assert_eq!(store.document("a").unwrap().unwrap().document.text, "last");
    assert_eq!(store.changes(0, 10).unwrap().len(), 2);
}

#[test]
fn a_refused_document_keeps_all_of_its_call_out() {
    let (_folder, store) = open();
    let error = store.write(&[plain("a", ""), plain(&"x".repeat(501), "")]).unwrap_err().to_string();
    assert!(error.contains("500 bytes"), "{error}");
    assert_eq!(store.count().unwrap(), 0);
    assert_eq!(store.list(Some(&"x".repeat(5000)), 10, 1000).unwrap(), (vec![], false));
    assert_eq!(store.document(&"x".repeat(5000)).unwrap(), None);
}

#[test]
fn a_list_ends_before_it_is_too_large() {
    let (_folder, store) = open();
    let documents: Vec<Document> = (0..5).map(|at| plain(&at.to_string(), &"x".repeat(1000))).collect();
    store.write(&documents).unwrap();
    let one = serde_json::to_string(&documents[0]).unwrap().len();
    for (bytes, count) in [(0, 1), (one, 1), (2 * one - 1, 1), (2 * one, 2), (5 * one - 1, 4), (5 * one, 5)] {
        let (listed, more) = store.list(None, 10, bytes).unwrap();
        assert_eq!((listed.len(), more), (count, count < 5), "{bytes} bytes");
    }
    let (listed, more) = store.list(Some("0"), 3, usize::MAX).unwrap();
    assert_eq!((listed.len(), more), (3, true));
    assert!(!store.list(Some("1"), 3, usize::MAX).unwrap().1);
}

#[test]
fn a_store_keeps_what_was_written_when_it_is_opened_again() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(folder.path()).unwrap();
    store.write(&[document("a", "t", json!({"x": 0.1, "y": 1e300, "z": 1.797_693_134_862_315_7e308}))]).unwrap();
    let before = store.document("a").unwrap();
    let error = Store::open(folder.path()).unwrap_err();
    assert!(matches!(error, Error::AlreadyOpen(_)), "{error}");
    drop(store);
    let store = Store::open(folder.path()).unwrap();
    assert_eq!(store.document("a").unwrap(), before);
    assert_eq!(store.last_sequence().unwrap(), 1);
}

#[test]
fn folders_that_are_no_store_are_named() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("file");
    std::fs::write(&file, "x").unwrap();
    let error = Store::open(&file).unwrap_err().to_string();
    assert!(error.contains("file") && error.contains("open"), "{error}");

    let damaged = folder.path().join("damaged");
    std::fs::create_dir(&damaged).unwrap();
    std::fs::write(damaged.join("data.mdb"), vec![7; 100_000]).unwrap();
    let error = Store::open(&damaged).unwrap_err();
    assert!(matches!(error, Error::Damaged { .. }), "{error}");

    let cut = folder.path().join("cut");
    let store = Store::open(&cut).unwrap();
    store.write(&[plain("a", &"x".repeat(8 << 20))]).unwrap();
    drop(store);
    let data = std::fs::OpenOptions::new().write(true).open(cut.join("data.mdb")).unwrap();
    data.set_len(1 << 20).unwrap();
    let error = Store::open(&cut).unwrap_err().to_string();
    assert!(error.contains("cut short"), "{error}");
}

#[test]
fn several_threads_read_while_one_writes() {
    let (_folder, store) = open();
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                while store.count().unwrap() < 50 {
                    for found in store.current(0, 100).unwrap() {
                        assert!(found.document.id.starts_with('d'));
                    }
                }
            });
        }
        for number in 0..50 {
            store.write(&[plain(&format!("d{number}"), "text")]).unwrap();
        }
    });
}

#[test]
fn judgments_belong_to_queries_and_splits() {
    let (_folder, store) = open();
    store.write(&[plain("d1", ""), plain("d2", "")]).unwrap();
    let query = |id: &str, text: &str| Query { id: id.into(), text: text.into(), answers: Vec::new() };
    assert_eq!(store.write_queries(&[query("q2", "b"), query("q1", "a"), query("q3", "c")]).unwrap(), 3);
    assert_eq!(store.write_queries(&[query("q1", "a"), query("q2", "new")]).unwrap(), 1);
    assert_eq!(store.query("q2").unwrap().unwrap().text, "new");
    assert!(store.write_queries(&[query("", "a")]).is_err());

    let judgment = |query: &str, document: &str, grade, split| Judgment {
        query: query.into(),
        document: document.into(),
        grade,
        split,
        source: Source::File,
    };
    let judgments = [
        judgment("q2", "d1", 1, Split::Train),
        judgment("q1", "d2", -1, Split::Train),
        judgment("q1", "d1", 3, Split::Train),
        judgment("q1", "d1", 1, Split::Test),
        judgment("q1", "gone", 1, Split::Test),
        judgment("q9", "d1", 1, Split::Test),
    ];
    use JudgmentOutcome::{Unchanged, UnknownDocument, UnknownQuery, Written};
    let outcomes = store.write_judgments(&judgments).unwrap();
    assert_eq!(outcomes, [Written, Written, Written, Written, UnknownDocument, UnknownQuery]);
    assert_eq!(store.write_judgments(&judgments[..1]).unwrap(), [Unchanged]);
    assert_eq!(store.write_judgments(&[judgment("q1", "d1", 2, Split::Train)]).unwrap(), [Written]);

    let train = store.judgments(Split::Train).unwrap();
    let expected: Vec<(&str, &str, i32)> = vec![("q1", "d1", 2), ("q1", "d2", -1), ("q2", "d1", 1)];
    assert_eq!(train.iter().map(|j| (&j.query[..], &j.document[..], j.grade)).collect::<Vec<_>>(), expected);
    assert_eq!(store.judged_queries(Split::Dev).unwrap(), []);
    assert_eq!(store.judgment_counts().unwrap(), JudgmentCounts { train: 3, dev: 0, test: 2 });
    assert_eq!(store.sample_queries(Split::Train, 5).unwrap().len(), 2);
    assert_eq!(store.sample_queries(Split::Train, 1).unwrap()[0].id, "q1");
    assert_eq!(store.sample_queries(Split::Train, 0).unwrap(), []);
}

#[derive(Debug, Clone)]
enum Action {
    Write(Vec<(u8, u8)>),
    Delete(Vec<u8>),
}

fn actions() -> impl Strategy<Value = Vec<Action>> {
    let write = prop::collection::vec((0..12u8, 0..3u8), 0..6).prop_map(Action::Write);
    let delete = prop::collection::vec(0..12u8, 0..4).prop_map(Action::Delete);
    prop::collection::vec(prop_oneof![3 => write, 1 => delete], 0..12)
}

fn id(number: u8) -> String {
    // Lengths differ, so that the order by bytes is not the order by number.
    format!("d{}{number}", "x".repeat(usize::from(number) % 4))
}

fn live(store: &Store) -> BTreeMap<String, (u64, Document)> {
    let pages = std::iter::successors(Some(store.current(0, 3).unwrap()), |page| {
        page.last().map(|last| store.current(last.sequence, 3).unwrap())
    });
    pages.flatten().map(|found| (found.document.id.clone(), (found.sequence, found.document))).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn the_store_is_a_map_with_a_log(actions in actions()) {
        let (_folder, store) = open();
        let mut model: BTreeMap<String, Document> = BTreeMap::new();
        for action in &actions {
            match action {
                Action::Write(writes) => {
                    let documents: Vec<Document> = writes
                        .iter()
                        .map(|(number, version)| document(&id(*number), &version.to_string(), json!({"v": version})))
                        .collect();
                    let before = live(&store);
                    let last: BTreeMap<&str, &Document> = documents.iter().map(|d| (d.id.as_str(), d)).collect();
                    for (written, outcome) in documents.iter().zip(store.write(&documents).unwrap()) {
                        let old = before.get(&written.id);
                        let same = old.is_some_and(|(_, old)| old == last[written.id.as_str()]);
                        if outcome.changed {
                            prop_assert_eq!(outcome.replaced, old.map(|(sequence, _)| *sequence));
                        }
                        prop_assert!(!(same && outcome.changed));
                        prop_assert_eq!(store.document(&written.id).unwrap().unwrap().sequence, outcome.sequence);
                    }
                    model.extend(documents.into_iter().map(|d| (d.id.clone(), d)));
                }
                Action::Delete(numbers) => {
                    let ids: Vec<String> = numbers.iter().map(|number| id(*number)).collect();
                    let existed: BTreeSet<&String> = ids.iter().filter(|id| model.contains_key(*id)).collect();
                    let removals = store.delete(&ids).unwrap();
                    prop_assert_eq!(removals.iter().map(|removal| &removal.id).collect::<BTreeSet<_>>(), existed);
                    ids.iter().for_each(|id| { model.remove(id); });
                }
            }
        }

        let live = live(&store);
        prop_assert_eq!(live.iter().map(|(id, (_, d))| (id.clone(), d.clone())).collect::<BTreeMap<_, _>>(), model.clone());
        prop_assert_eq!(store.count().unwrap(), model.len() as u64);
        let listed: Vec<Document> = store.list(None, 100, usize::MAX).unwrap().0.into_iter().map(|found| found.document).collect();
        prop_assert_eq!(&listed, &model.values().cloned().collect::<Vec<_>>());
        if let Some(first) = listed.first() {
            let (rest, more) = store.list(Some(&first.id), 2, usize::MAX).unwrap();
            let rest: Vec<Document> = rest.into_iter().map(|found| found.document).collect();
            prop_assert_eq!(&rest[..], &listed[1..listed.len().min(3)]);
            prop_assert_eq!(more, listed.len() > 3);
        }

        let mut replayed: BTreeMap<u64, String> = BTreeMap::new();
        let mut after = 0;
        loop {
            let page = store.changes(after, 4).unwrap();
            for change in &page {
                prop_assert_eq!(change.sequence, after + 1);
                after = change.sequence;
                let old = match change.operation {
                    Operation::Write { replaced } => replaced,
                    Operation::Delete { removed } => Some(removed),
                };
                if let Some(old) = old {
                    prop_assert_eq!(replayed.remove(&old), Some(change.id.clone()));
                }
                if matches!(change.operation, Operation::Write { .. }) {
                    replayed.insert(change.sequence, change.id.clone());
                }
            }
            if page.len() < 4 { break; }
        }
        prop_assert_eq!(after, store.last_sequence().unwrap());
        prop_assert_eq!(&replayed, &live.iter().map(|(id, (sequence, _))| (*sequence, id.clone())).collect());
        let all: Vec<u64> = (0..=after + 1).collect();
        for (sequence, found) in all.iter().zip(store.by_sequence(&all).unwrap()) {
            prop_assert_eq!(found.map(|found| found.document.id), replayed.get(sequence).cloned());
        }
        let every = store.matching(&Filter::parse(&json!({})).unwrap()).unwrap();
        prop_assert_eq!(every.iter().collect::<Vec<_>>(), replayed.keys().copied().collect::<Vec<_>>());
        let version = store.matching(&Filter::parse(&json!({"v": 1})).unwrap()).unwrap();
        let expected: Vec<u64> = live.values().filter(|(_, d)| d.metadata["v"] == 1).map(|(s, _)| *s).collect::<BTreeSet<_>>().into_iter().collect();
        prop_assert_eq!(version.iter().collect::<Vec<_>>(), expected);
    }
}
