//! Measures, TREC run and qrels files, the BM25 baseline.
//!
//! [`rankings`] ranks by a generation, [`Bm25`] without any model, and [`evaluate`] measures rankings against
//! judgments, whoever made them.

mod answers;
mod bm25;
mod error;
mod measures;
mod ranking;
mod report;
mod retrieval;
mod trec;

pub use answers::answer_accuracy;
pub use bm25::Bm25;
pub use error::Error;
pub use measures::Measure;
pub use ranking::Ranking;
pub use report::{Report, evaluate};
pub use retrieval::{JudgedSplit, bm25_rankings, graph_recall, judged_split, measure, rankings};
pub use trec::{read_qrels, read_run, write_run};
