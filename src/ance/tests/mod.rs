//! What the public face cannot reach: 16-bit graphs without a device that has them.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test ends by panicking")]

mod chunks;

use std::path::Path;

use crate::encoder::{Checkpoint, Overrides};
use crate::onnx::{
    Adam, Batch, ElementType, Error, Example, Loss, Objective, Optimizer, Placement, Runtime, TrainingOptions,
    TrainingPrecision, TrainingSession,
};

fn batch() -> Batch {
    let text = |length: u32, from: u32| (0..length).map(|at| 5 + (from + 7 * at) % 400).collect::<Vec<u32>>();
    Batch {
        queries: (0..3).map(|number| text(4 + number, number)).collect(),
        documents: (0..6).map(|number| vec![text(9 + 3 * number, 40 + number)]).collect(),
        examples: (0..3).map(|query| Example { query, positive: query, negative: Some(3 + query) }).collect(),
        judged: vec![(0, 4)],
    }
}

fn session(objective: Objective, precision: TrainingPrecision) -> TrainingSession {
    try_session(objective, precision).unwrap()
}

fn try_session(objective: Objective, precision: TrainingPrecision) -> Result<TrainingSession, Error> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/reference/bert-mean");
    let checkpoint = Checkpoint::open(&folder, &Overrides::default()).unwrap();
    let (task, weights) = checkpoint.task(Loss { objective, scale: 20.0, chunks: false }).unwrap();
    let options = TrainingOptions {
        optimizer: Optimizer::AdamW(Adam::default()),
        clip: 1.0,
        precision,
        dropout: None,
        accumulation: 1,
    };
    let compute = match precision {
        TrainingPrecision::Fp32 => ElementType::F32,
        TrainingPrecision::Fp16 => ElementType::F16,
        TrainingPrecision::Bf16 => ElementType::BF16,
    };
    let runtime = Runtime::load(None, 0).unwrap();
    TrainingSession::with_compute(&runtime, Placement::Cpu, &task, weights, options, compute)
}

/// The CPU computes 16-bit operators in 32 bits between casts: the graph is the one that a GPU runs, and so are the
/// master weights, the loss scale and the update.
#[test]
fn a_graph_of_16_bits_trains_as_one_of_32() {
    for objective in [Objective::Pairwise, Objective::InBatch] {
        let (mut wide, mut narrow) =
            (session(objective, TrainingPrecision::Fp32), session(objective, TrainingPrecision::Fp16));
        let start = wide.weights().unwrap();
        for step in 1..=3 {
            let (a, b) = (wide.step(&[batch()], 1e-3, step).unwrap(), narrow.step(&[batch()], 1e-3, step).unwrap());
            assert!(!b.skipped);
            assert!((a.loss - b.loss).abs() <= 0.02 * a.loss.abs().max(0.1), "{objective:?}: {a:?}, {b:?}");
            assert!((a.norm - b.norm).abs() <= 0.02 * a.norm, "{objective:?}: {a:?}, {b:?}");
            if step == 1 {
                let scale = f64::from(narrow.moments().unwrap().loss_scale.factor);
                let (g, h) = (wide.gradient().unwrap(), narrow.gradient().unwrap());
                let dot =
                    |a: &[f32], b: &[f32]| -> f64 { a.iter().zip(b).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum() };
                let cosine = dot(&g, &h) / (dot(&g, &g) * dot(&h, &h)).sqrt();
                assert!(cosine > 0.999, "{objective:?}: gradients at cosine {cosine}");
                assert!((dot(&h, &h).sqrt() / scale - a.norm).abs() < 0.02 * a.norm);
            }
        }
        let moved = |session: &TrainingSession| -> f64 {
            let weights = session.weights().unwrap();
            weights.iter().zip(&start).map(|(a, b)| f64::from(a - b).abs()).sum()
        };
        assert!(moved(&narrow) > 0.5 * moved(&wide), "master weights move though 16 bits would round the change away");
    }
}

#[test]
fn an_overflow_skips_the_step_and_halves_the_scale() {
    let mut training = session(Objective::Pairwise, TrainingPrecision::Fp16);
    let mut moments = training.moments().unwrap();
    moments.loss_scale.factor = 1e9;
    let weights = training.weights().unwrap();
    training.restore(weights.clone(), moments).unwrap();
    let update = training.step(&[batch()], 1e-3, 1).unwrap();
    assert!(update.skipped && !update.norm.is_finite() && update.loss.is_finite(), "{update:?}");
    assert_eq!(training.weights().unwrap(), weights);
    let after = training.moments().unwrap();
    assert_eq!(after.loss_scale.factor, 5e8);
    assert!(after.first.iter().all(|value| *value == 0.0), "the moments are as they were");
}

/// The runtime checks the types of all nodes before it looks for kernels, of which the CPU has none for these.
#[test]
fn the_types_of_a_graph_in_bf16_are_sound() {
    for objective in [Objective::Pairwise, Objective::InBatch] {
        let error = try_session(objective, TrainingPrecision::Bf16).unwrap_err().to_string();
        assert!(error.contains("Could not find an implementation"), "{objective:?}: {error}");
    }
}

#[test]
fn the_cpu_refuses_to_train_in_16_bits() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/reference/bert-mean");
    let checkpoint = Checkpoint::open(&folder, &Overrides::default()).unwrap();
    let (task, weights) = checkpoint.task(Loss { objective: Objective::Pairwise, scale: 1.0, chunks: false }).unwrap();
    let options = TrainingOptions {
        optimizer: Optimizer::AdamW(Adam::default()),
        clip: 1.0,
        precision: TrainingPrecision::Bf16,
        dropout: None,
        accumulation: 1,
    };
    let runtime = Runtime::load(None, 0).unwrap();
    let error = TrainingSession::new(&runtime, Placement::Cpu, &task, weights, options).unwrap_err();
    assert!(matches!(&error, Error::Unsupported(reason) if reason.contains("CUDA")), "{error}");
}
