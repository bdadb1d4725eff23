//! Logs and metrics: every metric is declared here, once.

mod logs;
mod metrics;

pub use logs::init_logs;
pub use metrics::{Metrics, REFRESH_PHASES, STAGES};
