//! Tests of feedback beside the judgments of files.

use serde_json::json;

use super::{document, open};
use crate::corpus::feedback::{self, FeedbackQuery};
use crate::corpus::store::*;
use crate::corpus::{Feedback, FeedbackOutcome, Grade, Judgment, Query, Source, Split, Votes};

fn with_documents() -> (tempfile::TempDir, Store) {
    let (folder, store) = open();
    store.write(&["d1", "d2", "d3"].map(|id| document(id, "text", json!({})))).unwrap();
    (folder, store)
}

fn query(id: &str, text: &str) -> Query {
    Query { id: id.into(), text: text.into(), answers: Vec::new() }
}

fn file(store: &Store, id: &str, text: &str, document: &str, grade: i32, split: Split) {
    store.write_queries(&[query(id, text)]).unwrap();
    let judgment = Judgment { query: id.into(), document: document.into(), grade, split, source: Source::File };
    store.write_judgments(&[judgment]).unwrap();
}

/// A vote on a store where every query of feedback is trained on.
fn vote(store: &Store, text: &str, document: &str, grade: i64) -> FeedbackOutcome {
    vote_in(store, text, document, grade, 0.0)
}

fn vote_in(store: &Store, text: &str, document: &str, grade: i64, dev_share: f64) -> FeedbackOutcome {
    let grade = Grade::new(grade).unwrap();
    let feedback = Feedback { query: text.into(), document: document.into(), grade, replaces: None };
    store.write_feedback(&feedback, dev_share).unwrap().unwrap()
}

/// Query id, document, grade, source.
fn judged(store: &Store, split: Split) -> Vec<(String, String, i32, Source)> {
    let judgments = store.judgments(split).unwrap().into_iter();
    judgments.map(|judgment| (judgment.query, judgment.document, judgment.grade, judgment.source)).collect()
}

fn of(query: &str, document: &str, grade: i32, source: Source) -> (String, String, i32, Source) {
    (query.into(), document.into(), grade, source)
}

#[test]
fn votes_become_judgments_of_a_query_of_their_own() {
    let (_folder, store) = with_documents();
    let first = vote(&store, "  find\tfiles ", "d1", 2);
    assert_eq!(first.query, "feedback-a32e463d0035f31d");
    assert_eq!((first.split, first.grade, first.votes), (Some(Split::Train), Some(2), Votes { up: 1, down: 0 }));
    assert_eq!(vote(&store, "find files", "d1", 0).grade, None);
    assert_eq!(judged(&store, Split::Train), []);
    assert_eq!(vote(&store, "find files", "d1", 0).grade, Some(0));
    vote(&store, "find files", "d2", 1);
    let expected = [of(&first.query, "d1", 0, Source::Feedback), of(&first.query, "d2", 1, Source::Feedback)];
    assert_eq!(judged(&store, Split::Train), expected);
    assert_eq!(store.judgment_counts().unwrap(), JudgmentCounts { train: 2, dev: 0, test: 0 });
    assert_eq!(store.query(&first.query).unwrap().unwrap(), query(&first.query, "find files"));
    assert_eq!(store.query("feedback-0000000000000000").unwrap(), None);
    // Texts of other case are other queries.
    assert_ne!(vote(&store, "Find files", "d1", 1).query, first.query);
}

#[test]
fn what_cannot_be_judged_is_refused_and_leaves_nothing() {
    let (_folder, store) = with_documents();
    let grade = Grade::new(1).unwrap();
    for id in ["d9", "", &"x".repeat(501)] {
        let feedback = Feedback { query: "q".into(), document: id.into(), grade, replaces: None };
        assert_eq!(store.write_feedback(&feedback, 0.0).unwrap(), None, "{id}");
    }
    let feedback = Feedback { query: " \n".into(), document: "d1".into(), grade, replaces: None };
    assert!(store.write_feedback(&feedback, 0.0).unwrap_err().to_string().contains("empty"));
    assert_eq!(store.judged_queries(Split::Train).unwrap(), []);
    assert!(store.tables.feedback.is_empty(&store.env.read_txn().unwrap()).unwrap());
}

#[test]
fn a_longest_id_can_be_judged() {
    let (_folder, store) = open();
    let id = "x".repeat(500);
    store.write(&[document(&id, "text", json!({}))]).unwrap();
    vote(&store, "q", &id, 1);
    assert_eq!(store.judgments(Split::Train).unwrap()[0].document, id);
}

