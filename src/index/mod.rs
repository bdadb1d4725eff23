//! Vectors in, neighbours out: HNSW (usearch) and exact.
//!
//! The graph proposes, the vectors decide: whatever the graph's quantisation, every score that leaves the room is the
//! inner product of the full vectors, so that both ways of searching give a document the same score. A document may have
//! several vectors; the best of them scores it (MaxP).

mod check;
mod error;
mod exact;
mod files;
mod graph;
mod key;
mod reach;
mod rebuild;
mod saved;
mod search;
mod searcher;
mod slots;
#[cfg(test)]
mod tests;
mod vectors;

pub use check::{Contents, contents};
pub use error::Error;
pub use files::{GRAPH_FILE, VECTORS_FILE};
pub use saved::SavedVectors;
pub(crate) use searcher::dot;
pub use searcher::{Index, IndexOptions, Neighbour};
