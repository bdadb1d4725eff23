//! Reductions over axes.

use super::backward::{Backward, Node};
use crate::onnx::facts::place_in;
use crate::onnx::{Error, Value};

impl Backward<'_> {
    /// The axes that a node reduces; none where it reduces nothing.
    fn reduced_axes(&self, node: &Node, x: &Value) -> Result<Option<Vec<i64>>, Error> {
        let rank = self.rank(node, x)?;
        let axes = match node.optional(1) {
            Some(axes) => Some(
                self.facts()
                    .integers(&axes)
                    .ok_or_else(|| node.refuse("its axes are computed while the graph runs; they must be constant"))?,
            ),
            None => node.integers("axes").map(<[i64]>::to_vec),
        };
        match axes.filter(|axes| !axes.is_empty()) {
            Some(axes) => Ok(Some(axes.iter().map(|&axis| place_in(axis, rank) as i64).collect())),
            None if node.integer("noop_with_empty_axes", 0) != 0 => Ok(None),
            None => Ok(Some((0..rank as i64).collect())),
        }
    }

    /// A reduced value with its axes put back, of size 1.
    fn restored(&mut self, node: &Node, value: &Value, axes: &[i64]) -> Value {
        if node.integer("keepdims", 1) != 0 || axes.is_empty() {
            return value.clone();
        }
        let axes = self.builder().ints(axes);
        self.binary("Unsqueeze", value, &axes)
    }
}

/// `y = Σ x`: dy to each.
pub(super) fn sum(backward: &mut Backward<'_>, node: &Node, dy: &Value) -> Result<(), Error> {
    let x = node.input(0)?;
    let axes = backward.reduced_axes(node, &x)?;
    backward.give_shaped(node, 0, |backward| {
        let Some(axes) = axes else { return Ok(dy.clone()) };
        let dy = backward.restored(node, dy, &axes);
        let shape = backward.unary("Shape", &x);
        Ok(backward.binary("Expand", &dy, &shape))
    })
}

/// `y = Σ x / n`: dy / n to each.
pub(super) fn mean(backward: &mut Backward<'_>, node: &Node, dy: &Value) -> Result<(), Error> {
    let (x, y) = (node.input(0)?, node.output(0)?);
    let axes = backward.reduced_axes(node, &x)?;
    backward.give_shaped(node, 0, |backward| {
        let Some(axes) = axes else { return Ok(dy.clone()) };
        let (all, kept) = (backward.unary("Size", &x), backward.unary("Size", &y));
        let count = backward.binary("Div", &all, &kept);
        let count = backward.builder().node("CastLike", &[&count, &x]);
        let share = backward.binary("Div", dy, &count);
        let share = backward.restored(node, &share, &axes);
        let shape = backward.unary("Shape", &x);
        Ok(backward.binary("Expand", &share, &shape))
    })
}

/// `y = max x` or `min x`: dy to the elements that equal y, in equal parts as in PyTorch.
pub(super) fn extreme(backward: &mut Backward<'_>, node: &Node, dy: &Value) -> Result<(), Error> {
    let (x, y) = (node.input(0)?, node.output(0)?);
    let axes = backward.reduced_axes(node, &x)?;
    backward.give_shaped(node, 0, |backward| {
        let Some(axes) = axes else { return Ok(dy.clone()) };
        let y = backward.restored(node, &y, &axes);
        let dy = backward.restored(node, dy, &axes);
        let equal = backward.binary("Equal", &x, &y);
        let chosen = backward.builder().node("CastLike", &[&equal, &x]);
        let count = backward.reduce("ReduceSum", &chosen, &axes, true);
        let share = backward.binary("Div", &dy, &count);
        Ok(backward.binary("Mul", &chosen, &share))
    })
}

/// `y = Σ x²`: dx = 2 dy x.
pub(super) fn sum_square(backward: &mut Backward<'_>, node: &Node, dy: &Value) -> Result<(), Error> {
    let x = node.input(0)?;
    let axes = backward.reduced_axes(node, &x)?;
    backward.give_shaped(node, 0, |backward| {
        let dy = backward.restored(node, dy, axes.as_deref().unwrap_or_default());
        let twice = backward.scaled(&dy, 2.0, &x);
        Ok(backward.binary("Mul", &x, &twice))
    })
}

/// `y = √Σ x²`: dx = dy x / y, 0 where y is 0 (as in PyTorch).
pub(super) fn l2(backward: &mut Backward<'_>, node: &Node, dy: &Value) -> Result<(), Error> {
    let (x, y) = (node.input(0)?, node.output(0)?);
    let axes = backward.reduced_axes(node, &x)?;
    backward.give_shaped(node, 0, |backward| {
        let axes = axes.as_deref().unwrap_or_default();
        let (y, dy) = (backward.restored(node, &y, axes), backward.restored(node, dy, axes));
        let (zero, one) = (backward.scalar(0.0, &x), backward.scalar(1.0, &x));
        let is_zero = backward.binary("Equal", &y, &zero);
        let safe = backward.builder().node("Where", &[&is_zero, &one, &y]);
        let slope = backward.binary("Div", &x, &safe);
        Ok(backward.binary("Mul", &dy, &slope))
    })
}

/// `y = ln Σ eˣ`: dx = dy e^(x - y).
pub(super) fn log_sum_exp(backward: &mut Backward<'_>, node: &Node, dy: &Value) -> Result<(), Error> {
    let (x, y) = (node.input(0)?, node.output(0)?);
    let axes = backward.reduced_axes(node, &x)?;
    backward.give_shaped(node, 0, |backward| {
        let axes = axes.as_deref().unwrap_or_default();
        let (y, dy) = (backward.restored(node, &y, axes), backward.restored(node, dy, axes));
        let below = backward.binary("Sub", &x, &y);
        let share = backward.unary("Exp", &below);
        Ok(backward.binary("Mul", &dy, &share))
    })
}
