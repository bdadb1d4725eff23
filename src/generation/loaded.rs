//! A generation in memory: its encoder and its index, always together.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use super::folder::{io_error, remove_unnamed};
use super::manifest::{FileRecord, file_record, sync_folder};
use super::{DataFolder, Error, GenerationInfo, Manifest};
use crate::corpus::Store;
use crate::encoder::{Encoder, EncoderOptions, Overrides};
use crate::index::{Index, IndexOptions};
use crate::onnx::Runtime;
use crate::settings::{Device, Settings};
use crate::telemetry::Metrics;

/// What every generation of a process runs with.
#[derive(Debug, Clone)]
pub struct Machine {
    /// ONNX Runtime.
    pub runtime: Runtime,
    /// How encoders run.
    pub encoder: EncoderOptions,
    /// How indexes are built and searched.
    pub index: IndexOptions,
    /// Candidates of a graph search by default.
    pub expansion_search: usize,
    /// Changes after which an index is written to its files.
    pub save_after: u64,
    /// Generations that stay on disk when a refresh made a new one live.
    pub keep_generations: usize,
    /// Where measurements go.
    pub metrics: Arc<Metrics>,
}

impl Machine {
    /// Loads ONNX Runtime as the settings say.
    ///
    /// # Errors
    /// A library that is missing or does not fit.
    pub fn new(settings: &Settings, metrics: Arc<Metrics>) -> Result<Self, Error> {
        let runtime =
            Runtime::load(settings.onnxruntime.as_deref(), settings.threads).map_err(crate::encoder::Error::from)?;
        Ok(Self {
            runtime,
            encoder: EncoderOptions::from(settings),
            index: IndexOptions::from(settings),
            expansion_search: settings.expansion_search,
            save_after: settings.save_after,
            keep_generations: settings.keep_generations,
            metrics,
        })
    }

    /// The same machine with other settings over its checkpoints.
    #[must_use]
    pub fn with_overrides(self, overrides: Overrides) -> Self {
        Self { encoder: EncoderOptions { overrides, ..self.encoder }, ..self }
    }

    /// The same machine for an encoder that works beside a training: with threads of its own (0 is as many), and on a
    /// device of its own where one is given.
    #[must_use]
    pub fn beside(&self, threads: usize, device: Option<Device>) -> Self {
        let device = device.unwrap_or(self.encoder.device);
        Self {
            runtime: self.runtime.with_own_pools(threads),
            encoder: EncoderOptions { device, ..self.encoder.clone() },
            ..self.clone()
        }
    }

    /// Opens a checkpoint.
    ///
    /// # Errors
    /// As [`Encoder::open`].
    pub fn encoder(&self, checkpoint: &Path, overrides: Overrides) -> Result<Encoder, Error> {
        let options = EncoderOptions { overrides, ..self.encoder.clone() };
        Ok(Encoder::open(checkpoint, &options, &self.runtime, &self.metrics)?)
    }
}

/// A generation that answers.
#[derive(Debug)]
pub struct Generation {
    folder: PathBuf,
    manifest: Mutex<Manifest>,
    number: u64,
    encoder: Encoder,
    index: Index,
    /// The index in memory holds every write up to here.
    applied: AtomicU64,
    /// What `applied` was at the last save, whatever became of it.
    tried: AtomicU64,
    /// What `applied` was when the graph could not be rebuilt last.
    not_rebuilt: AtomicU64,
    /// Held while the files are replaced.
    saving: Mutex<()>,
}

/// Refuses a generation whose keys mean other documents, or none, in this store.
fn fits_store(manifest: &Manifest, folder: &Path, store: &Store, number: u64) -> Result<(), Error> {
    let refuse = |reason: String| {
        let (folder, store) = (folder.display(), store.folder().display());
        Err(Error::Damaged(format!(
            "{folder}: {reason} {store}; put the store back that it was made from, or build a new generation with `anced index`"
        )))
    };
    if manifest.number != number {
        return refuse(format!("it is a copy of generation {}, and does not belong to", manifest.number));
    }
    if manifest.store != store.identity() {
        return refuse("it was made from another store than".into());
    }
    let last = store.last_sequence()?;
    if manifest.applied_sequence > last {
        let applied = manifest.applied_sequence;
        return refuse(format!("its index reaches to write {applied}, and only {last} are in"));
    }
    Ok(())
}

