//! Writes and saves that fail half-way.

use std::path::Path;

use super::*;
use crate::corpus::Document;
use crate::settings::{Quantization, Settings, Similarity};
use crate::telemetry::Metrics;

/// Waits for an answer.
fn done<F: Future>(future: F) -> F::Output {
    tokio::runtime::Runtime::new().unwrap().block_on(future)
}

fn machine(change: impl FnOnce(&mut Settings)) -> Machine {
    let mut settings = Settings::default();
    change(&mut settings);
    Machine::new(&settings, std::sync::Arc::new(Metrics::new().unwrap())).unwrap()
}

fn document(id: &str, text: &str) -> Document {
    Document { id: id.into(), title: String::new(), text: text.into(), metadata: serde_json::Map::new() }
}

fn retriever(folder: &Path, machine: &Machine) -> Retriever {
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
