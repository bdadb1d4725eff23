//! A document as users write and read it.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// One document: what a search finds.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Document {
    /// Unique in the corpus; 1 to 500 bytes of UTF-8.
    pub id: String,
    /// May be empty.
    #[serde(default)]
    pub title: String,
    /// May be empty.
    #[serde(default)]
    pub text: String,
    /// Any JSON object; filters read it.
    #[serde(default)]
    pub metadata: Map<String, Value>,
}

/// A document together with the sequence number of the write that made it.
#[derive(Debug, Clone, PartialEq)]
pub struct StoredDocument {
    /// The number of the write, the key of the document's vectors in every index.
    pub sequence: u64,
    /// The document as it was written.
    pub document: Document,
}
