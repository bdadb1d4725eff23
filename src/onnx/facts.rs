//! What is known of a graph's values before it runs: element types, shapes, and the integers that shapes are made of.
//!
//! Only what the gradient rules ask for is inferred; what is not known stays open, and the rules then compute it while
//! the graph runs.

use std::collections::HashMap;

use super::proto::{AttributeProto, DimensionValue, GraphProto, NodeProto, TensorProto};
use super::{ElementType, Value};

/// A size, or a symbol for one that is not known; equal symbols are equal sizes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) enum Dim {
    Size(i64),
    Symbol(usize),
}

/// Axes of a value that is looked at, and numbers in one that says a shape; no real graph comes near.
pub(super) const MOST_AXES: usize = 64;

/// Facts by the names of values.
#[derive(Debug, Default)]
pub(super) struct Facts {
    shapes: HashMap<String, Vec<Dim>>,
    /// `TensorProto.DataType`.
    elements: HashMap<String, i32>,
    integers: HashMap<String, Vec<Dim>>,
    names: HashMap<String, usize>,
    /// A product of symbols and a factor is a symbol of its own.
    products: HashMap<(Vec<usize>, i64), usize>,
    factors: HashMap<usize, (Vec<usize>, i64)>,
    symbols: usize,
}

impl Facts {
    /// Goes through a graph once, in its order.
    pub(super) fn of(graph: &GraphProto) -> Self {
        let mut facts = Self::default();
        for info in graph.input.iter().chain(&graph.value_info) {
            let Some(tensor) = info.r#type.as_ref().and_then(|kind| kind.tensor_type.as_ref()) else { continue };
            facts.elements.insert(info.name.clone(), tensor.elem_type);
            let Some(shape) = &tensor.shape else { continue };
            let shape = shape.dim.iter().map(|dim| match &dim.value {
                Some(DimensionValue::Size(size)) => Dim::Size(*size),
                Some(DimensionValue::Name(name)) => facts.named(name),
                None => facts.fresh(),
            });
            let shape = shape.collect();
            facts.shapes.insert(info.name.clone(), shape);
        }
        for tensor in &graph.initializer {
            facts.tensor(&tensor.name, tensor);
        }
        for node in &graph.node {
            facts.node(node);
        }
        facts
    }

    pub(super) fn shape(&self, value: &Value) -> Option<&[Dim]> {
        self.shapes.get(value.name()).map(Vec::as_slice)
    }

    pub(super) fn rank(&self, value: &Value) -> Option<usize> {
        self.shape(value).map(<[Dim]>::len)
    }

    /// The integers of a value that holds sizes or axes.
    pub(super) fn integers(&self, value: &Value) -> Option<Vec<i64>> {
        sizes(self.integers.get(value.name())?)
    }

    /// The element type of a value; 32-bit floats where nothing is known.
    pub(super) fn element(&self, value: &Value) -> ElementType {
        const KNOWN: [ElementType; 6] = [
            ElementType::F32,
            ElementType::I64,
            ElementType::I32,
            ElementType::Bool,
            ElementType::F16,
            ElementType::BF16,
        ];
        let number = self.elements.get(value.name()).copied().unwrap_or(ElementType::F32 as i32);
        KNOWN.into_iter().find(|element| *element as i32 == number).unwrap_or(ElementType::F32)
    }

    fn named(&mut self, name: &str) -> Dim {
        if let Some(&symbol) = self.names.get(name) {
            return Dim::Symbol(symbol);
        }
        self.symbols += 1;
        self.names.insert(name.into(), self.symbols);
        Dim::Symbol(self.symbols)
    }

    /// A symbol for a size of which nothing is known.
    pub(super) fn fresh(&mut self) -> Dim {
        self.symbols += 1;
        Dim::Symbol(self.symbols)
    }

    /// The symbol of a product of symbols, which are in order, and a factor.
    pub(super) fn product_symbol(&mut self, symbols: Vec<usize>, factor: i64) -> Dim {
        let product = (symbols, factor);
        if let Some(&known) = self.products.get(&product) {
            return Dim::Symbol(known);
        }
        self.symbols += 1;
        self.factors.insert(self.symbols, product.clone());
        self.products.insert(product, self.symbols);
        Dim::Symbol(self.symbols)
    }

