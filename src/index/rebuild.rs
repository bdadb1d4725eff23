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
    /// meanwhile; only at the end, while the new graph gets what came since, additions and removals must not run: `hold`
    /// is called then, and what it returns is dropped when the new graph is in its place.
    ///
    /// # Errors
    /// What usearch says; the old graph stays then.
    pub fn rebuild<G>(&self, hold: impl FnOnce() -> G) -> Result<(), Error> {
        let blocks = self.read_vectors().blocks.clone();
        let graph = Graph::new(self.dimension, &self.options, blocks.iter().map(|block| block.keys.len()).sum())?;
        let mut unreached = RoaringTreemap::new();
        for block in &blocks {
            add_to(&graph, &self.rows(block))?;
        }
        for block in &blocks {
            unreached.extend(self.unreached_of(&graph, &self.rows(block))?);
        }

        let _held = hold();
        // Blocks that nobody has changed since hold nothing new.
        let now = self.read_vectors().blocks.clone();
        let is_same = |at: usize, block: &Arc<Block>| blocks.get(at).is_some_and(|old| Arc::ptr_eq(old, block));
        let changed = now.iter().enumerate().filter(|(at, block)| !is_same(*at, block)).map(|(_, block)| block);
        let late: Vec<_> =
            changed.flat_map(|block| self.rows(block)).filter(|(key, _)| !graph.contains(key.raw())).collect();
        graph.reserve(late.len())?;
        add_to(&graph, &late)?;
        unreached.extend(self.unreached_of(&graph, &late)?);
        let unreached = {
            let vectors = self.read_vectors();
            unreached.into_iter().filter(|key| vectors.contains(Key::from_raw(*key))).collect()
        };
        // Both at once: a search must not look beside the one graph for what the other does not reach.
        let mut place = self.graph.write().unwrap_or_else(PoisonError::into_inner);
        *self.unreached.write().unwrap_or_else(PoisonError::into_inner) = unreached;
        let old = std::mem::replace(&mut *place, graph);
        drop(place);
        // Its memory goes back while searches go on.
        drop(old);
        Ok(())
    }

    /// The rows of a block.
    pub(super) fn rows<'b>(&self, block: &'b Block) -> Vec<(Key, &'b [f32])> {
        block.keys.iter().copied().zip(block.data.chunks_exact(self.dimension)).collect()
    }
}
