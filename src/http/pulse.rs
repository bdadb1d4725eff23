//! The time that a client may take: for a request's head, between requests, and to take its answers.
//!
//! A connection that waits too long in one of these is cut; the time that the server itself takes never counts.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use crate::settings::Settings;

/// How often a connection looks whether its place is wanted, and what it waits for.
pub(super) const LOOK: Duration = Duration::from_secs(5);

/// How long a client may take for what.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limits {
    /// From the first byte of a request's head to its last, and for the handshake of TLS.
    pub(super) head: Duration,
    /// Between requests.
    pub(super) idle: Duration,
    /// Of a body or an answer, beyond what its bytes are worth.
    pub(super) stall: Duration,
    /// Bytes that are worth a second.
    pub(super) rate: u64,
}

impl Limits {
    pub(super) fn new(settings: &Settings) -> Self {
        let seconds = |value: u64| Duration::from_secs(value.clamp(1, 7 * 24 * 3600));
        Self {
            head: seconds(settings.head_timeout),
            idle: seconds(settings.idle_timeout),
            stall: seconds(settings.stall_timeout),
            rate: settings.min_rate.max(1),
        }
    }

    /// For a connection beyond `max_connections`, which is to end soon.
    pub(super) fn hurried(self) -> Self {
        let most = Duration::from_secs(5);
        Self { head: self.head.min(most), idle: self.idle.min(most), stall: self.stall.min(most), ..self }
    }

    /// How long so many bytes may take.
    pub(super) fn allowed(&self, bytes: u64) -> Duration {
        self.stall + Duration::from_secs(bytes / self.rate)
    }
}

/// What a connection waits for, shared by its stream and its requests.
#[derive(Debug, Clone)]
pub(super) struct Pulse(Arc<Mutex<State>>);

#[derive(Debug)]
struct State {
    limits: Limits,
    /// Several requests share the connection (HTTP/2): a byte outside of them need not be of a head.
    multiplexed: bool,
    /// The requests under way by their numbers, and how their answers are taken.
    requests: BTreeMap<u64, Taking>,
    next: u64,
    /// Since when a head is being read.
    head_since: Option<Instant>,
    idle_since: Instant,
    /// Since when the socket takes nothing more.
    unwritten_since: Option<Instant>,
    /// Since when what the stream holds itself (TLS) could not be sent.
    unflushed_since: Option<Instant>,
}

/// How a client takes an answer: the time in which bytes of it wait for the client counts, no other.
#[derive(Debug, Default)]
struct Taking {
    waits: Option<Waits>,
    taken: u64,
    /// The waiting of before.
    waited: Duration,
}

#[derive(Debug, Clone, Copy)]
struct Waits {
    bytes: u64,
    since: Instant,
    /// When some were taken last.
    progress: Instant,
}

impl Taking {
    fn offer(&mut self, bytes: u64) {
        let now = Instant::now();
        let waits = self.waits.get_or_insert(Waits { bytes: 0, since: now, progress: now });
        waits.bytes += bytes;
    }

    fn take(&mut self, bytes: u64) {
        self.taken += bytes;
        let Some(waits) = &mut self.waits else { return };
        waits.progress = Instant::now();
        waits.bytes = waits.bytes.saturating_sub(bytes);
        if waits.bytes == 0 {
            self.waited += waits.since.elapsed();
            self.waits = None;
        }
    }

