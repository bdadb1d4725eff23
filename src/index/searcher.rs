//! The index: a graph and the vectors behind it, changed and searched together.

use std::sync::{Arc, Mutex, PoisonError, RwLock};

use rayon::prelude::*;
use roaring::RoaringTreemap;

use super::graph::Graph;
use super::vectors::Vectors;
use super::{Error, exact};
use crate::onnx::{BLOCK_ROWS, Runtime, TopK};
use crate::settings::{Quantization, Settings, Similarity, VectorType};

/// Share of removed vectors, in percent of those there, past which the graph is worth building anew.
const REBUILD_PERCENT: usize = 25;

/// Vectors that a graph gets one after the other: those that enter a small one together do not see each other, and some
/// would end without an edge that leads to them.
const FIRST: usize = 1024;
/// Fewer vectors than this are added one after the other.
const LEAST_PARALLEL: usize = 32;

/// How an index is built and kept.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct IndexOptions {
    /// Edges a node has (M of the HNSW paper).
    pub connectivity: usize,
    /// Candidates kept while a vector is added (efConstruction).
    pub expansion_add: usize,
    /// How the graph stores vectors.
    pub quantization: Quantization,
    /// How the vectors file stores vectors.
    pub vectors: VectorType,
    /// A filter that at most this share of the documents match, in percent, is answered by exact search.
    pub filter_exact_percent: usize,
}

impl From<&Settings> for IndexOptions {
    fn from(settings: &Settings) -> Self {
        Self {
            connectivity: settings.connectivity,
            expansion_add: settings.expansion_add,
            quantization: settings.quantization,
            vectors: settings.vectors,
            filter_exact_percent: settings.filter_exact_percent,
        }
    }
}

/// A key and how near it is.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Neighbour {
    /// The document's sequence number.
    pub key: u64,
    /// The inner product, or the cosine.
    pub score: f32,
}

/// Vectors by key, searched by many threads while others add and remove.
#[derive(Debug)]
pub struct Index {
    pub(super) dimension: usize,
    pub(super) similarity: Similarity,
    pub(super) options: IndexOptions,
    pub(super) graph: RwLock<Graph>,
    pub(super) vectors: RwLock<Vectors>,
    /// Keys that the graph holds but does not reach; every search scores them exactly.
    pub(super) unreached: RwLock<RoaringTreemap>,
    top_k: Mutex<TopK>,
}

impl Index {
    /// An empty index with room for `capacity` vectors of `dimension` components.
    ///
    /// # Errors
    /// What usearch or the runtime says.
    pub fn new(
        dimension: usize,
        similarity: Similarity,
        options: IndexOptions,
        capacity: usize,
        runtime: &Runtime,
    ) -> Result<Self, Error> {
        let graph = Graph::new(dimension, &options, capacity)?;
        Self::from_parts(dimension, similarity, options, graph, Vectors::new(dimension), runtime)
    }

    pub(super) fn from_parts(
        dimension: usize,
        similarity: Similarity,
        options: IndexOptions,
        graph: Graph,
        vectors: Vectors,
        runtime: &Runtime,
    ) -> Result<Self, Error> {
        Ok(Self {
            dimension,
            similarity,
            options,
            graph: RwLock::new(graph),
            vectors: RwLock::new(vectors),
            unreached: RwLock::default(),
            top_k: Mutex::new(TopK::new(runtime, dimension)?),
        })
    }

    /// Components of a vector.
    pub fn dimension(&self) -> usize {
        self.dimension
    }

    /// How vectors are compared.
    pub fn similarity(&self) -> Similarity {
        self.similarity
    }

    /// Vectors in the index.
    pub fn count(&self) -> usize {
        self.read_vectors().len()
    }

    /// Bytes of memory that graph and vectors take.
    pub fn bytes(&self) -> usize {
        self.read_graph().bytes() + self.read_vectors().bytes()
    }

    /// A vector as it is compared: of length 1 where the similarity is the cosine.
    pub fn vector(&self, key: u64) -> Option<Vec<f32>> {
        self.read_vectors().get(key).map(<[f32]>::to_vec)
    }

    /// Adds vectors, found by search when it returns; keys that are there already are passed over.
    ///
    /// # Errors
    /// A vector that does not fit or is not finite, a graph that cannot take it: then none of the call is added.
    pub fn add(&self, keys: &[u64], vectors: &[Vec<f32>]) -> Result<(), Error> {
        let prepared = self.add_unverified(keys, vectors)?;
        let rows: Vec<(u64, &[f32])> = keys.iter().copied().zip(prepared.iter().map(Vec::as_slice)).collect();
        self.note_unreached(&self.read_graph(), &rows)
    }

