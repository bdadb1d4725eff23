//! A generation in memory: its encoder and its index, always together.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::folder::io_error;
use super::manifest::{FileRecord, file_record, sync_folder};
use super::{DataFolder, Error, GenerationInfo, Manifest};
use crate::encoder::{Encoder, EncoderOptions, Overrides};
use crate::index::{Index, IndexOptions};
use crate::onnx::Runtime;
use crate::settings::Settings;
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
            metrics,
        })
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
    folder: std::path::PathBuf,
    manifest: std::sync::Mutex<Manifest>,
    number: u64,
    encoder: Encoder,
    index: Index,
    /// The index in memory holds every write up to here.
    applied: AtomicU64,
}

impl Generation {
    /// Loads a generation from disk after comparing every file with its checksum.
    ///
    /// # Errors
    /// A missing or damaged file, an encoder that does not run.
    pub fn open(data: &DataFolder, number: u64, machine: &Machine) -> Result<Self, Error> {
        let folder = data.generation(number);
        if !folder.is_dir() {
            return Err(Error::Damaged(format!(
                "{}: no such generation; build one with `anced index`, or write the number of another into {}",
                folder.display(),
                data.path().join("LIVE").display()
            )));
        }
        let manifest = Manifest::read(&folder)?;
        manifest.verify(&folder)?;
        let record = &manifest.encoder;
        let overrides = Overrides {
            pooling: record.pooling,
            similarity: record.similarity,
            max_seq_length: record.max_seq_length,
            separator: record.separator.clone(),
        };
        let encoder = machine.encoder(&folder.join("checkpoint"), overrides)?;
        if encoder.dimension() != manifest.dimension {
            return Err(Error::Damaged(format!(
                "{}: its checkpoint gives {} components, its index has {}; build a new generation with `anced index`",
                folder.display(),
                encoder.dimension(),
                manifest.dimension
            )));
        }
        let index = Index::open(
            &folder.join(&manifest.vectors_file),
            &folder.join(&manifest.graph_file),
            manifest.dimension,
            manifest.similarity,
            machine.index,
            &machine.runtime,
        )?;
        let applied = AtomicU64::new(manifest.applied_sequence);
        Ok(Self { folder, number, manifest: std::sync::Mutex::new(manifest), encoder, index, applied })
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

    /// Writes and deletions that are in the index in memory but not in its files.
    pub fn unsaved(&self) -> u64 {
        self.applied().saturating_sub(self.manifest().applied_sequence)
    }

    /// Its manifest as on disk.
    pub fn manifest(&self) -> Manifest {
        self.manifest.lock().unwrap_or_else(std::sync::PoisonError::into_inner).clone()
    }

    /// Writes the index as it is now beside its old files, then the manifest that names the new ones, then removes the
    /// old: whenever the process ends, the files that the manifest names belong together. Writers must be held.
    ///
    /// # Errors
    /// A file that cannot be written; the old ones stay then.
    pub fn save(&self) -> Result<(), Error> {
        let mut manifest = self.manifest();
        let applied = self.applied();
        if applied == manifest.applied_sequence {
            return Ok(());
        }
        let old = [manifest.vectors_file.clone(), manifest.graph_file.clone()];
        let new = [format!("vectors-{applied}.safetensors"), format!("index-{applied}.usearch")];
        let written = self.write_index(&new).and_then(|records| {
            manifest.documents = self.index.count() as u64;
            manifest.applied_sequence = applied;
            manifest.files.retain(|name, _| !old.contains(name));
            manifest.files.extend(new.iter().cloned().zip(records));
            let [vectors, graph] = new.clone();
            (manifest.vectors_file, manifest.graph_file) = (vectors, graph);
            manifest.write(&self.folder)
        });
        if let Err(error) = written {
            for name in &new {
                // Nothing names these files; that they are in the way of nobody is all that counts.
                let _ = std::fs::remove_file(self.folder.join(name));
            }
            return Err(error);
        }
        *self.manifest.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = manifest;
        for name in old {
            let file = self.folder.join(name);
            std::fs::remove_file(&file).map_err(io_error(&file))?;
        }
        Ok(())
    }

    fn write_index(&self, [vectors, graph]: &[String; 2]) -> Result<[FileRecord; 2], Error> {
        let (vectors, graph) = (self.folder.join(vectors), self.folder.join(graph));
        self.index.save(&vectors, &graph)?;
        sync_folder(&self.folder)?;
        Ok([file_record(&vectors).map_err(io_error(&vectors))?, file_record(&graph).map_err(io_error(&graph))?])
    }

    /// As operators see it.
    pub fn info(&self, live: bool) -> GenerationInfo {
        GenerationInfo::from_manifest(&self.manifest(), live)
    }
}
