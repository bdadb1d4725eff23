//! Bringing a generation's index up to the store: the store is the truth, the index is derived.

use super::build::{BuildProgress, PAGE, encode};
use super::{Error, Generation};
use crate::corpus::{Operation, Store};

/// Applies every change of the store that the index has not seen. Where the generation is live, writers must be held;
/// where it is not they may go on, and what they write until the end is applied too.
///
/// # Errors
/// A store that cannot be read, an encoder that fails; what was applied stays.
pub(super) fn catch_up(
    generation: &Generation,
    store: &Store,
    progress: &mut dyn FnMut(BuildProgress),
) -> Result<(), Error> {
    let start = generation.applied();
    let total = store.last_sequence()?.saturating_sub(start);
    while apply(generation, store, PAGE)? > 0 {
        progress(BuildProgress { done: generation.applied() - start, total, reused: 0 });
    }
    Ok(())
}

/// Applies at most `most` changes that the index has not seen, and returns how many there were.
///
/// # Errors
/// As [`catch_up`].
pub(super) fn apply(generation: &Generation, store: &Store, most: usize) -> Result<usize, Error> {
    let changes = store.changes(generation.applied(), most)?;
    let Some(last) = changes.last() else { return Ok(0) };
    let mut gone = Vec::new();
    let mut written = Vec::new();
    for change in &changes {
        match change.operation {
            Operation::Write { replaced } => {
                gone.extend(replaced);
                written.push(change.sequence);
            }
            Operation::Delete { removed } => gone.push(removed),
        }
    }
    // What was written and has since been replaced or deleted is not current, and never enters the index: the change
    // that took it away comes later in the log.
    let current: Vec<_> = store.by_sequence(&written)?.into_iter().flatten().collect();
    let index = generation.index();
    if !current.is_empty() {
        let (keys, vectors) = encode(generation.encoder(), &current)?;
        index.add(&keys, &vectors)?;
    }
    index.remove(&gone);
    generation.set_applied(last.sequence);
    Ok(changes.len())
}
