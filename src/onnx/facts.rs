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

    fn fresh(&mut self) -> Dim {
        self.symbols += 1;
        Dim::Symbol(self.symbols)
    }

    fn tensor(&mut self, name: &str, tensor: &TensorProto) {
        self.elements.insert(name.into(), tensor.data_type);
        self.shapes.insert(name.into(), tensor.dims.iter().map(|&size| Dim::Size(size)).collect());
        if let Some(integers) = integers_of(tensor) {
            self.integers.insert(name.into(), integers.into_iter().map(Dim::Size).collect());
        }
    }

    fn get(&self, node: &NodeProto, input: usize) -> Option<&Vec<Dim>> {
        self.shapes.get(node.input.get(input)?)
    }

    fn integer_input(&self, node: &NodeProto, input: usize) -> Option<&Vec<Dim>> {
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
                if let Some(tensor) = attribute(node, "value").and_then(|attribute| attribute.t.clone()) {
                    self.tensor(output, &tensor);
                }
            }
            "Split" => self.split(node),
            _ => {
                if let Some(shape) = self.shape_of(node) {
                    // A mask, a mean and a deviation are shaped by their own rules, which nothing asks for.
                    self.shapes.insert(output.clone(), shape);
                }
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
                Some(all)
            }
            "Slice" => {
                let from = self.integer_input(node, 0)?;
                let bound = |input: usize| -> Option<i64> { sizes(self.integer_input(node, input)?)?.first().copied() };
                let (start, end) = (bound(1)?, bound(2)?);
                if node.input.len() > 4 && bound(4)? != 1 {
                    return None;
                }
                let (start, end) = (place_in(start, from.len()), place_in(end, from.len()));
                from.get(start.min(from.len())..end.clamp(start, from.len())).map(<[Dim]>::to_vec)
            }
            "Unsqueeze" | "Squeeze" | "Identity" | "Cast" | "Reshape" => self.integer_input(node, 0).cloned(),
            _ => None,
        }
    }

    fn shape_of(&mut self, node: &NodeProto) -> Option<Vec<Dim>> {
        match node.op_type.as_str() {
            "Shape" => self.integers.get(&node.output[0]).map(|integers| vec![Dim::Size(integers.len() as i64)]),
            "Size" => Some(Vec::new()),
            "Add" | "Sub" | "Mul" | "Div" | "Pow" | "Max" | "Min" | "Sum" | "Mean" | "Where" | "Equal" | "Greater"
            | "GreaterOrEqual" | "Less" | "LessOrEqual" | "And" | "Or" | "Xor" => self.broadcast(node),
            "Neg" | "Sqrt" | "Reciprocal" | "Exp" | "Log" | "Erf" | "Tanh" | "Sigmoid" | "Softplus" | "Relu"
            | "Abs" | "Gelu" | "Identity" | "Cast" | "CastLike" | "Clip" | "Dropout" | "Softmax" | "LogSoftmax"
            | "LayerNormalization" | "Not" | "IsNaN" | "IsInf" | "ScatterElements" | "ScatterND" | "Sin" | "Cos"
            | "Sign" | "BiasGelu" | "FastGelu" | "QuickGelu" => self.get(node, 0).cloned(),
            "GatherElements" => self.get(node, 1).cloned(),
            "Gather" => {
                let (data, index) = (self.get(node, 0)?, self.get(node, 1)?);
                let axis = place_in(integer(node, "axis", 0), data.len());
                Some([data.get(..axis)?, index, data.get(axis + 1..)?].concat())
            }
            "Gemm" => {
                let (a, b) = (self.get(node, 0)?, self.get(node, 1)?);
                let row = usize::from(integer(node, "transA", 0) != 0);
                let column = usize::from(integer(node, "transB", 0) == 0);
                Some(vec![*a.get(row)?, *b.get(column)?])
            }
            "MatMul" | "FusedMatMul" => self.product(node),
            "Transpose" => {
                let shape = self.get(node, 0)?;
                match attribute(node, "perm") {
                    Some(perm) => perm.ints.iter().map(|&from| shape.get(from as usize).copied()).collect(),
                    None => Some(shape.iter().rev().copied().collect()),
                }
            }
            "Reshape" => self.reshape(node),
            "Expand" => {
                let target = self.integer_input(node, 1)?.clone();
                let shape = self.get(node, 0)?.clone();
                self.broadcast_of(&[shape, target])
            }
            "ConstantOfShape" => self.integer_input(node, 0).cloned(),
            "Range" => Some(vec![self.fresh()]),
            "Unsqueeze" => {
                let shape = self.get(node, 0)?;
                let axes = sizes(self.integer_input(node, 1)?)?;
                let rank = shape.len() + axes.len();
                let axes: Vec<usize> = axes.iter().map(|&axis| place_in(axis, rank)).collect();
                let mut rest = shape.iter().copied();
                (0..rank).map(|at| if axes.contains(&at) { Some(Dim::Size(1)) } else { rest.next() }).collect()
            }
            "Squeeze" => {
                let shape = self.get(node, 0)?;
                let axes = sizes(self.integer_input(node, 1)?)?;
                let axes: Vec<usize> = axes.iter().map(|&axis| place_in(axis, shape.len())).collect();
                Some(shape.iter().enumerate().filter(|(at, _)| !axes.contains(at)).map(|(_, dim)| *dim).collect())
            }
            name if name.starts_with("Reduce") => {
                let shape = self.get(node, 0)?;
                let axes = match node.input.get(1).filter(|name| !name.is_empty()) {
                    Some(_) => sizes(self.integer_input(node, 1)?)?,
                    None if integer(node, "noop_with_empty_axes", 0) != 0 => return Some(shape.clone()),
                    None => (0..shape.len() as i64).collect(),
                };
                let axes: Vec<usize> = axes.iter().map(|&axis| place_in(axis, shape.len())).collect();
                let keep = integer(node, "keepdims", 1) != 0;
                let dims = shape.iter().enumerate().filter(|(at, _)| keep || !axes.contains(at));
                Some(dims.map(|(at, dim)| if axes.contains(&at) { Dim::Size(1) } else { *dim }).collect())
            }
            "Concat" => {
                let mut shape = self.get(node, 0)?.clone();
                let axis = place_in(integer(node, "axis", 0), shape.len());
                let mut total = 0;
                let mut known = true;
                for input in 0..node.input.len() {
                    match self.get(node, input)?.get(axis)? {
                        Dim::Size(size) => total += size,
                        Dim::Symbol(_) => known = false,
                    }
                }
                *shape.get_mut(axis)? = if known { Dim::Size(total) } else { self.fresh() };
                Some(shape)
            }
            "Slice" => {
                let mut shape = self.get(node, 0)?.clone();
                let axes = match node.input.get(3).filter(|name| !name.is_empty()) {
                    Some(_) => sizes(self.integer_input(node, 3)?)?,
                    None => (0..self.get(node, 1)?.first().copied().and_then(size)?).collect(),
                };
                let rank = shape.len();
                for axis in axes {
                    let fresh = self.fresh();
                    *shape.get_mut(place_in(axis, rank))? = fresh;
                }
                Some(shape)
            }
            "Flatten" => Some(vec![self.fresh(), self.fresh()]),
            "Tile" => {
                let rank = self.get(node, 0)?.len();
                Some((0..rank).map(|_| self.fresh()).collect())
            }
            _ => None,
        }
    }

    fn split(&mut self, node: &NodeProto) {
        let Some(shape) = self.get(node, 0).cloned() else { return };
        let axis = place_in(integer(node, "axis", 0), shape.len());
        let parts = self.integer_input(node, 1).cloned();
        for (number, output) in node.output.iter().enumerate() {
            let mut part = shape.clone();
            let known = match (&parts, shape.get(axis)) {
                (Some(parts), _) => parts.get(number).copied(),
                (None, Some(Dim::Size(size))) if size % node.output.len() as i64 == 0 => {
                    Some(Dim::Size(size / node.output.len() as i64))
                }
                _ => None,
            };
            let dim = known.unwrap_or_else(|| self.fresh());
            if let Some(place) = part.get_mut(axis) {
                *place = dim;
                self.shapes.insert(output.clone(), part);
            }
        }
    }

    fn broadcast(&mut self, node: &NodeProto) -> Option<Vec<Dim>> {
        let shapes: Option<Vec<Vec<Dim>>> = (0..node.input.len()).map(|input| self.get(node, input).cloned()).collect();
        self.broadcast_of(&shapes?)
    }

    /// ONNX's (and numpy's) multidirectional broadcasting.
    fn broadcast_of(&mut self, shapes: &[Vec<Dim>]) -> Option<Vec<Dim>> {
        let rank = shapes.iter().map(Vec::len).max()?;
        let mut result = vec![Dim::Size(1); rank];
        for shape in shapes {
            for (place, &dim) in result[rank - shape.len()..].iter_mut().zip(shape) {
                *place = match (*place, dim) {
                    (a, b) if a == b => a,
                    (a, Dim::Size(1)) => a,
                    (Dim::Size(1), b) => b,
                    (Dim::Size(a), _) => Dim::Size(a),
                    (_, Dim::Size(b)) => Dim::Size(b),
                    _ => self.fresh(),
                };
            }
        }
        Some(result)
    }

    fn product(&mut self, node: &NodeProto) -> Option<Vec<Dim>> {
        let (mut a, mut b) = (self.get(node, 0)?.clone(), self.get(node, 1)?.clone());
        let (flat_a, flat_b) = (a.len() == 1, b.len() == 1);
        if flat_a {
            a.insert(0, Dim::Size(1));
        }
        if flat_b {
            b.push(Dim::Size(1));
        }
        let (rank_a, rank_b) = (a.len(), b.len());
        if rank_a < 2 || rank_b < 2 {
            return None;
        }
        let rows = a[rank_a - if integer(node, "transA", 0) != 0 { 1 } else { 2 }];
        let columns = b[rank_b - if integer(node, "transB", 0) != 0 { 2 } else { 1 }];
        let mut shape = self.broadcast_of(&[a[..rank_a - 2].to_vec(), b[..rank_b - 2].to_vec()])?;
        if !flat_a {
            shape.push(rows);
        }
        if !flat_b {
            shape.push(columns);
        }
        Some(shape)
    }

    fn reshape(&mut self, node: &NodeProto) -> Option<Vec<Dim>> {
        let source = self.get(node, 0)?.clone();
        let Some(target) = self.integer_input(node, 1).cloned() else {
            // The rank at least is the length of the target.
            let rank = self.get(node, 1)?.first().copied().and_then(size)?;
            return Some((0..rank).map(|_| self.fresh()).collect());
        };
        let mut shape = Vec::with_capacity(target.len());
        let mut open = None;
        for (at, dim) in target.iter().enumerate() {
            match dim {
                Dim::Size(-1) => {
                    open = Some(at);
                    shape.push(Dim::Size(1));
                }
                Dim::Size(0) if integer(node, "allowzero", 0) == 0 => shape.push(*source.get(at)?),
                other => shape.push(*other),
            }
        }
        if let Some(at) = open {
            shape[at] = self.quotient(&source, &shape);
        }
        Some(shape)
    }

    /// The product of `whole` over that of `part`.
    fn quotient(&mut self, whole: &[Dim], part: &[Dim]) -> Dim {
        let factor = |dims: &[Dim]| dims.iter().copied().filter_map(size).product::<i64>();
        let mut symbols: Vec<usize> = whole.iter().copied().filter_map(symbol).collect();
        for one in part.iter().copied().filter_map(symbol) {
            match symbols.iter().position(|other| *other == one) {
                Some(at) => {
                    symbols.swap_remove(at);
                }
                None => return self.fresh(),
            }
        }
        let (above, below) = (factor(whole), factor(part));
        if below == 0 || above % below != 0 {
            return self.fresh();
        }
        match (symbols.as_slice(), above / below) {
            ([], size) => Dim::Size(size),
            ([one], 1) => Dim::Symbol(*one),
            (_, size) => {
                symbols.sort_unstable();
                if let Some(&known) = self.products.get(&(symbols.clone(), size)) {
                    return Dim::Symbol(known);
                }
                self.symbols += 1;
                self.products.insert((symbols, size), self.symbols);
                Dim::Symbol(self.symbols)
            }
        }
    }
}

fn size(dim: Dim) -> Option<i64> {
    match dim {
        Dim::Size(size) => Some(size),
        Dim::Symbol(_) => None,
    }
}

fn symbol(dim: Dim) -> Option<usize> {
    match dim {
        Dim::Symbol(symbol) => Some(symbol),
        Dim::Size(_) => None,
    }
}

fn sizes(dims: &[Dim]) -> Option<Vec<i64>> {
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
