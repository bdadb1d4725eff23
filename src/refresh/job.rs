//! A job as the store keeps it.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::ance::Plan;

/// What became of a job.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// Its process runs, or its generation is being made live.
    Running,
    /// The server or its process ended before it did.
    Stopped,
    /// Something went wrong.
    Failed,
    /// Its generation measured worse than the live one: it is kept, and not live.
    Rejected,
    /// Its generation is live.
    Done,
    /// Somebody cancelled it.
    Cancelled,
}

impl State {
    /// As in its record.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Running => "running",
            Self::Stopped => "stopped",
            Self::Failed => "failed",
            Self::Rejected => "rejected",
            Self::Done => "done",
            Self::Cancelled => "cancelled",
        }
    }
}

impl std::fmt::Display for State {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str(self.as_str())
    }
}

/// The dev measures of a round's checkpoint.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RoundMeasures {
    /// 0 for the one that training started from.
    pub round: u64,
    /// By name.
    pub measures: BTreeMap<String, f64>,
}

/// A refresh: what it was told to do, and how far it is.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Job {
    /// Its name; later jobs have higher ones.
    pub id: String,
    /// RFC 3339, UTC.
    pub created: String,
    /// When its state last changed.
    pub updated: String,
    /// What became of it.
    pub state: State,
    /// Why it is in this state.
    pub reason: Option<String>,
    /// What it does.
    pub plan: Plan,
    /// From 1; 0 before the first.
    pub round: u64,
    /// What it does now: encode, mine, train, build, gate, swap; none where it does not run.
    pub phase: Option<String>,
    /// Steps done, over all rounds.
    pub step: u64,
    /// The loss of the last step.
    pub loss: Option<f64>,
    /// The dev measures of each round.
    pub measures: Vec<RoundMeasures>,
    /// What it made.
    pub generation: Option<u64>,
    /// How often it was gone on with.
    pub resumes: u64,
    /// Whether its folder has what it needs to go on.
    pub kept: bool,
    /// What it needs beside its folder and is not there any more, for people; looked for when it is read.
    #[serde(skip)]
    pub lost: Option<String>,
}

impl Job {
    pub(super) fn new(id: String, plan: Plan) -> Self {
        Self {
            id,
            created: now(),
            updated: now(),
            state: State::Running,
            reason: None,
            plan,
            round: 0,
            phase: None,
            step: 0,
            loss: None,
            measures: Vec::new(),
            generation: None,
            resumes: 0,
            kept: true,
            lost: None,
        }
    }

    /// Whether it can be gone on with.
    pub fn is_resumable(&self) -> bool {
        self.is_kept() && self.lost.is_none()
    }

    /// Whether it did not come to its end, and its folder has what it needs to go on.
    pub(super) fn is_kept(&self) -> bool {
        self.kept && matches!(self.state, State::Stopped | State::Failed | State::Cancelled)
    }

    pub(super) fn enter(&mut self, state: State, reason: Option<String>) {
        (self.state, self.reason, self.updated) = (state, reason, now());
        if state != State::Running {
            self.phase = None;
        }
    }

    /// Takes note of what its process said; true where that is worth a write to the disk.
    pub(super) fn saw(&mut self, said: &Said) -> bool {
        match said {
            Said::Phase { beside: true, .. } => false,
            Said::Phase { round, phase, .. } => {
                // What comes after the last round names the best one, which does not set the job back.
                let round = if matches!(phase.as_str(), "build" | "gate") { self.round } else { *round };
                let is_new = self.phase.as_ref() != Some(phase) || self.round != round;
                (self.round, self.phase) = (round, Some(phase.clone()));
                is_new
            }
            Said::Step { round, step, loss } => {
                let is_first = self.phase.as_deref() != Some("train") || self.round != *round;
                (self.round, self.step, self.loss) = (*round, *step, *loss);
                self.phase = Some("train".into());
                is_first
            }
            Said::Measures { round, measures } => {
                self.measures.retain(|of| of.round != *round);
                self.measures.push(RoundMeasures { round: *round, measures: measures.clone() });
                true
            }
            Said::Done(done) => {
                self.generation = Some(done.generation);
                true
            }
            Said::Alive | Said::Took { .. } | Said::Other => false,
        }
    }
}

/// What a training process says.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub(super) enum Said {
    Alive,
    Phase {
        round: u64,
        phase: String,
        done: u64,
        /// Training goes on meanwhile, and the job is in that phase.
        #[serde(default)]
        beside: bool,
    },
    Step {
        round: u64,
        step: u64,
        /// Not a number where the loss is none.
        loss: Option<f64>,
    },
    Measures {
        round: u64,
        measures: BTreeMap<String, f64>,
    },
    Took {
        phase: String,
        seconds: f64,
    },
    Done(Done),
    #[serde(other)]
    Other,
}

/// The last thing that a training process says.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub(super) struct Done {
    pub(super) generation: u64,
    pub(super) published: bool,
    pub(super) reason: String,
    pub(super) measures: Option<BTreeMap<String, f64>>,
    pub(super) live: Option<u64>,
    pub(super) live_measures: Option<BTreeMap<String, f64>>,
}

pub(super) fn now() -> String {
    OffsetDateTime::now_utc().format(&Rfc3339).unwrap_or_default()
}
