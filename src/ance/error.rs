//! What can go wrong in training.

use std::path::{Path, PathBuf};

/// The errors of the ance room.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The runtime, a graph or a weight.
    #[error(transparent)]
    Onnx(#[from] crate::onnx::Error),
    /// The checkpoint.
    #[error(transparent)]
    Encoder(#[from] crate::encoder::Error),
    /// The store.
    #[error(transparent)]
    Corpus(#[from] crate::corpus::Error),
    /// A generation.
    #[error(transparent)]
    Generation(#[from] crate::generation::Error),
    /// A measure or BM25.
    #[error(transparent)]
    Evaluation(#[from] crate::evaluation::Error),
    /// A setting that cannot be.
    #[error("training recipe: {0}")]
    Recipe(String),
    /// Nothing to train on.
    #[error("training data: {0}")]
    Data(String),
    /// Whoever started the run asked it to stop.
    #[error("training was stopped; its state is kept")]
    Stopped,
    /// A training state that cannot be gone on with.
    #[error("{file}: {reason}; start training anew, or remove it")]
    State {
        /// The file.
        file: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// A file that cannot be read or written.
    #[error("{path}: {source}")]
    Io {
        /// Which.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
}

impl Error {
    pub(super) fn io(path: &Path) -> impl FnOnce(std::io::Error) -> Self {
        move |source| Self::Io { path: path.to_path_buf(), source }
    }
}
