//! A job while it runs: its process is heard, and what that made goes live.

use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::json;
use tokio::sync::watch;

use super::State;
use super::job::{Done, Said};
use super::process::{self, Wish};
use super::supervisor::{Refresh, Running, ended};
use crate::generation::{self, Initiator};
use crate::settings::Settings;
use crate::telemetry::REFRESH_PHASES;

/// How often a job looks whether somebody else's change of generation is over, and how many times.
const TURN: Duration = Duration::from_millis(200);
const TURNS: u32 = 600;

/// What became of a job, and why.
type End = (State, Option<String>);

impl Refresh {
    /// From the start of the process to what became of the job.
    pub(super) async fn work(
        &self,
        running: &Arc<Running>,
        mut wishes: watch::Receiver<Wish>,
        settings: &Settings,
    ) -> End {
        loop {
            let made = match self.train(running, &mut wishes, settings).await {
                Ok(done) => self.conclude(running, done).await,
                Err(end) => return end,
            };
            if let Some(end) = made {
                return end;
            }
            // Somebody made another generation live since the process compared: it does so again, and no more.
            tracing::info!(job = running.id, "another generation is live than the one that was compared with");
        }
    }

    /// Runs the process to its end, and returns its last words where it came to a generation.
    async fn train(
        &self,
        running: &Arc<Running>,
        wishes: &mut watch::Receiver<Wish>,
        settings: &Settings,
    ) -> Result<Done, End> {
        let child = match process::start(&self.0.data, &running.id, settings) {
            Ok(child) => child,
            Err(error) => return Err((State::Failed, Some(error.to_string()))),
        };
        let mut done = None;
        let hear = |line: &str| done = self.hear(running, line).or(done.take());
        let ended = process::watch(child, wishes, self.0.limits, hear).await;
        let (status, broke) = match ended {
            Ok(ended) => (Ok(ended.status), ended.broke),
            Err(error) => (Err(error), None),
        };
        let wish = *wishes.borrow();
        Err(match (status, done, wish) {
            (_, _, Wish::Cancel) => (State::Cancelled, Some("cancelled".into())),
            (Ok(status), Some(done), _) if status.success() => return Ok(done),
            (_, _, Wish::Stop) => (State::Stopped, Some("the server stopped".into())),
            (Ok(_), _, _) if broke.is_some() => (State::Failed, broke),
            (Ok(status), _, _) => {
                // It ends so where somebody else told it to stop.
                let state = if status.code() == Some(3) { State::Stopped } else { State::Failed };
                (state, Some(process::last_words(&self.0.data, &running.id, status)))
            }
            (Err(error), _, _) => (State::Failed, Some(format!("the training process was lost: {error}"))),
        })
    }

    /// Takes note of a line of the process; returns its last words.
    fn hear(&self, running: &Running, line: &str) -> Option<Done> {
        let said: Said = serde_json::from_str(line).unwrap_or(Said::Other);
        if said == Said::Alive {
            // It was heard, which is all that it says.
            return None;
        }
        let is_progress = matches!(said, Said::Phase { done, .. } if done > 0);
        running.log.tell(line, !is_progress);
        let job = {
            let mut job = running.job();
            job.saw(&said).then(|| job.clone())
        };
        if let Some(job) = job {
            // It waits for the disk, and for other writers.
            tokio::task::block_in_place(|| self.put_or_log(&job));
        }
        let metrics = &self.0.metrics;
        match &said {
            Said::Phase { beside: true, .. } => {}
            Said::Phase { phase, .. } => self.show_phase(phase),
            Said::Step { step, loss, .. } => {
                self.show_phase("train");
                metrics.refresh_step.set(i64::try_from(*step).unwrap_or(i64::MAX));
                metrics.refresh_loss.set(loss.unwrap_or(f64::NAN));
            }
            Said::Took { phase, seconds } if REFRESH_PHASES.contains(&phase.as_str()) => {
                metrics.refresh_phase_duration.with_label_values(&[phase]).observe(*seconds);
            }
            Said::Done(done) => {
                for (generation, means) in [(Some(done.generation), &done.measures), (done.live, &done.live_measures)] {
                    let Some(generation) = generation else { continue };
                    for (measure, value) in means.iter().flatten() {
                        metrics.show_measure(generation, measure, *value);
                    }
                }
            }
            Said::Alive | Said::Took { .. } | Said::Measures { .. } | Said::Other => {}
        }
        if let Said::Done(done) = said { Some(done) } else { None }
    }

    fn show_phase(&self, current: &str) {
        for phase in REFRESH_PHASES {
            self.0.metrics.refresh_phase.with_label_values(&[phase]).set(i64::from(phase == current));
        }
    }

    /// Makes live what the process made, unless the gate says no; none where the gate has to be asked again.
    async fn conclude(&self, running: &Running, done: Done) -> Option<End> {
        if !done.published {
            return Some((State::Rejected, Some(done.reason)));
        }
        let (number, initiator) = (done.generation, Initiator::Refresh { compared: done.live });
        running.job().phase = Some("swap".into());
        self.show_phase("swap");
        let started = Instant::now();
        let mut turns = 0;
        let swapped = loop {
            match self.0.retriever.activate(number, initiator).await {
                Err(generation::Error::SwapRunning) if turns < TURNS => {
                    turns += 1;
                    tokio::time::sleep(TURN).await;
                }
                ended => break ended,
            }
        };
        let seconds = started.elapsed().as_secs_f64();
        self.0.metrics.refresh_phase_duration.with_label_values(&["swap"]).observe(seconds);
        Some(match swapped {
            Ok(report) => {
                let told = json!({
                    "event": "live",
                    "generation": report.number,
                    "previous": report.previous,
                    "caught_up": report.caught_up,
                    "hold_seconds": report.longest_hold.as_secs_f64(),
                    "seconds": report.total.as_secs_f64(),
                });
                running.log.tell(&told.to_string(), true);
                (State::Done, Some(done.reason))
            }
            Err(generation::Error::AlreadyLive(_)) => (State::Done, Some(done.reason)),
            Err(generation::Error::NotCompared { .. }) => return None,
            Err(generation::Error::Stopping) => {
                let reason = format!("the server stopped before generation {number} was live");
                (State::Stopped, Some(reason))
            }
            Err(error) => (State::Failed, Some(format!("generation {number} is built, but not live: {error}"))),
        })
    }

    pub(super) fn end(&self, running: &Running, state: State, reason: Option<String>) {
        // First, so that whoever hears of the end finds nothing half-built.
        if let Err(error) = self.0.retriever.remove_unfinished() {
            tracing::warn!(job = running.id, %error, "what the training was building stays until the next start");
        }
        let removed = self.0.retriever.keep_newest();
        // Not the job that others see: to them it runs as long as no other may start.
        let mut job = running.job().clone();
        job.enter(state, reason);
        match state {
            State::Failed => tracing::error!(job = job.id, reason = job.reason, "refresh failed"),
            _ => tracing::info!(job = job.id, state = state.as_str(), reason = job.reason, "refresh ended"),
        }
        self.put_or_keep(&job);
        self.show_phase("");
        self.0.metrics.refreshes.with_label_values(&[state.as_str()]).inc();
        self.0.metrics.refresh_running.set(0);
        self.leave(running, &ended(&job, &removed));
    }
}