#[test]
fn votes_and_splits_are_there_when_the_store_is_opened_again() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(folder.path()).unwrap();
    store.write(&[document("d1", "text", json!({}))]).unwrap();
    assert_eq!(vote_in(&store, "train", "d1", 1, 0.0).split, Some(Split::Train));
    assert_eq!(vote_in(&store, "dev", "d1", 1, 1.0).split, Some(Split::Dev));
    drop(store);
    let store = Store::open(folder.path()).unwrap();
    // A query stays where it is, whatever the share has become.
    let again = vote_in(&store, "train", "d1", 3, 1.0);
    assert_eq!((again.split, again.votes), (Some(Split::Train), Votes { up: 2, down: 0 }));
    assert_eq!(vote_in(&store, "dev", "d1", 3, 0.0).split, Some(Split::Dev));
    assert_eq!(store.judgment_counts().unwrap(), JudgmentCounts { train: 1, dev: 1, test: 0 });
}

#[test]
fn texts_that_files_measure_on_get_no_judgment_whenever_the_file_came() {
    for measured in [Split::Dev, Split::Test] {
        for dev_share in [0.0, 1.0] {
            for file_first in [true, false] {
                let (_folder, store) = with_documents();
                if file_first {
                    file(&store, "q1", "Find  FILES", "d1", 1, measured);
                }
                let outcome = vote_in(&store, "find files", "d2", 1, dev_share);
                assert_eq!(outcome.split.is_none(), file_first);
                file(&store, "q1", "Find  FILES", "d1", 1, measured);
                // Judged in train too: what is measured comes first.
                file(&store, "q2", "find files", "d3", 1, Split::Train);
                let outcome = vote_in(&store, "find files", "d2", 1, dev_share);
                assert_eq!((outcome.split, outcome.grade, outcome.votes.up), (None, None, 2));
                for split in [Split::Train, Split::Dev, Split::Test] {
                    let found = judged(&store, split);
                    assert!(found.iter().all(|(_, _, _, source)| *source == Source::File), "{found:?}");
                }
                assert_eq!(judged(&store, measured).len(), 1);
            }
        }
    }
}

#[test]
fn feedback_adds_to_a_train_query_of_a_file_and_the_file_s_grade_holds() {
    let (_folder, store) = with_documents();
    file(&store, "q1", "find files", "d1", 2, Split::Train);
    file(&store, "q0", "other", "d1", 1, Split::Train);
    let outcome = vote_in(&store, "find  files", "d1", 0, 1.0);
    assert_eq!((&outcome.query[..], outcome.split, outcome.grade), ("q1", Some(Split::Train), Some(2)));
    let outcome = vote_in(&store, "find files", "d2", 1, 1.0);
    assert_eq!((&outcome.query[..], outcome.split, outcome.grade), ("q1", Some(Split::Train), Some(1)));
    // Another case is another query, but on the same side.
    let other = vote_in(&store, "FIND files", "d3", 1, 1.0);
    assert_eq!(other.split, Some(Split::Train));
    let expected = [
        of(&other.query, "d3", 1, Source::Feedback),
        of("q0", "d1", 1, Source::File),
        of("q1", "d1", 2, Source::File),
        of("q1", "d2", 1, Source::Feedback),
    ];
    assert_eq!(judged(&store, Split::Train), expected);
    assert_eq!(store.judgment_counts().unwrap(), JudgmentCounts { train: 4, dev: 0, test: 0 });
    // The file's query gets another text: feedback is left with one of its own.
    store.write_queries(&[query("q1", "something else")]).unwrap();
    assert_eq!(vote_in(&store, "find files", "d2", 1, 1.0).query, "feedback-a32e463d0035f31d");
}

#[test]
fn a_file_that_takes_the_id_of_a_feedback_query_for_another_text_holds() {
    let (_folder, store) = with_documents();
    let id = vote(&store, "find files", "d1", 1).query;
    file(&store, &id, "something else", "d2", 1, Split::Train);
    assert_eq!(judged(&store, Split::Train), [of(&id, "d2", 1, Source::File)]);
    assert_eq!(vote(&store, "find files", "d1", 1).split, None);
}

