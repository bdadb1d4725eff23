//! What can go wrong while measuring.

use std::io;
use std::path::PathBuf;

/// A failure of this room.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// Nothing to measure against.
    #[error("there are no judgments of the split `{0}`; import a qrels file of it with `anced import`")]
    NoJudgments(crate::corpus::Split),
    /// The generation or its store failed.
    #[error(transparent)]
    Generation(#[from] crate::generation::Error),
    /// A measure's name is not one of ours.
    #[error("`{0}` is not a measure: nDCG@K, MRR@K or Recall@K with K at least 1")]
    Measure(String),
    /// A file cannot be read.
    #[error("{path}: cannot be read: {source}")]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A file cannot be written; whatever stood at its place is untouched.
    #[error("{path}: cannot be written: {source}")]
    Write {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A line of a TREC file is not what it should be.
    #[error("{path}:{line}: {reason}")]
    Line {
        /// The file.
        path: PathBuf,
        /// The line's number, from 1.
        line: usize,
        /// What is wrong with it.
        reason: String,
    },
    /// A name that a TREC file, whose columns are separated by white space, cannot hold.
    #[error("{what} `{name}` is empty or holds white space, which a TREC file cannot express; rename it")]
    Name {
        /// Whose name it is.
        what: &'static str,
        /// The name.
        name: String,
    },
    /// A score that is not a number cannot be ranked.
    #[error("document `{document}` has the score {score} for query `{query}`, which is not a finite number")]
    Score {
        /// The query's id.
        query: String,
        /// The document's id.
        document: String,
        /// Its score.
        score: f32,
    },
    /// Building or searching the BM25 index failed.
    #[error("bm25: {action}: {source}")]
    Bm25 {
        /// What was being done.
        action: &'static str,
        /// Why it failed.
        source: tantivy::TantivyError,
    },
}
