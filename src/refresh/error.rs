//! Why a refresh does not start, or a job cannot be changed.

use std::path::{Path, PathBuf};

use super::State;

/// The errors of the refresh room.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// One at a time.
    #[error("job {0} runs; wait for its end, or cancel it with DELETE /admin/jobs/{0}")]
    Running(String),
    /// No job of this id.
    #[error("there is no job {0}; GET /admin/jobs lists them")]
    Unknown(String),
    /// A job that cannot be gone on with.
    #[error(
        "job {id} is {state}: only one that stopped, failed or was cancelled goes on; POST /admin/refresh starts anew"
    )]
    NotResumable {
        /// Which.
        id: String,
        /// What became of it.
        state: State,
    },
    /// A job that kept what it needs, but not all of it is there any more.
    #[error(
        "job {id} cannot go on: {reason}; POST /admin/refresh starts anew, DELETE /admin/jobs/{id} removes what it keeps"
    )]
    Lost {
        /// Which.
        id: String,
        /// What is not there.
        reason: String,
    },
    /// A generation that the job which runs cannot do without.
    #[error(
        "job {job} runs and {why}, generation {generation}; wait for its end, or cancel it with DELETE /admin/jobs/{job}"
    )]
    Needed {
        /// Which generation.
        generation: u64,
        /// Which job.
        job: String,
        /// What the job has to do with it.
        why: &'static str,
    },
    /// A job that there is nothing of to cancel.
    #[error("job {id} is {state} already")]
    Ended {
        /// Which.
        id: String,
        /// What became of it.
        state: State,
    },
    /// Settings that no run could have, or nothing to train on.
    #[error("{0}")]
    Refused(String),
    /// The disk is too small.
    #[error(
        "the training needs about {needed} bytes in {folder} and {free} are free: {} are missing; make room, or train \
         fewer rounds",
        needed.saturating_sub(*free)
    )]
    NoRoom {
        /// Where.
        folder: PathBuf,
        /// In bytes.
        needed: u64,
        /// In bytes.
        free: u64,
    },
    /// The server is stopping.
    #[error("the server is stopping")]
    Stopping,
    /// The store.
    #[error(transparent)]
    Corpus(#[from] crate::corpus::Error),
    /// The live generation.
    #[error(transparent)]
    Generation(#[from] crate::generation::Error),
    /// Settings or a record that this version does not read or cannot write.
    #[error("job: {0}")]
    Record(#[from] serde_json::Error),
    /// A file or a process.
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
