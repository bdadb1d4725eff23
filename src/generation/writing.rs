//! A write in its order: the store first, which is the truth, then the index, which follows it. Writers must be held.

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
    Ok(sequence)
}

/// Deletes documents from the store, then from the index.
pub(super) fn delete(generation: &Generation, store: &Store, ids: &[String]) -> Result<Deleted, Error> {
    level(generation, store)?;
    let removals = store.delete(ids)?;
    let keys: Vec<u64> = removals.iter().map(|removal| removal.removed).collect();
    generation.index().remove(&keys);
    let sequence = store.last_sequence()?;
    generation.set_applied(sequence);
    Ok(Deleted { deleted: removals.len(), sequence })
}
