//! Why vectors cannot be added, searched or kept.

use std::path::PathBuf;

/// The errors of the index room.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A vector of another size than the index.
    #[error("a vector has {got} components, the index has {wanted}")]
    Dimension {
        /// The vector's.
        got: usize,
        /// The index's.
        wanted: usize,
    },
    /// A vector with a component that is NaN or infinite; it would spoil every comparison.
    #[error("the vector of key {key} holds a component that is not finite")]
    NotFinite {
        /// The vector's key.
        key: u64,
    },
    /// 8-bit graphs hold vectors of length 1 only.
    #[error(
        "the vector of key {key} has length {length}; quantization i8 needs vectors of length 1: choose f16, or similarity \
         cosine"
    )]
    NotUnit {
        /// The vector's key.
        key: u64,
        /// Its length.
        length: f32,
    },
    /// A document's key, or the number of its vectors, is larger than an index can tell apart.
    #[error(
        "key {key} stands for too many vectors, or is too large: keys are below 2^48 and have at most 65,536 vectors"
    )]
    Key {
        /// The document's key.
        key: u64,
    },
    /// usearch failed.
    #[error("the HNSW graph failed to {action}: {reason}")]
    Graph {
        /// What was attempted.
        action: &'static str,
        /// What usearch said.
        reason: String,
    },
    /// A file cannot be read or written.
    #[error("{file}: {reason}")]
    File {
        /// Which.
        file: PathBuf,
        /// Why.
        reason: String,
    },
    /// The product of exact search failed.
    #[error(transparent)]
    Onnx(#[from] crate::onnx::Error),
}
