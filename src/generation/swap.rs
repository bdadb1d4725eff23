//! Another generation takes over while requests go on: loaded and warmed beside the live one, brought up to the store,
//! and made live between two writes.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::OwnedMutexGuard;

use super::build::PAGE;
use super::catch_up::apply;
use super::retriever::blocking;
use super::{Error, Generation, Manifest, Retriever, Standing, upkeep};
use crate::encoder::Side;
use crate::system::give_back_memory;

/// Writers are held about so long at most for the last writes to be encoded; where that is not enough they are let go
/// and the new generation catches up again.
const HOLD: Duration = Duration::from_millis(20);
/// Rounds of catching up after which writers are held twice as long in each further one.
const PATIENT_ROUNDS: u32 = 20;
/// Writers are never held longer: then the change is given up.
const MOST_HOLD: Duration = Duration::from_secs(5);
/// Rounds after which the change is given up whatever the numbers look like.
const MOST_ROUNDS: u32 = 100;
/// A generation that is let go is looked at in this interval until its last request has ended.
const LOOK_AGAIN: Duration = Duration::from_millis(10);

/// Who wants a generation to be live.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Initiator {
    /// A person: any generation will do.
    Person,
    /// A refresh: one that did not pass the gate, or passed it against another generation than the live one, is refused.
    Refresh {
        /// The generation that it was compared with; none where none was live.
        compared: Option<u64>,
    },
}

/// How a change to another generation went.
#[derive(Debug, Clone)]
pub struct SwapReport {
    /// The generation that is live now.
    pub number: u64,
    /// The one that was.
    pub previous: u64,
    /// What the gate said of the one that is live now.
    pub status: Standing,
    /// Reading, comparing with the checksums and warming.
    pub loading: Duration,
    /// Writes and deletions of the store that its files did not have.
    pub caught_up: u64,
    /// How long writers were held at most.
    pub longest_hold: Duration,
    /// How often they were held: more than once where the last writes took longer than thought.
    pub holds: u32,
    /// From the start until it answered.
    pub total: Duration,
}

/// How fast a generation takes changes.
#[derive(Debug)]
struct Pace {
    seconds_a_change: f64,
}

impl Pace {
    /// Slow, until something is known.
    const UNKNOWN: Self = Self { seconds_a_change: 0.01 };

    /// Learns from changes that were applied.
    fn saw(&mut self, changes: usize, took: Duration) {
        if changes > 0 {
            self.seconds_a_change = took.as_secs_f64() / changes as f64;
        }
    }

    fn estimate(&self, changes: u64) -> Duration {
        Duration::try_from_secs_f64(self.seconds_a_change * changes as f64).unwrap_or(Duration::MAX)
    }

    /// Changes that take a part of the time that writers may be held, so that its end is noticed.
    fn within(&self, time: Duration) -> usize {
        (time.as_secs_f64() / 4.0 / self.seconds_a_change.max(1e-6)).clamp(1.0, PAGE as f64) as usize
    }
}

impl Retriever {
    /// Makes another generation live while requests go on: it is verified, loaded and warmed beside the live one,
    /// catches up with the store, and takes over between two writes. Requests under way end with the one that they
    /// began with. An older number is a roll-back, and takes the same way. Where the caller goes away meanwhile, the
    /// change is made all the same.
    ///
    /// When it returns, the generation is live and `LIVE` names it, on the disk.
    ///
    /// # Errors
    /// [`Error::SwapRunning`], [`Error::AlreadyLive`], [`Error::UnknownGeneration`], [`Error::NotPassed`],
    /// [`Error::NotCompared`], [`Error::Overtaken`], and whatever keeps the generation from being loaded; the live one stays live then.
    pub async fn activate(self: &Arc<Self>, number: u64, initiator: Initiator) -> Result<SwapReport, Error> {
        let turn = self.turn()?;
        let retriever = Arc::clone(self);
        blocking(move || {
            let _turn = turn;
            retriever.swap(number, initiator)
        })
        .await
    }

