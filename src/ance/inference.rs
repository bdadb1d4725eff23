//! The Inferencer: vectors of a checkpoint for documents and queries, and exact search among them.

use std::collections::HashSet;
use std::path::Path;

use super::data::TrainingData;
use super::{Error, Event, Listener};
use crate::encoder::{Encoder, Side};
use crate::evaluation::{Measure, Ranking, Report, evaluate};
use crate::index::{SavedVectors, dot};
use crate::onnx::{BLOCK_ROWS, Runtime, TopK};
use crate::settings::Similarity;

/// Texts that are handed to the encoder at once, and their tokens: a slow machine too should soon say how far it is.
const PAGE: usize = 2048;
const PAGE_TOKENS: usize = 1 << 16;
/// Queries that are compared with a block at once.
const QUERIES: usize = 256;

/// Vectors of everything that a round looks at, row-major.
#[derive(Debug)]
pub(super) struct Vectors {
    dimension: usize,
    /// One or several a document, in the order of the documents.
    documents: Vec<f32>,
    /// The document of each row of `documents`; empty where each has one.
    owners: Vec<u32>,
    /// The most rows that a document has.
    most: usize,
    train: Vec<f32>,
    dev: Vec<f32>,
    reused: usize,
}

/// A document's number and its score.
pub(super) type Hit = (u32, f32);

impl Vectors {
    /// Encodes queries and the documents that `known` has no vector of; `progress(done, total)` counts texts.
    pub(super) fn encode(
        encoder: &Encoder,
        data: &TrainingData,
        known: &dyn Fn(usize) -> Option<Vec<f32>>,
        progress: &mut dyn FnMut(usize, usize) -> Result<(), Error>,
    ) -> Result<Self, Error> {
        let dimension = encoder.dimension();
        let pieces = data.passages.iter().map(Vec::len);
        let (rows, most) = (pieces.clone().sum::<usize>(), pieces.max().unwrap_or(1).max(1));
        let total = rows + data.train.len() + data.dev.len();
        let (mut done, mut reused) = (0, 0);
        let mut all = |texts: Vec<&Vec<u32>>, known: &dyn Fn(usize) -> Option<Vec<f32>>, side| -> Result<_, Error> {
            let is_cosine = encoder.checkpoint().similarity == Similarity::Cosine;
            let mut flat = vec![0.0; texts.len() * dimension];
            let mut order = Vec::new();
            for at in 0..texts.len() {
                match known(at) {
                    Some(vector) => flat[at * dimension..][..dimension].copy_from_slice(&vector),
                    None => order.push(at),
                }
            }
            reused += texts.len() - order.len();
            done += texts.len() - order.len();
            // Long texts together, so that little is padded.
            order.sort_by_key(|&at| texts[at].len());
            for page in pages(&order, &texts) {
                let ids = page.iter().map(|&at| texts[at].clone()).collect();
                for (&at, mut vector) in page.iter().zip(encoder.encode_tokens(ids, side)?.vectors) {
                    // Not those that are known: a second time changes last bits, and a run that goes on must not.
                    if is_cosine {
                        normalize(&mut vector);
                    }
                    flat[at * dimension..][..dimension].copy_from_slice(&vector);
                }
                done += page.len();
                progress(done, total)?;
            }
            Ok(flat)
        };
        let owner = |(number, pieces): (usize, &Vec<Vec<u32>>)| std::iter::repeat_n(number as u32, pieces.len());
        let owners: Vec<u32> =
            if most == 1 { Vec::new() } else { data.passages.iter().enumerate().flat_map(owner).collect() };
        let known = |row: usize| known(owners.get(row).map_or(row, |&number| number as usize));
        let documents = all(data.passages.iter().flatten().collect(), &known, Side::Passage)?;
        let train = all(data.train.iter().map(|query| &query.ids).collect(), &|_| None, Side::Passage)?;
        let dev = all(data.dev.iter().map(|(_, ids)| ids).collect(), &|_| None, Side::Passage)?;
        Ok(Self { dimension, documents, owners, most, train, dev, reused })
    }

    /// Documents whose vectors were known.
    pub(super) fn reused(&self) -> usize {
        self.reused
    }

    /// Texts that were encoded.
    pub(super) fn encoded(&self) -> usize {
        (self.documents.len() + self.train.len() + self.dev.len()) / self.dimension.max(1) - self.reused
    }

    /// Keeps the vectors of documents so that [`SavedVectors::open`] reads them; those of several pieces it would not.
    pub(super) fn save(&self, file: &Path, data: &TrainingData, maker: &str) -> Result<(), Error> {
        let (mut keys, mut values) = (Vec::new(), Vec::new());
        for (row, vector) in self.documents.chunks_exact(self.dimension.max(1)).enumerate() {
            let number = self.owner(row as u32) as usize;
            if let Some(sequence) = data.sequences.get(number).copied().flatten() {
                keys.push(sequence);
                values.extend_from_slice(vector);
            }
        }
        SavedVectors::write(file, self.dimension, &keys, &values, maker)
            .map_err(|error| Error::Generation(error.into()))
    }

    /// The `k` best documents of each train query, best first; `progress` counts queries.
    pub(super) fn nearest_to_train(
        &self,
        runtime: &Runtime,
        k: usize,
        progress: &mut dyn FnMut(usize) -> Result<(), Error>,
    ) -> Result<Vec<Vec<Hit>>, Error> {
        self.nearest(runtime, &self.train, k, progress)
    }

