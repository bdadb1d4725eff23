//! Everything that a user can set: a flag over an environment variable over `anced.toml` over the default.
//!
//! The groups below are at once flags of the command line, keys of `anced.toml` and, in capitals with the prefix
//! `ANCED_`, environment variables: `--token-budget`, `token_budget`, `ANCED_TOKEN_BUDGET`.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use clap::{Args, ValueEnum};
use figment::Figment;
use figment::providers::{Env, Format, Serialized, Toml};
use serde::{Deserialize, Serialize};

/// Names of environment variables that start with `ANCED_` and are read elsewhere.
const OTHER_VARIABLES: [&str; 4] = ["config", "reference", "test_device", "test_precision"];

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

/// Where the encoder runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Device {
    /// CUDA where it can be had, else the CPU with a warning.
    #[default]
    Auto,
    /// The CPU.
    Cpu,
    /// A CUDA device by number; nothing else will do.
    Cuda(u32),
}

impl FromStr for Device {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.split_once(':') {
            None if text == "auto" => Ok(Self::Auto),
            None if text == "cpu" => Ok(Self::Cpu),
            None if text == "cuda" => Ok(Self::Cuda(0)),
            Some(("cuda", number)) => {
                number.parse().map(Self::Cuda).map_err(|_| format!("`{number}` is not a device number"))
            }
            _ => Err(format!("`{text}` is not a device: auto, cpu, cuda or cuda:N")),
        }
    }
}

impl std::fmt::Display for Device {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Auto => formatter.write_str("auto"),
            Self::Cpu => formatter.write_str("cpu"),
            Self::Cuda(number) => write!(formatter, "cuda:{number}"),
        }
    }
}

impl Serialize for Device {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Device {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

/// How a log line looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line, for collectors.
    Json,
}

/// The arithmetic of the encoder.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Precision {
    /// fp16 on CUDA, fp32 on the CPU.
    Auto,
    /// 32-bit floats.
    Fp32,
    /// 16-bit floats; CUDA only.
    Fp16,
}

/// How token vectors become one vector.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Pooling {
    /// The first token's vector.
    Cls,
    /// The mean over all tokens but padding.
    Mean,
}

/// How two vectors are compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Similarity {
    /// The inner product.
    Dot,
    /// The inner product of the vectors brought to length 1.
    Cosine,
}

/// How the HNSW graph stores vectors; scores are computed from the full vectors whatever is chosen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Quantization {
    /// 32-bit floats.
    F32,
    /// 16-bit floats.
    F16,
    /// 16-bit floats with 8 bits of exponent.
    Bf16,
    /// 8-bit integers; for vectors of length 1 only.
    I8,
}

/// How `vectors.safetensors` stores vectors.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum VectorType {
    /// 32-bit floats.
    F32,
    /// 16-bit floats.
    F16,
}

macro_rules! settings {
    ($($(#[$group_doc:meta])* $group:ident { $($(#[doc = $doc:literal])+ $key:ident: $type:ty = $default:expr,)* })*) => {
        /// Every setting with its value.
        #[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
        #[serde(deny_unknown_fields)]
        pub struct Settings {
            $($($(#[doc = $doc])+ pub $key: $type,)*)*
        }

        impl Default for Settings {
            fn default() -> Self {
                Self { $($($key: $default,)*)* }
            }
        }

        $(
            $(#[$group_doc])*
            #[derive(Debug, Clone, Default, Args, Serialize)]
            pub struct $group {
                $(
                    $(#[doc = $doc])+
                    #[arg(long)]
                    #[serde(skip_serializing_if = "Option::is_none")]
                    pub $key: Option<<$type as Flag>::Value>,
                )*
            }
        )*
    };
}

/// What a flag carries for a setting of this type: the inside of an `Option`, else the type itself.
pub trait Flag {
    /// The type that the flag parses to.
    type Value: Clone + std::fmt::Debug;
}

macro_rules! flags {
    ($($type:ty),*) => { $(
        impl Flag for $type { type Value = $type; }
        impl Flag for Option<$type> { type Value = $type; }
    )* };
}
flags!(
    String,
    PathBuf,
    SocketAddr,
    bool,
    usize,
    u64,
    Device,
    Precision,
    Pooling,
    Similarity,
    Quantization,
    VectorType,
    LogFormat
);

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
        /// Bytes of a request's body at most; a stream of NDJSON may be longer, a line of it not.
        max_body_bytes: usize = 8 << 20,
        /// Hits that one query may ask for, `offset` included.
        max_hits: usize = 10_000,
        /// Queries or texts in one request at most.
        max_batch: usize = 1024,
        /// Characters of one query at most.
        max_query_chars: usize = 10_000,
        /// Seconds that a request may take before it is answered with 503.
        request_timeout: u64 = 60,
        /// Seconds that a stopping server waits for the requests under way.
        drain_timeout: u64 = 30,
        /// Generations that stay on disk after a refresh; the live one and the one it was trained from always do.
        keep_generations: usize = 3,
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
        let mut figment = Figment::from(Serialized::defaults(Self::default()))
            .merge(Toml::file(file))
            .merge(Env::prefixed("ANCED_").ignore(&OTHER_VARIABLES));
        for group in flags {
            figment = group.merge_into(figment);
        }
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
            ("max_query_chars", self.max_query_chars),
            ("keep_generations", self.keep_generations),
        ];
        let at_least_one = at_least_one.iter().find(|(_, value)| *value == 0).map(|(key, _)| *key);
        if let Some(key) = at_least_one.or((self.save_after == 0).then_some("save_after")) {
            return Err(Error::Range { key, value: "0".into(), rule: "at least 1" });
        }
        if !(2..=512).contains(&self.connectivity) {
            return Err(Error::Range { key: "connectivity", value: self.connectivity.to_string(), rule: "2 to 512" });
        }
        if self.filter_exact_percent > 100 {
            return Err(Error::Range {
                key: "filter_exact_percent",
                value: self.filter_exact_percent.to_string(),
                rule: "0 to 100",
            });
        }
        Ok(())
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
mod tests {
    use super::*;

    #[test]
    fn devices_are_read_as_written() {
        for text in ["auto", "cpu", "cuda:0", "cuda:3"] {
            assert_eq!(text.parse::<Device>().unwrap().to_string(), text);
        }
        assert_eq!("cuda".parse::<Device>().unwrap(), Device::Cuda(0));
        for text in ["", "gpu", "cuda:", "cuda:x", "cpu:1"] {
            assert!(text.parse::<Device>().is_err(), "{text}");
        }
    }

    #[test]
    fn flags_overrule_the_file_and_unknown_keys_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("anced.toml");
        std::fs::write(&file, "connectivity = 24\nexpansion_add = 64\ndevice = \"cpu\"\n").unwrap();
        let flags = IndexArgs { connectivity: Some(32), ..IndexArgs::default() };
        let settings = Settings::load(Some(&file), &[&flags]).unwrap();
        assert_eq!((settings.connectivity, settings.expansion_add, settings.device), (32, 64, Device::Cpu));

        std::fs::write(&file, "conectivity = 24\n").unwrap();
        let error = Settings::load(Some(&file), &[]).unwrap_err().to_string();
        assert!(error.contains("conectivity"), "{error}");

        std::fs::write(&file, "connectivity = 1\n").unwrap();
        let error = Settings::load(Some(&file), &[]).unwrap_err().to_string();
        assert!(error.contains("2 to 512"), "{error}");
    }
}
