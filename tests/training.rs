//! Training against PyTorch: losses, gradients and weights after some steps were computed by PyTorch and transformers.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test ends by panicking")]

mod common;

use anced::onnx::{Adam, Batch, Example, Loss, Objective, Optimizer, TrainingOptions, TrainingSession};
use common::training::{apart, fixture};
use safetensors::SafeTensors;

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
    let loss = Loss { objective: Objective::Pairwise, scale: 1.0, chunks: false };
    let options = TrainingOptions { optimizer, clip: 1.0, ..common::training::options() };
    common::training::session(&fixture(model), loss, options)
}

/// Hands every tensor of `flat` and that of the reference, `prefix` + its name, to `check(name, ours, theirs)`.
fn compare(
    tensors: &SafeTensors<'_>,
    prefix: &str,
    training: &TrainingSession,
    flat: &[f32],
    check: impl Fn(&str, &[f32], &[f32]),
) {
    let mut compared = 0;
    for (name, range) in training.ranges() {
        let theirs = floats(tensors, &format!("{prefix}{name}"));
        assert_eq!(range.len(), theirs.len(), "{name}");
        check(&name, &flat[range], &theirs);
        compared += 1;
    }
    let theirs = tensors.names().into_iter().filter(|name| name.starts_with(prefix));
    assert_eq!(compared, theirs.filter(|name| !name.ends_with("losses")).count(), "every tensor is trained");
}

/// The gradient of a key's bias is zero but for rounding, since adding to all keys changes no softmax; Adam makes steps
/// of full size out of the rounding.
fn is_rounding(name: &str) -> bool {
    name.ends_with("attention.self.key.bias")
}

fn check(model: &str, kind: &str, optimizer: Optimizer) {
    let bytes = std::fs::read(fixture(model).join("training.safetensors")).unwrap();
    let tensors = SafeTensors::deserialize(&bytes).unwrap();
    let mut training = session(model, optimizer);
    let losses = floats(&tensors, &format!("{kind}.losses"));
    for (step, theirs) in losses.iter().enumerate() {
        let update = training.step(&[batch(&tensors, step % 3)], 1e-3, step as u64 + 1).unwrap();
        // AdamW's first step is the sign of the gradient: where that is all rounding, so is the step.
        let tolerance = if step == 0 || kind == "lamb" { 1e-5 } else { 5e-4 };
        let off = (update.loss - theirs).abs();
        assert!(off <= tolerance, "{model}, {kind}, step {step}: {} not {theirs}", update.loss);
    }
    let bytes = std::fs::read(fixture(model).join("steps.safetensors")).unwrap();
    let tensors = SafeTensors::deserialize(&bytes).unwrap();
    compare(&tensors, &format!("{kind}."), &training, &training.weights().unwrap(), |name, ours, theirs| {
        let off = ours.iter().zip(theirs).filter(|(a, b)| (**a - **b).abs() > 1e-4).count();
        let allowed = if is_rounding(name) { ours.len() } else { ours.len() / 100 };
        assert!(off <= allowed, "{model}, {kind}: {off} elements of {name} are more than 1e-4 off");
        assert!(apart(ours, theirs) <= 5e-3, "{model}, {kind}: {name} off by {}", apart(ours, theirs));
    });
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
        let bytes = std::fs::read(fixture(model).join("training.safetensors")).unwrap();
        let tensors = SafeTensors::deserialize(&bytes).unwrap();
        let mut training = session(model, adamw());
        let update = training.step(&[batch(&tensors, 0)], 0.0, 1).unwrap();
        let loss = floats(&tensors, "loss")[0];
        assert!((update.loss - loss).abs() <= 1e-5, "{model}: loss {} not {loss}", update.loss);
        // The names are those of transformers' model.
        let prefix = if model == "bert-mean" { "grad.bert." } else { "grad." };
        compare(&tensors, prefix, &training, &training.gradient().unwrap(), |name, ours, theirs| {
            let largest = theirs.iter().map(|value| value.abs()).fold(0.0, f32::max);
            let tolerance = if is_rounding(name) { 1e-6 } else { 1e-4 * largest };
            let off = apart(ours, theirs);
            assert!(off <= tolerance, "{model}: gradient of {name} off by {off}, largest {largest}");
        });
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
