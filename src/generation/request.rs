//! What goes into a search, a write or an embedding, and what comes back.

use std::time::Duration;

use crate::corpus::{Document, Filter};

/// One search: one or several queries answered by the same generation.
#[derive(Debug, Clone)]
pub struct SearchRequest {
    /// What is asked; at least one, none empty.
    pub queries: Vec<String>,
    /// Hits wanted for each query, at least 1.
    pub k: usize,
    /// Hits skipped from the top, for paging.
    pub offset: usize,
    /// Only documents that match.
    pub filter: Option<Filter>,
    /// Compare with every vector instead of walking the graph.
    pub exact: bool,
    /// Candidates that the graph walk keeps; the setting `expansion_search` by default.
    pub ef: Option<usize>,
    /// Hits below this score are left out.
    pub min_score: Option<f32>,
    /// Return each hit's vector.
    pub with_vectors: bool,
}

impl SearchRequest {
    /// A request for the `k` best documents of one query, everything else at its default.
    pub fn new(query: impl Into<String>, k: usize) -> Self {
        Self {
            queries: vec![query.into()],
            k,
            offset: 0,
            filter: None,
            exact: false,
            ef: None,
            min_score: None,
            with_vectors: false,
        }
    }
}

/// One document found.
#[derive(Debug, Clone)]
pub struct Hit {
    /// Inner product or cosine, as the checkpoint was trained.
    pub score: f32,
    /// The write that made the document as it is returned.
    pub sequence: u64,
    /// The document.
    pub document: Document,
    /// The vector of the piece that gave the score, when asked for; f32 of `[dimension]`.
    pub vector: Option<Vec<f32>>,
}

/// How long each stage of a search took.
#[derive(Debug, Clone, Copy, Default)]
pub struct StageTimes {
    /// Waiting for the encoder.
    pub queue: Duration,
    /// Text to token ids.
    pub tokenize: Duration,
    /// The model's forward pass.
    pub encode: Duration,
    /// Nearest neighbours.
    pub search: Duration,
    /// Reading the documents from the store.
    pub fetch: Duration,
    /// All of it, from the request's arrival in the retriever.
    pub total: Duration,
}

/// The answer to a [`SearchRequest`].
#[derive(Debug, Clone)]
pub struct SearchResponse {
    /// The number of the generation that answered, for every query of the request.
    pub generation: u64,
    /// Stage by stage.
    pub times: StageTimes,
    /// One list a query, best first.
    pub results: Vec<Vec<Hit>>,
}

/// The receipt of a write: on disk, and found by search.
#[derive(Debug, Clone, Copy)]
pub struct Written {
    /// Documents accepted, those that were already there unchanged included.
    pub written: usize,
    /// The sequence number of the newest write in the corpus.
    pub sequence: u64,
}

/// The receipt of a deletion.
#[derive(Debug, Clone, Copy)]
pub struct Deleted {
    /// Documents that were there and are gone.
    pub deleted: usize,
    /// The sequence number of the newest write in the corpus.
    pub sequence: u64,
}

/// The answer to an embedding request.
#[derive(Debug, Clone)]
pub struct Embedded {
    /// The number of the generation whose encoder answered.
    pub generation: u64,
    /// Its checkpoint's name.
    pub model: String,
    /// One vector a text, f32 of `[dimension]`.
    pub vectors: Vec<Vec<f32>>,
    /// Tokens read, special ones included, padding not.
    pub tokens: usize,
}

/// A generation on disk as operators see it.
#[derive(Debug, Clone)]
pub struct GenerationInfo {
    /// 1, 2, 3, …
    pub number: u64,
    /// The generation that it was trained from; none where the checkpoint came from outside.
    pub parent: Option<u64>,
    /// RFC 3339, UTC.
    pub created: String,
    /// The checkpoint folder's name where it came from.
    pub model: String,
    /// Documents in its index.
    pub documents: u64,
    /// Components of a vector.
    pub dimension: usize,
    /// `dot` or `cosine`.
    pub similarity: String,
    /// The checkpoint's digest, sha256 in hexadecimal.
    pub checkpoint: String,
    /// Whether it answers now.
    pub live: bool,
    /// What the gate said when it was made.
    pub status: super::Standing,
    /// Measures by name, as far as they were taken.
    pub measures: std::collections::BTreeMap<String, f64>,
    /// What its files take on disk.
    pub bytes: u64,
}

/// The state of the retriever for operators and the web page.
#[derive(Debug, Clone)]
pub struct Status {
    /// The live generation, none while starting.
    pub generation: Option<GenerationInfo>,
    /// Documents in the store.
    pub documents: u64,
    /// Documents in the live index.
    pub indexed: u64,
    /// The newest write.
    pub sequence: u64,
    /// Bytes of memory that the index takes.
    pub index_bytes: u64,
    /// Where the encoder really runs: `cpu`, `cuda:0`.
    pub device: String,
    /// The precision it runs in: `fp32`, `fp16`, `int8`.
    pub precision: String,
    /// The checkpoint's name (its folder's name).
    pub model: String,
    /// Texts waiting for the encoder.
    pub queue_depth: usize,
    /// Why another generation answers than the one that `LIVE` names; none where that one does.
    pub fallback: Option<super::Fallback>,
}

impl GenerationInfo {
    /// What a manifest says.
    pub(super) fn from_manifest(manifest: &super::Manifest, live: bool) -> Self {
        Self {
            number: manifest.number,
            parent: manifest.parent,
            created: manifest.created.clone(),
            model: manifest.model.clone(),
            documents: manifest.documents,
            dimension: manifest.dimension,
            similarity: match manifest.similarity {
                crate::settings::Similarity::Dot => "dot".into(),
                crate::settings::Similarity::Cosine => "cosine".into(),
            },
            checkpoint: manifest.checkpoint_digest.clone(),
            live,
            status: manifest.status,
            measures: manifest.measures.clone(),
            bytes: manifest.bytes(),
        }
    }
}
