//! ANCE (Xiong et al. 2020, arXiv 2007.00808): rounds of mining, training and measuring.
//!
//! The Inferencer encodes with the newest checkpoint and mines negatives, the Trainer steps the weights over them. In
//! turn, a run is a function of its recipe, its data and the checkpoint that it starts from: every choice by chance is
//! drawn from the recipe's seed and the number of the batch, so that a run that was cut off goes on as if it had not
//! been. Side by side (`overlap`) the clock has a say too, and what was used when is recorded.

mod answers;
mod data;
mod error;
mod event;
mod files;
mod gate;
mod inference;
mod leftovers;
mod negatives;
mod overlap;
mod plan;
mod recipe;
mod reuse;
mod rounds;
mod state;
#[cfg(test)]
mod tests;
mod trainer;
mod triples;
mod usage;
mod visits;

pub use data::{Lengths, TrainingData};
pub use error::Error;
pub use event::{Event, Listener, Means, Texts};
pub use gate::{Gate, Verdict};
pub use leftovers::{Leave, clean_up};
pub use negatives::Mining;
pub use plan::Plan;
pub use recipe::{Recipe, Schedule};
pub use rounds::{Outcome, Run};
pub use state::STATE_FILE;
pub use trainer::{Report, Trainer};
pub use triples::{Source, Triple, Triples};
pub use usage::Used;
