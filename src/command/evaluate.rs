//! `anced evaluate`: measures of a generation, and of BM25 beside it.

use std::path::PathBuf;
use std::sync::Arc;

use clap::Args;
use serde_json::json;

use super::search::open_existing;
use super::{General, print};
use crate::corpus::Split;
use crate::evaluation::{self, Measure, Report, bm25_rankings, judged_split, measure, write_run};
use crate::generation::{Machine, Retriever};
use crate::settings::{EncoderArgs, IndexArgs};
use crate::telemetry::Metrics;

/// Hits a query that are ranked and measured.
const DEPTH: usize = 1000;

/// Measure a generation on the judgments of a split.
#[derive(Debug, Args)]
pub(super) struct Evaluate {
    #[command(flatten)]
    general: General,
    #[command(flatten)]
    encoder: EncoderArgs,
    #[command(flatten)]
    index: IndexArgs,
    /// Which judgments: train, dev or test.
    #[arg(long, default_value = "test")]
    split: Split,
    /// The generation; the live one where it is left away.
    #[arg(long)]
    generation: Option<u64>,
    /// Compare with every vector instead of walking the graph.
    #[arg(long)]
    exact: bool,
    /// Measure BM25 on the same queries too.
    #[arg(long)]
    bm25: bool,
    /// Say which share of the exact ten best the graph finds with its default settings.
    #[arg(long)]
    graph_recall: bool,
    /// Write the run as a TREC file.
    #[arg(long, value_name = "OUT.trec")]
    run: Option<PathBuf>,
    /// Print a JSON object.
    #[arg(long)]
    json: bool,
}

impl Evaluate {
    pub(super) fn run(self) -> anyhow::Result<()> {
        let settings = self.general.settings(&[&self.encoder, &self.index])?;
        let data = open_existing(&settings.data)?;
        let store = Arc::clone(data.store());
        let split = judged_split(&store, self.split)?;
        let machine = Machine::new(&settings, Arc::new(Metrics::new()?))?;
        let retriever = Retriever::new(data, &machine);
        match self.generation {
            Some(number) => retriever.load_number(number, &machine, &mut |_| {})?,
            None => retriever.load(&machine, &mut |_| {})?,
        }
        let generation = retriever.live()?;
        let expansion = (!self.exact).then_some(settings.expansion_search);
        let rankings = evaluation::rankings(&generation, &store, &split.queries, DEPTH, expansion)?;
        if let Some(file) = &self.run {
            write_run(file, &format!("anced-{}", generation.number()), &rankings)?;
        }
        let report = measure(&rankings, &split);
        let bm25 = self.bm25.then(|| bm25_rankings(&store, &split.queries, DEPTH)).transpose()?;
        let bm25 = bm25.map(|rankings| measure(&rankings, &split));
        let recall = self
            .graph_recall
            .then(|| evaluation::graph_recall(&generation, &split.queries, 10, settings.expansion_search))
            .transpose()?;
        let queries = split.queries.len();
        if self.json {
            let mut answer = json!({
                "generation": generation.number(),
                "split": self.split,
                "queries": queries,
                "measures": report,
            });
            if let Some(bm25) = bm25 {
                answer["bm25"] = serde_json::to_value(bm25)?;
            }
            if let Some(recall) = recall {
                answer["graph_recall@10"] = json!(recall);
            }
            return print(&answer.to_string());
        }
        print(&format!("{queries} queries of {}, {} search", self.split, if self.exact { "exact" } else { "graph" }))?;
        print(&line("", |measure| measure.to_string()))?;
        print(&row(&format!("generation {}", generation.number()), &report))?;
        if let Some(bm25) = &bm25 {
            print(&row("BM25", bm25))?;
        }
        if let Some(recall) = recall {
            print(&format!("the graph finds {:.2} % of the exact ten best", recall * 100.0))?;
        }
        Ok(())
    }
}

fn row(name: &str, report: &Report) -> String {
    line(name, |measure| report.mean(measure).map_or_else(String::new, |value| format!("{value:.4}")))
}

fn line(name: &str, cell: impl Fn(Measure) -> String) -> String {
    let cells: Vec<String> = Measure::STANDARD.iter().map(|measure| format!("{:>12}", cell(*measure))).collect();
    format!("{name:<16}{}", cells.concat())
}