#[test]
fn judgments_of_a_deleted_document_are_gone_until_it_is_back() {
    let (_folder, store) = with_documents();
    vote(&store, "find files", "d1", 1);
    vote(&store, "find files", "d2", 0);
    store.delete(&["d1".into()]).unwrap();
    assert_eq!(judged(&store, Split::Train).len(), 1);
    store.delete(&["d2".into()]).unwrap();
    assert_eq!(store.judged_queries(Split::Train).unwrap(), []);
    store.write(&[document("d1", "new", json!({}))]).unwrap();
    assert_eq!(judged(&store, Split::Train).len(), 1);
}

#[test]
fn feedback_is_no_example() {
    let (_folder, store) = with_documents();
    assert_eq!(vote_in(&store, "private", "d1", 1, 1.0).split, Some(Split::Dev));
    file(&store, "q1", "public", "d1", 1, Split::Dev);
    assert_eq!(store.sample_queries(Split::Dev, 5).unwrap(), [query("q1", "public")]);
}

#[test]
fn answered_queries_have_a_relevant_document_that_is_there() {
    let (_folder, store) = with_documents();
    file(&store, "q1", "one", "gone", 1, Split::Train);
    file(&store, "q2", "two", "d1", 0, Split::Train);
    assert_eq!(store.answered_queries().unwrap(), AnsweredQueries::default());
    vote(&store, "one", "d1", 1);
    vote(&store, "three", "d1", 0);
    vote(&store, "four", "d2", 3);
    vote_in(&store, "five", "d2", 3, 1.0);
    let answered = store.answered_queries().unwrap();
    assert_eq!(answered, AnsweredQueries { train: 2, dev: 1 });

    let missing = |train, dev| answered.missing(AnsweredQueries { train, dev });
    assert_eq!(missing(2, 1), None);
    assert_eq!(
        missing(32, 8).unwrap(),
        "2 train queries with a positive, at least 32 are needed; 1 dev query with a positive, at least 8 are needed: \
         send feedback or import judgments"
    );
    assert!(missing(3, 0).unwrap().starts_with("2 train queries with a positive, at least 3 are needed: send"));
    store.delete(&["d2".into()]).unwrap();
    assert_eq!(store.answered_queries().unwrap(), AnsweredQueries { train: 1, dev: 0 });
}

#[test]
fn a_store_from_before_feedback_learns_its_texts() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(folder.path()).unwrap();
    store.write(&[document("d1", "text", json!({}))]).unwrap();
    file(&store, "q1", "find files", "d1", 1, Split::Test);
    store.change("forget", |transaction| store.tables.query_texts.clear(transaction)).unwrap();
    drop(store);
    let store = Store::open(folder.path()).unwrap();
    assert_eq!(vote(&store, "find files", "d1", 1).split, None);
}

#[test]
fn texts_that_differ_in_case_stay_in_one_split_whatever_the_share_is_then() {
    let (_folder, store) = with_documents();
    assert_eq!(vote_in(&store, "List files", "d1", 1, 0.0).split, Some(Split::Train));
    assert_eq!(vote_in(&store, "list  FILES", "d1", 1, 1.0).split, Some(Split::Train));
    assert_eq!(vote_in(&store, "copy", "d1", 1, 1.0).split, Some(Split::Dev));
    assert_eq!(vote_in(&store, "Copy", "d1", 1, 0.0).split, Some(Split::Dev));

    // A store from before, where they were drawn apart: what is measured is not trained on.
    let query = FeedbackQuery { text: "List files".into(), split: Split::Dev };
    let json = serde_json::to_vec(&query).unwrap();
    store
        .change("forget", |transaction| {
            store.tables.feedback_texts.clear(transaction)?;
            store.tables.feedback.put(transaction, &feedback::key(&query.text), &json)
        })
        .unwrap();
    let place = store.folder().to_path_buf();
    drop(store);
    let store = Store::open(&place).unwrap();
    assert_eq!((judged(&store, Split::Train), judged(&store, Split::Dev).len()), (Vec::new(), 4));
    assert_eq!(vote_in(&store, "LIST files", "d1", 1, 0.0).split, Some(Split::Dev));
    assert_eq!(store.check().unwrap().findings, Vec::<String>::new());
}
