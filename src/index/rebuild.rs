//! A graph built anew: removed vectors leave nodes behind that walks go through in vain.

use std::sync::{Arc, PoisonError};

use roaring::RoaringTreemap;

use super::graph::Graph;
use super::key::Key;
use super::searcher::add_to;
use super::vectors::Block;
use super::{Error, Index};

/// Share of removed vectors, in percent of those there, past which the graph is worth building anew.
const REBUILD_PERCENT: usize = 25;
/// So few vectors are added while nobody else may add any.
const FEW: usize = 256;

/// A graph that is being built beside the one that is searched.
struct Rebuilt {
    graph: Graph,
    /// Raw keys of what it does not reach.
    unreached: RoaringTreemap,
    /// The blocks whose vectors it has.
    blocks: Vec<Arc<Block>>,
}

impl Index {
    /// Whether so many vectors were removed that the graph finds less than it should.
    pub fn wants_rebuild(&self) -> bool {
        let removed = self.removed();
        removed >= 1000 && removed * 100 > self.read_vectors().len() * REBUILD_PERCENT
    }

    /// Nodes of the graph whose vectors were removed.
    fn removed(&self) -> usize {
        let nodes = self.read_graph().len();
        nodes.saturating_sub(self.read_vectors().len())
    }

    /// Builds the graph anew from the vectors, without the traces of removals. Searches, additions and removals go on
    /// meanwhile; only at the end, while the new graph gets the last of what came since, additions and removals must not
    /// run: `hold` is called then, and what it returns is dropped when the new graph is in its place.
    ///
    /// # Errors
    /// What usearch says; the old graph stays then.
    pub fn rebuild<G>(&self, hold: impl FnOnce() -> G) -> Result<(), Error> {
        // The threads that all share would keep requests waiting for as long as this takes.
        let pool = rayon::ThreadPoolBuilder::new().thread_name(|at| format!("rebuild {at}")).build();
        let pool = pool.map_err(|error| Error::Graph { action: "be rebuilt", reason: error.to_string() })?;
        let graph = Graph::new(self.dimension, &self.options, self.read_vectors().len())?;
        let mut new = Rebuilt { graph, unreached: RoaringTreemap::new(), blocks: Vec::new() };
        pool.install(|| {
            let mut before = usize::MAX;
            loop {
                let added = self.follow(&mut new)?;
                // More will come each time where writers are faster than this.
                if added <= FEW || added >= before {
                    return Ok::<_, Error>(());
                }
                before = added;
            }
        })?;
        let _held = hold();
        self.follow(&mut new)?;
        self.take_over(new);
        Ok(())
    }

    /// Adds to a new graph what it lacks, and returns how much that was. Blocks that nobody has changed hold nothing new.
    fn follow(&self, new: &mut Rebuilt) -> Result<usize, Error> {
        let blocks = self.read_vectors().blocks.clone();
        let is_same = |at: usize, block: &Arc<Block>| new.blocks.get(at).is_some_and(|old| Arc::ptr_eq(old, block));
        let changed = blocks.iter().enumerate().filter(|(at, block)| !is_same(*at, block)).map(|(_, block)| block);
        let mut added = 0;
        for block in changed {
            let mut rows = self.rows(block);
            rows.retain(|(key, _)| !new.graph.contains(key.raw()));
            new.graph.reserve(rows.len())?;
            add_to(&new.graph, &rows)?;
            new.unreached.extend(self.unreached_of(&new.graph, &rows)?);
            added += rows.len();
        }
        new.blocks = blocks;
        Ok(added)
    }

    fn take_over(&self, new: Rebuilt) {
        let unreached = {
            let vectors = self.read_vectors();
            new.unreached.into_iter().filter(|key| vectors.contains(Key::from_raw(*key))).collect()
        };
        // Both at once: a search must not look beside the one graph for what the other does not reach.
        let mut place = self.graph.write().unwrap_or_else(PoisonError::into_inner);
        *self.unreached.write().unwrap_or_else(PoisonError::into_inner) = unreached;
        let old = std::mem::replace(&mut *place, new.graph);
        drop(place);
        // Its memory goes back while searches go on.
        drop(old);
    }

    /// The rows of a block.
    pub(super) fn rows<'b>(&self, block: &'b Block) -> Vec<(Key, &'b [f32])> {
        block.keys.iter().copied().zip(block.data.chunks_exact(self.dimension)).collect()
    }
}
