//! A data folder in which one of the files that say what there is is another: a check says what is wrong, and a
//! generation that it calls sound can be opened.
//!
//! The first line is the file's path; the rest is the file. What is said as JSON for the manifest is put over a sound one.

use std::path::Path;
use std::sync::Arc;

use anced::generation::{DataFolder, Generation, Lock, Machine, Manifest, check_open};
use anced::telemetry::Metrics;
use serde_json::Value;
use tempfile::TempDir;

use super::{Shared, data_folder, document, headed, instead, scratch, settings};

const GENERATION: &str = "generations/000001";
const MANIFEST: &str = "generations/000001/manifest.json";
const FILES: [&str; 4] = ["LIVE", "highest-removed", "lock", MANIFEST];

struct World {
    machine: Machine,
    data: DataFolder,
    _lock: Lock,
    folder: TempDir,
}

thread_local! {
    static WORLD: Shared<World> = const { Shared::new() };
}

pub fn run(input: &[u8]) {
    let Some((name, contents)) = headed(input) else { return };
    if FILES.contains(&name) {
        WORLD.with(|shared| shared.with(u32::MAX, World::new, |world| world.check(name, contents)));
    }
}

/// Puts what is said over a sound manifest and gives it its checksum, without which nothing of it is believed.
fn seal(sound: &[u8], said: &[u8], generation: &Path) {
    let (Ok(mut whole), Ok(said)) = (serde_json::from_slice(sound), serde_json::from_slice(said)) else { return };
    put_over(&mut whole, said);
    std::fs::write(generation.join("manifest.json"), whole.to_string()).unwrap();
    if let Ok(mut manifest) = serde_json::from_value::<Manifest>(whole) {
        manifest.write(generation).unwrap();
    }
}

fn put_over(whole: &mut Value, said: Value) {
    match (whole, said) {
        (Value::Object(whole), Value::Object(said)) => {
            said.into_iter().for_each(|(name, value)| put_over(whole.entry(name).or_insert(Value::Null), value));
        }
        (whole, said) => *whole = said,
    }
}

impl World {
    fn new() -> Self {
        let machine = Machine::new(&settings(), Arc::new(Metrics::new().unwrap())).unwrap();
        let folder = scratch();
        let documents = [document("a", "list files", Value::Null), document("b", "show the date", Value::Null)];
        let (data, lock) = data_folder(folder.path(), &machine, &documents);
        Self { machine, data, _lock: lock, folder }
    }

    fn check(&self, name: &str, contents: &[u8]) {
        instead(self.folder.path(), name, contents, |before| {
            if name == MANIFEST {
                seal(before, contents, &self.folder.path().join(GENERATION));
            }
            let _ = (self.data.live(), self.data.manifests(), self.data.next_number());
            for number in check_open(&self.data).unwrap().sound {
                Generation::open(&self.data, number, &self.machine).unwrap();
            }
        });
    }
}
