//! A snapshot: a copy of a data folder that is whole, taken while a server writes to it.
//!
//! What is derived is copied first, the store last. So every manifest of the copy reaches to a write that the store of the
//! copy has, and the rest is caught up with at the start, as after any other end of a process. A generation's files never
//! change under their names: those of one manifest, opened at once, belong together whatever becomes of their names.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::beside::{Beside, copy};
use super::folder::{HIGHEST, LIVE, entries, file_name, io_error};
use super::manifest::{FileRecord, MANIFEST, file_record, hexadecimal, replace_file};
use super::{DataFolder, Error, Manifest, Standing};
use crate::corpus::{STORE_DATA_FILE, Store};

/// What a snapshot holds, with a checksum for each file.
pub(super) const SNAPSHOT_FILE: &str = "snapshot.json";
/// How often a generation is tried whose files are being replaced, and how often the generations are listed again.
const TRIES: usize = 100;

/// The contents of `snapshot.json`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Snapshot {
    /// RFC 3339, UTC: when it was begun.
    pub created: String,
    /// The version of anced that took it.
    pub version: String,
    /// Documents in the store.
    pub documents: u64,
    /// The newest write.
    pub sequence: u64,
    /// The generation that a start from it loads; none where it has none.
    pub live: Option<u64>,
    /// The generations.
    pub generations: Vec<u64>,
    /// What could not be copied, and why, for people.
    pub left_out: Vec<String>,
    /// Every file by its path.
    pub files: BTreeMap<String, FileRecord>,
    /// sha256 of this with this value empty, in hexadecimal.
    pub(super) checksum: String,
}

impl Snapshot {
    /// Bytes of its files.
    pub fn bytes(&self) -> u64 {
        self.files.values().map(|file| file.bytes).sum()
    }

    pub(super) fn own_checksum(&self) -> Result<String, serde_json::Error> {
        let bare = Self { checksum: String::new(), ..self.clone() };
        Ok(hexadecimal(&Sha256::digest(serde_json::to_vec(&bare)?)))
    }
}

/// Copies a data folder to `target`, where there must be nothing or an empty folder, while others read and write it: every
/// document that was acknowledged before the call is in it. `is_running` says of a job, by its id, whether a process works
/// in its folder: such a folder is left out. `progress` is told the bytes copied.
///
/// # Errors
/// A target that is not empty or lies in the data folder, a full disk, a store that cannot be read; nothing is left at `target` then.
pub fn snapshot(
    data: &DataFolder,
    target: &Path,
    is_running: &dyn Fn(&str) -> Result<bool, Error>,
    progress: &mut dyn FnMut(u64),
) -> Result<Snapshot, Error> {
    let created = OffsetDateTime::now_utc().format(&Rfc3339).unwrap_or_default();
    let beside = Beside::begin(target, data.path())?;
    let mut copying = Copying {
        data,
        target: beside.folder(),
        generations: BTreeMap::new(),
        files: BTreeMap::new(),
        left_out: Vec::new(),
        bytes: 0,
        progress,
    };
    copying.generations()?;
    let live = copying.live()?;
    copying.jobs(is_running)?;
    copying.small_file(HIGHEST)?;
    let (documents, sequence) = copying.store()?;
    let mut snapshot = Snapshot {
        created,
        version: env!("CARGO_PKG_VERSION").into(),
        documents,
        sequence,
        live,
        generations: copying.generations.into_keys().collect(),
        left_out: copying.left_out,
        files: copying.files,
        checksum: String::new(),
    };
    let file = beside.folder().join(SNAPSHOT_FILE);
    let written = |error: serde_json::Error| Error::Place(format!("{}: {error}", file.display()));
    snapshot.checksum = snapshot.own_checksum().map_err(written)?;
    replace_file(&file, &serde_json::to_vec_pretty(&snapshot).map_err(written)?)?;
    beside.finish()?;
    Ok(snapshot)
}

