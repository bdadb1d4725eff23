//! Feedback: votes, and the judgments that they add up to.

use std::collections::HashSet;

use heed::{RoTxn, RwTxn};
use serde::Serialize;

use super::queries::Judged;
use super::{Store, damaged, number, text};
use crate::corpus::document::shortened;
use crate::corpus::feedback::{self, FeedbackQuery, Key, LooseKey};
use crate::corpus::{Error, Feedback, FeedbackOutcome, Judgment, Query, Source, Split};

const OPEN: &str = "open";

/// How many queries have a relevant document that is in the corpus.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub struct AnsweredQueries {
    /// Of those trained on.
    pub train: u64,
    /// Of those measured between rounds.
    pub dev: u64,
}

impl AnsweredQueries {
    /// Fewer than these, and a training would learn next to nothing, or its gate would be a toss.
    pub const LEAST: Self = Self { train: 32, dev: 8 };

    /// What is missing to `least`, for people; none where there is enough.
    pub fn missing(self, least: Self) -> Option<String> {
        let wanted = [("train", self.train, least.train), ("dev", self.dev, least.dev)];
        let short = wanted.iter().filter(|(_, count, least)| count < least);
        let short: Vec<String> = short
            .map(|(split, count, least)| {
                let queries = if *count == 1 { "query" } else { "queries" };
                format!("{count} {split} {queries} with a positive, at least {least} are needed")
            })
            .collect();
        (!short.is_empty()).then(|| format!("{}: send feedback or import judgments", short.join("; ")))
    }
}

/// Where the judgments of a feedback query belong.
#[derive(Debug, PartialEq, Eq)]
enum Place {
    /// To a query of its own.
    Own(Split),
    /// To the query with this number, which files judge in train.
    Joined(u64),
    /// Nowhere: files measure on it.
    Held,
}

impl Store {
    /// Counts a vote; when it returns the vote is on the disk. None where there is no document with this id.
    /// [`Feedback`] says what votes add up to; `dev_share` (0 to 1) of the queries are kept aside for dev.
    ///
    /// # Errors
    /// A query without text, a full disk, or a store that cannot be written; nothing is kept then.
    pub fn write_feedback(&self, feedback: &Feedback, dev_share: f64) -> Result<Option<FeedbackOutcome>, Error> {
        let text = feedback::folded(&feedback.query);
        let refused = |rule| Error::Query { id: shortened(&text), rule };
        if text.is_empty() {
            return Err(refused("its text is empty"));
        }
        let key = feedback::key(&text);
        let written = self.change("write feedback", |transaction| {
            if self.sequence_of(transaction, &feedback.document)?.is_none() {
                return Ok(Some(None));
            }
            let query = match self.feedback_query(transaction, key)? {
                Some(query) if query.text != text => return Ok(None),
                Some(query) => query,
                None => self.put_feedback_query(transaction, key, &text, dev_share)?,
            };
            let row = [&key[..], feedback.document.as_bytes()].concat();
            let votes = self.tables.votes.get(transaction, &row)?.unwrap_or_default();
            let votes = feedback::voted(votes, feedback);
            self.tables.votes.put(transaction, &row, &votes)?;
            self.outcome(transaction, key, &query, &feedback.document, &votes).map(|outcome| Some(Some(outcome)))
        })?;
        written.ok_or_else(|| refused("another text has the same id; word it differently"))
    }

    fn put_feedback_query(
        &self,
        transaction: &mut RwTxn<'_>,
        key: Key,
        text: &str,
        dev_share: f64,
    ) -> Result<FeedbackQuery, heed::Error> {
        let split = match self.split_of_alike(transaction, text)? {
            Some(split) => split,
            None => feedback::drawn_split(text, dev_share),
        };
        let query = FeedbackQuery { text: text.to_owned(), split };
        self.keep_feedback_query(transaction, key, &query)?;
        Ok(query)
    }

    fn keep_feedback_query(
        &self,
        transaction: &mut RwTxn<'_>,
        key: Key,
        query: &FeedbackQuery,
    ) -> Result<(), heed::Error> {
        let json = serde_json::to_vec(query).map_err(|error| heed::Error::Encoding(error.into()))?;
        self.tables.feedback.put(transaction, &key, &json)?;
        self.tables.feedback_texts.put(transaction, &feedback_text_row(&query.text, key), &[])
    }

