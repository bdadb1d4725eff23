//! What a run leaves in its folder when it has come to its end.

use std::io::{ErrorKind, Result as IoResult};
use std::path::{Path, PathBuf};

use super::reuse::KEPT_FILE;
use super::rounds::{DATA_FILE, candidates_file, checkpoint_folder};
use super::{Error, Plan, STATE_FILE};

/// What stays beside the plan, the measures and the notes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Leave {
    /// The negatives that each round mined: 4 bytes for each of `depth` documents of a train query.
    Candidates,
    /// No more than that.
    Notes,
}

/// Removes from `folder` what a run of `plan` needs only to go on.
///
/// # Errors
/// A file that cannot be removed; those after it stay too.
pub fn clean_up(folder: &Path, plan: &Plan, leave: Leave) -> Result<(), Error> {
    for round in 1..=plan.rounds {
        let checkpoint = checkpoint_folder(folder, round);
        gone(&checkpoint, std::fs::remove_dir_all(&checkpoint))?;
    }
    let mut files: Vec<PathBuf> = [STATE_FILE, DATA_FILE, KEPT_FILE].map(|name| folder.join(name)).into();
    if leave == Leave::Notes {
        files.extend((0..plan.rounds).map(|round| candidates_file(folder, round)));
    }
    for file in &files {
        gone(file, std::fs::remove_file(file))?;
    }
    Ok(())
}

/// What is not there need not be removed.
fn gone(path: &Path, removed: IoResult<()>) -> Result<(), Error> {
    match removed {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(Error::io(path)(error)),
        _ => Ok(()),
    }
}
