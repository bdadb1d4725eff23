//! Searching: by the graph, and by comparing with every vector.

use std::sync::{Arc, PoisonError};

use roaring::RoaringTreemap;

use super::exact::{self, Snapshot};
use super::key::Key;
use super::searcher::dot;
use super::vectors::Vectors;
use super::{Error, Index, Neighbour};
use crate::onnx::BLOCK_ROWS;

/// How many times as wide the graph is searched again where its candidates were of too few documents.
const WIDER: usize = 4;

impl Index {
    /// The `k` nearest documents that the graph finds while it keeps `expansion` candidates, best first.
    ///
    /// A filter that few documents match is answered by exact search over them, never by walking the graph in vain;
    /// so is one for which the graph comes back with too few.
    ///
    /// # Errors
    /// A query of another size or not finite; what usearch says.
    pub fn search(
        &self,
        query: &[f32],
        k: usize,
        expansion: usize,
        filter: Option<&RoaringTreemap>,
    ) -> Result<Vec<Neighbour>, Error> {
        let (documents, rows) = {
            let vectors = self.read_vectors();
            (vectors.documents(), vectors.len())
        };
        let matching = filter.map_or(documents, |filter| usize::try_from(filter.len()).unwrap_or(usize::MAX));
        let selective = filter.is_some()
            && matching.saturating_mul(100) <= documents.saturating_mul(self.options.filter_exact_percent);
        if selective || k >= matching {
            return Ok(self.exact(std::slice::from_ref(&query), k, filter)?.pop().unwrap_or_default());
        }
        let query = self.prepare(0, query)?;
        // The graph ranks by coarser vectors: a few more than asked for, so that a deep page loses none at its end. It
        // counts vectors, of which a document may have several.
        let vectors_wanted = k.saturating_add(k / 8).saturating_mul(rows.div_ceil(documents.max(1)));
        let mut candidates = expansion.max(vectors_wanted);
        loop {
            let mut found = self.walk(&query, candidates, filter)?;
            if found.len() >= k {
                found.sort_unstable_by(exact::by_score);
                found.truncate(k);
                return Ok(found);
            }
            candidates = candidates.saturating_mul(WIDER);
            if rows == documents || candidates >= rows {
                return Ok(self.exact(&[&query], k, filter)?.pop().unwrap_or_default());
            }
        }
    }

    /// The documents of the vectors that a walk of the graph ends at, and of those that none reaches, in no order.
    fn walk(&self, query: &[f32], candidates: usize, filter: Option<&RoaringTreemap>) -> Result<Vec<Neighbour>, Error> {
        let graph = self.read_graph();
        let vectors = self.read_vectors();
        let wanted = |key: u64| {
            let key = Key::from_raw(key);
            filter.is_none_or(|filter| filter.contains(key.sequence())) && vectors.contains(key)
        };
        let every_node = filter.is_none() && graph.len() == vectors.len();
        let mut keys = graph.search(query, candidates, if every_node { None } else { Some(&wanted) })?;
        let unreached = self.unreached.read().unwrap_or_else(PoisonError::into_inner);
        let walked = keys.len();
        keys.extend(unreached.iter().filter(|key| wanted(*key)));
        if vectors.is_chunked() {
            return Ok(best_of_documents(&vectors, query, &keys));
        }
        if keys.len() > walked {
            // One that only this query reaches is there twice.
            keys.sort_unstable();
            keys.dedup();
        }
        let scored = |key| {
            let key = Key::from_raw(key);
            vectors.get(key).map(|vector| Neighbour::new(key, dot(query, vector)))
        };
        Ok(keys.into_iter().filter_map(scored).collect())
    }

    /// The `k` nearest of all documents, or of those that `filter` holds, for each query; best first.
    ///
    /// # Errors
    /// A query of another size or not finite; what the runtime says.
    pub fn exact<Q: AsRef<[f32]>>(
        &self,
        queries: &[Q],
        k: usize,
        filter: Option<&RoaringTreemap>,
    ) -> Result<Vec<Vec<Neighbour>>, Error> {
        let mut rows = Vec::with_capacity(queries.len() * self.dimension);
        for query in queries {
            rows.extend(self.prepare(0, query.as_ref())?);
        }
        let (snapshot, filter) = {
            let vectors = self.read_vectors();
            let most = if vectors.is_chunked() { vectors.most() } else { 1 };
            match filter {
                // Few documents: they are looked up, the rest is not even touched.
                Some(filter) if filter.len().saturating_mul(most as u64) <= BLOCK_ROWS as u64 => {
                    (Snapshot { blocks: vec![Arc::new(vectors.gather(filter))], most }, None)
                }
                _ => (Snapshot { blocks: vectors.blocks.clone(), most }, filter),
            }
        };
        let mut top_k = self.top_k.lock().unwrap_or_else(PoisonError::into_inner);
        exact::search(&mut top_k, self.dimension, &snapshot, &rows, k, filter)
    }
}

/// The documents of some vectors, each with the score of its best one, whether or not that is among `keys`.
fn best_of_documents(vectors: &Vectors, query: &[f32], keys: &[u64]) -> Vec<Neighbour> {
    let mut sequences: Vec<u64> = keys.iter().map(|key| Key::from_raw(*key).sequence()).collect();
    sequences.sort_unstable();
    sequences.dedup();
    let best = |sequence| {
        let scored = vectors.pieces(sequence).map(|(key, vector)| Neighbour::new(key, dot(query, vector)));
        scored.reduce(|best, other| if other.score > best.score { other } else { best })
    };
    sequences.into_iter().filter_map(best).collect()
}
