//! A write in its order: the store first, which is the truth, then the index, which follows it. Writers must be held.

use std::time::Instant;

use super::build::rows;
use super::catch_up::catch_up;
use super::{Deleted, Error, Generation};
use crate::corpus::{Document, Store};

/// The documents that are not in the store as they are.
pub(super) fn only_changed(store: &Store, documents: Vec<Document>) -> Result<Vec<Document>, crate::corpus::Error> {
    let mut changed = Vec::with_capacity(documents.len());
    let mut seen = std::collections::HashSet::new();
    for document in documents {
        // A second version of the same id in one call counts whatever is stored now: the last one wins.
        let again = !seen.insert(document.id.clone());
        if again || store.document(&document.id)?.is_none_or(|stored| stored.document != document) {
            changed.push(document);
        }
    }
    Ok(changed)
}

/// Brings the index up to the store where an earlier write was committed but could not be indexed: `applied` goes up
/// only over writes that are in the index, one after the other.
fn level(generation: &Generation, store: &Store) -> Result<(), Error> {
    if generation.applied() == store.last_sequence()? {
        return Ok(());
    }
    tracing::warn!("an earlier write is not in the index yet, it is added now");
    catch_up(generation, store, &mut |_| {})
}

/// Commits documents to the store and puts the vectors of their pieces into the index; returns the newest sequence.
pub(super) fn commit(
    generation: &Generation,
    store: &Store,
    documents: &[Document],
    vectors: Vec<Vec<Vec<f32>>>,
    save_after: u64,
) -> Result<u64, Error> {
    // What the index would refuse must not be committed.
    vectors.iter().try_for_each(|pieces| generation.index().check(pieces))?;
    level(generation, store)?;
    let outcomes = store.write(documents)?;
    let gone: Vec<u64> =
        outcomes.iter().filter(|outcome| outcome.changed).filter_map(|outcome| outcome.replaced).collect();
    let changed = outcomes.iter().zip(vectors).filter(|(outcome, _)| outcome.changed);
    let (keys, added) = rows(changed.map(|(outcome, pieces)| (outcome.sequence, pieces)));
    generation.index().add(&keys, &added)?;
    generation.index().remove(&gone);
    let sequence = store.last_sequence()?;
    generation.set_applied(sequence);
    keep_sound(generation, save_after);
    Ok(sequence)
}

/// Deletes documents from the store, then from the index.
pub(super) fn delete(
    generation: &Generation,
    store: &Store,
    ids: &[String],
    save_after: u64,
) -> Result<Deleted, Error> {
    level(generation, store)?;
    let removals = store.delete(ids)?;
    let keys: Vec<u64> = removals.iter().map(|removal| removal.removed).collect();
    generation.index().remove(&keys);
    let sequence = store.last_sequence()?;
    generation.set_applied(sequence);
    keep_sound(generation, save_after);
    Ok(Deleted { deleted: removals.len(), sequence })
}

/// Rebuilds a graph that removals have worn, and saves an index that is far ahead of its files. The write that this
/// follows is done, so a failure is told to the log and not to its caller.
pub(super) fn keep_sound(generation: &Generation, save_after: u64) {
    if generation.index().wants_rebuild() {
        let started = Instant::now();
        match generation.index().rebuild() {
            Ok(()) => {
                tracing::info!(seconds = started.elapsed().as_secs_f64(), "graph rebuilt without removed documents")
            }
            Err(error) => tracing::error!(%error, "the graph could not be rebuilt"),
        }
    }
    if generation.untried() >= save_after {
        save_or_log(generation);
    }
}

/// Saves the index; that it fails is told to the log.
pub(super) fn save_or_log(generation: &Generation) {
    if let Err(error) = generation.save() {
        tracing::error!(%error, "the index could not be saved; the next start encodes again what its files lack");
    }
}
