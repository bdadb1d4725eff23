//! What a run tells whoever started it.

use std::collections::BTreeMap;

use serde::Serialize;

use super::{Error, Report, Used};
use crate::evaluation::Measure;

/// Means of measures over the dev queries.
pub type Means = BTreeMap<Measure, f64>;

/// Told every event; an error stops the run, with its state kept.
pub type Listener<'a> = &'a mut dyn FnMut(Event) -> Result<(), Error>;

/// What happens in a run, as it happens.
#[derive(Debug, Clone, Serialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum Event {
    /// What there is to learn from.
    Data {
        /// Documents.
        documents: usize,
        /// Train queries with a positive.
        train: usize,
        /// Dev queries.
        dev: usize,
    },
    /// The run works at something that is told of at its end: who listens for long without a word takes it for hung.
    Alive,
    /// A part of a round begins, or comes on.
    Phase {
        /// From 1; of encode the round that made the checkpoint, 0 for the one that training started from.
        round: u64,
        /// encode, mine, train; after the last round build, gate.
        phase: &'static str,
        /// Texts or steps done.
        done: u64,
        /// Of so many.
        total: u64,
        /// Whether training goes on meanwhile.
        #[serde(skip_serializing_if = "std::ops::Not::not")]
        beside: bool,
    },
    /// From this step on these candidates are trained on; told where mining does not wait for training.
    Candidates(Used),
    /// A step.
    Step {
        /// From 1.
        round: u64,
        /// What it did.
        #[serde(flatten)]
        report: Report,
    },
    /// The dev measures of a checkpoint.
    Measures {
        /// The round that made it; 0 for the one that training started from.
        round: u64,
        /// By name.
        measures: Means,
    },
    /// Seconds that a part of a round took.
    Took {
        /// As in `Phase`.
        round: u64,
        /// encode, mine, train, build, gate.
        phase: &'static str,
        /// Wall-clock time.
        seconds: f64,
        /// What was encoded, in encode and build.
        #[serde(flatten)]
        texts: Option<Texts>,
    },
}

impl Event {
    /// The same, told by an Inferencer beside the Trainer.
    pub(super) fn beside(self) -> Self {
        match self {
            Self::Phase { round, phase, done, total, .. } => Self::Phase { round, phase, done, total, beside: true },
            other => other,
        }
    }
}

/// Where the vectors of a phase came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Texts {
    /// Texts that were encoded.
    pub encoded: u64,
    /// Documents whose vectors were known: from the generation that training starts from, or from the best round.
    pub reused: u64,
}