    /// The split of a query that feedback brought before with a text that differs in case only: the share of dev may have
    /// been another then.
    fn split_of_alike(&self, transaction: &RoTxn<'_>, text: &str) -> Result<Option<Split>, heed::Error> {
        let loose = feedback::loose_key(text);
        let Some(row) = self.tables.feedback_texts.prefix_iter(transaction, &loose)?.next() else { return Ok(None) };
        let key = row?.0.get(loose.len()..).and_then(|key| key.try_into().ok());
        let key: Key = key.ok_or_else(|| damaged("the key of a feedback query's text is damaged"))?;
        Ok(self.feedback_query(transaction, key)?.map(|query| query.split))
    }

    fn outcome(
        &self,
        transaction: &RoTxn<'_>,
        key: Key,
        query: &FeedbackQuery,
        document: &str,
        votes: &[u8],
    ) -> Result<FeedbackOutcome, heed::Error> {
        let votes_grade = feedback::grade(votes);
        let own = feedback::id(key);
        let (query, split, grade) = match self.place(transaction, key, query)? {
            Place::Held => (own, None, None),
            Place::Own(split) => (own, Some(split), votes_grade),
            Place::Joined(number) => {
                let of_file = self.grade_by_files(transaction, Split::Train, number, document)?;
                let query = self.numbered_query(transaction, number)?;
                (query.id, Some(Split::Train), of_file.or(votes_grade))
            }
        };
        Ok(FeedbackOutcome { query, split, grade, votes: feedback::counts(votes) })
    }

    /// What files say of a feedback query's text, now.
    fn place(&self, transaction: &RoTxn<'_>, key: Key, query: &FeedbackQuery) -> Result<Place, heed::Error> {
        if let Some(number) = self.number_of(transaction, &feedback::id(key))?
            && feedback::folded(&self.numbered_query(transaction, number)?.text) != query.text
        {
            // A file gave this id to another text.
            return Ok(Place::Held);
        }
        let mut place = Place::Own(query.split);
        for entry in self.tables.query_texts.prefix_iter(transaction, &feedback::loose_key(&query.text))? {
            let (_, number) = loose_entry(entry?.0)?;
            for measured in [Split::Dev, Split::Test] {
                if self.is_judged_by_files(transaction, measured, number)? {
                    return Ok(Place::Held);
                }
            }
            if matches!(place, Place::Joined(_)) || !self.is_judged_by_files(transaction, Split::Train, number)? {
                continue;
            }
            let is_same = feedback::folded(&self.numbered_query(transaction, number)?.text) == query.text;
            place = if is_same { Place::Joined(number) } else { Place::Own(Split::Train) };
        }
        Ok(place)
    }

    fn feedback_query(&self, transaction: &RoTxn<'_>, key: Key) -> Result<Option<FeedbackQuery>, heed::Error> {
        self.tables.feedback.get(transaction, &key)?.map(|json| feedback_query(key, json)).transpose()
    }

    /// The feedback query with this id.
    pub(super) fn query_of_feedback(&self, transaction: &RoTxn<'_>, id: &str) -> Result<Option<Query>, heed::Error> {
        let Some(key) = feedback::key_of(id) else { return Ok(None) };
        let query = self.feedback_query(transaction, key)?;
        Ok(query.map(|query| Query { id: id.to_owned(), text: query.text, answers: Vec::new() }))
    }

    /// The judgments of a split that votes add up to, each query's by document: with the number of the query that they
    /// belong to, or with a query of their own.
    pub(super) fn judged_by_feedback(
        &self,
        transaction: &RoTxn<'_>,
        split: Split,
    ) -> Result<Vec<(Option<u64>, Judged)>, heed::Error> {
        let mut judged = Vec::new();
        for entry in self.tables.feedback.iter(transaction)? {
            let (key, json) = entry?;
            let key: Key = key.try_into().map_err(|_| damaged("the key of a feedback query is damaged"))?;
            let query = feedback_query(key, json)?;
            let (number, query) = match self.place(transaction, key, &query)? {
                Place::Own(own) if own == split => {
                    (None, Query { id: feedback::id(key), text: query.text, answers: Vec::new() })
                }
                Place::Joined(number) if split == Split::Train => {
                    (Some(number), self.numbered_query(transaction, number)?)
                }
                _ => continue,
            };
            let judgments = self.voted_judgments(transaction, key, split, number, &query.id)?;
            if !judgments.is_empty() {
                judged.push((number, (query, judgments)));
            }
        }
        Ok(judged)
    }

