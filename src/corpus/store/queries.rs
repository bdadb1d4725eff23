//! Queries and judgments.

use heed::{RoTxn, RwTxn, WithoutTls};
use serde::Serialize;

use super::{Store, damaged, number, text};
use crate::corpus::document::{ID_BYTES, id_rule, shortened};
use crate::corpus::{Error, Judgment, Query, Source, Split};

type Reader<'txn> = RoTxn<'txn, WithoutTls>;

/// What [`Store::write_judgments`] did with one judgment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum JudgmentOutcome {
    /// It is new, or its grade or source replaced an earlier one.
    Written,
    /// It was there already.
    Unchanged,
    /// Stored, but the corpus holds no document of this id (yet): it counts as relevant and never found.
    UnknownDocument,
    /// Left out: there is no query of this id, or an id is not 1 to 500 bytes long.
    UnknownQuery,
}

/// How many judgments each split has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub struct JudgmentCounts {
    /// Trained on.
    pub train: u64,
    /// Measured between rounds.
    pub dev: u64,
    /// Measured at the end.
    pub test: u64,
}

impl Store {
    /// Writes queries, all in one transaction; a query with the id of another replaces it. Returns how many changed.
    ///
    /// # Errors
    /// An id that is not 1 to 500 bytes long, a full disk, or a store that cannot be written; nothing is kept then.
    pub fn write_queries(&self, queries: &[Query]) -> Result<usize, Error> {
        let operation = "write queries";
        if let Some((query, rule)) = queries.iter().find_map(|query| Some((query, id_rule(&query.id)?))) {
            return Err(Error::Query { id: shortened(&query.id), rule });
        }
        self.change(operation, |transaction| {
            let mut changed = 0;
            for query in queries {
                let json = serde_json::to_vec(query).map_err(|error| heed::Error::Encoding(error.into()))?;
                changed += usize::from(self.put_query(transaction, query, &json)?);
            }
            Ok(changed)
        })
    }

    fn put_query(&self, transaction: &mut RwTxn<'_>, query: &Query, json: &[u8]) -> Result<bool, heed::Error> {
        let key = match self.number_of(transaction, &query.id)? {
            Some(number) => number.to_be_bytes(),
            None => {
                let last = self.tables.queries.last(transaction)?.map(|(key, _)| number(key)).transpose()?;
                let key = last.map_or(1, |(last, _)| last + 1).to_be_bytes();
                self.tables.query_ids.put(transaction, query.id.as_bytes(), &key)?;
                key
            }
        };
        if self.tables.queries.get(transaction, &key)? == Some(json) {
            return Ok(false);
        }
        self.tables.queries.put(transaction, &key, json)?;
        Ok(true)
    }

    /// Writes judgments, all in one transaction; one for the same query, document and split as another replaces it.
    /// There is one outcome a judgment, in order.
    ///
    /// # Errors
    /// A full disk, or a store that cannot be written; nothing is kept then.
    pub fn write_judgments(&self, judgments: &[Judgment]) -> Result<Vec<JudgmentOutcome>, Error> {
        self.change("write judgments", |transaction| {
            judgments.iter().map(|judgment| self.put_judgment(transaction, judgment)).collect()
        })
    }

    fn put_judgment(&self, transaction: &mut RwTxn<'_>, judgment: &Judgment) -> Result<JudgmentOutcome, heed::Error> {
        let Some(query) = self.number_of(transaction, &judgment.query)? else {
            return Ok(JudgmentOutcome::UnknownQuery);
        };
        if id_rule(&judgment.document).is_some() {
            return Ok(JudgmentOutcome::UnknownQuery);
        }
        let key = [&[split_tag(judgment.split)], &query.to_be_bytes()[..], judgment.document.as_bytes()].concat();
        let value = [&judgment.grade.to_be_bytes()[..], &[source_tag(judgment.source)]].concat();
        let is_new = self.tables.judgments.get(transaction, &key)? != Some(&value[..]);
        if is_new {
            self.tables.judgments.put(transaction, &key, &value)?;
        }
        let is_known = self.tables.ids.get(transaction, judgment.document.as_bytes())?.is_some();
        Ok(match (is_known, is_new) {
            (false, _) => JudgmentOutcome::UnknownDocument,
            (true, true) => JudgmentOutcome::Written,
            (true, false) => JudgmentOutcome::Unchanged,
        })
    }

    /// The query with this id.
    ///
    /// # Errors
    /// The store cannot be read.
    pub fn query(&self, id: &str) -> Result<Option<Query>, Error> {
        self.read("read a query", |transaction| match self.number_of(transaction, id)? {
            Some(number) => self.numbered_query(transaction, number).map(Some),
            None => Ok(None),
        })
    }

