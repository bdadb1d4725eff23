//! The state of a run on disk: weights, moments and step, in one safetensors file.

use std::collections::HashMap;
use std::fs::File;
use std::path::Path;

use safetensors::tensor::{Dtype, TensorView};
use serde::{Deserialize, Serialize};

use super::{Error, Recipe};
use crate::onnx::{LossScale, Moments};

/// The file's name in a job's folder.
pub const STATE_FILE: &str = "training.safetensors";
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
}

impl Header {
    pub(super) fn new(recipe: &Recipe, source: &str, step: u64, loss_scale: LossScale) -> Self {
        Self { format: FORMAT, recipe: recipe.clone(), source: source.to_owned(), step, loss_scale }
    }
}

/// Writes the state to `folder`; a state that is there is replaced as a whole.
pub(super) fn write(folder: &Path, header: &Header, weights: &[f32], moments: &Moments) -> Result<(), Error> {
    let file = folder.join(STATE_FILE);
    let unfinished = folder.join(format!("{STATE_FILE}.new"));
    let fail = |error: &dyn std::fmt::Display| Error::State { file: file.clone(), reason: error.to_string() };
    let text = serde_json::to_string(header).map_err(|error| fail(&error))?;
    let parts = [("weights", weights), ("first", &moments.first), ("second", &moments.second)];
    let mut views = Vec::with_capacity(parts.len());
    for (name, values) in parts {
        let view = TensorView::new(Dtype::F32, vec![values.len()], bytemuck::cast_slice(values));
        views.push((name, view.map_err(|error| fail(&error))?));
    }
    std::fs::create_dir_all(folder).map_err(Error::io(folder))?;
    let metadata = Some(HashMap::from([(KEY.to_owned(), text)]));
    safetensors::serialize_to_file(views, metadata, &unfinished)
        .map_err(|error| Error::io(&unfinished)(std::io::Error::other(error)))?;
    File::open(&unfinished).and_then(|file| file.sync_all()).map_err(Error::io(&unfinished))?;
    std::fs::rename(&unfinished, &file).map_err(Error::io(&file))?;
    File::open(folder).and_then(|folder| folder.sync_all()).map_err(Error::io(folder))
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
    Ok(Some((header, values("weights")?, moments)))
}
