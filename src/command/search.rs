//! `anced search`: one search from the command line.

use std::sync::Arc;

use anyhow::Context;
use clap::Args;
use serde_json::json;

use super::{Engine, print};
use crate::corpus::Filter;
use crate::generation::{DataFolder, Machine, Retriever, SearchRequest};
use crate::telemetry::Metrics;

/// Search the live generation and print the hits.
#[derive(Debug, Args)]
pub(super) struct Search {
    #[command(flatten)]
    engine: Engine,
    /// Hits wanted.
    #[arg(short, default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    k: u32,
    /// Compare with every vector instead of walking the graph.
    #[arg(long)]
    exact: bool,
    /// Only documents that match, as JSON: '{"lang": "en"}'.
    #[arg(long)]
    filter: Option<String>,
    /// Print the answer as a JSON object.
    #[arg(long)]
    json: bool,
    /// What is asked; several words are one query.
    #[arg(required = true)]
    query: Vec<String>,
}

impl Search {
    pub(super) fn run(self) -> anyhow::Result<()> {
        let settings = self.engine.settings(&[])?;
        let usage = |reason: String| anyhow::Error::new(super::Usage(reason));
        let query = self.query.join(" ");
        if query.trim().is_empty() {
            return Err(usage("the query is empty".into()));
        }
        let filter = match &self.filter {
            None => None,
            Some(text) => {
                let value = serde_json::from_str(text).map_err(|error| usage(format!("--filter: {error}")))?;
                Some(Filter::parse(&value).map_err(|error| usage(format!("--filter: {error}")))?)
            }
        };
        let data = open_existing(&settings.data)?;
        let machine = Machine::new(&settings, Arc::new(Metrics::new()?))?;
        let retriever = Retriever::new(data, &machine);
        retriever.load(&machine, &mut |_| {})?;
        let request = SearchRequest { filter, exact: self.exact, ..SearchRequest::new(query, self.k as usize) };
        let runtime = tokio::runtime::Builder::new_current_thread().build().context("no asynchronous runtime")?;
        let answer = runtime.block_on(retriever.search(request))?;
        let hits = answer.results.into_iter().next().unwrap_or_default();
        if self.json {
            let hits: Vec<_> = hits
                .iter()
                .map(|hit| {
                    let document = &hit.document;
                    json!({"id": document.id, "score": hit.score, "title": document.title, "text": document.text,
                           "metadata": document.metadata})
                })
                .collect();
            return print(&json!({"generation": answer.generation, "hits": hits}).to_string());
        }
        for (rank, hit) in hits.iter().enumerate() {
            let document = &hit.document;
            let line =
                [&document.title, &document.text].map(|part| part.split_whitespace().collect::<Vec<_>>().join(" "));
            let line = line.join(" ");
            let short: String = line.trim().chars().take(200).collect();
            print(&format!("{:>3}  {:.4}  {}  {short}", rank + 1, hit.score, document.id))?;
        }
        Ok(())
    }
}

/// Opens a data folder that must be there: a search makes none.
pub(super) fn open_existing(path: &std::path::Path) -> anyhow::Result<DataFolder> {
    anyhow::ensure!(
        path.join("store").is_dir(),
        "{}: no data folder; import documents with `anced import` and build a generation with `anced index` first",
        path.display()
    );
    let data = DataFolder::open(path)?;
    anyhow::ensure!(
        data.live()?.is_some(),
        "{}: no generation yet; build the first with `anced index`",
        path.display()
    );
    Ok(data)
}
