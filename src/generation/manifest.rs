//! `manifest.json`: what a generation is made of, with a checksum for each file.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};

use rayon::prelude::*;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::Error;
use super::folder::io_error;
use crate::encoder::Overrides;
use crate::index::SavedVectors;
use crate::settings::{Pooling, Similarity};

/// The manifest's file name.
pub(super) const MANIFEST: &str = "manifest.json";
/// How the names of the checkpoint's files begin; the others are derived from it and from the store.
pub(super) const CHECKPOINT: &str = "checkpoint/";

/// Size and checksum of a file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileRecord {
    /// In bytes.
    pub bytes: u64,
    /// sha256 in hexadecimal.
    pub sha256: String,
}

/// How the encoder of a generation was set over its checkpoint: its queries must be encoded the same way.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct EncoderRecord {
    /// Instead of the checkpoint's pooling.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pooling: Option<Pooling>,
    /// Instead of the checkpoint's similarity.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub similarity: Option<Similarity>,
    /// Instead of the checkpoint's length limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_seq_length: Option<usize>,
    /// Instead of the checkpoint's join of title and text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub separator: Option<String>,
    /// Pieces that a passage is cut into at most, where that is not 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub chunks: Option<usize>,
}

impl From<Overrides> for EncoderRecord {
    fn from(overrides: Overrides) -> Self {
        let Overrides { pooling, similarity, max_seq_length, separator, chunks } = overrides;
        Self { pooling, similarity, max_seq_length, separator, chunks: chunks.filter(|&chunks| chunks != 1) }
    }
}

impl EncoderRecord {
    /// What is set over the checkpoint.
    pub fn overrides(&self) -> Overrides {
        Overrides {
            pooling: self.pooling,
            similarity: self.similarity,
            max_seq_length: self.max_seq_length,
            separator: self.separator.clone(),
            chunks: self.chunks,
        }
    }
}

/// What the gate said when the generation was made.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Standing {
    /// Nothing speaks against it.
    #[default]
    Ready,
    /// A training made it and has not compared it with the live one yet: a training that was cut off leaves it so.
    Candidate,
    /// It measured worse than the one that was live: it goes live by hand only.
    Rejected,
}

impl Standing {
    fn is_ready(&self) -> bool {
        *self == Self::Ready
    }

    /// As in `manifest.json`: `ready`, `candidate` or `rejected`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ready => "ready",
            Self::Candidate => "candidate",
            Self::Rejected => "rejected",
        }
    }
}

/// The contents of `manifest.json`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// 1, 2, 3, …
    pub number: u64,
    /// The generation that it was trained from; none where the checkpoint came from outside.
    pub parent: Option<u64>,
    /// RFC 3339, UTC.
    pub created: String,
    /// The checkpoint folder's name where it came from.
    pub model: String,
    /// sha256 over the checkpoint's files, in hexadecimal: the same weights and settings give the same digest.
    pub checkpoint_digest: String,
    /// How the encoder was set over the checkpoint.
    #[serde(default)]
    pub encoder: EncoderRecord,
    /// Components of a vector.
    pub dimension: usize,
    /// How vectors are compared.
    pub similarity: Similarity,
    /// The identity of the store whose documents these are: sequences of another one mean other documents.
    pub store: String,
    /// Documents in the index files.
    pub documents: u64,
    /// The index files hold every write up to this sequence.
    pub applied_sequence: u64,
    /// What the gate said. Left out where it is `ready`, so that the checksums of manifests without it stay true.
    #[serde(default, skip_serializing_if = "Standing::is_ready")]
    pub status: Standing,
    /// Measures by name, as far as they were taken.
    pub measures: BTreeMap<String, f64>,
    /// The file of the vectors.
    pub vectors_file: String,
    /// The file of the graph.
    pub graph_file: String,
    /// Every file by its path in the generation's folder.
    pub files: BTreeMap<String, FileRecord>,
    /// sha256 of this manifest with this value empty, in hexadecimal; [`write`](Self::write) fills it in.
    pub checksum: String,
}

impl Manifest {
    /// Reads the manifest of a generation's folder.
    ///
    /// # Errors
    /// A file that cannot be read or is no manifest.
    pub fn read(folder: &Path) -> Result<Self, Error> {
        let file = folder.join(MANIFEST);
        let refuse = |reason: String| {
            let file = file.display();
            Error::Damaged(format!(
                "{file}: not a sound manifest ({reason}); restore it from a backup, or build a new generation with `anced \
                 index`"
            ))
        };
        let text = std::fs::read(&file).map_err(|error| refuse(error.to_string()))?;
        let manifest: Self = serde_json::from_slice(&text).map_err(|error| refuse(error.to_string()))?;
        if manifest.checksum != manifest.own_checksum().map_err(refuse)? {
            return Err(refuse("its contents do not fit its checksum".into()));
        }
        Ok(manifest)
    }

    fn own_checksum(&self) -> Result<String, String> {
        let bare = Self { checksum: String::new(), ..self.clone() };
        let text = serde_json::to_vec(&bare).map_err(|error| error.to_string())?;
        Ok(hexadecimal(&Sha256::digest(&text)))
    }

