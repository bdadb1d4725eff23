//! Every metric that `/metrics` shows.
//!
//! Names carry the prefix `anced_` and base units. Every label set is there from the start, so that a dashboard never
//! meets a missing series.

use std::collections::BTreeSet;
use std::sync::{Mutex, MutexGuard, PoisonError};

use prometheus::{
    Encoder as _, Gauge, GaugeVec, Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge,
    IntGaugeVec, Opts, Registry, TextEncoder, exponential_buckets,
};

/// Stages of a search, in order.
pub const STAGES: [&str; 5] = ["queue", "tokenize", "encode", "search", "fetch"];

/// Parts of a refresh, in order.
pub const REFRESH_PHASES: [&str; 6] = ["encode", "mine", "train", "build", "gate", "swap"];

/// How a change to another generation ended.
const SWAPS: [&str; 2] = ["done", "failed"];

/// How a refresh ended.
const REFRESH_ENDS: [&str; 5] = ["done", "rejected", "failed", "stopped", "cancelled"];

/// Why a request was turned away before it was answered.
const REJECTIONS: [&str; 4] = ["queue_full", "stopping", "not_ready", "timeout"];

/// The metrics of one server.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    /// What `refresh_measure` shows: measures by generation.
    measured: Mutex<BTreeSet<(u64, String)>>,
    /// Requests by route, method and status.
    pub http_requests: IntCounterVec,
    /// Seconds a request took, by route.
    pub http_request_duration: HistogramVec,
    /// Seconds a stage of a search took.
    pub search_stage_duration: HistogramVec,
    /// Texts in one run of the encoder.
    pub encoder_batch_queries: Histogram,
    /// Tokens in one run of the encoder, padding included.
    pub encoder_batch_tokens: Histogram,
    /// Texts waiting for the encoder.
    pub encoder_queue_depth: IntGauge,
    /// Requests turned away, by reason.
    pub rejected_requests: IntCounterVec,
    /// Always 1; its labels say where and how the encoder runs.
    pub encoder_info: IntGaugeVec,
    /// 1 where the encoder runs on the CPU of a machine that has a GPU, and nobody asked for the CPU.
    pub encoder_fallback: IntGauge,
    /// The number of the live generation, 0 where none is.
    pub live_generation: IntGauge,
    /// Seconds since the live generation was created.
    pub live_generation_age: IntGauge,
    /// When the live generation began to answer, in seconds since 1970; 0 where none does.
    pub live_generation_since: Gauge,
    /// Documents in the live index.
    pub index_documents: IntGauge,
    /// Bytes of memory that the live index takes.
    pub index_bytes: IntGauge,
    /// Documents written and deleted since the start.
    pub documents_written: IntCounter,
    /// Votes of feedback that were kept since the start.
    pub feedback: IntCounter,
    /// Seconds from the start of a change to another generation to its end.
    pub swap_duration: Histogram,
    /// Seconds that writers were held for a change to another generation.
    pub swap_hold: Histogram,
    /// Changes to another generation by result: `done`, `failed`.
    pub swaps: IntCounterVec,
    /// 1 while a refresh runs.
    pub refresh_running: IntGauge,
    /// 1 for the part of a refresh that runs now.
    pub refresh_phase: IntGaugeVec,
    /// The step that the last refresh is at.
    pub refresh_step: IntGauge,
    /// The steps that the last refresh has in all.
    pub refresh_steps: IntGauge,
    /// The loss of the step that it is at; not a number before the first one.
    pub refresh_loss: Gauge,
    refresh_measure: GaugeVec,
    /// Seconds that a part of a refresh took.
    pub refresh_phase_duration: HistogramVec,
    /// Refreshes that ended, by result: `done`, `rejected`, `failed`, `stopped`, `cancelled`.
    pub refreshes: IntCounterVec,
    /// Bytes that may still be written to the disk of the data folder.
    pub disk_free: IntGauge,
    /// Bytes of that disk.
    pub disk_size: IntGauge,
}

