//! Files that are there as a whole or not at all.

use std::fs::File;
use std::path::Path;

use super::Error;

/// Has a file written beside `file`, flushes it, and gives it its name.
pub(super) fn replace(file: &Path, write: impl FnOnce(&Path) -> Result<(), Error>) -> Result<(), Error> {
    let unfinished = file.with_extension("new");
    write(&unfinished)?;
    sync(&unfinished)?;
    std::fs::rename(&unfinished, file).map_err(Error::io(file))?;
    file.parent().map_or(Ok(()), sync)
}

/// Flushes a file or a folder's entries to the disk.
pub(super) fn sync(path: &Path) -> Result<(), Error> {
    File::open(path).and_then(|opened| opened.sync_all()).map_err(Error::io(path))
}
