//! Optimisers as graph nodes, over all weights as one flat vector.
//!
//! The moments and AdamW are computed element by element, so their graphs run on any part of the vector; LAMB's step
//! then wants the norms of each weight. Every output may lie in the memory of the input that it replaces: each of them
//! is read by one node only, or the node that writes depends on all that read.

use serde::{Deserialize, Serialize};

use super::value::{Attribute, Dimension};
use super::{ElementType, Graph, GraphBuilder, Value};

/// How weights follow their gradients.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Optimizer {
    /// AdamW with bias correction and decoupled weight decay (Loshchilov and Hutter 2019, algorithm 2; as PyTorch's).
    AdamW(Adam),
    /// LAMB as the authors of ANCE use it: no bias correction, the norm of a weight clamped to 10, biases and norms
    /// included (You et al. 2020, algorithm 2).
    Lamb(Adam),
}

/// What both have in common.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Adam {
    /// Decay of the first moment.
    pub beta1: f32,
    /// Decay of the second moment.
    pub beta2: f32,
    /// Added to the root of the second moment.
    pub epsilon: f32,
    /// Decay of the weights; 0 for none.
    pub weight_decay: f32,
}

impl Default for Adam {
    fn default() -> Self {
        Self { beta1: 0.9, beta2: 0.999, epsilon: 1e-8, weight_decay: 0.0 }
    }
}

/// The largest norm of a weight that LAMB reckons with.
const LARGEST_NORM: f32 = 10.0;

/// The numbers that change from step to step, in the order of [`update_graph`]'s input `rates`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Rates {
    /// The gradient is multiplied by it: clipping, loss scale, accumulation.
    pub(super) gradient: f32,
    /// The learning rate.
    pub(super) learning_rate: f32,
    /// The step's number, from 1.
    pub(super) step: u64,
}

impl Optimizer {
    pub(super) fn adam(&self) -> &Adam {
        match self {
            Self::AdamW(adam) | Self::Lamb(adam) => adam,
        }
    }

    /// The values of `rates`.
    pub(super) fn rates(&self, rates: Rates) -> Vec<f32> {
        let adam = self.adam();
        match self {
            Self::AdamW(_) => {
                let correction = |beta: f32| 1.0 - f64::from(beta).powi(i32::try_from(rates.step).unwrap_or(i32::MAX));
                let (first, second) = (correction(adam.beta1), correction(adam.beta2));
                let learning_rate = f64::from(rates.learning_rate);
                vec![
                    rates.gradient,
                    (1.0 - learning_rate * f64::from(adam.weight_decay)) as f32,
                    (learning_rate / first) as f32,
                    (1.0 / second.sqrt()) as f32,
                ]
            }
            Self::Lamb(_) => vec![rates.gradient],
        }
    }

    /// A step over part of the vector: inputs `weight`, `first`, `second`, `gradient` f32 `[n]` and `rates`; outputs
    /// `first/new`, `second/new` and, for AdamW, `weight/new`; for LAMB `direction`, which the step goes along.
    pub(super) fn update_graph(&self) -> Graph {
        let adam = *self.adam();
        let mut builder = GraphBuilder::new("update", ElementType::F32);
        let n = [Dimension::Name("n")];
        let mut vector = |name: &str| builder.input(name, ElementType::F32, &n);
        let (weight, first, second, gradient) =
            (vector("weight"), vector("first"), vector("second"), vector("gradient"));
        let count = if matches!(self, Self::AdamW(_)) { 4 } else { 1 };
        let rates = builder.input("rates", ElementType::F32, &[Dimension::Size(count)]);
        let rates = if count == 1 {
            vec![rates]
        } else {
            let ones = builder.ints(&vec![1; count as usize]);
            builder.node_outputs("Split", &[&rates, &ones], &[("axis", Attribute::Int(0))], count as usize)
        };
        let g = builder.node("Mul", &[&gradient, &rates[0]]);
        let first = moving_average(&mut builder, &first, &g, adam.beta1);
        let square = builder.node("Mul", &[&g, &g]);
        let second = moving_average(&mut builder, &second, &square, adam.beta2);
        let epsilon = builder.float(adam.epsilon);
        let root = builder.node("Sqrt", &[&second]);
        builder.output(&first, "first/new", ElementType::F32, &n);
        builder.output(&second, "second/new", ElementType::F32, &n);
        match self {
            Self::AdamW(_) => {
                let root = builder.node("Mul", &[&root, &rates[3]]);
                let below = builder.node("Add", &[&root, &epsilon]);
                let direction = builder.node("Div", &[&first, &below]);
                let change = builder.node("Mul", &[&direction, &rates[2]]);
                let kept = if adam.weight_decay == 0.0 { weight } else { builder.node("Mul", &[&weight, &rates[1]]) };
                let new = builder.node("Sub", &[&kept, &change]);
                builder.output(&new, "weight/new", ElementType::F32, &n);
            }
            Self::Lamb(_) => {
                let below = builder.node("Add", &[&root, &epsilon]);
                let mut direction = builder.node("Div", &[&first, &below]);
                if adam.weight_decay != 0.0 {
                    let decay = builder.float(adam.weight_decay);
                    let pull = builder.node("Mul", &[&weight, &decay]);
                    direction = builder.node("Add", &[&direction, &pull]);
                }
                builder.output(&direction, "direction", ElementType::F32, &n);
            }
        }
        builder.finish()
    }
}

