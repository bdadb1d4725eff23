//! `anced model convert`: a checkpoint as it was published years ago becomes one that is served and trained.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test ends by panicking")]

mod common;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anced::encoder::{Checkpoint, Encoder, EncoderOptions, Overrides, Side, TextEncoder};
use anced::onnx::Runtime;
use anced::settings::Settings;
use anced::telemetry::Metrics;
use common::{Outcome, outcome};
use safetensors::SafeTensors;
use serde_json::Value;

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/reference").join(name)
}

fn minilm() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("models/all-MiniLM-L6-v2")
}

fn texts(file: &str) -> Vec<String> {
    serde_json::from_slice(&std::fs::read(fixture(file)).unwrap()).unwrap()
}

fn convert(source: &Path, target: &Path) -> Outcome {
    outcome(&["model", "convert", "--json", source.to_str().unwrap(), target.to_str().unwrap()], &[])
}

fn refused(source: &Path, reason: &str) {
    let folder = tempfile::tempdir().unwrap();
    let outcome = convert(source, &folder.path().join("new"));
    assert_eq!(outcome.code, Some(1), "{outcome:?}");
    assert!(outcome.stderr.contains(reason), "{reason}: {outcome:?}");
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0, "nothing is left: {reason}");
}

/// Copies the files of a folder but for some.
fn copy(source: &Path, target: &Path, without: &[&str]) {
    std::fs::create_dir_all(target).unwrap();
    for entry in std::fs::read_dir(source).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap();
        let place = target.join(name);
        if path.is_dir() {
            copy(&path, &place, without);
        } else if !without.contains(&name) {
            // The bytes alone: the original may be write-protected.
            std::fs::write(place, std::fs::read(&path).unwrap()).unwrap();
        }
    }
}

fn encode(folder: &Path, texts: &[String], length: usize) -> Vec<Vec<f32>> {
    let settings = Settings::default();
    let overrides = Overrides { max_seq_length: Some(length), ..Overrides::default() };
    let options = EncoderOptions { overrides, ..EncoderOptions::from(&settings) };
    let runtime = Runtime::load(settings.onnxruntime.as_deref(), 1).unwrap();
    let encoder = Encoder::open(folder, &options, &runtime, &Arc::new(Metrics::new().unwrap())).unwrap();
    encoder.encode_blocking(texts.to_vec(), Side::Passage).unwrap().vectors
}

fn tokens(folder: &Path, texts: &[String]) -> Vec<Vec<u32>> {
    let checkpoint = Checkpoint::open(folder, &Overrides::default()).unwrap();
    TextEncoder::open(&checkpoint, 512).unwrap().tokenize(texts, Side::Passage).unwrap()
}

#[test]
fn the_published_ance_checkpoint_embeds_as_pytorch_does() {
    let folder = tempfile::tempdir().unwrap();
    let target = folder.path().join("ance");
    let outcome = convert(&fixture("roberta-ance-bin"), &target);
    assert_eq!(outcome.code, Some(0), "{outcome:?}");
    let said: Value = serde_json::from_str(&outcome.stdout).unwrap();
    assert_eq!((&said["model_type"], &said["dimension"]), (&"roberta".into(), &48.into()), "{said}");
    assert_eq!(said["made"][0]["file"], "model.safetensors", "{said}");
    assert!(!target.join("pytorch_model.bin").exists() && target.join("onnx/model.onnx").is_file());

    let bytes = std::fs::read(fixture("roberta-ance-bin/expected.safetensors")).unwrap();
    let expected = SafeTensors::deserialize(&bytes).unwrap();
    let expected = expected.tensor("embeddings").unwrap();
    let theirs = expected.data().chunks_exact(4).map(|bytes| f32::from_le_bytes(bytes.try_into().unwrap()));
    let ours = encode(&target, &texts("texts.json"), 62).concat();
    assert_eq!(ours.len(), expected.shape().iter().product::<usize>());
    let difference = ours.iter().zip(theirs).map(|(ours, theirs)| (ours - theirs).abs()).fold(0.0, f32::max);
    assert!(difference <= 1e-4, "off by {difference}");
    assert_eq!(ours, encode(&fixture("roberta-ance"), &texts("texts.json"), 62).concat(), "the same weights");
}

