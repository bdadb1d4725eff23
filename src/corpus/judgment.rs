//! Queries and judgments: what training learns from and evaluation measures against.

use serde::{Deserialize, Serialize};

/// A query with an id of its own, as benchmark files have them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Query {
    /// Unique among the queries.
    pub id: String,
    /// What the user asks.
    pub text: String,
    /// Answer strings, where the set has them (DPR's question files); empty elsewhere.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub answers: Vec<String>,
}

/// Which part of the judgments one belongs to; training and measuring never mix.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Split {
    /// Trained on.
    Train,
    /// Measured between rounds, decides what is published.
    Dev,
    /// Measured at the end only.
    Test,
}

impl std::fmt::Display for Split {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str(match self {
            Self::Train => "train",
            Self::Dev => "dev",
            Self::Test => "test",
        })
    }
}

/// Where a judgment came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Source {
    /// A qrels file.
    File,
    /// `POST /feedback`.
    Feedback,
}

/// The grade that a document has for a query.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Judgment {
    /// The query's id.
    pub query: String,
    /// The document's id.
    pub document: String,
    /// 0 is not relevant; higher is more relevant.
    pub grade: i32,
    /// Train, dev or test.
    pub split: Split,
    /// File or feedback.
    pub source: Source,
}
