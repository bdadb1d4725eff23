//! The index room on vectors that have neighbours: clusters, as text embeddings form them.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test ends by panicking")]

use anced::index::{Error, GRAPH_FILE, Index, IndexOptions, VECTORS_FILE};
use anced::onnx::Runtime;
use anced::settings::{Quantization, Similarity, VectorType};
use roaring::RoaringTreemap;

const DIMENSION: usize = 64;

fn options(quantization: Quantization) -> IndexOptions {
    IndexOptions {
        connectivity: 16,
        expansion_add: 128,
        quantization,
        vectors: VectorType::F32,
        filter_exact_percent: 20,
    }
}

fn runtime() -> Runtime {
    let library = std::env::var_os("ANCED_ONNXRUNTIME").map(std::path::PathBuf::from);
    Runtime::load(library.as_deref(), 0).unwrap()
}

fn index(quantization: Quantization) -> Index {
    Index::new(DIMENSION, Similarity::Cosine, options(quantization), 0, &runtime()).unwrap()
}

/// A repeatable stream of numbers in -1..1 (SplitMix64).
struct Numbers(u64);

impl Numbers {
    fn next(&mut self) -> f32 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) >> 40) as f32 / (1_u64 << 23) as f32 - 1.0
    }

    fn vector(&mut self) -> Vec<f32> {
        (0..DIMENSION).map(|_| self.next()).collect()
    }

    /// A point near one of `centres`.
    fn near(&mut self, centres: &[Vec<f32>]) -> Vec<f32> {
        let which = ((self.next() + 1.0) / 2.0 * centres.len() as f32) as usize % centres.len();
        centres[which].iter().map(|value| value + 0.6 * self.next()).collect()
    }
}

fn clustered(count: usize) -> (Vec<u64>, Vec<Vec<f32>>, Vec<Vec<f32>>) {
    let mut numbers = Numbers(7);
    let centres: Vec<Vec<f32>> = (0..50).map(|_| numbers.vector()).collect();
    let vectors = (0..count).map(|_| numbers.near(&centres)).collect();
    let queries = (0..100).map(|_| numbers.near(&centres)).collect();
    ((1..=count as u64).collect(), vectors, queries)
}

fn recall(index: &Index, queries: &[Vec<f32>], filter: Option<&RoaringTreemap>) -> f64 {
    let exact = index.exact(queries, 10, filter).unwrap();
    let (mut found, mut wanted) = (0, 0);
    for (query, exact) in queries.iter().zip(&exact) {
        let graph = index.search(query, 10, 128, filter).unwrap();
        assert_eq!(graph.len(), exact.len());
        wanted += exact.len();
        for neighbour in exact {
            if let Some(same) = graph.iter().find(|other| other.key == neighbour.key) {
                found += 1;
                assert!((same.score - neighbour.score).abs() < 1e-5, "both ways of searching give the same score");
            }
        }
    }
    f64::from(found) / wanted as f64
}

fn cosine(a: &[f32], b: &[f32]) -> f32 {
    let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f32>();
    dot(a, b) / (dot(a, a) * dot(b, b)).sqrt()
}

#[test]
fn exact_search_agrees_with_a_naive_one_across_blocks() {
    let (keys, vectors, queries) = clustered(20_000);
    let index = index(Quantization::F16);
    index.add(&keys, &vectors).unwrap();
    let found = index.exact(&queries[..5], 20, None).unwrap();
    for (query, found) in queries.iter().zip(&found) {
        let mut naive: Vec<(u64, f32)> =
            keys.iter().zip(&vectors).map(|(key, vector)| (*key, cosine(query, vector))).collect();
        naive.sort_by(|a, b| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0)));
        for (ours, naive) in found.iter().zip(&naive) {
            assert!((ours.score - naive.1).abs() < 1e-5, "{ours:?} against {naive:?}");
        }
        assert_eq!(found.len(), 20);
    }
}

#[test]
fn the_graph_finds_what_exact_search_finds_in_every_quantisation() {
    let (keys, vectors, queries) = clustered(5_000);
    for quantization in [Quantization::F32, Quantization::F16, Quantization::Bf16, Quantization::I8] {
        let index = index(quantization);
        index.add(&keys, &vectors).unwrap();
        let recall = recall(&index, &queries, None);
        assert!(recall >= 0.99, "{quantization:?}: {recall}");
    }
}

#[test]
fn filters_hold_whether_selective_or_not() {
    let (keys, vectors, queries) = clustered(5_000);
    let index = index(Quantization::F16);
    index.add(&keys, &vectors).unwrap();
    for share in [2_u64, 100, 2_000] {
        let filter: RoaringTreemap = keys.iter().copied().filter(|key| key % share == 0).collect();
        let recall = recall(&index, &queries, Some(&filter));
        assert!(recall >= 0.99, "one in {share}: {recall}");
        for query in &queries {
            assert!(
                index.search(query, 10, 128, Some(&filter)).unwrap().iter().all(|found| filter.contains(found.key))
            );
        }
    }
    assert!(index.search(&queries[0], 10, 128, Some(&RoaringTreemap::new())).unwrap().is_empty());
}

