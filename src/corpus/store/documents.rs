//! Documents and the change log.

use std::collections::HashMap;
use std::ops::Bound;

use heed::{RoTxn, RwTxn};

use super::{Change, Operation, Removal, Store, WriteOutcome, damaged, number, stored, text};
use crate::corpus::{Document, Error, StoredDocument, metadata};

const WRITTEN: u8 = 0;
const REPLACED: u8 = 1;
const DELETED: u8 = 2;

impl Store {
    /// Writes documents, all in one transaction; when it returns they are on the disk.
    ///
    /// There is one outcome a document, in order. A document that is there unchanged keeps its sequence. Of several
    /// with one id the last is written; the outcomes of the others carry its sequence, unchanged and replacing nothing,
    /// so that acting on the changed outcomes alone is right.
    ///
    /// # Errors
    /// A document that the store does not take (see [`Document::check`]), a full disk, or a store that cannot be
    /// written; nothing of the call is kept then.
    pub fn write(&self, documents: &[Document]) -> Result<Vec<WriteOutcome>, Error> {
        let mut last = HashMap::with_capacity(documents.len());
        let mut encoded = Vec::with_capacity(documents.len());
        for (position, document) in documents.iter().enumerate() {
            document.check()?;
            last.insert(document.id.as_str(), position);
            encoded.push(
                serde_json::to_vec(document).map_err(|error| {
                    Error::lmdb(&self.folder, "write documents", heed::Error::Encoding(error.into()))
                })?,
            );
        }
        self.change("write documents", |transaction| {
            let mut next = self.last(transaction)? + 1;
            let mut outcomes = HashMap::with_capacity(last.len());
            for (position, (document, json)) in documents.iter().zip(&encoded).enumerate() {
                if last.get(document.id.as_str()) == Some(&position) {
                    let outcome = self.put(transaction, document, json, next)?;
                    next += u64::from(outcome.changed);
                    outcomes.insert(document.id.as_str(), outcome);
                }
            }
            let outcome_of = |(position, document): (usize, &Document)| {
                let outcome = *outcomes.get(document.id.as_str())?;
                let superseded = last.get(document.id.as_str()) != Some(&position);
                Some(if superseded { WriteOutcome { replaced: None, changed: false, ..outcome } } else { outcome })
            };
            Ok(documents.iter().enumerate().filter_map(outcome_of).collect())
        })
    }

    /// Deletes documents, all in one transaction: one removal for each id that existed, in order.
    ///
    /// # Errors
    /// A full disk, or a store that cannot be written; nothing is deleted then.
    pub fn delete(&self, ids: &[String]) -> Result<Vec<Removal>, Error> {
        self.change("delete documents", |transaction| {
            let mut removals = Vec::new();
            for id in ids {
                let Some(removed) = self.sequence_of(transaction, id)? else { continue };
                let sequence = self.last(transaction)? + 1;
                self.remove(transaction, removed)?;
                self.tables.ids.delete(transaction, id.as_bytes())?;
                self.append(transaction, sequence, DELETED, removed, id)?;
                removals.push(Removal { id: id.clone(), sequence, removed });
            }
            Ok(removals)
        })
    }

    /// The document with this id.
    ///
    /// # Errors
    /// The store cannot be read.
    pub fn document(&self, id: &str) -> Result<Option<StoredDocument>, Error> {
        self.read("read a document", |transaction| match self.sequence_of(transaction, id)? {
            Some(sequence) => self.at(transaction, sequence),
            None => Ok(None),
        })
    }

    /// The documents of some sequences, in order; none where a sequence is not (or no longer) a document's current one.
    ///
    /// # Errors
    /// The store cannot be read.
    pub fn by_sequence(&self, sequences: &[u64]) -> Result<Vec<Option<StoredDocument>>, Error> {
        self.read("read documents", |transaction| {
            sequences.iter().map(|sequence| self.at(transaction, *sequence)).collect()
        })
    }

    /// Up to `limit` documents whose ids come after `after`, ordered by the bytes of their ids, and whether more come
    /// after them. They end before they take more than `bytes` as JSON, but for the first.
    ///
    /// # Errors
    /// The store cannot be read.
    pub fn list(&self, after: Option<&str>, limit: usize, bytes: usize) -> Result<(Vec<StoredDocument>, bool), Error> {
        self.read("list documents", |transaction| {
            // LMDB takes no empty key, and every id comes after the empty one.
            let after = after.filter(|id| !id.is_empty());
            let start = after.map_or(Bound::Unbounded, |id| Bound::Excluded(clipped(id)));
            let ids = self.tables.ids.range(transaction, &(start, Bound::Unbounded))?;
            let (mut listed, mut left) = (Vec::new(), bytes);
            for entry in ids {
                let (sequence, _) = number(entry?.1)?;
                let json = self.tables.documents.get(transaction, &sequence.to_be_bytes())?;
                let json = json.ok_or_else(|| damaged(format!("no document of sequence {sequence}")))?;
                let fits = listed.is_empty() || json.len() <= left;
                if listed.len() == limit || !fits {
                    return Ok((listed, true));
                }
                left = left.saturating_sub(json.len());
                listed.push(stored(sequence, json)?);
            }
            Ok((listed, false))
        })
    }

    /// Up to `limit` entries of the log whose sequences are above `after`, in order.
    ///
    /// # Errors
    /// The store cannot be read.
    pub fn changes(&self, after: u64, limit: usize) -> Result<Vec<Change>, Error> {
        self.read("read the log", |transaction| {
            let start = after.to_be_bytes();
            let entries = self.tables.log.range(transaction, &(Bound::Excluded(&start[..]), Bound::Unbounded))?;
            entries.take(limit).map(|entry| entry.and_then(|(key, value)| change(key, value))).collect()
        })
    }

