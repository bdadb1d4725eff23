//! Documents of several pieces in training: what is read, mined and learnt.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test ends by panicking")]

use std::path::Path;
use std::sync::Arc;

use crate::ance::Source as _;
use crate::ance::data::{Lengths, TrainingData};
use crate::ance::inference::Vectors;
use crate::ance::negatives::{Candidates, Mining};
use crate::ance::visits::Visits;
use crate::corpus::{Document, Judgment, Query, Source, Split, Store};
use crate::encoder::{Checkpoint, Encoder, EncoderOptions, Overrides, Side};
use crate::index::SavedVectors;
use crate::onnx::{
    Adam, Batch, Example, Loss, Objective, Optimizer, Placement, Runtime, TrainingOptions, TrainingPrecision,
    TrainingSession,
};
use crate::settings::{Negatives, Settings, Similarity};
use crate::telemetry::Metrics;

const LENGTHS: Lengths = Lengths { query: 16, passage: 12 };
const SCALE: f32 = 5.0;

fn folder() -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/reference/bert-mean")
}

fn overrides(chunks: usize) -> Overrides {
    Overrides { max_seq_length: Some(16), chunks: Some(chunks), ..Overrides::default() }
}

fn encoder() -> Encoder {
    let options = EncoderOptions::from(&Settings::default());
    Encoder::open(&folder(), &options, &Runtime::load(None, 0).unwrap(), &Arc::new(Metrics::new().unwrap())).unwrap()
}

/// Documents of one piece and of several, and a query for each of the first six.
fn data(chunks: usize) -> TrainingData {
    let store = tempfile::tempdir().unwrap();
    let store = Store::open(store.path()).unwrap();
    let known = ["dense", "retrieval", "checkpoint", "training", "model", "query", "passage", "negative", "document"];
    let text = |at: usize, count: usize| {
        (0..count).map(|word| known[(at * 2 + word * (1 + at % 4)) % known.len()]).collect::<Vec<_>>().join(" ")
    };
    let document = |at: usize| Document {
        id: format!("d{at}"),
        title: String::new(),
        text: text(at, 4 + at * 5),
        metadata: serde_json::Map::new(),
    };
    store.write(&(0..9).map(document).collect::<Vec<_>>()).unwrap();
    let query = |at: usize| Query { id: format!("q{at}"), text: text(at + 3, 4), answers: Vec::new() };
    store.write_queries(&(0..6).map(query).collect::<Vec<_>>()).unwrap();
    let judgment = |at: usize| Judgment {
        query: format!("q{at}"),
        document: format!("d{at}"),
        grade: 1,
        split: if at < 4 { Split::Train } else { Split::Dev },
        source: Source::File,
    };
    store.write_judgments(&(0..6).map(judgment).collect::<Vec<_>>()).unwrap();
    TrainingData::read(&store, &Checkpoint::open(&folder(), &overrides(chunks)).unwrap(), LENGTHS, &mut |_| Ok(()))
        .unwrap()
}

/// The vectors of some texts, encoded one by one.
fn vectors(encoder: &Encoder, texts: &[Vec<u32>]) -> Vec<Vec<f32>> {
    let one = |ids: &Vec<u32>| encoder.encode_tokens(vec![ids.clone()], Side::Passage).unwrap().vectors.remove(0);
    texts.iter().map(one).collect()
}

fn best(query: &[f32], pieces: &[Vec<f32>]) -> f64 {
    let dot = |piece: &Vec<f32>| query.iter().zip(piece).map(|(a, b)| f64::from(a * b)).sum::<f64>();
    pieces.iter().map(dot).fold(f64::NEG_INFINITY, f64::max)
}

#[test]
fn a_batch_holds_every_piece_and_mining_scores_a_document_by_its_best() {
    let data = data(2);
    assert_eq!(data.passages.iter().map(Vec::len).collect::<Vec<_>>(), [1, 1, 1, 2, 2, 2, 2, 2, 2]);
    // Pieces are cut after the tokens of training, and begin where those of the index do.
    assert!(data.passages.iter().flatten().all(|piece| piece.len() <= 12));
    let encoder = encoder();
    let encoded = Vectors::encode(&encoder, &data, &|_| None, &mut |_, _| Ok(())).unwrap();
    let runtime = Runtime::load(None, 0).unwrap();
    let documents: Vec<Vec<Vec<f32>>> = data.passages.iter().map(|pieces| vectors(&encoder, pieces)).collect();
    for k in [1, 3, 9, 50] {
        for (query, hits) in data.train.iter().zip(encoded.nearest_to_train(&runtime, k, &mut |_| Ok(())).unwrap()) {
            let query = vectors(&encoder, std::slice::from_ref(&query.ids)).remove(0);
            let mut wanted: Vec<f64> = documents.iter().map(|pieces| best(&query, pieces)).collect();
            for (number, score) in &hits {
                assert!((f64::from(*score) - wanted[*number as usize]).abs() < 1e-4);
            }
            wanted.sort_by(|a, b| b.total_cmp(a));
            assert_eq!(hits.len(), k.min(9));
            assert!(hits.iter().zip(&wanted).all(|(hit, wanted)| (f64::from(hit.1) - wanted).abs() < 1e-4));
        }
    }
    assert!(encoded.measure_dev(&runtime, &data, &mut |_| Ok(())).unwrap().means().count() > 0);
}

