//! One optimiser step of a checkpoint, as `benches/train/baseline.py` does it in PyTorch; `benches/train/run` runs both.
//!
//! Prints one JSON line. Options: see [`Options`].
#![allow(clippy::unwrap_used, clippy::panic, reason = "a benchmark ends by panicking")]

use std::path::{Path, PathBuf};
use std::time::Instant;

use anced::encoder::{Checkpoint, Overrides};
use anced::onnx::bert::DropoutSeed;
use anced::onnx::{
    Adam, Batch, Example, Loss, Objective, Optimizer, Runtime, TrainingOptions, TrainingPrecision, TrainingSession,
};
use anced::settings::Device;
use clap::Parser;

#[derive(Debug, Parser)]
struct Options {
    /// A checkpoint folder of the BERT family.
    #[arg(long, default_value = "models/all-MiniLM-L6-v2")]
    model: PathBuf,
    /// Triples of a batch.
    #[arg(long, default_value_t = 8)]
    triples: usize,
    #[arg(long, default_value_t = 32)]
    query_tokens: u64,
    #[arg(long, default_value_t = 128)]
    passage_tokens: u64,
    #[arg(long, default_value_t = 20)]
    steps: usize,
    #[arg(long, default_value_t = 3)]
    warmup: usize,
    /// Lengths from a third of the tokens to all of them.
    #[arg(long)]
    ragged: bool,
    /// Dropout as the checkpoint's configuration says.
    #[arg(long)]
    dropout: bool,
    #[arg(long, default_value_t = 2)]
    threads: usize,
    #[arg(long, default_value = "cpu")]
    device: Device,
    /// fp32, fp16 or bf16.
    #[arg(long, default_value = "fp32")]
    dtype: String,
    /// As cargo calls it.
    #[arg(long, hide = true)]
    bench: bool,
}

/// SplitMix64, as the baseline has it.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % bound
    }

    fn text(&mut self, tokens: u64, ragged: bool, vocabulary: u64) -> Vec<u32> {
        let least = (tokens / 3).max(1);
        let length = if ragged { least + self.below(tokens - least + 1) } else { tokens };
        (0..length).map(|_| 5 + self.below(vocabulary - 5) as u32).collect()
    }
}

fn batch(options: &Options, vocabulary: u64) -> Batch {
    let mut random = Random(1);
    let mut texts = |tokens| -> Vec<Vec<u32>> {
        (0..options.triples).map(|_| random.text(tokens, options.ragged, vocabulary)).collect()
    };
    let queries = texts(options.query_tokens);
    let (positives, negatives) = (texts(options.passage_tokens), texts(options.passage_tokens));
    let example = |query| Example { query, positive: query, negative: Some(options.triples + query) };
    Batch {
        queries,
        documents: positives.into_iter().chain(negatives).map(|text| vec![text]).collect(),
        examples: (0..options.triples).map(example).collect(),
        judged: Vec::new(),
    }
}

/// The most memory that the process had, in MiB.
fn peak_memory() -> f64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find(|line| line.starts_with("VmHWM:"));
    line.and_then(|line| line.split_whitespace().nth(1)?.parse::<f64>().ok()).map_or(f64::NAN, |kib| kib / 1024.0)
}

fn vocabulary(model: &Path) -> u64 {
    let config = std::fs::read(model.join("config.json")).unwrap();
    serde_json::from_slice::<serde_json::Value>(&config).unwrap()["vocab_size"].as_u64().unwrap()
}

fn main() {
    let options = Options::parse();
    let library = std::env::var_os("ANCED_ONNXRUNTIME").map(PathBuf::from);
    let runtime = Runtime::load(library.as_deref(), options.threads).unwrap();
    let placement = runtime.place(options.device).unwrap();
    let checkpoint = Checkpoint::open(&options.model, &Overrides::default()).unwrap();
    let loss = Loss { objective: Objective::Pairwise, scale: 20.0, chunks: false };
    let (task, weights) = checkpoint.task(loss).unwrap();
    let settings = TrainingOptions {
        optimizer: Optimizer::AdamW(Adam { weight_decay: 0.01, ..Adam::default() }),
        clip: 1.0,
        precision: match options.dtype.as_str() {
            "fp32" => TrainingPrecision::Fp32,
            "fp16" => TrainingPrecision::Fp16,
            "bf16" => TrainingPrecision::Bf16,
            other => panic!("--dtype {other}: fp32, fp16 or bf16"),
        },
        dropout: options.dropout.then_some(DropoutSeed { run: 1, step: 0 }),
        accumulation: 1,
    };
    let mut training = TrainingSession::new(&runtime, placement, &task, weights, settings).unwrap();
    let batches = [batch(&options, vocabulary(&options.model))];
    let (mut times, mut losses) = (Vec::new(), Vec::new());
    for step in 0..options.warmup + options.steps {
        let start = Instant::now();
        let update = training.step(&batches, 1e-6, step as u64 + 1).unwrap();
        losses.push(update.loss);
        if step >= options.warmup {
            times.push(start.elapsed().as_secs_f64());
        }
    }
    times.sort_by(f64::total_cmp);
    let share = |share: f64| times[((times.len() - 1) as f64 * share).round() as usize];
    let report = serde_json::json!({
        "what": format!("anced, {placement}, {}", options.dtype),
        "steps": options.steps,
        "median_s": share(0.5),
        "p10_s": share(0.1),
        "p90_s": share(0.9),
        "peak_rss_mib": peak_memory(),
        "loss_first": losses.first(),
        "loss_last": losses.last(),
    });
    println!("{report}");
}
