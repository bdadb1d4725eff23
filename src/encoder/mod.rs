//! Text in, vectors out: checkpoint, tokenizer, pooling, batching of concurrent queries.

mod checkpoint;
mod encoder;
mod error;
mod model;
mod modules;
mod queue;
mod text;

pub use checkpoint::{Checkpoint, Overrides};
pub use encoder::{Encoder, EncoderOptions};
pub use error::Error;
pub use queue::{EncodeTimes, Encoded};
pub use text::Side;
