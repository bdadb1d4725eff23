//! A checkpoint written to another folder: as it is, or with trained weights.

use std::fs::File;
use std::path::{Component, Path, PathBuf};

use serde_json::{Map, Value};

use super::checkpoint::read_json;
use super::{Checkpoint, Error, Overrides};
use crate::onnx::{Replaced, WeightsFile};

/// Endings of weights in formats that are not read here.
const OTHER_FORMATS: [&str; 6] = ["bin", "h5", "msgpack", "ot", "pt", "ckpt"];
/// How the names of files begin that belong to such weights: indexes of shards.
const OTHER_FRAMEWORKS: [&str; 4] = ["pytorch_model", "tf_model", "flax_model", "rust_model"];
/// Sub-folders that a checkpoint needs not.
const OTHER_FOLDERS: [&str; 3] = ["openvino", "onnx", "coreml"];
/// Endings of files that hold weights too; beside trained ones they would be those of before.
const OTHER_WEIGHTS: [&str; 6] = [".safetensors", ".safetensors.index.json", ".onnx", ".onnx_data", ".gguf", ".tflite"];
/// The ending of a folder while it is being written.
const UNFINISHED: &str = ".new";

impl Checkpoint {
    /// Copies the files that belong to the checkpoint to the folder `target` and flushes them to the disk, with
    /// `onnx/model.onnx` for other servers beside them. Weights in other formats and hidden files are left out.
    ///
    /// # Errors
    /// A file that cannot be read or written; what was copied before it stays.
    pub fn copy_to(&self, target: &Path) -> Result<(), Error> {
        copy_folder(&self.folder, target, &|_| true)?;
        let onnx = target.join("onnx");
        match (self.own_onnx(), self.to_onnx()?) {
            (Some(own), _) => copy_folder(own.parent().unwrap_or(Path::new(".")), &onnx, &|_| true)?,
            (None, Some(bytes)) => write_onnx(&onnx, &bytes)?,
            (None, None) => {}
        }
        sync(target)
    }

    /// Writes the checkpoint to `folder`, with the values that `trained` gives in place of its own.
    ///
    /// `trained` is asked with the names of tensors in `model.safetensors`, and with `{module}/{tensor}` for the modules
    /// of a sentence-transformers folder; it gives row-major values, or none for a tensor that was not trained. Trained
    /// tensors are stored as F32, and `config.json` then says so; all others keep type and bytes. Files that hold the old
    /// weights in other formats are left out, `onnx/model.onnx` is made anew. The folder is written as `{folder}.new`,
    /// flushed to the disk and renamed, so that it is there as a whole or not at all.
    ///
    /// # Errors
    /// Values that do not fit a tensor's shape or are not finite, a folder that is there already, a checkpoint whose
    /// transformer is its own ONNX file: all told before anything is written. A file that cannot be written: what was
    /// written is removed then.
    pub fn write_trained<'a>(&self, folder: &Path, trained: &dyn Fn(&str) -> Option<&'a [f32]>) -> Result<(), Error> {
        if let Some(file) = self.own_onnx() {
            let reason = "the transformer is this ONNX file, which cannot be trained; use the folder without `onnx/` and \
                          with `model.safetensors`";
            return Err(Error::checkpoint(file, reason));
        }
        let config = self.retyped_config(self.weights.check_replaced(trained)?)?;
        as_a_whole(&self.folder, folder, |unfinished| self.write_folder(unfinished, config.as_deref(), trained))
    }

    fn write_folder<'a>(
        &self,
        target: &Path,
        config: Option<&[u8]>,
        trained: &dyn Fn(&str) -> Option<&'a [f32]>,
    ) -> Result<(), Error> {
        let old_config = self.folder.join("config.json");
        let is_kept = |file: &Path| {
            let name = file.file_name().unwrap_or_default().to_string_lossy();
            let is_replaced = config.is_some() && file == old_config;
            !is_replaced && !OTHER_WEIGHTS.iter().any(|ending| name.ends_with(ending))
        };
        copy_folder(&self.folder, target, &is_kept)?;
        if let Some(text) = config {
            write_file(&target.join("config.json"), text)?;
        }
        for file in self.weights.files() {
            let place = target.join(self.inner_path(file)?);
            let folder = place.parent().unwrap_or(target);
            file.write(&place, trained)?;
            sync(folder)?;
        }
        // From what lies there now, so that it is known to open.
        let written = Self::open(target, &Overrides::default())?;
        if let Some(bytes) = self.to_onnx_with(&written.weights)? {
            write_onnx(&target.join("onnx"), &bytes)?;
        }
        sync(target)
    }

    /// Where a weights file lies below the folder.
    fn inner_path<'f>(&self, file: &'f WeightsFile) -> Result<&'f Path, Error> {
        let inner = file.path().strip_prefix(&self.folder).ok();
        let is_inside = |path: &&Path| path.components().all(|part| matches!(part, Component::Normal(_)));
        inner.filter(is_inside).ok_or_else(|| {
            let reason = "lies outside of the checkpoint's folder; make `modules.json` name a folder inside";
            Error::checkpoint(file.path(), reason)
        })
    }

    /// `config.json` where it must name another type than it does: transformers converts weights to what it says.
    fn retyped_config(&self, replaced: Replaced) -> Result<Option<Vec<u8>>, Error> {
        const TYPE: &str = "float32";
        if replaced.tensors == 0 {
            return Ok(None);
        }
        let file = self.folder.join("config.json");
        let mut config: Map<String, Value> = read_json(&file)?;
        let (mut is_said, mut is_changed) = (false, false);
        for key in ["dtype", "torch_dtype"] {
            let Some(value) = config.get_mut(key).filter(|value| !value.is_null()) else { continue };
            is_said = true;
            if *value != TYPE {
                *value = TYPE.into();
                is_changed = true;
            }
        }
        if !is_said && replaced.widened > 0 {
            config.insert("torch_dtype".into(), TYPE.into());
            is_changed = true;
        }
        if !is_changed {
            return Ok(None);
        }
        let mut text = serde_json::to_vec_pretty(&config).map_err(|error| Error::checkpoint(&file, error))?;
        text.push(b'\n');
        Ok(Some(text))
    }
}

