//! Everything that a user can set: a flag over an environment variable over `anced.toml` over the default.
//!
//! The groups below are at once flags of the command line, keys of `anced.toml` and, in capitals with the prefix
//! `ANCED_`, environment variables: `--token-budget`, `token_budget`, `ANCED_TOKEN_BUDGET`.

mod choices;
mod flag;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use clap::Args;
use figment::Figment;
use figment::providers::{Env, Format, Serialized, Toml};
use serde::{Deserialize, Serialize};

pub use choices::{
    Device, LogFormat, LossChoice, Negatives, OptimizerChoice, Pooling, Precision, Quantization, RecipeChoice,
    Similarity, VectorType,
};
pub use flag::Flag;

/// Names of environment variables that start with `ANCED_` and are read elsewhere.
const OTHER_VARIABLES: [&str; 5] = ["config", "reference", "require_tools", "test_device", "test_precision"];

/// The largest number of pieces that a document can be cut into.
const MOST_CHUNKS: usize = 256;

/// A setting that is missing, unknown or out of range.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A file, a variable or a flag does not fit; figment's text names where and which.
    #[error("settings: {0}")]
    Source(Box<figment::Error>),
    /// The file named by `--config` is missing.
    #[error("settings: no file {0}; name an existing anced.toml with --config, or leave the flag away")]
    Missing(PathBuf),
    /// A value is out of its range.
    #[error("settings: {key} = {value}: {rule}")]
    Range {
        /// Which setting.
        key: &'static str,
        /// What was given.
        value: String,
        /// What is allowed.
        rule: &'static str,
    },
}

