//! The store: documents, the change log, metadata postings, queries and judgments in one LMDB environment.
//!
//! Several processes may have it open; one writes at a time. Every call is one transaction of its own, but for those
//! of a [`View`], and a write has reached the disk when its call returns.

mod check;
mod copy;
mod documents;
mod feedback;
mod jobs;
mod matching;
mod open;
mod queries;
#[cfg(test)]
mod tests;
mod view;

use std::fmt;
use std::path::{Path, PathBuf};

use heed::types::Bytes;
use heed::{Database, Env, RoTxn, RwTxn, WithoutTls};

use super::{Error, StoredDocument};

pub use check::{StoreCheck, StoreContents};
pub(crate) use copy::DATA_FILE;
pub use feedback::AnsweredQueries;
pub use queries::{JudgmentCounts, JudgmentOutcome};
pub use view::View;

type Table = Database<'static, Bytes, Bytes>;

/// Documents, queries and judgments on disk.
///
/// Calls block; an async caller uses `spawn_blocking`. Reads never wait for writes, nor writes for reads.
pub struct Store {
    folder: PathBuf,
    env: Env<WithoutTls>,
    tables: Tables,
    identity: String,
}

/// The databases inside the environment. Numbers in keys and values are big-endian, so that they sort by size.
struct Tables {
    /// Sequence -> the document as JSON; current documents only.
    documents: Table,
    /// Document id -> sequence.
    ids: Table,
    /// Sequence -> operation, the sequence that it replaced or removed, document id; never shortened.
    log: Table,
    /// Key of a metadata value (see `metadata`) -> sequences, sorted.
    postings: Table,
    /// Number -> query as JSON.
    queries: Table,
    /// Query id -> number.
    query_ids: Table,
    /// Split, query number, document id -> grade and source; those of files only.
    judgments: Table,
    /// Key of a query's text whatever its case, query number -> nothing.
    query_texts: Table,
    /// Key of a feedback query's text -> the query as JSON.
    feedback: Table,
    /// Key of a feedback query's text whatever its case, that of the text -> nothing.
    feedback_texts: Table,
    /// Key of a feedback query's text, document id -> votes, a byte each, oldest first.
    votes: Table,
    /// Job id -> the job as JSON, in the words of whoever runs it.
    jobs: Table,
}

/// What [`Store::write`] did with one document.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WriteOutcome {
    /// The sequence of the document as it is now.
    pub sequence: u64,
    /// The sequence that it had before, which leaves every index.
    pub replaced: Option<u64>,
    /// Whether anything was written: not for a document that was there unchanged.
    pub changed: bool,
}

/// What [`Store::delete`] did with one document.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Removal {
    /// The document's id.
    pub id: String,
    /// The sequence of the deletion in the log.
    pub sequence: u64,
    /// The sequence that the document had, which leaves every index.
    pub removed: u64,
}

/// One entry of the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// The number of the write.
    pub sequence: u64,
    /// The document's id.
    pub id: String,
    /// What happened to it.
    pub operation: Operation,
}

/// What happened to a document.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Operation {
    /// It was written.
    Write {
        /// The sequence that it had before, if it was there.
        replaced: Option<u64>,
    },
    /// It was deleted.
    Delete {
        /// The sequence that it had.
        removed: u64,
    },
}

impl Store {
    /// The folder that the store was opened in.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// A name that no other store has, given when the store was made: its sequences mean nothing in another one.
    pub fn identity(&self) -> &str {
        &self.identity
    }

    fn read<T>(
        &self,
        operation: &'static str,
        body: impl FnOnce(&RoTxn<'_, WithoutTls>) -> Result<T, heed::Error>,
    ) -> Result<T, Error> {
        let result = self.env.read_txn().and_then(|transaction| body(&transaction));
        result.map_err(|error| Error::lmdb(&self.folder, operation, error))
    }

    /// What another process read when it was killed is let go first: no page that a write frees would be used again.
    fn change<T>(
        &self,
        operation: &'static str,
        body: impl FnOnce(&mut RwTxn<'_>) -> Result<T, heed::Error>,
    ) -> Result<T, Error> {
        let result = self.env.clear_stale_readers().and_then(|_| self.env.write_txn()).and_then(|mut transaction| {
            let value = body(&mut transaction)?;
            transaction.commit()?;
            Ok(value)
        });
        result.map_err(|error| Error::lmdb(&self.folder, operation, error))
    }
}

impl fmt::Debug for Store {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Store").field("folder", &self.folder).finish_non_exhaustive()
    }
}

/// A record that is not what this version writes.
fn damaged(reason: impl Into<String>) -> heed::Error {
    heed::Error::Decoding(reason.into().into())
}

/// The number at the start of some bytes, and the rest.
fn number(bytes: &[u8]) -> Result<(u64, &[u8]), heed::Error> {
    match bytes.split_first_chunk() {
        Some((number, rest)) => Ok((u64::from_be_bytes(*number), rest)),
        None => Err(damaged("a number is cut short")),
    }
}

fn text(bytes: &[u8]) -> Result<String, heed::Error> {
    String::from_utf8(bytes.to_vec()).map_err(|error| heed::Error::Decoding(error.into()))
}

fn stored(sequence: u64, json: &[u8]) -> Result<StoredDocument, heed::Error> {
    match serde_json::from_slice(json) {
        Ok(document) => Ok(StoredDocument { sequence, document }),
        Err(error) => Err(damaged(format!("document of sequence {sequence}: {error}"))),
    }
}
