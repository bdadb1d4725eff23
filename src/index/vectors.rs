//! The vectors themselves, in blocks that searches read without a lock.

use std::collections::HashMap;
use std::sync::Arc;

use roaring::RoaringTreemap;

use super::key::Key;
use crate::onnx::BLOCK_ROWS;

/// Rows of keys and vectors.
#[derive(Debug, Clone, Default)]
pub(super) struct Block {
    pub(super) keys: Vec<Key>,
    /// [keys, dimension], row-major.
    pub(super) data: Vec<f32>,
}

/// Every vector of an index by key. Cloning `blocks` takes a snapshot: a writer copies a block that a reader holds.
#[derive(Debug)]
pub(super) struct Vectors {
    dimension: usize,
    pub(super) blocks: Vec<Arc<Block>>,
    rows: HashMap<Key, usize>,
    documents: usize,
    most: usize,
}

impl Vectors {
    pub(super) fn new(dimension: usize) -> Self {
        Self { dimension, blocks: Vec::new(), rows: HashMap::new(), documents: 0, most: 1 }
    }

    pub(super) fn len(&self) -> usize {
        self.rows.len()
    }

    /// Documents, each of one or several vectors.
    pub(super) fn documents(&self) -> usize {
        self.documents
    }

    /// Whether a document has several vectors.
    pub(super) fn is_chunked(&self) -> bool {
        self.documents != self.rows.len()
    }

    /// The most vectors that a document ever had.
    pub(super) fn most(&self) -> usize {
        self.most
    }

    pub(super) fn contains(&self, key: Key) -> bool {
        self.rows.contains_key(&key)
    }

    pub(super) fn get(&self, key: Key) -> Option<&[f32]> {
        let row = *self.rows.get(&key)?;
        self.blocks.get(row / BLOCK_ROWS)?.data.chunks_exact(self.dimension).nth(row % BLOCK_ROWS)
    }

    /// The vectors of a document, piece by piece.
    pub(super) fn pieces(&self, sequence: u64) -> impl Iterator<Item = (Key, &[f32])> {
        let key = move |chunk| Key::new(sequence, chunk);
        (0..=u16::MAX).map_while(move |chunk| key(chunk).and_then(|key| Some((key, self.get(key)?))))
    }

    /// The vectors of some documents, in a block of their own; those that are not there are passed over.
    pub(super) fn gather(&self, sequences: &RoaringTreemap) -> Block {
        let mut chosen = Block::default();
        for (key, vector) in sequences.iter().flat_map(|sequence| self.pieces(sequence)) {
            chosen.keys.push(key);
            chosen.data.extend_from_slice(vector);
        }
        chosen
    }

    /// Appends a vector; a key that is there already keeps its old one and false comes back.
    pub(super) fn push(&mut self, key: Key, vector: &[f32]) -> bool {
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
        self.documents += usize::from(key.is_first());
        self.most = self.most.max(usize::from(key.chunk()) + 1);
        true
    }

    /// Removes a vector: the last one moves into its row.
    pub(super) fn remove(&mut self, key: Key) -> bool {
        let Some(row) = self.rows.remove(&key) else { return false };
        self.documents -= usize::from(key.is_first());
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
        fn vectors_behave_like_a_map(steps in prop::collection::vec((any::<bool>(), 0_u64..20, 0_u16..2), 0..200)) {
            let mut vectors = Vectors::new(2);
            let mut model = BTreeMap::new();
            for (step, (add, sequence, chunk)) in steps.into_iter().enumerate() {
                let key = Key::new(sequence, chunk).unwrap();
                if add {
                    let vector = vec![step as f32, sequence as f32];
                    prop_assert_eq!(vectors.push(key, &vector), !model.contains_key(&key));
                    model.entry(key).or_insert(vector);
                } else {
                    prop_assert_eq!(vectors.remove(key), model.remove(&key).is_some());
                }
            }
            prop_assert_eq!(vectors.len(), model.len());
            prop_assert_eq!(vectors.documents(), model.keys().filter(|key| key.is_first()).count());
            for (key, vector) in &model {
                prop_assert_eq!(vectors.get(*key), Some(vector.as_slice()));
            }
            let mut stored: Vec<Key> = vectors.blocks.iter().flat_map(|block| block.keys.clone()).collect();
            stored.sort_unstable();
            prop_assert_eq!(stored, model.keys().copied().collect::<Vec<_>>());
        }
    }

    #[test]
    fn a_snapshot_keeps_what_it_saw() {
        let mut vectors = Vectors::new(1);
        let [one, two] = [1, 2].map(|sequence| Key::new(sequence, 0).unwrap());
        vectors.push(one, &[1.0]);
        vectors.push(two, &[2.0]);
        let snapshot = vectors.blocks.clone();
        vectors.remove(one);
        assert_eq!(snapshot[0].keys, [one, two]);
        assert_eq!(vectors.blocks[0].keys, [two]);
    }
}