#[test]
fn what_is_removed_is_never_found_and_recall_holds_under_updates() {
    let (keys, vectors, queries) = clustered(5_000);
    let index = index(Quantization::F16);
    index.add(&keys, &vectors).unwrap();
    // Every second document is written anew under a new key, as updates do.
    let removed: Vec<u64> = keys.iter().copied().filter(|key| key % 2 == 0).collect();
    let renewed: Vec<u64> = removed.iter().map(|key| key + 10_000).collect();
    let again: Vec<Vec<f32>> = removed.iter().map(|key| vectors[*key as usize - 1].clone()).collect();
    for ((old, new), vector) in removed.iter().zip(&renewed).zip(&again) {
        index.add(&[*new], std::slice::from_ref(vector)).unwrap();
        index.remove(&[*old]);
    }
    assert_eq!(index.count(), keys.len());
    for query in &queries {
        for found in
            index.search(query, 50, 128, None).unwrap().iter().chain(&index.exact(&[query], 50, None).unwrap()[0])
        {
            assert!(found.key > 10_000 || found.key % 2 == 1, "{found:?} was removed");
        }
    }
    let worn = recall(&index, &queries, None);
    assert!(worn >= 0.98, "after half were updated: {worn}");
    assert!(index.wants_rebuild());
    index.rebuild(|| ()).unwrap();
    assert!(!index.wants_rebuild());
    let fresh = recall(&index, &queries, None);
    assert!(fresh >= 0.99, "after the rebuild: {fresh}");
}

#[test]
fn an_index_comes_back_from_disk_as_it_was() {
    let (keys, vectors, queries) = clustered(3_000);
    for (vector_type, tolerance) in [(VectorType::F32, 0.0), (VectorType::F16, 1e-3)] {
        let options = IndexOptions { vectors: vector_type, ..options(Quantization::F16) };
        let index = Index::new(DIMENSION, Similarity::Cosine, options, 0, &runtime()).unwrap();
        index.add(&keys, &vectors).unwrap();
        index.remove(&[3, 5, 8]);
        let folder = tempfile::tempdir().unwrap();
        let (vectors_file, graph_file) = (folder.path().join(VECTORS_FILE), folder.path().join(GRAPH_FILE));
        index.save(&vectors_file, &graph_file, ()).unwrap();
        let again =
            Index::open(&vectors_file, &graph_file, DIMENSION, Similarity::Cosine, options, &runtime()).unwrap();
        assert_eq!(again.count(), keys.len() - 3);
        for query in &queries {
            let before = index.search(query, 10, 128, None).unwrap();
            let after = again.search(query, 10, 128, None).unwrap();
            assert_eq!(before.len(), after.len());
            for (before, after) in before.iter().zip(&after) {
                assert!((before.score - after.score).abs() <= tolerance, "{before:?} {after:?}");
            }
        }
        // It goes on growing past what was reserved when it was loaded.
        let more: Vec<u64> = (100_000..103_000).collect();
        again.add(&more, &vectors).unwrap();
        assert_eq!(again.count(), 2 * keys.len() - 3);
    }
}

#[test]
fn an_empty_index_is_kept_and_answers_nothing() {
    let index = index(Quantization::F16);
    assert!(index.search(&[0.5; DIMENSION], 10, 128, None).unwrap().is_empty());
    let folder = tempfile::tempdir().unwrap();
    let (vectors_file, graph_file) = (folder.path().join(VECTORS_FILE), folder.path().join(GRAPH_FILE));
    index.save(&vectors_file, &graph_file, ()).unwrap();
    let options = options(Quantization::F16);
    let again = Index::open(&vectors_file, &graph_file, DIMENSION, Similarity::Cosine, options, &runtime()).unwrap();
    assert_eq!(again.count(), 0);
    again.add(&[1], &[vec![0.5; DIMENSION]]).unwrap();
    assert_eq!(again.search(&[0.5; DIMENSION], 10, 128, None).unwrap()[0].key, 1);
}

