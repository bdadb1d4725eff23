//! Training in ONNX Runtime: one session computes loss and gradients, others update the weights.
//!
//! Weights, moments and gradients are flat vectors in the device's memory; sessions read and write parts of them in
//! place, and only the loss and the gradient's norm come to the host. Two kinds of sessions, because within one graph a
//! weight could be overwritten before its last use.

mod batch;
mod elementwise;
mod loss_scale;
mod memory;
mod session;
mod step;
mod trust;

pub use batch::{Batch, Buckets, Example};
pub use loss_scale::LossScale;
pub use session::{Moments, TrainingOptions, TrainingPrecision, TrainingSession, Update};
pub use step::Task;
