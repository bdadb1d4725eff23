//! What a run says at its end.

use serde::{Deserialize, Serialize};

use super::super::print;
use super::show::{among, line};
use crate::ance::{Means, Outcome, Used, Verdict};

/// The last line of a run, and what its folder keeps of it.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(tag = "event", rename = "done")]
pub(super) struct Done {
    pub(super) generation: u64,
    pub(super) published: bool,
    pub(super) reason: String,
    pub(super) best_round: u64,
    measures: Option<Means>,
    live: Option<u64>,
    live_measures: Option<Means>,
    rounds: Vec<Option<Means>>,
    overlap: Vec<Option<f64>>,
    candidates: Vec<Used>,
}

impl Done {
    pub(super) fn new(outcome: Outcome, generation: u64, verdict: Verdict) -> Self {
        let Outcome { best_round, measures: rounds, overlap, candidates, .. } = outcome;
        let Verdict { published, reason, new, live, live_measures } = verdict;
        Self {
            generation,
            published,
            reason,
            best_round,
            measures: new,
            live,
            live_measures,
            rounds,
            overlap,
            candidates,
        }
    }

    /// Whether the gate's verdict is about the generation that is live now.
    pub(super) fn holds(&self, live: Option<u64>) -> bool {
        live == self.live || live == Some(self.generation)
    }

    /// The same with another verdict.
    pub(super) fn judged(self, verdict: Verdict) -> Self {
        let Verdict { published, reason, new, live, live_measures } = verdict;
        Self { published, reason, measures: new, live, live_measures, ..self }
    }

    pub(super) fn json(&self) -> anyhow::Result<String> {
        Ok(serde_json::to_string(self)?)
    }

    /// Prints it for people.
    pub(super) fn print(&self) -> anyhow::Result<()> {
        // Beside training a round may be passed over.
        let unmeasured = if self.candidates.is_empty() { "no dev queries" } else { "not measured" };
        for (round, means) in self.rounds.iter().enumerate() {
            let means = means.as_ref().map_or_else(|| unmeasured.into(), line);
            let in_turn = round.checked_sub(1).filter(|_| self.candidates.is_empty());
            let overlap = in_turn.and_then(|round| self.overlap.get(round)).copied().flatten();
            let overlap = overlap.map_or_else(String::new, |share| format!("  {}", among(share)));
            print(&format!("round {round}: {means}{overlap}"))?;
        }
        for (used, share) in self.candidates.iter().zip(&self.overlap) {
            let share = share.map_or_else(String::new, |share| format!("  {}", among(share)));
            print(&format!("from step {}: candidates of round {}{share}", used.from_step + 1, used.round))?;
        }
        print(&format!("generation {} from round {}: {}", self.generation, self.best_round, self.reason))
    }
}