    /// As [`add`](Self::add), for many: a graph may not reach some of them until [`verify`](Self::verify) looked.
    /// Returns the vectors as they are compared.
    ///
    /// # Errors
    /// As [`add`](Self::add).
    pub fn add_unverified(&self, keys: &[u64], vectors: &[Vec<f32>]) -> Result<Vec<Vec<f32>>, Error> {
        let prepared: Vec<Vec<f32>> =
            keys.iter().zip(vectors).map(|(&key, vector)| self.prepare(key, vector)).collect::<Result<_, _>>()?;
        let graph = self.read_graph();
        graph.reserve(keys.len())?;
        let fresh: Vec<bool> = {
            let mut stored = self.vectors.write().unwrap_or_else(PoisonError::into_inner);
            keys.iter().zip(&prepared).map(|(&key, vector)| stored.push(key, vector)).collect()
        };
        let rows = keys.iter().zip(&prepared).zip(&fresh);
        let rows: Vec<_> =
            rows.filter(|(_, fresh)| **fresh).map(|((key, vector), _)| (*key, vector.as_slice())).collect();
        let added = add_to(&graph, &rows);
        if added.is_err() {
            // A vector that the graph does not hold would never be found, and never be added again.
            for (&key, _) in keys.iter().zip(&fresh).filter(|(_, fresh)| **fresh) {
                // The failure of the addition is the one to tell; a key that the graph never took is no matter.
                let _ = graph.remove(key);
                self.vectors.write().unwrap_or_else(PoisonError::into_inner).remove(key);
            }
        }
        added.map(|()| prepared)
    }

    /// Whether [`add`](Self::add) would take these vectors: of the index's size, finite, of a length that it can hold.
    ///
    /// # Errors
    /// The first that does not fit; its place in `vectors` stands for the key.
    pub fn check(&self, vectors: &[Vec<f32>]) -> Result<(), Error> {
        vectors.iter().zip(0..).try_for_each(|(vector, place)| self.prepare(place, vector).map(drop))
    }

    /// Removes vectors; keys that are not there are passed over. A key that was removed is never added again.
    ///
    /// Their nodes stay in the graph, where walks go through them but never end at them, until it is rebuilt.
    pub fn remove(&self, keys: &[u64]) {
        let mut vectors = self.vectors.write().unwrap_or_else(PoisonError::into_inner);
        let mut unreached = self.unreached.write().unwrap_or_else(PoisonError::into_inner);
        for &key in keys {
            vectors.remove(key);
            unreached.remove(key);
        }
    }

    /// Nodes of the graph whose vectors were removed.
    fn removed(&self) -> usize {
        let nodes = self.read_graph().len();
        nodes.saturating_sub(self.count())
    }

