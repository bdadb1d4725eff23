use proptest::prelude::*;

use super::{Array, Case, broadcast_shapes, spread};
use crate::onnx::value::Attribute;
use crate::onnx::{ElementType, GraphBuilder, Value};

fn arrays(seed: u64, shapes: &[Vec<usize>], low: f32, high: f32) -> Vec<Array> {
    let shapes: Vec<&[usize]> = shapes.iter().map(Vec::as_slice).collect();
    spread(seed, &shapes, low, high)
}

fn apply(operator: &'static str) -> impl Fn(&mut GraphBuilder, &[Value]) -> Value {
    move |builder, inputs| builder.node(operator, &inputs.iter().collect::<Vec<_>>())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn of_two_with_every_broadcasting(seed: u64, shapes in broadcast_shapes(2)) {
        for operator in ["Add", "Sub", "Mul"] {
            Case::of(arrays(seed, &shapes, -2.0, 2.0)).check(apply(operator));
        }
        for operator in ["Div", "Pow"] {
            Case::of(arrays(seed, &shapes, 0.5, 2.5)).check(apply(operator));
        }
    }

    #[test]
    fn of_three_with_every_broadcasting(seed: u64, shapes in broadcast_shapes(3)) {
        for operator in ["Sum", "Mean", "Max", "Min"] {
            Case::of(arrays(seed, &shapes, -2.5, 2.5)).check(apply(operator));
        }
    }

    #[test]
    fn where_with_every_broadcasting(seed: u64, shapes in broadcast_shapes(3)) {
        let choice: Vec<i64> = (0..shapes[0].iter().product::<usize>() as u64).map(|at| (seed >> at & 1) as i64).collect();
        Case::of(arrays(seed, &shapes[1..], -2.0, 2.0)).with(&shapes[0], &choice).check(|builder, inputs| {
            let choice = builder.cast(&inputs[2], ElementType::Bool);
            builder.node("Where", &[&choice, &inputs[0], &inputs[1]])
        });
    }
}

/// A sum's share and a product's, of one value.
#[test]
fn a_value_used_several_times() {
    Case::of(spread(1, &[&[2, 3]], -2.0, 2.0)).check(|builder, inputs| {
        let square = builder.node("Mul", &[&inputs[0], &inputs[0]]);
        let cube = builder.node("Mul", &[&square, &inputs[0]]);
        let sum = builder.node("Add", &[&square, &cube]);
        builder.node("Sub", &[&sum, &inputs[0]])
    });
}

#[test]
fn powers_of_constants_of_both_types() {
    for exponent in [2.0_f32, 3.0, 0.5, -1.0] {
        Case::of(spread(1, &[&[5]], 0.5, 2.5)).check(|builder, inputs| {
            let exponent = builder.float(exponent);
            builder.node("Pow", &[&inputs[0], &exponent])
        });
    }
    Case::of(spread(1, &[&[5]], -2.0, 2.0)).check(|builder, inputs| {
        let exponent = builder.int(3);
        builder.node("Pow", &[&inputs[0], &exponent])
    });
}

/// A difference sees half of each tied input's move, which is what equal parts give.
#[test]
fn ties_of_an_extreme_share_alike() {
    let tied = |data: &[f32]| Array { shape: vec![data.len()], data: data.to_vec() };
    for operator in ["Max", "Min"] {
        Case::of(vec![tied(&[0.5, 1.0]), tied(&[0.5, -1.0])]).check(apply(operator));
    }
    Case::of(vec![tied(&[0.5, 0.5])]).check(|builder, inputs| builder.node("ReduceMax", &[&inputs[0]]));
    Case::of(vec![tied(&[0.5, 0.5])]).check(|builder, inputs| {
        let axes = builder.ints(&[0]);
        builder.node_with("ReduceMin", "", &[&inputs[0], &axes], &[("keepdims", Attribute::Int(0))])
    });
}
