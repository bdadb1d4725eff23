use proptest::prelude::*;

use super::{Case, shapes, spread};
use crate::onnx::value::Attribute;

const REDUCTIONS: [(&str, f32, f32); 9] = [
    ("ReduceSum", -2.0, 2.0),
    ("ReduceMean", -2.0, 2.0),
    ("ReduceMax", -2.0, 2.0),
    ("ReduceMin", -2.0, 2.0),
    ("ReduceSumSquare", -2.0, 2.0),
    ("ReduceL1", -2.0, 2.0),
    ("ReduceL2", -2.0, 2.0),
    ("ReduceLogSum", 0.5, 2.5),
    ("ReduceLogSumExp", -2.0, 2.0),
];

proptest! {
    #![proptest_config(ProptestConfig::with_cases(12))]

    #[test]
    fn over_any_axes(seed: u64, shape in shapes(1..=4), chosen in prop::collection::vec(any::<bool>(), 4), from_the_end: bool, keep: bool) {
        let rank = shape.len() as i64;
        let mut axes: Vec<i64> = (0..rank).filter(|&axis| chosen[axis as usize]).collect();
        if axes.is_empty() {
            axes.push(0);
        }
        if from_the_end {
            axes.iter_mut().for_each(|axis| *axis -= rank);
        }
        for (operator, low, high) in REDUCTIONS {
            Case::of(spread(seed, &[&shape], low, high)).check(|builder, inputs| {
                let axes = builder.ints(&axes);
                let keep = [("keepdims", Attribute::Int(i64::from(keep)))];
                builder.node_with(operator, "", &[&inputs[0], &axes], &keep)
            });
        }
    }
}

#[test]
fn over_all_axes_where_none_are_named() {
    for (operator, low, high) in REDUCTIONS {
        for (keep, empty) in [(0, false), (1, false), (0, true), (1, true)] {
            Case::of(spread(1, &[&[2, 3]], low, high)).check(|builder, inputs| {
                let axes = builder.ints(&[]);
                let axes = empty.then_some(&axes);
                builder.node_optional(operator, "", &[Some(&inputs[0]), axes], &[("keepdims", Attribute::Int(keep))])
            });
        }
    }
}

#[test]
fn over_no_axes_where_the_node_says_so() {
    for (operator, low, high) in REDUCTIONS {
        Case::of(spread(1, &[&[2, 3]], low, high)).check(|builder, inputs| {
            let axes = builder.ints(&[]);
            builder.node_with(operator, "", &[&inputs[0], &axes], &[("noop_with_empty_axes", Attribute::Int(1))])
        });
    }
}

#[test]
fn of_a_scalar() {
    for (operator, low, high) in REDUCTIONS {
        Case::of(spread(1, &[&[]], low, high)).check(|builder, inputs| builder.node(operator, &[&inputs[0]]));
    }
}

#[test]
fn running_sums_in_both_directions() {
    for (axis, exclusive, reverse) in [(0, 0, 0), (1, 1, 0), (-1, 0, 1), (0, 1, 1)] {
        Case::of(spread(1, &[&[3, 4]], -2.0, 2.0)).check(|builder, inputs| {
            let axis = builder.int(axis);
            let flags = [("exclusive", Attribute::Int(exclusive)), ("reverse", Attribute::Int(reverse))];
            builder.node_with("CumSum", "", &[&inputs[0], &axis], &flags)
        });
    }
}

/// As PyTorch has it: no direction to go.
#[test]
fn the_length_of_zeros_has_gradient_zero() {
    let mut builder = crate::onnx::GraphBuilder::new("test", crate::onnx::ElementType::F32);
    let case = Case::of(vec![super::Array { shape: vec![3], data: vec![0.0; 3] }]);
    let x = case.inputs(&mut builder, super::Sizes::Fixed).remove(0);
    let loss = builder.node_with("ReduceL2", "", &[&x], &[("keepdims", Attribute::Int(0))]);
    let found = crate::onnx::gradients(&mut builder, &loss, &[x], None).unwrap();
    super::put_out(&mut builder, found[0].as_ref().unwrap());
    assert_eq!(super::run(&mut super::session(builder), &case.given())[0].data, vec![0.0; 3]);
}