struct Copying<'a> {
    data: &'a DataFolder,
    target: &'a Path,
    generations: BTreeMap<u64, Manifest>,
    files: BTreeMap<String, FileRecord>,
    left_out: Vec<String>,
    bytes: u64,
    progress: &'a mut dyn FnMut(u64),
}

impl Copying<'_> {
    /// Copies one file by its path in the data folder.
    fn copy(&mut self, mut source: File, name: &Path) -> Result<(), Error> {
        self.bytes += copy(&mut source, &self.target.join(name))?;
        (self.progress)(self.bytes);
        Ok(())
    }

    /// Notes the checksum of a file that was copied.
    fn record(&mut self, name: &Path) -> Result<(), Error> {
        let file = self.target.join(name);
        let record = file_record(&file).map_err(io_error(&file))?;
        self.files.insert(name.to_string_lossy().into_owned(), record);
        Ok(())
    }

    fn small_file(&mut self, name: &str) -> Result<(), Error> {
        let file = self.data.path().join(name);
        match File::open(&file) {
            Ok(opened) => self.copy(opened, Path::new(name))?,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(io_error(&file)(error)),
        }
        self.record(Path::new(name))
    }

    /// Copies every generation, those too that appear meanwhile, so that the live one is among them.
    fn generations(&mut self) -> Result<(), Error> {
        let folder = self.target.join("generations");
        std::fs::create_dir_all(&folder).map_err(io_error(&folder))?;
        let mut tried = BTreeSet::new();
        for _ in 0..TRIES {
            let fresh: Vec<u64> = self.data.numbers()?.into_iter().filter(|number| !tried.contains(number)).collect();
            if fresh.is_empty() {
                return Ok(());
            }
            for number in fresh {
                tried.insert(number);
                self.generation(number)?;
            }
        }
        Ok(())
    }

    /// Copies a generation as one manifest has it; one that is removed meanwhile is no loss, a damaged one is told.
    fn generation(&mut self, number: u64) -> Result<(), Error> {
        let folder = self.data.generation(number);
        let name = PathBuf::from("generations").join(file_name(&folder));
        for _ in 0..TRIES {
            let manifest = match Manifest::read(&folder) {
                Ok(manifest) => manifest,
                Err(_) if !folder.is_dir() => return Ok(()),
                Err(error) => {
                    self.left_out.push(error.to_string());
                    return Ok(());
                }
            };
            let opened: Result<Vec<(PathBuf, File)>, Error> = manifest
                .files
                .keys()
                .map(|file| {
                    let path = folder.join(file);
                    Ok((name.join(file), File::open(&path).map_err(io_error(&path))?))
                })
                .collect();
            let is_replaced = || Manifest::read(&folder).ok().as_ref() != Some(&manifest);
            let opened = match opened {
                Ok(opened) => opened,
                // A save put newer files in the place of those of this manifest.
                Err(_) if is_replaced() => continue,
                Err(error) => {
                    self.left_out.push(format!("generation {number}: {error}"));
                    return Ok(());
                }
            };
            for (file, source) in opened {
                self.copy(source, &file)?;
            }
            let place = self.target.join(&name);
            if let Err(error) = manifest.verify(&place) {
                std::fs::remove_dir_all(&place).map_err(io_error(&place))?;
                let told = error.to_string().replace(&*place.to_string_lossy(), &folder.to_string_lossy());
                self.left_out.push(format!("generation {number} is damaged: {told}"));
                return Ok(());
            }
            return self.take(manifest, &folder, &name);
        }
        self.left_out.push(format!("generation {number}: its files were replaced again and again; try again later"));
        Ok(())
    }

    /// Writes the manifest of a generation whose files are copied.
    fn take(&mut self, manifest: Manifest, folder: &Path, name: &Path) -> Result<(), Error> {
        // The gate may have written its word meanwhile.
        let newer = Manifest::read(folder).ok().filter(|newer| newer.files == manifest.files);
        let mut manifest = newer.unwrap_or(manifest);
        manifest.write(&self.target.join(name))?;
        for (file, record) in &manifest.files {
            self.files.insert(name.join(file).to_string_lossy().into_owned(), record.clone());
        }
        self.record(&name.join(MANIFEST))?;
        self.generations.insert(manifest.number, manifest);
        Ok(())
    }

    /// Writes `LIVE`: the generation that is live or, where that could not be copied, the newest that could.
    fn live(&mut self) -> Result<Option<u64>, Error> {
        let named = self.data.live();
        let live = named.as_ref().ok().copied().flatten().filter(|number| self.generations.contains_key(number));
        let ready = |manifest: &&Manifest| manifest.status == Standing::Ready;
        let newest = self.generations.values().rfind(ready).map(|manifest| manifest.number);
        let Some(number) = live.or(newest) else { return Ok(None) };
        if live.is_none() {
            let reason = match named {
                Ok(Some(named)) => format!("generation {named} is live and not in the snapshot"),
                Ok(None) => "no generation is live".into(),
                Err(error) => error.to_string(),
            };
            self.left_out.push(format!("{reason}: a start from the snapshot loads generation {number}"));
        }
        replace_file(&self.target.join(LIVE), format!("{number}\n").as_bytes())?;
        self.record(Path::new(LIVE))?;
        Ok(Some(number))
    }

    fn jobs(&mut self, is_running: &dyn Fn(&str) -> Result<bool, Error>) -> Result<(), Error> {
        let folder = self.data.path().join("jobs");
        if !folder.is_dir() {
            return Ok(());
        }
        for job in entries(&folder)?.iter().filter(|path| path.is_dir()) {
            let id = file_name(job);
            let name = Path::new("jobs").join(id);
            let before = contents(job);
            let copied = if is_running(id)? { None } else { Some(self.folder(job, &name)) };
            let is_steady = before.is_some() && before == contents(job) && !is_running(id)?;
            match copied {
                Some(Ok(())) if is_steady => {}
                Some(Err(error)) if is_steady => return Err(error),
                _ => {
                    let place = self.target.join(&name);
                    if place.is_dir() {
                        std::fs::remove_dir_all(&place).map_err(io_error(&place))?;
                    }
                    let advice = "it cannot be gone on with from the snapshot; take another after its end";
                    self.left_out.push(format!("job {id} runs: {advice}"));
                    continue;
                }
            }
            for file in before.into_iter().flatten() {
                self.record(&name.join(file.0))?;
            }
        }
        Ok(())
    }

    fn folder(&mut self, source: &Path, name: &Path) -> Result<(), Error> {
        for path in entries(source)? {
            let inner = name.join(file_name(&path));
            if path.is_dir() {
                self.folder(&path, &inner)?;
            } else {
                self.copy(File::open(&path).map_err(io_error(&path))?, &inner)?;
            }
        }
        Ok(())
    }

    /// Copies the store, opens the copy, and returns how many documents and writes it has.
    fn store(&mut self) -> Result<(u64, u64), Error> {
        let folder = self.target.join("store");
        self.data.store().copy_to(&folder)?;
        let found = {
            let copy = Store::open(&folder)?;
            (copy.count()?, copy.last_sequence()?)
        };
        for path in entries(&folder)?.iter().filter(|path| file_name(path) != STORE_DATA_FILE) {
            std::fs::remove_file(path).map_err(io_error(path))?;
        }
        self.record(&Path::new("store").join(STORE_DATA_FILE))?;
        Ok(found)
    }
}

/// The files of a folder with their sizes and times of change, by their paths in it; none where it cannot be read.
fn contents(folder: &Path) -> Option<BTreeMap<PathBuf, (u64, std::time::SystemTime)>> {
    let mut found = BTreeMap::new();
    let mut folders = vec![PathBuf::new()];
    while let Some(inner) = folders.pop() {
        for path in entries(&folder.join(&inner)).ok()? {
            let name = inner.join(file_name(&path));
            if path.is_dir() {
                folders.push(name);
            } else {
                let about = path.metadata().ok()?;
                found.insert(name, (about.len(), about.modified().ok()?));
            }
        }
    }
    Some(found)
}
