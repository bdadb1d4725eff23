//! The losses of dense retrieval as graph nodes, over the inner products of a batch's queries and passages.

use serde::{Deserialize, Serialize};

use super::value::{Attribute, Dimension};
use super::{ElementType, GraphBuilder, Value};

/// What is minimised.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Objective {
    /// The pairwise negative log-likelihood of ANCE (Xiong et al. 2020, section 3): mean `softplus(s⁻ - s⁺)` over
    /// triples of a query, a positive and a negative.
    Pairwise,
    /// Cross-entropy of each query's positive among all documents of the batch (Karpukhin et al. 2020, section 3.2),
    /// mined negatives included.
    InBatch,
}

/// How a loss is computed.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Loss {
    /// What is minimised.
    pub objective: Objective,
    /// Inner products are multiplied by it: those of unit vectors lie so close together that they give almost no
    /// gradient at scale 1.
    pub scale: f32,
    /// A document is several passages, and its best one scores it (MaxP, Xiong et al. 2020, section 4).
    pub chunks: bool,
}

/// The score that stands for "never": of chunks that are not there (as in the authors' code), of documents left out.
pub(super) const NEVER: f32 = -9999.0;

impl Loss {
    /// The loss of vectors `queries` f32 `[queries, dimension]` and `passages` f32 `[passages, dimension]`, a scalar.
    ///
    /// Inputs that it declares: with chunks `chunk.passages` i64 `[documents, chunks]` and `chunk.kept` f32 of the same
    /// shape (1, or 0 for a chunk that is not there); for pairs `pair.positive` and `pair.negative` i64 `[pairs]`, each
    /// `query · documents + document`; for in-batch `rows.query` and `rows.positive` i64 `[rows]` and `rows.kept` f32
    /// `[rows, documents]` (0 for a document that is no negative of the row).
    pub(super) fn append(&self, builder: &mut GraphBuilder, queries: &Value, passages: &Value) -> Value {
        let scale = [("transB", Attribute::Int(1)), ("alpha", Attribute::Float(self.scale))];
        let mut scores = builder.node_with("Gemm", "", &[queries, passages], &scale);
        if self.chunks {
            scores = best_chunk(builder, &scores);
        }
        match self.objective {
            Objective::Pairwise => pairwise(builder, &scores),
            Objective::InBatch => in_batch(builder, &scores),
        }
    }
}

/// Scores of passages `[queries, passages]` to scores of documents `[queries, documents]`.
fn best_chunk(builder: &mut GraphBuilder, scores: &Value) -> Value {
    let shape = [Dimension::Name("documents"), Dimension::Name("chunks")];
    let passages = builder.input("chunk.passages", ElementType::I64, &shape);
    let kept = builder.input("chunk.kept", ElementType::F32, &shape);
    let chunks = builder.node_with("Gather", "", &[scores, &passages], &[("axis", Attribute::Int(1))]);
    let chunks = never_unless(builder, &chunks, &kept);
    let last = builder.ints(&[2]);
    builder.node_with("ReduceMax", "", &[&chunks, &last], &[("keepdims", Attribute::Int(0))])
}

fn pairwise(builder: &mut GraphBuilder, scores: &Value) -> Value {
    let shape = [Dimension::Name("pairs")];
    let positive = builder.input("pair.positive", ElementType::I64, &shape);
    let negative = builder.input("pair.negative", ElementType::I64, &shape);
    let all = builder.ints(&[-1]);
    let flat = builder.node("Reshape", &[scores, &all]);
    let positive = builder.node("Gather", &[&flat, &positive]);
    let negative = builder.node("Gather", &[&flat, &negative]);
    let difference = builder.node("Sub", &[&negative, &positive]);
    let losses = builder.node("Softplus", &[&difference]);
    mean(builder, &losses)
}

fn in_batch(builder: &mut GraphBuilder, scores: &Value) -> Value {
    // A name of its own: the runtime takes equal names for equal sizes.
    let rows = Dimension::Name("examples");
    let query = builder.input("rows.query", ElementType::I64, std::slice::from_ref(&rows));
    let positive = builder.input("rows.positive", ElementType::I64, std::slice::from_ref(&rows));
    let kept = builder.input("rows.kept", ElementType::F32, &[rows, Dimension::Name("documents")]);
    let logits = builder.node("Gather", &[scores, &query]);
    let logits = never_unless(builder, &logits, &kept);
    let logs = builder.node_with("LogSoftmax", "", &[&logits], &[("axis", Attribute::Int(-1))]);
    let column = builder.ints(&[1]);
    let positive = builder.node("Unsqueeze", &[&positive, &column]);
    let chosen = builder.node_with("GatherElements", "", &[&logs, &positive], &[("axis", Attribute::Int(1))]);
    let losses = builder.node("Neg", &[&chosen]);
    mean(builder, &losses)
}

/// `x` where `kept` is 1, lowered by a large number where it is 0.
fn never_unless(builder: &mut GraphBuilder, x: &Value, kept: &Value) -> Value {
    let (one, never) = (builder.float_of(1.0, ElementType::F32), builder.float_of(NEVER, ElementType::F32));
    let left_out = builder.node("Sub", &[&one, kept]);
    let bias = builder.node("Mul", &[&left_out, &never]);
    builder.node("Add", &[x, &bias])
}

fn mean(builder: &mut GraphBuilder, losses: &Value) -> Value {
    builder.node_with("ReduceMean", "", &[losses], &[("keepdims", Attribute::Int(0))])
}
