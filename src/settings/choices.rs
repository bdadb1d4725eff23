//! Settings that are one of a few.

use std::str::FromStr;

use clap::ValueEnum;
use serde::{Deserialize, Serialize};

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

/// Which values training settings have by default.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum RecipeChoice {
    /// ANCE negatives with in-batch negatives, for normalised encoders.
    Default,
    /// ANCE as published: pairwise loss, LAMB, 20 of the 200 best documents a query.
    Paper,
}

/// How weights follow their gradients.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum OptimizerChoice {
    /// AdamW.
    #[value(name = "adamw")]
    AdamW,
    /// LAMB.
    Lamb,
}

/// What training minimises.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum LossChoice {
    /// One positive against one negative.
    Pairwise,
    /// Each positive against all documents of the batch.
    InBatch,
}

/// The sources of negatives that the paper compares (Xiong et al. 2020, table 1), and none beside the batch's own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Negatives {
    /// The documents that the encoder itself ranks highest.
    Ance,
    /// Those that BM25 ranks highest.
    Bm25,
    /// Any document.
    Random,
    /// Half from BM25, half any.
    #[value(name = "bm25+random")]
    #[serde(rename = "bm25+random")]
    Bm25Random,
    /// None: only the positives of the other queries of the batch.
    None,
}
