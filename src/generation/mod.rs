//! Generations on disk, the live one behind `ArcSwap`, and the one path that answers a search.
//!
//! A generation is a checkpoint together with the vectors and the index that it made. A request takes the live one
//! once, at its start, and uses it to its end: a query is never answered by one model against another model's index.

mod beside;
mod build;
mod catch_up;
mod check;
mod error;
mod fallback;
mod find;
mod folder;
mod loaded;
mod manifest;
mod repair;
mod request;
mod restore;
mod retention;
mod retriever;
mod snapshot;
mod swap;
#[cfg(test)]
mod tests;
mod upkeep;
mod writing;

pub use build::{BuildProgress, Origin, build, build_from};
pub use check::{Check, Finding, check, check_open};
pub use error::Error;
pub use fallback::Fallback;
pub use folder::{DataFolder, Lock, TRAIN_LOCK, is_training};
pub use loaded::{Generation, Machine};
pub use manifest::{FileRecord, Manifest, Standing};
pub(crate) use manifest::{hexadecimal, replace_file};
pub use repair::repair;
pub use request::{Deleted, Embedded, GenerationInfo, Hit, SearchRequest, SearchResponse, StageTimes, Status, Written};
pub use restore::restore;
pub use retention::Removed;
pub use retriever::Retriever;
pub use snapshot::{Snapshot, snapshot};
pub use swap::{Initiator, SwapReport};
