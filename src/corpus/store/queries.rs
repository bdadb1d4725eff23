//! Queries and judgments.

use heed::{RoTxn, RwTxn};
use serde::Serialize;

use super::feedback::text_row;
use super::{Store, damaged, number, text};
use crate::corpus::document::{ID_BYTES, id_rule, shortened};
use crate::corpus::{Error, Judgment, Query, Source, Split};

/// A query and its judgments.
pub(super) type Judged = (Query, Vec<Judgment>);

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
        let number = u64::from_be_bytes(key);
        match self.tables.queries.get(transaction, &key)? {
            Some(old) if old == json => return Ok(false),
            Some(_) => {
                let old = self.numbered_query(transaction, number)?;
                self.tables.query_texts.delete(transaction, &text_row(&old.text, number))?;
            }
            None => {}
        }
        self.tables.queries.put(transaction, &key, json)?;
        self.tables.query_texts.put(transaction, &text_row(&query.text, number), &[])?;
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
        let key = judgment_key(judgment.split, query, &judgment.document);
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

    /// The query with this id, from a file or from feedback.
    ///
    /// # Errors
    /// The store cannot be read.
    pub fn query(&self, id: &str) -> Result<Option<Query>, Error> {
        self.read("read a query", |transaction| match self.number_of(transaction, id)? {
            Some(number) => self.numbered_query(transaction, number).map(Some),
            None => self.query_of_feedback(transaction, id),
        })
    }

    /// How many queries files brought.
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

    /// The queries that have at least one judgment in a split, each with these judgments, ordered by id. Those of files
    /// and those of [`Feedback`](crate::corpus::Feedback) come together.
    ///
    /// # Errors
    /// The store cannot be read.
    pub fn judged_queries(&self, split: Split) -> Result<Vec<(Query, Vec<Judgment>)>, Error> {
        self.read("read judgments", |transaction| self.judged(transaction, split))
    }

    pub(super) fn judged(&self, transaction: &RoTxn<'_>, split: Split) -> Result<Vec<Judged>, heed::Error> {
        let mut judged = self.judged_by_files(transaction, split)?;
        let of_files = judged.len();
        for (number, (query, judgments)) in self.judged_by_feedback(transaction, split)? {
            let place = number.and_then(|number| {
                judged.get(..of_files)?.binary_search_by_key(&number, |(number, _, _)| *number).ok()
            });
            match place.and_then(|place| judged.get_mut(place)) {
                Some((_, _, others)) => {
                    others.extend(judgments);
                    others.sort_by(|left, right| left.document.cmp(&right.document));
                }
                None => judged.push((0, query, judgments)),
            }
        }
        judged.sort_by(|(_, left, _), (_, right, _)| left.id.cmp(&right.id));
        Ok(judged.into_iter().map(|(_, query, judgments)| (query, judgments)).collect())
    }

    /// Ordered by the queries' numbers, then by the documents' ids.
    fn judged_by_files(
        &self,
        transaction: &RoTxn<'_>,
        split: Split,
    ) -> Result<Vec<(u64, Query, Vec<Judgment>)>, heed::Error> {
        let mut judged: Vec<(u64, Query, Vec<Judgment>)> = Vec::new();
        for entry in self.tables.judgments.prefix_iter(transaction, &[split_tag(split)])? {
            let (key, value) = entry?;
            let (number, document) = number(key.get(1..).unwrap_or_default())?;
            if judged.last().is_none_or(|(last, _, _)| *last != number) {
                judged.push((number, self.numbered_query(transaction, number)?, Vec::new()));
            }
            if let Some((_, query, judgments)) = judged.last_mut() {
                let (grade, source) = grade_and_source(value)?;
                judgments.push(Judgment { query: query.id.clone(), document: text(document)?, grade, split, source });
            }
        }
        Ok(judged)
    }

    pub(super) fn is_judged_by_files(
        &self,
        transaction: &RoTxn<'_>,
        split: Split,
        number: u64,
    ) -> Result<bool, heed::Error> {
        let prefix = judgment_key(split, number, "");
        Ok(self.tables.judgments.prefix_iter(transaction, &prefix)?.next().transpose()?.is_some())
    }

    pub(super) fn grade_by_files(
        &self,
        transaction: &RoTxn<'_>,
        split: Split,
        number: u64,
        document: &str,
    ) -> Result<Option<i32>, heed::Error> {
        let value = self.tables.judgments.get(transaction, &judgment_key(split, number, document))?;
        Ok(value.map(grade_and_source).transpose()?.map(|(grade, _)| grade))
    }

    /// How many judgments each split has.
    ///
    /// # Errors
    /// The store cannot be read.
    pub fn judgment_counts(&self) -> Result<JudgmentCounts, Error> {
        self.read("count judgments", |transaction| {
            let count = |split| -> Result<u64, heed::Error> {
                let mut entries = self.tables.judgments.prefix_iter(transaction, &[split_tag(split)])?;
                let of_files = entries.try_fold(0, |count, entry| entry.map(|_| count + 1))?;
                let of_feedback = self.judged_by_feedback(transaction, split)?;
                Ok(of_files + of_feedback.iter().map(|(_, (_, judgments))| judgments.len() as u64).sum::<u64>())
            };
            Ok(JudgmentCounts { train: count(Split::Train)?, dev: count(Split::Dev)?, test: count(Split::Test)? })
        })
    }

    /// Up to `count` queries that files judge in a split, evenly spaced over their ids; the same ones every time. None
    /// from feedback: what somebody asked is not for everybody to read.
    ///
    /// # Errors
    /// The store cannot be read.
    pub fn sample_queries(&self, split: Split, count: usize) -> Result<Vec<Query>, Error> {
        let mut judged = self.read("read queries", |transaction| self.judged_by_files(transaction, split))?;
        judged.sort_by(|(_, left, _), (_, right, _)| left.id.cmp(&right.id));
        let wanted = count.min(judged.len());
        let position = |number: usize| number * judged.len() / wanted.max(1);
        Ok((0..wanted).filter_map(|number| Some(judged.get(position(number))?.1.clone())).collect())
    }

    pub(super) fn number_of(&self, transaction: &RoTxn<'_>, id: &str) -> Result<Option<u64>, heed::Error> {
        if id_rule(id).is_some() {
            return Ok(None);
        }
        let value = self.tables.query_ids.get(transaction, id.as_bytes())?;
        value.map(|value| number(value).map(|(number, _)| number)).transpose()
    }

    pub(super) fn numbered_query(&self, transaction: &RoTxn<'_>, number: u64) -> Result<Query, heed::Error> {
        let json = self.tables.queries.get(transaction, &number.to_be_bytes())?;
        let json = json.ok_or_else(|| damaged(format!("query {number} is missing")))?;
        serde_json::from_slice(json).map_err(|error| damaged(format!("query {number}: {error}")))
    }
}

// Split, number and document id make up a key of at most 511 bytes, the most that LMDB takes.
const _: () = assert!(1 + 8 + ID_BYTES <= 511);

fn judgment_key(split: Split, number: u64, document: &str) -> Vec<u8> {
    [&[split_tag(split)], &number.to_be_bytes()[..], document.as_bytes()].concat()
}

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

pub(super) fn grade_and_source(value: &[u8]) -> Result<(i32, Source), heed::Error> {
    match value.split_first_chunk() {
        Some((grade, [0])) => Ok((i32::from_be_bytes(*grade), Source::File)),
        Some((grade, [1])) => Ok((i32::from_be_bytes(*grade), Source::Feedback)),
        _ => Err(damaged("a judgment is damaged")),
    }
}
