//! Exact nearest neighbours of one block of vectors: a matrix product and a top-k in ONNX Runtime.

use ort::session::Session;
use ort::value::{Tensor, TensorRef};

use super::value::{Attribute, Dimension};
use super::{ElementType, Error, GraphBuilder, Placement, Runtime};

/// Vectors that one product takes; a score matrix is never larger than queries times this.
pub const BLOCK_ROWS: usize = 8192;

/// A session that finds the `k` rows of a block with the largest inner product.
#[derive(Debug)]
pub struct TopK {
    session: Session,
    dimension: usize,
}

impl TopK {
    /// A session for vectors of `dimension` components.
    ///
    /// # Errors
    /// What the runtime says.
    pub fn new(runtime: &Runtime, dimension: usize) -> Result<Self, Error> {
        let mut builder = GraphBuilder::new("top_k", ElementType::F32);
        let size = Dimension::Size(dimension as i64);
        let queries = builder.input("queries", ElementType::F32, &[Dimension::Name("queries"), size.clone()]);
        let block = builder.input("block", ElementType::F32, &[Dimension::Name("rows"), size]);
        let k = builder.input("k", ElementType::I64, &[Dimension::Size(1)]);
        let scores = builder.node_with("Gemm", "", &[&queries, &block], &[("transB", Attribute::Int(1))]);
        let (best, rows) = builder.top_k(&scores, &k);
        let shape = [Dimension::Name("queries"), Dimension::Name("k")];
        builder.output(&best, "scores", ElementType::F32, &shape);
        builder.output(&rows, "indices", ElementType::I64, &shape);
        let session = runtime
            .builder(Placement::Cpu)?
            .commit_from_memory(&builder.finish().to_bytes())
            .map_err(Error::run("make the session of exact search"))?;
        Ok(Self { session, dimension })
    }

    /// For each query the `k` best rows of `block`, best first, handed to `visit(query, row, score)`.
    ///
    /// `queries` is [n, dimension], `block` [rows, dimension] with at least one row; `k` is cut to the rows.
    ///
    /// # Errors
    /// What the runtime says.
    pub fn run(
        &mut self,
        queries: &[f32],
        block: &[f32],
        k: usize,
        mut visit: impl FnMut(usize, usize, f32),
    ) -> Result<(), Error> {
        let (count, rows) = (queries.len() / self.dimension, block.len() / self.dimension);
        let k = k.min(rows);
        if count == 0 || k == 0 {
            return Ok(());
        }
        let queries =
            TensorRef::from_array_view(([count, self.dimension], queries)).map_err(Error::run("take queries"))?;
        let block = TensorRef::from_array_view(([rows, self.dimension], block)).map_err(Error::run("take vectors"))?;
        let wanted = Tensor::from_array(([1_usize], vec![k as i64])).map_err(Error::run("take k"))?;
        let outputs = self
            .session
            .run(ort::inputs!["queries" => queries, "block" => block, "k" => wanted])
            .map_err(Error::run("search exactly"))?;
        let (_, scores) = outputs["scores"].try_extract_tensor::<f32>().map_err(Error::run("read scores"))?;
        let (_, indices) = outputs["indices"].try_extract_tensor::<i64>().map_err(Error::run("read rows"))?;
        for (query, (scores, indices)) in scores.chunks_exact(k).zip(indices.chunks_exact(k)).enumerate() {
            for (&score, &row) in scores.iter().zip(indices) {
                visit(query, row as usize, score);
            }
        }
        Ok(())
    }
}

impl GraphBuilder {
    fn top_k(&mut self, scores: &super::Value, k: &super::Value) -> (super::Value, super::Value) {
        let mut outputs = self.node_outputs("TopK", &[scores, k], &[("axis", Attribute::Int(-1))], 2);
        let rows = outputs.swap_remove(1);
        let best = outputs.swap_remove(0);
        (best, rows)
    }
}
