//! Import: documents, queries and judgments from files, streamed line by line.

mod beir;
mod dpr;
mod jsonl;
mod lines;
mod msmarco;
mod plan;
mod qrels;
mod record;
mod sink;

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use serde::Serialize;

use self::lines::{Counter, Lines};
use self::plan::Input;
use self::record::Kind;
use self::sink::Sink;
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
    /// The split of the judgments in files that are named one by one, whatever their names say; in a folder, the split
    /// of files whose names say none.
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
/// Of all paths documents come first, then queries, then judgments. Importing again changes nothing. `progress` is
/// called after each batch.
///
/// # Errors
/// A path that cannot be read or whose format cannot be told, the first bad line (unless `skip_bad`), or a store that
/// cannot be written; what came before stays imported.
///
/// ```
/// use anced::corpus::{ImportOptions, Store, import};
/// let folder = tempfile::tempdir()?;
/// let file = folder.path().join("corpus.jsonl");
/// std::fs::write(&file, "{\"_id\": \"a\", \"text\": \"list files\"}\n")?;
/// let store = Store::open(&folder.path().join("store"))?;
/// let report = import(&store, &[file], &ImportOptions::default(), &mut |_| {})?;
/// assert_eq!((report.documents, store.count()?), (1, 1));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn import(
    store: &Store,
    paths: &[PathBuf],
    options: &ImportOptions,
    progress: &mut dyn FnMut(Progress),
) -> Result<ImportReport, Error> {
    let inputs = plan::plan(paths, options)?;
    let mut run = Run::new(store, options, total(&inputs), progress);
    for Input { kind, path } in &inputs {
        if path.as_os_str() == plan::STANDARD_INPUT {
            run.file(kind, path, io::stdin().lock())?;
        } else {
            run.file(kind, path, open(path)?)?;
        }
    }
    Ok(run.sink.report)
}

/// Imports one stream of documents, as [`import`] does with standard input; `name` stands in errors.
///
/// # Errors
/// As [`import`].
pub fn import_reader(
    store: &Store,
    name: &Path,
    reader: impl Read,
    options: &ImportOptions,
    progress: &mut dyn FnMut(Progress),
) -> Result<ImportReport, Error> {
    let mut run = Run::new(store, options, None, progress);
    run.file(&plan::standard_input(options), name, reader)?;
    Ok(run.sink.report)
}

struct Run<'run> {
    sink: Sink<'run>,
    counter: Counter,
    total: Option<u64>,
    progress: &'run mut dyn FnMut(Progress),
}

impl<'run> Run<'run> {
    fn new(
        store: &'run Store,
        options: &ImportOptions,
        total: Option<u64>,
        progress: &'run mut dyn FnMut(Progress),
    ) -> Self {
        Self { sink: Sink::new(store, options), counter: Counter::default(), total, progress }
    }

    fn file(&mut self, kind: &Kind, path: &Path, reader: impl Read) -> Result<(), Error> {
        let mut lines = Lines::new(path, reader, self.counter.clone())?;
        while let Some((number, line)) = lines.next()? {
            let size = line.as_ref().map_or(0, |line| line.len());
            let record = line.and_then(|line| kind.parse(line, number));
            if self.sink.take(path, number, size, record)? {
                self.flush(path)?;
            }
        }
        self.flush(path)
    }

    fn flush(&mut self, path: &Path) -> Result<(), Error> {
        self.sink.flush(path)?;
        let records = self.sink.records();
        (self.progress)(Progress { bytes_read: self.counter.get(), bytes_total: self.total, records });
        Ok(())
    }
}

fn open(path: &Path) -> Result<File, Error> {
    File::open(path).map_err(|source| Error::File { path: path.to_path_buf(), source })
}

/// Bytes of all files; none where one is a stream.
fn total(inputs: &[Input]) -> Option<u64> {
    let size = |input: &Input| {
        let is_stream = input.path.as_os_str() == plan::STANDARD_INPUT;
        let metadata = (!is_stream).then(|| fs::metadata(&input.path).ok()).flatten()?;
        metadata.is_file().then_some(metadata.len())
    };
    inputs.iter().map(size).sum()
}

/// The first line of a file, empty where it cannot be read as text.
fn first_line(path: &Path) -> Result<String, Error> {
    let mut lines = Lines::new(path, open(path)?, Counter::default())?;
    Ok(match lines.next()? {
        Some((_, Ok(line))) => line.to_owned(),
        _ => String::new(),
    })
}
