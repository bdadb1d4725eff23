//! `anced import`: documents, queries and judgments from files into the store.

use std::path::{Path, PathBuf};

use clap::Args;

use super::progress::{Progress, Unit};
use super::{General, print};
use crate::corpus::{self, Format, ImportOptions, ImportReport, Split, Store};
use crate::generation::DataFolder;

/// Import documents, queries and judgments; importing again changes nothing.
#[derive(Debug, Args)]
pub(super) struct Import {
    #[command(flatten)]
    general: General,
    /// The format; told from each path where it is left away.
    #[arg(long)]
    format: Option<Format>,
    /// Count bad lines and go on, instead of stopping at the first.
    #[arg(long)]
    skip_bad: bool,
    /// The split of every judgment; told from each file's name where it is left away.
    #[arg(long)]
    split: Option<Split>,
    /// Print the report as a JSON object.
    #[arg(long)]
    json: bool,
    /// Files and folders; `-` is standard input.
    #[arg(required = true)]
    paths: Vec<PathBuf>,
}

impl Import {
    pub(super) fn run(self) -> anyhow::Result<()> {
        let settings = self.general.settings(&[])?;
        let (data, _lock) = DataFolder::open_locked(&settings.data)?;
        let options = ImportOptions { format: self.format, skip_bad: self.skip_bad, split: self.split };
        let report = import(data.store(), &self.paths, &options)?;
        if self.json {
            return print(&serde_json::to_string(&report)?);
        }
        describe(&report)?;
        if data.live()?.is_none() {
            print("no generation yet: `anced index` or `anced serve` makes the first")?;
        }
        Ok(())
    }
}

/// Imports with a progress bar.
pub(super) fn import<P: AsRef<Path>>(
    store: &Store,
    paths: &[P],
    options: &ImportOptions,
) -> anyhow::Result<ImportReport> {
    let paths: Vec<PathBuf> = paths.iter().map(|path| path.as_ref().to_path_buf()).collect();
    let mut bar = Progress::new("importing", Unit::Bytes);
    let report = corpus::import(store, &paths, options, &mut |progress| {
        bar.set(progress.bytes_read, progress.bytes_total, &format!("({} records)", progress.records));
    });
    bar.finish();
    Ok(report?)
}

fn describe(report: &ImportReport) -> anyhow::Result<()> {
    print(&format!(
        "{} documents ({} unchanged), {} queries, {} judgments",
        report.documents, report.unchanged, report.queries, report.judgments
    ))?;
    if report.skipped > 0 || report.unknown_judgments > 0 {
        print(&format!(
            "{} bad lines passed over, {} judgments of unknown documents or queries",
            report.skipped, report.unknown_judgments
        ))?;
        for error in &report.first_errors {
            print(&format!("  {error}"))?;
        }
    }
    Ok(())
}
