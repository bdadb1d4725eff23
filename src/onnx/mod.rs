//! ONNX graphs as values: builder, BERT-family graphs, gradients, sessions that serve and that train.
//!
//! A graph is written with [`GraphBuilder`], serialised as the protobuf of onnx.proto, and run by ONNX Runtime, which
//! is loaded when the program runs. Weights are no part of a graph: they are handed to the session as initializers, so
//! that one graph serves every checkpoint of a shape.

pub mod bert;
mod builder;
mod error;
mod facts;
mod gradient;
mod graph;
mod head;
mod import;
mod loss;
mod optimizer;
mod proto;
mod runtime;
mod session;
mod shapes;
mod topk;
mod training;
mod value;
mod weights;

pub use builder::GraphBuilder;
pub use error::Error;
pub use gradient::gradients;
pub use graph::Graph;
pub(crate) use graph::is_our_file;
pub use head::{Activation, Head, PoolingMode, head_graph};
pub use loss::{Loss, Objective};
pub use optimizer::{Adam, Optimizer};
pub use runtime::{Placement, Runtime};
pub use session::{HeadSession, Output, TextSession};
pub use topk::{BLOCK_ROWS, TopK};
pub use training::{
    Batch, Buckets, Example, LossScale, Moments, Task, TrainingOptions, TrainingPrecision, TrainingSession, Update,
};
pub use value::{ElementType, Value};
pub use weights::{Replaced, Tensor, Weights, WeightsFile, write_safetensors};
