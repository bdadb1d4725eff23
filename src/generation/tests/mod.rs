//! Writes, saves and changes of generation that fail half-way; which generations stay.

mod chunks;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use super::*;
use crate::corpus::Document;
use crate::settings::{Quantization, Settings, Similarity};
use crate::telemetry::Metrics;

/// Waits for an answer.
pub(super) fn done<F: Future>(future: F) -> F::Output {
    tokio::runtime::Runtime::new().unwrap().block_on(future)
}

pub(super) fn machine(change: impl FnOnce(&mut Settings)) -> Machine {
    let mut settings = Settings::default();
    change(&mut settings);
    Machine::new(&settings, std::sync::Arc::new(Metrics::new().unwrap())).unwrap()
}

pub(super) fn document(id: &str, text: &str) -> Document {
    Document { id: id.into(), title: String::new(), text: text.into(), metadata: serde_json::Map::new() }
}

pub(super) fn retriever(folder: &Path, machine: &Machine) -> Retriever {
    retriever_of("bert-mean", folder, machine)
}

/// A retriever over a data folder, with a tiny checkpoint where there is no generation yet.
fn retriever_of(checkpoint: &str, folder: &Path, machine: &Machine) -> Retriever {
    let (data, _lock) = DataFolder::open_locked(folder).unwrap();
    if data.live().unwrap().is_none() {
        let checkpoint = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/reference").join(checkpoint);
        data.set_live(build(&data, &checkpoint, None, machine, &mut |_| {}).unwrap()).unwrap();
    }
    let retriever = Retriever::new(data, machine);
    retriever.start(machine, &mut |_| {}).unwrap();
    retriever
}

fn found(retriever: &Retriever, text: &str) -> Vec<String> {
    let answer = done(retriever.search(SearchRequest::new(text, 10))).unwrap();
    answer.results[0].iter().map(|hit| hit.document.id.clone()).collect()
}

#[test]
fn a_write_that_was_committed_but_not_indexed_is_indexed_before_the_next() {
    let folder = tempfile::tempdir().unwrap();
    let machine = machine(|_| {});
    {
        let retriever = retriever(folder.path(), &machine);
        done(retriever.write(vec![document("a", "one text"), document("b", "to be replaced")])).unwrap();
        // As an index that fails after the commit leaves it.
        let store = retriever.store();
        store.write(&[document("b", "another text"), document("c", "a third text")]).unwrap();
        store.delete(&["a".into()]).unwrap();
        assert_eq!((retriever.live().unwrap().applied(), store.last_sequence().unwrap()), (2, 5));

        let unchanged = done(retriever.write(vec![document("c", "a third text")])).unwrap();
        assert_eq!((unchanged.sequence, retriever.live().unwrap().applied()), (5, 5));
        assert_eq!(found(&retriever, "a third text"), ["c", "b"]);

        store.write(&[document("d", "a fourth text")]).unwrap();
        assert_eq!(done(retriever.delete(vec!["b".into()])).unwrap().deleted, 1);
        let status = retriever.status().unwrap();
        assert_eq!((status.documents, status.indexed), (2, 2));
        done(retriever.save()).unwrap();
    }
    let retriever = retriever(folder.path(), &machine);
    assert_eq!(retriever.status().unwrap().indexed, 2);
    assert_eq!(found(&retriever, "a fourth text"), ["d", "c"]);
}

