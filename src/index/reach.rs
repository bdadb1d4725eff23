//! Documents that the graph does not reach.
//!
//! An HNSW graph gives no promise that every node can be walked to: pruned links leave a few out, mostly among nearly
//! equal vectors, and no number of candidates finds those. They are looked for, by searching the graph for each vector
//! itself, and kept beside it: every search scores them exactly.

use std::sync::PoisonError;

use rayon::prelude::*;
use roaring::RoaringTreemap;

use super::graph::Graph;
use super::key::Key;
use super::searcher::dot;
use super::{Error, Index};

/// Candidates of the search by which a vector is looked for: the default of a search.
const CANDIDATES: usize = 128;
/// Scores closer than this are ties.
const TIE: f32 = 1e-6;

impl Index {
    /// Looks for every vector in the graph and notes those that it does not reach. Worth its time after many were
    /// added: later ones can cut the links to earlier ones. Additions and removals must not run meanwhile.
    ///
    /// # Errors
    /// What usearch says.
    pub fn verify(&self) -> Result<(), Error> {
        let blocks = self.read_vectors().blocks.clone();
        let graph = self.read_graph();
        let mut unreached = RoaringTreemap::new();
        for block in &blocks {
            unreached.extend(self.unreached_of(&graph, &self.rows(block))?);
        }
        *self.unreached.write().unwrap_or_else(PoisonError::into_inner) = unreached;
        Ok(())
    }

    /// Documents with a vector that only the list beside the graph finds.
    pub fn unreached(&self) -> RoaringTreemap {
        let unreached = self.unreached.read().unwrap_or_else(PoisonError::into_inner);
        unreached.iter().map(|key| Key::from_raw(key).sequence()).collect()
    }

    /// Notes those of some vectors that the graph does not reach.
    pub(super) fn note_unreached(&self, graph: &Graph, rows: &[(Key, &[f32])]) -> Result<(), Error> {
        let found = self.unreached_of(graph, rows)?;
        if !found.is_empty() {
            self.unreached.write().unwrap_or_else(PoisonError::into_inner).extend(found);
        }
        Ok(())
    }

    /// Those of some vectors that a graph does not reach, by their raw keys.
    pub(super) fn unreached_of(&self, graph: &Graph, rows: &[(Key, &[f32])]) -> Result<Vec<u64>, Error> {
        let missing = |(key, vector): &(Key, &[f32])| match self.reaches(graph, *key, vector) {
            Ok(true) => None,
            Ok(false) => Some(Ok(key.raw())),
            Err(error) => Some(Err(error)),
        };
        if rows.len() < 32 {
            rows.iter().filter_map(missing).collect()
        } else {
            rows.par_iter().filter_map(missing).collect()
        }
    }

    /// Whether a search for a vector finds it, or as many others that score no worse as it looks at.
    fn reaches(&self, graph: &Graph, key: Key, vector: &[f32]) -> Result<bool, Error> {
        let vectors = self.read_vectors();
        let found = graph.search(vector, CANDIDATES, Some(&|key| vectors.contains(Key::from_raw(key))))?;
        if found.contains(&key.raw()) {
            return Ok(true);
        }
        let own = dot(vector, vector);
        let worse = |other: &u64| {
            let other = vectors.get(Key::from_raw(*other));
            other.is_none_or(|other| dot(vector, other) < own - TIE * own.abs())
        };
        Ok(found.len() == CANDIDATES && !found.iter().any(worse))
    }
}
