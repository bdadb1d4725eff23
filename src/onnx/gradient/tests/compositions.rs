//! Parts of encoders as exporters write them, where several rules meet.

use super::{Case, spread};
use crate::onnx::value::Attribute;
use crate::onnx::{GraphBuilder, Value};

fn cut(builder: &mut GraphBuilder, x: &Value, from: i64, to: i64) -> Value {
    let (from, to, axis) = (builder.ints(&[from]), builder.ints(&[to]), builder.ints(&[-1]));
    builder.node("Slice", &[x, &from, &to, &axis])
}

/// `x cos + rotated(x) sin`, the halves of x exchanged in `rotated`, the first negated.
fn rotary(builder: &mut GraphBuilder, x: &Value, angles: &Value) -> Value {
    let (first, second) = (cut(builder, x, 0, 2), cut(builder, x, 2, i64::MAX));
    let second = builder.node("Neg", &[&second]);
    let rotated = builder.node_with("Concat", "", &[&second, &first], &[("axis", Attribute::Int(-1))]);
    let (cos, sin) = (builder.node("Cos", &[angles]), builder.node("Sin", &[angles]));
    let (straight, turned) = (builder.node("Mul", &[x, &cos]), builder.node("Mul", &[&rotated, &sin]));
    builder.node("Add", &[&straight, &turned])
}

/// Queries, keys and values in one product, split and rotated, as in ModernBERT.
#[test]
fn attention_with_rotary_positions() {
    Case::of(spread(1, &[&[2, 3, 4], &[4, 12], &[3, 4]], -1.5, 1.5)).check(|builder, inputs| {
        let joint = builder.node("MatMul", &[&inputs[0], &inputs[1]]);
        let sizes = builder.ints(&[0, 0, 3, 1, 4]);
        let joint = builder.node("Reshape", &[&joint, &sizes]);
        let order = [("perm", Attribute::Ints(vec![0, 3, 2, 1, 4]))];
        let joint = builder.node_with("Transpose", "", &[&joint], &order);
        let parts = [("axis", Attribute::Int(2)), ("num_outputs", Attribute::Int(3))];
        let parts = builder.node_outputs("Split", &[&joint], &parts, 3);
        let axis = builder.ints(&[2]);
        let parts: Vec<Value> = parts.iter().map(|part| builder.node("Squeeze", &[part, &axis])).collect();
        let (query, key) = (rotary(builder, &parts[0], &inputs[2]), rotary(builder, &parts[1], &inputs[2]));
        let key = builder.node_with("Transpose", "", &[&key], &[("perm", Attribute::Ints(vec![0, 1, 3, 2]))]);
        let scores = builder.node("MatMul", &[&query, &key]);
        let chances = builder.node_with("Softmax", "", &[&scores], &[("axis", Attribute::Int(-1))]);
        let mixed = builder.node("MatMul", &[&chances, &parts[2]]);
        let mixed = builder.node_with("Transpose", "", &[&mixed], &[("perm", Attribute::Ints(vec![0, 2, 1, 3]))]);
        let flat = builder.ints(&[0, 0, -1]);
        builder.node("Reshape", &[&mixed, &flat])
    });
}

/// Root mean square norm written out, a gated feed-forward, and a bias by relative position, as in T5.
#[test]
fn a_norm_written_out_a_gate_and_relative_positions() {
    Case::of(spread(1, &[&[2, 3, 4], &[4], &[4, 6], &[5, 3]], -1.5, 1.5)).check(|builder, inputs| {
        let (two, small, last) = (builder.float(2.0), builder.float(0.1), builder.ints(&[-1]));
        let square = builder.node("Pow", &[&inputs[0], &two]);
        let mean = builder.node("ReduceMean", &[&square, &last]);
        let mean = builder.node("Add", &[&mean, &small]);
        let root = builder.node("Sqrt", &[&mean]);
        let normed = builder.node("Div", &[&inputs[0], &root]);
        let normed = builder.node("Mul", &[&inputs[1], &normed]);
        let wide = builder.node("MatMul", &[&normed, &inputs[2]]);
        let (gate, rest) = (cut(builder, &wide, 0, 3), cut(builder, &wide, 3, 6));
        let share = builder.node("Sigmoid", &[&gate]);
        let gate = builder.node("Mul", &[&gate, &share]);
        let gated = builder.node("Mul", &[&gate, &rest]);
        // Positions of query and key from 0 to 2: their distance, from -2 to 2, counts the rows of the last input.
        let (zero, one, three, far) = (builder.int(0), builder.int(1), builder.int(3), builder.int(2));
        let places = builder.node("Range", &[&zero, &three, &one]);
        let (column, row) = (builder.ints(&[1]), builder.ints(&[0]));
        let (queries, keys) =
            (builder.node("Unsqueeze", &[&places, &column]), builder.node("Unsqueeze", &[&places, &row]));
        let distance = builder.node("Sub", &[&queries, &keys]);
        let distance = builder.node("Add", &[&distance, &far]);
        let bias = builder.node("Gather", &[&inputs[3], &distance]);
        let bias = builder.node_with("Transpose", "", &[&bias], &[("perm", Attribute::Ints(vec![2, 0, 1]))]);
        let axis = builder.ints(&[1]);
        let gated = builder.node("Unsqueeze", &[&gated, &axis]);
        builder.node("Add", &[&gated, &bias])
    });
}

/// The mean of the tokens that a mask keeps, brought to length 1.
#[test]
fn mean_pooling_and_length_one() {
    Case::of(spread(1, &[&[2, 3, 4]], -1.0, 1.0)).with(&[2, 3], &[1, 1, 1, 1, 0, 0]).check(|builder, inputs| {
        let mask = builder.node("CastLike", &[&inputs[1], &inputs[0]]);
        let (last, tokens, small) = (builder.ints(&[-1]), builder.ints(&[1]), builder.float(1e-9));
        let mask = builder.node("Unsqueeze", &[&mask, &last]);
        let kept = builder.node("Mul", &[&inputs[0], &mask]);
        let narrow = [("keepdims", Attribute::Int(0))];
        let sum = builder.node_with("ReduceSum", "", &[&kept, &tokens], &narrow);
        let count = builder.node_with("ReduceSum", "", &[&mask, &tokens], &narrow);
        let count = builder.node("Clip", &[&count, &small]);
        let mean = builder.node("Div", &[&sum, &count]);
        let length = builder.node("ReduceL2", &[&mean, &last]);
        let length = builder.node("Clip", &[&length, &small]);
        builder.node("Div", &[&mean, &length])
    });
}
