//! A checkpoint of an older layout written as one that is read here: pickled weights, vocabulary files.

use std::path::{Path, PathBuf};

use super::checkpoint::model_type;
use super::vocabulary::Vocabulary;
use super::write::{as_a_whole, copy_folder, inner_folders, sync, write_file, write_onnx};
use super::{Checkpoint, Error, Overrides, TextEncoder, pickle};

const WEIGHTS: &str = "model.safetensors";
const PICKLE: &str = "pytorch_model.bin";
const TOKENIZER: &str = "tokenizer.json";

/// A file that was made: its path in the new folder, and those in the old one that it comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Made {
    /// In the new folder.
    pub file: PathBuf,
    /// In the old one.
    pub from: Vec<PathBuf>,
}

/// Writes the checkpoint folder `source` to `target`, with what is read here in place of what is not: `model.safetensors`
/// for `pytorch_model.bin`, in the folders of sentence-transformers modules too, and `tokenizer.json` for `vocab.txt`
/// (BERT) or `vocab.json` and `merges.txt` (RoBERTa). `onnx/model.onnx` is made anew. All else is copied, but for weights
/// in other formats and hidden files. The new folder is there as a whole, and opens, or not at all.
///
/// # Errors
/// A source that lacks a file, is damaged or not supported, a target that is there already or cannot be written.
pub fn convert(source: &Path, target: &Path) -> Result<Vec<Made>, Error> {
    if !source.is_dir() {
        return Err(Error::checkpoint(source, "no such folder; name a checkpoint folder in Hugging Face layout"));
    }
    let model_type = model_type(source)?;
    let folders = inner_folders(source)?;
    if ![WEIGHTS, PICKLE].iter().any(|name| source.join(name).is_file()) {
        let sharded = [WEIGHTS, PICKLE].map(|name| format!("{name}.index.json"));
        let sharded = sharded.iter().any(|name| source.join(name).is_file());
        let reason = if sharded {
            "no such file; weights in several files are not read, save them as one (max_shard_size of transformers)"
        } else {
            "no such file, and no pytorch_model.bin; a checkpoint needs one of them"
        };
        return Err(Error::checkpoint(source.join(WEIGHTS), reason));
    }
    let vocabulary = Vocabulary::of(source, &model_type);
    if !source.join(TOKENIZER).is_file() && vocabulary.is_none() {
        let reason = "no such file, nor the vocabulary files that it could be made of (vocab.txt of BERT, vocab.json and \
                      merges.txt of RoBERTa); save the tokenizer with transformers, which writes it";
        return Err(Error::checkpoint(source.join(TOKENIZER), reason));
    }

    let mut made = Vec::new();
    as_a_whole(source, target, |unfinished| {
        copy_folder(source, unfinished, &|_| true)?;
        for inner in folders {
            let (pickled, weights) = (source.join(&inner).join(PICKLE), inner.join(WEIGHTS));
            if pickled.is_file() && !source.join(&weights).is_file() {
                pickle::to_safetensors(&pickled, &unfinished.join(&weights))?;
                sync(&unfinished.join(&inner))?;
                made.push(Made { file: weights, from: vec![inner.join(PICKLE)] });
            }
        }
        if let Some(vocabulary) = vocabulary.filter(|_| !source.join(TOKENIZER).is_file()) {
            write_file(&unfinished.join(TOKENIZER), &vocabulary.tokenizer(source)?)?;
            made.push(Made { file: TOKENIZER.into(), from: vocabulary.files().iter().map(PathBuf::from).collect() });
        }
        let written = Checkpoint::open(unfinished, &Overrides::default())?;
        TextEncoder::open(&written, written.max_seq_length)?;
        // Every weight is read for it, so that none is missing or of another shape.
        if let Some(bytes) = written.to_onnx()? {
            write_onnx(&unfinished.join("onnx"), &bytes)?;
        }
        Ok(())
    })?;
    Ok(made)
}
