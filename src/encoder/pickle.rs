//! Weights that PyTorch pickled, as a safetensors file.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use pytorch_reader::{DType, PytorchError, PytorchReader, Tensor};
use safetensors::Dtype;
use safetensors::tensor::View;

use super::Error;
use crate::onnx::write_safetensors;

/// A view may repeat what its file holds once: tied weights, or, in a file that is made to fill the memory, one value a
/// billion times. So many times its size is what the tensors of a file may come to.
const MOST_TIMES: u64 = 4;
/// What transformers asks of a safetensors file.
const METADATA: (&str, &str) = ("format", "pt");

/// Writes the tensors of the pickled file `source` to `target`, with types and bytes as they are, and flushes them to
/// the disk. No more than one tensor is held in memory.
///
/// Nothing of a pickle is executed: what it calls besides making tensors is refused or left out. Layer norms under
/// their names of 2018 (`LayerNorm.gamma`, `.beta`) get those of today.
///
/// # Errors
/// A file that is no checkpoint of PyTorch, is cut off or damaged, or whose tensors are many times its size; a file that
/// cannot be written.
pub(super) fn to_safetensors(source: &Path, target: &Path) -> Result<(), Error> {
    let size = std::fs::metadata(source).map_err(Error::io(source))?.len();
    let refuse = |reason: String| Error::checkpoint(source, reason);
    let damaged =
        |error: &dyn std::fmt::Display| refuse(format!("not a sound PyTorch file ({error}); fetch or copy it again"));
    let reader = PytorchReader::new(source).map_err(|error| match error {
        PytorchError::Io(error) if error.raw_os_error().is_some() => Error::io(source)(error),
        error => damaged(&error),
    })?;
    let failure = Failure::default();
    let mut tensors = BTreeMap::new();
    let mut bytes = 0_u64;
    for (name, tensor) in reader.into_tensors() {
        bytes = bytes.saturating_add(tensor.byte_len() as u64);
        let name = name_of_today(name);
        if let Some(Pickled { tensor, .. }) = tensors.insert(name, Pickled { tensor, failure: &failure }) {
            return Err(refuse(format!("`{}` is there under its old and its new name", tensor.name)));
        }
    }
    if tensors.is_empty() {
        return Err(refuse("holds no tensors".into()));
    }
    if bytes > size.saturating_mul(MOST_TIMES) {
        let reason = format!("its tensors are {bytes} bytes, the file {size}: this is no checkpoint");
        return Err(refuse(reason));
    }
    let said = HashMap::from([(METADATA.0.to_owned(), METADATA.1.to_owned())]);
    write_safetensors(tensors, Some(said), source, target).map_err(Error::io(target))?;
    failure.taken().map_or(Ok(()), |error| Err(damaged(&error)))
}

/// The name that transformers gives a tensor since 2019.
fn name_of_today(name: String) -> String {
    for (old, new) in [("LayerNorm.gamma", "LayerNorm.weight"), ("LayerNorm.beta", "LayerNorm.bias")] {
        if let Some(start) = name.strip_suffix(old) {
            return format!("{start}{new}");
        }
    }
    name
}

/// The first tensor that could not be read: [`View`] has no way to say so.
#[derive(Debug, Default)]
struct Failure(Mutex<Option<std::io::Error>>);

impl Failure {
    fn note(&self, error: std::io::Error) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(error);
    }

    fn taken(self) -> Option<std::io::Error> {
        self.0.into_inner().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A tensor that is read when it is written.
struct Pickled<'f> {
    tensor: Tensor,
    failure: &'f Failure,
}

