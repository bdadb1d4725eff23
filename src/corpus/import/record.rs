//! What a line can be, and which parser reads it.

use super::{beir, dpr, jsonl, msmarco, qrels};
use crate::corpus::{Document, Judgment, Query, Split};

/// What a line holds.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Record {
    Document(Document),
    Query(Query),
    Judgment(Judgment),
    /// Nothing: an empty line or a header.
    None,
}

/// What a file holds, in the order in which kinds are imported.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Kind {
    JsonDocuments,
    MsmarcoPassages,
    MsmarcoDocuments,
    DprPassages,
    JsonQueries,
    MsmarcoQueries,
    /// The questions get ids of this stem and their line numbers.
    DprQuestions(String),
    Judgments(Split),
}

impl Kind {
    /// Reads one line.
    pub(super) fn parse(&self, line: &str, number: u64) -> Result<Record, String> {
        if line.trim().is_empty() {
            return Ok(Record::None);
        }
        match self {
            Self::JsonDocuments => jsonl::document(line).map(Record::Document),
            Self::MsmarcoPassages => msmarco::passage(line).map(Record::Document),
            Self::MsmarcoDocuments => msmarco::document(line).map(Record::Document),
            Self::DprPassages if number == 1 && dpr::is_header(line) => Ok(Record::None),
            Self::DprPassages => dpr::passage(line).map(Record::Document),
            Self::JsonQueries => beir::query(line).map(Record::Query),
            Self::MsmarcoQueries => msmarco::query(line).map(Record::Query),
            Self::DprQuestions(stem) => dpr::question(line, stem, number).map(Record::Query),
            Self::Judgments(_) if number == 1 && qrels::is_header(line) => Ok(Record::None),
            Self::Judgments(split) => qrels::judgment(line, *split).map(Record::Judgment),
        }
    }
}
