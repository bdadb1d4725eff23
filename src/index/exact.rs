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

/// The `k` nearest of all vectors in a snapshot for each query; `queries` is [n, dimension].
pub(super) fn search(
    top_k: &mut TopK,
    dimension: usize,
    blocks: &[Arc<Block>],
    queries: &[f32],
    k: usize,
    filter: Option<&RoaringTreemap>,
) -> Result<Vec<Vec<Neighbour>>, Error> {
    let mut results = Vec::with_capacity(queries.len() / dimension);
    for queries in queries.chunks(QUERIES * dimension) {
        let mut best: Vec<Vec<Neighbour>> = vec![Vec::new(); queries.len() / dimension];
        let mut compare = |block: &Block| -> Result<(), Error> {
            top_k.run(queries, &block.data, k, |query, row, score| {
                best[query].push(Neighbour { key: block.keys[row], score });
            })?;
            for neighbours in &mut best {
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

/// Hands the vectors whose keys `filter` holds to `compare`, in blocks of their own.
fn gathered(
    blocks: &[Arc<Block>],
    dimension: usize,
    filter: &RoaringTreemap,
    compare: &mut dyn FnMut(&Block) -> Result<(), Error>,
) -> Result<(), Error> {
    let mut chosen = Block::default();
    for block in blocks {
        for (key, vector) in block.keys.iter().zip(block.data.chunks_exact(dimension)) {
            if filter.contains(*key) {
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
