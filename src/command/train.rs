//! `anced train`: ANCE rounds, and a generation of what they made.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Context as _;
use clap::Args;
use serde_json::json;

use super::progress::{Progress, Unit};
use super::{General, print};
use crate::ance::{Event, Means, Outcome, Plan, Run};
use crate::corpus::Split;
use crate::encoder::Overrides;
use crate::evaluation::{self, judged_split, measure};
use crate::generation::{DataFolder, Generation, Machine, Manifest, Standing, build};
use crate::settings::{EncoderArgs, IndexArgs, Settings, TrainArgs};
use crate::telemetry::Metrics;

/// Hits a query that are measured.
const DEPTH: usize = 1000;

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
    /// Print what happens as JSON lines.
    #[arg(long)]
    json: bool,
}

impl Train {
    pub(super) fn run(self) -> anyhow::Result<()> {
        let settings = self.general.settings(&[&self.encoder, &self.index, &self.train])?;
        let plan = Plan::from_settings(&settings)?;
        let (data, _lock) = DataFolder::open_locked(&settings.data)?;
        let machine = Machine::new(&settings, Arc::new(Metrics::new()?))?;
        let parent = data.live()?;
        let (source, overrides) = source(&data, parent, &settings)?;
        let machine = machine.with_overrides(overrides.clone());
        let job = self.resume.clone().unwrap_or_else(|| uuid::Uuid::now_v7().to_string());
        let folder = data.path().join("jobs").join(&job);
        if self.resume.is_some() && !folder.is_dir() {
            anyhow::bail!("{}: no such run; `anced train` without --resume starts one", folder.display());
        }
        let store = Arc::clone(data.store());
        let run = Run::open(&machine, &store, &folder, &source, overrides, plan.clone())?;
        let mut show = Show { json: self.json, bar: None };
        let outcome =
            run.train(&mut |event| show.event(&event)).with_context(|| format!("go on with --resume {job}"))?;
        let number = build_best(&data, &outcome, parent, &machine)?;
        let verdict = verdict(&data, number, parent, &machine, &plan, settings.tolerance)?;
        if verdict.published {
            data.set_live(number)?;
        }
        // What is left is what a later look needs: the plan, the measures and the candidates.
        for round in 1..=plan.rounds {
            remove_folder(&folder.join(format!("round-{round}")))?;
        }
        self.report(&outcome, number, &verdict)
    }

    fn report(&self, outcome: &Outcome, number: u64, verdict: &Verdict) -> anyhow::Result<()> {
        let Verdict { published, reason, new, live } = verdict;
        if self.json {
            return print(&serde_json::to_string(&json!({
                "event": "done",
                "generation": number,
                "published": published,
                "reason": reason,
                "best_round": outcome.best_round,
                "measures": new,
                "live_measures": live,
                "rounds": outcome.measures,
                "overlap": outcome.overlap,
            }))?);
        }
        for (round, means) in outcome.measures.iter().enumerate() {
            let means = means.as_ref().map_or_else(|| "no dev queries".into(), line);
            let overlap = round.checked_sub(1).and_then(|round| outcome.overlap.get(round)).copied().flatten();
            let overlap = overlap.map_or_else(String::new, |share| {
                format!("  {:.1} % of its negatives among the last model's 100 best", share * 100.0)
            });
            print(&format!("round {round}: {means}{overlap}"))?;
        }
        print(&format!("generation {number} from round {}: {reason}", outcome.best_round))
    }
}

/// Whether a generation takes over.
struct Verdict {
    published: bool,
    reason: String,
    new: Option<Means>,
    live: Option<Means>,
}

/// The checkpoint that training starts from, and what is set over it.
fn source(data: &DataFolder, live: Option<u64>, settings: &Settings) -> anyhow::Result<(PathBuf, Overrides)> {
    match live {
        Some(number) => {
            let folder = data.generation(number);
            Ok((folder.join("checkpoint"), Manifest::read(&folder)?.encoder.overrides()))
        }
        None => {
            let overrides = Overrides {
                pooling: settings.pooling,
                similarity: settings.similarity,
                max_seq_length: settings.max_seq_length,
                separator: settings.separator.clone(),
            };
            Ok((settings.model.clone(), overrides))
        }
    }
}

fn build_best(data: &DataFolder, outcome: &Outcome, parent: Option<u64>, machine: &Machine) -> anyhow::Result<u64> {
    let mut bar = Progress::new("encoding", Unit::Documents);
    let built = build(data, &outcome.checkpoint, parent, machine, &mut |progress| {
        bar.set(progress.done, Some(progress.total), "");
    });
    bar.finish();
    Ok(built?)
}

/// Compares the new generation with the live one on the dev queries, by exact search as both will serve.
fn verdict(
    data: &DataFolder,
    number: u64,
    live: Option<u64>,
    machine: &Machine,
    plan: &Plan,
    tolerance: f64,
) -> anyhow::Result<Verdict> {
    let store = data.store();
    let Ok(split) = judged_split(store, Split::Dev) else {
        let reason = "published unmeasured: the store has no dev judgments".into();
        return Ok(Verdict { published: true, reason, new: None, live: None });
    };
    let means = |number: u64| -> anyhow::Result<Means> {
        let generation = Generation::open(data, number, machine)?;
        let rankings = evaluation::rankings(&generation, store, &split.queries, DEPTH, None)?;
        Ok(measure(&rankings, &split).means().collect())
    };
    let new = means(number)?;
    let folder = data.generation(number);
    let mut manifest = Manifest::read(&folder)?;
    manifest.measures = new.iter().map(|(measure, value)| (measure.to_string(), *value)).collect();
    manifest.write(&folder)?;
    let value = |means: &Means| means.get(&plan.measure).copied().unwrap_or(0.0);
    let Some(live) = live else {
        let reason = format!("published: {} {:.4}, no generation was live", plan.measure, value(&new));
        return Ok(Verdict { published: true, reason, new: Some(new), live: None });
    };
    let old = means(live)?;
    let published = value(&new) >= value(&old) - tolerance;
    if !published {
        manifest.status = Standing::Rejected;
        manifest.write(&folder)?;
    }
    let word = if published { "published" } else { "kept, but not made live" };
    let reason = format!("{word}: {} {:.4}, generation {live} has {:.4}", plan.measure, value(&new), value(&old));
    Ok(Verdict { published, reason, new: Some(new), live: Some(old) })
}

fn remove_folder(folder: &Path) -> anyhow::Result<()> {
    match std::fs::remove_dir_all(folder) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| folder.display().to_string())
        }
        _ => Ok(()),
    }
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
            Event::Phase { round, phase, done, total } => self.progress(*round, phase, *done, *total, ""),
            Event::Step { round, report } => {
                let message = format!("loss {:.4}", report.loss);
                self.progress(*round, "train", report.step, report.step, &message);
            }
            Event::Measures { round, measures } => {
                self.finish();
                eprintln!("round {round}: {}", line(measures));
            }
            Event::Data { documents, train, dev } => {
                eprintln!("{documents} documents, {train} train queries, {dev} dev queries");
            }
            Event::Took { round, phase, seconds } => {
                self.finish();
                eprintln!("round {round}: {phase} took {seconds:.1} s");
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

fn line(means: &Means) -> String {
    means.iter().map(|(measure, value)| format!("{measure} {value:.4}")).collect::<Vec<_>>().join("  ")
}
