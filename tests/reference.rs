//! Parity with PyTorch: every value compared here was computed by PyTorch and transformers, never by anced.
//!
//! The folder is `tests/fixtures/reference`, or what `ANCED_REFERENCE` names, in the same layout.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test ends by panicking")]

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anced::encoder::{Encoder, EncoderOptions, Overrides, Side};
use anced::onnx::Runtime;
use anced::settings::{Device, Pooling, Precision};
use anced::telemetry::Metrics;
use safetensors::SafeTensors;

/// What 32-bit arithmetic allows, and 16-bit.
fn tolerance() -> f32 {
    if precision() == Precision::Fp16 { 2e-2 } else { 1e-4 }
}

/// `ANCED_TEST_PRECISION=fp16` compares the 16-bit graph, which needs `ANCED_TEST_DEVICE=cuda`.
fn precision() -> Precision {
    match std::env::var("ANCED_TEST_PRECISION").as_deref() {
        Ok("fp16") => Precision::Fp16,
        Ok("fp32") | Err(_) => Precision::Fp32,
        Ok(other) => panic!("ANCED_TEST_PRECISION={other}: fp32 or fp16"),
    }
}

fn reference() -> PathBuf {
    std::env::var_os("ANCED_REFERENCE")
        .map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/reference"), PathBuf::from)
}

/// `ANCED_TEST_DEVICE` runs the same comparisons elsewhere, such as on `cuda`.
fn options(overrides: Overrides) -> EncoderOptions {
    let device = std::env::var("ANCED_TEST_DEVICE").map_or(Device::Cpu, |text| text.parse().unwrap());
    EncoderOptions { device, precision: precision(), token_budget: 8192, queue_limit: 1024, overrides }
}

fn open(folder: &Path, overrides: Overrides) -> Encoder {
    let library = std::env::var_os("ANCED_ONNXRUNTIME").map(PathBuf::from);
    let runtime = Runtime::load(library.as_deref(), 0).unwrap();
    Encoder::open(folder, &options(overrides), &runtime, &Arc::new(Metrics::new().unwrap())).unwrap()
}

fn texts(file: &Path) -> Vec<String> {
    serde_json::from_slice(&std::fs::read(file).unwrap()).unwrap()
}

fn floats(tensors: &SafeTensors<'_>, name: &str) -> Vec<Vec<f32>> {
    let view = tensors.tensor(name).unwrap();
    let row = view.shape()[1] * 4;
    let number = |bytes: &[u8]| f32::from_le_bytes(bytes.try_into().unwrap());
    view.data().chunks_exact(row).map(|row| row.chunks_exact(4).map(number).collect()).collect()
}

fn integers(tensors: &SafeTensors<'_>, name: &str) -> Vec<Vec<i64>> {
    let view = tensors.tensor(name).unwrap();
    let row = view.shape()[1] * 8;
    let number = |bytes: &[u8]| i64::from_le_bytes(bytes.try_into().unwrap());
    view.data().chunks_exact(row).map(|row| row.chunks_exact(8).map(number).collect()).collect()
}

fn largest_difference(ours: &[Vec<f32>], theirs: &[Vec<f32>]) -> f32 {
    assert_eq!(ours.len(), theirs.len());
    let pairs = ours.iter().zip(theirs).flat_map(|(ours, theirs)| {
        assert_eq!(ours.len(), theirs.len());
        ours.iter().zip(theirs)
    });
    pairs.map(|(ours, theirs)| (ours - theirs).abs()).fold(0.0, f32::max)
}