    fn voted_judgments(
        &self,
        transaction: &RoTxn<'_>,
        key: Key,
        split: Split,
        number: Option<u64>,
        query: &str,
    ) -> Result<Vec<Judgment>, heed::Error> {
        let mut judgments = Vec::new();
        for entry in self.tables.votes.prefix_iter(transaction, &key)? {
            let (row, votes) = entry?;
            let document = text(row.get(key.len()..).unwrap_or_default())?;
            let Some(grade) = feedback::grade(votes) else { continue };
            let is_gone = self.sequence_of(transaction, &document)?.is_none();
            let of_file = match number {
                Some(number) => self.grade_by_files(transaction, split, number, &document)?,
                None => None,
            };
            if !is_gone && of_file.is_none() {
                judgments.push(Judgment { query: query.to_owned(), document, grade, split, source: Source::Feedback });
            }
        }
        Ok(judgments)
    }

    /// Fills the table of the queries' texts in a store from before there was one.
    pub(super) fn index_query_texts(&self) -> Result<(), Error> {
        let is_due = self.read(OPEN, |transaction| {
            Ok(self.tables.query_texts.is_empty(transaction)? && !self.tables.queries.is_empty(transaction)?)
        })?;
        if !is_due {
            return Ok(());
        }
        self.change(OPEN, |transaction| {
            let mut rows = Vec::new();
            for entry in self.tables.queries.iter(transaction)? {
                let (number, _) = number(entry?.0)?;
                rows.push(text_row(&self.numbered_query(transaction, number)?.text, number));
            }
            rows.iter().try_for_each(|row| self.tables.query_texts.put(transaction, row, &[]))
        })
    }

    /// Fills the table of the feedback queries' texts in a store from before there was one. Queries that differ in case
    /// only and were drawn into both splits are kept aside, all of them: what is measured is not trained on.
    pub(super) fn index_feedback_texts(&self) -> Result<(), Error> {
        let is_due = self.read(OPEN, |transaction| {
            Ok(self.tables.feedback_texts.len(transaction)? != self.tables.feedback.len(transaction)?)
        })?;
        if !is_due {
            return Ok(());
        }
        self.change(OPEN, |transaction| {
            let mut queries = Vec::new();
            for entry in self.tables.feedback.iter(transaction)? {
                let (key, json) = entry?;
                let key: Key = key.try_into().map_err(|_| damaged("the key of a feedback query is damaged"))?;
                // One that is damaged is found when it is read, and by `anced verify`.
                queries.extend(feedback_query(key, json).ok().map(|query| (key, query)));
            }
            let of_dev = queries.iter().filter(|(_, query)| query.split == Split::Dev);
            let of_dev: HashSet<LooseKey> = of_dev.map(|(_, query)| feedback::loose_key(&query.text)).collect();
            self.tables.feedback_texts.clear(transaction)?;
            for (key, mut query) in queries {
                if of_dev.contains(&feedback::loose_key(&query.text)) {
                    query.split = Split::Dev;
                }
                self.keep_feedback_query(transaction, key, &query)?;
            }
            Ok(())
        })
    }

    /// How many queries of train and dev have a relevant document that is in the corpus.
    ///
    /// # Errors
    /// The store cannot be read.
    pub fn answered_queries(&self) -> Result<AnsweredQueries, Error> {
        self.read("count answered queries", |transaction| {
            let count = |split| -> Result<u64, heed::Error> {
                let mut count = 0;
                for (_, judgments) in self.judged(transaction, split)? {
                    let mut positives = judgments.iter().filter(|judgment| judgment.grade > 0);
                    let is_answered = positives.try_fold(false, |is_answered, judgment| {
                        let document = &judgment.document;
                        Ok::<_, heed::Error>(is_answered || self.sequence_of(transaction, document)?.is_some())
                    })?;
                    count += u64::from(is_answered);
                }
                Ok(count)
            };
            Ok(AnsweredQueries { train: count(Split::Train)?, dev: count(Split::Dev)? })
        })
    }
}

/// The row of `query_texts` for a query.
pub(super) fn text_row(query: &str, number: u64) -> Vec<u8> {
    [&feedback::loose_key(query)[..], &number.to_be_bytes()].concat()
}

/// The row of `feedback_texts` for a query of feedback.
pub(super) fn feedback_text_row(query: &str, key: Key) -> Vec<u8> {
    [&feedback::loose_key(query)[..], &key].concat()
}

fn loose_entry(row: &[u8]) -> Result<(LooseKey, u64), heed::Error> {
    let (key, rest) = row.split_first_chunk().ok_or_else(|| damaged("the key of a query's text is cut short"))?;
    Ok((*key, number(rest)?.0))
}

pub(super) fn feedback_query(key: Key, json: &[u8]) -> Result<FeedbackQuery, heed::Error> {
    serde_json::from_slice(json).map_err(|error| damaged(format!("query {}: {error}", feedback::id(key))))
}
