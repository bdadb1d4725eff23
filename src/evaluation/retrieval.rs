//! Rankings of a generation and of BM25 for the queries of a split.

use std::collections::HashMap;

use super::{Bm25, Error, Measure, Ranking, Report, evaluate};
use crate::corpus::{Judgment, Query, Source, Split, Store};
use crate::encoder::Side;
use crate::generation::Generation;

/// Queries encoded and searched at once.
const BATCH: usize = 256;
/// Documents read at once.
const PAGE: usize = 4096;

/// The judged queries of a split.
#[derive(Debug, Clone)]
pub struct JudgedSplit {
    /// In the order of their ids.
    pub queries: Vec<Query>,
    /// Every judgment of the split.
    pub judgments: Vec<Judgment>,
}

impl JudgedSplit {
    /// Of the queries that are judged in a split, those that are measured: not those that feedback alone judges and finds
    /// nothing relevant for. A thumb down says that a hit was wrong, not that nothing could be found.
    pub fn of(mut judged: Vec<(Query, Vec<Judgment>)>) -> Self {
        judged.retain(|(_, judgments)| {
            judgments.iter().any(|judgment| judgment.source == Source::File || judgment.grade > 0)
        });
        let (queries, judgments): (Vec<Query>, Vec<Vec<Judgment>>) = judged.into_iter().unzip();
        Self { queries, judgments: judgments.concat() }
    }
}

/// The judged queries of a split that are measured, see [`JudgedSplit::of`].
///
/// # Errors
/// A split without judgments, a store that cannot be read.
pub fn judged_split(store: &Store, split: Split) -> Result<JudgedSplit, Error> {
    let judged = JudgedSplit::of(store.judged_queries(split).map_err(crate::generation::Error::from)?);
    if judged.queries.is_empty() { Err(Error::NoJudgments(split)) } else { Ok(judged) }
}

/// The standard measures of rankings.
pub fn measure(rankings: &[Ranking], split: &JudgedSplit) -> Report {
    evaluate(rankings, &split.judgments, &Measure::STANDARD)
}

/// The `depth` best documents of each query by a generation: by its graph with at least `expansion` candidates, or
/// exactly where that is none; `progress` counts queries.
///
/// # Errors
/// An encoder, index or store that fails.
pub fn rankings(
    generation: &Generation,
    store: &Store,
    queries: &[Query],
    depth: usize,
    expansion: Option<usize>,
    progress: &mut dyn FnMut(usize),
) -> Result<Vec<Ranking>, Error> {
    let ids = document_ids(store)?;
    let mut rankings = Vec::with_capacity(queries.len());
    for batch in queries.chunks(BATCH) {
        let found = neighbours(generation, batch, depth, expansion)?;
        for (query, found) in batch.iter().zip(found) {
            let documents = found.into_iter().filter_map(|(key, score)| Some((ids.get(&key)?.clone(), score)));
            rankings.push(Ranking { query: query.id.clone(), documents: documents.collect() });
        }
        progress(rankings.len());
    }
    Ok(rankings)
}

/// The share of the exact `k` best that the graph finds, averaged over the queries.
///
/// # Errors
/// As [`rankings`].
pub fn graph_recall(generation: &Generation, queries: &[Query], k: usize, expansion: usize) -> Result<f64, Error> {
    let (mut found, mut wanted) = (0_usize, 0_usize);
    for batch in queries.chunks(BATCH) {
        let exact = neighbours(generation, batch, k, None)?;
        let graph = neighbours(generation, batch, k, Some(expansion))?;
        for (exact, graph) in exact.iter().zip(&graph) {
            wanted += exact.len();
            found += exact.iter().filter(|(key, _)| graph.iter().any(|(other, _)| other == key)).count();
        }
    }
    Ok(if wanted == 0 { 1.0 } else { found as f64 / wanted as f64 })
}

fn neighbours(
    generation: &Generation,
    queries: &[Query],
    k: usize,
    expansion: Option<usize>,
) -> Result<Vec<Vec<(u64, f32)>>, Error> {
    let texts = queries.iter().map(|query| query.text.clone()).collect();
    let encoded = generation.encoder().encode_blocking(texts, Side::Query).map_err(crate::generation::Error::from)?;
    let index = generation.index();
    let found = match expansion {
        None => index.exact(&encoded.vectors, k, None),
        Some(expansion) => encoded.vectors.iter().map(|vector| index.search(vector, k, expansion, None)).collect(),
    };
    let found = found.map_err(crate::generation::Error::from)?;
    Ok(found
        .into_iter()
        .map(|list| list.into_iter().map(|neighbour| (neighbour.key, neighbour.score)).collect())
        .collect())
}

/// The `depth` best documents of each query by BM25.
///
/// # Errors
/// A store that cannot be read, an index that cannot be built.
pub fn bm25_rankings(store: &Store, queries: &[Query], depth: usize) -> Result<Vec<Ranking>, Error> {
    let mut failure = None;
    let mut after = 0;
    let pages = std::iter::from_fn(|| match store.current(after, PAGE) {
        Ok(page) => {
            after = page.last()?.sequence;
            Some(page)
        }
        Err(error) => {
            failure = Some(error);
            None
        }
    });
    let documents = pages.flatten().map(|stored| {
        let document = stored.document;
        (document.id, format!("{} {}", document.title, document.text))
    });
    let bm25 = Bm25::build(documents)?;
    if let Some(error) = failure {
        return Err(crate::generation::Error::from(error).into());
    }
    queries
        .iter()
        .map(|query| Ok(Ranking { query: query.id.clone(), documents: bm25.search(&query.text, depth)? }))
        .collect()
}

fn document_ids(store: &Store) -> Result<HashMap<u64, String>, Error> {
    let mut ids = HashMap::new();
    let mut after = 0;
    loop {
        let page = store.current(after, PAGE).map_err(crate::generation::Error::from)?;
        let Some(last) = page.last() else { return Ok(ids) };
        after = last.sequence;
        ids.extend(page.into_iter().map(|stored| (stored.sequence, stored.document.id)));
    }
}
