//! Documents of several vectors against brute force.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test ends by panicking")]

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};

use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use roaring::RoaringTreemap;
use safetensors::tensor::{Dtype, TensorView};

use super::{Error, GRAPH_FILE, Index, IndexOptions, Neighbour, VECTORS_FILE, contents};
use crate::onnx::Runtime;
use crate::settings::{Settings, Similarity};

const DIMENSION: usize = 4;

type Documents = BTreeMap<u64, Vec<Vec<f32>>>;

fn runtime() -> Runtime {
    Runtime::load(None, 1).unwrap()
}

fn options() -> IndexOptions {
    IndexOptions::from(&Settings::default())
}

fn empty(runtime: &Runtime) -> Index {
    Index::new(DIMENSION, Similarity::Dot, options(), 0, runtime).unwrap()
}

fn add(index: &Index, documents: &mut Documents, sequence: u64, pieces: &[Vec<f32>]) {
    index.add(&vec![sequence; pieces.len()], pieces).unwrap();
    documents.entry(sequence).or_insert_with(|| pieces.to_vec());
}

fn product(a: &[f32], b: &[f32]) -> f32 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

/// The score of a document: the highest of its vectors'.
fn score(pieces: &[Vec<f32>], query: &[f32]) -> f32 {
    pieces.iter().map(|piece| product(piece, query)).fold(f32::NEG_INFINITY, f32::max)
}

fn best(documents: &Documents, query: &[f32], k: usize, filter: Option<&RoaringTreemap>) -> Vec<f32> {
    let wanted = documents.iter().filter(|(sequence, _)| filter.is_none_or(|filter| filter.contains(**sequence)));
    let mut scores: Vec<f32> = wanted.map(|(_, pieces)| score(pieces, query)).collect();
    scores.sort_by(|a, b| b.total_cmp(a));
    scores.truncate(k);
    scores
}

/// Each document once, with the score of the vector that it names, and the scores of brute force.
fn check(found: &[Neighbour], documents: &Documents, query: &[f32], wanted: &[f32]) {
    let mut keys: Vec<u64> = found.iter().map(|neighbour| neighbour.key).collect();
    keys.sort_unstable();
    keys.dedup();
    assert_eq!((keys.len(), found.len()), (wanted.len(), wanted.len()), "{found:?}");
    for (neighbour, wanted) in found.iter().zip(wanted) {
        let own = product(&documents[&neighbour.key][usize::from(neighbour.chunk)], query);
        assert!((neighbour.score - wanted).abs() < 1e-4 && (neighbour.score - own).abs() < 1e-4, "{neighbour:?}");
    }
}

fn check_all(index: &Index, documents: &Documents, queries: &[Vec<f32>]) {
    assert_eq!(index.count(), documents.len());
    let odd: RoaringTreemap = documents.keys().copied().filter(|sequence| sequence % 2 == 1).collect();
    let few: RoaringTreemap = documents.keys().copied().take(3).chain([999_999, u64::MAX]).collect();
    for query in queries {
        for k in [1, 4, 2000] {
            for filter in [None, Some(&odd), Some(&few)] {
                let wanted = best(documents, query, k, filter);
                check(&index.exact(&[query], k, filter).unwrap()[0], documents, query, &wanted);
                check(&index.search(query, k, 1024, filter).unwrap(), documents, query, &wanted);
                let narrow = index.search(query, k, 1, filter).unwrap();
                assert_eq!(narrow.len(), wanted.len(), "as many documents as there are, however narrow the walk");
            }
        }
    }
}

fn vector() -> impl Strategy<Value = Vec<f32>> {
    prop::collection::vec((-100_i16..100).prop_map(|value| f32::from(value) / 50.0), DIMENSION)
}