impl View for Pickled<'_> {
    fn dtype(&self) -> Dtype {
        match self.tensor.dtype() {
            DType::F64 => Dtype::F64,
            DType::F32 => Dtype::F32,
            DType::F16 => Dtype::F16,
            DType::BF16 => Dtype::BF16,
            DType::I64 => Dtype::I64,
            DType::I32 => Dtype::I32,
            DType::I16 => Dtype::I16,
            DType::I8 => Dtype::I8,
            DType::U64 => Dtype::U64,
            DType::U32 => Dtype::U32,
            DType::U16 => Dtype::U16,
            DType::U8 => Dtype::U8,
            DType::Bool => Dtype::BOOL,
        }
    }

    fn shape(&self) -> &[usize] {
        self.tensor.shape()
    }

    fn data(&self) -> Cow<'_, [u8]> {
        let read = self.tensor.read().and_then(|bytes| {
            let is_whole = bytes.len() == self.data_len();
            is_whole.then_some(bytes).ok_or_else(|| std::io::ErrorKind::UnexpectedEof.into())
        });
        read.unwrap_or_else(|error| {
            self.failure.note(error);
            vec![0; self.data_len()]
        })
        .into()
    }

    fn data_len(&self) -> usize {
        self.tensor.byte_len()
    }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use safetensors::SafeTensors;

    use super::*;

    fn fixture(name: &str) -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/pickles").join(name)
    }

    /// What is written for a file, or why nothing is.
    fn converted(source: &Path) -> Result<Vec<u8>, String> {
        let folder = tempfile::tempdir().unwrap();
        let target = folder.path().join("model.safetensors");
        to_safetensors(source, &target).map_err(|error| error.to_string())?;
        Ok(std::fs::read(target).unwrap())
    }

    fn tensors(bytes: &[u8]) -> BTreeMap<String, (Dtype, Vec<usize>, Vec<u8>)> {
        let read = SafeTensors::deserialize(bytes).unwrap();
        read.iter().map(|(name, view)| (name.into(), (view.dtype(), view.shape().into(), view.data().into()))).collect()
    }

    #[test]
    fn what_pytorch_saves_is_what_safetensors_writes() {
        let wanted = std::fs::read(fixture("expected.safetensors")).unwrap();
        for name in ["zip.bin", "zip-protocol-4.bin", "legacy.bin"] {
            let found = converted(&fixture(name)).unwrap();
            assert_eq!(tensors(&found), tensors(&wanted), "{name}");
            let metadata = |bytes| SafeTensors::read_metadata(bytes).unwrap().1.metadata().clone();
            assert_eq!(metadata(&found), metadata(&wanted), "{name}");
        }
    }

    #[test]
    fn what_is_no_checkpoint_is_refused() {
        for (name, reason) in [
            ("expanded.bin", "its tensors are 8589934592 bytes, the file 1584"),
            ("sparse.bin", "not a sound PyTorch file"),
            ("no-storage.bin", "not a sound PyTorch file"),
            ("no-tensors.bin", "holds no tensors"),
            ("plain.bin", "holds no tensors"),
            ("both-names.bin", "there under its old and its new name"),
            ("expected.safetensors", "not a sound PyTorch file"),
            ("absent.bin", "No such file"),
        ] {
            let said = converted(&fixture(name)).unwrap_err();
            assert!(said.contains(reason) && said.contains(name), "{name}: {said}");
        }
    }

    /// Whatever is cut off or changed in a file: an error, or another value in a tensor; no panic.
    #[test]
    fn a_damaged_file_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("pytorch_model.bin");
        for name in ["zip.bin", "legacy.bin"] {
            let bytes = std::fs::read(fixture(name)).unwrap();
            let mut refused = 0;
            for at in 0..bytes.len() {
                let mut other = bytes.clone();
                other[at] ^= 0x41;
                std::fs::write(&file, &other).unwrap();
                refused += usize::from(converted(&file).is_err());
                if at % 16 == 0 {
                    std::fs::write(&file, &bytes[..at]).unwrap();
                    assert!(converted(&file).is_err(), "{name} cut after {at}");
                }
            }
            assert!(refused > bytes.len() / 8, "{name}: {refused} of {}", bytes.len());
        }
    }

    #[test]
    fn nothing_is_executed() {
        // Python would make this file where it runs; the tensor beside the call is read.
        let found = converted(&fixture("calls.bin")).unwrap();
        assert_eq!(tensors(&found).into_keys().collect::<Vec<_>>(), ["weight"]);
        assert!(!Path::new("pickle-was-executed").exists());
    }
}