    /// Adds to the hits of each train query its positives that are not among them, with their scores, best first: what
    /// a candidate is compared with is the best positive, however low that one ranks.
    pub(super) fn add_positives(&self, hits: &mut [Vec<Hit>], data: &TrainingData) {
        let queries = self.train.chunks_exact(self.dimension.max(1));
        for ((hits, query), vector) in hits.iter_mut().zip(&data.train).zip(queries) {
            let found: HashSet<u32> = hits.iter().map(|hit| hit.0).collect();
            let missing = query.positives.iter().map(|&number| number as u32).filter(|number| !found.contains(number));
            let mut missing: Vec<Hit> = missing.map(|number| (number, self.score(vector, number))).collect();
            missing.sort_unstable_by(|a, b| b.1.total_cmp(&a.1));
            hits.append(&mut missing);
        }
    }

    /// The inner product of a query's vector and a document's best row.
    fn score(&self, query: &[f32], document: u32) -> f32 {
        let rows = if self.owners.is_empty() {
            document as usize..document as usize + 1
        } else {
            let start = self.owners.partition_point(|&owner| owner < document);
            start..self.owners.partition_point(|&owner| owner <= document)
        };
        let rows = self.documents[rows.start * self.dimension..rows.end * self.dimension].chunks_exact(self.dimension);
        rows.map(|row| dot(query, row)).fold(f32::NEG_INFINITY, f32::max)
    }

    /// The standard measures on the dev queries, by exact search.
    pub(super) fn measure_dev(
        &self,
        runtime: &Runtime,
        data: &TrainingData,
        listener: Listener<'_>,
    ) -> Result<Report, Error> {
        let deepest = 1000;
        let rankings: Vec<Ranking> = self
            .nearest(runtime, &self.dev, deepest, &mut |_| listener(Event::Alive))?
            .into_iter()
            .zip(&data.dev)
            .map(|(hits, (name, _))| Ranking {
                query: name.clone(),
                documents: hits
                    .into_iter()
                    .map(|(number, score)| (data.names[number as usize].clone(), score))
                    .collect(),
            })
            .collect();
        Ok(evaluate(&rankings, &data.judgments, &Measure::STANDARD))
    }

    /// Exact inner products, block by block: no score matrix is larger than one block's. A document's best row scores it.
    fn nearest(
        &self,
        runtime: &Runtime,
        queries: &[f32],
        k: usize,
        progress: &mut dyn FnMut(usize) -> Result<(), Error>,
    ) -> Result<Vec<Vec<Hit>>, Error> {
        let mut top_k = TopK::new(runtime, self.dimension)?;
        let mut results = Vec::with_capacity(queries.len() / self.dimension.max(1));
        for queries in queries.chunks(QUERIES * self.dimension) {
            let mut best: Vec<Vec<Hit>> = vec![Vec::new(); queries.len() / self.dimension];
            for (number, block) in self.documents.chunks(BLOCK_ROWS * self.dimension).enumerate() {
                let first = (number * BLOCK_ROWS) as u32;
                // Above the best row of one of the `k` best documents stand rows of fewer than `k` others.
                top_k.run(queries, block, k.saturating_mul(self.most), |query, row, score| {
                    best[query].push((self.owner(first + row as u32), score));
                })?;
                for hits in &mut best {
                    if self.most > 1 {
                        hits.sort_unstable_by(|a, b| a.0.cmp(&b.0).then(b.1.total_cmp(&a.1)));
                        hits.dedup_by_key(|hit| hit.0);
                    }
                    hits.sort_unstable_by(|a, b| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0)));
                    hits.truncate(k);
                }
            }
            results.append(&mut best);
            progress(results.len())?;
        }
        Ok(results)
    }

    /// The document that a row is of.
    fn owner(&self, row: u32) -> u32 {
        self.owners.get(row as usize).copied().unwrap_or(row)
    }
}

/// An order of texts in parts of at most [`PAGE`] texts and [`PAGE_TOKENS`] tokens, or one text.
fn pages<'a>(mut order: &'a [usize], texts: &[&Vec<u32>]) -> Vec<&'a [usize]> {
    let mut pages = Vec::new();
    while !order.is_empty() {
        let mut tokens = 0;
        let fit = order.iter().take(PAGE).take_while(|&&at| {
            tokens += texts[at].len();
            tokens <= PAGE_TOKENS
        });
        let (page, rest) = order.split_at(fit.count().max(1));
        pages.push(page);
        order = rest;
    }
    pages
}

fn normalize(vector: &mut [f32]) {
    let length = dot(vector, vector).sqrt().max(1e-12);
    vector.iter_mut().for_each(|x| *x /= length);
}

/// The share of `pairs` of query and document that are among the hits of their query.
pub(super) fn share_found(hits: &[Vec<Hit>], pairs: &[(usize, u32)]) -> f64 {
    let sets: Vec<HashSet<u32>> = hits.iter().map(|hits| hits.iter().map(|hit| hit.0).collect()).collect();
    let found = pairs.iter().filter(|(query, document)| sets.get(*query).is_some_and(|set| set.contains(document)));
    found.count() as f64 / pairs.len().max(1) as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_has_neither_too_many_texts_nor_too_many_tokens() {
        let texts = [vec![0; 1], vec![0; 512], vec![0; PAGE_TOKENS + 1]];
        for (text, expected) in [(0, PAGE), (1, PAGE_TOKENS / 512), (2, 1)] {
            let texts = vec![&texts[text]; 5000];
            let order: Vec<usize> = (0..texts.len()).rev().collect();
            let pages = pages(&order, &texts);
            assert_eq!(pages.concat(), order);
            assert!(pages.iter().rev().skip(1).all(|page| page.len() == expected), "{expected}");
        }
    }
}
