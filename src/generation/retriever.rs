//! The one path that answers searches and takes writes (being written).
#![allow(missing_docs, unused_variables, clippy::unimplemented)]

use super::{Deleted, Embedded, Error, GenerationInfo, SearchRequest, SearchResponse, Status, Written};
use crate::corpus::{Document, Store};
use crate::encoder::Side;

/// Answers searches from the live generation and takes writes; shared by every handler.
#[derive(Debug)]
pub struct Retriever {}

impl Retriever {
    /// Answers a search from the live generation, taken once.
    pub async fn search(&self, request: SearchRequest) -> Result<SearchResponse, Error> {
        unimplemented!()
    }
    /// Encodes, commits and indexes documents; when it returns they are on disk and found by search.
    pub async fn write(&self, documents: Vec<Document>) -> Result<Written, Error> {
        unimplemented!()
    }
    /// Deletes documents by id; unknown ids are passed over.
    pub async fn delete(&self, ids: Vec<String>) -> Result<Deleted, Error> {
        unimplemented!()
    }
    /// The vectors of some texts.
    pub async fn embed(&self, texts: Vec<String>, side: Side) -> Result<Embedded, Error> {
        unimplemented!()
    }
    /// The store, for reads by id and lists (blocking calls: use `spawn_blocking`).
    pub fn store(&self) -> &std::sync::Arc<Store> {
        unimplemented!()
    }
    /// Whether a generation is live and its encoder answered, and the server is not stopping.
    pub fn ready(&self) -> bool {
        unimplemented!()
    }
    /// The state for operators; blocking but fast.
    pub fn status(&self) -> Result<Status, Error> {
        unimplemented!()
    }
    /// Every sound generation on disk, oldest first; blocking.
    pub fn generations(&self) -> Result<Vec<GenerationInfo>, Error> {
        unimplemented!()
    }
}
