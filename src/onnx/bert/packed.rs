//! The transformer over texts of different lengths without padding, which is what training differentiates.
//!
//! Rows are the tokens of all texts, one text after another, so that no projection, normalisation or activation is
//! computed for padding. Only attention sees cells [texts, length], padded to the longest text of its segment: rows are
//! gathered into cells and back, and since each row has one cell, the gradient of either gather is the other.

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{RngCore as _, SeedableRng as _};

use super::{Config, Dropout};
use crate::onnx::builder::Scatter;
use crate::onnx::graph::MICROSOFT;
use crate::onnx::value::Attribute;
use crate::onnx::{ElementType, GraphBuilder, Head, Value};

/// Tokens of several segments of texts, as inputs of a graph.
pub(in crate::onnx) struct Packed {
    /// Token ids, i64 `[rows]`.
    pub(in crate::onnx) ids: Value,
    /// Rows of the position table, i64 `[rows]`.
    pub(in crate::onnx) positions: Value,
    /// The cell of each row, i64 `[rows]`; cells are counted through all segments in their order.
    pub(in crate::onnx) cells: Value,
    /// The cell of each row's first attention head, i64 `[rows]`, where cells are `[texts, heads, length]`.
    pub(in crate::onnx) head_cells: Value,
    /// The length of each row's segment, i64 `[rows]`: from one head's cell to the next one's.
    pub(in crate::onnx) strides: Value,
    pub(in crate::onnx) segments: Vec<Segment>,
}

/// Texts that are padded to one length in attention: queries, or passages.
pub(in crate::onnx) struct Segment {
    /// The row of each cell, i64 `[texts, length]`; any row for padding.
    pub(in crate::onnx) rows: Value,
    /// 1 for a token, 0 for padding, i64 `[texts, length]`.
    pub(in crate::onnx) mask: Value,
}

/// The seeds of dropout nodes, each of its own.
struct Seeds {
    random: ChaCha8Rng,
    step: u64,
}

impl Seeds {
    fn new(seed: DropoutSeed) -> Self {
        Self { random: ChaCha8Rng::seed_from_u64(seed.run), step: seed.step }
    }

    /// ONNX Runtime's CPU kernel seeds run n of a session with the node's seed plus n: a session that is made at step n
    /// goes on as one made at step 0 would.
    fn next(&mut self) -> i64 {
        // 30 bits: the kernel narrows seeds to 32, and steps are added.
        i64::from(self.random.next_u32() >> 2) + self.step as i64
    }
}

/// A seed and the step that the session starts at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DropoutSeed {
    /// Of the whole run.
    pub run: u64,
    /// Runs of the graph before this session's first.
    pub step: u64,
}

/// The vectors of each segment's texts, f32 `[texts, dimension]`; weights are declared by the way.
pub(in crate::onnx) fn packed_encoder(
    builder: &mut GraphBuilder,
    config: &Config,
    heads: &[Head],
    packed: &Packed,
    dropout: Option<DropoutSeed>,
) -> Vec<Value> {
    let mut transformer = Transformer::new(builder, config, packed, dropout);
    let mut rows = transformer.embed(builder);
    for number in 0..config.layers {
        rows = transformer.layer(builder, &rows, &format!("{}encoder.layer.{number}.", config.prefix));
    }
    let indexes: Vec<Value> = packed.segments.iter().map(|segment| segment.rows.clone()).collect();
    let cells = builder.gather_parts(&rows, &indexes, &packed.cells);
    let compute = std::mem::replace(&mut builder.float, ElementType::F32);
    let vectors = cells.iter().zip(&packed.segments).map(|(hidden, segment)| {
        let hidden = if compute == ElementType::F32 { hidden.clone() } else { builder.cast(hidden, ElementType::F32) };
        builder.heads(&hidden, &segment.mask, heads)
    });
    let vectors = vectors.collect();
    builder.float = compute;
    vectors
}

/// Where rows and cells find each other, for one attention head's part of a token vector.
struct HeadPlaces {
    /// The row of each cell, by segment: `[texts, heads, length]`.
    to_cells: Vec<Value>,
    /// All of them, flat.
    all: Value,
    /// The cell of each row, flat.
    to_rows: Value,
    /// 0 for padding, float, `[cells, 1]`.
    kept: Value,
}