#[test]
fn vectors_that_are_known_are_taken_bit_for_bit() {
    let data = data(1);
    let overrides = Overrides { similarity: Some(Similarity::Cosine), ..overrides(1) };
    let options = EncoderOptions { overrides, ..EncoderOptions::from(&Settings::default()) };
    let (runtime, metrics) = (Runtime::load(None, 0).unwrap(), Arc::new(Metrics::new().unwrap()));
    let encoder = Encoder::open(&folder(), &options, &runtime, &metrics).unwrap();
    let encoded = Vectors::encode(&encoder, &data, &|_| None, &mut |_, _| Ok(())).unwrap();
    let kept = tempfile::tempdir().unwrap();
    let file = kept.path().join("vectors.safetensors");
    encoded.save(&file, &data, "a round").unwrap();
    let saved = SavedVectors::open(&file, None).unwrap().unwrap();
    assert!(!saved.is_empty());
    // Of length 1 but for the last bits, as vectors are that were once brought to it.
    let known = |number: usize| -> Option<Vec<f32>> {
        Some(saved.get(data.sequences[number]?)?.iter().map(|value| value * (1.0 + 1e-6)).collect())
    };
    let again = Vectors::encode(&encoder, &data, &known, &mut |_, _| Ok(())).unwrap();
    assert_eq!((encoded.reused(), again.reused()), (0, saved.len()));
    again.save(&file, &data, "a round").unwrap();
    let taken = SavedVectors::open(&file, None).unwrap().unwrap();
    for (number, sequence) in data.sequences.iter().enumerate() {
        assert_eq!(sequence.and_then(|sequence| taken.get(sequence)), known(number));
    }
}

/// The loss by hand, of scores that are maxima over the pieces of a document.
fn by_hand(batch: &Batch, objective: Objective, encoder: &Encoder) -> f64 {
    let queries = vectors(encoder, &batch.queries);
    let documents: Vec<Vec<Vec<f32>>> = batch.documents.iter().map(|pieces| vectors(encoder, pieces)).collect();
    let score = |query: usize, document: usize| f64::from(SCALE) * best(&queries[query], &documents[document]);
    let one = |Example { query, positive, negative }: &Example| match objective {
        Objective::Pairwise => (1.0 + (score(*query, negative.unwrap()) - score(*query, *positive)).exp()).ln(),
        Objective::InBatch => {
            let others = (0..documents.len())
                .filter(|document| document == positive || !batch.judged.contains(&(*query, *document)));
            let sum: f64 = others.map(|document| score(*query, document).exp()).sum();
            sum.ln() - score(*query, *positive)
        }
    };
    batch.examples.iter().map(one).sum::<f64>() / batch.examples.len() as f64
}

#[test]
fn a_step_minimises_the_loss_over_best_pieces() {
    let (data, encoder) = (data(3), encoder());
    let mining = Mining {
        negatives: Negatives::Ance,
        depth: 9,
        margin: None,
        positive_share: None,
        skip: 0,
        per_query: 0,
        slices: 1,
    };
    let runtime = Runtime::load(None, 0).unwrap();
    let encoded = Vectors::encode(&encoder, &data, &|_| None, &mut |_, _| Ok(())).unwrap();
    let candidates =
        Candidates::from_hits(&encoded.nearest_to_train(&runtime, 9, &mut |_| Ok(())).unwrap(), &data, &mining, 1, 0);
    let batch = Visits::new(&data, &candidates, &mining, 0, 0).batch(0, 4, 1).unwrap();
    let pieces: Vec<usize> = batch.documents.iter().map(Vec::len).collect();
    assert!(pieces.contains(&1) && pieces.contains(&3), "documents of one piece and of several: {pieces:?}");
    for objective in [Objective::Pairwise, Objective::InBatch] {
        let checkpoint = Checkpoint::open(&folder(), &overrides(3)).unwrap();
        let (task, weights) = checkpoint.task(Loss { objective, scale: SCALE, chunks: true }).unwrap();
        let options = TrainingOptions {
            optimizer: Optimizer::AdamW(Adam::default()),
            clip: 1.0,
            precision: TrainingPrecision::Fp32,
            dropout: None,
            accumulation: 1,
        };
        let mut session = TrainingSession::new(&runtime, Placement::Cpu, &task, weights, options).unwrap();
        let wanted = by_hand(&batch, objective, &encoder);
        let losses: Vec<f32> =
            (1..=8).map(|step| session.step(std::slice::from_ref(&batch), 1e-3, step).unwrap().loss).collect();
        assert!((f64::from(losses[0]) - wanted).abs() < 1e-4, "{objective:?}: {losses:?}, by hand {wanted}");
        assert!(losses[7] < losses[0], "{objective:?}: {losses:?}");
    }
}

#[test]
fn a_positive_that_ranks_low_has_its_score() {
    let (data, encoder) = (data(3), encoder());
    let runtime = Runtime::load(None, 0).unwrap();
    let encoded = Vectors::encode(&encoder, &data, &|_| None, &mut |_, _| Ok(())).unwrap();
    let all = encoded.nearest_to_train(&runtime, data.passages.len(), &mut |_| Ok(())).unwrap();
    let mut hits = vec![Vec::new(); data.train.len()];
    encoded.add_positives(&mut hits, &data);
    for ((query, added), all) in data.train.iter().zip(&hits).zip(&all) {
        assert_eq!(added.len(), query.positives.len());
        for (number, score) in added {
            let (_, wanted) = all.iter().find(|hit| hit.0 == *number).unwrap();
            assert!((score - wanted).abs() < 1e-5, "{score} for {wanted}");
        }
    }
    let added = hits.clone();
    encoded.add_positives(&mut hits, &data);
    assert_eq!(hits, added, "none comes twice");
}