#[test]
fn a_document_that_is_being_replaced_is_found_all_the_same() {
    let folder = tempfile::tempdir().unwrap();
    let machine = machine(|_| {});
    let retriever = retriever(folder.path(), &machine);
    let [old, new] = ["old", "new"].map(|version| {
        let metadata = serde_json::json!({"kind": "x", "version": version}).as_object().unwrap().clone();
        Document { metadata, ..document("a", "one text") }
    });
    done(retriever.write(vec![old, document("b", "quite another text")])).unwrap();
    let (generation, store) = (retriever.live().unwrap(), retriever.store());
    let query = done(retriever.embed(vec!["one text".into()], crate::encoder::Side::Query)).unwrap().vectors;
    for (filter, exact) in
        [(None, false), (Some(r#"{"kind": "x"}"#), false), (None, true), (Some(r#"{"kind": "x"}"#), true)]
    {
        let filter = filter.map(|filter| crate::corpus::Filter::parse(&serde_json::from_str(filter).unwrap()).unwrap());
        let request = SearchRequest { filter, exact, ..SearchRequest::new("one text", 1) };
        let look = |patience| find::find(&generation, store, &request, &query, 8, patience).unwrap().0.remove(0);
        // Between the store and the index.
        store.write(&[document("a", "something else")]).unwrap();
        store.write(std::slice::from_ref(&new)).unwrap();
        assert!(look(Duration::ZERO).iter().all(|hit| hit.document.id != "a"));
        let found = std::thread::scope(|scope| {
            let looking = scope.spawn(|| look(Duration::from_secs(300)));
            std::thread::sleep(Duration::from_millis(20));
            catch_up::catch_up(&generation, store, &mut |_| {}).unwrap();
            looking.join().unwrap()
        });
        assert_eq!((found.len(), found[0].document.id.as_str(), &found[0].document), (1, "a", &new));
    }
}

#[test]
fn what_the_index_would_refuse_is_not_committed() {
    let folder = tempfile::tempdir().unwrap();
    // Vectors of any length in a graph that holds those of length 1 only.
    let machine = machine(|settings| {
        (settings.quantization, settings.similarity) = (Quantization::I8, Some(Similarity::Dot));
    });
    let retriever = retriever_of("bert-plain", folder.path(), &machine);
    let vector = &done(retriever.embed(vec!["a text".into()], crate::encoder::Side::Passage)).unwrap().vectors[0];
    let length = vector.iter().map(|value| value * value).sum::<f32>().sqrt();
    assert!((length - 1.0).abs() > 0.1, "the fixture's vectors have length {length}: this proves nothing");
    let error = done(retriever.write(vec![document("a", "a text")])).unwrap_err();
    assert!(matches!(error, Error::Index(crate::index::Error::NotUnit { .. })), "{error:?}");
    assert_eq!(retriever.store().last_sequence().unwrap(), 0);
}

#[test]
fn a_save_that_fails_keeps_the_old_files_and_the_next_one_works() {
    let folder = tempfile::tempdir().unwrap();
    let machine = machine(|_| {});
    let retriever = retriever(folder.path(), &machine);
    let generation = folder.path().join("generations/000001");
    let names = || {
        let entries = std::fs::read_dir(&generation).unwrap();
        let mut names: Vec<String> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    };
    let before = names();
    done(retriever.write(vec![document("a", "one text")])).unwrap();
    // The graph's file, then the manifest, cannot take their places.
    for in_the_way in ["index-1.usearch", "manifest.json"] {
        let (place, aside) = (generation.join(in_the_way), generation.join("aside"));
        if place.exists() {
            std::fs::rename(&place, &aside).unwrap();
        }
        std::fs::create_dir(&place).unwrap();
        assert!(done(retriever.save()).is_err(), "{in_the_way}");
        std::fs::remove_dir(&place).unwrap();
        if aside.exists() {
            std::fs::rename(&aside, &place).unwrap();
        }
        Manifest::read(&generation).unwrap().verify(&generation).unwrap();
    }
    // A save that cannot read its manifest removes nothing; the next one does.
    std::fs::remove_file(generation.join("index.usearch")).unwrap();
    done(retriever.save()).unwrap();
    Manifest::read(&generation).unwrap().verify(&generation).unwrap();
    assert_eq!(names(), ["checkpoint", "index-1.usearch", "manifest.json", "vectors-1.safetensors"]);
    assert_eq!(before.len(), 4);
}

#[test]
fn a_write_does_not_wait_for_the_save_that_it_made_due() {
    let folder = tempfile::tempdir().unwrap();
    let machine = machine(|settings| settings.save_after = 3);
    let retriever = retriever(folder.path(), &machine);
    let generation = folder.path().join("generations/000001");
    let saved = || Manifest::read(&generation).unwrap().applied_sequence;
    done(retriever.write(vec![document("a", "one text"), document("b", "another text")])).unwrap();
    assert_eq!(saved(), 0);

    // A disk that takes nothing until somebody reads.
    let pipe = generation.join("index-3.usearch");
    assert!(std::process::Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let write = |id: &str| {
        let written = retriever.write(vec![document(id, id)]);
        runtime.block_on(async { tokio::time::timeout(Duration::from_secs(60), written).await }).unwrap().unwrap()
    };
    assert_eq!(write("c").sequence, 3);
    assert_eq!(found(&retriever, "c")[0], "c");
    // What is written into the pipe is no file, and the next save makes up for it.
    drop(std::fs::File::open(&pipe).unwrap());
    while Arc::clone(&retriever.caring).try_lock_owned().is_err() {
        std::thread::sleep(Duration::from_millis(5));
    }
    assert_eq!(saved(), 0);
    for (id, sequence) in [("d", 4), ("e", 5), ("f", 6)] {
        assert_eq!(write(id).sequence, sequence);
    }
    let begun = std::time::Instant::now();
    while saved() != 6 {
        assert!(begun.elapsed() < Duration::from_secs(60), "not saved");
        std::thread::sleep(Duration::from_millis(5));
    }
    Manifest::read(&generation).unwrap().verify(&generation).unwrap();
}

fn fixture(checkpoint: &str) -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/reference").join(checkpoint)
}

/// Builds a further generation of another model and dimension.
pub(super) fn build_another(retriever: &Retriever, machine: &Machine, parent: Option<u64>, standing: Standing) -> u64 {
    let number = build(&retriever.data, &fixture("roberta-ance"), parent, machine, &mut |_| {}).unwrap();
    stand(retriever, number, standing);
    number
}

fn stand(retriever: &Retriever, number: u64, standing: Standing) {
    let folder = retriever.data.generation(number);
    let mut manifest = Manifest::read(&folder).unwrap();
    manifest.status = standing;
    manifest.write(&folder).unwrap();
}

fn numbers(retriever: &Retriever) -> Vec<u64> {
    retriever.data.manifests().unwrap().iter().map(|manifest| manifest.number).collect()
}

#[test]
fn what_was_deleted_while_a_generation_was_away_does_not_come_back_with_it() {
    let folder = tempfile::tempdir().unwrap();
    let machine = machine(|_| {});
    let retriever = Arc::new(retriever(folder.path(), &machine));
    done(retriever.write(vec![document("a", "one text"), document("b", "another text")])).unwrap();
    build_another(&retriever, &machine, None, Standing::Ready);
    // Neither in the files of the first generation, nor in those of the second.
    done(retriever.write(vec![document("c", "a third text"), document("d", "a fourth text")])).unwrap();
    let forth = done(retriever.activate(2, Initiator::Person)).unwrap();
    assert_eq!((forth.number, forth.previous, forth.caught_up), (2, 1, 2));
    assert_eq!(Manifest::read(&retriever.data.generation(1)).unwrap().applied_sequence, 4, "the old one was not saved");

    done(retriever.delete(vec!["a".into(), "c".into()])).unwrap();
    done(retriever.write(vec![document("b", "quite another text")])).unwrap();
    let back = done(retriever.activate(1, Initiator::Person)).unwrap();
    assert_eq!(back.caught_up, 3);
    let mut found = found(&retriever, "quite another text");
    assert_eq!(found[0], "b");
    found.sort();
    assert_eq!(found, ["b", "d"]);
    assert_eq!(retriever.status().unwrap().indexed, 2);
    assert_eq!(retriever.data.live().unwrap(), Some(1));
}

#[test]
fn a_change_that_cannot_be_written_down_is_not_made() {
    let folder = tempfile::tempdir().unwrap();
    let machine = machine(|_| {});
    let retriever = Arc::new(retriever(folder.path(), &machine));
    done(retriever.write(vec![document("a", "one text")])).unwrap();
    build_another(&retriever, &machine, None, Standing::Ready);
    let file = folder.path().join("LIVE");
    std::fs::remove_file(&file).unwrap();
    std::fs::create_dir(&file).unwrap();
    assert!(matches!(done(retriever.activate(2, Initiator::Person)).unwrap_err(), Error::Io { .. }));
    assert_eq!(retriever.live().unwrap().number(), 1);
    std::fs::remove_dir(&file).unwrap();
    // Writers were let go, and so was the turn of the next change.
    done(retriever.write(vec![document("b", "another text")])).unwrap();
    done(retriever.activate(2, Initiator::Person)).unwrap();
    assert_eq!(retriever.status().unwrap().indexed, 2);
    retriever.stop();
    assert!(matches!(done(retriever.activate(1, Initiator::Person)).unwrap_err(), Error::Stopping));
}

#[test]
fn a_refresh_makes_no_generation_live_that_did_not_pass() {
    let folder = tempfile::tempdir().unwrap();
    let machine = machine(|_| {});
    let retriever = Arc::new(retriever(folder.path(), &machine));
    done(retriever.write(vec![document("a", "one text")])).unwrap();
    for (standing, number) in [(Standing::Ready, 2), (Standing::Ready, 3), (Standing::Candidate, 4)] {
        assert_eq!(build_another(&retriever, &machine, Some(1), standing), number);
    }
    for standing in [Standing::Candidate, Standing::Rejected] {
        stand(&retriever, 4, standing);
        let refused = done(retriever.activate(4, Initiator::Refresh { compared: Some(1) })).unwrap_err();
        assert!(matches!(refused, Error::NotPassed(4)), "{refused:?}");
    }
    for compared in [None, Some(2)] {
        let refused = done(retriever.activate(3, Initiator::Refresh { compared })).unwrap_err();
        assert!(matches!(refused, Error::NotCompared { number: 3, live: 1 }), "{refused:?}");
    }
    assert_eq!(numbers(&retriever), [1, 2, 3, 4]);
    // A person's change removes nothing.
    let by_hand = done(retriever.activate(4, Initiator::Person)).unwrap();
    assert_eq!(by_hand.status, Standing::Rejected);
    done(retriever.activate(3, Initiator::Refresh { compared: Some(4) })).unwrap();
    assert_eq!(numbers(&retriever), [1, 2, 3, 4], "a change of the live one removes nothing");

    assert!(matches!(done(retriever.remove(3)).unwrap_err(), Error::Live(3)));
    done(retriever.remove(4)).unwrap();
    assert_eq!(build_another(&retriever, &machine, Some(3), Standing::Ready), 5, "a number is given once");
    let turn = retriever.turn().unwrap();
    assert!(matches!(done(retriever.remove(5)).unwrap_err(), Error::SwapRunning));
    assert!(matches!(done(retriever.activate(5, Initiator::Person)).unwrap_err(), Error::SwapRunning));
    drop(turn);
    done(retriever.remove(5)).unwrap();
}

#[test]
fn a_verdict_is_written_beside_what_the_manifest_says_by_then() {
    let folder = tempfile::tempdir().unwrap();
    let machine = machine(|_| {});
    let retriever = Arc::new(retriever(folder.path(), &machine));
    let generation = retriever.data.generation(1);
    let before = Manifest::read(&generation).unwrap();
    done(retriever.write(vec![document("a", "one text")])).unwrap();
    done(retriever.save()).unwrap();
    let measures = BTreeMap::from([("nDCG@10".to_owned(), 0.5)]);
    Manifest::judge(&generation, Standing::Rejected, measures.clone()).unwrap();
    let after = Manifest::read(&generation).unwrap();
    assert_eq!((after.status, &after.measures, after.documents), (Standing::Rejected, &measures, 1));
    assert_ne!(after.files, before.files);
    after.verify(&generation).unwrap();
}

#[test]
fn the_newest_generations_stay_of_those_that_passed_and_of_those_that_did_not() {
    let folder = tempfile::tempdir().unwrap();
    let machine = machine(|settings| settings.keep_generations = 2);
    let retriever = Arc::new(retriever(folder.path(), &machine));
    done(retriever.write(vec![document("a", "one text")])).unwrap();
    for (parent, standing) in [
        (Some(1), Standing::Ready),
        (Some(1), Standing::Ready),
        (Some(2), Standing::Ready),
        (Some(3), Standing::Ready),
        (Some(3), Standing::Rejected),
        (Some(3), Standing::Candidate),
        (Some(3), Standing::Rejected),
    ] {
        build_another(&retriever, &machine, parent, standing);
    }
    done(retriever.activate(4, Initiator::Person)).unwrap();
    let turn = retriever.turn().unwrap();
    assert_eq!(retriever.keep_newest(), [0; 0], "not while somebody else changes them");
    drop(turn);
    // 4 is live and made from 2; 4 and 5 are the newest that passed, 7 and 8 of the others.
    assert_eq!(retriever.keep_newest(), [1, 3, 6]);
    assert_eq!(numbers(&retriever), [2, 4, 5, 7, 8]);
    build_another(&retriever, &machine, Some(4), Standing::Rejected);
    assert_eq!((retriever.keep_newest(), numbers(&retriever)), (vec![7], vec![2, 4, 5, 8, 9]));
}

#[test]
fn a_write_encoded_by_a_generation_that_has_gone_is_encoded_again() {
    let folder = tempfile::tempdir().unwrap();
    let machine = machine(|_| {});
    let retriever = Arc::new(retriever(folder.path(), &machine));
    // The same number, as another index.
    let again = Arc::new(Generation::open(&retriever.data, 1, &machine).unwrap());
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let held = Arc::clone(&retriever.writer).lock_owned().await;
        let writing = {
            let retriever = Arc::clone(&retriever);
            tokio::spawn(async move { retriever.write(vec![document("a", "one text")]).await })
        };
        // Encoded by the first, it waits for its turn to commit.
        tokio::time::sleep(std::time::Duration::from_millis(300)).await;
        retriever.take_over(again);
        drop(held);
        writing.await.unwrap().unwrap();
        assert_eq!(retriever.status().unwrap().indexed, 1);
    });
    assert_eq!(found(&retriever, "one text"), ["a"]);
}

#[test]
fn what_a_writer_under_way_commits_is_in_the_generation_that_takes_over() {
    let folder = tempfile::tempdir().unwrap();
    let machine = machine(|_| {});
    let retriever = Arc::new(retriever(folder.path(), &machine));
    build_another(&retriever, &machine, None, Standing::Ready);
    done(retriever.write(vec![document("a", "one text"), document("b", "another text")])).unwrap();
    let mut there = 2;
    // A write, and more than can be encoded while writers are held.
    for (number, more) in [(2, 1), (1, 1000)] {
        let runtime = tokio::runtime::Runtime::new().unwrap();
        let report = runtime.block_on(async {
            let held = Arc::clone(&retriever.writer).lock_owned().await;
            let activating = {
                let retriever = Arc::clone(&retriever);
                tokio::spawn(async move { retriever.activate(number, Initiator::Person).await })
            };
            while retriever.data.live().unwrap() != Some(number) {
                tokio::time::sleep(std::time::Duration::from_millis(5)).await;
            }
            // By now it waits for the writer under way.
            tokio::time::sleep(std::time::Duration::from_millis(300)).await;
            let documents: Vec<_> =
                (0..more).map(|at| document(&format!("{number}-{at}"), &format!("text {at} of {number}"))).collect();
            retriever.store().write(&documents).unwrap();
            assert_ne!(retriever.live().unwrap().number(), number);
            drop(held);
            activating.await.unwrap().unwrap()
        });
        there += more;
        assert_eq!((report.number, retriever.status().unwrap().indexed), (number, there as u64));
        assert_eq!(found(&retriever, &format!("text 0 of {number}")).len(), there.min(10));
        assert!(more == 1 || report.holds > 1, "{report:?}");
    }
}
