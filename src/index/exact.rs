//! Exact search: every vector is compared, block by block, and no score matrix is larger than one block's.

use std::cmp::Ordering;
use std::sync::Arc;

use roaring::RoaringTreemap;

use super::vectors::Block;
use super::{Error, Neighbour};
use crate::onnx::{BLOCK_ROWS, TopK};

/// Queries that are compared with a block at once.
const QUERIES: usize = 256;

/// Best first; equal scores by key, so that results repeat.
pub(super) fn by_score(a: &Neighbour, b: &Neighbour) -> Ordering {
    b.score.total_cmp(&a.score).then(a.key.cmp(&b.key))
}

/// The vectors of some documents at one moment.
pub(super) struct Snapshot {
    pub(super) blocks: Vec<Arc<Block>>,
    /// The most vectors that a document has.
    pub(super) most: usize,
}

/// The `k` nearest documents of a snapshot for each query; `queries` is [n, dimension].
pub(super) fn search(
    top_k: &mut TopK,
    dimension: usize,
    snapshot: &Snapshot,
    queries: &[f32],
    k: usize,
    filter: Option<&RoaringTreemap>,
) -> Result<Vec<Vec<Neighbour>>, Error> {
    let Snapshot { blocks, most } = snapshot;
    // Above the best vector of one of the `k` best documents stand vectors of fewer than `k` others.
    let rows = k.saturating_mul(*most);
    let mut results = Vec::with_capacity(queries.len() / dimension);
    for queries in queries.chunks(QUERIES * dimension) {
        let mut best: Vec<Vec<Neighbour>> = vec![Vec::new(); queries.len() / dimension];
        let mut compare = |block: &Block| -> Result<(), Error> {
            top_k.run(queries, &block.data, rows, |query, row, score| {
                best[query].push(Neighbour::new(block.keys[row], score));
            })?;
            for neighbours in &mut best {
                if *most > 1 {
                    best_of_each(neighbours);
                }
                neighbours.sort_unstable_by(by_score);
                neighbours.truncate(k);
            }
            Ok(())
        };
        match filter {
            None => blocks.iter().try_for_each(|block| compare(block))?,
            Some(filter) => gathered(blocks, dimension, filter, &mut compare)?,
        }
        results.append(&mut best);
    }
    Ok(results)
}

/// Leaves of each document its best vector.
fn best_of_each(neighbours: &mut Vec<Neighbour>) {
    neighbours.sort_unstable_by(|a, b| a.key.cmp(&b.key).then(b.score.total_cmp(&a.score)).then(a.chunk.cmp(&b.chunk)));
    neighbours.dedup_by_key(|neighbour| neighbour.key);
}

/// Hands the vectors of the documents that `filter` holds to `compare`, in blocks of their own.
fn gathered(
    blocks: &[Arc<Block>],
    dimension: usize,
    filter: &RoaringTreemap,
    compare: &mut dyn FnMut(&Block) -> Result<(), Error>,
) -> Result<(), Error> {
    let mut chosen = Block::default();
    for block in blocks {
        for (key, vector) in block.keys.iter().zip(block.data.chunks_exact(dimension)) {
            if filter.contains(key.sequence()) {
                chosen.keys.push(*key);
                chosen.data.extend_from_slice(vector);
            }
            if chosen.keys.len() == BLOCK_ROWS {
                compare(&chosen)?;
                chosen = Block::default();
            }
        }
    }
    if chosen.keys.is_empty() { Ok(()) } else { compare(&chosen) }
}
