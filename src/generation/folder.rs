//! The data folder: the store, the generations, and which of them is live.

use std::fs::{File, TryLockError};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::manifest::{replace_file, sync_folder};
use super::{Error, Manifest};
use crate::corpus::Store;

pub(super) const LIVE: &str = "LIVE";
pub(super) const LOCK: &str = "lock";
/// Locked by the training that runs, if one does.
pub const TRAIN_LOCK: &str = "train.lock";
/// The ending of a generation's folder while it is being written.
const UNFINISHED: &str = ".new";
/// The ending of a generation's folder while it is being removed.
const REMOVED: &str = ".removed";
/// The highest number that a removed generation had: numbers are never given twice.
pub(super) const HIGHEST: &str = "highest-removed";
/// How the names of files begin that are written beside those they replace, ours and those of safetensors.
const TEMPORARY: &str = ".tmp";
/// How long a lock is asked for that somebody may only look at.
const LOOK: Duration = Duration::from_secs(1);

pub(super) fn io_error(path: &Path) -> impl FnOnce(std::io::Error) -> Error {
    let path = path.to_path_buf();
    move |source| Error::Io { path, source }
}

/// A data folder.
#[derive(Debug, Clone)]
pub struct DataFolder {
    path: PathBuf,
    store: Arc<Store>,
}

/// The right to write to a data folder; given back when dropped or when the process ends.
#[derive(Debug)]
pub struct Lock {
    _file: File,
}

impl DataFolder {
    /// Opens a data folder for reading beside whoever writes to it, made where it is not there.
    ///
    /// # Errors
    /// A folder or a store that cannot be opened.
    pub fn open(path: &Path) -> Result<Self, Error> {
        std::fs::create_dir_all(path.join("generations")).map_err(io_error(path))?;
        let store = Arc::new(Store::open(&path.join("store"))?);
        Ok(Self { path: path.to_path_buf(), store })
    }

    /// Opens a data folder as the one process that writes to it, and removes what a killed one left half-written.
    ///
    /// # Errors
    /// As [`open`](Self::open), and a folder that another process writes to.
    pub fn open_locked(path: &Path) -> Result<(Self, Lock), Error> {
        std::fs::create_dir_all(path).map_err(io_error(path))?;
        let file = path.join(LOCK);
        let mut opened =
            File::options().create(true).truncate(false).read(true).write(true).open(&file).map_err(io_error(&file))?;
        match try_lock(&opened) {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let holder = std::fs::read_to_string(&file).unwrap_or_default();
                return Err(Error::Damaged(format!(
                    "{}: the data folder is in use by another anced (process {}); stop it, write through its REST API, or name \
                     another folder with --data",
                    path.display(),
                    holder.trim()
                )));
            }
            Err(TryLockError::Error(source)) => return Err(Error::Io { path: file, source }),
        }
        opened.set_len(0).map_err(io_error(&file))?;
        writeln!(opened, "{}", std::process::id()).map_err(io_error(&file))?;
        let folder = Self::open(path)?;
        // A power cut must not take the folders away from under what is written into them.
        for folder in [path, &path.join("store"), &path.join("generations")] {
            sync_folder(folder)?;
        }
        folder.clean_up()?;
        Ok((folder, Lock { _file: opened }))
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The documents, queries and judgments.
    pub fn store(&self) -> &Arc<Store> {
        &self.store
    }

    /// The folder of a generation.
    pub fn generation(&self, number: u64) -> PathBuf {
        self.path.join("generations").join(format!("{number:06}"))
    }

    /// The folder that a generation is written in before it takes its name.
    pub(super) fn unfinished(&self, number: u64) -> PathBuf {
        self.path.join("generations").join(format!("{number:06}{UNFINISHED}"))
    }

    /// The manifests of every finished generation, oldest first; one that cannot be read is warned of and passed over.
    ///
    /// # Errors
    /// A folder that cannot be listed.
    pub fn manifests(&self) -> Result<Vec<Manifest>, Error> {
        let mut manifests: Vec<Manifest> = self
            .numbers()?
            .into_iter()
            .filter_map(|number| {
                let manifest = Manifest::read(&self.generation(number));
                manifest.inspect_err(|error| tracing::warn!(generation = number, %error, "generation passed over")).ok()
            })
            .collect();
        manifests.sort_by_key(|manifest| manifest.number);
        Ok(manifests)
    }

