//! Training against PyTorch: losses, gradients and weights after some steps were computed by PyTorch and transformers.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test ends by panicking")]

use std::path::{Path, PathBuf};

use anced::encoder::{Checkpoint, Overrides};
use anced::onnx::{
    Adam, Batch, Example, Loss, Objective, Optimizer, Placement, Runtime, TrainingOptions, TrainingPrecision,
    TrainingSession,
};
use safetensors::SafeTensors;

fn reference(model: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/reference").join(model)
}

fn runtime() -> Runtime {
    let library = std::env::var_os("ANCED_ONNXRUNTIME").map(PathBuf::from);
    Runtime::load(library.as_deref(), 0).unwrap()
}

fn floats(tensors: &SafeTensors<'_>, name: &str) -> Vec<f32> {
    let view = tensors.tensor(name).unwrap_or_else(|_| panic!("no tensor {name}"));
    view.data().chunks_exact(4).map(|bytes| f32::from_le_bytes(bytes.try_into().unwrap())).collect()
}

fn texts(tensors: &SafeTensors<'_>, name: &str) -> Vec<Vec<u32>> {
    let integers = |name: &str| -> (usize, Vec<i64>) {
        let view = tensors.tensor(name).unwrap();
        let values = view.data().chunks_exact(8).map(|bytes| i64::from_le_bytes(bytes.try_into().unwrap())).collect();
        (view.shape()[1], values)
    };
    let (length, ids) = integers(&format!("{name}.input_ids"));
    let (_, mask) = integers(&format!("{name}.attention_mask"));
    let text = |(ids, mask): (&[i64], &[i64])| {
        ids.iter().zip(mask).filter(|(_, mask)| **mask == 1).map(|(id, _)| u32::try_from(*id).unwrap()).collect()
    };
    ids.chunks_exact(length).zip(mask.chunks_exact(length)).map(text).collect()
}

fn batch(tensors: &SafeTensors<'_>, number: usize) -> Batch {
    let queries = texts(tensors, &format!("batch.{number}.q"));
    let positives = texts(tensors, &format!("batch.{number}.p"));
    let negatives = texts(tensors, &format!("batch.{number}.n"));
    let count = queries.len();
    let example = |query| Example { query, positive: query, negative: Some(count + query) };
    Batch {
        queries,
        documents: positives.into_iter().chain(negatives).map(|text| vec![text]).collect(),
        examples: (0..count).map(example).collect(),
        judged: Vec::new(),
    }
}

fn session(model: &str, optimizer: Optimizer) -> TrainingSession {
    let checkpoint = Checkpoint::open(&reference(model), &Overrides::default()).unwrap();
    let loss = Loss { objective: Objective::Pairwise, scale: 1.0, chunks: false };
    let (task, weights) = checkpoint.task(loss).unwrap();
    let options = TrainingOptions {
        optimizer,
        clip: 1.0,
        precision: TrainingPrecision::Fp32,
        dropout: None,
        accumulation: 1,
    };
    TrainingSession::new(&runtime(), Placement::Cpu, &task, weights, options).unwrap()
}

/// The name in the reference, which is that in transformers' model.
fn reference_name(model: &str, name: &str) -> String {
    if model == "bert-mean" { format!("bert.{name}") } else { name.to_owned() }
}

/// Compares every tensor with `{kind}.NAME`; `relative` to its largest entry where it is given.
fn compare(model: &str, tensors: &SafeTensors<'_>, kind: &str, training: &TrainingSession, flat: &[f32], relative: bool) {
    let mut compared = 0;
    for (name, range) in training.ranges() {
        let theirs = floats(tensors, &format!("{kind}.{}", reference_name(model, &name)));
        let ours = &flat[range];
        assert_eq!(ours.len(), theirs.len(), "{name}");
        let off = ours.iter().zip(&theirs).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        let largest = theirs.iter().map(|value| value.abs()).fold(0.0, f32::max);
        // The gradient of a key's bias is zero but for rounding: adding to all keys changes no softmax.
        let tolerance = if relative && !name.ends_with("key.bias") { 1e-4 * largest } else { 1e-4 };
        assert!(off <= tolerance, "{model}: {kind} of {name} off by {off}, largest {largest}");
        compared += 1;
    }
    let named = tensors.names().into_iter().filter(|name| name.starts_with(&format!("{kind}.")) && !name.ends_with("losses"));
    assert_eq!(compared, named.count(), "every tensor of the reference is trained");
}

fn check(model: &str, kind: &str, optimizer: Optimizer) {
    let bytes = std::fs::read(reference(model).join("training.safetensors")).unwrap();
    let tensors = SafeTensors::deserialize(&bytes).unwrap();
    let mut training = session(model, optimizer);
    let losses = floats(&tensors, &format!("{kind}.losses"));
    for (step, theirs) in losses.iter().enumerate() {
        let update = training.step(&[batch(&tensors, step % 3)], 1e-3, step as u64 + 1).unwrap();
        assert!((update.loss - theirs).abs() <= 1e-5, "{model}, {kind}, step {step}: {} not {theirs}", update.loss);
    }
    compare(model, &tensors, kind, &training, &training.weights().unwrap(), false);
}

fn adamw() -> Optimizer {
    Optimizer::AdamW(Adam { weight_decay: 0.01, ..Adam::default() })
}

fn lamb() -> Optimizer {
    Optimizer::Lamb(Adam::default())
}

#[test]
fn loss_and_every_gradient() {
    for model in ["bert-mean", "roberta-ance"] {
        let bytes = std::fs::read(reference(model).join("training.safetensors")).unwrap();
        let tensors = SafeTensors::deserialize(&bytes).unwrap();
        let mut training = session(model, adamw());
        let update = training.step(&[batch(&tensors, 0)], 0.0, 1).unwrap();
        let loss = floats(&tensors, "loss")[0];
        assert!((update.loss - loss).abs() <= 1e-5, "{model}: loss {} not {loss}", update.loss);
        compare(model, &tensors, "grad", &training, &training.gradient().unwrap(), true);
    }
}

#[test]
fn five_steps_of_adamw() {
    check("bert-mean", "adamw", adamw());
    check("roberta-ance", "adamw", adamw());
}

#[test]
fn five_steps_of_lamb() {
    check("bert-mean", "lamb", lamb());
    check("roberta-ance", "lamb", lamb());
}
