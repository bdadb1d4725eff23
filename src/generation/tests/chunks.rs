//! Documents of several pieces, from the text to the hit.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test ends by panicking")]

use std::path::Path;

use serde_json::json;

use super::{document, done, machine, retriever};
use crate::corpus::{Document, Filter};
use crate::encoder::Side;
use crate::generation::*;

/// Words that are one token each to the tiny checkpoint.
const WORDS: &str = "data train training command document check first checkpoint steps this model core passage windows \
                     retrieval warmup down download initial result embedding with that used query from negative results \
                     learning follow could start step location output dense here type name need process sparse \
                     evaluation which size task will python batch section paper generated parallel experiments reproduce \
                     length metrics multi path";
/// Words of a piece: `max_seq_length` without the two special tokens.
const PIECE: usize = 14;

/// `count` words from number `from` on, every `stride`-th.
fn words(from: usize, count: usize, stride: usize) -> String {
    let all: Vec<&str> = WORDS.split_whitespace().collect();
    (0..count).map(|at| all[(from + at * stride) % all.len()]).collect::<Vec<_>>().join(" ")
}

fn chunked(chunks: usize) -> Machine {
    machine(|settings| (settings.chunks, settings.max_seq_length) = (chunks, Some(PIECE + 2)))
}

/// What the third piece of `long()` says, and nothing else does.
fn third() -> String {
    words(2 * PIECE, PIECE, 1)
}

fn long() -> Document {
    document("long", &words(0, 58, 1))
}

/// Documents of 1 to 5 pieces, one of which says nearly what the third piece of `long()` says.
fn corpus() -> Vec<Document> {
    let mut documents: Vec<_> =
        (1..20).map(|at| document(&format!("d{at}"), &words(at * 7, 3 + at * 3, 2 + at % 5))).collect();
    let near = third().replace("results", "python").replace("follow", "path");
    documents.push(document("near", &near));
    documents.push(long());
    for (at, document) in documents.iter_mut().enumerate() {
        document.metadata.insert("odd".into(), json!(at % 2 == 1));
    }
    documents
}

fn filled(folder: &Path, machine: &Machine) -> Retriever {
    let retriever = retriever(folder, machine);
    done(retriever.write(corpus())).unwrap();
    retriever
}

fn search(retriever: &Retriever, query: &str, change: impl FnOnce(&mut SearchRequest)) -> Vec<Hit> {
    let mut request = SearchRequest { with_vectors: true, ..SearchRequest::new(query, 5) };
    change(&mut request);
    done(retriever.search(request)).unwrap().results.remove(0)
}

fn dot(a: &[f32], b: &[f32]) -> f32 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

/// The score of a document by texts of its pieces, encoded one by one.
fn score_apart(retriever: &Retriever, text: &str, chunks: usize, query: &str) -> f32 {
    let words: Vec<&str> = text.split(' ').collect();
    let mut texts: Vec<String> = words.chunks(PIECE).take(chunks).map(|piece| piece.join(" ")).collect();
    texts.push(query.to_owned());
    let mut vectors = done(retriever.embed(texts, Side::Passage)).unwrap().vectors;
    let query = vectors.pop().unwrap();
    vectors.iter().map(|piece| dot(piece, &query)).fold(f32::NEG_INFINITY, f32::max)
}

/// Every document is found once, with the score of its best piece, by the graph and exactly.
fn check_scores(retriever: &Retriever, chunks: usize) {
    let documents = retriever.store().current(0, 1000).unwrap();
    for query in [third(), words(3, 5, 4), words(40, PIECE, 1)] {
        for exact in [false, true] {
            for k in [3, documents.len()] {
                let hits = search(retriever, &query, |request| (request.exact, request.k) = (exact, k));
                assert_eq!(hits.len(), k);
                let asked = done(retriever.embed(vec![query.clone()], Side::Query)).unwrap().vectors.remove(0);
                let mut wanted: Vec<f32> = documents
                    .iter()
                    .map(|stored| score_apart(retriever, &stored.document.text, chunks, &query))
                    .collect();
                wanted.sort_by(|a, b| b.total_cmp(a));
                for (hit, wanted) in hits.iter().zip(&wanted) {
                    let own = score_apart(retriever, &hit.document.text, chunks, &query);
                    assert!((hit.score - own).abs() < 1e-4 && (hit.score - wanted).abs() < 1e-4, "{hit:?}: {wanted}");
                    let vector = hit.vector.as_ref().unwrap();
                    assert!((dot(vector, &asked) - hit.score).abs() < 1e-4, "the vector is the best piece's");
                }
            }
        }
    }
}