    /// Up to `limit` current documents whose sequences are above `after`, ordered by sequence: the corpus page by page.
    ///
    /// # Errors
    /// The store cannot be read.
    pub fn current(&self, after: u64, limit: usize) -> Result<Vec<StoredDocument>, Error> {
        self.read("read documents", |transaction| self.page(transaction, after, limit))
    }

    pub(super) fn page(
        &self,
        transaction: &RoTxn<'_>,
        after: u64,
        limit: usize,
    ) -> Result<Vec<StoredDocument>, heed::Error> {
        let start = after.to_be_bytes();
        let entries = self.tables.documents.range(transaction, &(Bound::Excluded(&start[..]), Bound::Unbounded))?;
        entries
            .take(limit)
            .map(|entry| {
                let (key, json) = entry?;
                stored(number(key)?.0, json)
            })
            .collect()
    }

    /// How many documents there are.
    ///
    /// # Errors
    /// The store cannot be read.
    pub fn count(&self) -> Result<u64, Error> {
        self.read("count documents", |transaction| self.tables.ids.len(transaction))
    }

    /// The sequence of the newest entry of the log, 0 where nothing was ever written.
    ///
    /// # Errors
    /// The store cannot be read.
    pub fn last_sequence(&self) -> Result<u64, Error> {
        self.read("read the log", |transaction| self.last(transaction))
    }

    fn last(&self, transaction: &RoTxn<'_>) -> Result<u64, heed::Error> {
        Ok(match self.tables.log.last(transaction)? {
            Some((key, _)) => number(key)?.0,
            None => 0,
        })
    }

    pub(super) fn sequence_of(&self, transaction: &RoTxn<'_>, id: &str) -> Result<Option<u64>, heed::Error> {
        if crate::corpus::document::id_rule(id).is_some() {
            return Ok(None);
        }
        let value = self.tables.ids.get(transaction, id.as_bytes())?;
        value.map(|value| number(value).map(|(sequence, _)| sequence)).transpose()
    }

    fn at(&self, transaction: &RoTxn<'_>, sequence: u64) -> Result<Option<StoredDocument>, heed::Error> {
        let json = self.tables.documents.get(transaction, &sequence.to_be_bytes())?;
        json.map(|json| stored(sequence, json)).transpose()
    }

    fn put(
        &self,
        transaction: &mut RwTxn<'_>,
        document: &Document,
        json: &[u8],
        sequence: u64,
    ) -> Result<WriteOutcome, heed::Error> {
        let replaced = self.sequence_of(transaction, &document.id)?;
        if let Some(old) = replaced {
            if self.tables.documents.get(transaction, &old.to_be_bytes())? == Some(json) {
                return Ok(WriteOutcome { sequence: old, replaced: None, changed: false });
            }
            self.remove(transaction, old)?;
        }
        let key = sequence.to_be_bytes();
        self.tables.documents.put(transaction, &key, json)?;
        self.tables.ids.put(transaction, document.id.as_bytes(), &key)?;
        let operation = if replaced.is_some() { REPLACED } else { WRITTEN };
        self.append(transaction, sequence, operation, replaced.unwrap_or_default(), &document.id)?;
        self.tables.postings.put(transaction, metadata::EVERY_DOCUMENT, &key)?;
        for posting in metadata::keys(&document.metadata) {
            self.tables.postings.put(transaction, &posting, &key)?;
        }
        Ok(WriteOutcome { sequence, replaced, changed: true })
    }

    /// Takes a document out of the documents and the postings.
    fn remove(&self, transaction: &mut RwTxn<'_>, sequence: u64) -> Result<(), heed::Error> {
        let key = sequence.to_be_bytes();
        let Some(old) = self.at(transaction, sequence)? else {
            return Err(damaged(format!("no document of sequence {sequence}")));
        };
        self.tables.postings.delete_one_duplicate(transaction, metadata::EVERY_DOCUMENT, &key)?;
        for posting in metadata::keys(&old.document.metadata) {
            self.tables.postings.delete_one_duplicate(transaction, &posting, &key)?;
        }
        self.tables.documents.delete(transaction, &key)?;
        Ok(())
    }

    fn append(
        &self,
        transaction: &mut RwTxn<'_>,
        sequence: u64,
        operation: u8,
        old: u64,
        id: &str,
    ) -> Result<(), heed::Error> {
        let mut value = vec![operation];
        value.extend_from_slice(&old.to_be_bytes());
        value.extend_from_slice(id.as_bytes());
        self.tables.log.put(transaction, &sequence.to_be_bytes(), &value)
    }
}

pub(super) fn change(key: &[u8], value: &[u8]) -> Result<Change, heed::Error> {
    let (sequence, _) = number(key)?;
    let Some((operation, rest)) = value.split_first() else {
        return Err(damaged(format!("the log's entry {sequence} is empty")));
    };
    let (old, id) = number(rest)?;
    let operation = match *operation {
        WRITTEN => Operation::Write { replaced: None },
        REPLACED => Operation::Write { replaced: Some(old) },
        DELETED => Operation::Delete { removed: old },
        other => return Err(damaged(format!("the log's entry {sequence} has the unknown operation {other}"))),
    };
    Ok(Change { sequence, id: text(id)?, operation })
}

/// As much of an id as a key can hold: no id of the store is longer, so that what comes after it stays the same.
fn clipped(id: &str) -> &[u8] {
    let bytes = id.as_bytes();
    bytes.get(..crate::corpus::document::ID_BYTES + 1).unwrap_or(bytes)
}
