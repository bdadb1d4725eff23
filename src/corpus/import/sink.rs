//! Records on their way into the store, some thousand a transaction.

use std::path::Path;

use super::record::Record;
use super::{ImportOptions, ImportReport};
use crate::corpus::document::{id_rule, shortened};
use crate::corpus::{BadLine, Document, Error, Judgment, JudgmentOutcome, Query, Store};

/// Records of one transaction.
const BATCH_RECORDS: usize = 1000;
/// Bytes of one transaction, so that long documents do not pile up in memory.
const BATCH_BYTES: usize = 8 << 20;
/// Messages that the report keeps.
const KEPT_ERRORS: usize = 10;

/// Gathers records and writes them; counts what happened.
pub(super) struct Sink<'store> {
    store: &'store Store,
    skip_bad: bool,
    pub(super) report: ImportReport,
    documents: Vec<Document>,
    queries: Vec<Query>,
    judgments: Vec<(Judgment, u64)>,
    bytes: usize,
}

impl<'store> Sink<'store> {
    pub(super) fn new(store: &'store Store, options: &ImportOptions) -> Self {
        Self {
            store,
            skip_bad: options.skip_bad,
            report: ImportReport::default(),
            documents: Vec::new(),
            queries: Vec::new(),
            judgments: Vec::new(),
            bytes: 0,
        }
    }

    /// Takes what a line of `size` bytes gave; returns whether a batch is full and must be flushed.
    pub(super) fn take(
        &mut self,
        path: &Path,
        line: u64,
        size: usize,
        record: Result<Record, String>,
    ) -> Result<bool, Error> {
        match record.and_then(checked) {
            Ok(Record::None) => return Ok(false),
            Ok(Record::Document(document)) => self.documents.push(document),
            Ok(Record::Query(query)) => self.queries.push(query),
            Ok(Record::Judgment(judgment)) => self.judgments.push((judgment, line)),
            Err(reason) => self.bad(BadLine { path: path.to_path_buf(), line, reason })?,
        }
        self.bytes += size;
        let records = self.documents.len() + self.queries.len() + self.judgments.len();
        Ok(records >= BATCH_RECORDS || self.bytes >= BATCH_BYTES)
    }

    fn bad(&mut self, line: BadLine) -> Result<(), Error> {
        if !self.skip_bad {
            // What came before the line was good and stays.
            self.flush(&line.path.clone())?;
            return Err(line.into());
        }
        self.report.skipped += 1;
        self.keep(line.to_string());
        Ok(())
    }

    fn keep(&mut self, message: String) {
        if self.report.first_errors.len() < KEPT_ERRORS {
            self.report.first_errors.push(message);
        }
    }

    /// Writes what was gathered from this file.
    pub(super) fn flush(&mut self, path: &Path) -> Result<(), Error> {
        self.bytes = 0;
        if !self.documents.is_empty() {
            let outcomes = self.store.write(&self.documents)?;
            self.report.documents += self.documents.len() as u64;
            self.report.unchanged += outcomes.iter().filter(|outcome| !outcome.changed).count() as u64;
            self.documents.clear();
        }
        if !self.queries.is_empty() {
            self.store.write_queries(&self.queries)?;
            self.report.queries += self.queries.len() as u64;
            self.queries.clear();
        }
        self.flush_judgments(path)
    }

    fn flush_judgments(&mut self, path: &Path) -> Result<(), Error> {
        let (judgments, lines): (Vec<Judgment>, Vec<u64>) = self.judgments.drain(..).unzip();
        if judgments.is_empty() {
            return Ok(());
        }
        let outcomes = self.store.write_judgments(&judgments)?;
        for ((judgment, line), outcome) in judgments.iter().zip(lines).zip(outcomes) {
            let unknown = match outcome {
                JudgmentOutcome::Written | JudgmentOutcome::Unchanged => None,
                JudgmentOutcome::UnknownDocument => Some(("document", &judgment.document)),
                JudgmentOutcome::UnknownQuery => Some(("query", &judgment.query)),
            };
            self.report.judgments += u64::from(outcome != JudgmentOutcome::UnknownQuery);
            if let Some((what, id)) = unknown {
                self.report.unknown_judgments += 1;
                self.keep(format!("{}, line {line}: there is no {what} `{}`", path.display(), shortened(id)));
            }
        }
        Ok(())
    }

    /// Records taken so far, the bad ones included.
    pub(super) fn records(&self) -> u64 {
        self.report.documents + self.report.queries + self.report.judgments + self.report.skipped
    }
}

fn checked(record: Record) -> Result<Record, String> {
    match &record {
        Record::Document(document) => document.check().map_err(|error| error.rule.to_owned())?,
        Record::Query(query) => id_rule(&query.id).map_or(Ok(()), |rule| Err(rule.to_owned()))?,
        Record::Judgment(_) | Record::None => {}
    }
    Ok(record)
}
