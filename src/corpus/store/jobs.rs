//! Jobs: records that outlive the process which runs them. What is in them is the business of whoever writes them.

use super::{Store, text};
use crate::corpus::Error;

impl Store {
    /// Keeps a job's record in the place of an earlier one of the same id.
    ///
    /// # Errors
    /// A full disk, or a store that cannot be written.
    pub fn put_job(&self, id: &str, record: &str) -> Result<(), Error> {
        self.change("write a job", |transaction| self.tables.jobs.put(transaction, id.as_bytes(), record.as_bytes()))
    }

    /// Every job's record, in the order of their ids.
    ///
    /// # Errors
    /// A store that cannot be read.
    pub fn jobs(&self) -> Result<Vec<String>, Error> {
        self.read("read jobs", |transaction| self.tables.jobs.iter(transaction)?.map(|entry| text(entry?.1)).collect())
    }
}
