//! What each fuzz target does with its bytes: a parser of outside input, and what must hold whatever comes in.
//!
//! `fuzz_targets/` gives them to libFuzzer; `tests/fuzz_seeds.rs` runs the inputs that are kept in `seeds/`.
#![allow(dead_code, unreachable_pub, reason = "the test that runs the kept inputs takes this in as a module")]
#![allow(clippy::unwrap_used, clippy::panic, reason = "a finding is a panic")]

pub mod checkpoints;
pub mod filters;
pub mod graphs;
pub mod imports;
pub mod manifests;
pub mod pickles;
pub mod requests;
pub mod safetensors;
pub mod settings;
pub mod trec;
pub mod vocabularies;

use std::cell::RefCell;
use std::path::{Path, PathBuf};

use anced::corpus::Document;
use anced::generation::{DataFolder, Lock, Machine, build};
use anced::settings::{Device, Settings};
use serde_json::Value;
use tempfile::TempDir;

/// What a target does with an input.
pub type Target = fn(&[u8]);

/// Every target by its name.
pub const TARGETS: [(&str, Target); 11] = [
    ("checkpoints", checkpoints::run),
    ("filters", filters::run),
    ("graphs", graphs::run),
    ("imports", imports::run),
    ("manifests", manifests::run),
    ("pickles", pickles::run),
    ("requests", requests::run),
    ("safetensors", safetensors::run),
    ("settings", settings::run),
    ("trec", trec::run),
    ("vocabularies", vocabularies::run),
];

/// What the inputs of a target share, made anew after so many of them: a store's log, for one, only grows.
struct Shared<W>(RefCell<Option<(u32, W)>>);

impl<W> Shared<W> {
    const fn new() -> Self {
        Self(RefCell::new(None))
    }

    fn with(&self, inputs: u32, make: impl FnOnce() -> W, run: impl FnOnce(&mut W)) {
        let mut held = self.0.borrow_mut();
        if held.as_ref().is_some_and(|(used, _)| *used >= inputs) {
            *held = None;
        }
        let (used, world) = held.get_or_insert_with(|| (0, make()));
        *used += 1;
        run(world);
    }
}

/// Settings of a server that is quick and small.
fn settings() -> Settings {
    Settings {
        onnxruntime: Some(repository(".onnxruntime")),
        device: Device::Cpu,
        threads: 1,
        max_body_bytes: 1 << 16,
        max_hits: 100,
        max_batch: 16,
        ..Settings::default()
    }
}

/// A data folder with some documents and a live generation of a tiny checkpoint.
fn data_folder(folder: &Path, machine: &Machine, documents: &[Document]) -> (DataFolder, Lock) {
    let (data, lock) = DataFolder::open_locked(folder).unwrap();
    data.store().write(documents).unwrap();
    let number = build(&data, &repository("tests/fixtures/reference/bert-mean"), None, machine, &mut |_| {}).unwrap();
    data.set_live(number).unwrap();
    (data, lock)
}

/// A document of some metadata.
fn document(id: impl ToString, text: &str, metadata: Value) -> Document {
    let metadata = metadata.as_object().cloned().unwrap_or_default();
    Document { id: id.to_string(), title: String::new(), text: text.into(), metadata }
}

/// A file of the repository, from this package and from the crate above it.
fn repository(path: &str) -> PathBuf {
    let package = Path::new(env!("CARGO_MANIFEST_DIR"));
    let root = if package.ends_with("fuzz") { package.parent().unwrap() } else { package };
    root.join(path)
}

/// A folder in memory, where the machine has such: a disk would be most of the time.
fn scratch() -> TempDir {
    tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap()
}

/// The first line, which says what the rest is, and the rest.
fn headed(input: &[u8]) -> Option<(&str, &[u8])> {
    let end = input.iter().position(|byte| *byte == b'\n')?;
    let (line, rest) = input.split_at(end);
    Some((std::str::from_utf8(line).ok()?, &rest[1..]))
}

/// Runs with another content in a file of a folder, and puts back what was there; `run` is given that.
fn instead(folder: &Path, name: &str, contents: &[u8], run: impl FnOnce(&[u8])) {
    let file = folder.join(name);
    let before = std::fs::read(&file).ok();
    std::fs::write(&file, contents).unwrap();
    run(before.as_deref().unwrap_or_default());
    match before {
        Some(before) => std::fs::write(&file, before).unwrap(),
        None => std::fs::remove_file(&file).unwrap(),
    }
}

/// Copies a folder of files.
fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let path = entry.unwrap().path();
        let place = to.join(path.file_name().unwrap());
        if path.is_dir() {
            copy(&path, &place);
        } else {
            // The bytes alone: the original may be write-protected.
            std::fs::write(&place, std::fs::read(&path).unwrap()).unwrap();
        }
    }
}
