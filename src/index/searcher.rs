//! The index: a graph and the vectors behind it, changed and searched together.

use std::sync::{Mutex, PoisonError, RwLock};

use rayon::prelude::*;
use roaring::RoaringTreemap;

use super::Error;
use super::graph::Graph;
use super::key::Key;
use super::vectors::Vectors;
use crate::onnx::{Runtime, TopK};
use crate::settings::{Quantization, Settings, Similarity, VectorType};

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

/// A document and how near it is.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Neighbour {
    /// The document's sequence number.
    pub key: u64,
    /// Which of its pieces is the nearest, from 0.
    pub chunk: u16,
    /// The inner product, or the cosine, of that piece.
    pub score: f32,
}

impl Neighbour {
    pub(super) fn new(key: Key, score: f32) -> Self {
        Self { key: key.sequence(), chunk: key.chunk(), score }
    }
}

/// Vectors by document, searched by many threads while others add and remove.
///
/// A document's key is its sequence number. It has one vector, or one for each of its pieces; the best scores it.
#[derive(Debug)]
pub struct Index {
    pub(super) dimension: usize,
    pub(super) similarity: Similarity,
    pub(super) options: IndexOptions,
    pub(super) graph: RwLock<Graph>,
    pub(super) vectors: RwLock<Vectors>,
    /// Raw keys of vectors that the graph holds but does not reach; every search scores them exactly.
    pub(super) unreached: RwLock<RoaringTreemap>,
    pub(super) top_k: Mutex<TopK>,
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

    /// Documents in the index.
    pub fn count(&self) -> usize {
        self.read_vectors().documents()
    }

    /// Bytes of memory that graph and vectors take.
    pub fn bytes(&self) -> usize {
        self.read_graph().bytes() + self.read_vectors().bytes()
    }

    /// The vector of a document's piece as it is compared: of length 1 where the similarity is the cosine.
    pub fn vector(&self, key: u64, chunk: u16) -> Option<Vec<f32>> {
        self.read_vectors().get(Key::new(key, chunk)?).map(<[f32]>::to_vec)
    }

    /// Adds documents, found by search when it returns. Vectors whose key is the same and that stand next to each other
    /// are the pieces of one document, in their order. Documents that are there already are passed over.
    ///
    /// # Errors
    /// A vector that does not fit or is not finite, a graph that cannot take it: then none of the call is added.
    pub fn add(&self, keys: &[u64], vectors: &[Vec<f32>]) -> Result<(), Error> {
        let prepared = self.add_unverified(keys, vectors)?;
        let rows: Vec<(Key, &[f32])> = numbered(keys)?.into_iter().zip(prepared.iter().map(Vec::as_slice)).collect();
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
        let keys = numbered(keys)?;
        let graph = self.read_graph();
        graph.reserve(keys.len())?;
        let rows = keys.iter().copied().zip(prepared.iter().map(Vec::as_slice));
        let rows: Vec<(Key, &[f32])> = {
            let mut stored = self.vectors.write().unwrap_or_else(PoisonError::into_inner);
            let mut is_new = false;
            rows.filter(|(key, vector)| {
                // The first piece decides for those that follow it.
                is_new = (key.is_first() || is_new) && stored.push(*key, vector);
                is_new
            })
            .collect()
        };
        let added = add_to(&graph, &rows);
        if added.is_err() {
            // A vector that the graph does not hold would never be found, and never be added again.
            for (key, _) in &rows {
                // The failure of the addition is the one to tell; a key that the graph never took is no matter.
                let _ = graph.remove(key.raw());
                self.vectors.write().unwrap_or_else(PoisonError::into_inner).remove(*key);
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

    /// Removes documents with all their vectors; keys that are not there are passed over. A key that was removed is never
    /// added again.
    ///
    /// Their nodes stay in the graph, where walks go through them but never end at them, until it is rebuilt.
    pub fn remove(&self, keys: &[u64]) {
        let mut vectors = self.vectors.write().unwrap_or_else(PoisonError::into_inner);
        let mut unreached = self.unreached.write().unwrap_or_else(PoisonError::into_inner);
        for &key in keys {
            let mut pieces = (0..=u16::MAX).map_while(|chunk| Key::new(key, chunk));
            while let Some(piece) = pieces.next().filter(|piece| vectors.remove(*piece)) {
                unreached.remove(piece.raw());
            }
        }
    }

    pub(super) fn read_graph(&self) -> std::sync::RwLockReadGuard<'_, Graph> {
        self.graph.read().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn read_vectors(&self) -> std::sync::RwLockReadGuard<'_, Vectors> {
        self.vectors.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// A vector checked and, for the cosine, brought to length 1.
    pub(super) fn prepare(&self, key: u64, vector: &[f32]) -> Result<Vec<f32>, Error> {
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

/// The keys of vectors under these sequences.
fn numbered(sequences: &[u64]) -> Result<Vec<Key>, Error> {
    Key::number(sequences.iter().copied()).map(|(sequence, key)| key.ok_or(Error::Key { key: sequence })).collect()
}

/// Adds vectors to a graph with room for them, many at once where the graph is large enough for it.
pub(super) fn add_to(graph: &Graph, rows: &[(Key, &[f32])]) -> Result<(), Error> {
    let add = |(key, vector): &(Key, &[f32])| graph.add(key.raw(), vector);
    let at_once =
        if rows.len() < LEAST_PARALLEL { 0 } else { rows.len().saturating_sub(FIRST.saturating_sub(graph.len())) };
    let (first, rest) = rows.split_at(rows.len() - at_once);
    let added = first.iter().try_for_each(add).and_then(|()| rest.par_iter().try_for_each(add));
    graph.measure();
    added
}

/// The inner product, in lanes that the compiler keeps in vector registers.
pub(crate) fn dot(a: &[f32], b: &[f32]) -> f32 {
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
