//! Text to token ids.

use std::borrow::Cow;
use std::path::Path;

use rayon::prelude::*;
use tokenizers::Tokenizer;

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
    /// Tokens of a text or a piece at most, special ones included.
    length: usize,
    /// Tokens from the start of one piece of a passage to that of the next, and those that are repeated in each.
    window: usize,
    chunks: usize,
    /// Special tokens before and after a text.
    before: Vec<u32>,
    after: Vec<u32>,
    /// Tokens of the passage prompt.
    prompt_tokens: usize,
}

impl TextEncoder {
    /// Texts are cut after `length` tokens, special ones included, and never after more than the checkpoint takes.
    ///
    /// # Errors
    /// A tokenizer.json that is missing or cannot be read.
    pub fn open(checkpoint: &Checkpoint, length: usize) -> Result<Self, Error> {
        let file = checkpoint.folder.join("tokenizer.json");
        let mut tokenizer = load(&file)?;
        tokenizer.with_truncation(None).map_err(|error| Error::checkpoint(&file, error))?;
        tokenizer.with_padding(None);
        let (before, after) = special_tokens(&tokenizer).map_err(|error| Error::checkpoint(&file, error))?;
        let mut encoder = Self {
            tokenizer,
            lower_case: checkpoint.lower_case,
            query_prompt: checkpoint.query_prompt.clone(),
            passage_prompt: checkpoint.passage_prompt.clone(),
            length: length.min(checkpoint.max_seq_length),
            window: checkpoint.max_seq_length,
            chunks: checkpoint.chunks,
            before,
            after,
            prompt_tokens: 0,
        };
        encoder.prompt_tokens = encoder.ids("", &encoder.passage_prompt, usize::MAX)?.len();
        Ok(encoder)
    }

    /// The token ids of each text, special tokens included, cut at the limit.
    ///
    /// # Errors
    /// A tokenizer that fails.
    pub fn tokenize(&self, texts: &[String], side: Side) -> Result<Vec<Vec<u32>>, Error> {
        let prompt = match side {
            Side::Query => &self.query_prompt,
            Side::Passage => &self.passage_prompt,
        };
        let room = self.length.saturating_sub(self.before.len() + self.after.len());
        let one = |text: &String| {
            let ids = self.ids(text, prompt, self.length)?;
            Ok(self.framed(&[], ids.get(..room).unwrap_or(&ids)))
        };
        if texts.len() < PARALLEL_FROM { texts.iter().map(one).collect() } else { texts.par_iter().map(one).collect() }
    }

    /// Whether nothing of a text was cut when it became these tokens: a greater length would give the same. No for a few
    /// that fit exactly.
    pub fn is_whole(&self, text: &str, ids: &[u32]) -> bool {
        let most = most_chars(self.length);
        ids.len() < self.length && (text.len() <= most || text.chars().count() <= most)
    }

    /// After how many tokens texts are cut, special ones included.
    pub fn length(&self) -> usize {
        self.length
    }

    /// The pieces of each passage by token ids, one at least and as many at most as the checkpoint says.
    ///
    /// A passage is tokenised whole and cut into consecutive windows of the checkpoint's length limit, which its special
    /// tokens and the prompt count to: both stand in every piece, a title only in the first, as in ANCE's MaxP. Each
    /// piece is then cut at this encoder's own limit, where that is shorter: the pieces begin where those of the index do.
    ///
    /// # Errors
    /// A tokenizer that fails.
    pub fn pieces(&self, texts: &[String]) -> Result<Vec<Vec<Vec<u32>>>, Error> {
        if self.chunks == 1 {
            return Ok(self.tokenize(texts, Side::Passage)?.into_iter().map(|ids| vec![ids]).collect());
        }
        if texts.len() < PARALLEL_FROM {
            texts.iter().map(|text| self.pieces_of(text)).collect()
        } else {
            texts.par_iter().map(|text| self.pieces_of(text)).collect()
        }
    }

    fn pieces_of(&self, text: &str) -> Result<Vec<Vec<u32>>, Error> {
        let ids = self.ids(text, &self.passage_prompt, self.window.saturating_mul(self.chunks))?;
        let special = self.before.len() + self.after.len();
        // A prompt that leaves no room for text is cut as a text would be.
        let prompt = self.prompt_tokens.min(ids.len()).min(self.length.saturating_sub(special + 1));
        let (prompt, rest) = ids.split_at(prompt);
        let stride = self.window.saturating_sub(special + prompt.len()).max(1);
        let kept = self.length.saturating_sub(special + prompt.len());
        let piece = |window: &[u32]| self.framed(prompt, window.get(..kept).unwrap_or(window));
        let pieces: Vec<Vec<u32>> = rest.chunks(stride).take(self.chunks).map(piece).collect();
        Ok(if pieces.is_empty() { vec![self.framed(prompt, &[])] } else { pieces })
    }

    fn framed(&self, prompt: &[u32], ids: &[u32]) -> Vec<u32> {
        [self.before.as_slice(), prompt, ids, &self.after].concat()
    }

    /// The token ids of a text without special tokens; what lies far beyond `wanted` tokens is not looked at.
    fn ids(&self, text: &str, prompt: &str, wanted: usize) -> Result<Vec<u32>, Error> {
        let end = text.char_indices().nth(most_chars(wanted)).map_or(text.len(), |(at, _)| at);
        let text = &text[..end];
        let mut text = if prompt.is_empty() { Cow::Borrowed(text) } else { Cow::Owned(format!("{prompt}{text}")) };
        if self.lower_case {
            text = Cow::Owned(text.to_lowercase());
        }
        let encoding =
            self.tokenizer.encode_fast(text.trim(), false).map_err(|error| Error::Tokenizer(error.to_string()))?;
        Ok(encoding.get_ids().to_vec())
    }
}

