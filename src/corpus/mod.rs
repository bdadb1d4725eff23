//! Documents, queries, judgments: the store and the file formats.

mod document;
mod judgment;

pub use document::{Document, StoredDocument};
pub use judgment::{Judgment, Query, Source, Split};
mod error;
mod filter;
mod store;
pub use error::Error;
pub use filter::Filter;
pub use store::Store;
