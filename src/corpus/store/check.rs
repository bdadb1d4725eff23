//! Whether the tables of a store agree with each other.

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};

use heed::{RoTxn, WithoutTls};
use roaring::RoaringTreemap;
use serde::Serialize;

use super::documents::change;
use super::feedback::{feedback_query, feedback_text_row, text_row};
use super::queries::grade_and_source;
use super::{Operation, Store, number, stored, text};
use crate::corpus::{Error, Query, feedback, metadata};

/// Findings of one kind that are told one by one.
const TOLD: u64 = 5;

type Reader<'txn> = RoTxn<'txn, WithoutTls>;
type Checked = Result<(), heed::Error>;

/// What a store holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub struct StoreContents {
    /// Current documents.
    pub documents: u64,
    /// Entries of the log.
    pub writes: u64,
    /// Queries of files.
    pub queries: u64,
    /// Judgments of files.
    pub judgments: u64,
    /// Those of them whose document is not in the corpus: that is allowed, it may come later or be gone.
    pub judgments_without_document: u64,
    /// Queries of feedback.
    pub feedback: u64,
    /// Job records.
    pub jobs: u64,
}

/// What [`Store::check`] found.
#[derive(Debug, Clone, Default)]
pub struct StoreCheck {
    /// What is there.
    pub contents: StoreContents,
    /// The sequences of the current documents.
    pub current: RoaringTreemap,
    /// What does not fit together, for people.
    pub findings: Vec<String>,
    counts: BTreeMap<&'static str, u64>,
}

impl StoreCheck {
    /// Notes a finding; of many of one kind only the first are told one by one.
    fn note(&mut self, kind: &'static str, what: impl std::fmt::Display) {
        let count = self.counts.entry(kind).or_default();
        *count += 1;
        if *count <= TOLD {
            self.findings.push(format!("{kind}: {what}"));
        }
    }

    fn finish(mut self) -> Self {
        let many = self.counts.iter().filter(|(_, count)| **count > TOLD);
        self.findings.extend(many.map(|(kind, count)| format!("{kind}: {} more", count - TOLD)));
        self
    }
}

/// Entries of a table in any order, as a number that two equal sets share.
#[derive(Debug, Default, PartialEq, Eq)]
struct Entries {
    count: u64,
    sum: u64,
}

impl Entries {
    fn add(&mut self, key: &[u8], value: &[u8]) {
        let mut hasher = DefaultHasher::new();
        (key, value).hash(&mut hasher);
        self.count += 1;
        self.sum = self.sum.wrapping_add(hasher.finish());
    }
}

impl Store {
    /// Walks every table, as they are at one moment, and looks whether they agree: the log with the documents, these with
    /// their ids and postings, judgments with their queries.
    ///
    /// # Errors
    /// A store that cannot be read to its end.
    pub fn check(&self) -> Result<StoreCheck, Error> {
        self.read("check the store", |transaction| {
            let mut check = StoreCheck::default();
            self.check_documents(transaction, &mut check)?;
            self.check_log(transaction, &mut check)?;
            self.check_queries(transaction, &mut check)?;
            self.check_feedback(transaction, &mut check)?;
            for entry in self.tables.jobs.iter(transaction)? {
                let (id, record) = entry?;
                check.contents.jobs += 1;
                if let Err(error) = serde_json::from_slice::<serde_json::Value>(record) {
                    check.note("jobs", format_args!("{}: {error}", String::from_utf8_lossy(id)));
                }
            }
            Ok(check.finish())
        })
    }

    fn check_documents(&self, transaction: &Reader<'_>, check: &mut StoreCheck) -> Checked {
        let mut expected = Entries::default();
        for entry in self.tables.documents.iter(transaction)? {
            let (key, json) = entry?;
            let (sequence, _) = number(key)?;
            check.current.insert(sequence);
            let document = match stored(sequence, json) {
                Ok(stored) => stored.document,
                Err(error) => {
                    check.note("documents", error);
                    continue;
                }
            };
            expected.add(metadata::EVERY_DOCUMENT, key);
            metadata::keys(&document.metadata).iter().for_each(|posting| expected.add(posting, key));
            if self.sequence_of(transaction, &document.id)? != Some(sequence) {
                check.note("ids", format_args!("document {} is not found by its id", document.id));
            }
            let logged = self.tables.log.get(transaction, key)?.map(|value| change(key, value));
            if !matches!(&logged, Some(Ok(entry)) if entry.id == document.id) {
                check.note("log", format_args!("write {sequence} is not that of document {}", document.id));
            }
        }
        check.contents.documents = check.current.len();
        let ids = self.tables.ids.len(transaction)?;
        if ids != check.contents.documents {
            let documents = check.contents.documents;
            check.note("ids", format_args!("{ids} ids of {documents} documents"));
        }
        let mut found = Entries::default();
        for entry in self.tables.postings.iter(transaction)? {
            let (posting, key) = entry?;
            found.add(posting, key);
        }
        if found != expected {
            let (found, wanted) = (found.count, expected.count);
            let told = format!("{found} entries, which are not the {wanted} of the documents: filters miss some");
            check.note("postings", told);
        }
        Ok(())
    }