struct Transformer<'a> {
    config: &'a Config,
    packed: &'a Packed,
    heads: HeadPlaces,
    /// 0 for tokens, a large negative number for padding; `[texts, 1, 1, length]` by segment.
    bias: Vec<Value>,
    dropout: Dropout,
    seeds: Option<Seeds>,
}

impl<'a> Transformer<'a> {
    fn new(builder: &mut GraphBuilder, config: &'a Config, packed: &'a Packed, seed: Option<DropoutSeed>) -> Self {
        let masks: Vec<Value> =
            packed.segments.iter().map(|segment| builder.cast(&segment.mask, builder.float)).collect();
        let bias = masks.iter().map(|mask| attention_bias(builder, mask)).collect();
        Self {
            config,
            packed,
            heads: head_places(builder, packed, &masks, config.heads as i64),
            bias,
            dropout: config.dropout,
            seeds: seed.map(Seeds::new),
        }
    }

    /// Word + position + token type 0, normalised: `[rows, hidden]`.
    fn embed(&mut self, builder: &mut GraphBuilder) -> Value {
        let (config, prefix) = (self.config, &self.config.prefix);
        let mut look_up = |name: &str, count: usize, at: &Value| {
            let table = builder.weight(&format!("{prefix}embeddings.{name}.weight"), &[count, config.hidden]);
            builder.node("Gather", &[&table, at])
        };
        let word = look_up("word_embeddings", config.vocabulary, &self.packed.ids);
        let position = look_up("position_embeddings", config.positions, &self.packed.positions);
        let mut sum = builder.node("Add", &[&word, &position]);
        if config.token_types > 0 {
            let table = format!("{prefix}embeddings.token_type_embeddings.weight");
            let table = builder.weight(&table, &[config.token_types, config.hidden]);
            let zero = builder.int(0);
            let kind = builder.node("Gather", &[&table, &zero]);
            sum = builder.node("Add", &[&sum, &kind]);
        }
        let rows = builder.layer_norm(&sum, &format!("{prefix}embeddings.LayerNorm"), config.hidden, config.epsilon);
        self.drop(builder, &rows, self.dropout.hidden)
    }

    /// One layer, rows to rows.
    fn layer(&mut self, builder: &mut GraphBuilder, rows: &Value, prefix: &str) -> Value {
        let (size, wide, epsilon) = (self.config.hidden, self.config.intermediate, self.config.epsilon);
        let mixed = self.attention(builder, rows, prefix);
        let y = builder.linear(&mixed, &format!("{prefix}attention.output.dense"), size, size, true);
        let y = self.drop(builder, &y, self.dropout.hidden);
        let y = builder.node("Add", &[&y, rows]);
        let x = builder.layer_norm(&y, &format!("{prefix}attention.output.LayerNorm"), size, epsilon);
        let y = builder.linear(&x, &format!("{prefix}intermediate.dense"), size, wide, true);
        let y = self.config.activation.append(builder, &y);
        let y = builder.linear(&y, &format!("{prefix}output.dense"), wide, size, true);
        let y = self.drop(builder, &y, self.dropout.hidden);
        let y = builder.node("Add", &[&y, &x]);
        builder.layer_norm(&y, &format!("{prefix}output.LayerNorm"), size, epsilon)
    }

    fn attention(&mut self, builder: &mut GraphBuilder, rows: &Value, prefix: &str) -> Value {
        let size = self.config.hidden;
        let head_size = (size / self.config.heads) as i64;
        let mut project = |name: &str| {
            let y = builder.linear(rows, &format!("{prefix}attention.self.{name}"), size, size, true);
            let shape = builder.ints(&[-1, head_size]);
            let y = builder.node("Reshape", &[&y, &shape]);
            builder.gather_parts(&y, &self.heads.to_cells, &self.heads.to_rows)
        };
        let (query, key, value) = (project("query"), project("key"), project("value"));
        let scale = 1.0 / (head_size as f32).sqrt();
        let flat = builder.ints(&[-1, head_size]);
        let mut mixed = Vec::new();
        for segment in 0..self.packed.segments.len() {
            let attributes = [("transB", Attribute::Int(1)), ("alpha", Attribute::Float(scale))];
            let scores = builder.node_with("FusedMatMul", MICROSOFT, &[&query[segment], &key[segment]], &attributes);
            let scores = builder.node("Add", &[&scores, &self.bias[segment]]);
            let shares = builder.node_with("Softmax", "", &[&scores], &[("axis", Attribute::Int(-1))]);
            let shares = self.drop(builder, &shares, self.dropout.attention);
            let part = builder.node("MatMul", &[&shares, &value[segment]]);
            mixed.push(builder.node("Reshape", &[&part, &flat]));
        }
        let mixed = self.to_rows(builder, &mixed);
        let shape = builder.ints(&[-1, size as i64]);
        builder.node("Reshape", &[&mixed, &shape])
    }