#[test]
fn documents_of_several_vectors_are_found_as_brute_force_finds_them() {
    let runtime = runtime();
    // The same cases every time: a graph is approximate, and a rare one may miss a document.
    let mut runner = TestRunner::new_with_rng(
        Config { cases: 16, failure_persistence: None, ..Config::default() },
        proptest::test_runner::TestRng::deterministic_rng(proptest::test_runner::RngAlgorithm::ChaCha),
    );
    let steps = prop::collection::vec((any::<bool>(), 0_usize..1000, prop::collection::vec(vector(), 1..5)), 1..80);
    let queries = prop::collection::vec(vector(), 2);
    runner
        .run(&(steps, queries), |(steps, queries)| {
            let (index, mut documents) = (empty(&runtime), Documents::new());
            for (number, (removes, which, pieces)) in steps.iter().enumerate() {
                add(&index, &mut documents, number as u64 + 1, pieces);
                if *removes && let Some(&gone) = documents.keys().nth(which % documents.len()) {
                    index.remove(&[gone]);
                    let there = documents.remove(&gone).unwrap().len();
                    assert!((0..=there).all(|chunk| index.vector(gone, chunk as u16).is_none()));
                }
            }
            check_all(&index, &documents, &queries);

            let folder = tempfile::tempdir().unwrap();
            let files = [VECTORS_FILE, GRAPH_FILE].map(|name| folder.path().join(name));
            index.save(&files[0], &files[1], ()).unwrap();
            let again = Index::open(&files[0], &files[1], DIMENSION, Similarity::Dot, options(), &runtime).unwrap();
            for (sequence, pieces) in &documents {
                for (chunk, piece) in pieces.iter().enumerate() {
                    assert_eq!(again.vector(*sequence, chunk as u16).as_ref(), Some(piece));
                }
            }
            check_all(&again, &documents, &queries);
            again.rebuild(|| ()).unwrap();
            check_all(&again, &documents, &queries);
            Ok(())
        })
        .unwrap();
}

#[test]
fn what_comes_and_goes_while_a_graph_is_rebuilt_is_as_it_should_be() {
    let (index, mut documents) = (empty(&runtime()), Documents::new());
    let vector = |sequence: u64| {
        let at = sequence as f32;
        vec![(at * 0.7).sin(), (at * 1.3).cos(), (at * 0.1).sin(), 1.0]
    };
    let pieces = |sequence: u64| {
        if sequence.is_multiple_of(9) { vec![vector(sequence), vector(sequence + 1)] } else { vec![vector(sequence)] }
    };
    for sequence in 1..400 {
        add(&index, &mut documents, sequence, &pieces(sequence));
    }
    let remove = |documents: &mut Documents, gone: &[u64]| {
        index.remove(gone);
        gone.iter().for_each(|gone| drop(documents.remove(gone)));
    };
    remove(&mut documents, &(1..400).step_by(3).collect::<Vec<_>>());
    let nodes = index.read_graph().len();
    let held = || {
        for sequence in 400..450 {
            add(&index, &mut documents, sequence, &pieces(sequence));
        }
        remove(&mut documents, &[2, 9, 200, 398, 401, 405]);
    };
    index.rebuild(held).unwrap();
    assert!(index.read_graph().len() < nodes, "the new graph has no nodes of what was removed before");
    check_all(&index, &documents, &[vector(3), vector(425), vector(9)]);
}

#[test]
fn a_document_of_many_near_vectors_keeps_no_other_out() {
    let (index, mut documents) = (empty(&runtime()), Documents::new());
    let near = |at: usize| vec![1.0, at as f32 * 1e-3, 0.0, 0.0];
    add(&index, &mut documents, 1, &(0..200).map(near).collect::<Vec<_>>());
    for sequence in 2..300_u64 {
        add(&index, &mut documents, sequence, &[vec![0.5, 0.0, sequence as f32 / 300.0, 0.1]]);
    }
    let query = vec![1.0, 0.1, 0.0, 0.0];
    for k in [1, 5, 50] {
        let wanted = best(&documents, &query, k, None);
        for found in [index.search(&query, k, 10, None).unwrap(), index.exact(&[&query], k, None).unwrap().remove(0)] {
            check(&found, &documents, &query, &wanted);
            assert_eq!((found[0].key, found[0].chunk), (1, 199));
        }
    }
    index.remove(&[1]);
    assert_eq!(index.count(), 298);
    assert!(index.search(&query, 5, 10, None).unwrap().iter().all(|found| found.key != 1));
}