    /// How many queries there are.
    ///
    /// # Errors
    /// The store cannot be read.
    pub fn query_count(&self) -> Result<u64, Error> {
        self.read("count queries", |transaction| self.tables.queries.len(transaction))
    }

    /// All judgments of a split, ordered by the ids of query and document.
    ///
    /// # Errors
    /// The store cannot be read.
    pub fn judgments(&self, split: Split) -> Result<Vec<Judgment>, Error> {
        Ok(self.judged_queries(split)?.into_iter().flat_map(|(_, judgments)| judgments).collect())
    }

    /// The queries that have at least one judgment in a split, each with these judgments, ordered by id.
    ///
    /// # Errors
    /// The store cannot be read.
    pub fn judged_queries(&self, split: Split) -> Result<Vec<(Query, Vec<Judgment>)>, Error> {
        self.read("read judgments", |transaction| {
            let mut judged: Vec<(u64, Query, Vec<Judgment>)> = Vec::new();
            for entry in self.tables.judgments.prefix_iter(transaction, &[split_tag(split)])? {
                let (key, value) = entry?;
                let (number, document) = number(key.get(1..).unwrap_or_default())?;
                if judged.last().is_none_or(|(last, _, _)| *last != number) {
                    judged.push((number, self.numbered_query(transaction, number)?, Vec::new()));
                }
                if let Some((_, query, judgments)) = judged.last_mut() {
                    let (grade, source) = grade_and_source(value)?;
                    judgments.push(Judgment {
                        query: query.id.clone(),
                        document: text(document)?,
                        grade,
                        split,
                        source,
                    });
                }
            }
            judged.sort_by(|(_, left, _), (_, right, _)| left.id.cmp(&right.id));
            Ok(judged.into_iter().map(|(_, query, judgments)| (query, judgments)).collect())
        })
    }

    /// How many judgments each split has.
    ///
    /// # Errors
    /// The store cannot be read.
    pub fn judgment_counts(&self) -> Result<JudgmentCounts, Error> {
        self.read("count judgments", |transaction| {
            let count = |split| {
                let mut entries = self.tables.judgments.prefix_iter(transaction, &[split_tag(split)])?;
                entries.try_fold(0, |count, entry| entry.map(|_| count + 1))
            };
            Ok(JudgmentCounts { train: count(Split::Train)?, dev: count(Split::Dev)?, test: count(Split::Test)? })
        })
    }

    /// Up to `count` judged queries of a split, evenly spaced over their ids; the same ones every time.
    ///
    /// # Errors
    /// The store cannot be read.
    pub fn sample_queries(&self, split: Split, count: usize) -> Result<Vec<Query>, Error> {
        let judged = self.judged_queries(split)?;
        let wanted = count.min(judged.len());
        let position = |number: usize| number * judged.len() / wanted.max(1);
        Ok((0..wanted).filter_map(|number| Some(judged.get(position(number))?.0.clone())).collect())
    }

    fn number_of(&self, transaction: &RoTxn<'_>, id: &str) -> Result<Option<u64>, heed::Error> {
        if id_rule(id).is_some() {
            return Ok(None);
        }
        let value = self.tables.query_ids.get(transaction, id.as_bytes())?;
        value.map(|value| number(value).map(|(number, _)| number)).transpose()
    }

    fn numbered_query(&self, transaction: &Reader<'_>, number: u64) -> Result<Query, heed::Error> {
        let json = self.tables.queries.get(transaction, &number.to_be_bytes())?;
        let json = json.ok_or_else(|| damaged(format!("query {number} is missing")))?;
        serde_json::from_slice(json).map_err(|error| damaged(format!("query {number}: {error}")))
    }
}

// Split, number and document id make up a key of at most 511 bytes, the most that LMDB takes.
const _: () = assert!(1 + 8 + ID_BYTES <= 511);

fn split_tag(split: Split) -> u8 {
    match split {
        Split::Train => 0,
        Split::Dev => 1,
        Split::Test => 2,
    }
}

fn source_tag(source: Source) -> u8 {
    match source {
        Source::File => 0,
        Source::Feedback => 1,
    }
}

fn grade_and_source(value: &[u8]) -> Result<(i32, Source), heed::Error> {
    match value.split_first_chunk() {
        Some((grade, [0])) => Ok((i32::from_be_bytes(*grade), Source::File)),
        Some((grade, [1])) => Ok((i32::from_be_bytes(*grade), Source::Feedback)),
        _ => Err(damaged("a judgment is damaged")),
    }
}
