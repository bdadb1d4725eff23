//! The state of a differentiation, and the steps that rules share.

use std::collections::{HashMap, HashSet};

use super::node::Node;
use crate::onnx::builder::Part;
use crate::onnx::facts::{Dim, Facts};
use crate::onnx::graph::MICROSOFT;
use crate::onnx::value::Attribute;
use crate::onnx::{ElementType, Error, GraphBuilder, Value};

/// What has reached which value so far.
pub(super) struct Backward<'a> {
    pub(super) builder: &'a mut GraphBuilder,
    pub(super) facts: Facts,
    moving: HashSet<String>,
    /// Wanted values that no node computes: nothing flows on from them.
    leaves: HashSet<String>,
    reached: HashMap<String, Vec<Value>>,
    /// Parts that reached sources whose rows were shared out, by their numbers.
    parts: HashMap<String, (Part, Vec<Option<Value>>)>,
    /// Vectors of ones by their length.
    pub(super) ones: HashMap<(Dim, ElementType), Value>,
    /// Rows that reached tables: ids and gradients, scattered once a table.
    rows: HashMap<String, Vec<(Value, Value)>>,
}

impl<'a> Backward<'a> {
    pub(super) fn new(builder: &'a mut GraphBuilder, moving: HashSet<String>, wanted: &[Value]) -> Self {
        let facts = Facts::of(builder.graph());
        let computed: HashSet<&str> =
            builder.graph().node.iter().flat_map(|node| &node.output).map(String::as_str).collect();
        let leaves = wanted.iter().map(Value::name).filter(|name| !computed.contains(name));
        let leaves = leaves.map(str::to_owned).collect();
        Self {
            builder,
            facts,
            moving,
            leaves,
            reached: HashMap::new(),
            parts: HashMap::new(),
            ones: HashMap::new(),
            rows: HashMap::new(),
        }
    }

    pub(super) fn builder(&mut self) -> &mut GraphBuilder {
        self.builder
    }

    pub(super) fn facts(&self) -> &Facts {
        &self.facts
    }

    pub(super) fn moves(&self, name: &str) -> bool {
        self.moving.contains(name)
    }

    /// Whether the gradient of an input is needed.
    pub(super) fn wants(&self, node: &Node, input: usize) -> bool {
        node.optional(input).is_some_and(|value| self.moves(value.name()))
    }

    /// Adds to what reaches a value; `gradient` has its shape.
    pub(super) fn add(&mut self, name: &str, gradient: Value) {
        self.reached.entry(name.to_owned()).or_default().push(gradient);
    }

    /// What reaches a value in all; none where nothing does.
    pub(super) fn total(&mut self, name: &str) -> Option<Value> {
        if let Some((part, reached)) = self.parts.remove(name) {
            let gradient = self.gather_back(name, &part, &reached);
            self.add(name, gradient);
        }
        let mut parts = self.reached.get(name)?.iter().cloned();
        let mut total = parts.next()?;
        for part in parts {
            total = self.builder.node("Add", &[&total, &part]);
        }
        self.reached.insert(name.to_owned(), vec![total.clone()]);
        Some(total)
    }

    /// Gives an input its share, where it is needed: `gradient`, which has the shape that the inputs were broadcast to
    /// (that of output 0), is summed over what the input was broadcast along.
    pub(super) fn give(
        &mut self,
        node: &Node,
        input: usize,
        gradient: impl FnOnce(&mut Self) -> Result<Value, Error>,
    ) -> Result<(), Error> {
        if !self.wants(node, input) {
            return Ok(());
        }
        let (value, shaped) = (node.input(input)?, node.output(0)?);
        let gradient = gradient(self)?;
        let gradient = self.unbroadcast(&gradient, &shaped, &value);
        self.add(value.name(), gradient);
        Ok(())
    }

    /// As [`give`](Self::give), of a gradient that has the input's shape already.
    pub(super) fn give_shaped(
        &mut self,
        node: &Node,
        input: usize,
        gradient: impl FnOnce(&mut Self) -> Result<Value, Error>,
    ) -> Result<(), Error> {
        if self.wants(node, input) {
            let value = node.input(input)?;
            let gradient = gradient(self)?;
            self.add(value.name(), gradient);
        }
        Ok(())
    }

