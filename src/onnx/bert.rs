//! The forward graph of the BERT family (Devlin et al. 2018; post-layer-norm transformer encoders with learned
//! positions: BERT, MiniLM, RoBERTa), from token ids to vectors.
//!
//! Token vectors are kept as rows [batch · tokens, hidden], so that every projection is one matrix product; only
//! attention sees [batch, heads, tokens, head size].

use super::graph::{Attribute, Dimension, MICROSOFT};
use super::{Activation, ElementType, Graph, GraphBuilder, Head, Value};

/// The shape of a BERT-family encoder, from its `config.json`.
#[derive(Debug, Clone, PartialEq)]
pub struct Config {
    /// Rows of the word embedding table.
    pub vocabulary: usize,
    /// Components of a token vector.
    pub hidden: usize,
    /// Transformer layers.
    pub layers: usize,
    /// Attention heads; divides `hidden`.
    pub heads: usize,
    /// Components between the two feed-forward projections.
    pub intermediate: usize,
    /// Rows of the position table.
    pub positions: usize,
    /// Position of the first token: 0 for BERT, 2 for RoBERTa.
    pub first_position: usize,
    /// Rows of the token type table.
    pub token_types: usize,
    /// Added to the variance in layer normalisation.
    pub epsilon: f32,
    /// Of the feed-forward layer.
    pub activation: Activation,
    /// What stands before tensor names in the checkpoint: nothing, `bert.`, `roberta.`.
    pub prefix: String,
}

/// How a graph is written; the numbers that come out agree up to rounding.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Variant {
    /// Standard operators only: the reference, portable, and what training differentiates.
    Plain,
    /// ONNX Runtime's own operators for attention, skip-layer-norm and bias-gelu.
    Fused(ElementType),
}

/// The graph of an encoder: inputs `input_ids` and `attention_mask` i64 [batch, tokens] (padding on the right), output
/// `sentence_embedding` f32 [batch, `dimension`] and, with `hidden_output`, `last_hidden_state` [batch, tokens, hidden].
pub fn encoder_graph(
    config: &Config,
    heads: &[Head],
    dimension: usize,
    variant: Variant,
    hidden_output: bool,
) -> Graph {
    let float = match variant {
        Variant::Plain => ElementType::F32,
        Variant::Fused(float) => float,
    };
    let mut builder = GraphBuilder::new("encoder", float);
    let (batch, tokens) = (Dimension::Name("batch"), Dimension::Name("tokens"));
    let ids = builder.input("input_ids", ElementType::I64, &[batch.clone(), tokens.clone()]);
    let mask = builder.input("attention_mask", ElementType::I64, &[batch.clone(), tokens.clone()]);
    let hidden = match variant {
        Variant::Plain => transformer(&mut builder, config, &ids, &mask, &PlainLayer::new),
        Variant::Fused(_) => transformer(&mut builder, config, &ids, &mask, &FusedLayer::new),
    };
    if hidden_output {
        let size = Dimension::Size(config.hidden as i64);
        builder.output(&hidden, "last_hidden_state", float, &[batch.clone(), tokens, size]);
    }
    let vector = builder.heads(&hidden, &mask, heads);
    builder.output(&vector, "sentence_embedding", ElementType::F32, &[batch, Dimension::Size(dimension as i64)]);
    builder.finish()
}

/// What differs between the ways to write a layer.
trait Layer {
    /// One transformer layer over rows [batch · tokens, hidden].
    fn append(&self, builder: &mut GraphBuilder, rows: &Value, prefix: &str) -> Value;
}

fn transformer<'a, L: Layer>(
    builder: &mut GraphBuilder,
    config: &'a Config,
    ids: &Value,
    mask: &Value,
    new_layer: &dyn Fn(&mut GraphBuilder, &'a Config, &Value, &Value) -> L,
) -> Value {
    let prefix = &config.prefix;
    let size = config.hidden;
    let shape = builder.node("Shape", &[ids]);
    let embedded = embeddings(builder, config, ids, &shape);
    let rows = builder.ints(&[-1, size as i64]);
    let mut x = builder.node("Reshape", &[&embedded, &rows]);
    x = builder.layer_norm(&x, &format!("{prefix}embeddings.LayerNorm"), size, config.epsilon);
    let layer = new_layer(builder, config, mask, &shape);
    for number in 0..config.layers {
        x = layer.append(builder, &x, &format!("{prefix}encoder.layer.{number}."));
    }
    let last = builder.ints(&[size as i64]);
    let full = builder.node_with("Concat", "", &[&shape, &last], &[("axis", Attribute::Int(0))]);
    builder.node("Reshape", &[&x, &full])
}

/// Word + position + token type 0, [batch, tokens, hidden].
fn embeddings(builder: &mut GraphBuilder, config: &Config, ids: &Value, shape: &Value) -> Value {
    let (prefix, size) = (&config.prefix, config.hidden);
    let words = builder.weight(&format!("{prefix}embeddings.word_embeddings.weight"), &[config.vocabulary, size]);
    let positions =
        builder.weight(&format!("{prefix}embeddings.position_embeddings.weight"), &[config.positions, size]);
    let word = builder.node("Gather", &[&words, ids]);
    let (zero, one) = (builder.int(0), builder.int(1));
    let count = builder.node("Gather", &[shape, &one]);
    let first = builder.int(config.first_position as i64);
    let end = builder.node("Add", &[&count, &first]);
    let range = builder.node("Range", &[&first, &end, &one]);
    let position = builder.node("Gather", &[&positions, &range]);
    let sum = builder.node("Add", &[&word, &position]);
    if config.token_types == 0 {
        return sum;
    }
    let types =
        builder.weight(&format!("{prefix}embeddings.token_type_embeddings.weight"), &[config.token_types, size]);
    let kind = builder.node("Gather", &[&types, &zero]);
    builder.node("Add", &[&sum, &kind])
}

/// Layers of standard operators.
struct PlainLayer<'a> {
    config: &'a Config,
    /// 0 for tokens, a large negative number for padding; [batch, 1, 1, tokens].
    bias: Value,
    /// [batch, tokens, heads, head size], as a tensor.
    split: Value,
}

impl<'a> PlainLayer<'a> {
    fn new(builder: &mut GraphBuilder, config: &'a Config, mask: &Value, shape: &Value) -> Self {
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

/// Layers of ONNX Runtime's fused operators (docs/ContribOperators.md of ONNX Runtime).
struct FusedLayer<'a> {
    config: &'a Config,
    /// Tokens of each text, i32 [batch]: padding stands on the right only.
    lengths: Value,
    /// [batch, tokens, hidden], as a tensor.
    shape: Value,
}

impl<'a> FusedLayer<'a> {
    fn new(builder: &mut GraphBuilder, config: &'a Config, mask: &Value, shape: &Value) -> Self {
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
