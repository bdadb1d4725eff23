//! A data folder in which one of the files that say what there is is another: a check says what is wrong, and a
//! generation that it calls sound can be opened.
//!
//! The first line is the file's path; the rest is the file. What is said as JSON for the manifest is put over a sound one.

use std::cell::RefCell;
use std::path::Path;
use std::sync::Arc;

use anced::corpus::Document;
use anced::generation::{DataFolder, Generation, Lock, Machine, Manifest, build, check_open};
use anced::settings::{Device, Settings};
use anced::telemetry::Metrics;
use serde_json::{Map, Value};
use tempfile::TempDir;

use super::{headed, repository, scratch};

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
    static WORLD: RefCell<Option<World>> = const { RefCell::new(None) };
}

pub fn run(input: &[u8]) {
    let Some((name, contents)) = headed(input) else { return };
    if !FILES.contains(&name) {
        return;
    }
    WORLD.with_borrow_mut(|world| {
        let World { machine, data, folder, .. } = world.get_or_insert_with(World::new);
        let file = folder.path().join(name);
        let before = std::fs::read(&file).ok();
        std::fs::write(&file, contents).unwrap();
        if name == MANIFEST {
            seal(before.as_deref().unwrap_or_default(), contents, &folder.path().join(GENERATION));
        }
        let _ = (data.live(), data.manifests(), data.next_number());
        let checked = check_open(data).unwrap();
        for number in checked.sound {
            Generation::open(data, number, machine).unwrap();
        }
        match before {
            Some(before) => std::fs::write(&file, before).unwrap(),
            None => std::fs::remove_file(&file).unwrap(),
        }
    });
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
        let settings = Settings {
            device: Device::Cpu,
            threads: 1,
            onnxruntime: Some(repository(".onnxruntime")),
            ..Settings::default()
        };
        let machine = Machine::new(&settings, Arc::new(Metrics::new().unwrap())).unwrap();
        let folder = scratch();
        let (data, lock) = DataFolder::open_locked(folder.path()).unwrap();
        let document = |id: &str, text: &str| Document {
            id: id.into(),
            title: String::new(),
            text: text.into(),
            metadata: Map::new(),
        };
        data.store().write(&[document("a", "list files"), document("b", "show the date")]).unwrap();
        let model = repository("tests/fixtures/reference/bert-mean");
        let number = build(&data, &model, None, &machine, &mut |_| {}).unwrap();
        data.set_live(number).unwrap();
        Self { machine, data, _lock: lock, folder }
    }
}
