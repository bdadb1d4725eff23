//! `anced train`: ANCE rounds, and a generation of what they made.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use anyhow::Context as _;
use clap::Args;
use serde_json::json;

use super::child::{self, Stop};
use super::progress::{Progress, Unit};
use super::{General, print};
use crate::ance::{Event, Means, Outcome, Plan, Run, Texts, Used};
use crate::corpus::Split;
use crate::encoder::{EncoderOptions, Overrides};
use crate::evaluation::{self, judged_split, measure};
use crate::generation::{DataFolder, Machine, Manifest, Origin, Retriever, Standing, build_from, replace_file};
use crate::settings::{EncoderArgs, IndexArgs, Settings, TrainArgs};
use crate::telemetry::Metrics;

/// Hits a query that are measured.
const DEPTH: usize = 1000;

/// What a run that came to its end says, in its folder.
const DONE_FILE: &str = "done.json";

/// Train the live generation's encoder on the judgments of the store, and build a generation of the best round. It
/// becomes live if it measures no worse on the dev queries.
#[derive(Debug, Args)]
pub(super) struct Train {
    #[command(flatten)]
    general: General,
    #[command(flatten)]
    encoder: EncoderArgs,
    #[command(flatten)]
    index: IndexArgs,
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
        let settings = self.general.settings(&[&self.encoder, &self.index, &self.train])?;
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
            .train(&data, &settings, &folder, plan, &Stop::default())
            .with_context(|| format!("go on with --resume {job}"))?;
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
        if let Ok(done) = std::fs::read_to_string(folder.join(DONE_FILE)) {
            // It came to its end before, and only the server did not hear of it.
            return print(done.trim());
        }
        let settings = child::settings(&folder)?;
        let data = DataFolder::open(data)?;
        // Only now: opening the store takes the lock of its writers for a moment, and the server may be waiting for it.
        if let Err(error) = crate::system::lowest_priority() {
            tracing::warn!(%error, "training runs at the priority of the server");
        }
        let made = self.train(&data, &settings, &folder, Plan::from_settings(&settings)?, &stop)?;
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
        let parent = parent(data, folder)?;
        let (source, overrides) = source(data, parent, settings)?;
        let machine = machine.with_overrides(overrides.clone());
        let store = Arc::clone(data.store());
        let beside = machine.beside(settings.inference_threads, settings.inference_device);
        let run = Run::open(&machine, &store, folder, &source, overrides, plan.clone())?;
        let mut run = run.inferring_with(&beside);
        if let Some(parent) = parent {
            run = run.from_generation(&data.generation(parent));
        }
        let mut show = Show { json: self.json, bar: None };
        let outcome = run.train(&mut |event| {
            stop.heed(&event);
            show.event(&event)?;
            stop.check()
        })?;
        let known = run.vectors(outcome.best_round);
        let origin = Origin { checkpoint: &outcome.checkpoint, parent, known: known.as_ref() };
        let number = build_best(data, folder, &outcome, &origin, &machine, &mut show)?;
        stop.check()?;
        let verdict = verdict(data, number, &machine, &plan, settings.tolerance, outcome.best_round, &mut show)?;
        let made = Made { outcome, number, verdict };
        write_text(&folder.join(DONE_FILE), &made.json()?)?;
        run.clean_up()?;
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

/// Whether a generation takes over.
struct Verdict {
    published: bool,
    reason: String,
    new: Option<Means>,
    /// The generation that it was compared with.
    live: Option<u64>,
    live_measures: Option<Means>,
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

/// The generation that a run starts from: the live one, and for a run that goes on the one that was live then.
fn parent(data: &DataFolder, folder: &Path) -> anyhow::Result<Option<u64>> {
    let file = folder.join("parent");
    match read_number(&file)? {
        Some(0) => Ok(None),
        Some(number) => Ok(Some(number)),
        None => {
            let live = data.live()?;
            std::fs::create_dir_all(folder).with_context(|| folder.display().to_string())?;
            write_text(&file, &live.unwrap_or(0).to_string())?;
            Ok(live)
        }
    }
}

fn read_number(file: &Path) -> anyhow::Result<Option<u64>> {
    match std::fs::read_to_string(file) {
        Ok(text) => text.trim().parse().map(Some).with_context(|| file.display().to_string()),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error).with_context(|| file.display().to_string()),
    }
}

fn write_text(file: &Path, text: &str) -> anyhow::Result<()> {
    Ok(replace_file(file, format!("{text}\n").as_bytes())?)
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
    let file = folder.join("generation");
    if let Some(number) = read_number(&file)?
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
    write_text(&file, &number.to_string())?;
    show.event(&Event::Took { round, phase: "build", seconds: started.elapsed().as_secs_f64(), texts: Some(texts) })?;
    Ok(number)
}

/// Compares the new generation with the live one on the dev queries, by exact search as both will serve.
fn verdict(
    data: &DataFolder,
    number: u64,
    machine: &Machine,
    plan: &Plan,
    tolerance: f64,
    round: u64,
    show: &mut Show,
) -> anyhow::Result<Verdict> {
    let store = data.store();
    let live = data.live()?;
    let split = match judged_split(store, Split::Dev) {
        Err(evaluation::Error::NoJudgments(_)) => {
            let reason = "published unmeasured: the store has no dev judgments".into();
            return Ok(Verdict { published: true, reason, new: None, live, live_measures: None });
        }
        judged => judged?,
    };
    let started = Instant::now();
    let total = split.queries.len() as u64;
    show.event(&Event::Phase { round, phase: "gate", done: 0, total, beside: false })?;
    let means = |number: u64| -> anyhow::Result<Means> {
        // Both with every document that is there now, whenever their files were written.
        let retriever = Retriever::new(data.clone(), machine);
        retriever.load_number(number, machine, &mut |_| {})?;
        let generation = retriever.live()?;
        let rankings = evaluation::rankings(&generation, store, &split.queries, DEPTH, None)?;
        Ok(measure(&rankings, &split).means().collect())
    };
    let new = means(number)?;
    let value = |means: &Means| means.get(&plan.measure).copied().unwrap_or(0.0);
    let old = live.map(means).transpose()?;
    let published = old.as_ref().is_none_or(|old| value(&new) >= value(old) - tolerance);
    let folder = data.generation(number);
    let mut manifest = Manifest::read(&folder)?;
    manifest.measures = new.iter().map(|(measure, value)| (measure.to_string(), *value)).collect();
    manifest.status = if published { Standing::Ready } else { Standing::Rejected };
    manifest.write(&folder)?;
    show.event(&Event::Took { round, phase: "gate", seconds: started.elapsed().as_secs_f64(), texts: None })?;
    let told = format!("{} {:.4}", plan.measure, value(&new));
    let reason = match (live, &old) {
        (Some(live), Some(old)) => {
            let word = if published { "published" } else { "rejected: kept, but not made live" };
            format!("{word}: {told}, generation {live} has {:.4}", value(old))
        }
        _ => format!("published: {told}, no generation was live"),
    };
    Ok(Verdict { published, reason, new: Some(new), live, live_measures: old })
}

/// What is shown of a run: JSON lines, or a bar and a line for each measure.
struct Show {
    json: bool,
    bar: Option<(&'static str, Progress)>,
}

impl Show {
    fn event(&mut self, event: &Event) -> Result<(), crate::ance::Error> {
        if self.json {
            let text = serde_json::to_string(event).map_err(|error| crate::ance::Error::Data(error.to_string()))?;
            // A reader that has gone does not stop the run.
            let _ = print(&text);
            return Ok(());
        }
        match event {
            Event::Phase { beside: true, .. } => {}
            Event::Phase { round, phase, done, total, .. } => self.progress(*round, phase, *done, *total, ""),
            Event::Step { round, report } => {
                let message = format!("loss {:.4}", report.loss);
                self.progress(*round, "train", report.step, report.step, &message);
            }
            Event::Candidates(Used { round, from_step }) => {
                self.finish();
                eprintln!("from step {} on: candidates of round {round}'s checkpoint", from_step + 1);
            }
            Event::Measures { round, measures } => {
                self.finish();
                eprintln!("round {round}: {}", line(measures));
            }
            Event::Data { documents, train, dev } => {
                eprintln!("{documents} documents, {train} train queries, {dev} dev queries");
            }
            Event::Took { round, phase, seconds, texts } => {
                self.finish();
                let texts = texts.map_or_else(String::new, |Texts { encoded, reused }| {
                    format!(", {encoded} texts encoded, {reused} known")
                });
                eprintln!("round {round}: {phase} took {seconds:.1} s{texts}");
            }
        }
        Ok(())
    }

    fn progress(&mut self, round: u64, phase: &'static str, done: u64, total: u64, message: &str) {
        if self.bar.as_ref().is_none_or(|(shown, _)| *shown != phase) {
            self.finish();
            let unit = if phase == "train" { Unit::Steps } else { Unit::Texts };
            self.bar = Some((phase, Progress::new(phase, unit)));
        }
        if let Some((_, bar)) = &mut self.bar {
            bar.set(done, Some(total), &format!("round {round} {message}"));
        }
    }

    fn finish(&mut self) {
        if let Some((_, bar)) = self.bar.take() {
            bar.finish();
        }
    }
}

fn among(share: f64) -> String {
    format!("{:.1} % of its negatives among the last model's 100 best", share * 100.0)
}

fn line(means: &Means) -> String {
    means.iter().map(|(measure, value)| format!("{measure} {value:.4}")).collect::<Vec<_>>().join("  ")
}