    pub(super) fn numbers(&self) -> Result<Vec<u64>, Error> {
        numbers(&self.path)
    }

    /// The number that the next generation takes: above all that there are and were.
    ///
    /// # Errors
    /// A folder that cannot be listed.
    pub fn next_number(&self) -> Result<u64, Error> {
        Ok(self.numbers()?.into_iter().max().unwrap_or(0).max(self.highest_removed()?) + 1)
    }

    fn highest_removed(&self) -> Result<u64, Error> {
        let file = self.path.join(HIGHEST);
        match std::fs::read_to_string(&file) {
            // A file that somebody changed by hand keeps no number from being given twice, which is no harm to the data.
            Ok(text) => Ok(text.trim().parse().unwrap_or(0)),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(0),
            Err(source) => Err(Error::Io { path: file, source }),
        }
    }

    /// Removes a generation from the disk. Whenever the process ends it is there whole or, for the next start, not at
    /// all. The caller sees to it that it is not live and nothing loads it.
    ///
    /// # Errors
    /// [`Error::UnknownGeneration`], a folder that cannot be renamed; one that was renamed but could not be emptied is
    /// told to the log, and the next start tries again.
    pub(super) fn remove(&self, number: u64) -> Result<(), Error> {
        let folder = self.generation(number);
        if !folder.is_dir() {
            return Err(Error::UnknownGeneration(number));
        }
        if self.numbers()?.into_iter().max() == Some(number) && number > self.highest_removed()? {
            replace_file(&self.path.join(HIGHEST), format!("{number}\n").as_bytes())?;
        }
        let aside = self.path.join("generations").join(format!("{number:06}{REMOVED}"));
        if aside.exists() {
            std::fs::remove_dir_all(&aside).map_err(io_error(&aside))?;
        }
        std::fs::rename(&folder, &aside).map_err(io_error(&folder))?;
        sync_folder(&self.path.join("generations"))?;
        if let Err(error) = std::fs::remove_dir_all(&aside) {
            tracing::warn!(folder = %aside.display(), %error, "a removed generation's files stay until the next start");
        }
        Ok(())
    }

    /// The number in `LIVE`, none where no generation was ever made live.
    ///
    /// # Errors
    /// A file that cannot be read or holds no number.
    pub fn live(&self) -> Result<Option<u64>, Error> {
        live(&self.path)
    }

    /// Makes a generation the one that the next start loads.
    ///
    /// # Errors
    /// A file that cannot be written; the old number stays then.
    pub fn set_live(&self, number: u64) -> Result<(), Error> {
        replace_file(&self.path.join(LIVE), format!("{number}\n").as_bytes())
    }

    /// Removes what was being written or removed when its process ended.
    fn clean_up(&self) -> Result<(), Error> {
        self.remove_unfinished()?;
        for path in leftovers(&self.path)? {
            if file_name(&path).ends_with(UNFINISHED) {
                // A training began with it a moment ago.
                continue;
            }
            if path.is_dir() {
                remove_half(&path)?;
            } else {
                remove_file(&path)?;
            }
        }
        Ok(())
    }

    /// Removes generations that a training had begun to write when it ended. What one is just writing that outlived its
    /// server stays: it ends soon.
    pub(super) fn remove_unfinished(&self) -> Result<(), Error> {
        let lock = self.path.join(TRAIN_LOCK);
        let training = File::options().create(true).truncate(false).write(true).open(&lock).map_err(io_error(&lock))?;
        if matches!(training.try_lock(), Err(TryLockError::WouldBlock)) {
            return Ok(());
        }
        let is_unfinished = |path: &&PathBuf| file_name(path).ends_with(UNFINISHED) && path.is_dir();
        let folders = entries(&self.path.join("generations"))?;
        folders.iter().filter(is_unfinished).try_for_each(|path| remove_half(path))
    }
}

fn remove_half(folder: &Path) -> Result<(), Error> {
    tracing::warn!(folder = %folder.display(), "half-written or half-removed generation removed");
    std::fs::remove_dir_all(folder).map_err(io_error(folder))
}

/// The numbers of the generations of a data folder, whatever their state.
pub(super) fn numbers(data: &Path) -> Result<Vec<u64>, Error> {
    let folder = data.join("generations");
    Ok(entries(&folder)?.iter().filter_map(|path| file_name(path).parse().ok()).collect())
}

