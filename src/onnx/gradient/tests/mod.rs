//! Every rule against finite differences of the graph that it differentiates, run by ONNX Runtime.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test ends by panicking")]

mod arithmetic;
mod compositions;
mod engine;
mod export;
mod functions;
mod lookup;
mod matrix;
mod normalization;
mod reduction;
mod shape;

use ort::session::{Session, SessionInputValue};
use ort::value::Tensor as OrtTensor;
use proptest::prelude::*;

use crate::onnx::proto::{TensorTypeProto, TypeProto, ValueInfoProto};
use crate::onnx::value::Dimension;
use crate::onnx::{ElementType, GraphBuilder, Placement, Runtime, Value, gradients};

/// Values in row-major order.
#[derive(Debug, Clone, PartialEq)]
struct Array {
    shape: Vec<usize>,
    data: Vec<f32>,
}

/// What the graph is told of the sizes of its inputs.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Sizes {
    /// All of them.
    Fixed,
    /// Equal sizes have equal names; 1 is told.
    Named,
    /// Nothing: each axis has a name of its own.
    Open,
}

const ALL_SIZES: [Sizes; 3] = [Sizes::Fixed, Sizes::Named, Sizes::Open];

/// Half the distance of the points that a difference is taken between; a power of 2, so that it is exact.
const STEP: f32 = 1.0 / 128.0;

fn elements(shape: &[usize]) -> usize {
    shape.iter().product()
}

/// Numbers that look random: the splitmix64 sequence.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound as u64) as usize
    }
}

/// Arrays of values between `low` and `high`, no two of them nearer than the steps of a difference, nor any to the
/// middle: away from the kinks of max and of the like.
fn spread(seed: u64, shapes: &[&[usize]], low: f32, high: f32) -> Vec<Array> {
    let mut random = Random(seed);
    let count = shapes.iter().map(|shape| elements(shape)).sum::<usize>().next_multiple_of(2).max(2);
    let gap = (high - low) / count as f32;
    assert!(gap > 4.0 * STEP, "{count} values lie too close to each other");
    let mut pool: Vec<f32> = (0..count).map(|at| low + gap * (at as f32 + 0.5)).collect();
    for at in (1..count).rev() {
        pool.swap(at, random.below(at + 1));
    }
    let mut take = pool.into_iter();
    shapes
        .iter()
        .map(|shape| Array { shape: shape.to_vec(), data: take.by_ref().take(elements(shape)).collect() })
        .collect()
}

/// An input of a graph in a run.
#[derive(Debug, Clone)]
enum Given {
    Floats(Array),
    Integers(Vec<usize>, Vec<i64>),
}

fn declare(builder: &mut GraphBuilder, name: &str, element: ElementType, shape: &[usize], sizes: Sizes) -> Value {
    let shape: Vec<Dimension> = shape
        .iter()
        .enumerate()
        .map(|(at, &size)| match sizes {
            Sizes::Fixed => Dimension::Size(size as i64),
            Sizes::Named if size == 1 => Dimension::Size(1),
            Sizes::Named => Dimension::Name(format!("of{size}").leak()),
            Sizes::Open => Dimension::Name(format!("{name}.{at}").leak()),
        })
        .collect();
    builder.input(name, element, &shape)
}

