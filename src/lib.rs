//! anced: an online dense-retrieval search server that retrains itself.
//!
//! The rooms, from the top down; a room uses the rooms below it, never one above:
//!
//! - [`command`]: the command line, one file a verb.
//! - [`http`]: the REST API, one file a resource; problem details, keys, OpenAPI, the web page.
//! - [`refresh`]: jobs: a training process beside the server, watched, and its generation made live.
//! - [`ance`]: ANCE itself: training data, mining, sampling, rounds, the trainer, its schedule and state.
//! - [`evaluation`]: measures, TREC run and qrels files, the BM25 baseline.
//! - [`generation`]: generations on disk, the live one, the one path that answers a search; snapshots and checks.
//! - [`corpus`]: documents, queries, judgments: the store and the file formats.
//! - [`index`]: vectors in, neighbours out: HNSW and exact.
//! - [`encoder`]: text in, vectors out: checkpoint, tokenizer, pooling, batching of concurrent queries.
//! - [`onnx`]: ONNX graphs as values: builder, BERT-family graphs, gradients, sessions that serve and that train.
//! - [`telemetry`]: logs, traces and metrics; every metric is declared there, once.
//! - [`settings`]: everything that a user can set.
//! - [`system`]: the few calls that need `unsafe`, audited in one file.

pub mod ance;
pub mod command;
pub mod corpus;
pub mod encoder;
pub mod evaluation;
pub mod generation;
pub mod http;
pub mod index;
pub mod onnx;
pub mod refresh;
pub mod settings;
pub mod system;
pub mod telemetry;
