//! Vectors that are there already are not computed again, and are those that would be.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test ends by panicking")]

mod common;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use anced::ance::{Event, Leave, Plan, Run, Texts, clean_up};
use anced::corpus::{Document, Store};
use anced::generation::{DataFolder, Machine, Manifest, Origin, Standing, build_from};
use anced::settings::{Settings, VectorType};
use anced::telemetry::Metrics;
use common::judged::prepared;
use common::{outcome, tiny_model};
use safetensors::SafeTensors;

/// The documents of the set have 8 or more tokens: these cuts meet all, some and none of them.
const DOCUMENTS: u64 = 60;

fn settings(data: &Path, passage_tokens: usize) -> Settings {
    let [rounds, steps] = [Some(2), Some(3)];
    let (batch, query_tokens, passage_tokens) = (Some(4), Some(16), Some(passage_tokens));
    Settings { data: data.into(), rounds, steps, batch, query_tokens, passage_tokens, ..Settings::default() }
}

/// What a run encoded and reused by phase and round, and the texts that encoders really ran.
struct Counted {
    phases: Vec<(u64, &'static str, Texts)>,
    ran: f64,
    generation: u64,
}

/// As `anced train` does it, in this process.
fn train(settings: &Settings) -> Counted {
    let data = DataFolder::open(&settings.data).unwrap();
    let metrics = Arc::new(Metrics::new().unwrap());
    let live = data.live().unwrap().unwrap();
    let overrides = Manifest::read(&data.generation(live)).unwrap().encoder.overrides();
    let machine = Machine::new(settings, Arc::clone(&metrics)).unwrap().with_overrides(overrides.clone());
    let job = tempfile::tempdir().unwrap();
    let source = data.generation(live).join("checkpoint");
    let plan = Plan::from_settings(settings).unwrap();
    let store = Arc::clone(data.store());
    let run = Run::open(&machine, &store, job.path(), &source, overrides, plan)
        .unwrap()
        .from_generation(&data.generation(live));
    let mut phases = Vec::new();
    let outcome = run
        .train(&mut |event| {
            if let Event::Took { round, phase, texts: Some(texts), .. } = event {
                phases.push((round, phase, texts));
            }
            Ok(())
        })
        .unwrap();
    let known = run.vectors(outcome.best_round);
    let origin = Origin {
        checkpoint: &outcome.checkpoint,
        parent: Some(live),
        known: known.as_ref(),
        standing: Standing::Ready,
    };
    let mut texts = Texts { encoded: 0, reused: 0 };
    let generation = build_from(&data, &origin, &machine, &mut |progress| {
        texts = Texts { encoded: progress.done - progress.reused, reused: progress.reused };
    })
    .unwrap();
    phases.push((outcome.best_round, "build", texts));
    clean_up(job.path(), &Plan::from_settings(settings).unwrap(), Leave::Candidates).unwrap();
    assert!(!job.path().join("vectors.safetensors").exists());
    Counted { phases, ran: metrics.encoder_batch_queries.get_sample_sum(), generation }
}

fn vectors(data: &Path, generation: u64) -> BTreeMap<u64, Vec<f32>> {
    let bytes = std::fs::read(data.join(format!("generations/{generation:06}/vectors.safetensors"))).unwrap();
    let tensors = SafeTensors::deserialize(&bytes).unwrap();
    let (values, keys) = (tensors.tensor("vectors").unwrap(), tensors.tensor("sequences").unwrap());
    let dimension = values.shape()[1];
    let values: Vec<f32> = values.data().chunks_exact(4).map(|b| f32::from_le_bytes(b.try_into().unwrap())).collect();
    let keys = keys.data().chunks_exact(8).map(|b| u64::from_le_bytes(b.try_into().unwrap()));
    keys.zip(values.chunks_exact(dimension).map(<[f32]>::to_vec)).collect()
}

/// A generation of the same checkpoint for which every document is encoded.
fn built_anew(data: &Path, generation: u64) -> u64 {
    let folder = data.join(format!("generations/{generation:06}"));
    let limit = Manifest::read(&folder).unwrap().encoder.max_seq_length.map(|limit| limit.to_string());
    let checkpoint = folder.join("checkpoint");
    let mut arguments = vec!["index", "--data", data.to_str().unwrap(), "--model", checkpoint.to_str().unwrap()];
    if let Some(limit) = &limit {
        arguments.extend(["--max-seq-length", limit]);
    }
    let built = outcome(&arguments, &[]);
    assert_eq!(built.code, Some(0), "{built:?}");
    generation + 1
}

fn assert_as_encoded(data: &Path, generation: u64) {
    let (ours, fresh) = (vectors(data, generation), vectors(data, built_anew(data, generation)));
    assert_eq!(ours.keys().collect::<Vec<_>>(), fresh.keys().collect::<Vec<_>>());
    for (sequence, vector) in &ours {
        let off = vector.iter().zip(&fresh[sequence]).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        assert!(off < 1e-5, "document {sequence} is off by {off}");
    }
}

fn of(counted: &Counted, phase: &str, round: u64) -> Texts {
    counted.phases.iter().find(|(at, name, _)| (*at, *name) == (round, phase)).unwrap().2
}

/// Encoders run some texts when they open, and again for each generation: the rest is the difference of two runs.
#[test]
fn no_document_is_encoded_twice_by_the_same_weights() {
    let (folder, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    prepared(folder.path());
    prepared(other.path());
    let counted = train(&settings(folder.path(), 64));
    assert_eq!(of(&counted, "encode", 0), Texts { encoded: 60, reused: DOCUMENTS }, "40 train and 20 dev queries");
    assert_eq!(of(&counted, "encode", 1), Texts { encoded: 60 + DOCUMENTS, reused: 0 });
    let (best, ..) = counted.phases.last().unwrap();
    assert_eq!(of(&counted, "build", *best), Texts { encoded: 0, reused: DOCUMENTS });

    // The same with vectors of 16 bits to start from, which are not taken.
    let halved = outcome(
        &[
            "index",
            "--data",
            other.path().to_str().unwrap(),
            "--model",
            tiny_model().to_str().unwrap(),
            "--vectors",
            "f16",
        ],
        &[],
    );
    assert_eq!(halved.code, Some(0), "{halved:?}");
    let vectors = VectorType::F16;
    let more = train(&Settings { vectors, ..settings(other.path(), 64) });
    assert_eq!(of(&more, "encode", 0), Texts { encoded: 60 + DOCUMENTS, reused: 0 });
    assert_eq!(more.ran - counted.ran, DOCUMENTS as f64, "what the encoders ran");
    assert_as_encoded(folder.path(), counted.generation);
}

#[test]
fn only_what_both_cut_alike_is_taken() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path();
    prepared(data);
    // "the river breaks 0 again": the words are one token or several.
    let mut reused = Vec::new();
    for tokens in [4, 12, 64] {
        let counted = train(&settings(data, tokens));
        let texts = of(&counted, "encode", 0);
        assert_eq!(texts.encoded + texts.reused, 60 + DOCUMENTS);
        let (best, ..) = counted.phases.last().unwrap();
        assert_eq!(of(&counted, "build", *best), Texts { encoded: DOCUMENTS - texts.reused, reused: texts.reused });
        reused.push(texts.reused);
        assert_as_encoded(data, counted.generation);
    }
    assert!(reused[0] == 0 && reused[1] > 0 && reused[1] < DOCUMENTS && reused[2] == DOCUMENTS, "{reused:?}");

    // Both cut at the same place: all of it fits though most of it is cut.
    let model = tiny_model();
    let arguments =
        ["index", "--data", data.to_str().unwrap(), "--model", model.to_str().unwrap(), "--max-seq-length", "6"];
    assert_eq!(outcome(&arguments, &[]).code, Some(0));
    let counted = train(&settings(data, 6));
    assert_eq!(of(&counted, "encode", 0).reused, DOCUMENTS);
    assert_as_encoded(data, counted.generation);
}

#[test]
fn documents_that_changed_came_or_went_are_those_of_now() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path();
    prepared(data);
    {
        let store = Store::open(&data.join("store")).unwrap();
        let document = |id: &str, text: &str| Document {
            id: id.into(),
            title: String::new(),
            text: text.into(),
            metadata: serde_json::Map::new(),
        };
        store.write(&[document("d3", "the engine turns another way"), document("new", "a winter garden")]).unwrap();
        store.delete(&["d5".into(), "d6".into()]).unwrap();
    }
    let counted = train(&settings(data, 64));
    // d3, d5 and d6 are not what they were; d3 and the new one are encoded, and 38 or 40 train queries.
    assert_eq!(of(&counted, "encode", 0).reused, DOCUMENTS - 3);
    assert_eq!(vectors(data, counted.generation).len() as u64, DOCUMENTS - 1);
    assert_as_encoded(data, counted.generation);
}
