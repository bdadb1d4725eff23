//! Small checkpoints and texts to train on.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anced::ance::{Error, Recipe, Trainer, Triples};
use anced::encoder::{Checkpoint, Encoder, EncoderOptions, Overrides};
use anced::onnx::{
    Adam, Loss, Optimizer, Placement, Runtime, TrainingOptions, TrainingPrecision, TrainingSession, bert::DropoutSeed,
};
use anced::settings::{Device, Settings};
use anced::telemetry::Metrics;

pub fn fixture(model: &str) -> PathBuf {
    super::root().join("tests/fixtures/reference").join(model)
}

pub fn runtime() -> Runtime {
    let library = std::env::var_os("ANCED_ONNXRUNTIME").map(PathBuf::from);
    Runtime::load(library.as_deref(), 0).unwrap()
}

pub fn encoder(folder: &Path) -> Encoder {
    let options = EncoderOptions { device: Device::Cpu, ..EncoderOptions::from(&Settings::default()) };
    Encoder::open(folder, &options, &runtime(), &Arc::new(Metrics::new().unwrap())).unwrap()
}

/// AdamW in 32 bits, one batch a step, nothing clipped or dropped.
pub fn options() -> TrainingOptions {
    TrainingOptions {
        optimizer: Optimizer::AdamW(Adam::default()),
        clip: 1e9,
        precision: TrainingPrecision::Fp32,
        dropout: None,
        accumulation: 1,
    }
}

pub fn dropping(run: u64, step: u64) -> TrainingOptions {
    TrainingOptions { dropout: Some(DropoutSeed { run, step }), ..options() }
}

pub fn session(folder: &Path, loss: Loss, options: TrainingOptions) -> TrainingSession {
    let checkpoint = Checkpoint::open(folder, &Overrides::default()).unwrap();
    let (task, weights) = checkpoint.task(loss).unwrap();
    TrainingSession::new(&runtime(), Placement::Cpu, &task, weights, options).unwrap()
}

/// Different texts of known words, `words(number)` of them in text `number`.
pub fn texts(count: usize, words: impl Fn(usize) -> usize) -> Vec<String> {
    let known: Vec<String> = serde_json::from_slice(&std::fs::read(fixture("texts.json")).unwrap()).unwrap();
    let known: Vec<&str> = known.iter().flat_map(|text| text.split_whitespace()).collect();
    let text = |number: usize| {
        let word = |at: usize| known[(number * 5 + at * (1 + number % 3)) % known.len()];
        (0..words(number)).map(word).collect::<Vec<_>>().join(" ")
    };
    (0..count).map(text).collect()
}

/// The files below a folder by their paths in it.
pub fn files(folder: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut found = BTreeMap::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap();
        if path.is_dir() {
            found.extend(files(&path).into_iter().map(|(inner, bytes)| (format!("{name}/{inner}"), bytes)));
        } else {
            found.insert(name.to_owned(), std::fs::read(&path).unwrap());
        }
    }
    found
}

/// A copy of a checkpoint whose configuration drops a share of all activations.
pub fn with_dropout(model: &str, share: f32, target: &Path) {
    for (name, bytes) in files(&fixture(model)) {
        std::fs::create_dir_all(target.join(&name).parent().unwrap()).unwrap();
        std::fs::write(target.join(name), bytes).unwrap();
    }
    let file = target.join("config.json");
    let mut config: serde_json::Value = serde_json::from_slice(&std::fs::read(&file).unwrap()).unwrap();
    for key in ["hidden_dropout_prob", "attention_probs_dropout_prob"] {
        assert!(config.get(key).is_some());
        config[key] = share.into();
    }
    std::fs::write(file, config.to_string()).unwrap();
}

pub fn dot(a: &[f32], b: &[f32]) -> f64 {
    assert_eq!(a.len(), b.len());
    a.iter().zip(b).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum()
}

pub fn apart(ours: &[f32], theirs: &[f32]) -> f32 {
    assert_eq!(ours.len(), theirs.len());
    ours.iter().zip(theirs).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max)
}

pub fn try_open(model: &Path, recipe: Recipe, state: Option<&Path>) -> Result<Trainer, Error> {
    Trainer::open(&runtime(), Placement::Cpu, model, &Overrides::default(), recipe, state)
}

pub fn open(model: &Path, recipe: Recipe, state: Option<&Path>) -> Trainer {
    try_open(model, recipe, state).unwrap()
}

pub fn run(trainer: &mut Trainer, source: &Triples, steps: usize) -> Vec<f32> {
    let step = |_| {
        let report = trainer.step(source).unwrap();
        assert!(report.step == trainer.steps() && report.norm > 0.0 && report.tokens > 0 && !report.skipped);
        report.loss
    };
    (0..steps).map(step).collect()
}
