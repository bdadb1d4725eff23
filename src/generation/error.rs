//! Why a search, a write or an embedding could not be answered.

use std::time::Duration;

/// The errors of the generation room; the REST API maps each to a status.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The request cannot be answered as it is; the text names the field and the rule.
    #[error("{0}")]
    InvalidRequest(String),
    /// No generation is live yet.
    #[error("no generation is live yet: the server is starting or has no index")]
    NotReady,
    /// The encoder's queue is full.
    #[error("the encoder's queue is full; try again in {} s", .retry_after.as_secs().max(1))]
    Overloaded {
        /// When a new try has a chance.
        retry_after: Duration,
    },
    /// A piece of work panicked; the log has its message.
    #[error("a mistake in anced ended the work: the log has a line about a panic, please report it")]
    Panicked,
    /// The server is stopping.
    #[error("the server is stopping")]
    Stopping,
    /// There is no generation of this number.
    #[error("there is no generation {0}; GET /admin/generations lists those on disk")]
    UnknownGeneration(u64),
    /// The generation answers already.
    #[error("generation {0} is live already")]
    AlreadyLive(u64),
    /// One generation is made live or removed at a time.
    #[error("another generation is being made live or removed; try again when that is done")]
    SwapRunning,
    /// What is live stays on disk.
    #[error("generation {0} is live and cannot be removed; make another one live first")]
    Live(u64),
    /// Only a person makes a generation live that did not pass the gate.
    #[error(
        "generation {0} did not pass the gate: it measured worse than the live one or was not compared with it, and is \
         made live by hand only"
    )]
    NotPassed(u64),
    /// A refresh makes a generation live that was compared with the live one.
    #[error("generation {number} was compared with another one than generation {live}, which is live now")]
    NotCompared {
        /// Which.
        number: u64,
        /// The live one.
        live: u64,
    },
    /// Writes come faster than the new generation takes them.
    #[error(
        "generation {number} cannot catch up: writes come faster than it encodes them, {behind} were missing at the end; \
         write more slowly and try again"
    )]
    Overtaken {
        /// Which.
        number: u64,
        /// Writes and deletions that it did not have yet.
        behind: u64,
    },
    /// The store failed.
    #[error(transparent)]
    Corpus(#[from] crate::corpus::Error),
    /// The encoder failed.
    #[error(transparent)]
    Encoder(#[from] crate::encoder::Error),
    /// The index failed.
    #[error(transparent)]
    Index(#[from] crate::index::Error),
    /// A file of a generation is missing, damaged or cannot be written; the text names it and what to do.
    #[error("{0}")]
    Damaged(String),
    /// A folder that a copy cannot go to, or cannot come from; the text names it and what to do.
    #[error("{0}")]
    Place(String),
    /// Reading or writing a file failed.
    #[error("{path}: {source}")]
    Io {
        /// Which file.
        path: std::path::PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
}
