//! What a run notes in its folder beside its state: where it began, what it built, how it ended.

use std::path::Path;

use anyhow::Context as _;

use super::done::Done;
use crate::generation::{DataFolder, replace_file};
use crate::refresh::{DONE_FILE, GENERATION_FILE, PARENT_FILE};

/// The generation that a run starts from: the live one, and for a run that goes on the one that was live then.
pub(super) fn parent(data: &DataFolder, folder: &Path) -> anyhow::Result<Option<u64>> {
    let file = folder.join(PARENT_FILE);
    match number(&file)? {
        Some(0) => Ok(None),
        Some(number) => Ok(Some(number)),
        None => {
            let live = data.live()?;
            std::fs::create_dir_all(folder).with_context(|| folder.display().to_string())?;
            write(&file, &live.unwrap_or(0).to_string())?;
            Ok(live)
        }
    }
}

/// The generation that the run built, as far as it came.
pub(super) fn generation(folder: &Path) -> anyhow::Result<Option<u64>> {
    number(&folder.join(GENERATION_FILE))
}

pub(super) fn set_generation(folder: &Path, number: u64) -> anyhow::Result<()> {
    write(&folder.join(GENERATION_FILE), &number.to_string())
}

/// What the run said at its end, if it came there.
pub(super) fn done(folder: &Path) -> anyhow::Result<Option<Done>> {
    let file = folder.join(DONE_FILE);
    match std::fs::read(&file) {
        Ok(text) => serde_json::from_slice(&text).map(Some).with_context(|| file.display().to_string()),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error).with_context(|| file.display().to_string()),
    }
}

pub(super) fn set_done(folder: &Path, said: &Done) -> anyhow::Result<()> {
    write(&folder.join(DONE_FILE), &said.json()?)
}

fn number(file: &Path) -> anyhow::Result<Option<u64>> {
    match std::fs::read_to_string(file) {
        Ok(text) => text.trim().parse().map(Some).with_context(|| file.display().to_string()),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error).with_context(|| file.display().to_string()),
    }
}

fn write(file: &Path, text: &str) -> anyhow::Result<()> {
    Ok(replace_file(file, format!("{text}\n").as_bytes())?)
}
