//! A node of the forward graph, as the rules see it.

use crate::onnx::facts::{attribute, integer};
use crate::onnx::proto::NodeProto;
use crate::onnx::{Error, Value};

/// Operators whose results do not change with their inputs by small amounts, or are no floats.
const CONSTANT: [&str; 25] = [
    "And",
    "ArgMax",
    "ArgMin",
    "Ceil",
    "ConstantOfShape",
    "Equal",
    "EyeLike",
    "Floor",
    "Greater",
    "GreaterOrEqual",
    "IsInf",
    "IsNaN",
    "Less",
    "LessOrEqual",
    "NonZero",
    "Not",
    "OneHot",
    "Or",
    "RandomNormalLike",
    "RandomUniformLike",
    "Round",
    "Shape",
    "Sign",
    "Size",
    "Xor",
];

/// `TensorProto.DataType`: 32, 16, 64 bits, and bfloat16.
const FLOATS: [i64; 4] = [1, 10, 11, 16];

/// A node of the forward graph.
#[derive(Debug)]
pub(super) struct Node {
    /// Where it stands in the graph.
    pub(super) place: usize,
    proto: NodeProto,
}

impl Node {
    pub(super) fn new(place: usize, proto: &NodeProto) -> Self {
        Self { place, proto: proto.clone() }
    }

    pub(super) fn operator(&self) -> &str {
        &self.proto.op_type
    }

    /// The standard domain has two names.
    pub(super) fn domain(&self) -> &str {
        if self.proto.domain == "ai.onnx" { "" } else { &self.proto.domain }
    }

    /// Whether no gradient flows through the node, whatever reaches it.
    pub(super) fn is_constant(&self) -> bool {
        let rounds = self.operator() == "Cast" && !FLOATS.contains(&self.integer("to", 1));
        rounds || CONSTANT.contains(&self.operator())
    }

    /// What the node reads, in the bodies of loops and branches too.
    pub(super) fn reads(&self) -> Vec<&str> {
        reads(&self.proto)
    }

    /// Outputs by place; left out ones are empty.
    pub(super) fn output_names(&self) -> impl Iterator<Item = &str> {
        self.proto.output.iter().map(String::as_str)
    }

    pub(super) fn outputs(&self) -> impl Iterator<Item = &str> {
        self.output_names().filter(|name| !name.is_empty())
    }

    pub(super) fn count(&self) -> usize {
        self.proto.input.len()
    }

    /// An input that may be left out.
    pub(super) fn optional(&self, input: usize) -> Option<Value> {
        self.proto.input.get(input).filter(|name| !name.is_empty()).map(Value::new)
    }

    pub(super) fn input(&self, input: usize) -> Result<Value, Error> {
        self.optional(input).ok_or_else(|| self.refuse(&format!("input {input} is missing")))
    }

    pub(super) fn output(&self, output: usize) -> Result<Value, Error> {
        let name = self.proto.output.get(output).filter(|name| !name.is_empty());
        name.map(Value::new).ok_or_else(|| self.refuse(&format!("output {output} is missing")))
    }

    pub(super) fn integer(&self, name: &str, absent: i64) -> i64 {
        integer(&self.proto, name, absent)
    }

    pub(super) fn float(&self, name: &str, absent: f32) -> f32 {
        attribute(&self.proto, name).map_or(absent, |attribute| attribute.f)
    }

    pub(super) fn integers(&self, name: &str) -> Option<&[i64]> {
        attribute(&self.proto, name).map(|attribute| attribute.ints.as_slice())
    }

    pub(super) fn text(&self, name: &str) -> Option<&[u8]> {
        attribute(&self.proto, name).map(|attribute| attribute.s.as_slice())
    }

    pub(super) fn refuse(&self, reason: &str) -> Error {
        Error::Gradient {
            operator: self.proto.op_type.clone(),
            node: self.proto.name.clone(),
            reason: reason.to_owned(),
        }
    }
}

fn reads(node: &NodeProto) -> Vec<&str> {
    let inner = node.attribute.iter().filter_map(|attribute| attribute.g.as_ref()).flat_map(|graph| &graph.node);
    let own = node.input.iter().map(String::as_str).filter(|name| !name.is_empty());
    own.chain(inner.flat_map(reads)).collect()
}
