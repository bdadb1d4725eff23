//! A new generation from a checkpoint and the store.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::folder::io_error;
use super::manifest::{EncoderRecord, FileRecord, checkpoint_digest, file_record, sync_folder};
use super::{DataFolder, Error, Machine, Manifest, Standing};
use crate::corpus::StoredDocument;
use crate::encoder::{Encoder, Overrides};
use crate::index::{GRAPH_FILE, Index, SavedVectors, VECTORS_FILE};

/// Documents that are read, encoded and added at once.
pub(super) const PAGE: usize = 2048;

/// How far a build is.
#[derive(Debug, Clone, Copy)]
pub struct BuildProgress {
    /// Documents encoded and indexed.
    pub done: u64,
    /// Documents in the store.
    pub total: u64,
    /// Documents of `done` that were not encoded, since their vectors were known.
    pub reused: u64,
}

/// What a generation is made from.
#[derive(Debug, Clone, Copy)]
pub struct Origin<'a> {
    /// The checkpoint's folder.
    pub checkpoint: &'a Path,
    /// The generation that it was trained from.
    pub parent: Option<u64>,
    /// Vectors by sequence that this checkpoint, set as the machine sets it, made of documents.
    pub known: Option<&'a SavedVectors>,
    /// How the generation stands until somebody says otherwise.
    pub standing: Standing,
}

/// Builds the next generation from a checkpoint folder and every document of the store, and returns its number. It is
/// not made live here. The caller holds the data folder's lock.
///
/// # Errors
/// A checkpoint that does not run, a disk that is full: what was written is removed then.
pub fn build(
    data: &DataFolder,
    checkpoint: &Path,
    parent: Option<u64>,
    machine: &Machine,
    progress: &mut dyn FnMut(BuildProgress),
) -> Result<u64, Error> {
    build_from(data, &Origin { checkpoint, parent, known: None, standing: Standing::Ready }, machine, progress)
}

/// As [`build`]; documents whose vectors are known are not encoded.
///
/// # Errors
/// As [`build`].
pub fn build_from(
    data: &DataFolder,
    origin: &Origin<'_>,
    machine: &Machine,
    progress: &mut dyn FnMut(BuildProgress),
) -> Result<u64, Error> {
    let number = data.next_number()?;
    let folder = data.unfinished(number);
    if folder.exists() {
        // Left by a build that failed and could not remove it: nothing of it may get into this one.
        std::fs::remove_dir_all(&folder).map_err(io_error(&folder))?;
    }
    std::fs::create_dir_all(&folder).map_err(io_error(&folder))?;
    let built = write(data, origin, number, &folder, machine, progress).and_then(|()| {
        let place = data.generation(number);
        std::fs::rename(&folder, &place).map_err(io_error(&place))?;
        place.parent().map_or(Ok(()), sync_folder)
    });
    match built {
        Ok(()) => Ok(number),
        Err(error) => {
            // The reason counts, not whether its remains could be removed: the next start does that too.
            let _ = std::fs::remove_dir_all(&folder);
            Err(error)
        }
    }
}