    /// The gradients of the wanted values.
    pub(super) fn finish(mut self, wanted: &[Value]) -> Result<Vec<Option<Value>>, Error> {
        for value in wanted {
            if let Some(rows) = self.rows.remove(value.name()) {
                let gradient = self.scatter_rows(value, &rows);
                self.add(value.name(), gradient);
            }
        }
        Ok(wanted.iter().map(|value| self.total(value.name())).collect())
    }

    /// Notes what reached one of the parts that the rows of `source` were shared out to.
    pub(super) fn defer_part(&mut self, source: &Value, part: Part, gradient: &Value) {
        let (number, of) = (part.number, part.results.len());
        let (_, reached) = self.parts.entry(source.name().to_owned()).or_insert_with(|| (part, vec![None; of]));
        if let Some(place) = reached.get_mut(number) {
            *place = Some(gradient.clone());
        }
    }

    /// The rows of a source from the parts that they were shared out to.
    fn gather_back(&mut self, source: &str, part: &Part, reached: &[Option<Value>]) -> Value {
        let flat = self.builder.ints(&[-1]);
        let width = self.shape_slice(&Value::new(source), 1, 2);
        let shape = self.builder.node_with("Concat", "", &[&flat, &width], &[("axis", Attribute::Int(0))]);
        let mut parts = Vec::new();
        for (part, result) in reached.iter().zip(&part.results) {
            let gradient = part.clone().unwrap_or_else(|| self.zeros_like(result));
            parts.push(self.builder.node("Reshape", &[&gradient, &shape]));
        }
        let all = self.join(&parts);
        self.binary("Gather", &all, &part.inverse)
    }

    /// Notes rows that reached a table which is a wanted weight; false for any other value.
    pub(super) fn defer_rows(&mut self, table: &Value, ids: &Value, gradient: &Value) -> bool {
        if !self.leaves.contains(table.name()) || self.facts.rank(table) != Some(2) {
            return false;
        }
        self.rows.entry(table.name().to_owned()).or_default().push((ids.clone(), gradient.clone()));
        true
    }

    /// All rows that reached a table, added up in it. `ScatterElements`, because `ScatterND` adds up repeated ids in an
    /// order that changes from run to run.
    fn scatter_rows(&mut self, table: &Value, rows: &[(Value, Value)]) -> Value {
        let flat = self.builder.ints(&[-1]);
        let one = self.builder.ints(&[1]);
        let width = self.shape_slice(table, 1, 2);
        let pair = self.builder.node_with("Concat", "", &[&flat, &width], &[("axis", Attribute::Int(0))]);
        let (mut ids, mut gradients) = (Vec::new(), Vec::new());
        for (id, gradient) in rows {
            let id = self.wide_integer(id);
            ids.push(self.builder.node("Reshape", &[&id, &flat]));
            gradients.push(self.builder.node("Reshape", &[gradient, &pair]));
        }
        let (ids, gradients) = (self.join(&ids), self.join(&gradients));
        let column = self.builder.node("Unsqueeze", &[&ids, &one]);
        let shape = self.builder.node("Shape", &[&gradients]);
        let places = self.builder.node("Expand", &[&column, &shape]);
        let shape = self.builder.node("Shape", &[table]);
        let element = self.facts.element(table);
        self.scatter_add(&shape, &places, &gradients, 0, element)
    }

    /// `updates` added to zeros of a shape at `places` of an axis. In 32 bits: there are no kernels that add in 16, and
    /// a frequent token's sum would lose its small parts.
    pub(super) fn scatter_add(
        &mut self,
        shape: &Value,
        places: &Value,
        updates: &Value,
        axis: i64,
        element: ElementType,
    ) -> Value {
        let wide = matches!(element, ElementType::F16 | ElementType::BF16);
        let updates = if wide { self.builder.cast(updates, ElementType::F32) } else { updates.clone() };
        let zeros = self.zeros(shape, if wide { ElementType::F32 } else { element });
        let attributes = [("axis", Attribute::Int(axis)), ("reduction", Attribute::Text("add"))];
        let sum = self.builder.node_with("ScatterElements", "", &[&zeros, places, &updates], &attributes);
        if wide { self.builder.cast(&sum, element) } else { sum }
    }

    fn join(&mut self, parts: &[Value]) -> Value {
        match parts {
            [one] => one.clone(),
            many => {
                let parts: Vec<&Value> = many.iter().collect();
                self.builder.node_with("Concat", "", &parts, &[("axis", Attribute::Int(0))])
            }
        }
    }

