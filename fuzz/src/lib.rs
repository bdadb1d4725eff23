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
pub mod requests;
pub mod safetensors;
pub mod settings;
pub mod trec;

use std::path::{Path, PathBuf};

use tempfile::TempDir;

/// What a target does with an input.
pub type Target = fn(&[u8]);

/// Every target by its name.
pub const TARGETS: [(&str, Target); 9] = [
    ("checkpoints", checkpoints::run),
    ("filters", filters::run),
    ("graphs", graphs::run),
    ("imports", imports::run),
    ("manifests", manifests::run),
    ("requests", requests::run),
    ("safetensors", safetensors::run),
    ("settings", settings::run),
    ("trec", trec::run),
];

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
