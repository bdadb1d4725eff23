//! Which candidates were trained on from which step on, and how hard they were.

use std::path::Path;

use serde::{Deserialize, Serialize};

use super::data::TrainingData;
use super::inference::{Vectors, share_found};
use super::negatives::Candidates;
use super::visits::Visits;
use super::{Error, Event, Listener, Run};
use crate::generation::replace_file;

/// Hits among which training negatives are looked for at the end (Xiong et al. 2020, figure 1).
const HARDEST: usize = 100;
/// The file's name in a run's folder, where the Inferencer runs beside the Trainer.
const USAGE_FILE: &str = "candidates.json";

/// Candidates and the steps that they were used for: up to those of the next.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Used {
    /// The round whose checkpoint mined them; 0 for the one that training started from.
    pub round: u64,
    /// Steps that were done before the first that used them.
    pub from_step: u64,
}

/// In the order of use.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Usage(pub(super) Vec<Used>);

impl Usage {
    /// Where mining and training take turns: those of each round for its steps.
    pub(super) fn in_turn(rounds: u64, steps_a_round: u64) -> Self {
        Self((0..rounds).map(|round| Used { round, from_step: round * steps_a_round }).collect())
    }

    /// What a run that was at step `steps` when it was saved had used; none for a new one. Steps after that are done
    /// again.
    pub(super) fn read(folder: &Path, steps: u64) -> Result<Self, Error> {
        let file = folder.join(USAGE_FILE);
        let mut used: Vec<Used> = match std::fs::read(&file) {
            Ok(text) => serde_json::from_slice(&text)
                .map_err(|error| Error::State { file: file.clone(), reason: error.to_string() })?,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Vec::new(),
            Err(error) => return Err(Error::io(&file)(error)),
        };
        used.retain(|used| used.from_step <= steps);
        Ok(Self(used))
    }

    /// Records, before they are used, that these candidates are from step `from_step` on. Returns since when they are:
    /// a run that goes on with those that it had goes on in their order of visits too.
    pub(super) fn begin(&mut self, folder: &Path, round: u64, from_step: u64) -> Result<Used, Error> {
        if let Some(last) = self.0.last().filter(|last| last.round == round) {
            return Ok(*last);
        }
        let used = Used { round, from_step };
        self.0.retain(|used| used.from_step < from_step);
        self.0.push(used);
        let file = folder.join(USAGE_FILE);
        let text = serde_json::to_vec(&self.0).map_err(|error| Error::io(&file)(error.into()))?;
        replace_file(&file, &text)?;
        Ok(used)
    }

    /// Each with the step before which the next was used, the last one up to `end`.
    pub(super) fn spans(&self, end: u64) -> impl Iterator<Item = (Used, u64)> + '_ {
        let ends = self.0.iter().skip(1).map(|next| next.from_step).chain(std::iter::once(end));
        self.0.iter().copied().zip(ends)
    }
}

impl Run<'_> {
    pub(super) fn steps_a_round(&self) -> u64 {
        self.plan.recipe.schedule.steps / self.plan.rounds
    }

    /// Visits in so many steps.
    pub(super) fn visits(&self, steps: u64) -> u64 {
        steps * self.plan.recipe.accumulation as u64 * self.plan.recipe.batch as u64
    }

    /// For each candidates that were used, the share of the negatives trained on that are among the best of the last
    /// checkpoint, whose vectors these are; none where there were no negatives.
    pub(super) fn shares(
        &self,
        usage: &Usage,
        vectors: &Vectors,
        data: &TrainingData,
        listener: Listener<'_>,
    ) -> Result<Vec<Option<f64>>, Error> {
        let hits = vectors.nearest_to_train(&self.machine.runtime, HARDEST, &mut |_| listener(Event::Alive))?;
        let share = |(used, end): (Used, u64)| -> Result<Option<f64>, Error> {
            let file = self.candidates_file(used.round);
            let candidates = Candidates::read(&file, data.train.len(), data.passages.len())?;
            let first = self.visits(used.from_step);
            let visits = Visits::new(data, &candidates, &self.plan.mining, used.round, first);
            let pairs: Vec<(usize, u32)> = visits
                .list(first, (self.visits(end) - first) as usize, self.plan.recipe.seed)
                .iter()
                .filter_map(|visit| Some((visit.query, visit.negative? as u32)))
                .collect();
            Ok((!pairs.is_empty()).then(|| share_found(&hits, &pairs)))
        };
        usage.spans(self.plan.recipe.schedule.steps).map(share).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_done_again_is_recorded_anew() {
        let folder = tempfile::tempdir().unwrap();
        let folder = folder.path();
        let mut usage = Usage::read(folder, 0).unwrap();
        for (round, step, since) in [(0, 0, 0), (1, 120, 120), (1, 130, 120), (3, 250, 250)] {
            assert_eq!(usage.begin(folder, round, step).unwrap(), Used { round, from_step: since });
        }
        let spans =
            |usage: &Usage| usage.spans(400).map(|(used, end)| (used.round, used.from_step, end)).collect::<Vec<_>>();
        assert_eq!(spans(&usage), [(0, 0, 120), (1, 120, 250), (3, 250, 400)]);
        // Saved at step 200, killed later: the newest candidates are there at once.
        let mut usage = Usage::read(folder, 200).unwrap();
        assert_eq!(spans(&usage), [(0, 0, 120), (1, 120, 400)]);
        usage.begin(folder, 3, 200).unwrap();
        assert_eq!(spans(&Usage::read(folder, 400).unwrap()), [(0, 0, 120), (1, 120, 200), (3, 200, 400)]);
        // Nothing was trained on in between.
        usage.begin(folder, 4, 200).unwrap();
        assert_eq!(spans(&usage), [(0, 0, 120), (1, 120, 200), (4, 200, 400)]);
        std::fs::write(folder.join(USAGE_FILE), "[").unwrap();
        assert!(matches!(Usage::read(folder, 0), Err(Error::State { .. })));
    }
}
