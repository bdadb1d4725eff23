//! The forward graph of the BERT family (Devlin et al. 2018; post-layer-norm transformer encoders with learned
//! positions: BERT, MiniLM, RoBERTa), from token ids to vectors.
//!
//! Token vectors are kept as rows [batch · tokens, hidden], so that every projection is one matrix product; only
//! attention sees [batch, heads, tokens, head size].

mod fused;
mod packed;
mod plain;

use fused::FusedLayer;
pub use packed::DropoutSeed;
pub(super) use packed::{Packed, Segment, packed_encoder};
use plain::PlainLayer;

use super::value::{Attribute, Dimension};
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
    /// What is dropped in training.
    pub dropout: Dropout,
}

/// The shares that are dropped in training (`hidden_dropout_prob`, `attention_probs_dropout_prob`).
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Dropout {
    /// Of token vectors: of the embeddings and of the output of each projection back to `hidden`.
    pub hidden: f32,
    /// Of attention shares.
    pub attention: f32,
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
