//! What can go wrong between a graph and its values.

use std::path::PathBuf;

/// The errors of the onnx room.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// ONNX Runtime's shared library is nowhere.
    #[error(
        "ONNX Runtime's shared library was not found (looked in {looked}); run `make setup`, or set ANCED_ONNXRUNTIME to \
         the path of libonnxruntime.so"
    )]
    LibraryMissing {
        /// The places that were searched.
        looked: String,
    },
    /// The library is there but cannot be used.
    #[error("ONNX Runtime could not be loaded: {0}; run `make setup` for a fitting version, or set ANCED_ONNXRUNTIME")]
    Library(String),
    /// The device that was asked for cannot be had.
    #[error(
        "device {device} cannot be used: {reason}; check the driver and the CUDA 13 libraries, or set device = cpu"
    )]
    Device {
        /// As the user named it.
        device: String,
        /// What the runtime said.
        reason: String,
    },
    /// ONNX Runtime refused a graph or failed while it ran.
    #[error("ONNX Runtime failed to {action}: {reason}")]
    Run {
        /// What was attempted.
        action: &'static str,
        /// What the runtime said.
        reason: String,
    },
    /// A tensor that the graph needs is not in the checkpoint.
    #[error("{file}: no tensor `{name}`; the checkpoint is incomplete or of another family")]
    TensorMissing {
        /// Where it was looked for.
        file: PathBuf,
        /// Its name.
        name: String,
    },
    /// A tensor has another shape or type than the configuration says.
    #[error("{file}: tensor `{name}`: {reason}")]
    Tensor {
        /// Where it was found.
        file: PathBuf,
        /// Its name.
        name: String,
        /// What does not fit.
        reason: String,
    },
    /// A weights file cannot be read.
    #[error("{file}: {reason}")]
    File {
        /// Which.
        file: PathBuf,
        /// Why.
        reason: String,
    },
    /// A batch that a model cannot be trained on.
    #[error("batch cannot be trained on: {0}")]
    Batch(String),
    /// Training that left the numbers.
    #[error(
        "training diverged at step {step}: loss {loss}, gradient norm {norm}; lower the learning rate, or warm up longer"
    )]
    Diverged {
        /// The step, from 1.
        step: u64,
        /// Its loss.
        loss: f32,
        /// The norm of its gradient.
        norm: f64,
    },
    /// A gradient that cannot be written.
    #[error("node `{node}`: the gradient of operator `{operator}` is not known: {reason}")]
    Gradient {
        /// The operator's type.
        operator: String,
        /// The node's name.
        node: String,
        /// What is missing.
        reason: String,
    },
    /// A model folder's configuration cannot be expressed as a graph.
    #[error("{0}")]
    Unsupported(String),
}

impl Error {
    pub(super) fn run<R>(action: &'static str) -> impl FnOnce(ort::Error<R>) -> Self {
        move |error| Self::Run { action, reason: error.to_string() }
    }
}
