//! Which candidates were trained on from which step on, where the Inferencer runs beside the Trainer.

use std::path::Path;

use serde::{Deserialize, Serialize};

use super::Error;
use crate::generation::replace_file;

/// The file's name in a run's folder.
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