macro_rules! settings {
    ($($(#[$group_doc:meta])* $group:ident { $($(#[doc = $doc:literal])+ $key:ident: $type:ty = $default:expr,)* })*) => {
        /// Every setting with its value.
        #[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
        #[serde(default, deny_unknown_fields)]
        pub struct Settings {
            $($($(#[doc = $doc])+ pub $key: $type,)*)*
        }

        impl Default for Settings {
            fn default() -> Self {
                Self { $($($key: $default,)*)* }
            }
        }

        impl Settings {
            /// Whether a setting is a text, whatever it looks like.
            fn is_text(key: &str) -> bool {
                match key {
                    $($(stringify!($key) => <$type as Flag>::IS_TEXT,)*)*
                    _ => false,
                }
            }
        }

        $(
            $(#[$group_doc])*
            #[derive(Debug, Clone, Default, Args, Serialize)]
            pub struct $group {
                $(
                    $(#[doc = $doc])+
                    #[arg(long, num_args = <$type as Flag>::VALUES, require_equals = <$type as Flag>::IS_SWITCH,
                        default_missing_value = "true")]
                    #[serde(skip_serializing_if = "Option::is_none")]
                    pub $key: Option<<$type as Flag>::Value>,
                )*
            }
        )*
    };
}

settings! {
    /// Settings that every verb takes.
    CommonArgs {
        /// The data folder.
        data: PathBuf = PathBuf::from("data"),
        /// Log lines for people (`text`) or for collectors (`json`).
        log_format: LogFormat = LogFormat::Text,
        /// What is logged, as `tracing` directives: `info`, `anced=debug,warn`.
        log_filter: String = "info".into(),
    }

    /// Settings of the encoder.
    EncoderArgs {
        /// The checkpoint folder that a first generation is made with.
        model: PathBuf = PathBuf::from("models/all-MiniLM-L6-v2"),
        /// ONNX Runtime's shared library; by default searched beside the binary, then in `.onnxruntime/`.
        onnxruntime: Option<PathBuf> = None,
        /// Where the encoder runs: auto, cpu, cuda or cuda:N.
        device: Device = Device::Auto,
        /// The encoder's arithmetic.
        precision: Precision = Precision::Auto,
        /// Threads of one encoder run; 0 is one a core.
        threads: usize = 0,
        /// Tokens, padding included, that one encoder run takes at most.
        token_budget: usize = 8192,
        /// Texts that may wait for the encoder; more are answered with 503.
        queue_limit: usize = 1024,
        /// Overrules the checkpoint's pooling.
        pooling: Option<Pooling> = None,
        /// Overrules the checkpoint's similarity.
        similarity: Option<Similarity> = None,
        /// Overrules the tokens after which the checkpoint cuts a text.
        max_seq_length: Option<usize> = None,
        /// Overrules what joins title and text.
        separator: Option<String> = None,
        /// Pieces of `max_seq_length` tokens that a document is cut into at most; the best one scores it (MaxP).
        chunks: usize = 1,
    }

    /// Settings of the index.
    IndexArgs {
        /// Edges a node of the HNSW graph has (M).
        connectivity: usize = 16,
        /// Candidates kept while a vector is added (efConstruction).
        expansion_add: usize = 128,
        /// Candidates kept while a query is searched (efSearch).
        expansion_search: usize = 128,
        /// How the graph stores vectors.
        quantization: Quantization = Quantization::F16,
        /// How the vectors file stores vectors.
        vectors: VectorType = VectorType::F32,
        /// A filter that at most this share of the documents match, in percent, is answered by exact search.
        filter_exact_percent: usize = 20,
        /// Writes and deletions after which the index is written to its files; a killed server encodes at most about
        /// so many again.
        save_after: u64 = 20_000,
    }

    /// Settings of training; what is left away is the recipe's.
    TrainArgs {
        /// The recipe: `default` for normalised encoders, `paper` for ANCE as published.
        recipe: RecipeChoice = RecipeChoice::Default,
        /// Rounds: before each, negatives are mined with what was trained so far.
        rounds: Option<u64> = None,
        /// Optimiser steps a round.
        steps: Option<u64> = None,
        /// Triples a batch.
        batch: Option<usize> = None,
        /// Batches a step, whose gradients are averaged.
        accumulation: Option<usize> = None,
        /// The highest learning rate: reached after the warm-up, 0 after the last step.
        lr: Option<f32> = None,
        /// Steps of the warm-up; a tenth of all steps by default.
        warmup: Option<u64> = None,
        /// The optimiser.
        optimizer: Option<OptimizerChoice> = None,
        /// The decay of weights.
        weight_decay: Option<f32> = None,
        /// The largest norm of the gradient; a longer one is scaled down to it.
        clip: Option<f32> = None,
        /// What is minimised.
        loss: Option<LossChoice> = None,
        /// What scores are multiplied by in the loss.
        scale: Option<f32> = None,
        /// Where negatives come from.
        negatives: Option<Negatives> = None,
        /// How many of the best documents of a query are candidates for negatives.
        depth: Option<usize> = None,
        /// Candidates that score higher than a query's best positive by more than this are left out.
        margin: Option<f32> = None,
        /// Candidates that score this share of a query's best positive or more are left out (TopK-PercPos of
        /// NV-Retriever, Moreira et al. 2024, arXiv 2407.15831: .95). For cosines above 0; on inner products of vectors
        /// of any length, where unrelated texts may reach .95 of a positive's score, calibrate it, or use a margin or
        /// `skip`.
        positive_share: Option<f32> = None,
        /// So many of the best candidates are left out, whatever their scores: the rank window from here to `depth`.
        skip: Option<usize> = None,
        /// Candidates kept of each query, drawn by chance; 0 keeps all.
        negatives_per_query: Option<usize> = None,
        /// One part in so many of the train queries takes part in a round, in turn.
        slices: Option<usize> = None,
        /// Mine before the first round only.
        mine_once: bool = false,
        /// Encode and mine in a thread of their own while training goes on with the negatives that are there; newer ones
        /// take their place at once (the paper's asynchronous form). Such a run is not the same twice.
        overlap: bool = false,
        /// Threads of an encoder that runs beside training; 0 is as many as training has.
        inference_threads: usize = 0,
        /// Where an encoder beside training runs: auto, cpu, cuda or cuda:N; by default where training does.
        inference_device: Option<Device> = None,
        /// Tokens after which queries are cut.
        query_tokens: Option<usize> = None,
        /// Tokens after which passages are cut.
        passage_tokens: Option<usize> = None,
        /// Drop what the checkpoint's configuration says.
        dropout: bool = false,
        /// Of every choice by chance.
        seed: u64 = 1,
        /// What chooses the best round and decides whether its generation is published, on the dev queries: nDCG@10,
        /// MRR@10, Recall@100 or Recall@1000.
        measure: String = "nDCG@10".into(),
        /// How much lower than the live generation's the measure may be.
        tolerance: f64 = 0.0,
        /// Threads of a training beside a server; 0 is as many as the encoder has.
        refresh_threads: usize = 0,
    }

    /// Settings of the server.
    ServerArgs {
        /// The address to listen on.
        listen: SocketAddr = SocketAddr::from(([127, 0, 0, 1], 8080)),
        /// The key that searches need (Bearer); none by default.
        search_key: Option<String> = None,
        /// The key that writes need (Bearer); searches take it too.
        write_key: Option<String> = None,
        /// The key of `/admin` (Bearer); everything takes it.
        admin_key: Option<String> = None,
        /// PEM file of the certificate and its chain; with `tls_key` the server speaks TLS.
        tls_cert: Option<PathBuf> = None,
        /// PEM file of the certificate's private key; both files are taken anew when they change.
        tls_key: Option<PathBuf> = None,
        /// Origins whose pages may ask (CORS), parted by commas: `https://example.org`; none by default.
        cors_origins: Option<String> = None,
        /// Names that may be asked for beside `localhost` and addresses (Host), parted by commas; with `write_key` and
        /// `admin_key` any name may, unless some are listed.
        allowed_hosts: Option<String> = None,
        /// Connections at most; to each one more, all but health, metrics and the page is refused with 503.
        max_connections: usize = 4096,
        /// Requests under way at most, health and metrics not counted; their bodies hold 256 KiB of memory for each
        /// of them at most, all together.
        max_requests: usize = 2048,
        /// Bytes of a request's head at most.
        max_head_bytes: usize = 64 << 10,
        /// Header lines of a request at most.
        max_headers: usize = 100,
        /// Bytes of a request's path and query at most.
        max_uri_bytes: usize = 16 << 10,
        /// Seconds in which a request's head, once begun, must be there; also for the handshake of TLS.
        head_timeout: u64 = 10,
        /// Seconds that a connection stays open without a request.
        idle_timeout: u64 = 75,
        /// Seconds that a client may be waited for while it sends a body or takes an answer, beyond `min_rate`.
        stall_timeout: u64 = 20,
        /// Bytes a second that a client must send of a body and take of an answer, once `stall_timeout` is used up.
        min_rate: u64 = 1024,
        /// Bytes of a request's body at most; a stream of NDJSON may be longer, a line of it not.
        max_body_bytes: usize = 8 << 20,
        /// Bytes of an answer at most: a page of documents ends before, a search that finds more is refused. Answers that
        /// are not taken yet hold 512 KiB of memory for each of `max_requests` at most, all together.
        max_answer_bytes: usize = 64 << 20,
        /// Hits that one query may ask for, `offset` included.
        max_hits: usize = 10_000,
        /// Queries or texts in one request at most.
        max_batch: usize = 1024,
        /// Characters of one query at most.
        max_query_chars: usize = 10_000,
        /// The share of the queries of `/feedback` that is kept aside to measure with (dev); the rest is trained on.
        feedback_dev_share: f64 = 0.2,
        /// Seconds that an answer may take, counted from the last that came of the request; then it is a 503.
        request_timeout: u64 = 60,
        /// Seconds that a stopping server waits for the requests under way.
        drain_timeout: u64 = 30,
        /// Milliseconds from which on a search is told to the log as a slow one, with its stages; 0 is never.
        slow_query_ms: u64 = 1000,
        /// Whether the log of slow queries holds their texts; without, only their lengths.
        log_queries: bool = false,
        /// Where traces go over OTLP (HTTP, protobuf), such as `http://127.0.0.1:4318`; nowhere by default.
        otlp_endpoint: Option<String> = None,
        /// The share of the requests that are traced; those that a client traces always are.
        trace_share: f64 = 1.0,
        /// Generations that stay on disk after a refresh; the live one and the one it was trained from always do.
        keep_generations: usize = 3,
        /// MiB of memory that the process of a refresh may hold; one with more is killed. 0 is no limit.
        refresh_memory: u64 = 0,
        /// Seconds that the process of a refresh may say nothing; one that hangs for longer is killed. 0 is no limit.
        refresh_stall: u64 = 1800,
    }
}

impl Settings {
    /// Puts the layers together: defaults, `anced.toml` (or `config`), the environment, then the given flag groups.
    ///
    /// # Errors
    /// Unknown keys, values that do not parse and values out of range, each with its source.
    pub fn load(config: Option<&Path>, flags: &[&dyn FlagGroup]) -> Result<Self, Error> {
        if let Some(path) = config.filter(|path| !path.is_file()) {
            return Err(Error::Missing(path.to_path_buf()));
        }
        let file = config.unwrap_or(Path::new("anced.toml"));
        let environment = Env::prefixed("ANCED_").ignore(&OTHER_VARIABLES);
        let variables = environment.iter().map(|(key, value)| (key.to_string(), value));
        let texts: BTreeMap<String, String> = variables.filter(|(key, _)| Self::is_text(key)).collect();
        let mut figment = Figment::from(Serialized::defaults(Self::default()))
            .merge(Toml::file(file))
            .merge(environment.filter(|key| !Self::is_text(&key.as_str().to_ascii_lowercase())))
            .merge(Serialized::defaults(texts));
        for group in flags {
            figment = group.merge_into(figment);
        }
        Self::extracted(&figment)
    }

    /// The defaults with flag groups over them: for a process that is handed its settings, and must heed no file or
    /// environment that it happens to start in.
    ///
    /// # Errors
    /// Values out of range.
    pub fn of_flags(flags: &[&dyn FlagGroup]) -> Result<Self, Error> {
        let defaults = Figment::from(Serialized::defaults(Self::default()));
        Self::extracted(&flags.iter().fold(defaults, |figment, group| group.merge_into(figment)))
    }

    fn extracted(figment: &Figment) -> Result<Self, Error> {
        let settings: Self = figment.extract().map_err(|error| Error::Source(Box::new(error)))?;
        settings.check()?;
        Ok(settings)
    }

    fn check(&self) -> Result<(), Error> {
        let at_least_one = [
            ("token_budget", self.token_budget),
            ("queue_limit", self.queue_limit),
            ("expansion_add", self.expansion_add),
            ("expansion_search", self.expansion_search),
            ("max_hits", self.max_hits),
            ("max_batch", self.max_batch),
            ("max_body_bytes", self.max_body_bytes),
            ("max_answer_bytes", self.max_answer_bytes),
            ("max_query_chars", self.max_query_chars),
            ("keep_generations", self.keep_generations),
            ("max_connections", self.max_connections),
            ("max_requests", self.max_requests),
            ("max_headers", self.max_headers),
            ("max_uri_bytes", self.max_uri_bytes),
        ];
        let also_at_least_one = [
            ("save_after", self.save_after),
            ("head_timeout", self.head_timeout),
            ("idle_timeout", self.idle_timeout),
            ("stall_timeout", self.stall_timeout),
            ("min_rate", self.min_rate),
        ];
        let at_least_one = at_least_one.iter().find(|(_, value)| *value == 0).map(|(key, _)| *key);
        let also_at_least_one = also_at_least_one.iter().find(|(_, value)| *value == 0).map(|(key, _)| *key);
        if let Some(key) = at_least_one.or(also_at_least_one) {
            return Err(Error::Range { key, value: "0".into(), rule: "at least 1" });
        }
        let (connectivity, percent, share) = (self.connectivity, self.filter_exact_percent, self.feedback_dev_share);
        let head = self.max_head_bytes;
        let traced = self.trace_share;
        let within = [
            ("chunks", (1..=MOST_CHUNKS).contains(&self.chunks), self.chunks.to_string(), "1 to 256"),
            ("connectivity", (2..=512).contains(&connectivity), connectivity.to_string(), "2 to 512"),
            ("filter_exact_percent", percent <= 100, percent.to_string(), "0 to 100"),
            ("max_head_bytes", (1024..=1 << 20).contains(&head), head.to_string(), "1024 to 1048576"),
            ("feedback_dev_share", (0.0..=1.0).contains(&share), share.to_string(), "0 to 1"),
            ("tolerance", self.tolerance.is_finite(), self.tolerance.to_string(), "a number"),
            ("trace_share", (0.0..=1.0).contains(&traced), traced.to_string(), "0 to 1"),
        ];
        match within.into_iter().find(|(_, is_within, _, _)| !is_within) {
            Some((key, _, value, rule)) => Err(Error::Range { key, value, rule }),
            None => Ok(()),
        }
    }
}

/// A group of flags that [`Settings::load`] lays over the other sources.
pub trait FlagGroup {
    /// Merges the flags that were given.
    fn merge_into(&self, figment: Figment) -> Figment;
}

impl<T: Serialize> FlagGroup for T {
    fn merge_into(&self, figment: Figment) -> Figment {
        figment.merge(Serialized::defaults(self))
    }
}

#[cfg(test)]
mod tests;
