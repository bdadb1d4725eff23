//! Bringing a generation's index up to the store: the store is the truth, the index is derived.

use super::build::{BuildProgress, PAGE, encode};
use super::{Error, Generation};
use crate::corpus::{Operation, Store};

/// Applies every change of the store that the index has not seen. Writers must be held.
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
    let index = generation.index();
    loop {
        let changes = store.changes(generation.applied(), PAGE)?;
        let Some(last) = changes.last() else { return Ok(()) };
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
        // What was written and has since been replaced or deleted is not current, and never enters the index.
        let current: Vec<_> = store.by_sequence(&written)?.into_iter().flatten().collect();
        if !current.is_empty() {
            let (keys, vectors) = encode(generation.encoder(), &current)?;
            index.add(&keys, &vectors)?;
        }
        index.remove(&gone);
        generation.set_applied(last.sequence);
        progress(BuildProgress { done: generation.applied() - start, total });
    }
}