    /// What a symbol is the product of, where it is one.
    pub(super) fn product_of(&self, symbol: usize) -> Option<(&[usize], i64)> {
        self.factors.get(&symbol).map(|(symbols, factor)| (symbols.as_slice(), *factor))
    }

    pub(super) fn integers_named(&self, name: &str) -> Option<&Vec<Dim>> {
        self.integers.get(name)
    }

    pub(super) fn set_shape(&mut self, name: &str, shape: Vec<Dim>) {
        self.shapes.insert(name.into(), shape);
    }

    /// The axes that a reduction of a value of rank `rank` is over; none where they are not known.
    pub(super) fn reduced_axes(&self, node: &NodeProto, rank: usize) -> Option<Vec<usize>> {
        let axes = match node.input.get(1).filter(|name| !name.is_empty()) {
            Some(axes) => sizes(self.integers.get(axes)?)?,
            None => attribute(node, "axes").map(|axes| axes.ints.clone()).unwrap_or_default(),
        };
        if axes.is_empty() {
            let all = integer(node, "noop_with_empty_axes", 0) == 0;
            return Some(if all { (0..rank).collect() } else { Vec::new() });
        }
        Some(axes.iter().map(|&axis| place_in(axis, rank)).collect())
    }

    fn tensor(&mut self, name: &str, tensor: &TensorProto) {
        self.elements.insert(name.into(), tensor.data_type);
        self.shapes.insert(name.into(), tensor.dims.iter().map(|&size| Dim::Size(size)).collect());
        if let Some(integers) = integers_of(tensor) {
            self.integers.insert(name.into(), integers.into_iter().map(Dim::Size).collect());
        }
    }

    pub(super) fn get(&self, node: &NodeProto, input: usize) -> Option<&Vec<Dim>> {
        self.shapes.get(node.input.get(input)?)
    }

    pub(super) fn integer_input(&self, node: &NodeProto, input: usize) -> Option<&Vec<Dim>> {
        self.integers.get(node.input.get(input).filter(|name| !name.is_empty())?)
    }

    fn node(&mut self, node: &NodeProto) {
        let Some(output) = node.output.first() else { return };
        self.element_of(node);
        if let Some(integers) = self.integers_of(node) {
            self.integers.insert(output.clone(), integers);
        }
        match node.op_type.as_str() {
            "Constant" => {
                if let Some(tensor) = attribute(node, "value").and_then(|attribute| attribute.t.as_ref()) {
                    self.tensor(output, tensor);
                } else if attribute(node, "value_float").is_some() {
                    self.shapes.insert(output.clone(), Vec::new());
                }
            }
            "Split" => self.split(node),
            _ => {
                let Some(mut shape) = self.shape_of(node).filter(|shape| shape.len() <= MOST_AXES) else { return };
                if let ([length], Some(integers)) = (shape.as_mut_slice(), self.integers.get(output)) {
                    *length = Dim::Size(integers.len() as i64);
                }
                // What else a node gives, such as a mask, a mean and a deviation, nothing asks for.
                if let (Some(sum), "SkipLayerNormalization") = (node.output.get(3), node.op_type.as_str()) {
                    self.shapes.insert(sum.clone(), shape.clone());
                }
                self.shapes.insert(output.clone(), shape);
            }
        }
    }

    fn element_of(&mut self, node: &NodeProto) {
        let element = match node.op_type.as_str() {
            "Cast" => attribute(node, "to").map(|attribute| attribute.i as i32),
            "Shape" | "Size" | "ArgMax" | "ArgMin" | "NonZero" => Some(ElementType::I64 as i32),
            "Equal" | "Greater" | "GreaterOrEqual" | "Less" | "LessOrEqual" | "Not" | "And" | "Or" | "Xor"
            | "IsNaN" | "IsInf" => Some(ElementType::Bool as i32),
            "Constant" => None,
            "ConstantOfShape" => Some(
                attribute(node, "value")
                    .and_then(|attribute| attribute.t.as_ref())
                    .map_or(ElementType::F32 as i32, |tensor| tensor.data_type),
            ),
            "Where" => node.input.get(1).and_then(|name| self.elements.get(name)).copied(),
            "CastLike" => node.input.get(1).and_then(|name| self.elements.get(name)).copied(),
            _ => node.input.first().and_then(|name| self.elements.get(name)).copied(),
        };
        if let Some(element) = element {
            for output in &node.output {
                self.elements.insert(output.clone(), element);
            }
        }
    }