    /// Something must be taken within `stall`, and all that was so far must have come to `rate` beyond it.
    fn deadline(&self, limits: &Limits) -> Option<Instant> {
        let waits = self.waits?;
        let slowest = waits.since + limits.allowed(self.taken).saturating_sub(self.waited);
        Some(slowest.min(waits.progress + limits.stall))
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Cut {
    /// The client says too little: the connection ends as if it had hung up.
    Silent,
    /// The client takes its answer too slowly.
    Slow,
}

impl Pulse {
    pub(super) fn new(limits: Limits, multiplexed: bool) -> Self {
        let now = Instant::now();
        Self(Arc::new(Mutex::new(State {
            limits,
            multiplexed,
            requests: BTreeMap::new(),
            next: 0,
            // The first request is due at once.
            head_since: Some(now),
            idle_since: now,
            unwritten_since: None,
            unflushed_since: None,
        })))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A request begins.
    pub(super) fn begin(&self) -> UnderWay {
        let mut state = self.state();
        state.head_since = None;
        state.next += 1;
        let number = state.next;
        state.requests.insert(number, Taking::default());
        UnderWay { pulse: self.clone(), number }
    }

    /// Bytes came.
    pub(super) fn heard(&self) {
        let mut state = self.state();
        if state.requests.is_empty() {
            state.head_since.get_or_insert_with(Instant::now);
        }
    }

    /// Notes whether the stream took bytes.
    pub(super) fn wrote(&self, took: bool) {
        let mut state = self.state();
        if !took {
            state.unwritten_since.get_or_insert_with(Instant::now);
        } else if state.unwritten_since.take().is_some() {
            // There is room again, so some of what the stream holds itself was sent.
            state.unflushed_since = None;
        }
    }

    /// Notes whether the stream sent all that it holds itself.
    pub(super) fn flushed(&self, all: bool) {
        let mut state = self.state();
        if all {
            state.unflushed_since = None;
        } else {
            state.unflushed_since.get_or_insert_with(Instant::now);
        }
    }

    /// Whether no request is under way and nothing waits to be sent.
    pub(super) fn is_quiet(&self) -> bool {
        let state = self.state();
        state.requests.is_empty() && state.unsent_since().is_none()
    }

    /// When the connection is to be cut if nothing happens, and why.
    pub(super) fn deadline(&self, pressed: bool) -> Option<(Instant, Cut)> {
        self.state().deadline(pressed)
    }
}

impl State {
    fn unsent_since(&self) -> Option<Instant> {
        self.unwritten_since.into_iter().chain(self.unflushed_since).min()
    }

    fn deadline(&self, pressed: bool) -> Option<(Instant, Cut)> {
        let unsent = self.unsent_since().map(|since| since + self.limits.stall);
        let slow = self.requests.values().filter_map(|taking| taking.deadline(&self.limits)).chain(unsent).min();
        let is_silent = self.requests.is_empty() && unsent.is_none();
        let silent = is_silent.then(|| match self.head_since {
            Some(since) if !self.multiplexed => since + self.limits.head,
            _ if pressed => self.idle_since + self.limits.idle.min(LOOK),
            _ => self.idle_since + self.limits.idle,
        });
        slow.map(|end| (end, Cut::Slow)).or(silent.map(|end| (end, Cut::Silent)))
    }
}

/// A request on its way, to the last byte of its answer.
#[derive(Debug)]
pub(super) struct UnderWay {
    pulse: Pulse,
    number: u64,
}

impl UnderWay {
    /// So many bytes of the answer wait for the client from now on.
    pub(super) fn offer(&self, bytes: usize) {
        if let Some(taking) = self.pulse.state().requests.get_mut(&self.number).filter(|_| bytes > 0) {
            taking.offer(bytes as u64);
        }
    }

    /// The client's side took so many of them.
    pub(super) fn take(&self, bytes: usize) {
        if let Some(taking) = self.pulse.state().requests.get_mut(&self.number) {
            taking.take(bytes as u64);
        }
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        let mut state = self.pulse.state();
        state.requests.remove(&self.number);
        state.idle_since = Instant::now();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limits() -> Limits {
        let settings =
            Settings { head_timeout: 2, idle_timeout: 50, stall_timeout: 10, min_rate: 100, ..Settings::default() };
        Limits::new(&settings)
    }

    /// Whole seconds from now to the cut.
    fn left(pulse: &Pulse, pressed: bool) -> Option<(u64, Cut)> {
        pulse.deadline(pressed).map(|(end, cut)| ((end - Instant::now()).as_secs(), cut))
    }

    async fn passes(seconds: u64) {
        tokio::time::advance(Duration::from_secs(seconds)).await;
    }

    #[tokio::test(start_paused = true)]
    async fn each_wait_has_its_limit() {
        let pulse = Pulse::new(limits(), false);
        assert_eq!(left(&pulse, false), Some((2, Cut::Silent)), "the first head");
        let request = pulse.begin();
        assert_eq!(left(&pulse, false), None, "the server's own time");
        request.offer(3000);
        assert_eq!(left(&pulse, false), Some((10, Cut::Slow)), "an answer that nobody takes");
        assert!(!pulse.is_quiet());
        passes(9).await;
        request.take(2000);
        assert_eq!(left(&pulse, false), Some((10, Cut::Slow)), "one of which some was taken");
        passes(9).await;
        request.take(999);
        passes(9).await;
        request.take(1);
        assert_eq!(left(&pulse, false), None, "the server's own time again");
        assert!(!pulse.is_quiet());
        drop(request);
        assert!(pulse.is_quiet());
        assert_eq!(left(&pulse, false), Some((50, Cut::Silent)), "between requests");
        assert_eq!(left(&pulse, true), Some((5, Cut::Silent)), "where places are short");
    }

    #[tokio::test(start_paused = true)]
    async fn a_few_bytes_now_and_then_are_not_enough() {
        let pulse = Pulse::new(limits(), false);
        let request = pulse.begin();
        request.offer(1_000_000);
        for _ in 0..3 {
            passes(3).await;
            request.take(1);
        }
        assert_eq!(left(&pulse, false), Some((1, Cut::Slow)), "10 s and 3 bytes at 100 a second");
        request.take(1000);
        assert_eq!(left(&pulse, false), Some((10, Cut::Slow)), "1000 bytes more are worth 10 s");
    }

    #[tokio::test(start_paused = true)]
    async fn a_stream_that_holds_bytes_is_neither_quiet_nor_idle() {
        let pulse = Pulse::new(limits(), true);
        pulse.flushed(false);
        passes(9).await;
        pulse.wrote(true);
        assert!(!pulse.is_quiet());
        assert_eq!(left(&pulse, false), Some((1, Cut::Slow)), "bytes that it keeps itself are no progress");
        pulse.wrote(false);
        pulse.wrote(true);
        assert!(pulse.is_quiet(), "there was room again");
        pulse.wrote(false);
        assert_eq!(left(&pulse, false), Some((10, Cut::Slow)));
    }

    #[tokio::test(start_paused = true)]
    async fn many_requests_at_once_each_have_their_limit() {
        let pulse = Pulse::new(limits(), true);
        assert_eq!(left(&pulse, false), Some((50, Cut::Silent)), "no head is due");
        let (deaf, quick) = (pulse.begin(), pulse.begin());
        deaf.offer(10);
        for _ in 0..4 {
            passes(2).await;
            quick.offer(1000);
            quick.take(1000);
        }
        assert_eq!(left(&pulse, false), Some((2, Cut::Slow)), "others that are taken change nothing");
        drop((deaf, quick));
        assert_eq!(left(&pulse, false), Some((50, Cut::Silent)));
    }
}
