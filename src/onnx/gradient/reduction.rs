//! Reductions over axes.

use super::backward::Backward;
use super::node::Node;
use crate::onnx::value::Attribute;
use crate::onnx::{Error, Value};

impl Backward<'_> {
    /// The axes that a node reduces, the list being empty where it reduces nothing; none stands for all.
    fn reduced_axes(&self, node: &Node) -> Result<Option<Vec<i64>>, Error> {
        let axes = match node.optional(1) {
            Some(axes) => self
                .facts()
                .integers(&axes)
                .ok_or_else(|| node.refuse("its axes are computed while the graph runs; they must be constant"))?,
            None => Vec::new(),
        };
        let all = axes.is_empty() && node.integer("noop_with_empty_axes", 0) == 0;
        Ok(if all { None } else { Some(axes) })
    }

    /// A reduced value with its axes put back, of size 1. The scalar that is left of all axes is broadcast as it is.
    fn restored(&mut self, node: &Node, value: &Value, axes: &Option<Vec<i64>>) -> Value {
        match axes {
            Some(axes) if !axes.is_empty() && node.integer("keepdims", 1) == 0 => {
                let axes = self.builder().ints(axes);
                self.binary("Unsqueeze", value, &axes)
            }
            _ => value.clone(),
        }
    }
}

/// `y = Σ x`: dy to each.
pub(super) fn sum(backward: &mut Backward<'_>, node: &Node, dy: &Value) -> Result<(), Error> {
    let x = node.input(0)?;
    let axes = backward.reduced_axes(node)?;
    backward.give_shaped(node, 0, |backward| {
        let dy = backward.restored(node, dy, &axes);
        let shape = backward.unary("Shape", &x);
        Ok(backward.binary("Expand", &dy, &shape))
    })
}

/// `y = Σ x / n`: dy / n to each.
pub(super) fn mean(backward: &mut Backward<'_>, node: &Node, dy: &Value) -> Result<(), Error> {
    let (x, y) = (node.input(0)?, node.output(0)?);
    let axes = backward.reduced_axes(node)?;
    backward.give_shaped(node, 0, |backward| {
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
    let axes = backward.reduced_axes(node)?;
    backward.give_shaped(node, 0, |backward| {
        let y = backward.restored(node, &y, &axes);
        let dy = backward.restored(node, dy, &axes);
        let equal = backward.binary("Equal", &x, &y);
        let chosen = backward.builder().node("CastLike", &[&equal, &x]);
        let count = match axes.as_deref() {
            None => backward.builder().node_with("ReduceSum", "", &[&chosen], &[("keepdims", Attribute::Int(0))]),
            Some([]) => chosen.clone(),
            Some(axes) => backward.reduce("ReduceSum", &chosen, axes, true),
        };
        let share = backward.binary("Div", &dy, &count);
        Ok(backward.binary("Mul", &chosen, &share))
    })
}

/// `y = Σ x²`: dx = 2 dy x.
pub(super) fn sum_square(backward: &mut Backward<'_>, node: &Node, dy: &Value) -> Result<(), Error> {
    let x = node.input(0)?;
    let axes = backward.reduced_axes(node)?;
    backward.give_shaped(node, 0, |backward| {
        let dy = backward.restored(node, dy, &axes);
        let twice = backward.scaled(&dy, 2.0, &x);
        Ok(backward.binary("Mul", &x, &twice))
    })
}

/// `y = √Σ x²`: dx = dy x / y, 0 where y is 0 (as in PyTorch).
pub(super) fn l2(backward: &mut Backward<'_>, node: &Node, dy: &Value) -> Result<(), Error> {
    let (x, y) = (node.input(0)?, node.output(0)?);
    let axes = backward.reduced_axes(node)?;
    backward.give_shaped(node, 0, |backward| {
        let (y, dy) = (backward.restored(node, &y, &axes), backward.restored(node, dy, &axes));
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
    let axes = backward.reduced_axes(node)?;
    backward.give_shaped(node, 0, |backward| {
        let (y, dy) = (backward.restored(node, &y, &axes), backward.restored(node, dy, &axes));
        let below = backward.binary("Sub", &x, &y);
        let share = backward.unary("Exp", &below);
        Ok(backward.binary("Mul", &dy, &share))
    })
}

/// `y = Σ |x|`: dx = dy sign(x).
pub(super) fn l1(backward: &mut Backward<'_>, node: &Node, dy: &Value) -> Result<(), Error> {
    let x = node.input(0)?;
    let axes = backward.reduced_axes(node)?;
    backward.give_shaped(node, 0, |backward| {
        let dy = backward.restored(node, dy, &axes);
        let sign = backward.unary("Sign", &x);
        Ok(backward.binary("Mul", &dy, &sign))
    })
}

/// `y = ln Σ x`: dx = dy e^(-y).
pub(super) fn log_sum(backward: &mut Backward<'_>, node: &Node, dy: &Value) -> Result<(), Error> {
    let (x, y) = (node.input(0)?, node.output(0)?);
    let axes = backward.reduced_axes(node)?;
    backward.give_shaped(node, 0, |backward| {
        let sum = backward.unary("Exp", &y);
        let share = backward.binary("Div", dy, &sum);
        let share = backward.restored(node, &share, &axes);
        let shape = backward.unary("Shape", &x);
        Ok(backward.binary("Expand", &share, &shape))
    })
}

/// `y` = the sum of x up to each element: dx is the sum of dy from it on.
pub(super) fn running_sum(backward: &mut Backward<'_>, node: &Node, dy: &Value) -> Result<(), Error> {
    let axis = node.input(1)?;
    let attributes = [
        ("exclusive", Attribute::Int(node.integer("exclusive", 0))),
        ("reverse", Attribute::Int(i64::from(node.integer("reverse", 0) == 0))),
    ];
    backward.give_shaped(node, 0, |backward| Ok(backward.builder().node_with("CumSum", "", &[dy, &axis], &attributes)))
}
