//! Sessions that turn token ids into vectors.

use std::path::Path;
use std::sync::Arc;

use half::f16;
use ort::session::{Session, SessionInputValue};
use ort::value::{DynValue, Tensor as OrtTensor, TensorElementType, ValueType};

use super::{ElementType, Error, Graph, Placement, Runtime, Weights};

/// A transformer in a session: token ids and mask in; what comes out depends on the graph.
#[derive(Debug)]
pub struct TextSession {
    session: Session,
    token_types: bool,
    output: String,
    /// Whether the output is one vector a text rather than one a token.
    pooled: bool,
    size: Option<usize>,
}

/// Values of a run and their shape.
#[derive(Debug)]
pub struct Output {
    /// [batch, size] or [batch, tokens, size].
    pub shape: Vec<usize>,
    /// Row-major.
    pub data: Vec<f32>,
}

impl TextSession {
    /// A session of a graph written here, with the checkpoint's weights.
    ///
    /// # Errors
    /// A weight that is missing or of another shape, a device that cannot be had, a graph that the runtime refuses.
    pub fn from_graph(
        runtime: &Runtime,
        placement: Placement,
        graph: &Graph,
        weights: &Weights,
    ) -> Result<Self, Error> {
        let mut builder = runtime.builder(placement)?;
        for slot in graph.weights() {
            let tensor = weights.tensor(&slot.name, &slot.shape)?;
            let value: DynValue = match graph.weight_type {
                ElementType::F16 => {
                    let data: Vec<f16> = tensor.data.iter().map(|&value| f16::from_f32(value)).collect();
                    OrtTensor::from_array((tensor.shape, data)).map_err(Error::run("take a weight"))?.into_dyn()
                }
                _ => {
                    OrtTensor::from_array((tensor.shape, tensor.data)).map_err(Error::run("take a weight"))?.into_dyn()
                }
            };
            builder =
                builder.with_external_initializer(&slot.name, Arc::new(value)).map_err(Error::run("take a weight"))?;
        }
        let session =
            builder.commit_from_memory(&graph.to_bytes()).map_err(Error::run("make the encoder's session"))?;
        Self::new(session, "the encoder's graph")
    }

    /// A session of an ONNX file as it is.
    ///
    /// # Errors
    /// A file that the runtime refuses, or whose inputs and outputs are not those of a text encoder.
    pub fn from_file(runtime: &Runtime, placement: Placement, path: &Path) -> Result<Self, Error> {
        let session = runtime
            .builder(placement)?
            .commit_from_file(path)
            .map_err(|error| Error::File { file: path.to_path_buf(), reason: error.to_string() })?;
        Self::new(session, &path.display().to_string())
    }

    fn new(session: Session, name: &str) -> Result<Self, Error> {
        let has = |wanted: &str| session.inputs().iter().any(|input| input.name() == wanted);
        if !has("input_ids") || !has("attention_mask") {
            return Err(Error::Unsupported(format!("{name}: no inputs `input_ids` and `attention_mask`")));
        }
        let known = ["input_ids", "attention_mask", "token_type_ids"];
        if let Some(other) = session.inputs().iter().find(|input| !known.contains(&input.name())) {
            return Err(Error::Unsupported(format!("{name}: input `{}` is not known", other.name())));
        }
        let token_types = has("token_type_ids");
        let wanted = ["sentence_embedding", "last_hidden_state", "token_embeddings"];
        let output = wanted.iter().find_map(|wanted| session.outputs().iter().find(|output| output.name() == *wanted));
        let Some(output) = output.or(session.outputs().first()) else {
            return Err(Error::Unsupported(format!("{name}: no output")));
        };
        let (rank, size) = match output.dtype() {
            ValueType::Tensor { ty: TensorElementType::Float32, shape, .. } => {
                (shape.len(), shape.last().and_then(|&size| usize::try_from(size).ok()))
            }
            other => {
                return Err(Error::Unsupported(format!(
                    "{name}: output `{}` is {other:?}, not 32-bit floats",
                    output.name()
                )));
            }
        };
        if rank != 2 && rank != 3 {
            return Err(Error::Unsupported(format!(
                "{name}: output `{}` has {rank} dimensions, not 2 or 3",
                output.name()
            )));
        }
        let output = output.name().to_owned();
        Ok(Self { session, token_types, output, pooled: rank == 2, size })
    }

    /// Whether a run gives one vector a text; else one a token.
    pub fn pooled(&self) -> bool {
        self.pooled
    }

    /// Components of an output vector, where the graph says so.
    pub fn size(&self) -> Option<usize> {
        self.size
    }

    /// Runs a padded batch: `ids` and `mask` are [batch, tokens], row-major.
    ///
    /// # Errors
    /// What the runtime says.
    pub fn run(&mut self, ids: Vec<i64>, mask: &[i64], batch: usize, tokens: usize) -> Result<Output, Error> {
        let shape = [batch, tokens];
        let tensor = |data: Vec<i64>| OrtTensor::from_array((shape, data)).map_err(Error::run("take token ids"));
        let mut inputs: Vec<(&str, SessionInputValue<'_>)> = Vec::with_capacity(3);
        if self.token_types {
            inputs.push(("token_type_ids", tensor(vec![0; ids.len()])?.into()));
        }
        inputs.push(("input_ids", tensor(ids)?.into()));
        inputs.push(("attention_mask", tensor(mask.to_vec())?.into()));
        let outputs = self.session.run(inputs).map_err(Error::run("run the encoder"))?;
        extract(&outputs[self.output.as_str()])
    }
}

/// Pooling and what follows it in a session of its own, for transformers that came as ONNX files.
#[derive(Debug)]
pub struct HeadSession {
    session: Session,
}

impl HeadSession {
    /// A session of [`head_graph`](super::head::head_graph)'s graph.
    ///
    /// # Errors
    /// As [`TextSession::from_graph`].
    pub fn new(runtime: &Runtime, graph: &Graph, weights: &Weights) -> Result<Self, Error> {
        let mut builder = runtime.builder(Placement::Cpu)?;
        for slot in graph.weights() {
            let tensor = weights.tensor(&slot.name, &slot.shape)?;
            let value = OrtTensor::from_array((tensor.shape, tensor.data)).map_err(Error::run("take a weight"))?;
            builder = builder
                .with_external_initializer(&slot.name, Arc::new(value.into_dyn()))
                .map_err(Error::run("take a weight"))?;
        }
        let session = builder.commit_from_memory(&graph.to_bytes()).map_err(Error::run("make the head's session"))?;
        Ok(Self { session })
    }

    /// Token vectors [batch, tokens, size] to vectors [batch, dimension].
    ///
    /// # Errors
    /// What the runtime says.
    pub fn run(&mut self, hidden: Output, mask: &[i64]) -> Result<Output, Error> {
        let mask_shape = [hidden.shape[0], hidden.shape[1]];
        let hidden = OrtTensor::from_array((hidden.shape, hidden.data)).map_err(Error::run("take token vectors"))?;
        let mask = OrtTensor::from_array((mask_shape, mask.to_vec())).map_err(Error::run("take a mask"))?;
        let outputs = self
            .session
            .run(ort::inputs!["last_hidden_state" => hidden, "attention_mask" => mask])
            .map_err(Error::run("run the encoder's head"))?;
        extract(&outputs["sentence_embedding"])
    }
}

fn extract(value: &DynValue) -> Result<Output, Error> {
    let (shape, data) = value.try_extract_tensor::<f32>().map_err(Error::run("read the vectors"))?;
    Ok(Output { shape: shape.iter().map(|&size| size as usize).collect(), data: data.to_vec() })
}