    /// Writes the manifest beside the old one, flushes it, and puts it in the old one's place.
    ///
    /// # Errors
    /// A file that cannot be written.
    pub fn write(&mut self, folder: &Path) -> Result<(), Error> {
        let file = folder.join(MANIFEST);
        let refuse = |reason: String| Error::Damaged(format!("{}: {reason}", file.display()));
        self.checksum = self.own_checksum().map_err(refuse)?;
        let text = serde_json::to_vec_pretty(self).map_err(|error| refuse(error.to_string()))?;
        replace_file(&file, &text)
    }

    /// Writes down what the gate said of the generation in `folder`, beside whatever else its manifest says by now.
    ///
    /// # Errors
    /// A manifest that cannot be read or written.
    pub fn judge(folder: &Path, status: Standing, measures: BTreeMap<String, f64>) -> Result<(), Error> {
        let mut manifest = Self { status, measures, ..Self::read(folder)? };
        manifest.write(folder)
    }

    /// The vectors of its documents by sequence; none where they are stored in 16 bits.
    ///
    /// # Errors
    /// A file that is missing, damaged, or was replaced by a newer one since the manifest was read.
    pub fn saved_vectors(&self, folder: &Path) -> Result<Option<SavedVectors>, Error> {
        let file = folder.join(&self.vectors_file);
        let saved = SavedVectors::open(&file, None)?;
        let found = file_record(&file).map_err(io_error(&file))?;
        if self.files.get(&self.vectors_file) != Some(&found) {
            return Err(Error::Damaged(format!("{}: its checksum differs from the manifest's", file.display())));
        }
        Ok(saved)
    }

    /// What its files take on disk, in bytes.
    pub fn bytes(&self) -> u64 {
        self.files.values().map(|file| file.bytes).sum()
    }

    /// Compares every file with its checksum.
    ///
    /// # Errors
    /// The first file that is missing, cut short or changed.
    pub fn verify(&self, folder: &Path) -> Result<(), Error> {
        let files: Vec<_> = self.files.iter().collect();
        files.par_iter().try_for_each(|(name, record)| {
            let file = folder.join(name);
            let refuse = |reason: String| {
                let file = file.display();
                let rebuild = if name.starts_with(CHECKPOINT) { "" } else { " rebuild it with `anced verify --repair`," };
                Error::Damaged(format!(
                    "{file}: {reason}; restore the file from a backup,{rebuild} or build a new generation with `anced index`"
                ))
            };
            let found = file_record(&file).map_err(|error| refuse(error.to_string()))?;
            if found.bytes != record.bytes {
                return Err(refuse(format!("{} bytes where the manifest says {}", found.bytes, record.bytes)));
            }
            if found.sha256 != record.sha256 {
                return Err(refuse("its checksum differs from the manifest's, the file is damaged".into()));
            }
            Ok(())
        })
    }
}

/// Size and checksum of a file as it lies on the disk.
pub(super) fn file_record(file: &Path) -> std::io::Result<FileRecord> {
    let mut opened = File::open(file)?;
    let mut digest = Sha256::new();
    let mut buffer = vec![0; 1 << 20];
    let mut bytes = 0;
    loop {
        let count = opened.read(&mut buffer)?;
        if count == 0 {
            return Ok(FileRecord { bytes, sha256: hexadecimal(&digest.finalize()) });
        }
        bytes += count as u64;
        digest.update(buffer.get(..count).unwrap_or_default());
    }
}

/// The digest of a checkpoint: over the names and checksums of its files but the ONNX copy, which is derived.
pub(super) fn checkpoint_digest(files: &BTreeMap<String, FileRecord>) -> String {
    let mut digest = Sha256::new();
    let of_checkpoint = |name: &str| name.starts_with(CHECKPOINT) && !name.starts_with("checkpoint/onnx/");
    for (name, record) in files.iter().filter(|(name, _)| of_checkpoint(name)) {
        digest.update(format!("{} {name}\n", record.sha256));
    }
    hexadecimal(&digest.finalize())
}

pub(crate) fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Writes `text` beside `file`, flushes it, renames it, and flushes the folder: all of it or nothing.
pub(crate) fn replace_file(file: &Path, text: &[u8]) -> Result<(), Error> {
    let folder = file.parent().map_or_else(|| PathBuf::from("."), Path::to_path_buf);
    // Whoever may read what lies beside it may read it too, within the umask.
    let everybody = std::os::unix::fs::PermissionsExt::from_mode(0o666);
    let mut beside = tempfile::Builder::new().permissions(everybody).tempfile_in(&folder).map_err(io_error(file))?;
    beside.write_all(text).map_err(io_error(file))?;
    beside.as_file().sync_all().map_err(io_error(file))?;
    beside.persist(file).map_err(|error| Error::Io { path: file.to_path_buf(), source: error.error })?;
    sync_folder(&folder)
}

/// Flushes a folder's entries to the disk.
pub(super) fn sync_folder(folder: &Path) -> Result<(), Error> {
    File::open(folder).and_then(|opened| opened.sync_all()).map_err(io_error(folder))
}