    /// The heads of all segments' cells, flat, into rows.
    fn to_rows(&self, builder: &mut GraphBuilder, cells: &[Value]) -> Value {
        let parts: Vec<&Value> = cells.iter().collect();
        let all = builder.node_with("Concat", "", &parts, &[("axis", Attribute::Int(0))]);
        let scatter = Scatter { inverse: self.heads.all.clone(), kept: Some(self.heads.kept.clone()) };
        builder.gather_rows(&all, &self.heads.to_rows, scatter)
    }

    fn drop(&mut self, builder: &mut GraphBuilder, x: &Value, share: f32) -> Value {
        let Some(seeds) = self.seeds.as_mut().filter(|_| share > 0.0) else { return x.clone() };
        let (share, training) = (builder.float_of(share, ElementType::F32), builder.truth(true));
        let seed = [("seed", Attribute::Int(seeds.next()))];
        builder.node_with("Dropout", "", &[x, &share, &training], &seed)
    }
}

fn attention_bias(builder: &mut GraphBuilder, mask: &Value) -> Value {
    // The largest penalty that 16-bit floats hold.
    let penalty = if builder.float == ElementType::F16 { -60_000.0 } else { -1e9 };
    let (one, penalty) = (builder.float(1.0), builder.float(penalty));
    let padding = builder.node("Sub", &[&one, mask]);
    let bias = builder.node("Mul", &[&padding, &penalty]);
    let axes = builder.ints(&[1, 2]);
    builder.node("Unsqueeze", &[&bias, &axes])
}

fn joined(builder: &mut GraphBuilder, parts: &[Value], flat: &[i64]) -> Value {
    let flat = builder.ints(flat);
    let parts: Vec<Value> = parts.iter().map(|part| builder.node("Reshape", &[part, &flat])).collect();
    let parts: Vec<&Value> = parts.iter().collect();
    builder.node_with("Concat", "", &parts, &[("axis", Attribute::Int(0))])
}

/// Row r of head h is row `r · heads + h`.
fn head_places(builder: &mut GraphBuilder, packed: &Packed, masks: &[Value], heads: i64) -> HeadPlaces {
    let (zero, one, count) = (builder.int(0), builder.int(1), builder.int(heads));
    let numbers = builder.node("Range", &[&zero, &count, &one]);
    let axis = builder.ints(&[1]);
    let column = builder.node("Unsqueeze", &[&numbers, &axis]);
    let mut to_cells = Vec::new();
    let mut kept = Vec::new();
    for (segment, mask) in packed.segments.iter().zip(masks) {
        let rows = builder.node("Unsqueeze", &[&segment.rows, &axis]);
        let rows = builder.node("Mul", &[&rows, &count]);
        let places = builder.node("Add", &[&rows, &column]);
        let shape = builder.node("Shape", &[&places]);
        let mask = builder.node("Unsqueeze", &[mask, &axis]);
        kept.push(builder.node("Expand", &[&mask, &shape]));
        to_cells.push(places);
    }
    let all = joined(builder, &to_cells, &[-1]);
    let kept = joined(builder, &kept, &[-1, 1]);
    let first = builder.node("Unsqueeze", &[&packed.head_cells, &axis]);
    let stride = builder.node("Unsqueeze", &[&packed.strides, &axis]);
    let further = builder.node("Mul", &[&stride, &numbers]);
    let to_rows = builder.node("Add", &[&first, &further]);
    let flat = builder.ints(&[-1]);
    let to_rows = builder.node("Reshape", &[&to_rows, &flat]);
    HeadPlaces { to_cells, all, to_rows, kept }
}
