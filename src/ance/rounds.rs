//! ANCE rounds: mine negatives with the current checkpoint, train on them, measure.
//!
//! The Trainer and the Inferencer take turns, or run side by side (`overlap`). The Trainer's weights, moments and
//! schedule go through all rounds; the Inferencer reads the checkpoint that the Trainer writes at the end of each.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde::Serialize;

use super::answers::drop_answers;
use super::data::TrainingData;
use super::files::replace;
use super::inference::{Hit, Vectors};
use super::negatives::{Candidates, bm25_hits};
use super::reuse::known_vector;
use super::usage::Usage;
use super::visits::Visits;
use super::{Error, Event, Listener, Means, Plan, STATE_FILE, Texts, Trainer, Used};
use crate::corpus::Store;
use crate::encoder::Overrides;
use crate::generation::{Machine, replace_file};
use crate::onnx::Placement;
use crate::settings::Negatives;

/// After so long the state is written, so that a killed run loses little.
pub(super) const SAVE_EVERY: Duration = Duration::from_secs(60);
/// What a run is made of, in its folder.
const PLAN_FILE: &str = "plan.json";
/// What it learns from, as it was when the run began.
pub(super) const DATA_FILE: &str = "data.json";

/// What came of a run.
#[derive(Debug, Clone, Serialize)]
pub struct Outcome {
    /// The best checkpoint.
    #[serde(skip)]
    pub checkpoint: PathBuf,
    /// The round that made it.
    pub best_round: u64,
    /// The dev measures after each round, the first before any; none without dev queries.
    pub measures: Vec<Option<Means>>,
    /// The share of each round's training negatives among the 100 best documents of their query by the last
    /// checkpoint; none where there were no negatives.
    pub overlap: Vec<Option<f64>>,
    /// Where mining did not wait for training: which candidates were used from which step on, one for each share of
    /// `overlap`.
    pub candidates: Vec<Used>,
}

/// A run of rounds in a folder of its own, which it can go on from.
#[derive(Debug)]
pub struct Run<'a> {
    pub(super) machine: &'a Machine,
    /// What encodes beside the Trainer.
    inference: Option<&'a Machine>,
    store: &'a Store,
    pub(super) folder: &'a Path,
    source: &'a Path,
    /// The generation whose checkpoint `source` is.
    pub(super) generation: Option<PathBuf>,
    pub(super) overrides: Overrides,
    pub(super) plan: Plan,
}

/// The checkpoint that `round` rounds made, from 1.
pub(super) fn checkpoint_folder(folder: &Path, round: u64) -> PathBuf {
    folder.join(format!("round-{round}"))
}

/// What is mined for a round, from 0.
pub(super) fn candidates_file(folder: &Path, round: u64) -> PathBuf {
    folder.join(format!("candidates-{}.safetensors", round + 1))
}

