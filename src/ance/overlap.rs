//! Trainer and Inferencer side by side, the paper's asynchronous form.
//!
//! The Trainer writes a checkpoint at the end of each round and goes on with the candidates that there are. The
//! Inferencer, in a thread of its own, takes the newest checkpoint whenever it is free, measures it and mines with it;
//! the Trainer looks for newer candidates before each step and takes them at once. When they come depends on the clock,
//! so no two runs are the same bit for bit; what was used when is recorded in the run's folder.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Instant;

use super::data::TrainingData;
use super::inference::Vectors;
use super::negatives::Candidates;
use super::rounds::SAVE_EVERY;
use super::usage::{Usage, Used};
use super::visits::Visits;
use super::{Error, Event, Listener, Means, Outcome, Run, Trainer};

/// What the Inferencer says.
enum Said {
    Event(Event),
    /// The candidates that this round's checkpoint mined are there.
    Mined(u64),
    /// It is free again, without new candidates.
    Measured,
    Failed(Error),
}

/// How the two threads talk.
struct Line {
    /// To the Inferencer: the round whose checkpoint is the newest.
    rounds: Sender<u64>,
    said: Receiver<Said>,
    is_busy: bool,
    /// The newest round that the Inferencer was given.
    given: Option<u64>,
}

/// Why a stretch of steps with the same candidates ended.
enum Stretch {
    Newer(u64),
    End,
}

