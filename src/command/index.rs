//! `anced index`: a generation from the store.

use clap::Args;
use serde_json::json;

use super::progress::{Progress, Unit};
use super::{Engine, print};
use std::path::Path;
use std::sync::Arc;

use crate::generation::{DataFolder, Generation, Machine, build};
use crate::telemetry::Metrics;

/// Encode every document of the store and build the next generation, which the next start serves.
#[derive(Debug, Args)]
pub(super) struct IndexVerb {
    #[command(flatten)]
    engine: Engine,
    /// Build nothing: make the generation of this number live again. A running server does it by its REST API.
    #[arg(long, value_name = "N", conflicts_with = "model")]
    generation: Option<u64>,
    /// Print the generation as a JSON object.
    #[arg(long)]
    json: bool,
}

impl IndexVerb {
    pub(super) fn run(self) -> anyhow::Result<()> {
        let settings = self.engine.settings(&[])?;
        let (data, _lock) = DataFolder::open_locked(&settings.data)?;
        let machine = Machine::new(&settings, Arc::new(Metrics::new()?))?;
        let number = match self.generation {
            Some(number) => {
                // Loaded for its checks only.
                Generation::open(&data, number, &machine)?;
                data.set_live(number)?;
                number
            }
            None => build_and_publish(&data, &settings.model, &machine)?,
        };
        let manifest = crate::generation::Manifest::read(&data.generation(number))?;
        if self.json {
            return print(&serde_json::to_string(&json!({
                "generation": number,
                "documents": manifest.documents,
                "dimension": manifest.dimension,
                "similarity": manifest.similarity,
                "model": manifest.model,
            }))?);
        }
        print(&format!("generation {number} is live: {} documents, {}", manifest.documents, manifest.model))
    }
}

/// Builds the next generation with a progress bar and makes it live.
pub(super) fn build_and_publish(data: &DataFolder, checkpoint: &Path, machine: &Machine) -> anyhow::Result<u64> {
    let mut bar = Progress::new("encoding", Unit::Documents);
    let built = build(data, checkpoint, None, machine, &mut |progress| {
        bar.set(progress.done, Some(progress.total), "");
    });
    bar.finish();
    let number = built?;
    data.set_live(number)?;
    Ok(number)
}
