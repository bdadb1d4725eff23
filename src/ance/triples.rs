//! What is trained on: queries, documents and triples of them, by token ids.

use std::collections::HashMap;

use rand::seq::SliceRandom as _;
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng as _;

use super::Error;
use crate::onnx::{Batch, Example};

/// Where batches come from. The same number gives the same batch, in this process or another.
pub trait Source {
    /// The batch of `size` triples with this number, counted from 0, of the run with this seed.
    ///
    /// # Errors
    /// Data that cannot be had.
    fn batch(&self, number: u64, size: usize, seed: u64) -> Result<Batch, Error>;
}

/// A query, a document that answers it and, but for in-batch training, one that does not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Triple {
    /// The query's number.
    pub query: usize,
    /// The positive's number.
    pub positive: usize,
    /// The negative's number.
    pub negative: Option<usize>,
}

/// Triples that are known in advance, visited in an order that is drawn anew for each epoch.
#[derive(Debug, Clone, Default)]
pub struct Triples {
    queries: Vec<Vec<u32>>,
    documents: Vec<Vec<Vec<u32>>>,
    triples: Vec<Triple>,
    /// The judged positives of each query.
    positives: HashMap<usize, Vec<usize>>,
}

impl Triples {
    /// Queries and documents by token ids (a document as one or several passages), triples of them, and which other
    /// documents are judged positives of a query, beside those of the triples.
    ///
    /// # Errors
    /// No triples, or one of a query or document that is not there.
    pub fn new(
        queries: Vec<Vec<u32>>,
        documents: Vec<Vec<Vec<u32>>>,
        triples: Vec<Triple>,
        judged: &[(usize, usize)],
    ) -> Result<Self, Error> {
        if triples.is_empty() {
            return Err(Error::Data("no triples".into()));
        }
        let is_known = |triple: &Triple| {
            triple.query < queries.len()
                && triple.positive < documents.len()
                && triple.negative.is_none_or(|negative| negative < documents.len())
        };
        if let Some(triple) = triples.iter().find(|triple| !is_known(triple)) {
            let (queries, documents) = (queries.len(), documents.len());
            return Err(Error::Data(format!("{triple:?} among {queries} queries and {documents} documents")));
        }
        let mut positives: HashMap<usize, Vec<usize>> = HashMap::new();
        let known = triples.iter().map(|triple| (triple.query, triple.positive));
        for (query, document) in known.chain(judged.iter().copied()) {
            let list = positives.entry(query).or_default();
            if !list.contains(&document) {
                list.push(document);
            }
        }
        Ok(Self { queries, documents, triples, positives })
    }

    /// The number of triples, which make an epoch.
    pub fn len(&self) -> usize {
        self.triples.len()
    }

    /// Never: a set without triples cannot be made.
    pub fn is_empty(&self) -> bool {
        self.triples.is_empty()
    }

    /// The order of an epoch.
    fn order(&self, epoch: u64, seed: u64) -> Vec<usize> {
        let mut random = ChaCha8Rng::seed_from_u64(seed);
        random.set_stream(epoch);
        let mut order: Vec<usize> = (0..self.triples.len()).collect();
        order.shuffle(&mut random);
        order
    }

    /// A batch of chosen triples: texts that occur several times are encoded once.
    pub fn gather(&self, chosen: &[Triple]) -> Batch {
        let mut batch = Batch::default();
        let (mut queries, mut documents) = (HashMap::new(), HashMap::new());
        for triple in chosen {
            let query = *queries.entry(triple.query).or_insert_with(|| {
                batch.queries.push(self.queries[triple.query].clone());
                batch.queries.len() - 1
            });
            let mut place = |document: usize| {
                *documents.entry(document).or_insert_with(|| {
                    batch.documents.push(self.documents[document].clone());
                    batch.documents.len() - 1
                })
            };
            let (positive, negative) = (place(triple.positive), triple.negative.map(&mut place));
            batch.examples.push(Example { query, positive, negative });
        }
        for (query, place) in &queries {
            let judged = self.positives.get(query).into_iter().flatten();
            batch.judged.extend(judged.filter_map(|document| Some((*place, *documents.get(document)?))));
        }
        // The map's order is not the same in every run.
        batch.judged.sort_unstable();
        batch
    }
}

impl Source for Triples {
    /// Batches go through each epoch's order without a gap; one may reach into the next epoch.
    fn batch(&self, number: u64, size: usize, seed: u64) -> Result<Batch, Error> {
        let length = self.triples.len() as u64;
        let (mut epoch, mut order) = (u64::MAX, Vec::new());
        let mut chosen = Vec::with_capacity(size);
        for visit in (0..size as u64).map(|at| number * size as u64 + at) {
            if visit / length != epoch {
                epoch = visit / length;
                order = self.order(epoch, seed);
            }
            chosen.push(self.triples[order[(visit % length) as usize]]);
        }
        Ok(self.gather(&chosen))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn triples(count: usize) -> Triples {
        let text = |number: usize| vec![number as u32 + 1];
        let triple = |query| Triple { query, positive: query, negative: Some((query + 1) % count) };
        Triples::new(
            (0..count).map(text).collect(),
            (0..count).map(|number| vec![text(number)]).collect(),
            (0..count).map(triple).collect(),
            &[(0, 1)],
        )
        .unwrap()
    }

    fn visited(source: &Triples, batches: std::ops::Range<u64>, size: usize, seed: u64) -> Vec<u32> {
        let batch = |number| {
            let batch = source.batch(number, size, seed).unwrap();
            batch.examples.iter().map(|example| batch.queries[example.query][0]).collect::<Vec<_>>()
        };
        batches.flat_map(batch).collect()
    }

    #[test]
    fn every_epoch_visits_each_triple_once_in_an_order_of_its_own() {
        let source = triples(10);
        let visits = visited(&source, 0..10, 4, 7);
        let mut orders = Vec::new();
        for epoch in visits.chunks_exact(10) {
            let mut sorted = epoch.to_vec();
            sorted.sort_unstable();
            assert_eq!(sorted, (1..=10).collect::<Vec<_>>());
            orders.push(epoch.to_vec());
        }
        assert!(orders[0] != orders[1] && orders[1] != orders[2]);
        assert_eq!(visits, visited(&source, 0..10, 4, 7), "the same seed");
        assert_ne!(visits, visited(&source, 0..10, 4, 8), "another seed");
    }

    #[test]
    fn a_batch_takes_each_text_once_and_names_other_positives() {
        let source = triples(3);
        let batch = source.batch(0, 3, 1).unwrap();
        assert_eq!((batch.queries.len(), batch.documents.len(), batch.examples.len()), (3, 3, 3));
        for example in &batch.examples {
            assert_eq!(batch.queries[example.query], batch.documents[example.positive][0]);
            assert_ne!(example.negative, Some(example.positive));
        }
        let first = batch.queries.iter().position(|query| query == &[1]).unwrap();
        let second = batch.documents.iter().position(|document| document == &[vec![2]]).unwrap();
        assert!(batch.judged.contains(&(first, second)));
    }

    #[test]
    fn nothing_to_train_on_is_told() {
        assert!(Triples::new(vec![], vec![], vec![], &[]).unwrap_err().to_string().contains("no triples"));
        let triple = Triple { query: 0, positive: 3, negative: None };
        let error = Triples::new(vec![vec![1]], vec![vec![vec![1]]], vec![triple], &[]).unwrap_err().to_string();
        assert!(error.contains("positive: 3"), "{error}");
    }
}
