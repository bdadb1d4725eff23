//! Text in, vectors out: checkpoint, tokenizer, pooling, batching of concurrent queries.

mod checkpoint;
mod convert;
mod error;
mod model;
mod modules;
mod pickle;
mod queue;
mod ready;
mod text;
mod vocabulary;
mod write;

pub use checkpoint::{Checkpoint, Overrides};
pub use convert::{Made, convert};
pub use error::Error;
pub use queue::{EncodeTimes, Encoded};
pub use ready::{Encoder, EncoderOptions};
pub use text::{Side, TextEncoder};
