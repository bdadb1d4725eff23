//! The state of a run on disk: weights, moments and step, in one safetensors file.

use std::collections::HashMap;
use std::path::Path;

use safetensors::tensor::{Dtype, TensorView};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use super::files::sync;
use super::{Error, Recipe};
use crate::generation::hexadecimal;
use crate::onnx::{LossScale, Moments};

/// The file's name in a job's folder.
pub const STATE_FILE: &str = "training.safetensors";
/// A folder for the file while it is being written, so that whatever a killed process leaves is found again.
const UNFINISHED: &str = "training.new";
/// The key of the header's only entry.
const KEY: &str = "anced";
/// Raised when the file's meaning changes.
const FORMAT: u32 = 1;

/// What the file's header says.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Header {
    pub(super) format: u32,
    pub(super) recipe: Recipe,
    /// sha256 of the weights that the run started from, in hexadecimal.
    pub(super) source: String,
    /// Steps done.
    pub(super) step: u64,
    pub(super) loss_scale: LossScale,
    /// sha256 of the header without this field and of all values, in hexadecimal.
    #[serde(default)]
    digest: String,
}

impl Header {
    pub(super) fn new(recipe: &Recipe, source: &str, step: u64, loss_scale: LossScale) -> Self {
        let (recipe, source, digest) = (recipe.clone(), source.to_owned(), String::new());
        Self { format: FORMAT, recipe, source, step, loss_scale, digest }
    }

    fn digest(&self, weights: &[f32], moments: &Moments) -> Result<String, serde_json::Error> {
        let text = serde_json::to_vec(&Self { digest: String::new(), ..self.clone() })?;
        let mut digest = Sha256::new_with_prefix(text);
        for values in [weights, &moments.first, &moments.second] {
            digest.update(bytemuck::cast_slice::<f32, u8>(values));
        }
        Ok(hexadecimal(&digest.finalize()))
    }
}

/// Writes the state to `folder`; a state that is there is replaced as a whole.
pub(super) fn write(folder: &Path, header: &Header, weights: &[f32], moments: &Moments) -> Result<(), Error> {
    let unfinished = folder.join(UNFINISHED);
    std::fs::create_dir_all(folder).map_err(Error::io(folder))?;
    remove(&unfinished)?;
    let written = write_file(folder, &unfinished, header, weights, moments);
    // The reason counts, not whether the remains could be removed: the next save does that too.
    let removed = remove(&unfinished);
    written.and(removed)?;
    sync(folder)
}

fn write_file(
    folder: &Path,
    unfinished: &Path,
    header: &Header,
    weights: &[f32],
    moments: &Moments,
) -> Result<(), Error> {
    let (file, place) = (folder.join(STATE_FILE), unfinished.join(STATE_FILE));
    let fail = |error: &dyn std::fmt::Display| Error::State { file: file.clone(), reason: error.to_string() };
    let digest = header.digest(weights, moments).map_err(|error| fail(&error))?;
    let text = serde_json::to_string(&Header { digest, ..header.clone() }).map_err(|error| fail(&error))?;
    let parts = [("weights", weights), ("first", &moments.first), ("second", &moments.second)];
    let mut views = Vec::with_capacity(parts.len());
    for (name, values) in parts {
        let view = TensorView::new(Dtype::F32, vec![values.len()], bytemuck::cast_slice(values));
        views.push((name, view.map_err(|error| fail(&error))?));
    }
    let metadata = Some(HashMap::from([(KEY.to_owned(), text)]));
    std::fs::create_dir(unfinished).map_err(Error::io(unfinished))?;
    safetensors::serialize_to_file(views, metadata, &place)
        .map_err(|error| Error::io(&place)(std::io::Error::other(error)))?;
    sync(&place)?;
    std::fs::rename(&place, &file).map_err(Error::io(&file))
}

fn remove(folder: &Path) -> Result<(), Error> {
    match std::fs::remove_dir_all(folder) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(Error::io(folder)(error)),
        _ => Ok(()),
    }
}

/// The state in `folder`; none where there is none.
pub(super) fn read(folder: &Path) -> Result<Option<(Header, Vec<f32>, Moments)>, Error> {
    let file = folder.join(STATE_FILE);
    if !file.is_file() {
        return Ok(None);
    }
    let refuse = |reason: String| Error::State { file: file.clone(), reason };
    let bytes = crate::system::map_file(&file).map_err(Error::io(&file))?;
    let damaged = |error: &dyn std::fmt::Display| refuse(format!("not a sound training state ({error})"));
    let (_, metadata) = safetensors::SafeTensors::read_metadata(&bytes).map_err(|error| damaged(&error))?;
    let text = metadata.metadata().as_ref().and_then(|metadata| metadata.get(KEY));
    let text = text.ok_or_else(|| damaged(&"no header of anced"))?;
    let header: Header = serde_json::from_str(text).map_err(|error| damaged(&error))?;
    if header.format != FORMAT {
        return Err(refuse(format!("format {}, this version reads {FORMAT}", header.format)));
    }
    let tensors = safetensors::SafeTensors::deserialize(&bytes).map_err(|error| damaged(&error))?;
    let values = |name: &str| -> Result<Vec<f32>, Error> {
        let view = tensors.tensor(name).map_err(|error| damaged(&error))?;
        if view.dtype() != Dtype::F32 {
            return Err(damaged(&format!("`{name}` is {:?}", view.dtype())));
        }
        Ok(view.data().chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect())
    };
    let moments = Moments { first: values("first")?, second: values("second")?, loss_scale: header.loss_scale };
    let weights = values("weights")?;
    if header.digest != header.digest(&weights, &moments).map_err(|error| damaged(&error))? {
        return Err(damaged(&"its digest is another"));
    }
    Ok(Some((header, weights, moments)))
}
