//! Matrix products.

use super::backward::Backward;
use super::node::Node;
use crate::onnx::value::Attribute;
use crate::onnx::{Error, Value};

/// `y = α A B` over the last two axes, either transposed where the node says so: dA = α dy Bᵀ, dB = α Aᵀ dy, summed over
/// what was broadcast.
pub(super) fn mat_mul(backward: &mut Backward<'_>, node: &Node, dy: &Value) -> Result<(), Error> {
    if node.integer("transBatchA", 0) != 0 || node.integer("transBatchB", 0) != 0 {
        return Err(node.refuse("transposed batch axes are not supported"));
    }
    let (a, b) = (node.input(0)?, node.input(1)?);
    let (rank_a, rank_b) = (backward.rank(node, &a)?, backward.rank(node, &b)?);
    let (turned_a, turned_b) = (node.integer("transA", 0) != 0, node.integer("transB", 0) != 0);
    let alpha = node.float("alpha", 1.0);
    if rank_a > 2 && rank_b == 2 && !turned_a {
        return rows_by_matrix(backward, node, dy, turned_b, alpha);
    }
    // A vector is a matrix of one row (A) or one column (B), whose axis the product drops.
    let (row, column) = (backward.builder().ints(&[-2]), backward.builder().ints(&[-1]));
    let mut dy = dy.clone();
    let mut wide_a = a.clone();
    let mut wide_b = b.clone();
    if rank_b == 1 {
        dy = backward.binary("Unsqueeze", &dy, &column);
        wide_b = backward.binary("Unsqueeze", &b, &column);
    }
    if rank_a == 1 {
        dy = backward.binary("Unsqueeze", &dy, &row);
        wide_a = backward.binary("Unsqueeze", &a, &row);
    }
    if backward.wants(node, 0) {
        let da = if turned_a {
            backward.product((&wide_b, turned_b), (&dy, true), alpha)
        } else {
            backward.product((&dy, false), (&wide_b, !turned_b), alpha)
        };
        let da = if rank_a.max(rank_b) > 2 { backward.sum_batches(&da, &node.output(0)?, &wide_a) } else { da };
        let da = if rank_a == 1 { backward.reshape_like(&da, &a) } else { da };
        backward.add(a.name(), da);
    }
    if backward.wants(node, 1) {
        let db = if turned_b {
            backward.product((&dy, true), (&wide_a, turned_a), alpha)
        } else {
            backward.product((&wide_a, !turned_a), (&dy, false), alpha)
        };
        let db = if rank_a.max(rank_b) > 2 { backward.sum_batches(&db, &node.output(0)?, &wide_b) } else { db };
        let db = if rank_b == 1 { backward.reshape_like(&db, &b) } else { db };
        backward.add(b.name(), db);
    }
    Ok(())
}

/// Batches of rows by one matrix: the batch axes are rows too, so that one product sums over them.
fn rows_by_matrix(backward: &mut Backward<'_>, node: &Node, dy: &Value, turned: bool, alpha: f32) -> Result<(), Error> {
    let (a, b) = (node.input(0)?, node.input(1)?);
    backward.give_shaped(node, 0, |backward| Ok(backward.product((dy, false), (&b, !turned), alpha)))?;
    backward.give_shaped(node, 1, |backward| {
        let (rows_a, rows_dy) = (backward.rows(&a), backward.rows(dy));
        Ok(if turned {
            backward.gemm((&rows_dy, true), (&rows_a, false), alpha)
        } else {
            backward.gemm((&rows_a, true), (&rows_dy, false), alpha)
        })
    })
}

/// `y = α A' B' + β C`, primes for the node's transpositions.
pub(super) fn gemm(backward: &mut Backward<'_>, node: &Node, dy: &Value) -> Result<(), Error> {
    let (a, b) = (node.input(0)?, node.input(1)?);
    let (turned_a, turned_b) = (node.integer("transA", 0) != 0, node.integer("transB", 0) != 0);
    let (alpha, beta) = (node.float("alpha", 1.0), node.float("beta", 1.0));
    backward.give_shaped(node, 0, |backward| {
        Ok(if turned_a {
            backward.gemm((&b, turned_b), (dy, true), alpha)
        } else {
            backward.gemm((dy, false), (&b, !turned_b), alpha)
        })
    })?;
    backward.give_shaped(node, 1, |backward| {
        Ok(if turned_b {
            backward.gemm((dy, true), (&a, turned_a), alpha)
        } else {
            backward.gemm((&a, !turned_a), (dy, false), alpha)
        })
    })?;
    if node.count() < 3 {
        return Ok(());
    }
    backward.give(node, 2, |backward| Ok(if beta == 1.0 { dy.clone() } else { backward.scaled(dy, beta, dy) }))
}

impl Backward<'_> {
    fn gemm(&mut self, a: (&Value, bool), b: (&Value, bool), alpha: f32) -> Value {
        let attributes = [
            ("transA", Attribute::Int(i64::from(a.1))),
            ("transB", Attribute::Int(i64::from(b.1))),
            ("alpha", Attribute::Float(alpha)),
        ];
        self.builder().node_with("Gemm", "", &[a.0, b.0], &attributes)
    }

    /// All axes but the last become rows.
    fn rows(&mut self, x: &Value) -> Value {
        let flat = self.builder().ints(&[-1]);
        let width = self.shape_slice(x, -1, i64::MAX);
        let shape = self.builder().node_with("Concat", "", &[&flat, &width], &[("axis", Attribute::Int(0))]);
        self.binary("Reshape", x, &shape)
    }
}
