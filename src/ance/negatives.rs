//! Where negatives come from: the encoder's own index, BM25, chance, or nowhere.

use std::path::Path;

use rand::seq::SliceRandom as _;
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng as _;
use safetensors::tensor::{Dtype, TensorView};
use serde::{Deserialize, Serialize};

use super::Error;
use super::data::TrainingData;
use super::files::replace;
use super::inference::Hit;
use crate::evaluation::Bm25;
use crate::settings::Negatives;

/// Queries between two words about how far BM25 is.
const QUERIES: usize = 256;

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
    /// A candidate is kept only while its score is below this share of that of the query's best positive (TopK-PercPos
    /// of NV-Retriever, Moreira et al. 2024, arXiv 2407.15831). It means what it says where scores are above 0 and
    /// comparable by ratio, as cosines are; inner products of vectors of any length need a share of their own, since
    /// unrelated texts may come close to the positive's score. None for no limit.
    #[serde(default)]
    pub positive_share: Option<f32>,
    /// So many of the best candidates are left out, whatever their scores: ranks from here to `depth` are the window,
    /// counted without positives and documents that contain an answer.
    #[serde(default)]
    pub skip: usize,
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
    /// From rankings of each train query that hold at least `depth` documents beside the positives, and the best positive
    /// wherever it ranks.
    pub(super) fn from_hits(hits: &[Vec<Hit>], data: &TrainingData, mining: &Mining, seed: u64, round: u64) -> Self {
        let list = |(number, hits): (usize, &Vec<Hit>)| {
            let positives = &data.train[number].positives;
            let is_positive = |document: u32| positives.binary_search(&(document as usize)).is_ok();
            // BM25 does not rank all documents: a positive that it did not find scores below all that it found.
            let best = hits.iter().find(|hit| is_positive(hit.0)).or(hits.last()).map_or(f32::MAX, |hit| hit.1);
            let limit = mining.margin.map_or(f32::INFINITY, |margin| best + margin);
            let below = mining.positive_share.map_or(f32::INFINITY, |share| best * share);
            let others = hits.iter().filter(|hit| !is_positive(hit.0)).take(mining.depth).skip(mining.skip);
            let is_wanted = |hit: &&Hit| hit.1 <= limit && hit.1 < below;
            let mut list: Vec<u32> = others.filter(is_wanted).map(|hit| hit.0).collect();
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

    /// How deep a ranking must be so that `depth` documents are left beside the positives: never deeper than there are
    /// documents, for which memory is taken.
    pub(super) fn ranking_depth(data: &TrainingData, mining: &Mining) -> usize {
        let positives = data.train.iter().map(|query| query.positives.len()).max().unwrap_or(0);
        mining.depth.saturating_add(positives).min(data.names.len())
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
        replace(file, |place| safetensors::serialize_to_file(tensors, None, place).map_err(|error| fail(&error)))
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

/// The documents that BM25 ranks highest for each train query; `progress` counts queries.
pub(super) fn bm25_hits(
    documents: impl Iterator<Item = (String, String)>,
    data: &TrainingData,
    depth: usize,
    progress: &mut dyn FnMut(usize) -> Result<(), Error>,
) -> Result<Vec<Vec<Hit>>, Error> {
    let bm25 = Bm25::build(documents)?;
    let numbers: std::collections::HashMap<&str, u32> =
        data.names.iter().enumerate().map(|(number, name)| (name.as_str(), number as u32)).collect();
    let hits = |text: &str| -> Result<Vec<Hit>, Error> {
        let found = bm25.search(text, depth)?;
        Ok(found.iter().filter_map(|(name, score)| Some((*numbers.get(name.as_str())?, *score))).collect())
    };
    let mut all = Vec::with_capacity(data.train.len());
    for queries in data.train.chunks(QUERIES) {
        for query in queries {
            all.push(hits(&query.text)?);
        }
        progress(all.len())?;
    }
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ance::data::TrainQuery;

    const ALL: Mining = Mining {
        negatives: Negatives::Ance,
        depth: 6,
        margin: None,
        positive_share: None,
        skip: 0,
        per_query: 0,
        slices: 1,
    };

    /// The candidates of a query whose positives are 2 and 5.
    fn picked(hits: &[Hit], mining: &Mining) -> Vec<u32> {
        let query = TrainQuery { positives: vec![2, 5], ..TrainQuery::default() };
        let data = TrainingData { train: vec![query], ..TrainingData::default() };
        Candidates::from_hits(&[hits.to_vec()], &data, mining, 1, 0).lists.remove(0)
    }

    #[test]
    fn positives_and_what_scores_like_them_are_left_out() {
        let hits = [(0, 0.95), (2, 0.8), (1, 0.79), (3, 0.76), (5, 0.6), (4, 0.5), (6, -0.1)];
        assert_eq!(picked(&hits, &ALL), [0, 1, 3, 4, 6]);
        assert_eq!(picked(&hits, &Mining { margin: Some(0.1), ..ALL }), [1, 3, 4, 6]);
        // Below .76, which is 95 % of .8.
        let share = Mining { positive_share: Some(0.95), ..ALL };
        assert_eq!(picked(&hits, &share), [4, 6]);
        assert_eq!(picked(&hits, &Mining { positive_share: Some(1.0), ..ALL }), [1, 3, 4, 6]);
        let both = Mining { margin: Some(-0.2), positive_share: Some(1.0), ..ALL };
        assert_eq!(picked(&hits, &both), [4, 6], "the stricter one decides");
    }

    #[test]
    fn the_window_counts_what_is_no_positive() {
        let hits = [(0, 0.95), (2, 0.8), (1, 0.79), (3, 0.76), (5, 0.6), (4, 0.5), (6, -0.1)];
        assert_eq!(picked(&hits, &Mining { skip: 1, ..ALL }), [1, 3, 4, 6]);
        assert_eq!(picked(&hits, &Mining { skip: 2, depth: 4, ..ALL }), [3, 4]);
        // What is skipped does not come back because of a limit.
        assert_eq!(picked(&hits, &Mining { skip: 1, margin: Some(0.1), ..ALL }), [1, 3, 4, 6]);
    }

    #[test]
    fn no_ranking_is_deeper_than_there_are_documents() {
        let query = TrainQuery { positives: vec![2, 5], ..TrainQuery::default() };
        let names = (0..9).map(|number| number.to_string()).collect();
        let data = TrainingData { names, train: vec![query], ..TrainingData::default() };
        for (depth, wanted) in [(3, 5), (8, 9), (usize::MAX, 9)] {
            assert_eq!(Candidates::ranking_depth(&data, &Mining { depth, ..ALL }), wanted);
        }
    }

    #[test]
    fn a_positive_that_was_not_found_scores_below_all() {
        let hits = [(0, 0.9), (1, 0.5)];
        assert_eq!(picked(&hits, &Mining { margin: Some(0.1), ..ALL }), [1]);
        assert!(picked(&hits, &Mining { positive_share: Some(0.95), ..ALL }).is_empty());
    }
}
