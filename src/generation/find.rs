//! One look into the index and the store: the documents nearest to some vectors.
//!
//! A write reaches the store a moment before the index. A document that is being replaced would be found under neither of
//! its versions in between, so whoever meets one waits for that moment and looks again.

use std::time::{Duration, Instant};

use rayon::prelude::*;

use super::{Error, Generation, Hit, SearchRequest};
use crate::corpus::{Operation, Store};
use crate::index::Neighbour;

/// How long a search waits for the write under way; far more than one takes.
pub(super) const PATIENCE: Duration = Duration::from_millis(50);
/// How often it looks meanwhile.
const LOOK: Duration = Duration::from_millis(1);
/// Changes that are looked at: those of the write under way, of which a call has no more.
const CHANGES: usize = 1024;

/// The hits of each query, and how long searching and fetching took.
pub(super) fn find(
    generation: &Generation,
    store: &Store,
    request: &SearchRequest,
    vectors: &[Vec<f32>],
    expansion: usize,
    patience: Duration,
) -> Result<(Vec<Vec<Hit>>, Duration, Duration), Error> {
    let started = Instant::now();
    let index = generation.index();
    let wanted = request.k.saturating_add(request.offset).min(index.count().max(1));
    let neighbours = |wanted: usize, vectors: &[Vec<f32>]| -> Result<Vec<Vec<Neighbour>>, Error> {
        let filter = request.filter.as_ref().map(|filter| store.matching(filter)).transpose()?;
        if request.exact {
            return Ok(index.exact(vectors, wanted, filter.as_ref())?);
        }
        let one = |vector: &Vec<f32>| index.search(vector, wanted, expansion, filter.as_ref());
        let found: Result<_, _> =
            if vectors.len() == 1 { vectors.iter().map(one).collect() } else { vectors.par_iter().map(one).collect() };
        Ok(found?)
    };
    let known = generation.applied().min(store.last_sequence()?);
    let mut found = neighbours(wanted, vectors)?;
    if request.filter.is_some() && replaced_since(store, known)? {
        // The filter knows a document by its new version where the index had its old one, or the other way round.
        wait_for_index(generation, store, patience)?;
        found = neighbours(wanted, vectors)?;
    }
    let search = started.elapsed();
    let mut results = Vec::with_capacity(found.len());
    for (query, mut found) in vectors.iter().zip(found) {
        let mut documents = store.by_sequence(&found.iter().map(|neighbour| neighbour.key).collect::<Vec<_>>())?;
        let stale = documents.iter().filter(|document| document.is_none()).count();
        if stale > 0 {
            // Documents that were replaced or deleted a moment ago: look a little further to fill their places.
            wait_for_index(generation, store, patience)?;
            found = neighbours(wanted + stale, std::slice::from_ref(query))?.pop().unwrap_or_default();
            documents = store.by_sequence(&found.iter().map(|neighbour| neighbour.key).collect::<Vec<_>>())?;
        }
        let hits = found.into_iter().zip(documents).filter_map(|(neighbour, stored)| {
            let stored = stored?;
            let vector = if request.with_vectors { index.vector(neighbour.key, neighbour.chunk) } else { None };
            Some(Hit { score: neighbour.score, sequence: stored.sequence, document: stored.document, vector })
        });
        let above = |hit: &Hit| request.min_score.is_none_or(|least| hit.score >= least);
        results.push(hits.filter(above).skip(request.offset).take(request.k).collect());
    }
    Ok((results, search, started.elapsed() - search))
}

/// Whether a document was replaced after a sequence.
fn replaced_since(store: &Store, sequence: u64) -> Result<bool, Error> {
    let changes = store.changes(sequence, CHANGES)?;
    Ok(changes.iter().any(|change| matches!(change.operation, Operation::Write { replaced: Some(_) })))
}

/// Waits until the index has what the store has now, for a generation that no write reaches any more no longer than
/// `patience`.
fn wait_for_index(generation: &Generation, store: &Store, patience: Duration) -> Result<(), Error> {
    let (target, begun) = (store.last_sequence()?, Instant::now());
    while generation.applied() < target && begun.elapsed() < patience {
        std::thread::sleep(LOOK);
    }
    Ok(())
}
