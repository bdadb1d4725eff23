//! Vectors in, neighbours out: HNSW (usearch) and exact.
/// errors
#[derive(Debug, thiserror::Error)]
#[error("index")]
pub struct Error;
