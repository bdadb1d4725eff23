//! `anced train`: ANCE rounds, and a generation of what they made.

mod done;
mod notes;
mod show;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use anyhow::Context as _;
use clap::Args;

use self::done::Done;
use self::show::Show;
use super::child::{self, Stop};
use super::{Engine, print};
use crate::ance::{self, Event, Gate, Leave, Outcome, Plan, Run, Texts};
use crate::encoder::{EncoderOptions, Overrides};
use crate::generation::{DataFolder, Machine, Manifest, Origin, Standing, build_from};
use crate::refresh::check_room;
use crate::settings::{Settings, TrainArgs};
use crate::telemetry::Metrics;

/// Train the live generation's encoder on the judgments of the store, and build a generation of the best round. It
/// becomes live if it measures no worse on the dev queries.
#[derive(Debug, Args)]
pub(super) struct Train {
    #[command(flatten)]
    engine: Engine,
    #[command(flatten)]
    train: TrainArgs,
    /// Go on with a run that was cut off, by the name of its folder in `jobs/`.
    #[arg(long, value_name = "JOB")]
    resume: Option<String>,
    /// Run the job that a server prepared, beside it.
    #[arg(long, value_name = "JOB", hide = true, conflicts_with = "resume")]
    job: Option<String>,
    /// Print what happens as JSON lines.
    #[arg(long)]
    json: bool,
}

impl Train {
    pub(super) fn run(self) -> anyhow::Result<()> {
        if let Some(job) = &self.job {
            // The server has put the settings together, those of its own file among them.
            return self.run_for_server(&self.engine.general.flags()?.data, job);
        }
        let settings = self.engine.settings(&[&self.train])?;
        // Settings that cannot be are told before anything is opened.
        let plan = Plan::from_settings(&settings)?;
        let (data, _lock) = DataFolder::open_locked(&settings.data)?;
        let job = self.resume.clone().unwrap_or_else(|| uuid::Uuid::now_v7().to_string());
        let folder = data.path().join("jobs").join(&job);
        // A name is one folder's, never a way to another place.
        let is_name = Path::new(&job).file_name() == Some(std::ffi::OsStr::new(&job));
        if self.resume.is_some() && !(is_name && folder.is_dir()) {
            anyhow::bail!("{}: no such run; `anced train` without --resume starts one", folder.display());
        }
        let done = self
            .train(&data, &settings, &folder, &plan, &Stop::default())
            .with_context(|| format!("go on with --resume {job}"))?;
        // Before what it needs to go on is removed: cut off in between, it is made live by the next try.
        if done.published {
            data.set_live(done.generation)?;
        }
        tidy(&folder, &plan, Leave::Candidates);
        self.report(&done)
    }

    /// Trains beside the server that holds the data folder. It only reads the store, and leaves it to the server to make
    /// the new generation live.
    fn run_for_server(&self, data: &Path, job: &str) -> anyhow::Result<()> {
        let stop = Stop::when_told()?;
        let folder = data.join("jobs").join(job);
        let settings = child::settings(&folder)?;
        let plan = Plan::from_settings(&settings)?;
        let data = DataFolder::open(data)?;
        // Only now: opening the store takes the lock of its writers for a moment, and the server may be waiting for it.
        if let Err(error) = crate::system::lowest_priority() {
            tracing::warn!(%error, "training runs at the priority of the server");
        }
        let done = self.train(&data, &settings, &folder, &plan, &stop)?;
        // Nobody looks after the folders of a server's jobs: they must not fill the disk.
        tidy(&folder, &plan, Leave::Notes);
        self.report(&done)
    }

