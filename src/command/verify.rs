//! `anced verify`: whether a data folder is sound.

use std::path::Path;
use std::sync::Arc;

use clap::Args;
use serde_json::json;

use super::progress::{Progress, Unit};
use super::{Engine, print};
use crate::generation::{self, Check, DataFolder, Machine};
use crate::settings::Settings;
use crate::telemetry::Metrics;

/// Repairs that may build on each other: the indexes first, then what names a generation.
const REPAIRS: usize = 2;

/// Check a data folder: its store, the checksums of its generations, and each index against the store. Exit code 1 where
/// something is wrong.
#[derive(Debug, Args)]
pub(super) struct Verify {
    #[command(flatten)]
    engine: Engine,
    /// Put right what is derived: build damaged indexes anew, drop what was left half-written, let LIVE name a sound
    /// generation. Documents, queries and judgments are never touched. No server may run in the folder.
    #[arg(long)]
    repair: bool,
    /// Print what was found as a JSON object.
    #[arg(long)]
    json: bool,
}

impl Verify {
    pub(super) fn run(self) -> anyhow::Result<()> {
        let settings = self.engine.settings(&[])?;
        let mut check = generation::check(&settings.data)?;
        let mut done = Vec::new();
        if self.repair && check.in_use {
            check.notes.push("another anced works in the folder: nothing is repaired, stop it first".into());
        } else if self.repair && check.store.is_some() {
            (done, check) = repair(&settings)?;
        }
        self.report(&settings.data, &check, &done)
    }

    fn report(&self, data: &Path, check: &Check, done: &[String]) -> anyhow::Result<()> {
        if self.json {
            let mut object = serde_json::to_value(check)?;
            object["repaired"] = json!(done);
            print(&object.to_string())?;
        } else {
            for done in done {
                print(&format!("repaired: {done}"))?;
            }
            for finding in &check.findings {
                print(&format!("{}: {}", finding.place, finding.problem))?;
            }
            for note in &check.notes {
                print(&format!("note: {note}"))?;
            }
            if let Some(store) = check.store {
                let (generations, documents) = (check.sound.len(), store.documents);
                print(&format!("{generations} sound generations, {documents} documents, {} writes", store.writes))?;
            }
        }
        let findings = check.findings.len();
        anyhow::ensure!(findings == 0, "{}: {findings} findings", data.display());
        Ok(())
    }
}

/// Opens the folder, which drops what was left half-written, and repairs as long as that helps; returns what was done,
/// and what is found afterwards.
fn repair(settings: &Settings) -> anyhow::Result<(Vec<String>, Check)> {
    let (data, _lock) = DataFolder::open_locked(&settings.data)?;
    let machine = Machine::new(settings, Arc::new(Metrics::new()?))?;
    let (mut check, mut done) = (generation::check_open(&data)?, Vec::new());
    for _ in 0..REPAIRS {
        if !check.findings.iter().any(|finding| finding.repairable) {
            break;
        }
        let mut bar = Progress::new("encoding", Unit::Documents);
        let repaired = generation::repair(&data, &check, &machine, &mut |progress| {
            bar.set(progress.done, Some(progress.total), "");
        });
        bar.finish();
        done.extend(repaired?);
        check = generation::check_open(&data)?;
    }
    Ok((done, check))
}