/// `beta · average + (1 - beta) · x`.
fn moving_average(builder: &mut GraphBuilder, average: &Value, x: &Value, beta: f32) -> Value {
    let (old, new) = (builder.float(beta), builder.float((1.0 - f64::from(beta)) as f32));
    let old = builder.node("Mul", &[average, &old]);
    let new = builder.node("Mul", &[x, &new]);
    builder.node("Add", &[&old, &new])
}

/// LAMB's step: inputs `weight/i` and `direction/i` f32 `[sizes[i]]` and `learning_rate` f32 `[1]`; outputs
/// `weight/i/new` = weight - learning rate · min(|weight|, 10) / |direction| · direction, the ratio 1 where a norm is 0.
pub(super) fn trust_graph(sizes: &[usize]) -> Graph {
    let mut builder = GraphBuilder::new("trust", ElementType::F32);
    let rate = builder.input("learning_rate", ElementType::F32, &[Dimension::Size(1)]);
    let axis = [("axis", Attribute::Int(0))];
    let (mut weights, mut directions, mut norms) = (Vec::new(), Vec::new(), (Vec::new(), Vec::new()));
    let zeroth = builder.ints(&[0]);
    for (number, &size) in sizes.iter().enumerate() {
        let shape = [Dimension::Size(size as i64)];
        let weight = builder.input(&format!("weight/{number}"), ElementType::F32, &shape);
        let direction = builder.input(&format!("direction/{number}"), ElementType::F32, &shape);
        norms.0.push(builder.node("ReduceL2", &[&weight, &zeroth]));
        norms.1.push(builder.node("ReduceL2", &[&direction, &zeroth]));
        weights.push(weight);
        directions.push(direction);
    }
    let mut list = |norms: &[Value]| {
        let norms: Vec<&Value> = norms.iter().collect();
        builder.node_with("Concat", "", &norms, &axis)
    };
    let (weight_norms, direction_norms) = (list(&norms.0), list(&norms.1));
    let (zero, one, largest) = (builder.float(0.0), builder.float(1.0), builder.float(LARGEST_NORM));
    let product = builder.node("Mul", &[&weight_norms, &direction_norms]);
    let usable = builder.node("Greater", &[&product, &zero]);
    let clamped = builder.node("Min", &[&weight_norms, &largest]);
    let ratios = builder.node("Div", &[&clamped, &direction_norms]);
    let ratios = builder.node("Where", &[&usable, &ratios, &one]);
    let rates = builder.node("Mul", &[&ratios, &rate]);
    let ones = builder.ints(&vec![1; sizes.len()]);
    let rates = builder.node_outputs("Split", &[&rates, &ones], &axis, sizes.len());
    for (number, ((weight, direction), rate)) in weights.iter().zip(&directions).zip(&rates).enumerate() {
        let change = builder.node("Mul", &[direction, rate]);
        let new = builder.node("Sub", &[weight, &change]);
        builder.output(
            &new,
            &format!("weight/{number}/new"),
            ElementType::F32,
            &[Dimension::Size(sizes[number] as i64)],
        );
    }
    builder.finish()
}

/// The sum of squares of part of the gradient: `gradient` f32 `[n]` to `sum` f32 `[1]`.
pub(super) fn square_graph() -> Graph {
    let mut builder = GraphBuilder::new("square", ElementType::F32);
    let gradient = builder.input("gradient", ElementType::F32, &[Dimension::Name("n")]);
    let axes = builder.ints(&[0]);
    let sum = builder.node_with("ReduceSumSquare", "", &[&gradient, &axes], &[("keepdims", Attribute::Int(1))]);
    builder.output(&sum, "sum", ElementType::F32, &[Dimension::Size(1)]);
    builder.finish()
}

/// Adds what a batch gave to what was gathered before: `fresh` `[n]` of type `compute` and `gradient` f32 `[n]` to
/// `gradient/new`.
pub(super) fn accumulate_graph(compute: ElementType) -> Graph {
    let mut builder = GraphBuilder::new("accumulate", ElementType::F32);
    let n = [Dimension::Name("n")];
    let fresh = builder.input("fresh", compute, &n);
    let gradient = builder.input("gradient", ElementType::F32, &n);
    let fresh = if compute == ElementType::F32 { fresh } else { builder.cast(&fresh, ElementType::F32) };
    let sum = builder.node("Add", &[&gradient, &fresh]);
    builder.output(&sum, "gradient/new", ElementType::F32, &n);
    builder.finish()
}

/// `x` `[n]` from one float type to another: `y`.
pub(super) fn cast_graph(from: ElementType, to: ElementType) -> Graph {
    let mut builder = GraphBuilder::new("cast", ElementType::F32);
    let n = [Dimension::Name("n")];
    let x = builder.input("x", from, &n);
    // A plain copy is no cast.
    let y = if from == to { x } else { builder.cast(&x, to) };
    builder.output(&y, "y", to, &n);
    builder.finish()
}
