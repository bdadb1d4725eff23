//! Text to token ids.

use std::borrow::Cow;
use std::path::Path;

use rayon::prelude::*;
use tokenizers::{Tokenizer, TruncationDirection, TruncationParams, TruncationStrategy};

use super::{Checkpoint, Error};

/// Which side of the encoder a text is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Side {
    /// What a user asks.
    Query,
    /// What is found.
    Passage,
}

/// Texts below this number are tokenised on the calling thread.
const PARALLEL_FROM: usize = 16;

/// Prepares and tokenises texts as the checkpoint wants them.
#[derive(Debug)]
pub struct TextEncoder {
    tokenizer: Tokenizer,
    lower_case: bool,
    query_prompt: String,
    passage_prompt: String,
    length: usize,
    /// Characters beyond this cannot change the tokens kept, but for texts of mostly white space.
    max_chars: usize,
}

impl TextEncoder {
    /// Texts are cut after `length` tokens, special ones included, and never after more than the checkpoint takes.
    ///
    /// # Errors
    /// A tokenizer.json that is missing or cannot be read.
    pub fn open(checkpoint: &Checkpoint, length: usize) -> Result<Self, Error> {
        let length = length.min(checkpoint.max_seq_length);
        let file = checkpoint.folder.join("tokenizer.json");
        let mut tokenizer = load(&file)?;
        let truncation = TruncationParams {
            direction: TruncationDirection::Right,
            max_length: length,
            strategy: TruncationStrategy::LongestFirst,
            stride: 0,
        };
        tokenizer.with_truncation(Some(truncation)).map_err(|error| Error::checkpoint(&file, error))?;
        tokenizer.with_padding(None);
        Ok(Self {
            tokenizer,
            lower_case: checkpoint.lower_case,
            query_prompt: checkpoint.query_prompt.clone(),
            passage_prompt: checkpoint.passage_prompt.clone(),
            length,
            max_chars: (length * 40).max(10_000),
        })
    }

    /// The token ids of each text, special tokens included, cut at the checkpoint's limit.
    ///
    /// # Errors
    /// A tokenizer that fails.
    pub fn tokenize(&self, texts: &[String], side: Side) -> Result<Vec<Vec<u32>>, Error> {
        if texts.len() < PARALLEL_FROM {
            texts.iter().map(|text| self.tokenize_one(text, side)).collect()
        } else {
            texts.par_iter().map(|text| self.tokenize_one(text, side)).collect()
        }
    }

    /// Whether nothing of a text was cut when it became these tokens: a greater length would give the same. No for a few
    /// that fit exactly.
    pub fn is_whole(&self, text: &str, ids: &[u32]) -> bool {
        ids.len() < self.length && (text.len() <= self.max_chars || text.chars().count() <= self.max_chars)
    }

    /// After how many tokens texts are cut, special ones included.
    pub fn length(&self) -> usize {
        self.length
    }

    fn tokenize_one(&self, text: &str, side: Side) -> Result<Vec<u32>, Error> {
        let prompt = match side {
            Side::Query => &self.query_prompt,
            Side::Passage => &self.passage_prompt,
        };
        let end = text.char_indices().nth(self.max_chars).map_or(text.len(), |(at, _)| at);
        let text = &text[..end];
        let mut text = if prompt.is_empty() { Cow::Borrowed(text) } else { Cow::Owned(format!("{prompt}{text}")) };
        if self.lower_case {
            text = Cow::Owned(text.to_lowercase());
        }
        let encoding =
            self.tokenizer.encode_fast(text.trim(), true).map_err(|error| Error::Tokenizer(error.to_string()))?;
        Ok(encoding.get_ids().to_vec())
    }
}

fn load(file: &Path) -> Result<Tokenizer, Error> {
    let bytes = std::fs::read(file).map_err(|error| Error::checkpoint(file, error))?;
    Tokenizer::from_bytes(bytes)
        .map_err(|error| Error::checkpoint(file, format!("not a tokenizer that can be read: {error}")))
}
