//! Generations on disk, the live one behind `ArcSwap`, and the one path that answers a search.

mod error;
mod request;
mod retriever;

pub use error::Error;
pub use request::{Deleted, Embedded, GenerationInfo, Hit, SearchRequest, SearchResponse, StageTimes, Status, Written};
pub use retriever::Retriever;
