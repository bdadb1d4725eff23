//! Documents, queries, judgments: the store and the file formats.

mod answers;
mod document;
mod error;
mod feedback;
mod filter;
mod import;
mod judgment;
mod metadata;
mod store;

pub use answers::{Answers, Words};
pub use document::{Document, InvalidDocument, StoredDocument};
pub use error::Error;
pub(crate) use feedback::loose_key;
pub use feedback::{Feedback, FeedbackOutcome, Grade, VOTES, Votes};
pub use filter::{Filter, FilterError};
pub use import::{BadLine, Format, ImportOptions, ImportReport, Progress, import, import_reader};
pub use judgment::{Judgment, Query, Source, Split};
pub(crate) use store::DATA_FILE as STORE_DATA_FILE;
pub use store::{
    AnsweredQueries, Change, JudgmentCounts, JudgmentOutcome, Operation, Removal, Store, StoreCheck, StoreContents,
    View, WriteOutcome,
};
