//! A checkpoint folder in which one file is another: it is refused, or it can be read to its end.
//!
//! The first line is the file's path; the rest is the file.

use anced::encoder::{Checkpoint, Overrides, Side, TextEncoder};
use tempfile::TempDir;

use super::{Shared, copy, headed, instead, repository, scratch};

/// What a user may have written by hand or taken from anywhere.
const FILES: [&str; 9] = [
    "config.json",
    "modules.json",
    "sentence_bert_config.json",
    "config_sentence_transformers.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "1_Pooling/config.json",
    "2_Dense/config.json",
    "3_LayerNorm/config.json",
];

thread_local! {
    static FOLDER: Shared<TempDir> = const { Shared::new() };
}

pub fn run(input: &[u8]) {
    let Some((name, contents)) = headed(input) else { return };
    if !FILES.contains(&name) {
        return;
    }
    let make = || {
        let folder = scratch();
        copy(&repository("tests/fixtures/reference/roberta-ance-st"), folder.path());
        folder
    };
    let run = |folder: &mut TempDir| instead(folder.path(), name, contents, |_| read(folder));
    FOLDER.with(|shared| shared.with(u32::MAX, make, run));
}

fn read(folder: &TempDir) {
    let Ok(checkpoint) = Checkpoint::open(folder.path(), &Overrides { chunks: Some(3), ..Overrides::default() }) else {
        return;
    };
    let _ = checkpoint.to_onnx();
    let Ok(encoder) = TextEncoder::open(&checkpoint, 16) else { return };
    let texts = ["list files".to_owned(), "a".repeat(300), String::new()];
    for side in [Side::Query, Side::Passage] {
        if let Ok(ids) = encoder.tokenize(&texts, side) {
            assert!(ids.iter().all(|ids| ids.len() <= encoder.length()));
        }
    }
    if let Ok(pieces) = encoder.pieces(&texts) {
        assert!(pieces.iter().all(|pieces| (1..=3).contains(&pieces.len())));
    }
}
