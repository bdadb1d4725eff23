//! Where negatives come from: the encoder's own index, BM25, chance, or nowhere.

use std::path::Path;

use rand::seq::SliceRandom as _;
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng as _;
use safetensors::tensor::{Dtype, TensorView};
use serde::{Deserialize, Serialize};

use super::Error;
use super::data::TrainingData;
use super::inference::Hit;
use crate::evaluation::Bm25;
use crate::settings::Negatives;

/// How negatives are picked from a ranking.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Mining {
    /// From where.
    pub negatives: Negatives,
    /// How many of the best documents are candidates.
    pub depth: usize,
    /// A candidate whose score exceeds that of the query's best positive by more is left out: it is likely a positive
    /// that nobody judged. None for no limit.
    pub margin: Option<f32>,
    /// Candidates that are kept of each query, drawn by chance; 0 for all (20 in the paper).
    pub per_query: usize,
    /// One part in so many of the train queries takes part in a round, in turn (5 in the paper).
    pub slices: usize,
}

/// Negatives by query.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Candidates {
    pub(super) lists: Vec<Vec<u32>>,
}

impl Candidates {
    /// From rankings of each train query that hold at least `depth` documents beside the positives.
    pub(super) fn from_hits(hits: &[Vec<Hit>], data: &TrainingData, mining: &Mining, seed: u64, round: u64) -> Self {
        let list = |(number, hits): (usize, &Vec<Hit>)| {
            let positives = &data.train[number].positives;
            let is_positive = |document: u32| positives.binary_search(&(document as usize)).is_ok();
            // A positive that is not even among the hits scores below all of them.
            let best = hits.iter().find(|hit| is_positive(hit.0)).or(hits.last()).map_or(f32::MAX, |hit| hit.1);
            let limit = mining.margin.map_or(f32::INFINITY, |margin| best + margin);
            let others = hits.iter().filter(|hit| !is_positive(hit.0)).take(mining.depth);
            let mut list: Vec<u32> = others.filter(|hit| hit.1 <= limit).map(|hit| hit.0).collect();
            if mining.per_query > 0 && list.len() > mining.per_query {
                let mut random = ChaCha8Rng::seed_from_u64(seed);
                random.set_stream(round << 40 | number as u64);
                list.shuffle(&mut random);
                list.truncate(mining.per_query);
            }
            list
        };
        Self { lists: hits.iter().enumerate().map(list).collect() }
    }

    /// How deep a ranking must be so that `depth` documents are left beside the positives.
    pub(super) fn ranking_depth(data: &TrainingData, mining: &Mining) -> usize {
        mining.depth + data.train.iter().map(|query| query.positives.len()).max().unwrap_or(0)
    }

    pub(super) fn write(&self, file: &Path) -> Result<(), Error> {
        let ends: Vec<u64> = self
            .lists
            .iter()
            .scan(0, |end, list| {
                *end += list.len() as u64;
                Some(*end)
            })
            .collect();
        let all: Vec<u32> = self.lists.concat();
        let fail = |error: &dyn std::fmt::Display| Error::io(file)(std::io::Error::other(error.to_string()));
        let views = [
            ("ends", TensorView::new(Dtype::U64, vec![ends.len()], bytemuck::cast_slice(&ends))),
            ("documents", TensorView::new(Dtype::U32, vec![all.len()], bytemuck::cast_slice(&all))),
        ];
        let mut tensors = Vec::new();
        for (name, view) in views {
            tensors.push((name, view.map_err(|error| fail(&error))?));
        }
        let unfinished = file.with_extension("new");
        safetensors::serialize_to_file(tensors, None, &unfinished).map_err(|error| fail(&error))?;
        std::fs::File::open(&unfinished).and_then(|file| file.sync_all()).map_err(Error::io(&unfinished))?;
        std::fs::rename(&unfinished, file).map_err(Error::io(file))
    }

    /// Reads what was written for `queries` queries and `documents` documents.
    pub(super) fn read(file: &Path, queries: usize, documents: usize) -> Result<Self, Error> {
        let refuse = |reason: &str| Error::State { file: file.to_path_buf(), reason: reason.to_owned() };
        let bytes = std::fs::read(file).map_err(Error::io(file))?;
        let tensors = safetensors::SafeTensors::deserialize(&bytes).map_err(|error| refuse(&error.to_string()))?;
        let data =
            |name: &str| tensors.tensor(name).map(|view| view.data()).map_err(|error| refuse(&error.to_string()));
        let ends: Vec<usize> = data("ends")?
            .chunks_exact(8)
            .map(|b| u64::from_le_bytes([b[0], b[1], b[2], b[3], b[4], b[5], b[6], b[7]]) as usize)
            .collect();
        let all: Vec<u32> =
            data("documents")?.chunks_exact(4).map(|b| u32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect();
        if ends.len() != queries || all.iter().any(|document| *document as usize >= documents) {
            return Err(refuse("it was made of other documents or judgments than the store holds now"));
        }
        let mut start = 0;
        let mut lists = Vec::with_capacity(ends.len());
        for end in ends {
            lists.push(all.get(start..end).ok_or_else(|| refuse("it is damaged"))?.to_vec());
            start = end;
        }
        Ok(Self { lists })
    }
}

/// The documents that BM25 ranks highest for each train query.
pub(super) fn bm25_hits(
    documents: impl Iterator<Item = (String, String)>,
    data: &TrainingData,
    depth: usize,
) -> Result<Vec<Vec<Hit>>, Error> {
    let bm25 = Bm25::build(documents)?;
    let numbers: std::collections::HashMap<&str, u32> =
        data.names.iter().enumerate().map(|(number, name)| (name.as_str(), number as u32)).collect();
    let hits = |text: &str| -> Result<Vec<Hit>, Error> {
        let found = bm25.search(text, depth)?;
        Ok(found.iter().filter_map(|(name, score)| Some((*numbers.get(name.as_str())?, *score))).collect())
    };
    data.train.iter().map(|query| hits(&query.text)).collect()
}
