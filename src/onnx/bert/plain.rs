//! Layers of standard operators.

use super::{Config, Layer};
use crate::onnx::value::Attribute;
use crate::onnx::{GraphBuilder, Value};

/// Layers of standard operators.
pub(super) struct PlainLayer<'a> {
    config: &'a Config,
    /// 0 for tokens, a large negative number for padding; [batch, 1, 1, tokens].
    bias: Value,
    /// [batch, tokens, heads, head size], as a tensor.
    split: Value,
}

impl<'a> PlainLayer<'a> {
    pub(super) fn new(builder: &mut GraphBuilder, config: &'a Config, mask: &Value, shape: &Value) -> Self {
        let (one, penalty) = (builder.float(1.0), builder.float(-1e9));
        let float = builder.float;
        let mask = builder.cast(mask, float);
        let padding = builder.node("Sub", &[&one, &mask]);
        let bias = builder.node("Mul", &[&padding, &penalty]);
        let axes = builder.ints(&[1, 2]);
        let bias = builder.node("Unsqueeze", &[&bias, &axes]);
        let heads = builder.ints(&[config.heads as i64, (config.hidden / config.heads) as i64]);
        let split = builder.node_with("Concat", "", &[shape, &heads], &[("axis", Attribute::Int(0))]);
        Self { config, bias, split }
    }

    fn attention(&self, builder: &mut GraphBuilder, x: &Value, prefix: &str) -> Value {
        let size = self.config.hidden;
        let mut project = |name: &str, permutation: [i64; 4]| {
            let y = builder.linear(x, &format!("{prefix}attention.self.{name}"), size, size, true);
            let y = builder.node("Reshape", &[&y, &self.split]);
            builder.node_with("Transpose", "", &[&y], &[("perm", Attribute::Ints(permutation.to_vec()))])
        };
        let query = project("query", [0, 2, 1, 3]);
        let key = project("key", [0, 2, 3, 1]);
        let value = project("value", [0, 2, 1, 3]);
        let scale = builder.float(1.0 / ((size / self.config.heads) as f32).sqrt());
        let scores = builder.node("MatMul", &[&query, &key]);
        let scores = builder.node("Mul", &[&scores, &scale]);
        let scores = builder.node("Add", &[&scores, &self.bias]);
        let shares = builder.node_with("Softmax", "", &[&scores], &[("axis", Attribute::Int(-1))]);
        let mixed = builder.node("MatMul", &[&shares, &value]);
        let mixed = builder.node_with("Transpose", "", &[&mixed], &[("perm", Attribute::Ints(vec![0, 2, 1, 3]))]);
        let rows = builder.ints(&[-1, size as i64]);
        builder.node("Reshape", &[&mixed, &rows])
    }
}

impl Layer for PlainLayer<'_> {
    fn append(&self, builder: &mut GraphBuilder, rows: &Value, prefix: &str) -> Value {
        let (size, wide, epsilon) = (self.config.hidden, self.config.intermediate, self.config.epsilon);
        let mixed = self.attention(builder, rows, prefix);
        let y = builder.linear(&mixed, &format!("{prefix}attention.output.dense"), size, size, true);
        let y = builder.node("Add", &[&y, rows]);
        let x = builder.layer_norm(&y, &format!("{prefix}attention.output.LayerNorm"), size, epsilon);
        let y = builder.linear(&x, &format!("{prefix}intermediate.dense"), size, wide, true);
        let y = self.config.activation.append(builder, &y);
        let y = builder.linear(&y, &format!("{prefix}output.dense"), wide, size, true);
        let y = builder.node("Add", &[&y, &x]);
        builder.layer_norm(&y, &format!("{prefix}output.LayerNorm"), size, epsilon)
    }
}
