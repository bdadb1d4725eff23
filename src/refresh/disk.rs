//! Whether a training fits on the disk.

use std::path::Path;

use super::Error;
use crate::ance::Plan;
use crate::encoder::Checkpoint;
use crate::generation::{DataFolder, Manifest};

/// Bytes of a token id in the run's copy of the documents: up to five digits and a comma.
const TOKEN: u64 = 6;

/// Bytes of a parameter in a training state: a weight and two moments of 32 bits, whatever the checkpoint stores.
const OF_STATE: u64 = 12;

/// What a run has to work with.
#[derive(Debug, Clone, Copy)]
pub(super) struct Sizes {
    /// Of the encoder.
    pub(super) parameters: u64,
    /// There now.
    pub(super) documents: u64,
    /// To train on.
    pub(super) queries: u64,
}

/// Refuses a run of `plan` in `folder` from generation `number` that the disk is too small for. What a run that goes on
/// has written already counts as room.
///
/// # Errors
/// [`Error::NoRoom`]; a generation or a store that cannot be read.
pub fn check_room(data: &DataFolder, number: u64, plan: &Plan, folder: &Path) -> Result<(), Error> {
    let generation = data.generation(number);
    let manifest = Manifest::read(&generation)?;
    let checkpoint = Checkpoint::open(&generation.join("checkpoint"), &manifest.encoder.overrides());
    let store = data.store();
    let sizes = Sizes {
        parameters: checkpoint.map_err(crate::generation::Error::from)?.parameters() as u64,
        documents: store.count()?,
        queries: store.answered_queries()?.train,
    };
    check(data.path(), needed(&manifest, sizes, plan).saturating_sub(bytes_in(folder)))
}

/// Bytes of the files below a folder, which need not be there.
fn bytes_in(folder: &Path) -> u64 {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    entries
        .map(|entry| match entry.metadata() {
            Ok(found) if found.is_dir() => bytes_in(&entry.path()),
            Ok(found) => found.len(),
            Err(_) => 0,
        })
        .sum()
}

/// Bytes that a run of `plan` from a generation writes, about and rather too many.
pub(super) fn needed(manifest: &Manifest, sizes: Sizes, plan: &Plan) -> u64 {
    let Sizes { parameters, documents, queries } = sizes;
    let of_checkpoint = |name: &str| name.starts_with("checkpoint/");
    let sum = |wanted: &dyn Fn(&str) -> bool| -> u64 {
        manifest.files.iter().filter(|(name, _)| wanted(name)).map(|(_, file)| file.bytes).sum()
    };
    let weights = sum(&|name| of_checkpoint(name) && name.ends_with(".safetensors"));
    // Trained weights are stored in 32 bits, whatever they were before.
    let widened = parameters.saturating_mul(4).saturating_sub(weights);
    let checkpoint = sum(&of_checkpoint).saturating_add(widened);
    // A newer state is written beside the older one.
    let state = parameters.saturating_mul(2 * OF_STATE);
    let index = sum(&|name| !of_checkpoint(name));
    let index = (index as f64 * (documents as f64 / manifest.documents.max(1) as f64).max(1.0)) as u64;
    // The best round's vectors, a newer one's beside them, and 8 bytes of a sequence each.
    let vectors = documents.saturating_mul(2 * (manifest.dimension as u64 * 4 + 8));
    let checkpoints = checkpoint.saturating_mul(plan.rounds.saturating_add(1));
    // The run's own copy of the documents, and the candidates of each round.
    let pieces = sum(&|name| name == manifest.vectors_file) / (manifest.dimension as u64 * 4).max(1);
    let tokens = pieces.max(documents).saturating_mul(plan.lengths.passage as u64).saturating_mul(TOKEN);
    let kept = if plan.mining.per_query > 0 { plan.mining.per_query } else { plan.mining.depth };
    let candidates = (kept as u64).min(documents).saturating_mul(queries).saturating_mul(4 * plan.rounds.min(1 << 32));
    [state, checkpoints, index, vectors, tokens, candidates].into_iter().fold(0, u64::saturating_add)
}

/// # Errors
/// [`Error::NoRoom`] where fewer than `needed` bytes are free.
pub(super) fn check(folder: &Path, needed: u64) -> Result<(), Error> {
    let free = crate::system::free_bytes(folder).map_err(Error::io(folder))?;
    if needed <= free { Ok(()) } else { Err(Error::NoRoom { folder: folder.to_path_buf(), needed, free }) }
}
