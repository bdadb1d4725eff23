//! Measures, TREC run and qrels files, the BM25 baseline.
//!
//! The room knows nothing of encoders and indexes: whoever searched brings its [`Ranking`]s and [`evaluate`] measures
//! them against judgments. [`Bm25`] makes rankings without any model.

mod bm25;
mod error;
mod measures;
mod ranking;
mod report;
mod trec;

pub use bm25::Bm25;
pub use error::Error;
pub use measures::Measure;
pub use ranking::Ranking;
pub use report::{Report, evaluate};
pub use trec::{read_qrels, read_run, write_run};
