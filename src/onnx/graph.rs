//! Finished graphs.

use prost::Message as _;

use super::proto::{LOCATION_EXTERNAL, ModelHeadProto, ModelProto, TensorProto};
use super::{ElementType, Tensor, Weights};

/// The operator set that graphs are written in; `Gelu` came with 20.
pub(super) const OPSET: i64 = 20;
/// The IR version that belongs to it.
pub(super) const IR_VERSION: i64 = 10;
/// ONNX Runtime's own operators.
pub(super) const MICROSOFT: &str = "com.microsoft";
/// What `producer_name` says in files written here.
pub(super) const PRODUCER: &str = "anced";

/// A finished graph: nodes and constants, and the names and shapes of the weights that it wants.
#[derive(Debug, Clone)]
pub struct Graph {
    pub(super) model: ModelProto,
    pub(super) weights: Vec<WeightSlot>,
    /// The type that weights must be handed over in.
    pub weight_type: ElementType,
}

/// A weight that a graph wants.
#[derive(Debug, Clone)]
pub(super) struct WeightSlot {
    /// The initializer's name in the graph, the tensor's name in the checkpoint.
    pub(super) name: String,
    /// As the configuration says.
    pub(super) shape: Vec<usize>,
}

impl Graph {
    /// The graph as a model file whose weights come from outside.
    pub fn to_bytes(&self) -> Vec<u8> {
        self.model.encode_to_vec()
    }

    /// The graph with its weights inside: a file that any ONNX server can run.
    ///
    /// # Errors
    /// A weight that is missing or of another shape.
    pub fn to_bytes_with(&self, weights: &Weights) -> Result<Vec<u8>, super::Error> {
        let mut model = self.model.clone();
        if let Some(graph) = model.graph.as_mut() {
            graph.initializer.retain(|tensor| tensor.data_location != LOCATION_EXTERNAL);
            for slot in &self.weights {
                let Tensor { shape, data } = weights.tensor(&slot.name, &slot.shape)?;
                graph.initializer.push(TensorProto {
                    dims: shape.iter().map(|&size| size as i64).collect(),
                    data_type: ElementType::F32 as i32,
                    name: slot.name.clone(),
                    raw_data: data.iter().flat_map(|value| value.to_le_bytes()).collect(),
                    ..TensorProto::default()
                });
            }
        }
        Ok(model.encode_to_vec())
    }

    /// The names of its outputs.
    pub(super) fn outputs(&self) -> impl Iterator<Item = &str> {
        self.model.graph.iter().flat_map(|graph| &graph.output).map(|output| output.name.as_str())
    }

    pub(super) fn weights(&self) -> &[WeightSlot] {
        &self.weights
    }
}

/// Whether an ONNX file was written by anced itself, from its first bytes.
pub(crate) fn is_our_file(file: &[u8]) -> bool {
    ModelHeadProto::decode(file).is_ok_and(|head| head.producer_name == PRODUCER)
}