#[test]
fn vectors_that_would_spoil_the_index_are_refused() {
    let index = Index::new(4, Similarity::Dot, options(Quantization::I8), 0, &runtime()).unwrap();
    let unit = vec![1.0, 0.0, 0.0, 0.0];
    let refused = |vector: Vec<f32>| index.add(&[1, 2], &[unit.clone(), vector]).unwrap_err();
    assert!(matches!(refused(vec![f32::NAN, 0.0, 0.0, 0.0]), Error::NotFinite { key: 2 }));
    assert!(matches!(refused(vec![f32::INFINITY, 0.0, 0.0, 0.0]), Error::NotFinite { key: 2 }));
    assert!(matches!(refused(vec![0.0; 3]), Error::Dimension { got: 3, wanted: 4 }));
    assert!(matches!(refused(vec![3.0, 0.0, 0.0, 0.0]), Error::NotUnit { key: 2, .. }));
    assert_eq!(index.count(), 0, "nothing of a refused call is added");
    assert!(matches!(index.search(&[0.0, f32::NAN, 0.0, 0.0], 1, 1, None), Err(Error::NotFinite { .. })));
}

#[test]
fn searches_go_on_while_vectors_come_and_go() {
    let (keys, vectors, queries) = clustered(6_000);
    let index = index(Quantization::F16);
    index.add(&keys[..2_000], &vectors[..2_000]).unwrap();
    let done = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        let searcher = || {
            let mut searches = 0;
            while !done.load(std::sync::atomic::Ordering::Relaxed) || searches == 0 {
                for query in &queries {
                    assert_eq!(index.search(query, 10, 128, None).unwrap().len(), 10);
                    searches += 1;
                }
            }
        };
        let handles = [scope.spawn(searcher), scope.spawn(searcher)];
        for start in (2_000..6_000).step_by(100) {
            index.add(&keys[start..start + 100], &vectors[start..start + 100]).unwrap();
            index.remove(&keys[start - 2_000..start - 1_950]);
        }
        done.store(true, std::sync::atomic::Ordering::Relaxed);
        handles.into_iter().for_each(|handle| handle.join().unwrap());
    });
    assert_eq!(index.count(), 6_000 - 2_000);
    assert!(recall(&index, &queries, None) >= 0.98);
}

/// How many vectors the graph does not find when it is asked for them.
fn lost(index: &Index, keys: impl Iterator<Item = u64>) -> usize {
    let found = |key| {
        let vector = index.vector(key, 0).unwrap();
        index.search(&vector, 10, 128, None).unwrap().iter().any(|neighbour| neighbour.key == key)
    };
    keys.filter(|key| !found(*key)).count()
}

#[test]
fn what_is_replaced_again_and_again_is_still_found() {
    let (keys, vectors, _) = clustered(6000);
    let index = index(Quantization::F16);
    index.add(&keys[..2000], &vectors[..2000]).unwrap();
    let at_first = lost(&index, 1..=2000);
    for at in 2000..6000 {
        index.add(&keys[at..=at], &vectors[at..=at]).unwrap();
        index.remove(&[at as u64 - 1999]);
        if index.wants_rebuild() {
            index.rebuild(|| ()).unwrap();
        }
    }
    // An approximate graph may leave a few unconnected.
    let at_last = lost(&index, 4001..=6000);
    assert!(at_first <= 10 && at_last <= 20, "{at_first}, then {at_last} of 2000 are not found");
}

/// Nearly equal vectors are where a graph leaves some out; whatever was added is found all the same.
#[test]
fn every_vector_is_found_by_itself() {
    let mut numbers = Numbers(3);
    let centre = numbers.vector();
    let vectors: Vec<Vec<f32>> =
        (0..3_000).map(|_| centre.iter().map(|value| value + 0.05 * numbers.next()).collect()).collect();
    let keys: Vec<u64> = (1..=3_000).collect();
    let found = |index: &Index| {
        keys.iter()
            .zip(&vectors)
            .filter(|(key, vector)| index.search(vector, 1, 128, None).unwrap()[0].key == **key)
            .count()
    };
    let bulk = index(Quantization::F16);
    bulk.add_unverified(&keys, &vectors).unwrap();
    bulk.verify().unwrap();
    assert_eq!(found(&bulk), keys.len());

    let folder = tempfile::tempdir().unwrap();
    let (vectors_file, graph_file) = (folder.path().join(VECTORS_FILE), folder.path().join(GRAPH_FILE));
    bulk.save(&vectors_file, &graph_file, ()).unwrap();
    let options = options(Quantization::F16);
    let again = Index::open(&vectors_file, &graph_file, DIMENSION, Similarity::Cosine, options, &runtime()).unwrap();
    assert_eq!(again.unreached(), bulk.unreached());
    assert_eq!(found(&again), keys.len());
    again.rebuild(|| ()).unwrap();
    assert_eq!(found(&again), keys.len());

    for key in bulk.unreached() {
        bulk.remove(&[key]);
        let vector = &vectors[usize::try_from(key).unwrap() - 1];
        assert!(bulk.search(vector, 10, 128, None).unwrap().iter().all(|found| found.key != key));
    }
    assert!(bulk.unreached().is_empty());
}