    /// Makes sure that a node has its optional output `output`, and names it.
    pub(super) fn extra_output(&mut self, node: &Node, output: usize) -> Value {
        let first = node.output_names().next().unwrap_or_default().to_owned();
        let name = format!("{}{first}/{output}", self.builder.prefix());
        let Some(proto) = self.builder.graph_mut().node.get_mut(node.place) else { return Value::new(first) };
        while proto.output.len() <= output {
            proto.output.push(String::new());
        }
        if proto.output[output].is_empty() {
            proto.output[output] = name;
        }
        Value::new(proto.output[output].clone())
    }

    /// A constant of the float type of `like`.
    pub(super) fn scalar(&mut self, value: f32, like: &Value) -> Value {
        let element = self.facts.element(like);
        self.builder.float_of(value, element)
    }

    pub(super) fn unary(&mut self, operator: &str, x: &Value) -> Value {
        self.builder.node(operator, &[x])
    }

    pub(super) fn binary(&mut self, operator: &str, a: &Value, b: &Value) -> Value {
        self.builder.node(operator, &[a, b])
    }

    /// `x · factor`.
    pub(super) fn scaled(&mut self, x: &Value, factor: f32, like: &Value) -> Value {
        let factor = self.scalar(factor, like);
        self.binary("Mul", x, &factor)
    }

    /// Indices and bounds as 64-bit integers, which those made here are.
    pub(super) fn wide_integer(&mut self, x: &Value) -> Value {
        match self.facts.element(x) {
            ElementType::I64 => x.clone(),
            _ => self.builder.cast(x, ElementType::I64),
        }
    }

    /// `operator` over fixed axes.
    pub(super) fn reduce(&mut self, operator: &str, x: &Value, axes: &[i64], keep: bool) -> Value {
        let axes = self.builder.ints(axes);
        let keep = [("keepdims", Attribute::Int(i64::from(keep)))];
        self.builder.node_with(operator, "", &[x, &axes], &keep)
    }

    /// `a b` with either transposed in its last two axes, times `alpha`.
    pub(super) fn product(&mut self, a: (&Value, bool), b: (&Value, bool), alpha: f32) -> Value {
        let attributes = [
            ("transA", Attribute::Int(i64::from(a.1))),
            ("transB", Attribute::Int(i64::from(b.1))),
            ("alpha", Attribute::Float(alpha)),
        ];
        self.builder.node_with("FusedMatMul", MICROSOFT, &[a.0, b.0], &attributes)
    }

    /// `x` in the shape of another value.
    pub(super) fn reshape_like(&mut self, x: &Value, like: &Value) -> Value {
        let known = self.facts.shape(like).map(|shape| {
            let open = shape.iter().filter(|dim| matches!(dim, Dim::Symbol(_))).count();
            let sizes: Vec<i64> = shape.iter().map(|dim| if let Dim::Size(size) = dim { *size } else { -1 }).collect();
            (open, sizes)
        });
        let shape = match known {
            Some((0 | 1, sizes)) if !sizes.contains(&0) => self.builder.ints(&sizes),
            _ => self.builder.node("Shape", &[like]),
        };
        self.builder.node("Reshape", &[x, &shape])
    }

    /// Sizes `start..end` of a value's shape, i64 `[end - start]`.
    pub(super) fn shape_slice(&mut self, x: &Value, start: i64, end: i64) -> Value {
        let bounds = [("start", Attribute::Int(start)), ("end", Attribute::Int(end))];
        self.builder.node_with("Shape", "", &[x], &bounds)
    }

    pub(super) fn zeros(&mut self, shape: &Value, element: ElementType) -> Value {
        let zero = self.builder.float_of(0.0, element);
        self.builder.node("Expand", &[&zero, shape])
    }

    pub(super) fn zeros_like(&mut self, x: &Value) -> Value {
        let shape = self.builder.node("Shape", &[x]);
        let element = self.facts.element(x);
        self.zeros(&shape, element)
    }

    pub(super) fn rank(&self, node: &Node, value: &Value) -> Result<usize, Error> {
        self.facts.rank(value).ok_or_else(|| node.refuse(&format!("the rank of `{}` is not known", value.name())))
    }
}
