//! Activations that ONNX Runtime fuses with what stands before them.

use super::backward::Backward;
use super::node::Node;
use crate::onnx::{Error, Value};

/// `y = gelu(x + bias)`: dy gelu'(x + bias) to both.
pub(super) fn bias_gelu(backward: &mut Backward<'_>, node: &Node, dy: &Value) -> Result<(), Error> {
    let sum = backward.binary("Add", &node.input(0)?, &node.input(1)?);
    let slope = backward.gelu_slope(&sum);
    let gradient = backward.binary("Mul", dy, &slope);
    (0..2).try_for_each(|input| backward.give(node, input, |_| Ok(gradient.clone())))
}

/// As [`bias_gelu`], the approximation by tanh; the bias may be left out.
pub(super) fn fast_gelu(backward: &mut Backward<'_>, node: &Node, dy: &Value) -> Result<(), Error> {
    let x = node.input(0)?;
    let sum = match node.optional(1) {
        Some(bias) => backward.binary("Add", &x, &bias),
        None => x,
    };
    let slope = backward.gelu_tanh_slope(&sum);
    let gradient = backward.binary("Mul", dy, &slope);
    (0..2).try_for_each(|input| backward.give(node, input, |_| Ok(gradient.clone())))
}

/// `y = x s`, `s = σ(α x)`: dx = dy (s + α y (1 - s)).
pub(super) fn quick_gelu(backward: &mut Backward<'_>, node: &Node, dy: &Value) -> Result<(), Error> {
    let (x, y) = (node.input(0)?, node.output(0)?);
    let alpha = node.float("alpha", 1.702);
    backward.give(node, 0, |backward| {
        let steep = backward.scaled(&x, alpha, &x);
        let share = backward.unary("Sigmoid", &steep);
        let one = backward.scalar(1.0, &x);
        let rest = backward.binary("Sub", &one, &share);
        let curve = backward.binary("Mul", &y, &rest);
        let curve = backward.scaled(&curve, alpha, &x);
        let slope = backward.binary("Add", &share, &curve);
        Ok(backward.binary("Mul", dy, &slope))
    })
}
