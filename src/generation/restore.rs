//! A data folder from a snapshot.

use std::fs::File;
use std::path::{Component, Path};

use rayon::prelude::*;

use super::beside::{Beside, copy};
use super::folder::io_error;
use super::manifest::file_record;
use super::snapshot::SNAPSHOT_FILE;
use super::{Error, Snapshot};

/// Compares every file of a snapshot with its checksum, then copies it to `data`, where there must be nothing or an empty
/// folder. `progress` is told the bytes copied.
///
/// # Errors
/// A folder that is no snapshot, a file that is missing or damaged, a data folder that is not empty or lies in the
/// snapshot, a full disk; nothing is left at `data` then.
pub fn restore(snapshot: &Path, data: &Path, progress: &mut dyn FnMut(u64)) -> Result<Snapshot, Error> {
    let beside = Beside::begin(data, snapshot)?;
    let contents = read(snapshot)?;
    verify(&contents, snapshot)?;
    let mut bytes = 0;
    for name in contents.files.keys() {
        let source = snapshot.join(name);
        let mut opened = File::open(&source).map_err(io_error(&source))?;
        bytes += copy(&mut opened, &beside.folder().join(name))?;
        progress(bytes);
    }
    beside.finish()?;
    Ok(contents)
}

fn read(snapshot: &Path) -> Result<Snapshot, Error> {
    let file = snapshot.join(SNAPSHOT_FILE);
    let refuse = |reason: String| {
        Error::Place(format!(
            "{}: not a sound snapshot ({reason}); name a folder that `anced snapshot` wrote to its end",
            file.display()
        ))
    };
    let text = std::fs::read(&file).map_err(|error| refuse(error.to_string()))?;
    let contents: Snapshot = serde_json::from_slice(&text).map_err(|error| refuse(error.to_string()))?;
    if contents.checksum != contents.own_checksum().map_err(|error| refuse(error.to_string()))? {
        return Err(refuse("its contents do not fit its checksum".into()));
    }
    let is_within = |name: &String| Path::new(name).components().all(|part| matches!(part, Component::Normal(_)));
    match contents.files.keys().find(|name| !is_within(name)) {
        Some(name) => Err(refuse(format!("`{name}` is no place in a data folder"))),
        None => Ok(contents),
    }
}

fn verify(contents: &Snapshot, snapshot: &Path) -> Result<(), Error> {
    let files: Vec<_> = contents.files.iter().collect();
    files.par_iter().try_for_each(|(name, record)| {
        let file = snapshot.join(name);
        let refuse = |reason: &str| {
            let reason = format!("{}: {reason}; nothing was restored, take another snapshot", file.display());
            Err(Error::Place(reason))
        };
        match file_record(&file) {
            Ok(found) if found == **record => Ok(()),
            Ok(found) if found.bytes != record.bytes => {
                refuse(&format!("{} bytes where the snapshot says {}", found.bytes, record.bytes))
            }
            Ok(_) => refuse("its checksum differs from the snapshot's, the file is damaged or was changed"),
            Err(error) => refuse(&error.to_string()),
        }
    })
}
