//! Vectors that are there already, so that no text is encoded twice by the same weights: round one takes those of the
//! generation that training starts from, and the generation that is built takes those of the best round.
//!
//! Only documents whose tokens are the same both times are taken ([`TrainingData`] knows which), and only vectors of 32
//! bits: 16 bits would change the order of near neighbours.

use std::path::Path;

use super::data::TrainingData;
use super::inference::Vectors;
use super::{Error, Means, Run};
use crate::encoder::{Encoder, Overrides};
use crate::generation::Manifest;
use crate::index::SavedVectors;

/// The vectors of the best round so far, in the run's folder.
pub(super) const KEPT_FILE: &str = "vectors.safetensors";
/// A server that writes to the generation may replace its files while they are read.
const TRIES: usize = 3;

impl Run<'_> {
    /// Training starts from the checkpoint of the generation in `folder`, whose vectors are used where they fit.
    #[must_use]
    pub fn from_generation(mut self, folder: &Path) -> Self {
        self.generation = Some(folder.to_path_buf());
        self
    }

    /// The vectors of documents that the checkpoint of `round` made before. What cannot be read is encoded instead.
    pub(super) fn known(&self, round: u64) -> Option<SavedVectors> {
        match (round, &self.generation) {
            (0, Some(folder)) => (0..TRIES).find_map(|_| {
                let manifest = Manifest::read(folder).ok()?;
                let is_set_alike = manifest.encoder.overrides() == self.overrides;
                if !is_set_alike {
                    return Some(None);
                }
                let saved = manifest.saved_vectors(folder);
                saved.inspect_err(|error| tracing::warn!(%error, "the generation's vectors are not reused")).ok()
            })?,
            (0, None) => None,
            _ => self.vectors(round),
        }
    }

    /// The vectors of documents that the run kept of a round: those of the best one.
    pub fn vectors(&self, round: u64) -> Option<SavedVectors> {
        let file = self.folder.join(KEPT_FILE);
        if !file.is_file() {
            return None;
        }
        let saved = SavedVectors::open(&file, Some(&maker(round, &self.overrides)));
        saved.inspect_err(|error| tracing::warn!(%error, "the round's vectors are not reused")).ok().flatten()
    }

    /// Keeps the vectors of the round that was measured last, if it is the best so far.
    pub(super) fn keep_best(
        &self,
        vectors: &Vectors,
        data: &TrainingData,
        measures: &[Option<Means>],
    ) -> Result<(), Error> {
        let round = measures.len().saturating_sub(1) as u64;
        let is_best = round > 0 && self.best_round(measures) == round;
        // Without dev queries it is the last round that is built.
        if !is_best || (data.dev.is_empty() && round < self.plan.rounds) {
            return Ok(());
        }
        vectors.save(&self.folder.join(KEPT_FILE), data, &maker(round, &self.overrides))
    }
}

/// A run that goes on may find other settings than those that it began with.
fn maker(round: u64, overrides: &Overrides) -> String {
    format!("round {round}, {overrides:?}")
}

/// The vector of a document by its number, where the encoder would make the same.
pub(super) fn known_vector(
    saved: Option<&SavedVectors>,
    encoder: &Encoder,
    data: &TrainingData,
    number: usize,
) -> Option<Vec<f32>> {
    let saved = saved.filter(|saved| saved.dimension() == encoder.dimension())?;
    saved.get((*data.sequences.get(number)?)?)
}
