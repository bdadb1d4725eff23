//! The graph of a training step: tokens in, the loss and the gradient of every weight out.

use crate::onnx::bert::{self, DropoutSeed, Packed, Segment, packed_encoder};
use crate::onnx::graph::WeightSlot;
use crate::onnx::value::Dimension;
use crate::onnx::{ElementType, Error, Graph, GraphBuilder, Head, Loss, Value, gradients};

/// What stands before the name of a weight in the name of its gradient.
pub(super) const GRADIENT: &str = "gradient/";

/// What an encoder is trained as.
#[derive(Debug, Clone, PartialEq)]
pub struct Task {
    /// The transformer.
    pub config: bert::Config,
    /// What follows it.
    pub heads: Vec<Head>,
    /// What is minimised.
    pub loss: Loss,
}

/// A step's graph, and the weights that it trains.
#[derive(Debug)]
pub(super) struct Step {
    pub(super) graph: Graph,
    pub(super) weights: Vec<WeightSlot>,
}

impl Task {
    /// The step's graph: inputs are the tokens of queries and passages as rows ([`Batch`](super::Batch)), those of the
    /// loss, `loss_scale` (f32, a scalar) and every weight by its name; outputs are `loss` (f32, a scalar, not scaled)
    /// and `gradient/NAME` for each weight, in the type `compute`.
    ///
    /// # Errors
    /// A part of the model that cannot be differentiated.
    pub(super) fn step(&self, compute: ElementType, dropout: Option<DropoutSeed>) -> Result<Step, Error> {
        let mut builder = GraphBuilder::for_training("step", compute);
        let packed = inputs(&mut builder);
        let vectors = packed_encoder(&mut builder, &self.config, &self.heads, &packed, dropout);
        let [queries, passages] = vectors.as_slice() else {
            return Err(Error::Unsupported("a step takes queries and passages".into()));
        };
        let loss = self.loss.append(&mut builder, queries, passages);
        let scale = builder.input("loss_scale", ElementType::F32, &[]);
        let weights = builder.weight_slots().to_vec();
        let wanted: Vec<Value> = weights.iter().map(|slot| Value::new(&slot.name)).collect();
        let found = gradients(&mut builder, &loss, &wanted, Some(&scale))?;
        builder.output(&loss, "loss", ElementType::F32, &[]);
        for (slot, gradient) in weights.iter().zip(found) {
            let Some(gradient) = gradient else {
                return Err(Error::Unsupported(format!("the loss does not depend on weight `{}`", slot.name)));
            };
            let shape: Vec<Dimension> = slot.shape.iter().map(|&size| Dimension::Size(size as i64)).collect();
            builder.output(&gradient, &format!("{GRADIENT}{}", slot.name), compute, &shape);
        }
        Ok(Step { graph: builder.finish(), weights })
    }
}

fn inputs(builder: &mut GraphBuilder) -> Packed {
    let mut list = |name: &str| builder.input(name, ElementType::I64, &[Dimension::Name("rows")]);
    let (ids, positions) = (list("ids"), list("positions"));
    let (cells, head_cells, strides) = (list("cells"), list("head_cells"), list("strides"));
    let mut segment = |name: &'static str, texts: &'static str, length: &'static str| {
        let shape = [Dimension::Name(texts), Dimension::Name(length)];
        Segment {
            rows: builder.input(&format!("{name}.rows"), ElementType::I64, &shape),
            mask: builder.input(&format!("{name}.mask"), ElementType::I64, &shape),
        }
    };
    let segments = vec![segment("query", "queries", "query_tokens"), segment("passage", "passages", "passage_tokens")];
    Packed { ids, positions, cells, head_cells, strides, segments }
}
