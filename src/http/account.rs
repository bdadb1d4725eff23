//! What is told of a request when it ends: a line of the log, a second one of a slow query, the spans of its trace.

use std::time::{Duration, Instant, SystemTime};

use super::answer::AnsweredBy;
use super::app::App;
use super::problem::Problem;
use crate::generation::StageTimes;
use crate::telemetry::{Context, KeyValue, STAGES, Traced, Traces};

/// A search that was answered, as it is told of.
#[derive(Debug, Clone)]
pub(super) struct Searched {
    /// When it was handed to the retriever.
    pub(super) began: Instant,
    pub(super) times: StageTimes,
    pub(super) asked: Asked,
}

/// What a search asked for; its text only where the setting `log_queries` says so.
#[derive(Debug, Clone)]
pub(super) struct Asked {
    pub(super) queries: usize,
    /// Of all queries together.
    pub(super) chars: usize,
    pub(super) text: Option<String>,
    pub(super) k: usize,
    pub(super) offset: usize,
    pub(super) filtered: bool,
    pub(super) exact: bool,
}

/// A request that ended.
pub(super) struct Account<'a> {
    pub(super) id: &'a str,
    pub(super) method: &'static str,
    pub(super) route: &'static str,
    pub(super) status: u16,
    pub(super) started: Instant,
    pub(super) elapsed: Duration,
    /// What the client says of its trace; none where there are no traces.
    pub(super) parent: Option<&'a Context>,
    pub(super) answered: Option<&'a AnsweredBy>,
    pub(super) problem: Option<&'a Problem>,
}

impl Account<'_> {
    /// Tells of it.
    pub(super) fn tell(&self, app: &App) {
        let trace_id = app.traces().and_then(|traces| self.trace(traces));
        self.log(trace_id.as_deref());
        let slow = app.settings().slow_query_ms;
        if let Some(searched) = self.searched().filter(|_| slow > 0 && self.elapsed >= Duration::from_millis(slow)) {
            self.log_slow(searched, trace_id.as_deref());
        }
    }

    fn is_background(&self) -> bool {
        matches!(self.route, "/healthz" | "/readyz" | "/metrics" | "static")
    }

    fn generation(&self) -> Option<u64> {
        self.answered.map(|by| by.generation)
    }

    fn searched(&self) -> Option<&Searched> {
        self.answered.and_then(|by| by.searched.as_ref())
    }

    fn log(&self, trace_id: Option<&str>) {
        let Self { id: request_id, method, route, status, .. } = *self;
        let (duration_ms, generation) = (ms(self.elapsed), self.generation());
        if let Some(cause) = self.problem.and_then(|problem| problem.cause.as_deref()) {
            tracing::error!(request_id, trace_id, method, route, status, duration_ms, cause, "request failed");
        } else if self.is_background() {
            tracing::debug!(request_id, method, route, status, duration_ms, generation, "request");
        } else {
            let problem = self.problem.map(|problem| problem.detail.as_str());
            let [queue_ms, tokenize_ms, encode_ms, search_ms, fetch_ms] = stage_ms(self.searched());
            tracing::info!(
                request_id,
                trace_id,
                method,
                route,
                status,
                duration_ms,
                generation,
                queue_ms,
                tokenize_ms,
                encode_ms,
                search_ms,
                fetch_ms,
                problem,
                "request"
            );
        }
    }

    fn log_slow(&self, searched: &Searched, trace_id: Option<&str>) {
        let Asked { queries, chars, ref text, k, offset, filtered, exact } = searched.asked;
        let [queue_ms, tokenize_ms, encode_ms, search_ms, fetch_ms] = stage_ms(Some(searched));
        tracing::warn!(
            request_id = self.id,
            trace_id,
            duration_ms = ms(self.elapsed),
            generation = self.generation(),
            queue_ms,
            tokenize_ms,
            encode_ms,
            search_ms,
            fetch_ms,
            queries,
            chars,
            k,
            offset,
            filtered,
            exact,
            text,
            "slow query"
        );
    }

    /// Hands its spans over; returns the trace's id.
    fn trace(&self, traces: &Traces) -> Option<String> {
        let parent = self.parent.filter(|_| !self.is_background())?;
        let mut attributes = vec![
            KeyValue::new("http.request.method", self.method),
            KeyValue::new("http.route", self.route),
            KeyValue::new("http.response.status_code", i64::from(self.status)),
            KeyValue::new("anced.request_id", self.id.to_owned()),
        ];
        attributes.extend(self.generation().map(|number| KeyValue::new("anced.generation", number.cast_signed())));
        let searched = self.searched();
        // In the order in which a search goes through them: a text waits for the encoder with its tokens.
        let stages = searched.map(|searched| {
            let times = searched.times;
            [
                (STAGES[1], times.tokenize),
                (STAGES[0], times.queue),
                (STAGES[2], times.encode),
                (STAGES[3], times.search),
                (STAGES[4], times.fetch),
            ]
        });
        let failure = self.problem.filter(|_| self.status >= 500).map(|problem| problem.detail.clone());
        traces.record(Traced {
            name: format!("{} {}", self.method, self.route),
            parent,
            started: SystemTime::now() - self.started.elapsed(),
            took: self.elapsed,
            attributes,
            failure,
            stages: stages.into_iter().flatten().collect(),
            stages_after: searched.map_or(Duration::ZERO, |searched| searched.began.duration_since(self.started)),
        })
    }
}

/// Queue, tokenize, encode, search, fetch in milliseconds.
fn stage_ms(searched: Option<&Searched>) -> [Option<f64>; 5] {
    let Some(Searched { times, .. }) = searched else { return [None; 5] };
    [times.queue, times.tokenize, times.encode, times.search, times.fetch].map(|time| Some(ms(time)))
}

fn ms(time: Duration) -> f64 {
    time.as_micros() as f64 / 1e3
}