/// Characters beyond this cannot change so many tokens, but in texts of mostly white space.
fn most_chars(tokens: usize) -> usize {
    tokens.saturating_mul(40).max(10_000)
}

/// The special tokens that the tokenizer puts before and after a text.
fn special_tokens(tokenizer: &Tokenizer) -> Result<(Vec<u32>, Vec<u32>), String> {
    let encoding = tokenizer.encode("a", true).map_err(|error| error.to_string())?;
    let (ids, mask) = (encoding.get_ids(), encoding.get_special_tokens_mask());
    let first = mask.iter().position(|special| *special == 0);
    let last = mask.iter().rposition(|special| *special == 0);
    match (first, last) {
        (Some(first), Some(last)) => {
            let split = |from: usize, to: usize| ids.get(from..to).unwrap_or_default().to_vec();
            Ok((split(0, first), split(last + 1, ids.len())))
        }
        _ => Err("the tokenizer makes no token of the letter `a`".into()),
    }
}

fn load(file: &Path) -> Result<Tokenizer, Error> {
    if !file.exists() {
        let reason =
            "no such file; `anced model convert` makes it where the folder holds the vocabulary files of before";
        return Err(Error::checkpoint(file, reason));
    }
    let bytes = std::fs::read(file).map_err(|error| Error::checkpoint(file, error))?;
    let refuse =
        |error: &dyn std::fmt::Display| Error::checkpoint(file, format!("not a tokenizer that can be read: {error}"));
    // The library panics on a decoder that is cut short, or is no JSON in another way.
    serde_json::from_slice::<serde_json::Value>(&bytes).map_err(|error| refuse(&error))?;
    Tokenizer::from_bytes(bytes).map_err(|error| refuse(&error))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::encoder::Overrides;

    fn checkpoint(chunks: usize, prompt: &str) -> Checkpoint {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/reference/bert-mean");
        let overrides = Overrides { max_seq_length: Some(12), chunks: Some(chunks), ..Overrides::default() };
        let mut checkpoint = Checkpoint::open(&folder, &overrides).unwrap();
        checkpoint.passage_prompt = prompt.into();
        checkpoint
    }

    fn pieces(checkpoint: &Checkpoint, length: usize, text: &str) -> Vec<Vec<u32>> {
        TextEncoder::open(checkpoint, length).unwrap().pieces(&[text.to_owned()]).unwrap().remove(0)
    }

    #[test]
    fn a_passage_is_cut_into_windows_with_special_tokens_each() {
        let text = "dense text retrieval, the index is refreshed asynchronously from a checkpoint. ".repeat(3);
        let mut long = checkpoint(1, "");
        long.max_seq_length = 60;
        let whole = pieces(&long, 60, &text).remove(0);
        let (first, last) = (whole[0], whole[whole.len() - 1]);
        let whole = &whole[1..whole.len() - 1];
        assert!(whole.len() > 30, "{}", whole.len());

        let found = pieces(&checkpoint(3, ""), 12, &text);
        let wanted: Vec<Vec<u32>> =
            whole.chunks(10).take(3).map(|window| [&[first], window, &[last]].concat()).collect();
        assert_eq!(found, wanted);
        assert_eq!(pieces(&checkpoint(1, ""), 12, &text), wanted[..1]);
        let cut = TextEncoder::open(&checkpoint(3, ""), 12)
            .unwrap()
            .tokenize(std::slice::from_ref(&text), Side::Passage)
            .unwrap();
        assert_eq!(cut, wanted[..1], "a text that is no document stays one");

        // Shorter pieces, as in training, begin at the same places.
        let short: Vec<Vec<u32>> =
            whole.chunks(10).take(3).map(|window| [&[first], &window[..4], &[last]].concat()).collect();
        assert_eq!(pieces(&checkpoint(3, ""), 6, &text), short);

        // As many pieces as there is text for, and one where there is none.
        assert_eq!(pieces(&checkpoint(200, ""), 12, &text).concat().len(), {
            let whole = pieces(&Checkpoint { max_seq_length: 1000, ..checkpoint(1, "") }, 1000, &text)[0].len() - 2;
            whole + 2 * whole.div_ceil(10)
        });
        assert_eq!(pieces(&checkpoint(3, ""), 12, ""), [[first, last]]);
    }

    #[test]
    fn the_prompt_stands_in_every_piece() {
        let text = "dense text retrieval ".repeat(10);
        let bare = pieces(&checkpoint(1, ""), 12, "the index");
        let prompt = &bare[0][1..bare[0].len() - 1];
        let found = pieces(&checkpoint(3, "the index "), 12, &text);
        assert_eq!(found.len(), 3);
        assert!(found.iter().all(|piece| piece.len() == 12 && piece[1..=prompt.len()] == *prompt), "{found:?}");
        let rest: Vec<u32> = found.iter().flat_map(|piece| &piece[1 + prompt.len()..11]).copied().collect();
        let long = pieces(&Checkpoint { max_seq_length: 60, ..checkpoint(1, "") }, 60, &text).remove(0);
        assert_eq!(rest, long[1..=rest.len()]);
    }
}
