//! What a run of rounds does, as it is recorded with its state.

use serde::{Deserialize, Serialize};

use super::{Error, Lengths, Mining, Recipe, Schedule};
use crate::evaluation::Measure;
use crate::onnx::{Adam, Loss, Objective, Optimizer, TrainingPrecision};
use crate::settings::{LossChoice, Negatives, OptimizerChoice, RecipeChoice, Settings};

/// The settings of a run of rounds.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Plan {
    /// How batches are trained on; its steps are those of all rounds.
    pub recipe: Recipe,
    /// Where negatives come from.
    pub mining: Mining,
    /// How long texts are.
    pub lengths: Lengths,
    /// Rounds; negatives are mined before each.
    pub rounds: u64,
    /// Whether negatives are mined before the first round only.
    pub mine_once: bool,
    /// Whether mining goes on beside training, instead of in turn.
    #[serde(default)]
    pub overlap: bool,
    /// What decides which round's checkpoint is the best.
    pub measure: Measure,
}

impl Plan {
    /// The plan that the settings make: those of the recipe where nothing else is set.
    ///
    /// # Errors
    /// A setting that no run could have.
    pub fn from_settings(settings: &Settings) -> Result<Self, Error> {
        let paper = settings.recipe == RecipeChoice::Paper;
        let pick = |usual: f32, published: f32| if paper { published } else { usual };
        let count = |usual: usize, published: usize| if paper { published } else { usual };
        let rounds = settings.rounds.unwrap_or(3);
        let steps = settings.steps.unwrap_or(200).saturating_mul(rounds);
        let adam = Adam { weight_decay: settings.weight_decay.unwrap_or(0.0), ..Adam::default() };
        let usual = if paper { OptimizerChoice::Lamb } else { OptimizerChoice::AdamW };
        let optimizer = match settings.optimizer.unwrap_or(usual) {
            OptimizerChoice::AdamW => Optimizer::AdamW(adam),
            OptimizerChoice::Lamb => Optimizer::Lamb(adam),
        };
        let usual = if paper { LossChoice::Pairwise } else { LossChoice::InBatch };
        let objective = match settings.loss.unwrap_or(usual) {
            LossChoice::Pairwise => Objective::Pairwise,
            LossChoice::InBatch => Objective::InBatch,
        };
        let plan = Self {
            recipe: Recipe {
                loss: Loss { objective, scale: settings.scale.unwrap_or(pick(20.0, 1.0)), chunks: false },
                optimizer,
                schedule: Schedule {
                    learning_rate: settings.lr.unwrap_or(pick(5e-5, 1e-6)),
                    warmup: settings.warmup.unwrap_or(steps / 10),
                    steps,
                },
                clip: settings.clip.unwrap_or(1.0),
                batch: settings.batch.unwrap_or(count(16, 8)),
                accumulation: settings.accumulation.unwrap_or(count(1, 8)),
                precision: TrainingPrecision::Fp32,
                dropout: settings.dropout || paper,
                seed: settings.seed,
            },
            mining: Mining {
                negatives: settings.negatives.unwrap_or(Negatives::Ance),
                depth: settings.depth.unwrap_or(200),
                margin: settings.margin,
                positive_share: settings.positive_share,
                skip: settings.skip.unwrap_or(0),
                per_query: settings.negatives_per_query.unwrap_or(count(0, 20)),
                slices: settings.slices.unwrap_or(count(1, 5)),
            },
            lengths: Lengths {
                query: settings.query_tokens.unwrap_or(count(48, 64)),
                passage: settings.passage_tokens.unwrap_or(128),
            },
            rounds,
            mine_once: settings.mine_once,
            overlap: settings.overlap,
            measure: settings
                .measure
                .parse()
                .map_err(|error: crate::evaluation::Error| Error::Recipe(error.to_string()))?,
        };
        plan.check()?;
        Ok(plan)
    }

    /// # Errors
    /// A setting that no run could have.
    pub fn check(&self) -> Result<(), Error> {
        let refuse = |reason: &str| Err(Error::Recipe(reason.to_owned()));
        if self.rounds == 0 || self.recipe.schedule.steps < self.rounds {
            return refuse("rounds must be 1 or more, and each must have a step");
        }
        self.recipe.check()?;
        if self.overlap && self.mine_once {
            return refuse(
                "overlap mines beside the training, and mine once does not mine at all then; set one of them",
            );
        }
        if self.mining.depth == 0 || self.mining.slices == 0 {
            return refuse("depth and slices must be 1 or more");
        }
        if self.mining.margin.is_some_and(|margin| !margin.is_finite()) {
            return refuse("margin must be a number");
        }
        if self.mining.positive_share.is_some_and(|share| !share.is_finite() || share <= 0.0) {
            return refuse("positive share must be a number above 0");
        }
        if self.mining.skip >= self.mining.depth {
            return refuse("skip must be below depth, or no candidate is left");
        }
        if self.lengths.query < 3 || self.lengths.passage < 3 {
            return refuse("query and passage tokens must be 3 or more");
        }
        if self.mining.negatives == Negatives::None && self.recipe.loss.objective == Objective::Pairwise {
            return refuse("the pairwise loss needs negatives; use the in-batch loss, or another source");
        }
        // One that is never taken would have no value, and every generation would be as good as the live one.
        if !Measure::STANDARD.contains(&self.measure) {
            let taken = Measure::STANDARD.map(|measure| measure.to_string()).join(", ");
            return refuse(&format!("measure {} is not taken of a round; it must be one of {taken}", self.measure));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(settings: Settings) -> String {
        Plan::from_settings(&settings).unwrap_err().to_string()
    }

    #[test]
    fn a_measure_that_no_round_has_cannot_decide() {
        for measure in ["nDCG@5", "MRR@100", "Recall@10"] {
            let told = refused(Settings { measure: measure.into(), ..Settings::default() });
            assert!(told.contains(measure) && told.contains("nDCG@10"), "{told}");
        }
        for measure in Measure::STANDARD {
            let settings = Settings { measure: measure.to_string(), ..Settings::default() };
            assert_eq!(Plan::from_settings(&settings).unwrap().measure, measure);
        }
    }

    #[test]
    fn counts_that_no_machine_could_hold_are_refused() {
        for (settings, word) in [
            (Settings { batch: Some(usize::MAX), ..Settings::default() }, "batch"),
            (Settings { accumulation: Some(usize::MAX), ..Settings::default() }, "accumulation"),
            (Settings { steps: Some(u64::MAX), warmup: Some(0), ..Settings::default() }, "steps"),
        ] {
            let told = refused(settings);
            assert!(told.contains(word) && told.contains("at most"), "{told}");
        }
    }
}
