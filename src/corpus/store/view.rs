//! What a store holds at one moment.

use std::fmt;

use heed::{RoTxn, WithoutTls};

use super::Store;
use crate::corpus::{Error, Judgment, Query, Split, StoredDocument};

/// A store as it was when the view was taken, whatever is written meanwhile: for who reads in several steps, which have to
/// fit each other. Room that writes free is not used again before it is dropped.
pub struct View<'s> {
    store: &'s Store,
    transaction: RoTxn<'s, WithoutTls>,
}

impl Store {
    /// The store as it is now, to its writers' next commit and beyond.
    ///
    /// # Errors
    /// The store cannot be read.
    pub fn view(&self) -> Result<View<'_>, Error> {
        let transaction = self.env.read_txn().map_err(|error| Error::lmdb(&self.folder, "read", error))?;
        Ok(View { store: self, transaction })
    }
}

impl View<'_> {
    /// As [`Store::current`].
    ///
    /// # Errors
    /// The store cannot be read.
    pub fn current(&self, after: u64, limit: usize) -> Result<Vec<StoredDocument>, Error> {
        self.told("read documents", self.store.page(&self.transaction, after, limit))
    }

    /// As [`Store::judged_queries`].
    ///
    /// # Errors
    /// The store cannot be read.
    pub fn judged_queries(&self, split: Split) -> Result<Vec<(Query, Vec<Judgment>)>, Error> {
        self.told("read judgments", self.store.judged(&self.transaction, split))
    }

    fn told<T>(&self, operation: &'static str, found: Result<T, heed::Error>) -> Result<T, Error> {
        found.map_err(|error| Error::lmdb(&self.store.folder, operation, error))
    }
}

impl fmt::Debug for View<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("View").field("store", self.store).finish_non_exhaustive()
    }
}