    /// Plays the log: what it leaves are the documents.
    fn check_log(&self, transaction: &Reader<'_>, check: &mut StoreCheck) -> Checked {
        let mut alive = RoaringTreemap::new();
        for entry in self.tables.log.iter(transaction)? {
            let (key, value) = entry?;
            check.contents.writes += 1;
            let entry = match change(key, value) {
                Ok(entry) => entry,
                Err(error) => {
                    check.note("log", error);
                    continue;
                }
            };
            if entry.sequence != check.contents.writes {
                let place = check.contents.writes;
                check.note("log", format_args!("entry {} stands at place {place}", entry.sequence));
            }
            let (written, gone) = match entry.operation {
                Operation::Write { replaced } => (Some(entry.sequence), replaced),
                Operation::Delete { removed } => (None, Some(removed)),
            };
            if let Some(gone) = gone.filter(|gone| !alive.remove(*gone)) {
                check.note("log", format_args!("write {} takes away {gone}, which was not there", entry.sequence));
            }
            alive.extend(written);
        }
        for sequence in &alive - &check.current {
            check.note("documents", format_args!("that of write {sequence} is missing"));
        }
        for sequence in &check.current - &alive {
            check.note("documents", format_args!("that of write {sequence} is none that the log leaves"));
        }
        Ok(())
    }

    fn check_queries(&self, transaction: &Reader<'_>, check: &mut StoreCheck) -> Checked {
        let mut numbers = RoaringTreemap::new();
        for entry in self.tables.queries.iter(transaction)? {
            let (key, json) = entry?;
            let (place, _) = number(key)?;
            numbers.insert(place);
            let query: Query = match serde_json::from_slice(json) {
                Ok(query) => query,
                Err(error) => {
                    check.note("queries", format_args!("query {place}: {error}"));
                    continue;
                }
            };
            if self.number_of(transaction, &query.id)? != Some(place) {
                check.note("queries", format_args!("query {} is not found by its id", query.id));
            }
            if self.tables.query_texts.get(transaction, &text_row(&query.text, place))?.is_none() {
                check.note("queries", format_args!("query {} is not found by its text", query.id));
            }
        }
        check.contents.queries = numbers.len();
        for (what, count) in
            [("ids", self.tables.query_ids.len(transaction)?), ("texts", self.tables.query_texts.len(transaction)?)]
        {
            if count != numbers.len() {
                check.note("queries", format_args!("{count} {what} of {} queries", numbers.len()));
            }
        }
        for entry in self.tables.judgments.iter(transaction)? {
            let (key, value) = entry?;
            check.contents.judgments += 1;
            let (query, document) = number(key.get(1..).unwrap_or_default())?;
            if let Err(error) = grade_and_source(value) {
                check.note("judgments", format_args!("of query {query}: {error}"));
            }
            if !numbers.contains(query) || key.first().is_none_or(|split| *split > 2) {
                check.note("judgments", format_args!("one is of query {query}, which is not there"));
            }
            let is_known = self.tables.ids.get(transaction, document)?.is_some();
            check.contents.judgments_without_document += u64::from(!is_known);
        }
        Ok(())
    }

    fn check_feedback(&self, transaction: &Reader<'_>, check: &mut StoreCheck) -> Checked {
        for entry in self.tables.feedback.iter(transaction)? {
            let (key, json) = entry?;
            check.contents.feedback += 1;
            let query = key.try_into().ok().map(|key| feedback_query(key, json));
            match query {
                Some(Ok(query)) if feedback::key(&query.text)[..] == *key => {
                    let row = feedback_text_row(&query.text, feedback::key(&query.text));
                    if self.tables.feedback_texts.get(transaction, &row)?.is_none() {
                        check.note("feedback", format_args!("query {:?} is not found by its text", query.text));
                    }
                }
                Some(Err(error)) => check.note("feedback", error),
                _ => check.note("feedback", "the key of a query is not that of its text"),
            }
        }
        let (texts, queries) = (self.tables.feedback_texts.len(transaction)?, check.contents.feedback);
        if texts != queries {
            check.note("feedback", format_args!("{texts} texts of {queries} queries"));
        }
        for entry in self.tables.votes.iter(transaction)? {
            let (row, _) = entry?;
            let (key, document) = row.split_at_checked(8).unwrap_or((row, &[]));
            if key.is_empty() || self.tables.feedback.get(transaction, key)?.is_none() {
                check.note("feedback", "votes without their query");
            }
            if let Err(error) = text(document) {
                check.note("feedback", error);
            }
        }
        Ok(())
    }
}
