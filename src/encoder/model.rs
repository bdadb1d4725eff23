//! The model in its sessions: padded batches in, vectors out.

use super::checkpoint::Transformer;
use super::{Checkpoint, Error};
use crate::onnx::bert::{self, Variant};
use crate::onnx::{ElementType, HeadSession, Placement, Runtime, TextSession, head_graph};
use crate::settings::Precision;

/// A checkpoint that runs.
#[derive(Debug)]
pub(super) struct Model {
    session: TextSession,
    /// Pooling for a transformer whose ONNX file ends at token vectors.
    head: Option<HeadSession>,
    dimension: usize,
    pub(super) precision: &'static str,
}

impl Model {
    pub(super) fn open(
        runtime: &Runtime,
        placement: Placement,
        precision: Precision,
        checkpoint: &Checkpoint,
    ) -> Result<Self, Error> {
        let dimension = checkpoint.dimension;
        let half = match (precision, placement) {
            (Precision::Auto, Placement::Cuda(_)) | (Precision::Fp16, Placement::Cuda(_)) => true,
            (Precision::Fp16, Placement::Cpu) => {
                return Err(crate::onnx::Error::Unsupported(
                    "precision fp16 needs a CUDA device; the CPU runs fp32".into(),
                )
                .into());
            }
            _ => false,
        };
        match &checkpoint.transformer {
            Transformer::Bert(config) => {
                let variant = Variant::Fused(if half { ElementType::F16 } else { ElementType::F32 });
                let graph = bert::encoder_graph(config, &checkpoint.heads, dimension, variant, false);
                let session = TextSession::from_graph(runtime, placement, &graph, &checkpoint.weights)?;
                Ok(Self { session, head: None, dimension, precision: if half { "fp16" } else { "fp32" } })
            }
            Transformer::Onnx(path) => {
                let session = TextSession::from_file(runtime, placement, path)?;
                if session.pooled() {
                    let dimension = session.size().unwrap_or(dimension);
                    return Ok(Self { session, head: None, dimension, precision: "file" });
                }
                let hidden =
                    session.size().ok_or_else(|| Error::checkpoint(path, "the size of its output is not stated"))?;
                let head =
                    HeadSession::new(runtime, &head_graph(&checkpoint.heads, hidden, dimension), &checkpoint.weights)?;
                Ok(Self { session, head: Some(head), dimension, precision: "file" })
            }
        }
    }

    /// Components of a vector.
    pub(super) fn dimension(&self) -> usize {
        self.dimension
    }

    /// The vectors of a batch of token ids.
    pub(super) fn run(&mut self, batch: &[&[u32]]) -> Result<Vec<Vec<f32>>, Error> {
        let tokens = batch.iter().map(|ids| ids.len()).max().unwrap_or(0);
        if tokens == 0 {
            return Ok(Vec::new());
        }
        let mut ids = vec![0_i64; batch.len() * tokens];
        let mut mask = vec![0_i64; batch.len() * tokens];
        for (row, text) in batch.iter().enumerate() {
            for (column, &id) in text.iter().enumerate() {
                ids[row * tokens + column] = i64::from(id);
                mask[row * tokens + column] = 1;
            }
        }
        let mut output = self.session.run(ids, &mask, batch.len(), tokens)?;
        if let Some(head) = &mut self.head {
            output = head.run(output, &mask)?;
        }
        if output.shape != [batch.len(), self.dimension] {
            let reason =
                format!("the model gave a tensor of shape {:?}, not {:?}", output.shape, [batch.len(), self.dimension]);
            return Err(crate::onnx::Error::Unsupported(reason).into());
        }
        if output.data.iter().any(|value| !value.is_finite()) {
            return Err(Error::NotFinite);
        }
        Ok(output.data.chunks_exact(self.dimension).map(<[f32]>::to_vec).collect())
    }
}
