//! Layers of ONNX Runtime's own operators.

use super::{Config, Layer};
use crate::onnx::graph::MICROSOFT;
use crate::onnx::value::Attribute;
use crate::onnx::{Activation, ElementType, GraphBuilder, Value};

/// Layers of ONNX Runtime's fused operators (docs/ContribOperators.md of ONNX Runtime).
pub(super) struct FusedLayer<'a> {
    config: &'a Config,
    /// Tokens of each text, i32 [batch]: padding stands on the right only.
    lengths: Value,
    /// [batch, tokens, hidden], as a tensor.
    shape: Value,
}

impl<'a> FusedLayer<'a> {
    pub(super) fn new(builder: &mut GraphBuilder, config: &'a Config, mask: &Value, shape: &Value) -> Self {
        let mask = builder.cast(mask, ElementType::I32);
        let axis = builder.ints(&[1]);
        let lengths = builder.node_with("ReduceSum", "", &[&mask, &axis], &[("keepdims", Attribute::Int(0))]);
        let last = builder.ints(&[config.hidden as i64]);
        let shape = builder.node_with("Concat", "", &[shape, &last], &[("axis", Attribute::Int(0))]);
        Self { config, lengths, shape }
    }

    /// `layer_norm(x + skip + bias)`.
    fn skip_norm(&self, builder: &mut GraphBuilder, x: &Value, skip: &Value, norm: &str, bias: &str) -> Value {
        let size = self.config.hidden;
        let scale = builder.weight(&format!("{norm}.weight"), &[size]);
        let shift = builder.weight(&format!("{norm}.bias"), &[size]);
        let bias = builder.weight(&format!("{bias}.bias"), &[size]);
        let attributes = [("epsilon", Attribute::Float(self.config.epsilon))];
        builder.node_with("SkipLayerNormalization", MICROSOFT, &[x, skip, &scale, &shift, &bias], &attributes)
    }
}

impl Layer for FusedLayer<'_> {
    fn append(&self, builder: &mut GraphBuilder, rows: &Value, prefix: &str) -> Value {
        let (size, wide) = (self.config.hidden, self.config.intermediate);
        let mut project = |name: &str| {
            let y = builder.linear(rows, &format!("{prefix}attention.self.{name}"), size, size, true);
            builder.node("Reshape", &[&y, &self.shape])
        };
        let (query, key, value) = (project("query"), project("key"), project("value"));
        let mixed = builder.node_optional(
            "MultiHeadAttention",
            MICROSOFT,
            &[Some(&query), Some(&key), Some(&value), None, Some(&self.lengths)],
            &[("num_heads", Attribute::Int(self.config.heads as i64))],
        );
        let flat = builder.ints(&[-1, size as i64]);
        let mixed = builder.node("Reshape", &[&mixed, &flat]);
        let dense = format!("{prefix}attention.output.dense");
        let y = builder.linear(&mixed, &dense, size, size, false);
        let x = self.skip_norm(builder, &y, rows, &format!("{prefix}attention.output.LayerNorm"), &dense);
        let dense = format!("{prefix}intermediate.dense");
        let y = if self.config.activation == Activation::Gelu {
            let y = builder.linear(&x, &dense, size, wide, false);
            let bias = builder.weight(&format!("{dense}.bias"), &[wide]);
            builder.node_with("BiasGelu", MICROSOFT, &[&y, &bias], &[])
        } else {
            let y = builder.linear(&x, &dense, size, wide, true);
            self.config.activation.append(builder, &y)
        };
        let dense = format!("{prefix}output.dense");
        let y = builder.linear(&y, &dense, wide, size, false);
        self.skip_norm(builder, &y, &x, &format!("{prefix}output.LayerNorm"), &dense)
    }
}
