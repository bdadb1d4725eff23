//! The vectors themselves, in blocks that searches read without a lock.

use std::collections::HashMap;
use std::sync::Arc;

use roaring::RoaringTreemap;

use crate::onnx::BLOCK_ROWS;

/// Rows of keys and vectors.
#[derive(Debug, Clone, Default)]
pub(super) struct Block {
    pub(super) keys: Vec<u64>,
    /// [keys, dimension], row-major.
    pub(super) data: Vec<f32>,
}

/// Every vector of an index by key. Cloning `blocks` takes a snapshot: a writer copies a block that a reader holds.
#[derive(Debug)]
pub(super) struct Vectors {
    dimension: usize,
    pub(super) blocks: Vec<Arc<Block>>,
    rows: HashMap<u64, usize>,
}

impl Vectors {
    pub(super) fn new(dimension: usize) -> Self {
        Self { dimension, blocks: Vec::new(), rows: HashMap::new() }
    }

    pub(super) fn len(&self) -> usize {
        self.rows.len()
    }

    pub(super) fn contains(&self, key: u64) -> bool {
        self.rows.contains_key(&key)
    }

    pub(super) fn get(&self, key: u64) -> Option<&[f32]> {
        let row = *self.rows.get(&key)?;
        self.blocks.get(row / BLOCK_ROWS)?.data.chunks_exact(self.dimension).nth(row % BLOCK_ROWS)
    }

    /// The vectors of some keys, in a block of their own; keys that are not there are passed over.
    pub(super) fn gather(&self, keys: &RoaringTreemap) -> Block {
        let mut chosen = Block::default();
        for key in keys {
            if let Some(vector) = self.get(key) {
                chosen.keys.push(key);
                chosen.data.extend_from_slice(vector);
            }
        }
        chosen
    }

    /// Appends a vector; a key that is there already keeps its old one and false comes back.
    pub(super) fn push(&mut self, key: u64, vector: &[f32]) -> bool {
        let row = self.len();
        if self.rows.contains_key(&key) {
            return false;
        }
        if row.is_multiple_of(BLOCK_ROWS) && self.blocks.len() * BLOCK_ROWS == row {
            self.blocks.push(Arc::new(Block::default()));
        }
        if let Some(block) = self.blocks.get_mut(row / BLOCK_ROWS) {
            let block = Arc::make_mut(block);
            block.keys.push(key);
            block.data.extend_from_slice(vector);
        }
        self.rows.insert(key, row);
        true
    }

    /// Removes a vector: the last one moves into its row.
    pub(super) fn remove(&mut self, key: u64) -> bool {
        let Some(row) = self.rows.remove(&key) else { return false };
        let last = self.rows.len();
        let Some(block) = self.blocks.get_mut(last / BLOCK_ROWS) else { return false };
        let block = Arc::make_mut(block);
        let Some(moved) = block.keys.pop() else { return false };
        let vector = block.data.split_off(block.keys.len() * self.dimension);
        if block.keys.is_empty() {
            self.blocks.pop();
        }
        if row != last {
            if let Some(block) = self.blocks.get_mut(row / BLOCK_ROWS) {
                let block = Arc::make_mut(block);
                let place = row % BLOCK_ROWS;
                block.keys[place] = moved;
                block.data[place * self.dimension..(place + 1) * self.dimension].copy_from_slice(&vector);
            }
            self.rows.insert(moved, row);
        }
        true
    }

    /// Bytes that the vectors take.
    pub(super) fn bytes(&self) -> usize {
        self.len() * (self.dimension * 4 + 8 + 24)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn vectors_behave_like_a_map(steps in prop::collection::vec((any::<bool>(), 0_u64..40), 0..200)) {
            let mut vectors = Vectors::new(2);
            let mut model = BTreeMap::new();
            for (step, (add, key)) in steps.into_iter().enumerate() {
                if add {
                    let vector = vec![step as f32, key as f32];
                    prop_assert_eq!(vectors.push(key, &vector), !model.contains_key(&key));
                    model.entry(key).or_insert(vector);
                } else {
                    prop_assert_eq!(vectors.remove(key), model.remove(&key).is_some());
                }
            }
            prop_assert_eq!(vectors.len(), model.len());
            for (key, vector) in &model {
                prop_assert_eq!(vectors.get(*key), Some(vector.as_slice()));
            }
            let mut stored: Vec<u64> = vectors.blocks.iter().flat_map(|block| block.keys.clone()).collect();
            stored.sort_unstable();
            prop_assert_eq!(stored, model.keys().copied().collect::<Vec<_>>());
        }
    }

    #[test]
    fn a_snapshot_keeps_what_it_saw() {
        let mut vectors = Vectors::new(1);
        vectors.push(1, &[1.0]);
        vectors.push(2, &[2.0]);
        let snapshot = vectors.blocks.clone();
        vectors.remove(1);
        assert_eq!(snapshot[0].keys, [1, 2]);
        assert_eq!(vectors.blocks[0].keys, [2]);
    }
}