impl Generation {
    /// Loads a generation from disk after comparing every file with its checksum.
    ///
    /// # Errors
    /// A missing or damaged file, a store that is not the one it was made from, an encoder that does not run.
    pub fn open(data: &DataFolder, number: u64, machine: &Machine) -> Result<Self, Error> {
        let folder = data.generation(number);
        loop {
            let before = Manifest::read(&folder).ok();
            match Self::open_once(data, number, machine) {
                // The process that writes to the folder put newer index files in the place of those being read.
                Err(_) if before.is_some() && before != Manifest::read(&folder).ok() => {}
                result => return result,
            }
        }
    }

    fn open_once(data: &DataFolder, number: u64, machine: &Machine) -> Result<Self, Error> {
        let folder = data.generation(number);
        if !folder.is_dir() {
            return Err(Error::Damaged(format!(
                "{}: no such generation; build one with `anced index`, or write the number of another into {}",
                folder.display(),
                data.path().join("LIVE").display()
            )));
        }
        let manifest = Manifest::read(&folder)?;
        fits_store(&manifest, &folder, data.store(), number)?;
        manifest.verify(&folder)?;
        Self::of_manifest(folder, manifest, machine, |folder, manifest| {
            let files = [&manifest.vectors_file, &manifest.graph_file].map(|name| folder.join(name));
            let (dimension, similarity) = (manifest.dimension, manifest.similarity);
            Index::open(&files[0], &files[1], dimension, similarity, machine.index, &machine.runtime)
        })
    }

    /// A generation whose index files are of no use, with an empty index: the log is applied to it from its first entry.
    ///
    /// # Errors
    /// As [`open`](Self::open), but for the index files.
    pub(super) fn without_index(data: &DataFolder, number: u64, machine: &Machine) -> Result<Self, Error> {
        let folder = data.generation(number);
        let mut manifest = Manifest::read(&folder)?;
        fits_store(&manifest, &folder, data.store(), number)?;
        manifest.applied_sequence = 0;
        Self::of_manifest(folder, manifest, machine, |_, manifest| {
            let capacity = usize::try_from(manifest.documents).unwrap_or(0);
            Index::new(manifest.dimension, manifest.similarity, machine.index, capacity, &machine.runtime)
        })
    }

    fn of_manifest(
        folder: PathBuf,
        manifest: Manifest,
        machine: &Machine,
        index: impl FnOnce(&Path, &Manifest) -> Result<Index, crate::index::Error>,
    ) -> Result<Self, Error> {
        let number = manifest.number;
        let overrides = manifest.encoder.overrides();
        if machine.encoder.overrides != Overrides::default() && machine.encoder.overrides != overrides {
            tracing::warn!(
                generation = number,
                "pooling, similarity, max_seq_length, separator and chunks stay as the generation was built; `anced index` \
                 builds one with the settings given"
            );
        }
        let encoder = machine.encoder(&folder.join("checkpoint"), overrides)?;
        if encoder.dimension() != manifest.dimension {
            return Err(Error::Damaged(format!(
                "{}: its checkpoint gives {} components, its index has {}; build a new generation with `anced index`",
                folder.display(),
                encoder.dimension(),
                manifest.dimension
            )));
        }
        let index = index(&folder, &manifest)?;
        let (applied, tried) = (manifest.applied_sequence.into(), manifest.applied_sequence.into());
        Ok(Self {
            folder,
            number,
            manifest: Mutex::new(manifest),
            encoder,
            index,
            applied,
            tried,
            not_rebuilt: AtomicU64::new(0),
            saving: Mutex::default(),
        })
    }

    /// Its number.
    pub fn number(&self) -> u64 {
        self.number
    }

    /// Its encoder.
    pub fn encoder(&self) -> &Encoder {
        &self.encoder
    }

    /// Its index.
    pub fn index(&self) -> &Index {
        &self.index
    }

    /// The index in memory holds every write up to this sequence.
    pub fn applied(&self) -> u64 {
        self.applied.load(Ordering::Acquire)
    }

    pub(super) fn set_applied(&self, sequence: u64) {
        self.applied.fetch_max(sequence, Ordering::AcqRel);
    }

