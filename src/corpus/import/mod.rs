//! Import: documents, queries and judgments from files, streamed line by line.

use std::path::{Path, PathBuf};

use serde::Serialize;

use super::{Error, Split, Store};

/// The formats of files.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Format {
    /// `corpus.jsonl`, `queries.jsonl`, `qrels/SPLIT.tsv`.
    Beir,
    /// MS MARCO's tab-separated collections, documents, queries and qrels.
    Msmarco,
    /// `psgs_w100.tsv` and question files.
    Dpr,
    /// One document a line.
    Jsonl,
}

/// How to import.
#[derive(Debug, Clone, Default)]
pub struct ImportOptions {
    /// The format of every path; told from each path where none.
    pub format: Option<Format>,
    /// Count bad lines and go on, instead of stopping at the first.
    pub skip_bad: bool,
    /// The split of every judgment; told from each file's name where none.
    pub split: Option<Split>,
}

/// How far an import is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Progress {
    /// Bytes read of the files as they are on disk.
    pub bytes_read: u64,
    /// Bytes of all files; none where standard input is among them.
    pub bytes_total: Option<u64>,
    /// Documents, queries and judgments read.
    pub records: u64,
}

/// What an import did.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct ImportReport {
    /// Documents read, the unchanged ones included.
    pub documents: u64,
    /// Documents that were there already, the same.
    pub unchanged: u64,
    /// Queries read.
    pub queries: u64,
    /// Judgments stored, those that were there already included.
    pub judgments: u64,
    /// Bad lines passed over.
    pub skipped: u64,
    /// Judgments whose document is not in the corpus (stored all the same) or whose query is unknown (left out).
    pub unknown_judgments: u64,
    /// What was wrong with the first bad lines and unknown judgments.
    pub first_errors: Vec<String>,
}

/// A line that cannot be imported.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{path}, line {line}: {reason}")]
pub struct BadLine {
    /// Which file; `-` is standard input.
    pub path: PathBuf,
    /// Which line, from 1.
    pub line: u64,
    /// What is wrong with it.
    pub reason: String,
}

/// Imports files and folders; `-` is standard input.
///
/// Of all paths documents come first, then queries, then judgments. Importing again changes nothing.
///
/// # Errors
/// A path that cannot be read or whose format cannot be told, the first bad line (unless `skip_bad`), or a store that
/// cannot be written; what was imported before stays.
pub fn import(
    _store: &Store,
    paths: &[PathBuf],
    _options: &ImportOptions,
    _progress: &mut dyn FnMut(Progress),
) -> Result<ImportReport, Error> {
    let path = paths.first().map_or(Path::new("-"), PathBuf::as_path).to_path_buf();
    Err(Error::Format { path, reason: "import is being written".into() })
}