    /// The `k` nearest that the graph finds while it keeps `expansion` candidates, best first.
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
        let count = self.count();
        let matching = filter.map_or(count, |filter| usize::try_from(filter.len()).unwrap_or(usize::MAX));
        let selective =
            filter.is_some() && matching.saturating_mul(100) <= count.saturating_mul(self.options.filter_exact_percent);
        if selective || k >= matching {
            return Ok(self.exact(std::slice::from_ref(&query), k, filter)?.pop().unwrap_or_default());
        }
        let query = self.prepare(0, query)?;
        // The graph ranks by coarser vectors: a few more than asked for, so that a deep page loses none at its end.
        let candidates = expansion.max(k.saturating_add(k / 8));
        let mut found: Vec<Neighbour> = {
            let graph = self.read_graph();
            let vectors = self.read_vectors();
            let wanted = |key: u64| filter.is_none_or(|filter| filter.contains(key)) && vectors.contains(key);
            let every_node = filter.is_none() && graph.len() == vectors.len();
            let mut keys = graph.search(&query, candidates, if every_node { None } else { Some(&wanted) })?;
            let unreached = self.unreached.read().unwrap_or_else(PoisonError::into_inner);
            let walked = keys.len();
            keys.extend(unreached.iter().filter(|key| wanted(*key)));
            if keys.len() > walked {
                // One that only this query reaches is there twice.
                keys.sort_unstable();
                keys.dedup();
            }
            let scored = |key| vectors.get(key).map(|vector| Neighbour { key, score: dot(&query, vector) });
            keys.into_iter().filter_map(scored).collect()
        };
        if found.len() < k {
            return Ok(self.exact(&[&query], k, filter)?.pop().unwrap_or_default());
        }
        found.sort_unstable_by(exact::by_score);
        found.truncate(k);
        Ok(found)
    }

    /// The `k` nearest of all vectors, or of those that `filter` holds, for each query; best first.
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
        let (blocks, filter) = {
            let vectors = self.read_vectors();
            match filter {
                // Few documents: they are looked up, the rest is not even touched.
                Some(filter) if filter.len() <= BLOCK_ROWS as u64 => (vec![Arc::new(vectors.gather(filter))], None),
                _ => (vectors.blocks.clone(), filter),
            }
        };
        let mut top_k = self.top_k.lock().unwrap_or_else(PoisonError::into_inner);
        exact::search(&mut top_k, self.dimension, &blocks, &rows, k, filter)
    }

    /// Whether so many vectors were removed that the graph finds less than it should.
    pub fn wants_rebuild(&self) -> bool {
        let removed = self.removed();
        removed >= 1000 && removed * 100 > self.count() * REBUILD_PERCENT
    }

    /// Builds the graph anew from the vectors, without the traces of removals. Searches go on with the old one;
    /// additions and removals must not run meanwhile.
    ///
    /// # Errors
    /// What usearch says; the old graph stays then.
    pub fn rebuild(&self) -> Result<(), Error> {
        let blocks = self.read_vectors().blocks.clone();
        let count = blocks.iter().map(|block| block.keys.len()).sum();
        let graph = Graph::new(self.dimension, &self.options, count)?;
        for block in &blocks {
            let rows: Vec<_> = block.keys.iter().copied().zip(block.data.chunks_exact(self.dimension)).collect();
            add_to(&graph, &rows)?;
        }
        *self.graph.write().unwrap_or_else(PoisonError::into_inner) = graph;
        self.verify()
    }

    pub(super) fn read_graph(&self) -> std::sync::RwLockReadGuard<'_, Graph> {
        self.graph.read().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn read_vectors(&self) -> std::sync::RwLockReadGuard<'_, Vectors> {
        self.vectors.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// A vector checked and, for the cosine, brought to length 1.
    fn prepare(&self, key: u64, vector: &[f32]) -> Result<Vec<f32>, Error> {
        if vector.len() != self.dimension {
            return Err(Error::Dimension { got: vector.len(), wanted: self.dimension });
        }
        if vector.iter().any(|value| !value.is_finite()) {
            return Err(Error::NotFinite { key });
        }
        let length = dot(vector, vector).sqrt();
        if self.similarity == Similarity::Cosine {
            let length = length.max(1e-12);
            return Ok(vector.iter().map(|value| value / length).collect());
        }
        if self.options.quantization == Quantization::I8 && (length - 1.0).abs() > 1e-2 {
            return Err(Error::NotUnit { key, length });
        }
        Ok(vector.to_vec())
    }
}

/// Adds vectors to a graph with room for them, many at once where the graph is large enough for it.
fn add_to(graph: &Graph, rows: &[(u64, &[f32])]) -> Result<(), Error> {
    let add = |(key, vector): &(u64, &[f32])| graph.add(*key, vector);
    let at_once =
        if rows.len() < LEAST_PARALLEL { 0 } else { rows.len().saturating_sub(FIRST.saturating_sub(graph.len())) };
    let (first, rest) = rows.split_at(rows.len() - at_once);
    first.iter().try_for_each(add)?;
    rest.par_iter().try_for_each(add)
}

/// The inner product, in lanes that the compiler keeps in vector registers.
pub(super) fn dot(a: &[f32], b: &[f32]) -> f32 {
    const LANES: usize = 16;
    let mut sums = [0.0_f32; LANES];
    let (chunks_a, chunks_b) = (a.chunks_exact(LANES), b.chunks_exact(LANES));
    let rest: f32 = chunks_a.remainder().iter().zip(chunks_b.remainder()).map(|(a, b)| a * b).sum();
    for (a, b) in chunks_a.zip(chunks_b) {
        for ((sum, a), b) in sums.iter_mut().zip(a).zip(b) {
            *sum += a * b;
        }
    }
    rest + sums.iter().sum::<f32>()
}