/// The number in the `LIVE` of a data folder.
pub(super) fn live(data: &Path) -> Result<Option<u64>, Error> {
    let file = data.join(LIVE);
    match std::fs::read_to_string(&file) {
        Ok(text) => text.trim().parse().map(Some).map_err(|_| {
            let file = file.display();
            Error::Damaged(format!(
                "{file}: `{}` is no generation's number; write the number of a folder in generations/ there",
                text.trim()
            ))
        }),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(Error::Io { path: file, source }),
    }
}

/// Takes a lock, also where somebody looks at it just now: to look is to hold it for a moment.
fn try_lock(lock: &File) -> Result<(), TryLockError> {
    let begun = Instant::now();
    loop {
        match lock.try_lock() {
            Err(TryLockError::WouldBlock) if begun.elapsed() < LOOK => std::thread::sleep(LOOK / 20),
            result => return result,
        }
    }
}

/// Whether a process trains in a data folder.
///
/// # Errors
/// A lock that cannot be opened.
pub fn is_training(data: &Path) -> Result<bool, Error> {
    is_locked(&data.join(TRAIN_LOCK))
}

/// Whether a process holds a lock; one that is not there is not held.
pub(super) fn is_locked(lock: &Path) -> Result<bool, Error> {
    match File::open(lock) {
        Ok(file) => Ok(matches!(file.try_lock_shared(), Err(TryLockError::WouldBlock))),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(io_error(lock)(error)),
    }
}

/// What was being written or removed when its process ended, where that is none that still runs: generations that never
/// took their number or had lost it, index files that no manifest names, files that were to replace others. A numbered
/// folder is not among them whatever it lacks: it was whole once, and a manifest that is put back makes it so again.
pub(super) fn leftovers(data: &Path) -> Result<Vec<PathBuf>, Error> {
    let is_training = is_training(data)?;
    let mut found = temporary_files(data)?;
    for path in entries(&data.join("generations"))? {
        let name = file_name(&path);
        let is_number = name.parse::<u64>().is_ok() && path.is_dir();
        if is_number {
            found.extend(temporary_files(&path)?);
            if let Ok(manifest) = Manifest::read(&path) {
                found.extend(unnamed(&path, &manifest)?);
            }
        }
        if ((name.ends_with(UNFINISHED) && !is_training) || name.ends_with(REMOVED)) && path.is_dir() {
            found.push(path);
        }
    }
    Ok(found)
}

/// Removes index files of a generation that its manifest does not name: those of a save that did not come to its end.
pub(super) fn remove_unnamed(folder: &Path, manifest: &Manifest) -> Result<(), Error> {
    unnamed(folder, manifest)?.iter().try_for_each(|path| remove_file(path))
}

fn unnamed(folder: &Path, manifest: &Manifest) -> Result<Vec<PathBuf>, Error> {
    let is_unnamed = |path: &PathBuf| {
        let name = file_name(path);
        let of_index = (name.starts_with("vectors") && name.ends_with(".safetensors"))
            || (name.starts_with("index") && name.ends_with(".usearch"));
        of_index && path.is_file() && !manifest.files.contains_key(name)
    };
    Ok(entries(folder)?.into_iter().filter(is_unnamed).collect())
}

/// Files that were being written beside those they were to replace.
fn temporary_files(folder: &Path) -> Result<Vec<PathBuf>, Error> {
    let is_temporary = |path: &PathBuf| file_name(path).starts_with(TEMPORARY) && path.is_file();
    Ok(entries(folder)?.into_iter().filter(is_temporary).collect())
}

/// Removes a file; one that is gone already is as good.
fn remove_file(file: &Path) -> Result<(), Error> {
    match std::fs::remove_file(file) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(io_error(file)(error)),
        _ => Ok(()),
    }
}

pub(super) fn entries(folder: &Path) -> Result<Vec<PathBuf>, Error> {
    let listed = std::fs::read_dir(folder).and_then(|entries| entries.map(|entry| Ok(entry?.path())).collect());
    listed.map_err(io_error(folder))
}

pub(super) fn file_name(path: &Path) -> &str {
    path.file_name().and_then(|name| name.to_str()).unwrap_or_default()
}
