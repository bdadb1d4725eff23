//! A run of training: steps over a source of batches, a state to go on from, a checkpoint at the end.

use std::path::Path;

use sha2::{Digest as _, Sha256};

use super::state::{self, Header};
use super::{Error, Recipe, Source};
use crate::encoder::{Checkpoint, Overrides};
use crate::generation::hexadecimal;
use crate::onnx::bert::DropoutSeed;
use crate::onnx::{Placement, Runtime, TrainingOptions, TrainingSession, Weights};

/// A checkpoint in training.
#[derive(Debug)]
pub struct Trainer {
    session: TrainingSession,
    checkpoint: Checkpoint,
    recipe: Recipe,
    source: String,
    step: u64,
}

/// What a step did.
#[derive(Debug, Clone, Copy, PartialEq, serde::Serialize)]
pub struct Report {
    /// Its number, from 1.
    pub step: u64,
    /// The mean loss of its batches, before the step.
    pub loss: f32,
    /// The global norm of the gradient before clipping.
    pub norm: f64,
    /// Its learning rate.
    pub rate: f32,
    /// Tokens of its batches.
    pub tokens: usize,
    /// The weights were left as they were, since the gradient overflowed in 16 bits.
    pub skipped: bool,
}

impl Trainer {
    /// A run from the weights of a checkpoint folder. `state` names the folder of an earlier run's state: where it has
    /// one, the run goes on from there.
    ///
    /// # Errors
    /// A checkpoint that cannot be read or trained; a recipe that cannot be; a state of another recipe or of other
    /// weights.
    pub fn open(
        runtime: &Runtime,
        placement: Placement,
        folder: &Path,
        overrides: &Overrides,
        recipe: Recipe,
        state: Option<&Path>,
    ) -> Result<Self, Error> {
        recipe.check()?;
        let checkpoint = Checkpoint::open(folder, overrides)?;
        let (task, weights) = checkpoint.task(recipe.loss)?;
        let source = digest(weights)?;
        let found = state.map(state::read).transpose()?.flatten();
        if let (Some(state), Some((header, ..))) = (state, &found) {
            let refuse =
                |reason: &str| Err(Error::State { file: state.join(state::STATE_FILE), reason: reason.to_owned() });
            if header.source != source {
                return refuse("the run started from other weights than those of this checkpoint");
            }
            if header.recipe != recipe {
                return refuse(&format!("the run has another recipe: {:?}", header.recipe));
            }
        }
        let step = found.as_ref().map_or(0, |(header, ..)| header.step);
        let batches = step * recipe.accumulation as u64;
        let options = TrainingOptions {
            optimizer: recipe.optimizer,
            clip: recipe.clip,
            precision: recipe.precision,
            dropout: recipe.dropout.then_some(DropoutSeed { run: recipe.seed, step: batches }),
            accumulation: recipe.accumulation,
        };
        let mut session = TrainingSession::new(runtime, placement, &task, weights, options)?;
        if let Some((_, weights, moments)) = found {
            session.restore(weights, moments)?;
        }
        Ok(Self { session, checkpoint, recipe, source, step })
    }

    /// Steps done.
    pub fn steps(&self) -> u64 {
        self.step
    }

    /// Whether all steps of the recipe are done.
    pub fn is_done(&self) -> bool {
        self.step >= self.recipe.schedule.steps
    }

    /// The next step, over batches of `source`.
    ///
    /// # Errors
    /// Data that cannot be had or trained on, a run that diverges, what the runtime says.
    pub fn step(&mut self, source: &dyn Source) -> Result<Report, Error> {
        let accumulation = self.recipe.accumulation as u64;
        let batches = (0..accumulation)
            .map(|at| source.batch(self.step * accumulation + at, self.recipe.batch, self.recipe.seed))
            .collect::<Result<Vec<_>, _>>()?;
        let tokens = batches.iter().map(crate::onnx::Batch::tokens).sum();
        let step = self.step + 1;
        let rate = self.recipe.schedule.rate(step);
        let update = self.session.step(&batches, rate, step)?;
        self.step = step;
        Ok(Report { step, loss: update.loss, norm: update.norm, rate, tokens, skipped: update.skipped })
    }

    /// Writes what the run needs to go on from here to `folder`, in place of what is there.
    ///
    /// # Errors
    /// A folder that cannot be written to; the state that was there is then still there.
    pub fn save(&self, folder: &Path) -> Result<(), Error> {
        let moments = self.session.moments()?;
        let header = Header::new(&self.recipe, &self.source, self.step, moments.loss_scale);
        state::write(folder, &header, &self.session.weights()?, &moments)
    }

    /// Writes the weights as they are now as a checkpoint in Hugging Face layout, with the tokenizer, configuration and
    /// untrained tensors of the one that the run started from.
    ///
    /// # Errors
    /// A folder that is there already or cannot be written.
    pub fn write_checkpoint(&self, folder: &Path) -> Result<(), Error> {
        let weights = self.session.weights()?;
        let ranges = self.session.ranges();
        let trained = |name: &str| ranges.get(name).and_then(|range| weights.get(range.clone()));
        Ok(self.checkpoint.write_trained(folder, &trained)?)
    }

    /// The checkpoint that the run started from.
    pub fn checkpoint(&self) -> &Checkpoint {
        &self.checkpoint
    }
}

/// sha256 over all files that weights were read from, in hexadecimal.
fn digest(weights: &Weights) -> Result<String, Error> {
    let mut digest = Sha256::new();
    for file in weights.files() {
        digest.update(crate::system::map_file(file.path()).map_err(Error::io(file.path()))?);
    }
    Ok(hexadecimal(&digest.finalize()))
}
