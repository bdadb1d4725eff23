//! Text in, vectors out: checkpoint, tokenizer, pooling, batching of concurrent queries.

/// Which side of the encoder a text is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Side {
    /// What a user asks.
    Query,
    /// What is found.
    Passage,
}
/// errors
#[derive(Debug, thiserror::Error)]
#[error("encoder")]
pub struct Error;
