//! `anced restore`: a data folder from a snapshot.

use std::path::PathBuf;

use clap::Args;

use super::General;
use super::progress::{Progress, Unit};
use super::snapshot::report;
use crate::generation;

/// Make a data folder of a snapshot, after comparing every file with its checksum.
#[derive(Debug, Args)]
pub(super) struct Restore {
    #[command(flatten)]
    general: General,
    /// The folder that `anced snapshot` wrote. The data folder must not be there, or be empty.
    snapshot: PathBuf,
    /// Print what was restored as a JSON object.
    #[arg(long)]
    json: bool,
}

impl Restore {
    pub(super) fn run(self) -> anyhow::Result<()> {
        let data = self.general.settings(&[])?.data;
        let mut bar = Progress::new("restoring", Unit::Bytes);
        let restored = generation::restore(&self.snapshot, &data, &mut |bytes| bar.set(bytes, None, ""));
        bar.finish();
        report(&restored?, &data, "data", self.json)
    }
}
