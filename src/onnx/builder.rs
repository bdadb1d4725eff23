//! Writes graphs node by node.

use std::collections::HashMap;

use super::graph::{IR_VERSION, MICROSOFT, OPSET, PRODUCER, WeightSlot};
use super::proto::{
    GraphProto, LOCATION_EXTERNAL, ModelProto, NodeProto, OperatorSetId, StringStringEntryProto, TensorProto,
};
use super::value::{Attribute, Dimension, attribute, value_info};
use super::{ElementType, Graph, Value};

/// Writes a graph node by node.
#[derive(Debug)]
pub struct GraphBuilder {
    graph: GraphProto,
    weights: Vec<WeightSlot>,
    /// What activations are computed in.
    pub(super) float: ElementType,
    /// What weights are declared in.
    weight_type: ElementType,
    /// Weights are inputs, which may change from run to run, rather than initializers.
    weights_are_inputs: bool,
    opsets: Vec<OperatorSetId>,
    /// Before the names of new values: none of them may be that of a graph that was read.
    prefix: &'static str,
    constants: HashMap<(Vec<u8>, Vec<i64>, i32), Value>,
    gathers: HashMap<String, Scatter>,
    parts: HashMap<String, Part>,
}

/// One of several gathers that share the rows of a source out among themselves, each row to one place in one of them.
#[derive(Debug, Clone)]
pub(super) struct Part {
    /// Which.
    pub(super) number: usize,
    /// All of them.
    pub(super) results: Vec<Value>,
    /// For each row of the source its row in all results together, flat.
    pub(super) inverse: Value,
}

/// How the gradient of a `Gather` whose index hits each row at most once is gathered back, by the index's inverse.
#[derive(Debug, Clone)]
pub(super) struct Scatter {
    /// For each row of the source the row of the result that it went to; any where it went nowhere.
    pub(super) inverse: Value,
    /// 0 for rows that went nowhere, else 1; none where every row went somewhere.
    pub(super) kept: Option<Value>,
}

impl GraphBuilder {
    /// An empty graph whose weights and activations are of type `float`.
    pub fn new(name: &str, float: ElementType) -> Self {
        Self {
            graph: GraphProto { name: name.into(), ..GraphProto::default() },
            weights: Vec::new(),
            float,
            weight_type: float,
            weights_are_inputs: false,
            opsets: vec![opset("", OPSET), opset(MICROSOFT, 1)],
            prefix: "",
            constants: HashMap::new(),
            gathers: HashMap::new(),
            parts: HashMap::new(),
        }
    }

    /// As [`new`](Self::new), for training: weights are inputs of the graph.
    pub(super) fn for_training(name: &str, float: ElementType) -> Self {
        Self { weights_are_inputs: true, ..Self::new(name, float) }
    }

    /// A graph that was read, to be gone on with.
    pub(super) fn continued(graph: GraphProto, mut opsets: Vec<OperatorSetId>) -> Self {
        if !opsets.iter().any(|set| set.domain == MICROSOFT) {
            opsets.push(opset(MICROSOFT, 1));
        }
        Self { graph, opsets, prefix: "anced/", ..Self::new("", ElementType::F32) }
    }