    /// The integers that a node of a shape computation gives.
    fn integers_of(&mut self, node: &NodeProto) -> Option<Vec<Dim>> {
        match node.op_type.as_str() {
            "Shape" => {
                let shape = self.get(node, 0)?;
                let rank = shape.len() as i64;
                let place = |name: &str, absent| {
                    let at = attribute(node, name).map_or(absent, |attribute| attribute.i);
                    (if at < 0 { at + rank } else { at }).clamp(0, rank) as usize
                };
                shape.get(place("start", 0)..place("end", rank)).map(<[Dim]>::to_vec)
            }
            "Constant" => {
                let list = attribute(node, "value_ints").map(|attribute| attribute.ints.clone());
                let one = attribute(node, "value_int").map(|attribute| vec![attribute.i]);
                let integers = list.or(one)?;
                let shape = if attribute(node, "value_ints").is_some() {
                    vec![Dim::Size(integers.len() as i64)]
                } else {
                    vec![]
                };
                self.shapes.insert(node.output[0].clone(), shape);
                Some(integers.into_iter().map(Dim::Size).collect())
            }
            "Gather" => {
                let from = self.integer_input(node, 0)?;
                let at = sizes(self.integer_input(node, 1)?)?;
                at.iter().map(|&at| from.get(place_in(at, from.len())).copied()).collect()
            }
            "Concat" => {
                let mut all = Vec::new();
                for input in 0..node.input.len() {
                    all.extend_from_slice(self.integer_input(node, input)?);
                }
                (all.len() <= MOST_AXES).then_some(all)
            }
            "Slice" => {
                let from = self.integer_input(node, 0)?;
                let bound = |input: usize| -> Option<i64> { sizes(self.integer_input(node, input)?)?.first().copied() };
                let (start, end) = (bound(1)?, bound(2)?);
                if node.input.len() > 4 && bound(4)? != 1 {
                    return None;
                }
                let length = from.len();
                let start = place_in(start, length).min(length);
                from.get(start..place_in(end, length).clamp(start, length)).map(<[Dim]>::to_vec)
            }
            "Unsqueeze" | "Squeeze" | "Identity" | "Cast" | "Reshape" => self.integer_input(node, 0).cloned(),
            _ => None,
        }
    }
}

pub(super) fn size(dim: Dim) -> Option<i64> {
    match dim {
        Dim::Size(size) => Some(size),
        Dim::Symbol(_) => None,
    }
}

pub(super) fn sizes(dims: &[Dim]) -> Option<Vec<i64>> {
    dims.iter().copied().map(size).collect()
}

/// An axis or index from the end counts down from `length`.
pub(super) fn place_in(at: i64, length: usize) -> usize {
    usize::try_from(if at < 0 { at.saturating_add(length as i64) } else { at }).unwrap_or(0)
}

pub(super) fn attribute<'a>(node: &'a NodeProto, name: &str) -> Option<&'a AttributeProto> {
    node.attribute.iter().find(|attribute| attribute.name == name)
}

pub(super) fn integer(node: &NodeProto, name: &str, absent: i64) -> i64 {
    attribute(node, name).map_or(absent, |attribute| attribute.i)
}

fn integers_of(tensor: &TensorProto) -> Option<Vec<i64>> {
    if tensor.data_type != ElementType::I64 as i32 || tensor.dims.len() > 1 {
        return None;
    }
    if !tensor.int64_data.is_empty() {
        return Some(tensor.int64_data.clone());
    }
    let chunks = tensor.raw_data.chunks_exact(8);
    Some(chunks.map(|b| i64::from_le_bytes([b[0], b[1], b[2], b[3], b[4], b[5], b[6], b[7]])).collect())
}
