//! What a run of training does, as it is recorded with its state.

use serde::{Deserialize, Serialize};

use super::Error;
use crate::onnx::{Adam, Loss, Objective, Optimizer, TrainingPrecision};

/// Triples of a batch, and batches of a step, at most: far above what is of use, and no product with them overflows.
const MOST: usize = 1 << 16;
/// Steps of a run at most.
const MOST_STEPS: u64 = 1_000_000_000;

/// The settings of a run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Recipe {
    /// What is minimised.
    pub loss: Loss,
    /// How weights follow their gradients.
    pub optimizer: Optimizer,
    /// The learning rate over the steps.
    pub schedule: Schedule,
    /// The largest global norm of the gradient.
    pub clip: f32,
    /// Triples a batch.
    pub batch: usize,
    /// Batches a step.
    pub accumulation: usize,
    /// What matrix products are computed in.
    pub precision: TrainingPrecision,
    /// Whether to drop what the checkpoint's configuration says.
    pub dropout: bool,
    /// Of every choice by chance.
    pub seed: u64,
}

/// Linear warm-up to the learning rate, then linear decay to 0 at the last step.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Schedule {
    /// The highest rate.
    pub learning_rate: f32,
    /// Steps until it is reached.
    pub warmup: u64,
    /// Steps in all.
    pub steps: u64,
}

impl Schedule {
    /// The rate of a step, counted from 1: as transformers' `get_linear_schedule_with_warmup`, whose first step has
    /// rate 0 with a warm-up.
    pub fn rate(&self, step: u64) -> f32 {
        let done = step.saturating_sub(1);
        let share = if done < self.warmup {
            done as f64 / self.warmup.max(1) as f64
        } else {
            self.steps.saturating_sub(done) as f64 / self.steps.saturating_sub(self.warmup).max(1) as f64
        };
        (f64::from(self.learning_rate) * share) as f32
    }
}

impl Default for Recipe {
    /// In-batch negatives beside the mined ones, scores times 20, AdamW at 5e-5: best for normalised encoders.
    fn default() -> Self {
        Self {
            loss: Loss { objective: Objective::InBatch, scale: 20.0, chunks: false },
            optimizer: Optimizer::AdamW(Adam::default()),
            schedule: Schedule { learning_rate: 5e-5, warmup: 60, steps: 600 },
            clip: 1.0,
            batch: 16,
            accumulation: 1,
            precision: TrainingPrecision::Fp32,
            dropout: false,
            seed: 1,
        }
    }
}

impl Recipe {
    /// # Errors
    /// A setting that no run could have, with its name.
    pub fn check(&self) -> Result<(), Error> {
        let refuse = |reason: &str| Err(Error::Recipe(reason.to_owned()));
        let positive = |value: f32| value.is_finite() && value > 0.0;
        if self.batch == 0 || self.accumulation == 0 {
            return refuse("batch and accumulation must be 1 or more");
        }
        if self.batch > MOST || self.accumulation > MOST {
            return refuse("batch and accumulation must be at most 65536 each");
        }
        if self.schedule.steps > MOST_STEPS {
            return refuse("steps must be at most 1000000000 in all rounds");
        }
        if self.schedule.steps == 0 || self.schedule.warmup > self.schedule.steps {
            return refuse("steps must be 1 or more, and warmup not more than steps");
        }
        if !positive(self.schedule.learning_rate) || !positive(self.clip) || !positive(self.loss.scale) {
            return refuse("learning rate, clip and scale must be above 0");
        }
        let (Optimizer::AdamW(adam) | Optimizer::Lamb(adam)) = self.optimizer;
        let share = |value: f32| (0.0..1.0).contains(&value);
        let decays = adam.weight_decay.is_finite() && adam.weight_decay >= 0.0;
        if !share(adam.beta1) || !share(adam.beta2) || !positive(adam.epsilon) || !decays {
            return refuse("betas must be from 0 up to below 1, epsilon above 0, weight decay 0 or more");
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rate_rises_then_falls_to_zero() {
        let schedule = Schedule { learning_rate: 1.0, warmup: 4, steps: 12 };
        let rates: Vec<f32> = (1..=13).map(|step| schedule.rate(step)).collect();
        let wanted = [0.0, 0.25, 0.5, 0.75, 1.0, 0.875, 0.75, 0.625, 0.5, 0.375, 0.25, 0.125, 0.0];
        assert_eq!(rates, wanted);
        let at_once = Schedule { warmup: 0, ..schedule };
        assert_eq!(at_once.rate(1), 1.0);
    }

    #[test]
    fn settings_that_cannot_be_are_named() {
        Recipe::default().check().unwrap();
        for (recipe, word) in [
            (Recipe { batch: 0, ..Recipe::default() }, "batch"),
            (Recipe { clip: f32::NAN, ..Recipe::default() }, "clip"),
            (Recipe { schedule: Schedule { learning_rate: 1.0, warmup: 5, steps: 4 }, ..Recipe::default() }, "warmup"),
            (
                Recipe { optimizer: Optimizer::Lamb(Adam { beta1: 1.0, ..Adam::default() }), ..Recipe::default() },
                "betas",
            ),
            (
                Recipe {
                    optimizer: Optimizer::AdamW(Adam { weight_decay: f32::NAN, ..Adam::default() }),
                    ..Recipe::default()
                },
                "weight decay",
            ),
        ] {
            let error = recipe.check().unwrap_err().to_string();
            assert!(error.contains(word), "{error}");
        }
    }
}
