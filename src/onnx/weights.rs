//! Weights as they lie in safetensors files, read through a mapping and widened to 32-bit floats on demand.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use half::{bf16, f16};
use memmap2::Mmap;
use safetensors::{Dtype, SafeTensors};

use super::Error;

/// A tensor's values in row-major order.
#[derive(Debug, Clone, PartialEq)]
pub struct Tensor {
    /// Sizes, outermost first.
    pub shape: Vec<usize>,
    /// Values.
    pub data: Vec<f32>,
}

/// The tensors of a checkpoint, from one or several files.
#[derive(Debug, Default)]
pub struct Weights {
    files: Vec<(PathBuf, Mmap)>,
    entries: HashMap<String, Entry>,
}

#[derive(Debug)]
struct Entry {
    file: usize,
    dtype: Dtype,
    shape: Vec<usize>,
    range: std::ops::Range<usize>,
}

impl Weights {
    /// No tensors yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds the tensors of a safetensors file under their names with `prefix` before them.
    ///
    /// # Errors
    /// A file that cannot be read or is no safetensors file (a truncated one included).
    pub fn add_file(&mut self, path: &Path, prefix: &str) -> Result<(), Error> {
        let refuse = |reason: String| Error::File { file: path.to_path_buf(), reason };
        let map = crate::system::map_file(path).map_err(|error| refuse(error.to_string()))?;
        let start = map.as_ptr() as usize;
        let tensors = SafeTensors::deserialize(&map).map_err(|error| {
            refuse(format!("not a sound safetensors file ({error}); fetch or copy the checkpoint again"))
        })?;
        let file = self.files.len();
        for (name, view) in tensors.iter() {
            let data = view.data();
            let offset = data.as_ptr() as usize - start;
            self.entries.insert(
                format!("{prefix}{name}"),
                Entry { file, dtype: view.dtype(), shape: view.shape().to_vec(), range: offset..offset + data.len() },
            );
        }
        drop(tensors);
        self.files.push((path.to_path_buf(), map));
        Ok(())
    }

    /// Whether there is a tensor of this name.
    pub fn contains(&self, name: &str) -> bool {
        self.entries.contains_key(name)
    }

    /// The shape of a tensor, where it is there.
    pub fn shape(&self, name: &str) -> Option<&[usize]> {
        self.entries.get(name).map(|entry| entry.shape.as_slice())
    }

    /// The number of values in all tensors.
    pub fn parameters(&self) -> usize {
        self.entries.values().map(|entry| entry.shape.iter().product::<usize>()).sum()
    }

    /// A tensor's values, which must have the shape `shape`.
    ///
    /// # Errors
    /// A missing tensor, another shape, a type that is no float, or values that are not finite.
    pub fn tensor(&self, name: &str, shape: &[usize]) -> Result<Tensor, Error> {
        let Some(entry) = self.entries.get(name) else {
            let file = self.files.first().map(|(path, _)| path.clone()).unwrap_or_default();
            return Err(Error::TensorMissing { file, name: name.into() });
        };
        let (path, map) = &self.files[entry.file];
        let refuse = |reason: String| Error::Tensor { file: path.clone(), name: name.into(), reason };
        if entry.shape != shape {
            return Err(refuse(format!("shape {:?}, the configuration says {shape:?}", entry.shape)));
        }
        let bytes = &map[entry.range.clone()];
        let data: Vec<f32> = match entry.dtype {
            Dtype::F32 => bytes.chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect(),
            Dtype::F16 => bytes.chunks_exact(2).map(|b| f16::from_le_bytes([b[0], b[1]]).to_f32()).collect(),
            Dtype::BF16 => bytes.chunks_exact(2).map(|b| bf16::from_le_bytes([b[0], b[1]]).to_f32()).collect(),
            other => return Err(refuse(format!("type {other:?}; F32, F16 and BF16 are read"))),
        };
        if data.iter().any(|value| !value.is_finite()) {
            return Err(refuse("holds values that are not finite; the checkpoint is damaged".into()));
        }
        Ok(Tensor { shape: entry.shape.clone(), data })
    }
}
