//! Logs, traces and metrics: every metric is declared here, once.

mod logs;
mod metrics;
mod traces;

pub use logs::init_logs;
pub use metrics::{Metrics, REFRESH_PHASES, STAGES};
pub use opentelemetry::{Context, KeyValue};
pub use traces::{Traced, Traces};