    /// Trains to the end. Of a run that came there before, and was not heard of, only the gate's verdict may have to be
    /// given again: it is about the generation that was live then.
    fn train(
        &self,
        data: &DataFolder,
        settings: &Settings,
        folder: &Path,
        plan: &Plan,
        stop: &Stop,
    ) -> anyhow::Result<Done> {
        let _turn = child::turn(data.path(), stop)?;
        let machine = Machine::new(settings, Arc::new(Metrics::new()?))?;
        let mut show = Show::new(self.json, plan.recipe.schedule.steps);
        let gate = |round| Gate { measure: plan.measure, tolerance: settings.tolerance, round };
        if let Some(done) = notes::done(folder)? {
            if done.holds(data.live()?) {
                return Ok(done);
            }
            let gate = gate(done.best_round);
            let verdict = gate.judge(data, done.generation, &machine, &mut |event| show.event(&event))?;
            let done = done.judged(verdict);
            notes::set_done(folder, &done)?;
            return Ok(done);
        }
        let parent = notes::parent(data, folder)?;
        if let Some(parent) = parent
            && self.job.is_none()
        {
            // The server has looked for its jobs.
            check_room(data, parent, plan, folder)?;
        }
        let (source, overrides) = source(data, parent, settings)?;
        let machine = machine.with_overrides(overrides.clone());
        let store = Arc::clone(data.store());
        let beside = machine.beside(settings.inference_threads, settings.inference_device);
        let run = Run::open(&machine, &store, folder, &source, overrides, plan.clone())?;
        let mut run = run.inferring_with(&beside);
        if let Some(parent) = parent {
            run = run.from_generation(&data.generation(parent));
        }
        let outcome = run.train(&mut |event| {
            stop.heed(&event);
            show.event(&event)?;
            stop.check()
        })?;
        let known = run.vectors(outcome.best_round);
        let standing = Standing::Candidate;
        let origin = Origin { checkpoint: &outcome.checkpoint, parent, known: known.as_ref(), standing };
        let number = build_best(data, folder, &outcome, &origin, &machine, &mut show)?;
        stop.check()?;
        let gate = gate(outcome.best_round);
        let verdict = gate.judge(data, number, &machine, &mut |event| show.event(&event))?;
        let done = Done::new(outcome, number, verdict);
        notes::set_done(folder, &done)?;
        Ok(done)
    }

    fn report(&self, done: &Done) -> anyhow::Result<()> {
        if self.json { print(&done.json()?) } else { done.print() }
    }
}

/// Removes what a run that came to its end needs no more. What it made is sound without that.
fn tidy(folder: &Path, plan: &Plan, leave: Leave) {
    if let Err(error) = ance::clean_up(folder, plan, leave) {
        tracing::warn!(%error, "what training needs no more stays on the disk");
    }
}

/// The checkpoint that training starts from, and what is set over it.
fn source(data: &DataFolder, live: Option<u64>, settings: &Settings) -> anyhow::Result<(PathBuf, Overrides)> {
    match live {
        Some(number) => {
            let folder = data.generation(number);
            Ok((folder.join("checkpoint"), Manifest::read(&folder)?.encoder.overrides()))
        }
        None => Ok((settings.model.clone(), EncoderOptions::from(settings).overrides)),
    }
}

/// Builds the generation of the best round, or finds the one that the run had built when it was cut off.
fn build_best(
    data: &DataFolder,
    folder: &Path,
    outcome: &Outcome,
    origin: &Origin<'_>,
    machine: &Machine,
    show: &mut Show,
) -> anyhow::Result<u64> {
    if let Some(number) = notes::generation(folder)?
        && Manifest::read(&data.generation(number))
            .and_then(|manifest| manifest.verify(&data.generation(number)))
            .is_ok()
    {
        return Ok(number);
    }
    let (started, round) = (Instant::now(), outcome.best_round);
    let mut texts = Texts { encoded: 0, reused: 0 };
    let number = build_from(data, origin, machine, &mut |progress| {
        texts = Texts { encoded: progress.done - progress.reused, reused: progress.reused };
        // Showing how far it is cannot keep it from being built.
        let (done, total) = (progress.done, progress.total);
        let _ = show.event(&Event::Phase { round, phase: "build", done, total, beside: false });
    })?;
    notes::set_generation(folder, number)?;
    show.event(&Event::Took { round, phase: "build", seconds: started.elapsed().as_secs_f64(), texts: Some(texts) })?;
    Ok(number)
}
