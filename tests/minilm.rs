//! The real model trains, is written, and goes on exactly.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test ends by panicking")]

mod common;

use std::collections::HashMap;
use std::fs::File;
use std::io::{BufRead as _, BufReader};
use std::path::PathBuf;

use anced::ance::{Recipe, Schedule, Trainer, Triple, Triples};
use anced::encoder::{Encoder, Side};
use common::random::Random;
use common::training::{apart, dot, encoder, open, run};

/// Queries of the sample corpus, a command that answers each and one drawn by chance.
fn sample(encoder: &Encoder, count: usize) -> (Triples, Vec<String>) {
    let folder = common::root().join("tests/data/nl2bash");
    let lines = |name: &str| -> HashMap<String, String> {
        let lines = BufReader::new(flate2::read::GzDecoder::new(File::open(folder.join(name)).unwrap())).lines();
        let text = |line: Result<String, _>| {
            let line: serde_json::Value = serde_json::from_str(&line.unwrap()).unwrap();
            let [id, text] = ["_id", "text"].map(|key| line[key].as_str().unwrap().to_owned());
            (id, text)
        };
        lines.map(text).collect()
    };
    let (queries, corpus) = (lines("queries.jsonl.gz"), lines("corpus.jsonl.gz"));
    let judgments = std::fs::read_to_string(folder.join("qrels/train.tsv")).unwrap();
    let pairs: Vec<(&str, &str)> = judgments
        .lines()
        .skip(1)
        .take(count)
        .map(|line| {
            let mut fields = line.split('\t');
            (fields.next().unwrap(), fields.next().unwrap())
        })
        .collect();
    let mut ids: Vec<&String> = corpus.keys().collect();
    ids.sort();
    let mut random = Random::new(20_201_007);
    let negatives: Vec<&str> = pairs.iter().map(|_| ids[random.below(ids.len() as u64) as usize].as_str()).collect();
    let queries: Vec<String> = pairs.iter().map(|(query, _)| queries[*query].clone()).collect();
    let documents = pairs.iter().map(|(_, document)| *document).chain(negatives);
    let documents: Vec<String> = documents.map(|id| corpus[id].clone()).collect();
    let passages = encoder.tokenize(&documents, Side::Passage).unwrap();
    let triple = |at| Triple { query: at, positive: at, negative: Some(count + at) };
    let triples = Triples::new(
        encoder.tokenize(&queries, Side::Query).unwrap(),
        passages.into_iter().map(|passage| vec![passage]).collect(),
        (0..count).map(triple).collect(),
        &[],
    );
    (triples.unwrap(), queries.into_iter().chain(documents).collect())
}

/// Trains the real model. `ANCED_TRAINED_OUT=FOLDER` keeps the checkpoint as FOLDER and its vectors as FOLDER.jsonl, for
/// `benches/compare/trained.py`.
#[test]
fn minilm_trains_and_is_written() {
    let model = common::root().join("models/all-MiniLM-L6-v2");
    let before = encoder(&model);
    let (source, mut some) = sample(&before, 24);
    some.extend(["", "Grüße aus München — 東京 🚀", &"find . -name core ".repeat(100)].map(str::to_owned));
    let recipe =
        Recipe { schedule: Schedule { learning_rate: 5e-5, warmup: 0, steps: 3 }, batch: 8, ..Recipe::default() };
    let mut trainer = open(&model, recipe, None);
    let losses = run(&mut trainer, &source, 3);
    println!("losses {losses:?}");
    assert!(trainer.is_done());

    let scratch = tempfile::tempdir().unwrap();
    let out = std::env::var_os("ANCED_TRAINED_OUT").map(PathBuf::from);
    let folder = out.clone().unwrap_or_else(|| scratch.path().join("trained"));
    trainer.write_checkpoint(&folder).unwrap();
    let after = encoder(&folder);
    let vectors = |encoder: &Encoder| encoder.encode_blocking(some.clone(), Side::Passage).unwrap().vectors;
    let (old, new) = (vectors(&before), vectors(&after));
    for ((old, new), text) in old.iter().zip(&new).zip(&some) {
        assert!((dot(new, new).sqrt() - 1.0).abs() < 1e-5, "{text}: {}", dot(new, new));
        let moved = apart(old, new);
        assert!(moved > 1e-4 && dot(old, new) > 0.8, "{text}: moved by {moved}, cosine {}", dot(old, new));
    }
    if let Some(out) = out {
        let line = |(text, vector)| format!("{}\n", serde_json::json!({"text": text, "vector": vector}));
        let mut file = out.into_os_string();
        file.push(".jsonl");
        std::fs::write(file, some.iter().zip(&new).map(line).collect::<String>()).unwrap();
    }
}

/// Matrices large enough that cores share them: the sums must not depend on which core was faster.
#[test]
fn minilm_goes_on_exactly_where_it_was() {
    let model = common::root().join("models/all-MiniLM-L6-v2");
    let (source, _) = sample(&encoder(&model), 24);
    let folder = tempfile::tempdir().unwrap();
    let schedule = Schedule { learning_rate: 5e-5, warmup: 0, steps: 4 };
    let recipe = Recipe { schedule, batch: 8, dropout: true, ..Recipe::default() };
    let mut trainer = open(&model, recipe.clone(), None);
    run(&mut trainer, &source, 1);
    trainer.save(folder.path()).unwrap();
    // Loss and norm, to their last bit: every weight and every moment is in those of the step after.
    let rest = |trainer: &mut Trainer| [(); 3].map(|()| trainer.step(&source).unwrap());
    let reports = rest(&mut trainer);
    drop(trainer);
    assert_eq!(rest(&mut open(&model, recipe, Some(folder.path()))), reports);
}