/// The tokenizer of a checkpoint taken apart into the files that there were before it, and made anew.
#[test]
fn vocabulary_files_give_the_tokens_of_the_tokenizer() {
    let folder = tempfile::tempdir().unwrap();
    let mut odd = texts("texts.json");
    odd.extend(texts("minilm/texts.json"));
    odd.extend(
        ["", " two  spaces ", "<mask> [MASK] </s>[SEP]", "ÀÉ Straße 東京 i\u{307}", "a\u{0}b\u{200b}c\r\n\td"]
            .map(String::from),
    );
    let long = "x".repeat(120);
    odd.push(format!("{long} don't 'll 1,234.5 \u{1f600}"));
    for name in ["bert-mean", "roberta-ance"] {
        let (old, new) = (folder.path().join(format!("{name}-old")), folder.path().join(name));
        copy(&fixture(name), &old, &["tokenizer.json"]);
        let tokenizer: Value =
            serde_json::from_slice(&std::fs::read(fixture(name).join("tokenizer.json")).unwrap()).unwrap();
        let vocabulary = tokenizer["model"]["vocab"].as_object().unwrap();
        if name == "bert-mean" {
            let mut pieces: Vec<(&String, u64)> =
                vocabulary.iter().map(|(piece, id)| (piece, id.as_u64().unwrap())).collect();
            pieces.sort_unstable_by_key(|(_, id)| *id);
            let lines: String = pieces.into_iter().map(|(piece, _)| format!("{piece}\n")).collect();
            std::fs::write(old.join("vocab.txt"), lines).unwrap();
        } else {
            std::fs::write(old.join("vocab.json"), serde_json::to_vec(vocabulary).unwrap()).unwrap();
            let merges = tokenizer["model"]["merges"].as_array().unwrap().iter().map(|pair| {
                let half = |at: usize| pair[at].as_str().unwrap();
                format!("{} {}\n", half(0), half(1))
            });
            std::fs::write(old.join("merges.txt"), format!("#version: 0.2\n{}", merges.collect::<String>())).unwrap();
        }
        let outcome = convert(&old, &new);
        assert_eq!(outcome.code, Some(0), "{outcome:?}");
        assert_eq!(tokens(&new, &odd), tokens(&fixture(name), &odd), "{name}");
    }
    let (old, new) = (folder.path().join("minilm-old"), folder.path().join("minilm"));
    copy(&minilm(), &old, &["tokenizer.json"]);
    let outcome = convert(&old, &new);
    assert_eq!(outcome.code, Some(0), "{outcome:?}");
    assert_eq!(tokens(&new, &odd), tokens(&minilm(), &odd), "MiniLM");
}

#[test]
fn what_cannot_be_converted_is_refused_and_leaves_nothing() {
    let source = fixture("roberta-ance-bin");
    let folder = tempfile::tempdir().unwrap();
    let part = |name: &str, without: &[&str]| {
        let place = folder.path().join(name);
        copy(&source, &place, without);
        place
    };
    refused(&folder.path().join("nowhere"), "no such folder");
    refused(&part("no-config", &["config.json"]), "config.json: no such file");
    refused(&part("no-weights", &["pytorch_model.bin"]), "model.safetensors: no such file, and no pytorch_model.bin");
    refused(&part("no-tokenizer", &["tokenizer.json"]), "nor the vocabulary files");
    let sharded = part("sharded", &["pytorch_model.bin"]);
    std::fs::write(sharded.join("pytorch_model.bin.index.json"), "{}").unwrap();
    refused(&sharded, "weights in several files");
    let cut = part("cut", &[]);
    let weights = std::fs::read(cut.join("pytorch_model.bin")).unwrap();
    std::fs::write(cut.join("pytorch_model.bin"), &weights[..weights.len() / 2]).unwrap();
    refused(&cut, "pytorch_model.bin: not a sound PyTorch file");
    let other = part("other-shape", &["config.json"]);
    let config = std::fs::read_to_string(source.join("config.json")).unwrap();
    std::fs::write(other.join("config.json"), config.replace("\"vocab_size\": 600", "\"vocab_size\": 601")).unwrap();
    refused(&other, "the configuration says [601, 32]");
    let unknown = part("unknown", &["config.json"]);
    std::fs::write(unknown.join("config.json"), r#"{"model_type": "dpr"}"#).unwrap();
    refused(&unknown, "model_type `dpr` is not supported");

    let taken = folder.path().join("cut");
    let outcome = convert(&source, &taken);
    assert!(outcome.code == Some(1) && outcome.stderr.contains("is there already"), "{outcome:?}");
    assert_eq!(std::fs::read(taken.join("pytorch_model.bin")).unwrap().len(), weights.len() / 2, "as it was");
    let outcome = convert(&source, &folder.path().join("not/there"));
    assert!(outcome.code == Some(1) && outcome.stderr.contains("there is no folder"), "{outcome:?}");
    // Whoever serves it instead is told what to do.
    let outcome = common::outcome(&["model", "inspect", source.to_str().unwrap()], &[]);
    assert!(outcome.code == Some(1) && outcome.stderr.contains("anced model convert"), "{outcome:?}");
}
