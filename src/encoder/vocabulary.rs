//! A tokenizer from the vocabulary files that were there before `tokenizer.json`.
//!
//! What transformers makes of them: `BertConverter` and `RobertaConverter` in its `convert_slow_tokenizer.py`.

use std::path::Path;

use serde::Deserialize;
use serde_json::{Map, Value, json};
use tokenizers::Tokenizer;

use super::Error;
use super::checkpoint::{read_json, read_json_if_there};

/// What a family of models has in place of `tokenizer.json`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Vocabulary {
    /// `vocab.txt`, a piece of a word a line.
    WordPiece,
    /// `vocab.json` and `merges.txt`.
    BytePairs,
}

/// The part of `tokenizer_config.json` that says how a text is prepared; where it is silent, as transformers has it.
#[derive(Debug, Deserialize)]
#[serde(default)]
struct Config {
    do_lower_case: bool,
    tokenize_chinese_chars: bool,
    strip_accents: Option<bool>,
    add_prefix_space: bool,
}

impl Default for Config {
    fn default() -> Self {
        Self { do_lower_case: true, tokenize_chinese_chars: true, strip_accents: None, add_prefix_space: false }
    }
}

impl Vocabulary {
    /// That of a model type, where the folder has its files.
    pub(super) fn of(folder: &Path, model_type: &str) -> Option<Self> {
        let kind = match model_type {
            "bert" => Self::WordPiece,
            "roberta" => Self::BytePairs,
            _ => return None,
        };
        kind.files().iter().all(|file| folder.join(file).is_file()).then_some(kind)
    }

    /// The files that it is made of.
    pub(super) fn files(self) -> &'static [&'static str] {
        match self {
            Self::WordPiece => &["vocab.txt"],
            Self::BytePairs => &["vocab.json", "merges.txt"],
        }
    }

    /// The contents of a `tokenizer.json`.
    ///
    /// # Errors
    /// A file that cannot be read, or that lacks a special token.
    pub(super) fn tokenizer(self, folder: &Path) -> Result<Vec<u8>, Error> {
        let config: Config = read_json_if_there(&folder.join("tokenizer_config.json"))?.unwrap_or_default();
        let vocabulary = folder.join(self.files()[0]);
        let tokenizer = match self {
            Self::WordPiece => word_pieces(&vocabulary, &config)?,
            Self::BytePairs => byte_pairs(&vocabulary, &folder.join(self.files()[1]), &config)?,
        };
        let mut text = serde_json::to_vec(&tokenizer).map_err(|error| Error::checkpoint(&vocabulary, error))?;
        text.push(b'\n');
        // From the bytes that are written: a tokenizer that cannot be read helps nobody.
        Tokenizer::from_bytes(&text).map_err(|error| Error::checkpoint(&vocabulary, error))?;
        Ok(text)
    }
}

fn word_pieces(file: &Path, config: &Config) -> Result<Value, Error> {
    let text = std::fs::read_to_string(file).map_err(|error| Error::checkpoint(file, error))?;
    let lines = text.strip_suffix('\n').unwrap_or(&text).split('\n');
    let vocabulary: Map<String, Value> =
        lines.enumerate().map(|(id, piece)| (piece.trim_end_matches('\r').to_owned(), id.into())).collect();
    let (cls, sep) = (id(&vocabulary, "[CLS]", file)?, id(&vocabulary, "[SEP]", file)?);
    let added = added(&vocabulary, &["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"], file)?;
    let special = |name: &str, kind: u8| json!({"SpecialToken": {"id": name, "type_id": kind}});
    let text = |name: &str, kind: u8| json!({"Sequence": {"id": name, "type_id": kind}});
    Ok(json!({
        "version": "1.0",
        "truncation": null,
        "padding": null,
        "added_tokens": added,
        "normalizer": {
            "type": "BertNormalizer",
            "clean_text": true,
            "handle_chinese_chars": config.tokenize_chinese_chars,
            "strip_accents": config.strip_accents,
            "lowercase": config.do_lower_case,
        },
        "pre_tokenizer": {"type": "BertPreTokenizer"},
        "post_processor": {
            "type": "TemplateProcessing",
            "single": [special("[CLS]", 0), text("A", 0), special("[SEP]", 0)],
            "pair": [special("[CLS]", 0), text("A", 0), special("[SEP]", 0), text("B", 1), special("[SEP]", 1)],
            "special_tokens": {
                "[CLS]": {"id": "[CLS]", "ids": [cls], "tokens": ["[CLS]"]},
                "[SEP]": {"id": "[SEP]", "ids": [sep], "tokens": ["[SEP]"]},
            },
        },
        "decoder": {"type": "WordPiece", "prefix": "##", "cleanup": true},
        "model": {
            "type": "WordPiece",
            "unk_token": "[UNK]",
            "continuing_subword_prefix": "##",
            "max_input_chars_per_word": 100,
            "vocab": vocabulary,
        },
    }))
}

fn byte_pairs(file: &Path, merges_file: &Path, config: &Config) -> Result<Value, Error> {
    let vocabulary: Map<String, Value> = read_json(file)?;
    let text = std::fs::read_to_string(merges_file).map_err(|error| Error::checkpoint(merges_file, error))?;
    // The first line may name the format's version.
    let merges: Vec<&str> = text.lines().filter(|line| !line.is_empty() && !line.starts_with("#version")).collect();
    let (cls, sep) = (id(&vocabulary, "<s>", file)?, id(&vocabulary, "</s>", file)?);
    let mut added = added(&vocabulary, &["<s>", "<pad>", "</s>", "<unk>", "<mask>"], file)?;
    for token in &mut added {
        // It stands for a word and the space before it.
        token["lstrip"] = (token["content"] == "<mask>").into();
    }
    let prefix = config.add_prefix_space;
    let bytes = json!({"type": "ByteLevel", "add_prefix_space": prefix, "trim_offsets": true, "use_regex": true});
    Ok(json!({
        "version": "1.0",
        "truncation": null,
        "padding": null,
        "added_tokens": added,
        "normalizer": null,
        "pre_tokenizer": bytes,
        "post_processor": {
            "type": "RobertaProcessing",
            "sep": ["</s>", sep],
            "cls": ["<s>", cls],
            "trim_offsets": true,
            "add_prefix_space": prefix,
        },
        "decoder": bytes,
        "model": {
            "type": "BPE",
            "dropout": null,
            "unk_token": null,
            "continuing_subword_prefix": "",
            "end_of_word_suffix": "",
            "fuse_unk": false,
            "vocab": vocabulary,
            "merges": merges,
        },
    }))
}

/// The special tokens of a vocabulary, as `added_tokens` has them.
fn added(vocabulary: &Map<String, Value>, names: &[&str], file: &Path) -> Result<Vec<Value>, Error> {
    let mut tokens = Vec::new();
    for name in names {
        let id = id(vocabulary, name, file)?;
        tokens.push((
            id,
            json!({
                "id": id, "content": name, "single_word": false, "lstrip": false, "rstrip": false, "normalized": false,
                "special": true,
            }),
        ));
    }
    tokens.sort_unstable_by_key(|(id, _)| *id);
    Ok(tokens.into_iter().map(|(_, token)| token).collect())
}

fn id(vocabulary: &Map<String, Value>, token: &str, file: &Path) -> Result<u64, Error> {
    let id = vocabulary.get(token).and_then(Value::as_u64);
    id.ok_or_else(|| {
        Error::checkpoint(
            file,
            format!("lacks the token `{token}`; a tokenizer.json from transformers says which stands for it"),
        )
    })
}
