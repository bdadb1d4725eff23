//! A copy of the store while others read and write it.

use std::fs;
use std::path::Path;

use heed::CompactionOption;

use super::Store;
use crate::corpus::Error;

/// The file that LMDB keeps everything in; the one beside it holds locks only, and is made anew.
pub(crate) const DATA_FILE: &str = "data.mdb";

impl Store {
    /// Writes the store as it is at this moment into `folder`, which must not hold one: all that was acknowledged before
    /// the call, nothing half. Writers go on meanwhile; the store's file grows a little where they are busy. Pages that
    /// nothing uses are left out.
    ///
    /// # Errors
    /// A folder that cannot be written, a full disk, a store that cannot be read.
    pub fn copy_to(&self, folder: &Path) -> Result<(), Error> {
        let failed = |error| Error::lmdb(folder, "copy the store", error);
        fs::create_dir_all(folder).map_err(|error| failed(error.into()))?;
        let file = self.env.copy_to_path(folder.join(DATA_FILE), CompactionOption::Enabled).map_err(failed)?;
        file.sync_all().map_err(|error| failed(error.into()))
    }
}
