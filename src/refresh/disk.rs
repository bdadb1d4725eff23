//! Whether a refresh fits on the disk.

use std::path::Path;

use super::Error;
use crate::ance::Plan;
use crate::generation::Manifest;

/// Bytes of a token id in the run's copy of the documents: up to five digits and a comma.
const TOKEN: u64 = 6;

/// Bytes that a run of `plan` from a generation writes, about and rather too many, where there are `documents`
/// documents and `queries` queries to train on now.
pub(super) fn needed(manifest: &Manifest, documents: u64, queries: u64, plan: &Plan) -> u64 {
    let of_checkpoint = |name: &str| name.starts_with("checkpoint/");
    let sum = |wanted: &dyn Fn(&str) -> bool| -> u64 {
        manifest.files.iter().filter(|(name, _)| wanted(name)).map(|(_, file)| file.bytes).sum()
    };
    let checkpoint = sum(&of_checkpoint);
    let weights = sum(&|name| of_checkpoint(name) && name.ends_with(".safetensors"));
    // 12 bytes a parameter: the weight and two moments; a newer state is written beside the older one.
    let state = weights.saturating_mul(2 * 3);
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