    /// What stands before the names of new values.
    pub(super) fn prefix(&self) -> &'static str {
        self.prefix
    }

    pub(super) fn graph(&self) -> &GraphProto {
        &self.graph
    }

    pub(super) fn graph_mut(&mut self) -> &mut GraphProto {
        &mut self.graph
    }

    /// The weights that were declared so far.
    pub(super) fn weight_slots(&self) -> &[WeightSlot] {
        &self.weights
    }

    /// How the gradient of this `Gather` is gathered back, where that is known.
    pub(super) fn scatter_of(&self, output: &str) -> Option<&Scatter> {
        self.gathers.get(output)
    }

    /// Shares the rows of `x` `[rows, width]` out among several results, by an index each. `inverse`, i64 `[rows]`, is the
    /// place of each row in all results together; other places are padding, which nothing may depend on.
    pub(super) fn gather_parts(&mut self, x: &Value, indexes: &[Value], inverse: &Value) -> Vec<Value> {
        let results: Vec<Value> = indexes.iter().map(|index| self.node("Gather", &[x, index])).collect();
        for (number, result) in results.iter().enumerate() {
            let part = Part { number, results: results.clone(), inverse: inverse.clone() };
            self.parts.insert(result.name().to_owned(), part);
        }
        results
    }

    /// Which part of its source this `Gather` is, where it is one.
    pub(super) fn part_of(&self, output: &str) -> Option<&Part> {
        self.parts.get(output)
    }

    /// Rows of `x` by an index that hits each row at most once, but for rows whose result nothing depends on.
    pub(super) fn gather_rows(&mut self, x: &Value, index: &Value, scatter: Scatter) -> Value {
        let y = self.node("Gather", &[x, index]);
        self.gathers.insert(y.name().to_owned(), scatter);
        y
    }

    pub(super) fn input(&mut self, name: &str, element: ElementType, shape: &[Dimension]) -> Value {
        self.graph.input.push(value_info(name, element, shape));
        Value::new(name)
    }

    /// Makes a value an output under a name of its own.
    pub(super) fn output(&mut self, value: &Value, name: &str, element: ElementType, shape: &[Dimension]) {
        self.graph.node.push(NodeProto {
            input: vec![value.name().to_owned()],
            output: vec![name.into()],
            name: format!("output/{name}"),
            op_type: "Identity".into(),
            ..NodeProto::default()
        });
        self.graph.output.push(value_info(name, element, shape));
    }

    /// Declares a weight of the checkpoint; its values come when the session is made, or with each run in training.
    pub(super) fn weight(&mut self, name: &str, shape: &[usize]) -> Value {
        if !self.weights.iter().any(|slot| slot.name == name) {
            self.declare(name, shape);
        }
        let value = Value::new(name);
        if self.weight_type == self.float { value } else { self.cast(&value, self.float) }
    }

    fn declare(&mut self, name: &str, shape: &[usize]) {
        self.weights.push(WeightSlot { name: name.into(), shape: shape.to_vec() });
        if self.weights_are_inputs {
            let shape: Vec<_> = shape.iter().map(|&size| Dimension::Size(size as i64)).collect();
            self.graph.input.push(value_info(name, self.weight_type, &shape));
            return;
        }
        let size: usize = shape.iter().product::<usize>() * self.weight_type.bytes();
        let entry = |key: &str, value: String| StringStringEntryProto { key: key.into(), value };
        self.graph.initializer.push(TensorProto {
            dims: shape.iter().map(|&size| size as i64).collect(),
            data_type: self.weight_type as i32,
            name: name.into(),
            // The file named here is never opened: the session is given every value beforehand.
            external_data: vec![
                entry("location", "weights".into()),
                entry("offset", "0".into()),
                entry("length", size.to_string()),
            ],
            data_location: LOCATION_EXTERNAL,
            ..TensorProto::default()
        });
    }

    fn constant(&mut self, data: Vec<u8>, dims: &[i64], element: ElementType) -> Value {
        let key = (data.clone(), dims.to_vec(), element as i32);
        if let Some(value) = self.constants.get(&key) {
            return value.clone();
        }
        let value = Value::new(format!("{}constant/{}", self.prefix, self.constants.len()));
        self.graph.initializer.push(TensorProto {
            dims: dims.to_vec(),
            data_type: element as i32,
            name: value.name().to_owned(),
            raw_data: data,
            ..TensorProto::default()
        });
        self.constants.insert(key, value.clone());
        value
    }

    /// A scalar of the graph's float type.
    pub(super) fn float(&mut self, value: f32) -> Value {
        self.float_of(value, self.float)
    }

    /// A scalar of a float type; 32 bits for any other.
    pub(super) fn float_of(&mut self, value: f32, element: ElementType) -> Value {
        match element {
            ElementType::F16 => self.constant(half::f16::from_f32(value).to_le_bytes().to_vec(), &[], element),
            ElementType::BF16 => self.constant(half::bf16::from_f32(value).to_le_bytes().to_vec(), &[], element),
            _ => self.constant(value.to_le_bytes().to_vec(), &[], ElementType::F32),
        }
    }

    /// True or false.
    pub(super) fn truth(&mut self, value: bool) -> Value {
        self.constant(vec![u8::from(value)], &[], ElementType::Bool)
    }

    /// A scalar integer.
    pub(super) fn int(&mut self, value: i64) -> Value {
        self.constant(value.to_le_bytes().to_vec(), &[], ElementType::I64)
    }

    /// A list of integers: axes, a shape.
    pub(super) fn ints(&mut self, values: &[i64]) -> Value {
        let data = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        self.constant(data, &[values.len() as i64], ElementType::I64)
    }

    /// Appends a node with one output and returns it.
    pub(super) fn node(&mut self, operator: &str, inputs: &[&Value]) -> Value {
        self.node_with(operator, "", inputs, &[])
    }

    /// Appends a node of an operator domain, with attributes.
    pub(super) fn node_with(
        &mut self,
        operator: &str,
        domain: &str,
        inputs: &[&Value],
        attributes: &[(&str, Attribute)],
    ) -> Value {
        let inputs: Vec<Option<&Value>> = inputs.iter().copied().map(Some).collect();
        self.node_optional(operator, domain, &inputs, attributes)
    }

    /// Appends a node some of whose inputs are left out.
    pub(super) fn node_optional(
        &mut self,
        operator: &str,
        domain: &str,
        inputs: &[Option<&Value>],
        attributes: &[(&str, Attribute)],
    ) -> Value {
        let name = format!("{}{operator}/{}", self.prefix, self.graph.node.len());
        self.graph.node.push(NodeProto {
            input: inputs.iter().map(|value| value.map_or_else(String::new, |value| value.name().to_owned())).collect(),
            output: vec![name.clone()],
            name: name.clone(),
            op_type: operator.into(),
            attribute: attributes.iter().map(|(name, value)| attribute(name, value)).collect(),
            domain: domain.into(),
        });
        Value::new(name)
    }

    /// Appends a node with `outputs` outputs and returns them.
    pub(super) fn node_outputs(
        &mut self,
        operator: &str,
        inputs: &[&Value],
        attributes: &[(&str, Attribute)],
        outputs: usize,
    ) -> Vec<Value> {
        let first = self.node_with(operator, "", inputs, attributes);
        let names: Vec<String> = (0..outputs)
            .map(|number| if number == 0 { first.name().to_owned() } else { format!("{}/{number}", first.name()) })
            .collect();
        if let Some(node) = self.graph.node.last_mut() {
            node.output.clone_from(&names);
        }
        names.into_iter().map(Value::new).collect()
    }

    /// The finished graph.
    pub fn finish(self) -> Graph {
        Graph {
            model: ModelProto {
                ir_version: IR_VERSION,
                producer_name: PRODUCER.into(),
                producer_version: env!("CARGO_PKG_VERSION").into(),
                graph: Some(self.graph),
                opset_import: self.opsets,
                functions: Vec::new(),
            },
            weights: self.weights,
            weight_type: self.weight_type,
        }
    }
}

fn opset(domain: &str, version: i64) -> OperatorSetId {
    OperatorSetId { domain: domain.into(), version }
}
