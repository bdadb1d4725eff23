//! What graphs are made of: element types, tensors by name, attributes, dimensions.

use super::proto::{
    ATTRIBUTE_FLOAT, ATTRIBUTE_INT, ATTRIBUTE_INTS, ATTRIBUTE_STRING, AttributeProto, DimensionProto, DimensionValue,
    TensorShapeProto, TensorTypeProto, TypeProto, ValueInfoProto,
};

/// The element types in use; the numbers are those of `TensorProto.DataType`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ElementType {
    /// 32-bit float.
    F32 = 1,
    /// 64-bit integer.
    I64 = 7,
    /// 32-bit integer.
    I32 = 6,
    /// True or false.
    Bool = 9,
    /// 16-bit float.
    F16 = 10,
    /// 16-bit float with the exponent of 32-bit floats.
    BF16 = 16,
}

impl ElementType {
    /// Bytes of one element.
    pub(super) fn bytes(self) -> usize {
        match self {
            Self::Bool => 1,
            Self::F16 | Self::BF16 => 2,
            Self::F32 | Self::I32 => 4,
            Self::I64 => 8,
        }
    }
}

/// A tensor in a graph, by name.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Value(String);

impl Value {
    /// The tensor of that name in whatever graph it is used with.
    pub fn new(name: impl Into<String>) -> Self {
        Self(name.into())
    }

    /// The tensor's name.
    pub fn name(&self) -> &str {
        &self.0
    }
}

/// An attribute of a node.
#[derive(Debug, Clone)]
pub(super) enum Attribute {
    Int(i64),
    Float(f32),
    Ints(Vec<i64>),
    Text(&'static str),
}

/// A dimension of an input or output: a size, or a name for one that changes.
#[derive(Debug, Clone)]
pub(super) enum Dimension {
    Size(i64),
    Name(&'static str),
}

pub(super) fn attribute(name: &str, value: &Attribute) -> AttributeProto {
    let base = AttributeProto { name: name.into(), ..AttributeProto::default() };
    match value {
        Attribute::Int(i) => AttributeProto { i: *i, r#type: ATTRIBUTE_INT, ..base },
        Attribute::Float(f) => AttributeProto { f: *f, r#type: ATTRIBUTE_FLOAT, ..base },
        Attribute::Ints(ints) => AttributeProto { ints: ints.clone(), r#type: ATTRIBUTE_INTS, ..base },
        Attribute::Text(text) => AttributeProto { s: text.as_bytes().to_vec(), r#type: ATTRIBUTE_STRING, ..base },
    }
}

pub(super) fn value_info(name: &str, element: ElementType, shape: &[Dimension]) -> ValueInfoProto {
    let dim = shape
        .iter()
        .map(|dimension| DimensionProto {
            value: Some(match dimension {
                Dimension::Size(size) => DimensionValue::Size(*size),
                Dimension::Name(name) => DimensionValue::Name((*name).into()),
            }),
        })
        .collect();
    let tensor_type = TensorTypeProto { elem_type: element as i32, shape: Some(TensorShapeProto { dim }) };
    ValueInfoProto { name: name.into(), r#type: Some(TypeProto { tensor_type: Some(tensor_type) }) }
}
