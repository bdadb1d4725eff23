//! What is shown of a run: JSON lines, or a bar and a line for each measure.

use super::super::print;
use super::super::progress::{Progress, Unit};
use crate::ance::{Event, Means, Texts, Used};

/// Shows events as they come.
pub(super) struct Show {
    json: bool,
    /// Of all rounds.
    steps: u64,
    bar: Option<(&'static str, Progress)>,
}

impl Show {
    pub(super) fn new(json: bool, steps: u64) -> Self {
        Self { json, steps, bar: None }
    }

    pub(super) fn event(&mut self, event: &Event) -> Result<(), crate::ance::Error> {
        if self.json {
            let text = serde_json::to_string(event).map_err(|error| crate::ance::Error::Data(error.to_string()))?;
            // A reader that has gone does not stop the run.
            let _ = print(&text);
            return Ok(());
        }
        match event {
            Event::Alive | Event::Phase { beside: true, .. } => {}
            Event::Phase { round, phase, done, total, .. } => self.progress(*round, phase, *done, *total, ""),
            Event::Step { round, report } => {
                let message = format!("loss {:.4}", report.loss);
                self.progress(*round, "train", report.step, self.steps, &message);
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

/// A share of negatives in words.
pub(super) fn among(share: f64) -> String {
    format!("{:.1} % of its negatives among the last model's 100 best", share * 100.0)
}

/// Measures in one line.
pub(super) fn line(means: &Means) -> String {
    means.iter().map(|(measure, value)| format!("{measure} {value:.4}")).collect::<Vec<_>>().join("  ")
}