    /// The right to change which generation is live and which are on disk.
    pub(super) fn turn(&self) -> Result<OwnedMutexGuard<()>, Error> {
        Arc::clone(&self.swapping).try_lock_owned().map_err(|_| Error::SwapRunning)
    }

    fn swap(&self, number: u64, initiator: Initiator) -> Result<SwapReport, Error> {
        self.refuse_when_stopping()?;
        let previous = self.live()?;
        if previous.number() == number {
            if initiator == Initiator::Person && self.fallback().is_some() {
                return self.settle(&previous);
            }
            return Err(Error::AlreadyLive(number));
        }
        let folder = self.data.generation(number);
        if !folder.is_dir() {
            return Err(Error::UnknownGeneration(number));
        }
        if let Initiator::Refresh { compared } = initiator {
            if compared != Some(previous.number()) {
                return Err(Error::NotCompared { number, live: previous.number() });
            }
            if Manifest::read(&folder)?.status != Standing::Ready {
                return Err(Error::NotPassed(number));
            }
        }
        let result = self.change_over(&previous, number);
        let outcome = if result.is_ok() { "done" } else { "failed" };
        self.metrics.swaps.with_label_values(&[outcome]).inc();
        let report = result.inspect_err(|error| tracing::error!(generation = number, %error, "not made live"))?;
        self.metrics.swap_duration.observe(report.total.as_secs_f64());
        tracing::info!(
            generation = number,
            previous = report.previous,
            seconds = report.total.as_secs_f64(),
            caught_up = report.caught_up,
            longest_hold_ms = report.longest_hold.as_secs_f64() * 1e3,
            "another generation is live"
        );
        // No writer gets to it any more. What its files lack now, a roll-back would have to encode again.
        upkeep::save_or_log(&previous, || ());
        let_go(previous);
        self.show_measures();
        Ok(report)
    }

    /// Makes `LIVE` name the generation that answers instead of a damaged one.
    fn settle(&self, live: &Generation) -> Result<SwapReport, Error> {
        let started = Instant::now();
        self.data.set_live(live.number())?;
        self.set_fallback(None);
        tracing::info!(generation = live.number(), "LIVE names the generation that answers");
        Ok(SwapReport {
            number: live.number(),
            previous: live.number(),
            status: live.manifest().status,
            loading: Duration::ZERO,
            caught_up: 0,
            longest_hold: Duration::ZERO,
            holds: 0,
            total: started.elapsed(),
        })
    }

    fn change_over(&self, previous: &Generation, number: u64) -> Result<SwapReport, Error> {
        let started = Instant::now();
        let candidate = Generation::open(&self.data, number, &self.machine)?;
        warm(&candidate, self.machine.expansion_search)?;
        let loading = started.elapsed();
        let before = candidate.applied();
        let candidate = Arc::new(candidate);
        let named = self.data.live().ok().flatten().unwrap_or(previous.number());
        let (holds, longest_hold) = self.catch_up_and_take_over(&candidate).inspect_err(|_| self.name_again(named))?;
        self.set_fallback(None);
        Ok(SwapReport {
            number,
            previous: previous.number(),
            status: candidate.manifest().status,
            loading,
            caught_up: candidate.applied().saturating_sub(before),
            longest_hold,
            holds,
            total: started.elapsed(),
        })
    }