/// Writes a folder made from `source` as `{folder}.new`, flushes it to the disk and renames it, so that it is there as a
/// whole or not at all.
///
/// # Errors
/// A folder that is there already or lies inside the other, and whatever `write` says: what was written is removed then.
pub(super) fn as_a_whole(
    source: &Path,
    folder: &Path,
    write: impl FnOnce(&Path) -> Result<(), Error>,
) -> Result<(), Error> {
    let (parent, unfinished) = places(source, folder)?;
    remove(&unfinished)?;
    let written = write(&unfinished).and_then(|()| std::fs::rename(&unfinished, folder).map_err(Error::io(folder)));
    if written.is_err() {
        // The reason counts, not whether the remains could be removed: the next try does that too.
        let _ = remove(&unfinished);
    }
    written?;
    sync(&parent)
}

/// The folder that `folder` is to lie in, and the place where it is written first.
fn places(source: &Path, folder: &Path) -> Result<(PathBuf, PathBuf), Error> {
    let refuse = |reason: &str| Error::Target { folder: folder.to_path_buf(), reason: reason.into() };
    let Some(name) = folder.file_name() else {
        return Err(refuse("not the name of a folder; name one that is not there yet"));
    };
    if folder.symlink_metadata().is_ok() {
        return Err(refuse("is there already; name a folder that is not, or remove this one"));
    }
    let parent = folder.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    if !parent.is_dir() {
        return Err(refuse(&format!("there is no folder {}; make it first", parent.display())));
    }
    let parent = parent.canonicalize().map_err(Error::io(parent))?;
    let mut unfinished = name.to_owned();
    unfinished.push(UNFINISHED);
    let unfinished = parent.join(unfinished);
    let source = source.canonicalize().map_err(Error::io(source))?;
    if parent.starts_with(&source) || source.starts_with(&unfinished) {
        return Err(refuse("lies inside the checkpoint that it is made from, or around it; name another folder"));
    }
    Ok((parent, unfinished))
}

/// The folders of a checkpoint by their paths in it, its own first.
pub(super) fn inner_folders(source: &Path) -> Result<Vec<PathBuf>, Error> {
    let mut folders = vec![PathBuf::new()];
    let mut next = 0;
    while let Some(inner) = folders.get(next).cloned() {
        let folder = source.join(&inner);
        for entry in std::fs::read_dir(&folder).map_err(Error::io(&folder))? {
            let path = entry.map_err(Error::io(&folder))?.path();
            let name = path.file_name().unwrap_or_default();
            if path.is_dir() && !is_left_out(&path) {
                folders.push(inner.join(name));
            }
        }
        next += 1;
    }
    Ok(folders)
}

/// Whether a file or a folder is no part of a checkpoint: hidden, or weights in formats that are not read here.
fn is_left_out(path: &Path) -> bool {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    name.starts_with('.')
        || if path.is_dir() {
            OTHER_FOLDERS.iter().any(|other| name == *other)
        } else {
            path.extension().is_some_and(|ending| OTHER_FORMATS.iter().any(|other| ending == *other))
                || OTHER_FRAMEWORKS.iter().any(|other| name.starts_with(other))
        }
}

/// Copies the files of a folder and its sub-folders that belong to a checkpoint and that `is_wanted` takes.
pub(super) fn copy_folder(source: &Path, target: &Path, is_wanted: &dyn Fn(&Path) -> bool) -> Result<(), Error> {
    std::fs::create_dir_all(target).map_err(Error::io(target))?;
    for entry in std::fs::read_dir(source).map_err(Error::io(source))? {
        let path = entry.map_err(Error::io(source))?.path();
        let name = path.file_name().unwrap_or_default();
        let place = target.join(name);
        if is_left_out(&path) {
            continue;
        }
        if path.is_dir() {
            copy_folder(&path, &place, is_wanted)?;
        } else if is_wanted(&path) {
            std::fs::copy(&path, &place).map_err(Error::io(&place))?;
            sync(&place)?;
        }
    }
    sync(target)
}

pub(super) fn write_onnx(folder: &Path, bytes: &[u8]) -> Result<(), Error> {
    std::fs::create_dir_all(folder).map_err(Error::io(folder))?;
    write_file(&folder.join("model.onnx"), bytes)?;
    sync(folder)
}

pub(super) fn write_file(file: &Path, bytes: &[u8]) -> Result<(), Error> {
    std::fs::write(file, bytes).map_err(Error::io(file))?;
    sync(file)
}

/// Flushes a file or a folder's entries to the disk.
pub(super) fn sync(path: &Path) -> Result<(), Error> {
    File::open(path).and_then(|opened| opened.sync_all()).map_err(Error::io(path))
}

/// Removes whatever lies at a place.
fn remove(path: &Path) -> Result<(), Error> {
    let removed = match path.symlink_metadata() {
        Ok(found) if found.is_dir() => std::fs::remove_dir_all(path),
        Ok(_) => std::fs::remove_file(path),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
    };
    removed.map_err(Error::io(path))
}