impl Metrics {
    /// Declares every metric in a registry of its own.
    ///
    /// # Errors
    /// Where two metrics share a name: a mistake in this file.
    pub fn new() -> Result<Self, prometheus::Error> {
        let registry = Registry::new();
        let latency = exponential_buckets(50e-6, (10.0_f64 / 50e-6).powf(1.0 / 23.0), 24)?;
        let minutes = exponential_buckets(0.1, 2.0, 18)?;
        let sizes = exponential_buckets(1.0, 2.0, 16)?;
        macro_rules! register {
            ($metric:expr) => {{
                let metric = $metric?;
                registry.register(Box::new(metric.clone()))?;
                metric
            }};
        }
        let histogram =
            |name: &str, help: &str, buckets: &[f64]| HistogramOpts::new(name, help).buckets(buckets.to_vec());
        let metrics = Self {
            http_requests: register!(IntCounterVec::new(
                Opts::new("anced_http_requests_total", "Requests by route, method and status."),
                &["route", "method", "status"]
            )),
            http_request_duration: register!(HistogramVec::new(
                histogram(
                    "anced_http_request_duration_seconds",
                    "Time from the request's head to the answer's head.",
                    &latency
                ),
                &["route"]
            )),
            search_stage_duration: register!(HistogramVec::new(
                histogram("anced_search_stage_duration_seconds", "Time of a search by stage.", &latency),
                &["stage"]
            )),
            encoder_batch_queries: register!(Histogram::with_opts(histogram(
                "anced_encoder_batch_queries",
                "Texts in one run of the encoder.",
                &sizes
            ))),
            encoder_batch_tokens: register!(Histogram::with_opts(histogram(
                "anced_encoder_batch_tokens",
                "Tokens in one run of the encoder, padding included.",
                &sizes
            ))),
            encoder_queue_depth: register!(IntGauge::new(
                "anced_encoder_queue_depth",
                "Texts waiting for the encoder."
            )),
            rejected_requests: register!(IntCounterVec::new(
                Opts::new("anced_rejected_requests_total", "Requests turned away before they were answered."),
                &["reason"]
            )),
            encoder_info: register!(IntGaugeVec::new(
                Opts::new("anced_encoder_info", "Where and how the encoder runs; the value is always 1."),
                &["device", "precision", "model"]
            )),
            encoder_fallback: register!(IntGauge::new(
                "anced_encoder_fallback",
                "1 where the encoder runs on the CPU of a machine with a GPU, and `device` does not ask for the CPU."
            )),
            live_generation: register!(IntGauge::new(
                "anced_live_generation",
                "The number of the live generation, 0 for none."
            )),
            live_generation_age: register!(IntGauge::new(
                "anced_live_generation_age_seconds",
                "Time since the live generation was created."
            )),
            live_generation_since: register!(Gauge::new(
                "anced_live_generation_since_timestamp_seconds",
                "Unix time at which the live generation began to answer, 0 for none."
            )),
            index_documents: register!(IntGauge::new("anced_index_documents", "Documents in the live index.")),
            index_bytes: register!(IntGauge::new("anced_index_bytes", "Memory that the live index takes.")),
            documents_written: register!(IntCounter::new(
                "anced_documents_written_total",
                "Documents written or deleted since the start."
            )),
            feedback: register!(IntCounter::new(
                "anced_feedback_total",
                "Votes of feedback that were kept since the start."
            )),
            swap_duration: register!(Histogram::with_opts(histogram(
                "anced_swap_duration_seconds",
                "Time to load, warm and catch up another generation and make it live.",
                &minutes
            ))),
            swap_hold: register!(Histogram::with_opts(histogram(
                "anced_swap_hold_seconds",
                "Time that writers were held for a change to another generation.",
                &latency
            ))),
            swaps: register!(IntCounterVec::new(
                Opts::new("anced_swaps_total", "Changes to another generation by result."),
                &["result"]
            )),
            refresh_running: register!(IntGauge::new("anced_refresh_running", "1 while a refresh runs.")),
            refresh_phase: register!(IntGaugeVec::new(
                Opts::new("anced_refresh_phase", "1 for the part of a refresh that runs now."),
                &["phase"]
            )),
            refresh_step: register!(IntGauge::new(
                "anced_refresh_step",
                "The step that the last refresh is at, over all rounds."
            )),
            refresh_steps: register!(IntGauge::new(
                "anced_refresh_steps",
                "The steps that the last refresh has, over all rounds."
            )),
            refresh_loss: register!(Gauge::new("anced_refresh_loss", "The training loss of the last step.")),
            refresh_measure: register!(GaugeVec::new(
                Opts::new("anced_refresh_measure", "Dev measures of the generations on the disk."),
                &["measure", "generation"]
            )),
            refresh_phase_duration: register!(HistogramVec::new(
                histogram("anced_refresh_phase_duration_seconds", "Time of a part of a refresh.", &minutes),
                &["phase"]
            )),
            refreshes: register!(IntCounterVec::new(
                Opts::new("anced_refreshes_total", "Refreshes that ended, by result."),
                &["result"]
            )),
            disk_free: register!(IntGauge::new(
                "anced_data_disk_free_bytes",
                "Bytes that may still be written to the disk of the data folder."
            )),
            disk_size: register!(IntGauge::new("anced_data_disk_size_bytes", "Bytes of the disk of the data folder.")),
            measured: Mutex::default(),
            registry,
        };
        let build = register_build(&metrics.registry)?;
        build.with_label_values(&[env!("CARGO_PKG_VERSION")]).set(1);
        metrics.refresh_loss.set(f64::NAN);
        for result in REFRESH_ENDS {
            metrics.refreshes.with_label_values(&[result]);
        }
        for stage in STAGES {
            metrics.search_stage_duration.with_label_values(&[stage]);
        }
        for result in SWAPS {
            metrics.swaps.with_label_values(&[result]);
        }
        for phase in REFRESH_PHASES {
            metrics.refresh_phase.with_label_values(&[phase]);
            metrics.refresh_phase_duration.with_label_values(&[phase]);
        }
        for reason in REJECTIONS {
            metrics.rejected_requests.with_label_values(&[reason]);
        }
        #[cfg(target_os = "linux")]
        metrics.registry.register(Box::new(prometheus::process_collector::ProcessCollector::for_self()))?;
        Ok(metrics)
    }