#[test]
fn a_document_that_is_there_keeps_its_vectors() {
    let (index, mut documents) = (empty(&runtime()), Documents::new());
    let (one, other) = (vec![1.0, 0.0, 0.0, 0.0], vec![0.0, 1.0, 0.0, 0.0]);
    add(&index, &mut documents, 7, std::slice::from_ref(&one));
    // Not even a second piece is added to it.
    index.add(&[7, 7, 8, 7], &[other.clone(), other.clone(), other.clone(), other.clone()]).unwrap();
    assert_eq!((index.count(), index.vector(7, 0), index.vector(7, 1)), (2, Some(one), None));
    let refused = index.add(&[9, 1 << 48], &[other.clone(), other.clone()]).unwrap_err();
    assert!(matches!(refused, Error::Key { key } if key == 1 << 48));
    assert_eq!(index.count(), 2);
    // A key above those that there are is nobody's, not a piece of another document.
    index.remove(&[1 << 48 | 7]);
    assert_eq!((index.count(), index.vector(1 << 48 | 7, 0)), (2, None));
}

#[test]
fn a_check_refuses_what_an_index_would_not_open() {
    let (index, mut documents) = (empty(&runtime()), Documents::new());
    add(&index, &mut documents, 7, &[vec![1.0; DIMENSION], vec![0.5; DIMENSION]]);
    let folder = tempfile::tempdir().unwrap();
    let files = [VECTORS_FILE, GRAPH_FILE].map(|name| folder.path().join(name));
    index.save(&files[0], &files[1], ()).unwrap();
    let sound = contents(&files[0], &files[1], DIMENSION).unwrap();
    assert_eq!((sound.documents.iter().collect::<Vec<_>>(), sound.findings), (vec![7], Vec::new()));

    let opened = || Index::open(&files[0], &files[1], DIMENSION, Similarity::Dot, options(), &runtime());
    // A sequence that no key holds, and a file without what the graph does not reach.
    let write = |sequence: u64, names: &[&str]| {
        let (values, sequence) = ([0.5_f32; DIMENSION], sequence.to_le_bytes());
        let tensors = [
            ("vectors", TensorView::new(Dtype::F32, vec![1, DIMENSION], bytemuck::cast_slice(&values)).unwrap()),
            ("sequences", TensorView::new(Dtype::U64, vec![1], &sequence).unwrap()),
            ("unreached", TensorView::new(Dtype::U64, vec![0], &[]).unwrap()),
        ];
        let tensors = tensors.into_iter().filter(|(name, _)| names.contains(name));
        safetensors::serialize_to_file(tensors, None, &files[0]).unwrap();
    };
    let all = ["vectors", "sequences", "unreached"];
    for (sequence, names, is_sound) in [(7, &all[..], true), (1 << 48 | 7, &all, false), (7, &all[..2], false)] {
        write(sequence, names);
        assert_eq!(opened().is_ok(), is_sound);
        assert_eq!(contents(&files[0], &files[1], DIMENSION).is_ok(), is_sound);
    }
}

/// The library counts a node before it has it, so that whoever follows the count meets none: the process ended there.
#[test]
fn an_index_answers_beside_its_first_additions() {
    let runtime = runtime();
    let vectors: Vec<Vec<f32>> =
        (0..48_u16).map(|at| (0..4_u16).map(|axis| f32::from(at * 7 + axis * 31 % 50) - 90.0).collect()).collect();
    let keys: Vec<u64> = (0..48).collect();
    for _ in 0..1500 {
        let index = empty(&runtime);
        let over = AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                while !over.load(Ordering::Acquire) {
                    assert!(index.bytes() < 1 << 40);
                    index.search(&vectors[0], 3, 8, None).unwrap();
                }
            });
            let added = keys.chunks(12).zip(vectors.chunks(12)).map(|(keys, vectors)| index.add(keys, vectors));
            let added: Vec<_> = added.collect();
            over.store(true, Ordering::Release);
            added.into_iter().for_each(|added| added.unwrap());
        });
        assert_eq!(index.search(&vectors[0], 3, 8, None).unwrap().len(), 3);
    }
}
