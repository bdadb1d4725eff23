//! Why a checkpoint cannot be opened or a text not be encoded.

use std::path::PathBuf;

/// The errors of the encoder room.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The checkpoint folder is not there.
    #[error("{0}: no such checkpoint folder; run `make setup` for the default model, or name another with --model")]
    FolderMissing(PathBuf),
    /// A file of the checkpoint is missing, damaged or says something that is not supported.
    #[error("{file}: {reason}")]
    Checkpoint {
        /// Which file.
        file: PathBuf,
        /// What is wrong with it and, where it helps, what to do.
        reason: String,
    },
    /// A folder that a checkpoint is to be written to cannot take it.
    #[error("{folder}: {reason}")]
    Target {
        /// Which folder.
        folder: PathBuf,
        /// What is wrong with it and what to do.
        reason: String,
    },
    /// Reading or writing a file failed.
    #[error("{path}: {source}")]
    Io {
        /// Which file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The tokenizer failed on a text.
    #[error("the tokenizer failed: {0}")]
    Tokenizer(String),
    /// More texts wait than the queue takes.
    #[error("the encoder's queue is full ({limit} texts wait)")]
    QueueFull {
        /// The setting `queue_limit`.
        limit: usize,
    },
    /// The encoder was closed while the texts waited.
    #[error("the encoder was closed")]
    Closed,
    /// The model computed values that are not finite.
    #[error("the model computed a vector that is not finite; the checkpoint is damaged or overflows in this precision")]
    NotFinite,
    /// A thread could not be started.
    #[error("no thread for the encoder: {0}")]
    Thread(std::io::Error),
    /// The runtime failed.
    #[error(transparent)]
    Onnx(#[from] crate::onnx::Error),
}

impl Error {
    pub(super) fn checkpoint(file: impl Into<PathBuf>, reason: impl std::fmt::Display) -> Self {
        Self::Checkpoint { file: file.into(), reason: reason.to_string() }
    }

    pub(super) fn io(path: &std::path::Path) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.to_path_buf();
        move |source| Self::Io { path, source }
    }
}
