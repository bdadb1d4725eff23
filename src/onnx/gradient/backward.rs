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
    builder: &'a mut GraphBuilder,
    facts: Facts,
    moving: HashSet<String>,
    /// Wanted values that no node computes: nothing flows on from them.
    leaves: HashSet<String>,
    reached: HashMap<String, Vec<Value>>,
    /// Parts that reached sources whose rows were shared out, by their numbers.
    parts: HashMap<String, (Part, Vec<Option<Value>>)>,
    /// Vectors of ones by their length.
    ones: HashMap<(Dim, ElementType), Value>,
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

    /// Sums `gradient`, shaped as `from`, to the shape of `to`, which was broadcast to it.
    pub(super) fn unbroadcast(&mut self, gradient: &Value, from: &Value, to: &Value) -> Value {
        match (self.facts.shape(from), self.facts.shape(to)) {
            (Some(from), Some(target)) => match broadcast_axes(from, target) {
                Some(axes) if axes.is_empty() => gradient.clone(),
                Some(axes) => {
                    let (leading, inner) = (from.len() - target.len(), target.contains(&Dim::Size(1)));
                    if let ([rows, _], [_], [0]) = (from, target, axes.as_slice()) {
                        let rows = *rows;
                        return self.sum_rows(gradient, rows, to);
                    }
                    if leading == 0 {
                        return self.reduce("ReduceSum", gradient, &axes, true);
                    }
                    let sum = self.reduce("ReduceSum", gradient, &axes, false);
                    if inner { self.reshape_like(&sum, to) } else { sum }
                }
                None => {
                    let same_rank = from.len() == target.len();
                    self.unbroadcast_at_run_time(gradient, to, same_rank)
                }
            },
            _ => self.unbroadcast_at_run_time(gradient, to, false),
        }
    }

    /// `[rows, n]` to `[n]` as a product with ones: on the CPU three times as fast as `ReduceSum` over rows.
    fn sum_rows(&mut self, gradient: &Value, rows: Dim, to: &Value) -> Value {
        let element = self.facts.element(to);
        let ones = match self.ones.get(&(rows, element)) {
            Some(ones) => ones.clone(),
            None => {
                let count = self.shape_slice(gradient, 0, 1);
                let one = self.builder.float_of(1.0, element);
                let ones = self.builder.node("Expand", &[&one, &count]);
                self.ones.insert((rows, element), ones.clone());
                ones
            }
        };
        self.binary("MatMul", &ones, gradient)
    }

    /// As [`unbroadcast`](Self::unbroadcast), where sizes are known only when the graph runs.
    fn unbroadcast_at_run_time(&mut self, gradient: &Value, to: &Value, same_rank: bool) -> Value {
        let shape = self.builder.node("Shape", &[to]);
        let padded = if same_rank {
            shape.clone()
        } else {
            let wide = self.builder.node("Shape", &[gradient]);
            let (wide, narrow) = (self.builder.node("Size", &[&wide]), self.builder.node("Size", &[&shape]));
            let missing = self.builder.node("Sub", &[&wide, &narrow]);
            let one = self.builder.ints(&[1]);
            let missing = self.builder.node("Reshape", &[&missing, &one]);
            let single = self.builder.int(1);
            let ones = self.builder.node("Expand", &[&single, &missing]);
            self.builder.node_with("Concat", "", &[&ones, &shape], &[("axis", Attribute::Int(0))])
        };
        let one = self.builder.int(1);
        let single = self.builder.node("Equal", &[&padded, &one]);
        let axes = self.builder.node("NonZero", &[&single]);
        let flat = self.builder.ints(&[-1]);
        let axes = self.builder.node("Reshape", &[&axes, &flat]);
        let attributes = [("keepdims", Attribute::Int(1)), ("noop_with_empty_axes", Attribute::Int(1))];
        let sum = self.builder.node_with("ReduceSum", "", &[gradient, &axes], &attributes);
        self.builder.node("Reshape", &[&sum, &shape])
    }

    /// Sums a gradient whose leading axes are those of `product` to the shape of `side`, a factor of the product.
    pub(super) fn sum_batches(&mut self, gradient: &Value, product: &Value, side: &Value) -> Value {
        let known = match (self.facts.shape(product), self.facts.shape(side)) {
            (Some(batch), Some(side)) if batch.len() == side.len() && side.len() > 2 => {
                let outer = side.len() - 2;
                broadcast_axes(&batch[..outer], &side[..outer])
            }
            _ => None,
        };
        match known {
            Some(axes) if axes.is_empty() => gradient.clone(),
            Some(axes) => self.reduce("ReduceSum", gradient, &axes, true),
            None => self.unbroadcast_at_run_time(gradient, side, false),
        }
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

/// The axes of `from` along which a value of shape `to` was repeated; none where sizes are not known.
fn broadcast_axes(from: &[Dim], to: &[Dim]) -> Option<Vec<i64>> {
    let leading = from.len().checked_sub(to.len())?;
    let mut axes: Vec<i64> = (0..leading as i64).collect();
    for (at, (from, to)) in from[leading..].iter().zip(to).enumerate() {
        match (from, to) {
            (from, to) if from == to => {}
            (_, Dim::Size(1)) => axes.push((leading + at) as i64),
            // Only what has size 1 is repeated.
            (_, Dim::Size(_)) => {}
            (_, Dim::Symbol(_)) => return None,
        }
    }
    Some(axes)
}