fn write(
    data: &DataFolder,
    origin: &Origin<'_>,
    number: u64,
    folder: &Path,
    machine: &Machine,
    progress: &mut dyn FnMut(BuildProgress),
) -> Result<(), Error> {
    let overrides: Overrides = machine.encoder.overrides.clone();
    let encoder = machine.encoder(origin.checkpoint, overrides.clone())?;
    encoder.checkpoint().copy_to(&folder.join("checkpoint"))?;

    let store = data.store();
    let applied = store.last_sequence()?;
    let total = store.count()?;
    let capacity = usize::try_from(total).unwrap_or(0);
    let similarity = encoder.checkpoint().similarity;
    let index = Index::new(encoder.dimension(), similarity, machine.index, capacity, &machine.runtime)?;
    let known = origin.known.filter(|known| known.dimension() == encoder.dimension());
    let (mut after, mut done, mut reused) = (0, 0, 0);
    progress(BuildProgress { done, total, reused });
    loop {
        let page = store.current(after, PAGE)?;
        let Some(last) = page.last() else { break };
        after = last.sequence;
        done += page.len() as u64;
        let vector = |stored: &StoredDocument| known.and_then(|known| known.get(stored.sequence));
        let (mut keys, mut vectors, mut others) = (Vec::new(), Vec::new(), Vec::new());
        for stored in page {
            match vector(&stored) {
                Some(vector) => {
                    keys.push(stored.sequence);
                    vectors.push(vector);
                }
                None => others.push(stored),
            }
        }
        reused += keys.len() as u64;
        let (encoded, values) = encode(&encoder, &others)?;
        keys.extend(encoded);
        vectors.extend(values);
        index.add_unverified(&keys, &vectors)?;
        progress(BuildProgress { done, total: total.max(done), reused });
    }
    // Others may have written and deleted meanwhile.
    progress(BuildProgress { done, total: done, reused });
    index.verify()?;
    index.save(&folder.join(VECTORS_FILE), &folder.join(GRAPH_FILE), ())?;

    let mut files = BTreeMap::new();
    record_files(folder, Path::new(""), &mut files)?;
    let mut manifest = Manifest {
        number,
        parent: origin.parent,
        created: OffsetDateTime::now_utc().format(&Rfc3339).unwrap_or_default(),
        model: model_name(data, origin.parent, &encoder),
        checkpoint_digest: checkpoint_digest(&files),
        encoder: EncoderRecord::from(overrides),
        dimension: encoder.dimension(),
        similarity,
        store: store.identity().to_owned(),
        documents: index.count() as u64,
        applied_sequence: applied,
        status: origin.standing,
        measures: BTreeMap::new(),
        vectors_file: VECTORS_FILE.into(),
        graph_file: GRAPH_FILE.into(),
        files,
        checksum: String::new(),
    };
    manifest.write(folder)
}

/// The model's name: that of the generation that it was trained from, for its own folder is named after a round.
fn model_name(data: &DataFolder, parent: Option<u64>, encoder: &Encoder) -> String {
    let inherited = parent.and_then(|number| Manifest::read(&data.generation(number)).ok());
    inherited.map_or_else(|| encoder.checkpoint().name.clone(), |manifest| manifest.model)
}

/// The keys of documents in an index, which are their sequences, and their vectors; a document of several pieces has
/// its key several times.
pub(super) fn encode(encoder: &Encoder, documents: &[StoredDocument]) -> Result<(Vec<u64>, Vec<Vec<f32>>), Error> {
    let checkpoint = encoder.checkpoint();
    let texts: Vec<String> =
        documents.iter().map(|stored| checkpoint.passage(&stored.document.title, &stored.document.text)).collect();
    let encoded = encoder.encode_passages_blocking(&texts)?;
    Ok(rows(documents.iter().map(|stored| stored.sequence).zip(encoded)))
}

/// Documents with the vectors of their pieces, as an index takes them: one key a vector.
pub(super) fn rows(documents: impl Iterator<Item = (u64, Vec<Vec<f32>>)>) -> (Vec<u64>, Vec<Vec<f32>>) {
    documents.flat_map(|(sequence, pieces)| pieces.into_iter().map(move |vector| (sequence, vector))).unzip()
}

fn record_files(root: &Path, below: &Path, files: &mut BTreeMap<String, FileRecord>) -> Result<(), Error> {
    let folder = root.join(below);
    for entry in std::fs::read_dir(&folder).map_err(io_error(&folder))? {
        let entry = entry.map_err(io_error(&folder))?;
        let name: PathBuf = below.join(entry.file_name());
        let path = root.join(&name);
        if path.is_dir() {
            record_files(root, &name, files)?;
        } else {
            let record = file_record(&path).map_err(io_error(&path))?;
            files.insert(name.to_string_lossy().into_owned(), record);
        }
    }
    Ok(())
}