    /// Shows a dev measure of a generation that is on the disk.
    pub fn show_measure(&self, generation: u64, measure: &str, value: f64) {
        let mut measured = self.measured();
        self.refresh_measure.with_label_values(&[measure, &generation.to_string()]).set(value);
        measured.insert((generation, measure.to_owned()));
    }

    /// Takes away the measures of generations that are not on the disk any more.
    pub fn keep_measures_of(&self, generations: &[u64]) {
        self.measured().retain(|(generation, measure)| {
            let is_kept = generations.contains(generation);
            if !is_kept {
                // Every pair in the set has its series.
                let _ = self.refresh_measure.remove_label_values(&[measure.as_str(), &generation.to_string()]);
            }
            is_kept
        });
    }

    fn measured(&self) -> MutexGuard<'_, BTreeSet<(u64, String)>> {
        self.measured.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The text that Prometheus scrapes (exposition format 0.0.4).
    ///
    /// # Errors
    /// Where a metric cannot be written as text.
    pub fn text(&self) -> Result<String, prometheus::Error> {
        let mut buffer = Vec::new();
        TextEncoder::new().encode(&self.registry.gather(), &mut buffer)?;
        Ok(String::from_utf8_lossy(&buffer).into_owned())
    }
}

/// The version of the program, as dashboards show it.
fn register_build(registry: &Registry) -> Result<IntGaugeVec, prometheus::Error> {
    let options = Opts::new("anced_build_info", "The version of the program; the value is always 1.");
    let build = IntGaugeVec::new(options, &["version"])?;
    registry.register(Box::new(build.clone()))?;
    Ok(build)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic, reason = "a test ends by panicking")]

    use super::*;

    #[test]
    fn measures_go_with_their_generation() {
        let metrics = Metrics::new().unwrap();
        for generation in [1, 2, 3] {
            for measure in ["nDCG@10", "MRR@10"] {
                metrics.show_measure(generation, measure, 0.5);
            }
        }
        let shown = |text: &str| text.lines().filter(|line| line.starts_with("anced_refresh_measure{")).count();
        assert_eq!(shown(&metrics.text().unwrap()), 6);
        metrics.keep_measures_of(&[3]);
        let text = metrics.text().unwrap();
        assert!(shown(&text) == 2 && text.contains("anced_refresh_measure{generation=\"3\",measure=\"MRR@10\"} 0.5"));
        metrics.keep_measures_of(&[3]);
        metrics.keep_measures_of(&[]);
        assert_eq!(shown(&metrics.text().unwrap()), 0);
    }

    #[test]
    fn latency_has_24_geometric_buckets_from_50_microseconds_to_10_seconds() {
        let text = Metrics::new().unwrap().text().unwrap();
        let prefix = "anced_search_stage_duration_seconds_bucket{stage=\"encode\",le=\"";
        let bounds = text.lines().filter_map(|line| line.strip_prefix(prefix)?.split('"').next()?.parse::<f64>().ok());
        let bounds: Vec<f64> = bounds.filter(|bound| bound.is_finite()).collect();
        assert_eq!(bounds.len(), 24, "{bounds:?}");
        assert!((bounds[0] - 50e-6).abs() < 1e-12 && (bounds[23] - 10.0).abs() < 1e-6, "{bounds:?}");
        let steps = bounds.windows(2).map(|pair| pair[1] / pair[0]);
        assert!(steps.clone().all(|step| (step - bounds[1] / bounds[0]).abs() < 1e-9), "{bounds:?}");
    }
}
