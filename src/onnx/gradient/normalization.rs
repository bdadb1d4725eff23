//! Softmax and layer normalisation.

use super::backward::{Backward, Node};
use crate::onnx::facts::place_in;
use crate::onnx::{Error, Value};

/// `y = softmax(x)`: dx = y (dy - Σ dy y).
pub(super) fn softmax(backward: &mut Backward<'_>, node: &Node, dy: &Value) -> Result<(), Error> {
    let (y, axis) = (node.output(0)?, node.integer("axis", -1));
    backward.give(node, 0, |backward| {
        let weighted = backward.binary("Mul", dy, &y);
        let sum = backward.reduce("ReduceSum", &weighted, &[axis], true);
        let back = backward.binary("Mul", &y, &sum);
        Ok(backward.binary("Sub", &weighted, &back))
    })
}

/// `y = ln softmax(x)`: dx = dy - e^y Σ dy.
pub(super) fn log_softmax(backward: &mut Backward<'_>, node: &Node, dy: &Value) -> Result<(), Error> {
    let (y, axis) = (node.output(0)?, node.integer("axis", -1));
    backward.give(node, 0, |backward| {
        let sum = backward.reduce("ReduceSum", dy, &[axis], true);
        let shares = backward.unary("Exp", &y);
        let back = backward.binary("Mul", &shares, &sum);
        Ok(backward.binary("Sub", dy, &back))
    })
}

/// `y = h scale + shift`, `h = (x - mean) / deviation`: with g = dy scale, dx = (g - mean(g) - h mean(g h)) / deviation;
/// dscale = Σ dy h; dshift = Σ dy. The node's mean and inverse deviation outputs are used again.
pub(super) fn layer_norm(backward: &mut Backward<'_>, node: &Node, dy: &Value) -> Result<(), Error> {
    let (x, scale) = (node.input(0)?, node.input(1)?);
    let rank = backward.rank(node, &x)?;
    let first = place_in(node.integer("axis", -1), rank);
    let (leading, normed): (Vec<i64>, Vec<i64>) = ((0..first as i64).collect(), (first as i64..rank as i64).collect());
    let across = |backward: &mut Backward<'_>, value: &Value| {
        if leading.is_empty() { value.clone() } else { backward.reduce("ReduceSum", value, &leading, false) }
    };
    if backward.wants(node, 0) || backward.wants(node, 1) {
        let (mean, inverse) = (backward.extra_output(node, 1), backward.extra_output(node, 2));
        // The statistics are 32-bit floats whatever x is.
        let element = backward.facts().element(&x);
        let narrow = |backward: &mut Backward<'_>, value: Value| {
            if element == crate::onnx::ElementType::F32 { value } else { backward.builder().cast(&value, element) }
        };
        let (mean, inverse) = (narrow(backward, mean), narrow(backward, inverse));
        let centred = backward.binary("Sub", &x, &mean);
        let unit = backward.binary("Mul", &centred, &inverse);
        backward.give_shaped(node, 0, |backward| {
            let g = backward.binary("Mul", dy, &scale);
            let level = backward.reduce("ReduceMean", &g, &normed, true);
            let along = backward.binary("Mul", &g, &unit);
            let along = backward.reduce("ReduceMean", &along, &normed, true);
            let along = backward.binary("Mul", &unit, &along);
            let rest = backward.binary("Sub", &g, &level);
            let rest = backward.binary("Sub", &rest, &along);
            Ok(backward.binary("Mul", &rest, &inverse))
        })?;
        backward.give_shaped(node, 1, |backward| {
            let along = backward.binary("Mul", dy, &unit);
            Ok(across(backward, &along))
        })?;
    }
    backward.give_shaped(node, 2, |backward| Ok(across(backward, dy)))
}
