//! `anced evaluate`: measures of a generation, and of BM25 beside it.

use std::path::PathBuf;
use std::sync::Arc;

use clap::Args;
use serde_json::{Value, json};

use super::search::open_existing;
use super::{Engine, print};
use crate::corpus::Split;
use crate::evaluation::{self, Measure, Report, answer_accuracy, bm25_rankings, judged_split, measure, write_run};
use crate::generation::{Machine, Retriever};
use crate::telemetry::Metrics;

/// Hits a query that are ranked and measured.
const DEPTH: usize = 1000;

/// Measure a generation on the judgments of a split.
#[derive(Debug, Args)]
pub(super) struct Evaluate {
    #[command(flatten)]
    engine: Engine,
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
        let settings = self.engine.settings(&[])?;
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
        let rankings = evaluation::rankings(&generation, &store, &split.queries, DEPTH, expansion, &mut |_| {})?;
        if let Some(file) = &self.run {
            write_run(file, &format!("anced-{}", generation.number()), &rankings)?;
        }
        let report = measure(&rankings, &split);
        let bm25 = self.bm25.then(|| bm25_rankings(&store, &split.queries, DEPTH)).transpose()?;
        let accuracy = |rankings| answer_accuracy(&store, &split.queries, rankings);
        let answered = accuracy(&rankings)?;
        let bm25 = match bm25 {
            Some(rankings) => Some((measure(&rankings, &split), accuracy(&rankings)?)),
            None => None,
        };
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
                "measures": object(&report, &answered)?,
            });
            if let Some((report, answered)) = bm25 {
                answer["bm25"] = object(&report, &answered)?;
            }
            if let Some(recall) = recall {
                answer["graph_recall@10"] = json!(recall);
            }
            return print(&answer.to_string());
        }
        print(&format!("{queries} queries of {}, {} search", self.split, if self.exact { "exact" } else { "graph" }))?;
        let head = answered.iter().map(|(name, _)| name.as_str());
        print(&line("", Measure::STANDARD.map(|measure| measure.to_string()).iter().map(String::as_str).chain(head)))?;
        print(&row(&format!("generation {}", generation.number()), &report, &answered))?;
        if let Some((report, answered)) = &bm25 {
            print(&row("BM25", report, answered))?;
        }
        if let Some(recall) = recall {
            print(&format!("the graph finds {:.2} % of the exact ten best", recall * 100.0))?;
        }
        Ok(())
    }
}

/// Means by name, and behind them the answer accuracy where questions have answers.
fn object(report: &Report, answered: &[(String, f64)]) -> anyhow::Result<Value> {
    let mut object = serde_json::to_value(report)?;
    for (name, share) in answered {
        object[name] = json!(share);
    }
    Ok(object)
}

fn row(name: &str, report: &Report, answered: &[(String, f64)]) -> String {
    let means = Measure::STANDARD.map(|measure| report.mean(measure).unwrap_or(0.0));
    let cells: Vec<String> =
        means.iter().chain(answered.iter().map(|(_, share)| share)).map(|value| format!("{value:.4}")).collect();
    line(name, cells.iter().map(String::as_str))
}

fn line<'a>(name: &str, cells: impl Iterator<Item = &'a str>) -> String {
    let cells: String = cells.map(|cell| format!("{cell:>13}")).collect();
    format!("{name:<16}{cells}")
}
