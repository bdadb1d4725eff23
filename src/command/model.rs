//! `anced model`: what a checkpoint is, and one of an older layout made into one that is read.

use std::path::PathBuf;
use std::sync::Arc;

use anyhow::Context as _;
use clap::{Args, Subcommand};
use serde_json::json;

use super::{General, print};
use crate::encoder::{Checkpoint, Encoder, EncoderOptions, Overrides, Side, convert};
use crate::onnx::Runtime;
use crate::settings::EncoderArgs;
use crate::telemetry::Metrics;

/// Look into checkpoints, and convert older ones.
#[derive(Debug, Args)]
pub(super) struct Model {
    #[command(subcommand)]
    verb: ModelVerb,
}

#[derive(Debug, Subcommand)]
enum ModelVerb {
    /// Say what a checkpoint folder is, after running it once.
    Inspect(Inspect),
    /// Write a checkpoint of an older layout as one that is read: safetensors for PyTorch's pickles, tokenizer.json for
    /// the vocabulary files of BERT and RoBERTa. Nothing of a pickle is executed.
    Convert(Convert),
}

#[derive(Debug, Args)]
struct Inspect {
    #[command(flatten)]
    general: General,
    #[command(flatten)]
    encoder: EncoderArgs,
    /// Print a JSON object.
    #[arg(long)]
    json: bool,
    /// The checkpoint's folder.
    folder: PathBuf,
}

#[derive(Debug, Args)]
struct Convert {
    #[command(flatten)]
    general: General,
    /// Print a JSON object.
    #[arg(long)]
    json: bool,
    /// The checkpoint's folder.
    source: PathBuf,
    /// The folder to write; it must not be there yet.
    target: PathBuf,
}

impl Model {
    pub(super) fn run(self) -> anyhow::Result<()> {
        match self.verb {
            ModelVerb::Inspect(verb) => verb.run(),
            ModelVerb::Convert(verb) => verb.run(),
        }
    }
}

impl Inspect {
    fn run(self) -> anyhow::Result<()> {
        let settings = self.general.settings(&[&self.encoder])?;
        let runtime = Runtime::load(settings.onnxruntime.as_deref(), settings.threads)?;
        let metrics = Arc::new(Metrics::new()?);
        let encoder = Encoder::open(&self.folder, &EncoderOptions::from(&settings), &runtime, &metrics)?;
        let sample = "what one wants to know";
        let encoded = encoder.encode_blocking(vec![sample.into()], Side::Query)?;
        let checkpoint = encoder.checkpoint();
        let heads: Vec<String> = checkpoint.heads.iter().map(|head| format!("{head:?}")).collect();
        let start: Vec<f32> = encoded.vectors.iter().flatten().take(4).copied().collect();
        let report = json!({
            "folder": checkpoint.folder,
            "model_type": checkpoint.model_type,
            "graph": checkpoint.own_onnx().map_or("written by anced".into(), |path| path.display().to_string()),
            "parameters": checkpoint.parameters(),
            "dimension": encoder.dimension(),
            "max_seq_length": checkpoint.max_seq_length,
            "modules": heads,
            "similarity": checkpoint.similarity,
            "lower_case": checkpoint.lower_case,
            "query_prompt": checkpoint.query_prompt,
            "passage_prompt": checkpoint.passage_prompt,
            "separator": checkpoint.separator,
            "device": encoder.placement().to_string(),
            "precision": encoder.precision(),
            "onnxruntime": runtime.library(),
            "sample": {"text": sample, "tokens": encoded.tokens, "vector_start": start},
        });
        if self.json {
            return print(&report.to_string());
        }
        for (key, value) in report.as_object().into_iter().flatten() {
            let text = value
                .as_str()
                .map_or_else(|| value.to_string(), |text| format!("{text:?}").trim_matches('"').to_owned());
            print(&format!("{key:<16} {text}"))?;
        }
        Ok(())
    }
}

impl Convert {
    fn run(self) -> anyhow::Result<()> {
        self.general.settings(&[])?;
        let made = convert(&self.source, &self.target).with_context(|| format!("convert {}", self.source.display()))?;
        let checkpoint = Checkpoint::open(&self.target, &Overrides::default())?;
        let (folder, parameters) = (self.target.display(), checkpoint.parameters());
        if self.json {
            return print(&serde_json::to_string(&json!({
                "folder": self.target,
                "model_type": checkpoint.model_type,
                "parameters": parameters,
                "dimension": checkpoint.dimension,
                "made": made.iter().map(|one| json!({"file": one.file, "from": one.from})).collect::<Vec<_>>(),
            }))?);
        }
        for one in &made {
            let from: Vec<String> = one.from.iter().map(|file| file.display().to_string()).collect();
            print(&format!("{} from {}", one.file.display(), from.join(" and ")))?;
        }
        print(&format!(
            "{folder}: {}, {parameters} parameters, {} dimensions; `anced model inspect` tries it",
            checkpoint.model_type, checkpoint.dimension
        ))
    }
}