#[test]
fn a_document_is_found_by_its_third_piece() {
    let folders = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    let [one, four] = [1, 4].map(|chunks| filled(folders[usize::from(chunks == 4)].path(), &chunked(chunks)));
    let hits = search(&four, &third(), |_| {});
    assert!(hits[0].document.id == "long" && (hits[0].score - 1.0).abs() < 1e-4, "{:?}", hits[0]);
    let hits = search(&one, &third(), |_| {});
    assert!(hits[0].document.id == "near" && hits.iter().all(|hit| hit.document.id != "long"), "{hits:?}");
    // Only one piece in four is embedded, whatever the length.
    let vectors = done(four.embed(vec![words(0, 58, 1)], Side::Passage)).unwrap().vectors;
    assert_eq!(vectors.len(), 1);
    check_scores(&one, 1);
    check_scores(&four, 4);
    let status = four.status().unwrap();
    assert_eq!((status.documents, status.indexed), (21, 21));
    assert!(status.index_bytes > one.status().unwrap().index_bytes);
    let manifest =
        |retriever: &Retriever| std::fs::read_to_string(retriever.data.generation(1).join("manifest.json")).unwrap();
    assert!(manifest(&four).contains("\"chunks\": 4") && !manifest(&one).contains("chunks"));
}

#[test]
fn an_update_a_deletion_and_a_filter_take_all_pieces() {
    let folder = tempfile::tempdir().unwrap();
    let retriever = filled(folder.path(), &chunked(4));
    let filter = |odd: bool| Filter::parse(&json!({"odd": odd})).unwrap();
    let of = |odd: bool| search(&retriever, &third(), |request| (request.filter, request.k) = (Some(filter(odd)), 21));
    let [odd, even] = [true, false].map(of);
    assert_eq!((odd.len(), even.len()), (10, 11));
    assert_eq!((odd[0].document.id.as_str(), even[0].document.id.as_str()), ("near", "long"));

    let before = search(&retriever, &third(), |_| {}).remove(0).sequence;
    let index = |chunk: u16| retriever.live().unwrap().index().vector(before, chunk);
    assert!(index(3).is_some() && index(4).is_none());
    // Shorter than before: nothing of the old pieces is left.
    let text = words(0, 20, 1);
    done(retriever.write(vec![document("long", &text)])).unwrap();
    assert!((0..4).all(|chunk| index(chunk).is_none()));
    let hit = search(&retriever, &third(), |_| {}).remove(0);
    assert!(hit.document.id == "near" && hit.score < 0.9999, "{hit:?}");
    check_scores(&retriever, 4);
    done(retriever.delete(vec!["long".into(), "d19".into()])).unwrap();
    assert_eq!(retriever.status().unwrap().indexed, 19);
    assert!(search(&retriever, &text, |request| request.k = 21).iter().all(|hit| hit.document.id != "long"));
    check_scores(&retriever, 4);
}

#[test]
fn pieces_come_back_after_a_restart_whatever_the_settings_say_then() {
    let folder = tempfile::tempdir().unwrap();
    {
        let retriever = filled(folder.path(), &chunked(4));
        done(retriever.delete(vec!["d3".into(), "long".into()])).unwrap();
        done(retriever.save()).unwrap();
        // Written, but in no file of the index.
        retriever.store().write(&[long(), document("d4", &words(11, 40, 3))]).unwrap();
    }
    for settings in [chunked(1), machine(|_| {}), chunked(4)] {
        let retriever = retriever(folder.path(), &settings);
        assert_eq!(retriever.status().unwrap().indexed, 20);
        assert_eq!(search(&retriever, &third(), |_| {})[0].document.id, "long");
        check_scores(&retriever, 4);
    }
    // A further generation of the same documents, built rather than written one by one.
    let retriever = retriever(folder.path(), &chunked(4));
    let number = super::build_another(&retriever, &chunked(3), Some(1), Standing::Ready);
    let retriever = std::sync::Arc::new(retriever);
    done(retriever.activate(number, Initiator::Person)).unwrap();
    let generation = retriever.live().unwrap();
    let sequence = retriever.store().document("long").unwrap().unwrap().sequence;
    assert_eq!((generation.index().count(), generation.manifest().documents), (20, 20));
    assert!(generation.index().vector(sequence, 2).is_some() && generation.index().vector(sequence, 3).is_none());
}
