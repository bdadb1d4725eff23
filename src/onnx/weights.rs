//! Weights as they lie in safetensors files, read through a mapping and widened to 32-bit floats on demand, and the
//! same files written again with other values.

use std::borrow::Cow;
use std::collections::HashMap;
use std::fmt::Display;
use std::path::{Path, PathBuf};

use half::{bf16, f16};
use memmap2::Mmap;
use safetensors::tensor::{TensorView, View};
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
    files: Vec<WeightsFile>,
    entries: HashMap<String, Entry>,
}

#[derive(Debug)]
struct Entry {
    file: usize,
    dtype: Dtype,
    shape: Vec<usize>,
    range: std::ops::Range<usize>,
}

/// A safetensors file whose tensors are known under their names with a prefix before them.
#[derive(Debug)]
pub struct WeightsFile {
    path: PathBuf,
    prefix: String,
    map: Mmap,
}

/// How many tensors take other values.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Replaced {
    /// All of them.
    pub tensors: usize,
    /// Those among them that were stored in 16 bits.
    pub widened: usize,
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
        self.files.push(WeightsFile { path: path.to_path_buf(), prefix: prefix.into(), map });
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
            let file = self.files.first().map(|file| file.path.clone()).unwrap_or_default();
            return Err(Error::TensorMissing { file, name: name.into() });
        };
        let WeightsFile { path, map, .. } = &self.files[entry.file];
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

    /// The files that the tensors lie in, in the order in which they were added.
    pub fn files(&self) -> &[WeightsFile] {
        &self.files
    }

    /// Checks the values that `replace` gives for the names of tensors, in row-major order, before they are written.
    ///
    /// # Errors
    /// The first tensor by name whose values do not fit its shape or are not finite, or that is not made of floats.
    pub fn check_replaced<'a>(&self, replace: &dyn Fn(&str) -> Option<&'a [f32]>) -> Result<Replaced, Error> {
        let mut entries: Vec<(&String, &Entry)> = self.entries.iter().collect();
        entries.sort_unstable_by_key(|(name, _)| *name);
        let mut replaced = Replaced::default();
        for (name, entry) in entries {
            let Some(values) = replace(name) else { continue };
            let refuse = |reason: String| {
                let file = self.files.get(entry.file).map(|file| file.path.clone()).unwrap_or_default();
                Err(Error::Tensor { file, name: name.clone(), reason })
            };
            match entry.dtype {
                Dtype::F32 => {}
                Dtype::F16 | Dtype::BF16 => replaced.widened += 1,
                other => return refuse(format!("type {other:?}; F32, F16 and BF16 can be trained")),
            }
            let size: usize = entry.shape.iter().product();
            if values.len() != size {
                return refuse(format!(
                    "{} trained values for shape {:?}, which holds {size}",
                    values.len(),
                    entry.shape
                ));
            }
            if let Some(at) = values.iter().position(|value| !value.is_finite()) {
                return refuse(format!(
                    "trained value {at} is not finite; training diverged, start again from an earlier state or with a \
                     smaller learning rate"
                ));
            }
            replaced.tensors += 1;
        }
        Ok(replaced)
    }
}

impl WeightsFile {
    /// Where it lies.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Writes the file to `target` and flushes it to the disk: the same names, shapes and `__metadata__`, the same bytes
    /// but for the tensors that `replace` gives values for, which become F32. No more than one tensor is held in memory.
    ///
    /// # Errors
    /// A file that cannot be written, or values that [`check_replaced`](Weights::check_replaced) refuses.
    pub fn write<'a>(&self, target: &Path, replace: &dyn Fn(&str) -> Option<&'a [f32]>) -> Result<(), Error> {
        let refuse = |reason: String| Error::File { file: target.to_path_buf(), reason };
        let (_, header) = SafeTensors::read_metadata(&self.map).map_err(|error| refuse(error.to_string()))?;
        let tensors = SafeTensors::deserialize(&self.map).map_err(|error| refuse(error.to_string()))?;
        let parts = tensors.iter().map(|(name, kept)| {
            let replaced = replace(&format!("{}{name}", self.prefix));
            (name, Part { kept, replaced })
        });
        write_safetensors(parts, header.metadata().clone(), &self.path, target)
            .map_err(|error| refuse(error.to_string()))
    }
}

/// Writes a safetensors file with the permissions of the file `like`, and flushes it to the disk.
///
/// # Errors
/// A file that cannot be written; what is there of it stays.
pub fn write_safetensors<N: AsRef<str> + Ord + Display, V: View>(
    tensors: impl IntoIterator<Item = (N, V)>,
    metadata: Option<HashMap<String, String>>,
    like: &Path,
    target: &Path,
) -> std::io::Result<()> {
    safetensors::serialize_to_file(tensors, metadata, target).map_err(std::io::Error::other)?;
    // safetensors writes through a temporary file that none but its owner may read, and does not flush it.
    std::fs::set_permissions(target, std::fs::metadata(like)?.permissions())?;
    std::fs::File::open(target)?.sync_all()
}

/// A tensor on its way into a file.
struct Part<'m, 'a> {
    kept: TensorView<'m>,
    replaced: Option<&'a [f32]>,
}

impl View for Part<'_, '_> {
    fn dtype(&self) -> Dtype {
        self.replaced.map_or(self.kept.dtype(), |_| Dtype::F32)
    }

    fn shape(&self) -> &[usize] {
        self.kept.shape()
    }

    fn data(&self) -> Cow<'_, [u8]> {
        match self.replaced {
            Some(values) => values.iter().flat_map(|value| value.to_le_bytes()).collect(),
            None => self.kept.data().into(),
        }
    }

    fn data_len(&self) -> usize {
        self.replaced.map_or(self.kept.data().len(), |values| values.len() * 4)
    }
}
