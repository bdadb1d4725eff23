//! What can go wrong in the corpus room.

use std::io;
use std::path::{Path, PathBuf};

use heed::MdbError;

use super::InvalidDocument;

/// The errors of the store and of imports.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A document that the store does not take.
    #[error(transparent)]
    Document(#[from] InvalidDocument),
    /// A query that the store does not take.
    #[error("query `{id}`: {rule}")]
    Query {
        /// The query's id, shortened where it is long.
        id: String,
        /// The rule that it breaks.
        rule: &'static str,
    },
    /// No room for what was to be written; nothing of it was kept.
    #[error("store {folder}: {operation}: {reason}; nothing of this write was kept, all earlier ones were")]
    Full {
        /// The store's folder.
        folder: PathBuf,
        /// What was being done.
        operation: &'static str,
        /// Which limit was reached and what to do.
        reason: &'static str,
    },
    /// The folder cannot be opened, read or written.
    #[error("store {folder}: {operation}: {source}; {advice}")]
    Unusable {
        /// The store's folder.
        folder: PathBuf,
        /// What was being done.
        operation: &'static str,
        /// What the system said.
        source: io::Error,
        /// What to do.
        advice: &'static str,
    },
    /// The store is open in this process already.
    #[error("store {0}: it is open in this process already; share the open store instead of opening it twice")]
    AlreadyOpen(PathBuf),
    /// The store's files are damaged or not a store.
    #[error("store {folder}: {operation}: {reason}; put a copy of the folder back, or move it away and import again")]
    Damaged {
        /// The store's folder.
        folder: PathBuf,
        /// What was being done.
        operation: &'static str,
        /// What is wrong.
        reason: String,
    },
    /// Any other failure of LMDB.
    #[error("store {folder}: {operation}: {source}")]
    Lmdb {
        /// The store's folder.
        folder: PathBuf,
        /// What was being done.
        operation: &'static str,
        /// What LMDB said.
        source: heed::Error,
    },
    /// A file to import cannot be read.
    #[error("{path}: {source}")]
    File {
        /// Which file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// What a path holds cannot be told, or is not what its format says.
    #[error("{path}: {reason}")]
    Format {
        /// Which path.
        path: PathBuf,
        /// What is wrong and what to do.
        reason: String,
    },
    /// A bad line of a file to import.
    #[error("{0}")]
    Line(#[from] super::BadLine),
}

impl Error {
    /// Says what a failure of LMDB means for the user.
    pub(super) fn lmdb(folder: &Path, operation: &'static str, error: heed::Error) -> Self {
        let folder = folder.to_path_buf();
        let damaged = |reason: String| Self::Damaged { folder: folder.clone(), operation, reason };
        match error {
            heed::Error::EnvAlreadyOpened => Self::AlreadyOpen(folder),
            heed::Error::Io(source) => Self::system(folder, operation, source),
            heed::Error::Mdb(MdbError::MapFull) => {
                let reason = "the memory map is full; raise the limit on address space (ulimit -v) and start again";
                Self::Full { folder, operation, reason }
            }
            heed::Error::Mdb(
                code @ (MdbError::PageNotFound
                | MdbError::Corrupted
                | MdbError::Invalid
                | MdbError::VersionMismatch
                | MdbError::Incompatible),
            ) => damaged(format!("the files are damaged or not a store ({code})")),
            heed::Error::Decoding(source) => damaged(format!("a record cannot be read ({source})")),
            heed::Error::Mdb(MdbError::Panic) => Self::Unusable {
                folder,
                operation,
                source: io::Error::other("an earlier write failed half-way"),
                advice: "end the process and start it again; what was acknowledged is kept",
            },
            source => Self::Lmdb { folder, operation, source },
        }
    }

    fn system(folder: PathBuf, operation: &'static str, source: io::Error) -> Self {
        // LMDB calls a write that was cut short EIO, whatever cut it.
        if source.raw_os_error() == Some(libc::EIO) {
            let reason = "a write was cut short: the disk is full, the limit on file size (ulimit -f) is reached, or the \
                          disk is failing; make room and try again, or check the system's log";
            return Self::Full { folder, operation, reason };
        }
        let advice = match source.kind() {
            io::ErrorKind::StorageFull => {
                return Self::Full { folder, operation, reason: "the disk is full; free some space and try again" };
            }
            io::ErrorKind::QuotaExceeded => {
                return Self::Full {
                    folder,
                    operation,
                    reason: "the disk quota is used up; free some space and try again",
                };
            }
            io::ErrorKind::FileTooLarge => {
                let reason = "the limit on file size is reached; raise it (ulimit -f) and start again";
                return Self::Full { folder, operation, reason };
            }
            io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => {
                "give this user the right to write the folder and its files"
            }
            io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => "name a folder that can be made",
            io::ErrorKind::OutOfMemory => "raise the limits on memory and address space (ulimit -v)",
            _ if matches!(source.raw_os_error(), Some(libc::ENOLCK | libc::EAGAIN)) => {
                "the files cannot be locked: put the folder on a local disk, not on a network file system"
            }
            _ => "check the folder and its disk",
        };
        Self::Unusable { folder, operation, source, advice }
    }
}
