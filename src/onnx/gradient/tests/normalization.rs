use proptest::prelude::*;

use super::{ALL_SIZES, Array, Case, Sizes, shapes, spread};
use crate::onnx::GraphBuilder;
use crate::onnx::graph::MICROSOFT;
use crate::onnx::proto::OperatorSetId;
use crate::onnx::value::Attribute;

fn axis(axis: i64) -> [(&'static str, Attribute); 1] {
    [("axis", Attribute::Int(axis))]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn softmax_on_any_axis(seed: u64, shape in shapes(1..=4), at: prop::sample::Index, from_the_end: bool) {
        let place = at.index(shape.len()) as i64;
        let place = if from_the_end { place - shape.len() as i64 } else { place };
        for operator in ["Softmax", "LogSoftmax"] {
            Case::of(spread(seed, &[&shape], -2.0, 2.0))
                .check(|builder, inputs| builder.node_with(operator, "", &[&inputs[0]], &axis(place)));
        }
    }

    #[test]
    fn layer_normalization_over_the_last_axes(seed: u64, leading in shapes(0..=2), bias: bool, over_two: bool, width in 3..=4_usize) {
        let normed = if over_two { vec![2, width] } else { vec![width] };
        let x = [leading.iter().copied().take(1).collect(), normed.clone()].concat();
        let shapes: Vec<&[usize]> = [&x, &normed, &normed].into_iter().take(if bias { 3 } else { 2 }).map(Vec::as_slice).collect();
        let places = if over_two { [-2, x.len() as i64 - 2] } else { [-1, x.len() as i64 - 1] };
        for place in places {
            let mut attributes = axis(place).to_vec();
            attributes.push(("epsilon", Attribute::Float(0.1)));
            Case::of(spread(seed, &shapes, -2.0, 2.0)).check(|builder, inputs| {
                builder.node_with("LayerNormalization", "", &inputs.iter().collect::<Vec<_>>(), &attributes)
            });
        }
    }

    #[test]
    fn root_mean_square_normalization(seed: u64, leading in shapes(0..=2), width in 2..=4_usize) {
        let x = [leading.iter().copied().take(2).collect(), vec![width]].concat();
        let mut attributes = axis(-1).to_vec();
        attributes.push(("epsilon", Attribute::Float(0.1)));
        Case::of(spread(seed, &[&x, &[width]], -2.5, 2.5)).check(|builder, inputs| {
            builder.node_with("SimplifiedLayerNormalization", "", &[&inputs[0], &inputs[1]], &attributes)
        });
    }
}

/// Where the normalisation's default axis and epsilon are left to the operator.
#[test]
fn defaults_of_normalizations() {
    for operator in ["LayerNormalization", "SimplifiedLayerNormalization"] {
        Case::of(spread(1, &[&[2, 4], &[4]], -2.0, 2.0))
            .check(|builder, inputs| builder.node(operator, &[&inputs[0], &inputs[1]]));
    }
}

/// The operator came with set 23.
#[test]
fn root_mean_square_normalization_of_the_standard() {
    for sizes in ALL_SIZES {
        Case::of(spread(1, &[&[2, 4], &[4]], -2.0, 2.0)).check_with(sizes, |builder, inputs| {
            let newer = OperatorSetId { domain: String::new(), version: 23 };
            *builder = GraphBuilder::continued(builder.graph().clone(), vec![newer]);
            builder.node("RMSNormalization", &[&inputs[0], &inputs[1]])
        });
    }
}

fn skip_inputs(skip: &[usize], bias: bool) -> Vec<Array> {
    let shapes: [&[usize]; 5] = [&[2, 2, 4], skip, &[4], &[4], &[4]];
    let mut arrays = spread(3, &shapes, -2.0, 2.0);
    arrays.truncate(if bias { 5 } else { 4 });
    arrays
}

#[test]
fn normalization_of_a_sum() {
    for (skip, bias) in [(&[2, 2, 4][..], true), (&[2, 2, 4][..], false), (&[1, 2, 4][..], true), (&[2, 4][..], true)] {
        Case::of(skip_inputs(skip, bias)).check(|builder, inputs| {
            let epsilon = [("epsilon", Attribute::Float(0.01))];
            builder.node_with("SkipLayerNormalization", MICROSOFT, &inputs.iter().collect::<Vec<_>>(), &epsilon)
        });
    }
}

/// A pre-norm encoder goes on with the sum itself.
#[test]
fn normalization_of_a_sum_that_is_used_too() {
    for (with_norm, sizes) in [(true, Sizes::Fixed), (true, Sizes::Open)] {
        Case::of(skip_inputs(&[2, 2, 4], true)).check_with(sizes, |builder, inputs| {
            let norm = builder.node_with("SkipLayerNormalization", MICROSOFT, &inputs.iter().collect::<Vec<_>>(), &[]);
            let sum = crate::onnx::Value::new("sum");
            let node = builder.graph_mut().node.last_mut().unwrap();
            node.output.extend([String::new(), String::new(), "sum".into()]);
            if with_norm { builder.node("Mul", &[&norm, &sum]) } else { builder.node("Exp", &[&sum]) }
        });
    }
}