/// Makes a float value an output, of any shape.
fn put_out(builder: &mut GraphBuilder, value: &Value) {
    let tensor_type = TensorTypeProto { elem_type: ElementType::F32 as i32, shape: None };
    let info = ValueInfoProto { name: value.name().into(), r#type: Some(TypeProto { tensor_type: Some(tensor_type) }) };
    builder.graph_mut().output.push(info);
}

fn session(builder: GraphBuilder) -> Session {
    let runtime = Runtime::load(None, 0).unwrap();
    let bytes = builder.finish().to_bytes();
    runtime.builder(Placement::Cpu).unwrap().commit_from_memory(&bytes).unwrap()
}

/// All outputs of a run, each of 32-bit floats.
fn run(session: &mut Session, inputs: &[(&str, Given)]) -> Vec<Array> {
    let inputs: Vec<(&str, SessionInputValue<'_>)> = inputs
        .iter()
        .map(|(name, given)| {
            let value: SessionInputValue<'_> = match given {
                Given::Floats(array) => {
                    OrtTensor::from_array((array.shape.clone(), array.data.clone())).unwrap().into()
                }
                Given::Integers(shape, data) => OrtTensor::from_array((shape.clone(), data.clone())).unwrap().into(),
            };
            (*name, value)
        })
        .collect();
    let outputs = session.run(inputs).unwrap();
    let read = |value: &ort::value::DynValue| {
        let (shape, data) = value.try_extract_tensor::<f32>().unwrap();
        Array { shape: shape.iter().map(|&size| size as usize).collect(), data: data.to_vec() }
    };
    (0..outputs.len()).map(|at| read(&outputs[at])).collect()
}

/// Weights of y's elements in the loss, each at least 1/2 away from 0.
fn loss_weights(shape: &[usize]) -> Array {
    let mut random = Random(elements(shape) as u64);
    let weight = |random: &mut Random| {
        let size = 0.5 + random.below(1000) as f32 / 1000.0;
        if random.below(2) == 0 { size } else { -size }
    };
    Array { shape: shape.to_vec(), data: (0..elements(shape)).map(|_| weight(&mut random)).collect() }
}

fn dot(a: &Array, b: &Array) -> f64 {
    a.data.iter().zip(&b.data).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum()
}

/// A graph of float inputs, each of which must have a gradient, and of integer inputs.
struct Case {
    floats: Vec<Array>,
    integers: Vec<(Vec<usize>, Vec<i64>)>,
}

impl Case {
    fn of(floats: Vec<Array>) -> Self {
        Self { floats, integers: Vec::new() }
    }

    fn with(mut self, shape: &[usize], integers: &[i64]) -> Self {
        self.integers.push((shape.to_vec(), integers.to_vec()));
        self
    }

    fn inputs(&self, builder: &mut GraphBuilder, sizes: Sizes) -> Vec<Value> {
        let mut values = Vec::new();
        for (at, array) in self.floats.iter().enumerate() {
            values.push(declare(builder, NAMES[at], ElementType::F32, &array.shape, sizes));
        }
        for (at, (shape, _)) in self.integers.iter().enumerate() {
            values.push(declare(builder, NAMES[self.floats.len() + at], ElementType::I64, shape, sizes));
        }
        values
    }

    fn given(&self) -> Vec<(&'static str, Given)> {
        let floats = self.floats.iter().map(|array| Given::Floats(array.clone()));
        let integers = self.integers.iter().map(|(shape, data)| Given::Integers(shape.clone(), data.clone()));
        NAMES.into_iter().zip(floats.chain(integers)).collect()
    }

    /// Compares the gradients of `Σ y w` with differences, whatever the graph is told of sizes. `y` is given the float
    /// inputs, then the integer inputs.
    fn check(&self, y: impl Fn(&mut GraphBuilder, &[Value]) -> Value) {
        for sizes in ALL_SIZES {
            self.check_with(sizes, &y);
        }
    }

    fn check_with(&self, sizes: Sizes, y: impl Fn(&mut GraphBuilder, &[Value]) -> Value) {
        let mut forward = GraphBuilder::new("forward", ElementType::F32);
        let inputs = self.inputs(&mut forward, sizes);
        let value = y(&mut forward, &inputs);
        put_out(&mut forward, &value);
        let mut forward = session(forward);
        let mut given = self.given();
        let weights = loss_weights(&run(&mut forward, &given)[0].shape);

        let mut builder = GraphBuilder::new("backward", ElementType::F32);
        let inputs = self.inputs(&mut builder, sizes);
        let value = y(&mut builder, &inputs);
        let weight = declare(&mut builder, "w", ElementType::F32, &weights.shape, sizes);
        let loss = weighted_sum(&mut builder, &value, &weight);
        let wanted = &inputs[..self.floats.len()];
        let found = gradients(&mut builder, &loss, wanted, None).unwrap();
        for gradient in &found {
            put_out(&mut builder, gradient.as_ref().unwrap());
        }
        let mut all = given.clone();
        all.push(("w", Given::Floats(weights.clone())));
        let found = run(&mut session(builder), &all);

        for (input, gradient) in found.iter().enumerate() {
            assert_eq!(gradient.shape, self.floats[input].shape, "gradient of input {input}, sizes {sizes:?}");
            let expected = differences(&mut forward, &mut given, input, &weights);
            let context = format!("gradient of input {input}, sizes {sizes:?}, inputs {:?}", self.floats);
            assert_near(gradient, &expected, &context);
        }
    }
}

const NAMES: [&str; 6] = ["a", "b", "c", "d", "e", "f"];

fn weighted_sum(builder: &mut GraphBuilder, value: &Value, weight: &Value) -> Value {
    let product = builder.node("Mul", &[value, weight]);
    builder.node_with("ReduceSum", "", &[&product], &[("keepdims", crate::onnx::value::Attribute::Int(0))])
}

/// Central differences, the error of second order taken out (Richardson's extrapolation).
fn differences(session: &mut Session, given: &mut [(&str, Given)], input: usize, weights: &Array) -> Vec<f64> {
    let count = match &given[input].1 {
        Given::Floats(array) => array.data.len(),
        Given::Integers(..) => 0,
    };
    let mut at = |place: usize, step: f32| {
        let Given::Floats(array) = &mut given[input].1 else { panic!("no floats") };
        let before = array.data[place];
        array.data[place] = before + step;
        let loss = dot(&run(session, given)[0], weights);
        let Given::Floats(array) = &mut given[input].1 else { panic!("no floats") };
        array.data[place] = before;
        loss
    };
    let half_step = |difference: f64| difference / f64::from(STEP);
    (0..count)
        .map(|place| {
            let near = half_step(at(place, STEP) - at(place, -STEP)) / 2.0;
            let far = half_step(at(place, 2.0 * STEP) - at(place, -2.0 * STEP)) / 4.0;
            (4.0 * near - far) / 3.0
        })
        .collect()
}

/// Within 1/500 of the largest entry (or of 1/2, where all are smaller): the differences of 32-bit floats are no finer.
fn assert_near(found: &Array, expected: &[f64], context: &str) {
    let largest = expected.iter().fold(0.5_f64, |largest, value| largest.max(value.abs()));
    assert_eq!(found.data.len(), expected.len(), "{context}");
    for (at, (found, expected)) in found.data.iter().zip(expected).enumerate() {
        let off = (f64::from(*found) - expected).abs();
        assert!(off <= largest / 500.0, "entry {at}: {found}, by differences {expected}; {context}");
    }
}

/// Shapes of rank 0 to `rank` of sizes 1 to 3, 24 elements at most.
fn shapes(ranks: std::ops::RangeInclusive<usize>) -> impl Strategy<Value = Vec<usize>> {
    prop::collection::vec(1..=3_usize, ranks).prop_filter("too many elements", |shape| elements(shape) <= 24)
}

/// `count` shapes that broadcast together, in any pattern.
fn broadcast_shapes(count: usize) -> impl Strategy<Value = Vec<Vec<usize>>> {
    let masks = prop::collection::vec((0..=4_usize, prop::collection::vec(any::<bool>(), 4)), count);
    (shapes(0..=4), masks).prop_map(|(full, masks)| {
        let narrow = |(rank, ones): (usize, Vec<bool>)| -> Vec<usize> {
            let kept = &full[full.len() - rank.min(full.len())..];
            kept.iter().zip(ones).map(|(&size, one)| if one { 1 } else { size }).collect()
        };
        masks.into_iter().map(narrow).collect()
    })
}