impl Run<'_> {
    /// Trains to the end of the last round.
    ///
    /// # Errors
    /// As [`train`](Self::train).
    pub(super) fn train_side_by_side(
        &self,
        trainer: &mut Trainer,
        data: &TrainingData,
        listener: Listener<'_>,
    ) -> Result<Outcome, Error> {
        let inferencer = self.inferencer();
        if self.newest_candidates().is_none() {
            // The Trainer has nothing to do yet.
            let vectors = inferencer.infer(0, data, listener)?;
            inferencer.mine(0, &vectors, data, listener)?;
        }
        let mut usage = Usage::read(self.folder, trainer.steps())?;
        let (is_over, is_stopped) = (AtomicBool::new(false), AtomicBool::new(false));
        let (rounds, given) = channel();
        let (teller, said) = channel();
        let mut line = Line { rounds, said, is_busy: false, given: self.newest_candidates() };
        std::thread::scope(|scope| {
            let (inferencer, is_over, is_stopped) = (&inferencer, &is_over, &is_stopped);
            scope.spawn(move || inferencer.serve(&given, &teller, data, is_over, is_stopped));
            let trained = self.train_all(trainer, data, &mut usage, &mut line, listener);
            is_over.store(true, Ordering::Release);
            is_stopped.store(trained.is_err(), Ordering::Release);
            let Line { rounds, said, .. } = line;
            drop(rounds);
            let waited = said.iter().try_for_each(|said| match said {
                Said::Event(event) if trained.is_ok() => listener(event),
                Said::Failed(error) => Err(error),
                _ => Ok(()),
            });
            is_stopped.store(waited.is_err(), Ordering::Release);
            trained.and(waited)
        })?;
        let vectors = self.infer(self.plan.rounds, data, listener)?;
        let measures = self.recorded_up_to(self.plan.rounds)?;
        let best_round = self.best_round(&measures);
        let overlap = self.shares(&usage, &vectors, data, listener)?;
        Ok(Outcome { checkpoint: self.checkpoint(best_round), best_round, measures, overlap, candidates: usage.0 })
    }

    /// The Inferencer's thread: whatever is the newest of the rounds that it is given, until there are no more.
    fn serve(
        &self,
        rounds: &Receiver<u64>,
        teller: &Sender<Said>,
        data: &TrainingData,
        is_over: &AtomicBool,
        is_stopped: &AtomicBool,
    ) {
        // The Trainer that does not listen any more has an error of its own.
        let tell = |said| drop(teller.send(said));
        for round in rounds {
            let listener = &mut |event: Event| {
                tell(Said::Event(event.beside()));
                if is_stopped.load(Ordering::Acquire) { Err(Error::Stopped) } else { Ok(()) }
            };
            let mined = self.infer(round, data, listener).and_then(|vectors| {
                // Nobody would train on them.
                let is_of_use = !is_over.load(Ordering::Acquire);
                if is_of_use {
                    self.mine(round, &vectors, data, listener)?;
                }
                Ok(is_of_use)
            });
            tell(match mined {
                Ok(true) => Said::Mined(round),
                Ok(false) => Said::Measured,
                Err(error) => Said::Failed(error),
            });
        }
    }

    /// Encodes and measures with a round's checkpoint.
    fn infer(&self, round: u64, data: &TrainingData, listener: Listener<'_>) -> Result<Vectors, Error> {
        let placement = self.machine.runtime.place(self.machine.encoder.device)?;
        let vectors = self.encode(round, placement, data, listener)?;
        self.measure(round, &vectors, data, listener)?;
        self.keep_best(&vectors, data, &self.recorded_up_to(round)?)?;
        Ok(vectors)
    }

    /// The measures of the rounds up to this one; none of those that the Inferencer passed over.
    fn recorded_up_to(&self, round: u64) -> Result<Vec<Option<Means>>, Error> {
        (0..=round).map(|round| self.recorded(round)).collect()
    }

    /// The round whose candidates are the newest that are complete.
    fn newest_candidates(&self) -> Option<u64> {
        (0..self.plan.rounds).rev().find(|round| self.candidates_file(*round).is_file())
    }

    /// All steps that are left.
    fn train_all(
        &self,
        trainer: &mut Trainer,
        data: &TrainingData,
        usage: &mut Usage,
        line: &mut Line,
        listener: Listener<'_>,
    ) -> Result<(), Error> {
        let started = Instant::now();
        let mut newest = self.newest_candidates();
        while let Some(round) = newest.filter(|_| trainer.steps() < self.plan.recipe.schedule.steps) {
            let used = usage.begin(self.folder, round, trainer.steps())?;
            listener(Event::Candidates(Used { round, from_step: trainer.steps() }))?;
            let candidates = Candidates::read(&self.candidates_file(round), data.train.len(), data.passages.len())?;
            let visits = Visits::new(data, &candidates, &self.plan.mining, round, self.visits(used.from_step));
            newest = match self.stretch(trainer, &visits, line, listener) {
                Ok(Stretch::Newer(round)) => Some(round),
                Ok(Stretch::End) => None,
                Err(error) => {
                    trainer.save(self.folder)?;
                    return Err(error);
                }
            };
        }
        trainer.save(self.folder)?;
        self.write_due_checkpoint(trainer)?;
        let (round, seconds) = (self.plan.rounds, started.elapsed().as_secs_f64());
        listener(Event::Took { round, phase: "train", seconds, texts: None })
    }

    /// Steps until newer candidates are there, or until the end.
    fn stretch(
        &self,
        trainer: &mut Trainer,
        visits: &Visits<'_>,
        line: &mut Line,
        listener: Listener<'_>,
    ) -> Result<Stretch, Error> {
        let mut saved = Instant::now();
        while trainer.steps() < self.plan.recipe.schedule.steps {
            let mut newer = None;
            while let Ok(said) = line.said.try_recv() {
                match said {
                    Said::Event(event) => listener(event)?,
                    Said::Mined(round) => (newer, line.is_busy) = (Some(round), false),
                    Said::Measured => line.is_busy = false,
                    Said::Failed(error) => return Err(error),
                }
            }
            if self.due(trainer.steps()).is_some_and(|round| !self.checkpoint(round).is_dir()) {
                // A state is never older than a checkpoint: a run that goes on would make another one.
                trainer.save(self.folder)?;
                saved = Instant::now();
                self.write_due_checkpoint(trainer)?;
            }
            let newest = (1..self.plan.rounds).rev().find(|round| self.checkpoint(*round).is_dir());
            if let Some(round) = newest.filter(|round| !line.is_busy && line.given.is_none_or(|given| given < *round)) {
                // A thread that ended has said why.
                line.is_busy = line.rounds.send(round).is_ok();
                line.given = Some(round);
            }
            if let Some(round) = newer {
                return Ok(Stretch::Newer(round));
            }
            let round = (trainer.steps() / self.steps_a_round() + 1).min(self.plan.rounds);
            let report = trainer.step(visits)?;
            listener(Event::Step { round, report })?;
            if saved.elapsed() >= SAVE_EVERY {
                trainer.save(self.folder)?;
                saved = Instant::now();
            }
        }
        Ok(Stretch::End)
    }

    /// The round that ends after so many steps.
    fn due(&self, steps: u64) -> Option<u64> {
        if steps == self.plan.recipe.schedule.steps {
            return Some(self.plan.rounds);
        }
        let round = steps / self.steps_a_round();
        (steps.is_multiple_of(self.steps_a_round()) && (1..self.plan.rounds).contains(&round)).then_some(round)
    }

    fn write_due_checkpoint(&self, trainer: &Trainer) -> Result<(), Error> {
        match self.due(trainer.steps()).map(|round| self.checkpoint(round)) {
            Some(folder) if !folder.is_dir() => trainer.write_checkpoint(&folder),
            _ => Ok(()),
        }
    }
}
