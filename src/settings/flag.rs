//! How the type of a setting is given: on the command line, and in the environment.

use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::path::PathBuf;

use super::choices::{
    Device, LogFormat, LossChoice, Negatives, OptimizerChoice, Pooling, Precision, Quantization, RecipeChoice,
    Similarity, VectorType,
};

/// What a flag carries for a setting of this type: the inside of an `Option`, else the type itself.
pub trait Flag {
    /// The type that the flag parses to.
    type Value: Clone + std::fmt::Debug;
    /// Whether the flag's name alone says `true`; another value then follows `=`.
    const IS_SWITCH: bool = false;
    /// Whether a variable of the environment is taken as it stands: a key of digits is no number.
    const IS_TEXT: bool = false;
    /// How many values it takes.
    const VALUES: RangeInclusive<usize> = if Self::IS_SWITCH { 0..=1 } else { 1..=1 };
}

impl Flag for bool {
    type Value = bool;
    const IS_SWITCH: bool = true;
}

macro_rules! flags {
    ($is_text:literal: $($type:ty),*) => { $(
        impl Flag for $type {
            type Value = $type;
            const IS_TEXT: bool = $is_text;
        }
        impl Flag for Option<$type> {
            type Value = $type;
            const IS_TEXT: bool = $is_text;
        }
    )* };
}
flags!(true: String, PathBuf);
flags!(
    false: SocketAddr,
    usize,
    u64,
    f32,
    f64,
    Device,
    Precision,
    Pooling,
    Similarity,
    Quantization,
    VectorType,
    LogFormat,
    RecipeChoice,
    OptimizerChoice,
    LossChoice,
    Negatives
);