/// Token ids and vectors of `texts.json` against `expected`, all texts at once and one by one.
fn check(model: &str, expected: &str, pooling: Option<Pooling>) {
    let folder = reference().join(model);
    let encoder = open(&folder, Overrides { pooling, max_seq_length: Some(62), ..Overrides::default() });
    let texts = texts(&reference().join("texts.json"));
    let bytes = std::fs::read(folder.join(expected)).unwrap();
    let tensors = SafeTensors::deserialize(&bytes).unwrap();

    let ids = encoder.tokenize(&texts, Side::Passage).unwrap();
    for (row, (ids, mask)) in
        integers(&tensors, "input_ids").iter().zip(integers(&tensors, "attention_mask")).enumerate()
    {
        let wanted: Vec<u32> =
            ids.iter().zip(&mask).filter(|(_, mask)| **mask == 1).map(|(id, _)| u32::try_from(*id).unwrap()).collect();
        assert_eq!(wanted, self::ids_of(&encoder, &texts[row]), "token ids of text {row}");
    }
    assert_eq!(ids.len(), texts.len());

    let theirs = floats(&tensors, "embeddings");
    let together = encoder.encode_blocking(texts.clone(), Side::Passage).unwrap().vectors;
    let difference = largest_difference(&together, &theirs);
    assert!(difference <= tolerance(), "{model}: off by {difference}");
    let alone: Vec<Vec<f32>> = texts
        .into_iter()
        .map(|text| encoder.encode_blocking(vec![text], Side::Query).unwrap().vectors.remove(0))
        .collect();
    let difference = largest_difference(&alone, &theirs);
    assert!(difference <= tolerance(), "{model}, one by one: off by {difference}");
}

fn ids_of(encoder: &Encoder, text: &str) -> Vec<u32> {
    encoder.tokenize(&[text.to_owned()], Side::Query).unwrap().remove(0)
}

#[test]
fn reference_bert_mean() {
    check("bert-mean", "expected.safetensors", None);
}

#[test]
fn reference_bert_plain_cls() {
    check("bert-plain", "expected-cls.safetensors", Some(Pooling::Cls));
}

#[test]
fn reference_roberta_ance() {
    check("roberta-ance", "expected.safetensors", None);
}

#[test]
fn reference_roberta_ance_sentence_transformers() {
    check("roberta-ance-st", "expected.safetensors", None);
}

#[test]
fn reference_minilm() {
    let model = Path::new(env!("CARGO_MANIFEST_DIR")).join("models/all-MiniLM-L6-v2");
    let encoder = open(&model, Overrides::default());
    let texts = texts(&reference().join("minilm/texts.json"));
    assert!(texts.iter().any(String::is_empty) && texts.iter().any(|text| text.len() >= 6000));
    let bytes = std::fs::read(reference().join("minilm/expected.safetensors")).unwrap();
    let theirs = floats(&SafeTensors::deserialize(&bytes).unwrap(), "embeddings");
    let ours = encoder.encode_blocking(texts, Side::Passage).unwrap().vectors;
    let difference = largest_difference(&ours, &theirs);
    assert!(difference <= tolerance(), "off by {difference}");
    for (ours, theirs) in ours.iter().zip(&theirs) {
        let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum::<f64>();
        let cosine = dot(ours, theirs) / (dot(ours, ours) * dot(theirs, theirs)).sqrt();
        let least = if precision() == Precision::Fp16 { 0.9999 } else { 0.99999 };
        assert!(cosine > least, "cosine {cosine}");
    }
}

/// The ONNX file that is written for other servers, served as a folder's own, gives the same vectors.
#[test]
fn reference_own_onnx_file() {
    let source = reference().join("bert-mean");
    let folder = tempfile::tempdir().unwrap();
    for file in ["config.json", "tokenizer.json", "modules.json", "sentence_bert_config.json", "1_Pooling/config.json"]
    {
        std::fs::create_dir_all(folder.path().join(file).parent().unwrap()).unwrap();
        std::fs::copy(source.join(file), folder.path().join(file)).unwrap();
    }
    let written = anced::encoder::Checkpoint::open(&source, &Overrides::default()).unwrap().to_onnx().unwrap().unwrap();
    std::fs::create_dir(folder.path().join("onnx")).unwrap();
    // Under another producer's name, as an export of another program would have it.
    let ours = b"anced";
    let at = written.windows(ours.len()).position(|window| window == ours).unwrap();
    let mut foreign = written;
    foreign[at..at + ours.len()].copy_from_slice(b"other");
    std::fs::write(folder.path().join("onnx/model.onnx"), foreign).unwrap();

    let encoder = open(folder.path(), Overrides::default());
    assert!(encoder.checkpoint().own_onnx().is_some());
    let bytes = std::fs::read(source.join("expected.safetensors")).unwrap();
    let theirs = floats(&SafeTensors::deserialize(&bytes).unwrap(), "embeddings");
    let ours = encoder.encode_blocking(texts(&reference().join("texts.json")), Side::Passage).unwrap().vectors;
    let difference = largest_difference(&ours, &theirs);
    assert!(difference <= tolerance(), "off by {difference}");
}
