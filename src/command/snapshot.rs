//! `anced snapshot`: a copy of the data folder while a server works in it.

use std::path::{Path, PathBuf};

use clap::Args;
use serde_json::json;

use super::progress::{Progress, Unit};
use super::{General, print};
use crate::corpus::Store;
use crate::generation::{self, DataFolder, Error, Snapshot, is_training};
use crate::refresh::{Job, State};

/// Copy the data folder, also while a server serves from it: every document that was acknowledged before is in the copy.
#[derive(Debug, Args)]
pub(super) struct SnapshotVerb {
    #[command(flatten)]
    general: General,
    /// The folder to write; it must not be there, or be empty.
    target: PathBuf,
    /// Print what was copied as a JSON object.
    #[arg(long)]
    json: bool,
}

impl SnapshotVerb {
    pub(super) fn run(self) -> anyhow::Result<()> {
        let path = self.general.settings(&[])?.data;
        anyhow::ensure!(path.join("store").is_dir(), "{}: no data folder; name one with --data", path.display());
        let data = DataFolder::open(&path)?;
        let mut bar = Progress::new("copying", Unit::Bytes);
        let is_running = |id: &str| is_running(data.store(), &path, id);
        let taken = generation::snapshot(&data, &self.target, &is_running, &mut |bytes| bar.set(bytes, None, ""));
        bar.finish();
        let taken = taken?;
        for left_out in &taken.left_out {
            eprintln!("anced: not as it should be: {left_out}");
        }
        report(&taken, &self.target, "snapshot", self.json)
    }
}

/// Whether a process works in the folder of a job.
fn is_running(store: &Store, data: &Path, id: &str) -> Result<bool, Error> {
    if !is_training(data)? {
        return Ok(false);
    }
    let records = store.jobs()?;
    let jobs: Vec<Job> = records.iter().filter_map(|record| serde_json::from_str(record).ok()).collect();
    let runs = |job: &Job| job.state == State::Running;
    // A job without a record is one of the command line: it runs where no other does.
    Ok(jobs.iter().find(|job| job.id == id).map_or_else(|| !jobs.iter().any(runs), runs))
}

/// Prints what a snapshot holds.
pub(super) fn report(snapshot: &Snapshot, place: &Path, key: &str, json: bool) -> anyhow::Result<()> {
    let Snapshot { documents, sequence, live, generations, left_out, .. } = snapshot;
    let bytes = snapshot.bytes();
    if json {
        return print(&serde_json::to_string(&json!({
            key: place,
            "documents": documents,
            "sequence": sequence,
            "live": live,
            "generations": generations,
            "bytes": bytes,
            "left_out": left_out,
        }))?);
    }
    let live = live.map_or_else(|| "none live".into(), |live| format!("generation {live} live"));
    let count = generations.len();
    print(&format!("{}: {documents} documents, {count} generations, {live}, {bytes} bytes", place.display()))
}
