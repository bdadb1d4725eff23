//! The order in which queries are visited in training, and which positive and negative each visit takes.

use std::collections::HashMap;

use rand::Rng as _;
use rand::seq::SliceRandom as _;
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng as _;

use super::data::TrainingData;
use super::negatives::{Candidates, Mining};
use super::{Error, Source};
use crate::onnx::{Batch, Example};
use crate::settings::Negatives;

/// Tries before a query whose positives are nearly all documents goes without a random negative.
const TRIES: usize = 100;

/// The visits of one round: a query, one of its positives, one of its candidates, each drawn evenly.
#[derive(Debug)]
pub(super) struct Visits<'a> {
    data: &'a TrainingData,
    candidates: &'a Candidates,
    negatives: Negatives,
    /// The queries that are visited.
    queries: Vec<usize>,
    /// Visits before the first of this order.
    first: u64,
    /// Which order of the run's this is.
    stream: u64,
}

/// What a visit takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Visit {
    pub(super) query: usize,
    pub(super) positive: usize,
    pub(super) negative: Option<usize>,
}

impl<'a> Visits<'a> {
    /// The visits of round `round`, before which there were `first` of the run. All queries in one order over the whole
    /// run, or this round's part of them in an order of its own.
    pub(super) fn new(
        data: &'a TrainingData,
        candidates: &'a Candidates,
        mining: &Mining,
        round: u64,
        first: u64,
    ) -> Self {
        let slices = mining.slices.max(1) as u64;
        let all = 0..data.train.len();
        let queries: Vec<usize> = all.clone().filter(|query| *query as u64 % slices == round % slices).collect();
        let sliced = slices > 1 && !queries.is_empty();
        Self {
            data,
            candidates,
            negatives: mining.negatives,
            queries: if sliced { queries } else { all.collect() },
            first: if sliced { first } else { 0 },
            stream: if sliced { round + 1 } else { 0 },
        }
    }

    fn order(&self, epoch: u64, seed: u64) -> Vec<usize> {
        let mut random = ChaCha8Rng::seed_from_u64(seed);
        random.set_stream(self.stream << 32 | epoch);
        let mut order = self.queries.clone();
        order.shuffle(&mut random);
        order
    }

    /// The visits from number `from` of the run on.
    pub(super) fn list(&self, from: u64, count: usize, seed: u64) -> Vec<Visit> {
        let length = self.queries.len() as u64;
        let (mut epoch, mut order) = (u64::MAX, Vec::new());
        let mut visits = Vec::with_capacity(count);
        for number in from..from + count as u64 {
            let place = number.saturating_sub(self.first);
            if place / length != epoch {
                epoch = place / length;
                order = self.order(epoch, seed);
            }
            visits.push(self.visit(order[(place % length) as usize], number, seed));
        }
        visits
    }

    fn visit(&self, query: usize, number: u64, seed: u64) -> Visit {
        let mut random = ChaCha8Rng::seed_from_u64(seed);
        // Streams of visits lie above those of orders.
        random.set_stream(1 << 63 | number);
        let positives = &self.data.train[query].positives;
        let positive = positives[random.random_range(0..positives.len())];
        let list = self.candidates.lists.get(query).map_or(&[][..], Vec::as_slice);
        let by_chance = match self.negatives {
            Negatives::None => return Visit { query, positive, negative: None },
            Negatives::Random => true,
            Negatives::Bm25Random => random.random_range(0..2) == 0,
            Negatives::Ance | Negatives::Bm25 => false,
        };
        // A query that no candidate is left of takes any document.
        let negative = if by_chance || list.is_empty() {
            (0..TRIES)
                .map(|_| random.random_range(0..self.data.passages.len()))
                .find(|document| positives.binary_search(document).is_err())
        } else {
            Some(list[random.random_range(0..list.len())] as usize)
        };
        Visit { query, positive, negative }
    }

    /// A batch of visits; texts that occur several times are encoded once, other positives of a query are named.
    fn gather(&self, visits: &[Visit]) -> Batch {
        let mut batch = Batch::default();
        let (mut queries, mut documents) = (HashMap::new(), HashMap::new());
        for visit in visits {
            let query = *queries.entry(visit.query).or_insert_with(|| {
                batch.queries.push(self.data.train[visit.query].ids.clone());
                batch.queries.len() - 1
            });
            let mut place = |document: usize| {
                *documents.entry(document).or_insert_with(|| {
                    batch.documents.push(self.data.passages[document].clone());
                    batch.documents.len() - 1
                })
            };
            let (positive, negative) = (place(visit.positive), visit.negative.map(&mut place));
            batch.examples.push(Example { query, positive, negative });
        }
        for (query, place) in &queries {
            let positives = self.data.train[*query].positives.iter();
            batch.judged.extend(positives.filter_map(|document| Some((*place, *documents.get(document)?))));
        }
        // The map's order is not the same in every run.
        batch.judged.sort_unstable();
        batch
    }
}

impl Source for Visits<'_> {
    fn batch(&self, number: u64, size: usize, seed: u64) -> Result<Batch, Error> {
        Ok(self.gather(&self.list(number * size as u64, size, seed)))
    }
}
