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

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::encoder::Overrides;

    fn vectors(checkpoint: &Checkpoint, variant: Variant) -> Vec<f32> {
        let Transformer::Bert(config) = &checkpoint.transformer else { panic!("a folder of safetensors") };
        let runtime = Runtime::load(None, 0).unwrap();
        let graph = bert::encoder_graph(config, &checkpoint.heads, checkpoint.dimension, variant, false);
        let mut session = TextSession::from_graph(&runtime, Placement::Cpu, &graph, &checkpoint.weights).unwrap();
        // Two texts of different length: the second is padded.
        let ids = vec![2, 17, 33, 250, 41, 3, 2, 99, 3, 0, 0, 0];
        let mask = [1, 1, 1, 1, 1, 1, 1, 1, 1, 0, 0, 0];
        session.run(ids, &mask, 2, 6).unwrap().data
    }

    /// The CPU has no 16-bit kernels for these operators; the runtime computes them in 32 bits between 16-bit casts,
    /// which is enough to see that the graph is the same one.
    #[test]
    fn every_variant_of_the_graph_computes_the_same() {
        for model in ["bert-mean", "roberta-ance"] {
            let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/reference").join(model);
            let checkpoint = Checkpoint::open(&folder, &Overrides::default()).unwrap();
            let plain = vectors(&checkpoint, Variant::Plain);
            for (variant, tolerance) in [(ElementType::F32, 1e-5), (ElementType::F16, 2e-2)] {
                let fused = vectors(&checkpoint, Variant::Fused(variant));
                let off = plain.iter().zip(&fused).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
                assert!(off <= tolerance, "{model}, {variant:?}: off by {off}");
            }
        }
    }
}
