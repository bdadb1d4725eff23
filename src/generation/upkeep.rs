//! What an index needs now and then: a graph without the traces of removals, and files that are not far behind. It is
//! done beside the writes, so that none of them has to wait for what many made necessary.

use std::sync::Arc;
use std::time::Instant;

use super::{Generation, Retriever};

/// Whether there is anything to do.
pub(super) fn is_due(generation: &Generation, save_after: u64) -> bool {
    generation.wants_rebuild(save_after) || generation.untried() >= save_after
}

/// Rebuilds a graph that removals have worn, and saves an index that is far ahead of its files. `hold` keeps writers away
/// until what it returns is dropped. A failure is told to the log: no request has asked for this.
pub(super) fn keep_sound<G>(generation: &Generation, save_after: u64, hold: impl Fn() -> G) {
    if generation.wants_rebuild(save_after) {
        let started = Instant::now();
        match generation.rebuild(&hold) {
            Ok(()) => {
                tracing::info!(seconds = started.elapsed().as_secs_f64(), "graph rebuilt without removed documents")
            }
            Err(error) => tracing::error!(%error, "the graph could not be rebuilt"),
        }
    }
    if generation.untried() >= save_after {
        save_or_log(generation, hold);
    }
}

/// Saves the index; that it fails is told to the log.
pub(super) fn save_or_log<G>(generation: &Generation, hold: impl FnOnce() -> G) {
    if let Err(error) = generation.save(hold) {
        tracing::error!(%error, "the index could not be saved; the next start encodes again what its files lack");
    }
}

impl Retriever {
    /// Starts what the index needs, where it needs anything and is not being cared for already.
    pub(super) fn care_for(&self, generation: &Arc<Generation>) {
        let save_after = self.machine.save_after;
        if !is_due(generation, save_after) {
            return;
        }
        let Ok(turn) = Arc::clone(&self.caring).try_lock_owned() else { return };
        let (generation, writer) = (Arc::clone(generation), Arc::clone(&self.writer));
        tokio::task::spawn_blocking(move || {
            let _turn = turn;
            keep_sound(&generation, save_after, || Arc::clone(&writer).blocking_lock_owned());
        });
    }
}
