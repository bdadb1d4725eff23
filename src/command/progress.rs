//! Progress of long work: a bar on a terminal, a plain line now and then elsewhere.

use std::io::IsTerminal;
use std::time::{Duration, Instant};

use indicatif::{HumanDuration, ProgressBar, ProgressStyle};

/// Between two plain lines.
const LINE_EVERY: Duration = Duration::from_secs(5);

/// What the numbers count.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Unit {
    Bytes,
    Documents,
    Texts,
    Steps,
}

/// The progress of one piece of work.
#[derive(Debug)]
pub(super) struct Progress {
    what: &'static str,
    unit: Unit,
    bar: Option<ProgressBar>,
    started: Instant,
    last_line: Instant,
    first: Option<u64>,
}

impl Progress {
    pub(super) fn new(what: &'static str, unit: Unit) -> Self {
        let bar = std::io::stderr().is_terminal().then(|| {
            let template = match unit {
                Unit::Bytes => "{prefix} [{bar:30}] {bytes}/{total_bytes} {bytes_per_sec}, {eta} left {msg}",
                _ => "{prefix} [{bar:30}] {pos}/{len} {per_sec}, {eta} left {msg}",
            };
            let bar = ProgressBar::new(0).with_prefix(what);
            bar.set_style(ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar()));
            bar
        });
        let now = Instant::now();
        Self { what, unit, bar, started: now, last_line: now, first: None }
    }

    /// Shows how far the work is; `total` is none where nobody knows.
    pub(super) fn set(&mut self, done: u64, total: Option<u64>, message: &str) {
        if let Some(bar) = &self.bar {
            bar.set_length(total.unwrap_or(done));
            bar.set_position(done);
            bar.set_message(message.to_owned());
            return;
        }
        let first = *self.first.get_or_insert(done);
        if self.last_line.elapsed() < LINE_EVERY {
            return;
        }
        self.last_line = Instant::now();
        let rate = (done - first.min(done)) as f64 / self.started.elapsed().as_secs_f64().max(1e-9);
        let left = match total {
            Some(total) if rate > 0.0 && total > done => {
                format!(", {} left", HumanDuration(Duration::from_secs_f64((total - done) as f64 / rate)))
            }
            _ => String::new(),
        };
        let of = total.map_or(String::new(), |total| format!(" of {total}"));
        let unit = match self.unit {
            Unit::Bytes => "bytes",
            Unit::Documents => "documents",
            Unit::Texts => "texts",
            Unit::Steps => "steps",
        };
        eprintln!("{}: {done}{of} {unit}, {rate:.0} a second{left} {message}", self.what);
    }

    /// Takes the bar away.
    pub(super) fn finish(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}
