//! Opening a store.

use std::fs;
use std::io;
use std::path::Path;

use heed::types::Bytes;
use heed::{CommitOrAbort, DatabaseFlags, Env, EnvOpenOptions, WithoutTls};

use super::{Store, Tables};
use crate::corpus::Error;
use crate::system;

/// Address space reserved for the map. It is neither memory nor disk; the file grows as it is written.
const MAP_BYTES: usize = 1 << 40;
/// Less address space than this is not worth starting with.
const SMALLEST_MAP_BYTES: usize = 1 << 28;
/// Read transactions at once, over all processes.
const READERS: u32 = 4096;
/// Tables there may be, with room for later ones.
const TABLES: u32 = 32;
/// The layout of the tables; a store of another one is refused.
const LAYOUT: &[u8] = b"1";
/// Bytes that the file may end before its last page: pages that were taken and given back without being written.
const UNWRITTEN_BYTES: u64 = 1 << 20;
const OPERATION: &str = "open";

impl Store {
    /// Opens the store in a folder, making both where they are missing.
    ///
    /// # Errors
    /// The folder cannot be made, read or written, its files are damaged or of another layout, the disk is full, or
    /// this process has the store open already.
    ///
    /// The process ignores `SIGXFSZ` from then on, so that a limit on file size is an error of the write that meets it.
    pub fn open(folder: &Path) -> Result<Self, Error> {
        let system_error = |error: io::Error| Error::lmdb(folder, OPERATION, heed::Error::Io(error));
        fs::create_dir_all(folder).map_err(system_error)?;
        system::ignore_file_size_signal();
        let env = environment(folder)?;
        // A process that was killed while it read leaves its slot behind, which would keep old pages from being used.
        env.clear_stale_readers().map_err(|error| Error::lmdb(folder, OPERATION, error))?;
        complete(&env, folder)?;
        let (tables, identity) = tables(&env, folder)?;
        let store = Self { folder: folder.to_path_buf(), env, tables, identity };
        store.index_query_texts()?;
        store.index_feedback_texts()?;
        Ok(store)
    }
}

fn environment(folder: &Path) -> Result<Env<WithoutTls>, Error> {
    let mut size = MAP_BYTES;
    loop {
        let mut options = EnvOpenOptions::new().read_txn_without_tls();
        options.map_size(size).max_readers(READERS).max_dbs(TABLES);
        match system::open_lmdb(&options, folder) {
            Ok(env) => return Ok(env),
            Err(heed::Error::Io(error)) if error.kind() == io::ErrorKind::OutOfMemory && size > SMALLEST_MAP_BYTES => {
                size /= 2
            }
            Err(error) => return Err(Error::lmdb(folder, OPERATION, error)),
        }
    }
}

/// Refuses a data file that was cut short: reading past its end would end the process.
fn complete(env: &Env<WithoutTls>, folder: &Path) -> Result<(), Error> {
    let failed = |error| Error::lmdb(folder, OPERATION, error);
    let page = u64::from(env.unnamed_database_stat().page_size);
    let file = env.try_clone_inner_file().map_err(failed)?;
    let lengths = || {
        let needed = (env.info().last_page_number as u64 + 1) * page;
        file.metadata().map(|file| (file.len(), needed)).map_err(|error| failed(error.into()))
    };
    let (present, needed) = lengths()?;
    if present >= needed {
        return Ok(());
    }
    // Another process may be writing past this end: its pages must not be cut off.
    let _held = env.write_txn().map_err(failed)?;
    let (present, needed) = lengths()?;
    if present >= needed {
        return Ok(());
    }
    if needed - present > UNWRITTEN_BYTES {
        let reason = format!("the data file has {present} of {needed} bytes: it was cut short");
        return Err(Error::Damaged { folder: folder.to_path_buf(), operation: OPERATION, reason });
    }
    file.set_len(needed).map_err(|error| failed(error.into()))
}

fn tables(env: &Env<WithoutTls>, folder: &Path) -> Result<(Tables, String), Error> {
    let failed = |error| Error::lmdb(folder, OPERATION, error);
    let transaction = env.write_txn().map_err(failed)?;
    let mut identity = String::new();
    let created = env.create_databases_and_commit(transaction, |opener, transaction| {
        let properties = opener.create_database::<Bytes, Bytes>(transaction, Some("properties"))?;
        match properties.get(transaction, b"layout")? {
            None => properties.put(transaction, b"layout", LAYOUT)?,
            Some(LAYOUT) => {}
            Some(other) => return Ok(CommitOrAbort::Abort(String::from_utf8_lossy(other).into_owned())),
        }
        identity = match properties.get(transaction, b"identity")? {
            Some(identity) => String::from_utf8_lossy(identity).into_owned(),
            None => {
                let identity = uuid::Uuid::now_v7().to_string();
                properties.put(transaction, b"identity", identity.as_bytes())?;
                identity
            }
        };
        let mut postings = opener.database_options().types::<Bytes, Bytes>();
        postings.name("postings").flags(DatabaseFlags::DUP_SORT | DatabaseFlags::DUP_FIXED);
        let postings = postings.create(transaction)?;
        let mut create = |name| opener.create_database::<Bytes, Bytes>(transaction, Some(name));
        Ok::<_, heed::Error>(CommitOrAbort::Commit((
            create("documents")?,
            create("ids")?,
            create("log")?,
            postings,
            create("queries")?,
            create("query_ids")?,
            create("judgments")?,
            create("query_texts")?,
            create("feedback")?,
            create("votes")?,
            create("jobs")?,
            create("feedback_texts")?,
        )))
    });
    match created.map_err(failed)? {
        CommitOrAbort::Commit((
            documents,
            ids,
            log,
            postings,
            queries,
            query_ids,
            judgments,
            query_texts,
            feedback,
            votes,
            jobs,
            feedback_texts,
        )) => {
            let tables = Tables {
                documents,
                ids,
                log,
                postings,
                queries,
                query_ids,
                judgments,
                query_texts,
                feedback,
                votes,
                jobs,
                feedback_texts,
            };
            Ok((tables, identity))
        }
        CommitOrAbort::Abort(layout) => {
            let reason = format!("the store has layout {layout}, which this version of anced does not read");
            Err(Error::Damaged { folder: folder.to_path_buf(), operation: OPERATION, reason })
        }
    }
}