    /// Writes and deletions applied since the index was last saved, or that was tried in vain: a disk that is full is
    /// not filled again after every write.
    pub(super) fn untried(&self) -> u64 {
        self.applied().saturating_sub(self.tried.load(Ordering::Acquire))
    }

    /// Whether its graph is worn, and was not tried in vain a few changes ago.
    pub(super) fn wants_rebuild(&self, try_after: u64) -> bool {
        let failed = self.not_rebuilt.load(Ordering::Acquire);
        self.index.wants_rebuild() && (failed == 0 || self.applied() >= failed.saturating_add(try_after))
    }

    /// Builds the graph anew, as [`Index::rebuild`] does.
    ///
    /// # Errors
    /// As there.
    pub(super) fn rebuild<G>(&self, hold: impl FnOnce() -> G) -> Result<(), Error> {
        let result = self.index.rebuild(hold);
        self.not_rebuilt.store(if result.is_ok() { 0 } else { self.applied().max(1) }, Ordering::Release);
        Ok(result?)
    }

    /// Its manifest as on disk.
    pub fn manifest(&self) -> Manifest {
        self.manifest.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The name of its checkpoint where that came from.
    pub fn model(&self) -> String {
        self.manifest.lock().unwrap_or_else(PoisonError::into_inner).model.clone()
    }

    /// Writes the index as it is now beside its old files, then the manifest that names the new ones, then removes the
    /// old: whenever the process ends, the files that the manifest names belong together. Writers are held by `hold`,
    /// until the graph is written: the rest is written, flushed and summed up while they go on.
    ///
    /// # Errors
    /// A file that cannot be written; the old ones stay then.
    pub fn save<G>(&self, hold: impl FnOnce() -> G) -> Result<(), Error> {
        let _turn = self.saving.lock().unwrap_or_else(PoisonError::into_inner);
        let held = hold();
        let applied = self.applied();
        self.tried.store(applied, Ordering::Release);
        if applied == self.manifest().applied_sequence { Ok(()) } else { self.write_files(held) }
    }

    /// As [`save`](Self::save), also where the files should hold the same; nobody else writes.
    pub(super) fn save_again(&self) -> Result<(), Error> {
        let _turn = self.saving.lock().unwrap_or_else(PoisonError::into_inner);
        self.write_files(())
    }

    fn write_files<G>(&self, held: G) -> Result<(), Error> {
        let mut manifest = self.manifest();
        let applied = self.applied();
        let documents = self.index.count() as u64;
        let old = [manifest.vectors_file.clone(), manifest.graph_file.clone()];
        let new = [format!("vectors-{applied}.safetensors"), format!("index-{applied}.usearch")];
        let written = self.write_index(&new, held).and_then(|records| {
            manifest.documents = documents;
            manifest.applied_sequence = applied;
            manifest.files.retain(|name, _| !old.contains(name));
            manifest.files.extend(new.iter().cloned().zip(records));
            let [vectors, graph] = new.clone();
            (manifest.vectors_file, manifest.graph_file) = (vectors, graph);
            manifest.write(&self.folder)
        });
        // What counts is the manifest that lies there now: it may have taken its place and only its flush failed.
        let (lies_there, result) = match written {
            Ok(()) => (manifest, Ok(())),
            Err(error) => (Manifest::read(&self.folder)?, Err(error)),
        };
        if let Err(error) = remove_unnamed(&self.folder, &lies_there) {
            tracing::warn!(%error, "index files that nothing names any more stay until the next start");
        }
        *self.manifest.lock().unwrap_or_else(PoisonError::into_inner) = lies_there;
        result
    }

    fn write_index<G>(&self, [vectors, graph]: &[String; 2], held: G) -> Result<[FileRecord; 2], Error> {
        let (vectors, graph) = (self.folder.join(vectors), self.folder.join(graph));
        self.index.save(&vectors, &graph, held)?;
        sync_folder(&self.folder)?;
        Ok([file_record(&vectors).map_err(io_error(&vectors))?, file_record(&graph).map_err(io_error(&graph))?])
    }

    /// As operators see it.
    pub fn info(&self, live: bool) -> GenerationInfo {
        GenerationInfo::from_manifest(&self.manifest(), live)
    }
}