impl<'a> Run<'a> {
    /// A run of `plan` from the checkpoint folder `source`, in `folder`. A run that is there already is gone on with.
    ///
    /// # Errors
    /// A plan that cannot be, or that is not the one of the run that is there.
    pub fn open(
        machine: &'a Machine,
        store: &'a Store,
        folder: &'a Path,
        source: &'a Path,
        overrides: Overrides,
        mut plan: Plan,
    ) -> Result<Self, Error> {
        plan.recipe.loss.chunks = overrides.chunks.is_some_and(|chunks| chunks > 1);
        plan.check()?;
        let file = folder.join(PLAN_FILE);
        let state = |reason: String| Error::State { file: file.clone(), reason };
        match std::fs::read(&file) {
            Ok(text) => {
                let found: Plan = serde_json::from_slice(&text).map_err(|error| state(error.to_string()))?;
                if found != plan {
                    return Err(state("the run that is there has another plan".into()));
                }
            }
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                std::fs::create_dir_all(folder).map_err(Error::io(folder))?;
                let text = serde_json::to_vec_pretty(&plan).map_err(|error| state(error.to_string()))?;
                replace_file(&file, &text)?;
            }
            Err(error) => return Err(Error::io(&file)(error)),
        }
        Ok(Self { machine, inference: None, store, folder, source, generation: None, overrides, plan })
    }

    /// With a machine of its own for the Inferencer, where it runs beside the Trainer.
    #[must_use]
    pub fn inferring_with(mut self, machine: &'a Machine) -> Self {
        self.inference = Some(machine);
        self
    }

    /// The same run on the Inferencer's machine.
    pub(super) fn inferencer(&self) -> Self {
        Self {
            machine: self.inference.unwrap_or(self.machine),
            inference: None,
            generation: self.generation.clone(),
            overrides: self.overrides.clone(),
            plan: self.plan.clone(),
            ..*self
        }
    }

    /// Trains to the end of the last round.
    ///
    /// # Errors
    /// Whatever fails, or the listener says; the state is kept and [`open`](Self::open) goes on from it.
    pub fn train(&self, listener: Listener<'_>) -> Result<Outcome, Error> {
        let placement = self.machine.runtime.place(self.machine.encoder.device)?;
        let has_state = self.folder.join(STATE_FILE).is_file();
        let mut trainer = Trainer::open(
            &self.machine.runtime,
            placement,
            self.source,
            &self.overrides,
            self.plan.recipe.clone(),
            has_state.then_some(self.folder),
        )?;
        let file = self.folder.join(DATA_FILE);
        let data = TrainingData::kept(&file, self.store, trainer.checkpoint(), self.plan.lengths, listener)?;
        let (documents, train, dev) = data.counts();
        listener(Event::Data { documents, train, dev })?;

        if self.plan.overlap {
            return self.train_side_by_side(&mut trainer, &data, listener);
        }

        let steps = self.steps_a_round();
        let mut measures = Vec::new();
        let mut last = None;
        for round in 0..self.plan.rounds {
            let file = self.candidates_file(round);
            let is_mined = file.is_file() && trainer.steps() > round * steps;
            if !is_mined {
                let vectors = self.encode(round, placement, &data, listener)?;
                measures.push(self.measure(round, &vectors, &data, listener)?);
                self.keep_best(&vectors, &data, &measures)?;
                self.mine(round, &vectors, &data, listener)?;
            } else {
                measures.push(self.recorded(round)?);
            }
            let candidates = Candidates::read(&file, train, documents)?;
            self.train_round(round, &mut trainer, &data, &candidates, listener)?;
            let checkpoint = self.checkpoint(round + 1);
            if !checkpoint.is_dir() {
                trainer.write_checkpoint(&checkpoint)?;
            }
            if round + 1 == self.plan.rounds {
                let vectors = self.encode(round + 1, placement, &data, listener)?;
                measures.push(self.measure(round + 1, &vectors, &data, listener)?);
                self.keep_best(&vectors, &data, &measures)?;
                last = Some(vectors);
            }
        }
        let overlap = match &last {
            Some(vectors) => self.shares(&Usage::in_turn(self.plan.rounds, steps), vectors, &data, listener)?,
            None => Vec::new(),
        };
        let best_round = self.best_round(&measures);
        let candidates = Vec::new();
        Ok(Outcome { checkpoint: self.checkpoint(best_round), best_round, measures, overlap, candidates })
    }

    /// The best of the rounds that `measures` has, from the first on; 0 where it has none.
    pub(super) fn best_round(&self, measures: &[Option<Means>]) -> u64 {
        let value = |round: &u64| {
            let report: Option<&Means> = measures.get(*round as usize).and_then(Option::as_ref);
            report.and_then(|means| means.get(&self.plan.measure).copied()).unwrap_or(f64::NEG_INFINITY)
        };
        // Without dev queries all are equal, and the last one wins.
        (1..measures.len() as u64).max_by(|a, b| value(a).total_cmp(&value(b))).unwrap_or(0)
    }

    /// The checkpoint that `round` rounds made.
    pub(super) fn checkpoint(&self, round: u64) -> PathBuf {
        if round == 0 { self.source.to_path_buf() } else { checkpoint_folder(self.folder, round) }
    }

    pub(super) fn candidates_file(&self, round: u64) -> PathBuf {
        candidates_file(self.folder, round)
    }

    pub(super) fn encode(
        &self,
        round: u64,
        placement: Placement,
        data: &TrainingData,
        listener: Listener<'_>,
    ) -> Result<Vectors, Error> {
        let started = Instant::now();
        // Texts are cut already; the encoder must only not cut them shorter.
        let overrides = Overrides { max_seq_length: None, ..self.overrides.clone() };
        let encoder = self.machine.encoder(&self.checkpoint(round), overrides)?;
        debug_assert_eq!(encoder.placement(), placement, "one device for both");
        let saved = self.known(round);
        let known = |number| known_vector(saved.as_ref(), &encoder, data, number);
        let vectors = Vectors::encode(&encoder, data, &known, &mut |done, total| {
            listener(Event::Phase { round, phase: "encode", done: done as u64, total: total as u64, beside: false })
        })?;
        let texts = Texts { encoded: vectors.encoded() as u64, reused: vectors.reused() as u64 };
        listener(Event::Took { round, phase: "encode", seconds: started.elapsed().as_secs_f64(), texts: Some(texts) })?;
        Ok(vectors)
    }

    /// The dev measures of a checkpoint, recorded for a run that goes on later; none without dev queries.
    pub(super) fn measure(
        &self,
        round: u64,
        vectors: &Vectors,
        data: &TrainingData,
        listener: Listener<'_>,
    ) -> Result<Option<Means>, Error> {
        if data.dev.is_empty() {
            return Ok(None);
        }
        let means: Means = vectors.measure_dev(&self.machine.runtime, data, listener)?.means().collect();
        let file = self.measures_file(round);
        let text = serde_json::to_vec(&means).map_err(|error| Error::io(&file)(error.into()))?;
        replace_file(&file, &text)?;
        listener(Event::Measures { round, measures: means.clone() })?;
        Ok(Some(means))
    }

    pub(super) fn mine(
        &self,
        round: u64,
        vectors: &Vectors,
        data: &TrainingData,
        listener: Listener<'_>,
    ) -> Result<(), Error> {
        let (started, mining) = (Instant::now(), &self.plan.mining);
        let file = self.candidates_file(round);
        if self.plan.mine_once && round > 0 {
            let first = self.candidates_file(0);
            // Never half of it: a run that goes on takes what is there for what was mined.
            return replace(&file, |place| std::fs::copy(&first, place).map(drop).map_err(Error::io(&file)));
        }
        let total = data.train.len() as u64;
        let mut mined = |done: usize| {
            listener(Event::Phase { round: round + 1, phase: "mine", done: done as u64, total, beside: false })
        };
        mined(0)?;
        let depth = Candidates::ranking_depth(data, mining);
        let mut hits: Vec<Vec<Hit>> = match mining.negatives {
            Negatives::Ance => {
                let mut hits = vectors.nearest_to_train(&self.machine.runtime, depth, &mut mined)?;
                vectors.add_positives(&mut hits, data);
                hits
            }
            Negatives::Bm25 | Negatives::Bm25Random => self.bm25(data, depth, &mut mined)?,
            Negatives::Random | Negatives::None => vec![Vec::new(); data.train.len()],
        };
        let dropped = drop_answers(self.store, data, &mut hits)?;
        if dropped > 0 {
            tracing::info!(round = round + 1, dropped, "candidates that contain an answer are no negatives");
        }
        Candidates::from_hits(&hits, data, mining, self.plan.recipe.seed, round).write(&file)?;
        listener(Event::Took { round: round + 1, phase: "mine", seconds: started.elapsed().as_secs_f64(), texts: None })
    }

    fn bm25(
        &self,
        data: &TrainingData,
        depth: usize,
        mined: &mut dyn FnMut(usize) -> Result<(), Error>,
    ) -> Result<Vec<Vec<Hit>>, Error> {
        let mut all = Vec::with_capacity(data.names.len());
        let (view, mut after) = (self.store.view()?, 0);
        loop {
            let page = view.current(after, 4096)?;
            let Some(last) = page.last() else { break };
            after = last.sequence;
            all.extend(page.into_iter().map(|stored| {
                let document = stored.document;
                (document.id, format!("{} {}", document.title, document.text))
            }));
        }
        bm25_hits(all.into_iter(), data, depth, mined)
    }

    fn train_round(
        &self,
        round: u64,
        trainer: &mut Trainer,
        data: &TrainingData,
        candidates: &Candidates,
        listener: Listener<'_>,
    ) -> Result<(), Error> {
        let (started, steps) = (Instant::now(), self.steps_a_round());
        let visits = Visits::new(data, candidates, &self.plan.mining, round, self.visits(round * steps));
        let all = self.plan.recipe.schedule.steps;
        let end = if round + 1 == self.plan.rounds { all } else { (round + 1) * steps };
        let (mut saved, mut unsaved) = (Instant::now(), false);
        while trainer.steps() < end {
            let report = trainer.step(&visits)?;
            unsaved = true;
            if let Err(stopped) = listener(Event::Step { round: round + 1, report }) {
                trainer.save(self.folder)?;
                return Err(stopped);
            }
            if saved.elapsed() >= SAVE_EVERY {
                trainer.save(self.folder)?;
                (saved, unsaved) = (Instant::now(), false);
            }
        }
        if unsaved {
            trainer.save(self.folder)?;
        }
        listener(Event::Took {
            round: round + 1,
            phase: "train",
            seconds: started.elapsed().as_secs_f64(),
            texts: None,
        })
    }

    /// The dev measures of a round that was measured before the run was cut off.
    pub(super) fn recorded(&self, round: u64) -> Result<Option<Means>, Error> {
        let file = self.measures_file(round);
        match std::fs::read(&file) {
            Ok(text) => {
                let refuse = |error: serde_json::Error| Error::State { file, reason: error.to_string() };
                serde_json::from_slice(&text).map(Some).map_err(refuse)
            }
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(Error::io(&file)(error)),
        }
    }

    fn measures_file(&self, round: u64) -> PathBuf {
        self.folder.join(format!("measures-{round}.json"))
    }
}