    /// Applies what was written since the generation's files, at first while writers go on, at last while they are held.
    /// Returns how often they were, and how long at most.
    ///
    /// `LIVE` names the generation before it answers: flushing a file takes as long as the disk likes, and no writer
    /// should wait for it. A process that ends in between starts with the new generation, which catches up then.
    fn catch_up_and_take_over(&self, candidate: &Arc<Generation>) -> Result<(u32, Duration), Error> {
        let store = self.data.store();
        let mut pace = Pace::UNKNOWN;
        let (mut allowance, mut behind_before, mut named) = (HOLD, u64::MAX, false);
        let (mut holds, mut longest_hold) = (0, Duration::ZERO);
        for round in 0..MOST_ROUNDS {
            self.refuse_when_stopping()?;
            let target = store.last_sequence()?;
            while candidate.applied() < target {
                let started = Instant::now();
                pace.saw(apply(candidate, store, PAGE)?, started.elapsed());
            }
            if round == 0 {
                // As at a start: a graph worn by removals and much that is not in the files are put right while no
                // writer has to wait for it.
                upkeep::keep_sound(candidate, 1, || ());
            }
            let behind = store.last_sequence()?.saturating_sub(candidate.applied());
            let estimate = pace.estimate(behind);
            if estimate <= allowance && !named {
                self.data.set_live(candidate.number())?;
                named = true;
            } else if estimate <= allowance {
                let (took, done) = self.hold_and_take_over(candidate, &mut pace, allowance)?;
                self.metrics.swap_hold.observe(took.as_secs_f64());
                (holds, longest_hold) = (holds + 1, longest_hold.max(took));
                if done {
                    return Ok((holds, longest_hold));
                }
            } else if estimate > MOST_HOLD && behind >= behind_before {
                break;
            }
            behind_before = behind;
            if round >= PATIENT_ROUNDS {
                allowance = (allowance * 2).min(MOST_HOLD);
            }
        }
        let behind = store.last_sequence()?.saturating_sub(candidate.applied());
        Err(Error::Overtaken { number: candidate.number(), behind })
    }

    /// Holds writers, applies the last changes, and makes the generation answer; lets writers go where it would take
    /// longer than `allowance`. Returns how long they were held, and whether the generation is live.
    fn hold_and_take_over(
        &self,
        candidate: &Arc<Generation>,
        pace: &mut Pace,
        allowance: Duration,
    ) -> Result<(Duration, bool), Error> {
        let store = self.data.store();
        let held = Arc::clone(&self.writer).blocking_lock_owned();
        let since = Instant::now();
        let last = store.last_sequence()?;
        while candidate.applied() < last {
            let left = pace.estimate(last - candidate.applied());
            if since.elapsed() + left > allowance {
                drop(held);
                return Ok((since.elapsed(), false));
            }
            let started = Instant::now();
            pace.saw(apply(candidate, store, pace.within(allowance))?, started.elapsed());
        }
        self.take_over(Arc::clone(candidate));
        drop(held);
        Ok((since.elapsed(), true))
    }

    /// Makes `LIVE` name what it did after a change that failed.
    fn name_again(&self, number: u64) {
        if matches!(self.data.live(), Ok(Some(named)) if named == number) {
            return;
        }
        if let Err(error) = self.data.set_live(number) {
            tracing::error!(%error, generation = number, "LIVE may name another generation than the one that is live");
        }
    }
}

/// Runs a few searches: the first touch of an index is slow. The encoder warmed itself when it was opened.
fn warm(generation: &Generation, expansion: usize) -> Result<(), Error> {
    let texts = ["a", "a few words", "a longer text that asks for something"].map(str::to_owned).to_vec();
    let encoded = generation.encoder().encode_blocking(texts, Side::Query)?;
    for vector in &encoded.vectors {
        generation.index().search(vector, 10, expansion, None)?;
    }
    generation.index().exact(&encoded.vectors, 10, None)?;
    Ok(())
}

/// Waits on a thread of its own for the last request that uses a generation, and frees it there: its encoder's end and
/// the memory of its index would hold up whoever answers that request.
fn let_go(generation: Arc<Generation>) {
    let number = generation.number();
    let waiting = move || {
        while Arc::strong_count(&generation) > 1 {
            std::thread::sleep(LOOK_AGAIN);
        }
        drop(generation);
        give_back_memory();
        tracing::info!(generation = number, "no request uses the generation any more, its memory is free");
    };
    if let Err(error) = std::thread::Builder::new().name("let go".into()).spawn(waiting) {
        tracing::warn!(generation = number, %error, "no thread to free a generation on, its last request does it");
    }
}
