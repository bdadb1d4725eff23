//! Vectors by key in a file, apart from any graph: read where the same texts would have to be encoded again.

use std::collections::hash_map::Entry;
use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::path::Path;

use memmap2::Mmap;
use safetensors::tensor::TensorView;
use safetensors::{Dtype, SafeTensors};

use super::Error;

/// The key of the header's entry that says what made the vectors.
const MAKER: &str = "anced";

/// The vectors of a file, on the disk until they are asked for.
#[derive(Debug)]
pub struct SavedVectors {
    map: Mmap,
    dimension: usize,
    /// Where the values begin.
    start: usize,
    /// The row of each key that has one vector only.
    rows: HashMap<u64, usize>,
}

impl SavedVectors {
    /// Reads what [`write`](Self::write) or an index wrote: `vectors` F32 `[n, dimension]` and `sequences` U64 `[n]`. None
    /// where they are stored in 16 bits, or where `maker` is given and the file names another one.
    ///
    /// # Errors
    /// A file that cannot be read, or that holds something else.
    pub fn open(file: &Path, maker: Option<&str>) -> Result<Option<Self>, Error> {
        let refuse = |reason: String| Error::File { file: file.to_path_buf(), reason };
        let map = crate::system::map_file(file).map_err(|error| refuse(error.to_string()))?;
        let (_, header) = SafeTensors::read_metadata(&map).map_err(|error| refuse(error.to_string()))?;
        let named = header.metadata().as_ref().and_then(|entries| entries.get(MAKER));
        if maker.is_some_and(|maker| named.is_none_or(|named| named != maker)) {
            return Ok(None);
        }
        let tensors = SafeTensors::deserialize(&map).map_err(|error| refuse(error.to_string()))?;
        let values = tensors.tensor("vectors").map_err(|error| refuse(error.to_string()))?;
        let sequences = tensors.tensor("sequences").map_err(|error| refuse(error.to_string()))?;
        let keys = sequences.data().as_chunks::<8>().0;
        let &[count, dimension] = values.shape() else {
            return Err(refuse(format!("`vectors` is of shape {:?}", values.shape())));
        };
        if sequences.dtype() != Dtype::U64 || count != keys.len() {
            return Err(refuse(format!("`vectors` holds {count} rows, `sequences` {}", keys.len())));
        }
        if values.dtype() != Dtype::F32 {
            return Ok(None);
        }
        let mut rows = HashMap::with_capacity(keys.len());
        let mut several = HashSet::new();
        for (row, key) in keys.iter().map(|key| u64::from_le_bytes(*key)).enumerate() {
            match rows.entry(key) {
                Entry::Vacant(free) => {
                    free.insert(row);
                }
                Entry::Occupied(_) => {
                    several.insert(key);
                }
            }
        }
        rows.retain(|key, _| !several.contains(key));
        let start = values.data().as_ptr() as usize - map.as_ptr() as usize;
        Ok(Some(Self { map, dimension, start, rows }))
    }

    /// Writes the vectors `[keys, dimension]` of some keys, row-major, flushed and as a whole.
    ///
    /// # Errors
    /// A file that cannot be written, values that do not fit.
    pub fn write(file: &Path, dimension: usize, keys: &[u64], values: &[f32], maker: &str) -> Result<(), Error> {
        let failed = |error: &dyn std::fmt::Display| Error::File { file: file.into(), reason: error.to_string() };
        let shape = vec![keys.len(), dimension];
        let views = [
            ("vectors", TensorView::new(Dtype::F32, shape, bytemuck::cast_slice(values))),
            ("sequences", TensorView::new(Dtype::U64, vec![keys.len()], bytemuck::cast_slice(keys))),
        ];
        let mut tensors = Vec::new();
        for (name, view) in views {
            tensors.push((name, view.map_err(|error| failed(&error))?));
        }
        let made_by = HashMap::from([(MAKER.to_owned(), maker.to_owned())]);
        let unfinished = file.with_extension("new");
        safetensors::serialize_to_file(tensors, Some(made_by), &unfinished).map_err(|error| failed(&error))?;
        File::open(&unfinished)
            .and_then(|opened| opened.sync_all())
            .and_then(|()| std::fs::rename(&unfinished, file))
            .map_err(|error| failed(&error))
    }

    /// The vector of a key; none for one that is not there or has several.
    pub fn get(&self, key: u64) -> Option<Vec<f32>> {
        let bytes = self.dimension * 4;
        let start = self.start + self.rows.get(&key)? * bytes;
        let row = self.map.get(start..start + bytes)?.as_chunks::<4>().0;
        Some(row.iter().map(|value| f32::from_le_bytes(*value)).collect())
    }

    /// Components of a vector.
    pub fn dimension(&self) -> usize {
        self.dimension
    }

    /// Keys with a vector.
    pub fn len(&self) -> usize {
        self.rows.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_vector_comes_back_by_its_key_and_several_of_one_key_do_not() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("vectors.safetensors");
        let values = [1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0];
        SavedVectors::write(&file, 2, &[9, 4, 9, 1 << 40], &values, "someone").unwrap();
        let saved = SavedVectors::open(&file, Some("someone")).unwrap().unwrap();
        assert_eq!((saved.get(4), saved.get(1 << 40)), (Some(vec![3.0, 4.0]), Some(vec![7.0, 8.0])));
        assert_eq!((saved.get(9), saved.get(5), saved.len()), (None, None, 2));
        assert!(SavedVectors::open(&file, Some("another")).unwrap().is_none());
        assert_eq!(SavedVectors::open(&file, None).unwrap().unwrap().dimension(), 2);
        std::fs::write(&file, b"cut").unwrap();
        assert!(SavedVectors::open(&file, None).is_err());
        assert!(SavedVectors::write(&file, 2, &[1], &[1.0], "someone").is_err());
    }
}
