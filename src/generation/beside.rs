//! A folder that is written beside the place that it takes at the end: whoever looks there finds all of it or nothing.

use std::fs::{File, TryLockError};
use std::path::{Path, PathBuf};

use super::Error;
use super::folder::{LOCK, entries, io_error};
use super::manifest::sync_folder;

/// The ending of the folder's name until it takes its own.
const UNFINISHED: &str = "unfinished";

/// A folder being written; what was written is removed where it is dropped before its end.
#[derive(Debug)]
pub(super) struct Beside {
    place: PathBuf,
    folder: PathBuf,
    /// Held to the end, so that nobody else writes or removes the folder.
    _lock: File,
    is_finished: bool,
}

impl Beside {
    /// Begins a copy of the folder `source` that will be at `place`, outside of it, where there must be nothing or an
    /// empty folder. What a killed process left of an earlier try is removed.
    pub(super) fn begin(place: &Path, source: &Path) -> Result<Self, Error> {
        let refuse = |reason: &str| Err(Error::Place(format!("{}: {reason}", place.display())));
        let Some(name) = place.file_name() else { return refuse("not the name of a folder; name one that is new") };
        if is_within(place, source) {
            return refuse("it lies in the folder that is copied; name one outside of it");
        }
        match std::fs::read_dir(place) {
            Ok(mut entries) => {
                if entries.next().is_some() {
                    return refuse("the folder is not empty; name one that is new or empty");
                }
            }
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(source) => return Err(Error::Io { path: place.to_path_buf(), source }),
        }
        let mut unfinished = name.to_owned();
        unfinished.push(format!(".{UNFINISHED}"));
        let folder = parent(place).join(unfinished);
        std::fs::create_dir_all(&folder).map_err(io_error(&folder))?;
        let lock = folder.join(LOCK);
        let others = entries(&folder)?;
        if !others.is_empty() && !lock.is_file() {
            let folder = folder.display();
            return refuse(&format!("{folder} is in the way and nothing that anced left; move it away"));
        }
        let opened = File::options().create(true).truncate(false).write(true).open(&lock).map_err(io_error(&lock))?;
        match opened.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return refuse("another anced is writing it; wait for its end"),
            Err(TryLockError::Error(source)) => return Err(Error::Io { path: lock, source }),
        }
        for path in others.iter().filter(|path| **path != lock) {
            let removed = if path.is_dir() { std::fs::remove_dir_all(path) } else { std::fs::remove_file(path) };
            removed.map_err(io_error(path))?;
        }
        Ok(Self { place: place.to_path_buf(), folder, _lock: opened, is_finished: false })
    }

    /// Where its files go.
    pub(super) fn folder(&self) -> &Path {
        &self.folder
    }

    /// Flushes the folders, and gives the whole its name.
    pub(super) fn finish(mut self) -> Result<(), Error> {
        sync_folders(&self.folder)?;
        std::fs::rename(&self.folder, &self.place).map_err(io_error(&self.place))?;
        self.is_finished = true;
        sync_folder(&parent(&self.place))
    }
}

impl Drop for Beside {
    fn drop(&mut self) {
        if !self.is_finished {
            // Why it was given up counts, not whether its remains could be removed: the next try does that too.
            let _ = std::fs::remove_dir_all(&self.folder);
        }
    }
}

fn parent(place: &Path) -> PathBuf {
    match place.parent() {
        Some(parent) if parent != Path::new("") => parent.to_path_buf(),
        _ => PathBuf::from("."),
    }
}

/// Whether `place`, which need not be there, lies below `folder`, by whatever links either is named.
fn is_within(place: &Path, folder: &Path) -> bool {
    let nearest =
        std::path::absolute(place).ok().and_then(|place| place.ancestors().find_map(|at| at.canonicalize().ok()));
    folder.canonicalize().is_ok_and(|folder| nearest.is_some_and(|nearest| nearest.starts_with(folder)))
}

fn sync_folders(folder: &Path) -> Result<(), Error> {
    for path in entries(folder)?.iter().filter(|path| path.is_dir()) {
        sync_folders(path)?;
    }
    sync_folder(folder)
}

/// Copies what an open file holds to a new one, and flushes it; the disk shares the blocks of both where it can, and gives
/// whoever writes to one a block of its own. Returns the bytes.
pub(super) fn copy(source: &mut File, target: &Path) -> Result<u64, Error> {
    if let Some(folder) = target.parent() {
        std::fs::create_dir_all(folder).map_err(io_error(folder))?;
    }
    let mut file = File::create_new(target).map_err(io_error(target))?;
    let bytes = std::io::copy(source, &mut file).map_err(io_error(target))?;
    file.sync_all().map_err(io_error(target))?;
    Ok(bytes)
}
