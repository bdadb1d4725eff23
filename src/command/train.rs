//! `anced train`: ANCE rounds, and a generation of what they made.

mod notes;
mod show;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use anyhow::Context as _;
use clap::Args;
use serde_json::json;

use self::show::{Show, among, line};
use super::child::{self, Stop};
use super::{Engine, print};
use crate::ance::{self, Event, Gate, Leave, Outcome, Plan, Run, Texts, Verdict};
use crate::encoder::{EncoderOptions, Overrides};
use crate::generation::{DataFolder, Machine, Manifest, Origin, Standing, build_from};
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
        let settings = self.engine.settings(&[&self.train])?;
        if let Some(job) = &self.job {
            return self.run_for_server(&settings.data, job);
        }
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
        let made = self
            .train(&data, &settings, &folder, plan.clone(), &Stop::default())
            .with_context(|| format!("go on with --resume {job}"))?;
        tidy(&folder, &plan, Leave::Candidates);
        if made.verdict.published {
            data.set_live(made.number)?;
        }
        self.report(&made)
    }

    /// Trains beside the server that holds the data folder. It only reads the store, and leaves it to the server to make
    /// the new generation live.
    fn run_for_server(&self, data: &Path, job: &str) -> anyhow::Result<()> {
        let stop = Stop::when_told()?;
        let folder = data.join("jobs").join(job);
        let settings = child::settings(&folder)?;
        let plan = Plan::from_settings(&settings)?;
        if let Some(done) = notes::done(&folder) {
            // It came to its end before, and only the server did not hear of it.
            tidy(&folder, &plan, Leave::Notes);
            return print(&done);
        }
        let data = DataFolder::open(data)?;
        // Only now: opening the store takes the lock of its writers for a moment, and the server may be waiting for it.
        if let Err(error) = crate::system::lowest_priority() {
            tracing::warn!(%error, "training runs at the priority of the server");
        }
        let made = self.train(&data, &settings, &folder, plan.clone(), &stop)?;
        // Nobody looks after the folders of a server's jobs: they must not fill the disk.
        tidy(&folder, &plan, Leave::Notes);
        self.report(&made)
    }

    fn train(
        &self,
        data: &DataFolder,
        settings: &Settings,
        folder: &Path,
        plan: Plan,
        stop: &Stop,
    ) -> anyhow::Result<Made> {
        let _turn = child::turn(data.path(), stop)?;
        let machine = Machine::new(settings, Arc::new(Metrics::new()?))?;
        let parent = notes::parent(data, folder)?;
        let (source, overrides) = source(data, parent, settings)?;
        let machine = machine.with_overrides(overrides.clone());
        let store = Arc::clone(data.store());
        let beside = machine.beside(settings.inference_threads, settings.inference_device);
        let run = Run::open(&machine, &store, folder, &source, overrides, plan.clone())?;
        let mut run = run.inferring_with(&beside);
        if let Some(parent) = parent {
            run = run.from_generation(&data.generation(parent));
        }
        let mut show = Show::new(self.json);
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
        let gate = Gate { measure: plan.measure, tolerance: settings.tolerance, round: outcome.best_round };
        let verdict = gate.judge(data, number, &machine, &mut |event| show.event(&event))?;
        let made = Made { outcome, number, verdict };
        notes::set_done(folder, &made.json()?)?;
        Ok(made)
    }

    fn report(&self, made: &Made) -> anyhow::Result<()> {
        if self.json {
            return print(&made.json()?);
        }
        let Made { outcome, number, verdict: Verdict { reason, .. } } = made;
        // Beside training a round may be passed over.
        let unmeasured = if outcome.candidates.is_empty() { "no dev queries" } else { "not measured" };
        for (round, means) in outcome.measures.iter().enumerate() {
            let means = means.as_ref().map_or_else(|| unmeasured.into(), line);
            let in_turn = round.checked_sub(1).filter(|_| outcome.candidates.is_empty());
            let overlap = in_turn.and_then(|round| outcome.overlap.get(round)).copied().flatten();
            let overlap = overlap.map_or_else(String::new, |share| format!("  {}", among(share)));
            print(&format!("round {round}: {means}{overlap}"))?;
        }
        for (used, share) in outcome.candidates.iter().zip(&outcome.overlap) {
            let share = share.map_or_else(String::new, |share| format!("  {}", among(share)));
            print(&format!("from step {}: candidates of round {}{share}", used.from_step + 1, used.round))?;
        }
        print(&format!("generation {number} from round {}: {reason}", outcome.best_round))
    }
}

/// Removes what a run that came to its end needs no more. What it made is sound without that.
fn tidy(folder: &Path, plan: &Plan, leave: Leave) {
    if let Err(error) = ance::clean_up(folder, plan, leave) {
        tracing::warn!(%error, "what training needs no more stays on the disk");
    }
}

/// What a run made.
struct Made {
    outcome: Outcome,
    number: u64,
    verdict: Verdict,
}

impl Made {
    fn json(&self) -> anyhow::Result<String> {
        let Self { outcome, number, verdict } = self;
        Ok(serde_json::to_string(&json!({
            "event": "done",
            "generation": number,
            "published": verdict.published,
            "reason": verdict.reason,
            "best_round": outcome.best_round,
            "measures": verdict.new,
            "live": verdict.live,
            "live_measures": verdict.live_measures,
            "rounds": outcome.measures,
            "overlap": outcome.overlap,
            "candidates": outcome.candidates,
        }))?)
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
