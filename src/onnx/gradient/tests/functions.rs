use proptest::prelude::*;

use super::{Case, NAMES, Sizes, elements, loss_weights, put_out, run, session, shapes, spread, weighted_sum};
use crate::onnx::graph::MICROSOFT;
use crate::onnx::value::Attribute;
use crate::onnx::{ElementType, GraphBuilder, Value, gradients};

/// Operator, domain, attributes, and the range that it is tried in.
type Function = (&'static str, &'static str, Vec<(&'static str, Attribute)>, f32, f32);

fn functions() -> Vec<Function> {
    vec![
        ("Neg", "", vec![], -2.0, 2.0),
        ("Abs", "", vec![], -2.0, 2.0),
        ("Sqrt", "", vec![], 0.5, 3.0),
        ("Reciprocal", "", vec![], 0.5, 3.0),
        ("Exp", "", vec![], -2.0, 1.5),
        ("Log", "", vec![], 0.5, 3.0),
        ("Erf", "", vec![], -2.0, 2.0),
        ("Tanh", "", vec![], -2.0, 2.0),
        ("Sigmoid", "", vec![], -3.0, 3.0),
        ("Softplus", "", vec![], -3.0, 3.0),
        ("Relu", "", vec![], -2.0, 2.0),
        ("Sin", "", vec![], -3.0, 3.0),
        ("Cos", "", vec![], -3.0, 3.0),
        ("LeakyRelu", "", vec![], -2.0, 2.0),
        ("LeakyRelu", "", vec![("alpha", Attribute::Float(0.3))], -2.0, 2.0),
        ("Elu", "", vec![], -2.0, 2.0),
        ("Elu", "", vec![("alpha", Attribute::Float(1.7))], -2.0, 2.0),
        ("HardSigmoid", "", vec![("alpha", Attribute::Float(1.0))], -1.5, 1.5),
        ("HardSigmoid", "", vec![], -2.0, 2.0),
        ("HardSwish", "", vec![], -2.9, 2.9),
        ("HardSwish", "", vec![], 3.1, 5.0),
        ("HardSwish", "", vec![], -5.0, -3.1),
        ("Gelu", "", vec![], -3.0, 3.0),
        ("Gelu", "", vec![("approximate", Attribute::Text("tanh"))], -3.0, 3.0),
        ("Gelu", MICROSOFT, vec![], -3.0, 3.0),
        ("FastGelu", MICROSOFT, vec![], -3.0, 3.0),
        ("QuickGelu", MICROSOFT, vec![], -3.0, 3.0),
        ("QuickGelu", MICROSOFT, vec![("alpha", Attribute::Float(0.7))], -3.0, 3.0),
        ("Identity", "", vec![], -2.0, 2.0),
        ("Dropout", "", vec![], -2.0, 2.0),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(6))]

    #[test]
    fn of_one_value(seed: u64, shape in shapes(0..=4)) {
        for (operator, domain, attributes, low, high) in functions() {
            // This one of ONNX Runtime's own takes no scalar.
            if operator == "FastGelu" && shape.is_empty() {
                continue;
            }
            Case::of(spread(seed, &[&shape], low, high))
                .check(|builder, inputs| builder.node_with(operator, domain, &[&inputs[0]], &attributes));
        }
    }
}

#[test]
fn activations_with_a_bias() {
    for operator in ["BiasGelu", "FastGelu"] {
        Case::of(spread(1, &[&[2, 3, 4], &[4]], -2.0, 2.0))
            .check(|builder, inputs| builder.node_with(operator, MICROSOFT, &[&inputs[0], &inputs[1]], &[]));
    }
}

#[test]
fn clipping_with_and_without_bounds() {
    // An even count between -2 and 2 lies nowhere near the bounds.
    for (low, high) in [(Some(-1.0), Some(1.0)), (None, Some(0.5)), (Some(0.5), None), (None, None)] {
        Case::of(spread(1, &[&[2, 4]], -2.0, 2.0)).check(|builder, inputs| {
            let low = low.map(|bound| builder.float(bound));
            let high = high.map(|bound| builder.float(bound));
            builder.node_optional("Clip", "", &[Some(&inputs[0]), low.as_ref(), high.as_ref()], &[])
        });
    }
}

#[test]
fn casts_between_floats_pass_and_casts_to_integers_stop_a_gradient() {
    // None of the values lies near a whole number.
    Case::of(spread(1, &[&[6]], -2.1, 2.1)).check(|builder, inputs| {
        let same = builder.cast(&inputs[0], ElementType::F32);
        let like = builder.node("CastLike", &[&same, &inputs[0]]);
        let whole = builder.cast(&inputs[0], ElementType::I64);
        let whole = builder.cast(&whole, ElementType::F32);
        builder.node("Mul", &[&like, &whole])
    });
}

/// Seen in half precision, the gradient is rounded to it.
#[test]
fn a_cast_to_another_width_brings_the_gradient_back() {
    let mut builder = GraphBuilder::new("test", ElementType::F32);
    let case = Case::of(spread(1, &[&[6]], -2.0, 2.0));
    let x = case.inputs(&mut builder, Sizes::Fixed).remove(0);
    let half = builder.cast(&x, ElementType::F16);
    let three = builder.float_of(3.0, ElementType::F16);
    let half = builder.node("Mul", &[&half, &three]);
    let y = builder.cast(&half, ElementType::F32);
    let loss = builder.node_with("ReduceSum", "", &[&y], &[("keepdims", Attribute::Int(0))]);
    let found = gradients(&mut builder, &loss, &[x], None).unwrap();
    put_out(&mut builder, found[0].as_ref().unwrap());
    assert_eq!(run(&mut session(builder), &case.given())[0].data, vec![3.0; 6]);
}

fn dropout(builder: &mut GraphBuilder, x: &Value, ratio: Option<f32>, training: bool) -> Value {
    let ratio = ratio.map(|ratio| builder.float(ratio));
    let training = builder.truth(training);
    let seed = [("seed", Attribute::Int(7))];
    builder.node_optional("Dropout", "", &[Some(x), ratio.as_ref(), Some(&training)], &seed)
}

#[test]
fn dropout_outside_training_is_the_identity() {
    Case::of(spread(1, &[&[3, 4]], -2.0, 2.0)).check(|builder, inputs| dropout(builder, &inputs[0], Some(0.4), false));
}

/// The gradient is that of the mask which was drawn: `y / x` tells it, 0 or 1 / (1 - ratio).
#[test]
fn dropout_in_training_passes_what_it_kept() {
    for (ratio, scale) in [(Some(0.4_f32), 1.0 / 0.6), (None, 2.0), (Some(0.0), 1.0)] {
        let shape = [4, 8];
        let case = Case::of(spread(1, &[&shape], -2.0, 2.0));
        let mut builder = GraphBuilder::new("test", ElementType::F32);
        let x = case.inputs(&mut builder, Sizes::Open).remove(0);
        let y = dropout(&mut builder, &x, ratio, true);
        let weights = loss_weights(&shape);
        let weight = super::declare(&mut builder, "w", ElementType::F32, &shape, Sizes::Open);
        let loss = weighted_sum(&mut builder, &y, &weight);
        let found = gradients(&mut builder, &loss, &[x], None).unwrap();
        put_out(&mut builder, &y);
        put_out(&mut builder, found[0].as_ref().unwrap());
        let mut given = case.given();
        assert_eq!(given[0].0, NAMES[0]);
        given.push(("w", super::Given::Floats(weights.clone())));
        let outputs = run(&mut session(builder), &given);
        let mut kept = 0;
        for at in 0..elements(&shape) {
            let factor = outputs[0].data[at] / case.floats[0].data[at];
            assert!(factor == 0.0 || (factor - scale).abs() < 1e-5, "{factor}");
            assert!((outputs[1].data[at] - weights.data[at] * factor).abs() < 1e-5, "entry {at}");
            kept += usize::from(factor != 0.0);
        }
        assert!(if scale == 1.0 { kept == 32 } else { (4..29).contains(&kept) }, "{kept} of 32 were kept");
    }
}
