//! Operators on elements of two or more values, with broadcasting.

use super::backward::Backward;
use super::node::Node;
use crate::onnx::{Error, Value};

/// `y = a + b`.
pub(super) fn add(backward: &mut Backward<'_>, node: &Node, dy: &Value) -> Result<(), Error> {
    backward.give(node, 0, |_| Ok(dy.clone()))?;
    backward.give(node, 1, |_| Ok(dy.clone()))
}

/// `y = a - b`.
pub(super) fn sub(backward: &mut Backward<'_>, node: &Node, dy: &Value) -> Result<(), Error> {
    backward.give(node, 0, |_| Ok(dy.clone()))?;
    backward.give(node, 1, |backward| Ok(backward.unary("Neg", dy)))
}

/// `y = a b`: da = dy b, db = dy a.
pub(super) fn mul(backward: &mut Backward<'_>, node: &Node, dy: &Value) -> Result<(), Error> {
    let (a, b) = (node.input(0)?, node.input(1)?);
    backward.give(node, 0, |backward| Ok(backward.binary("Mul", dy, &b)))?;
    backward.give(node, 1, |backward| Ok(backward.binary("Mul", dy, &a)))
}

/// `y = a / b`: da = dy / b, db = -dy y / b.
pub(super) fn div(backward: &mut Backward<'_>, node: &Node, dy: &Value) -> Result<(), Error> {
    let (b, y) = (node.input(1)?, node.output(0)?);
    let da = backward.binary("Div", dy, &b);
    backward.give(node, 0, |_| Ok(da.clone()))?;
    backward.give(node, 1, |backward| {
        let product = backward.binary("Mul", &da, &y);
        Ok(backward.unary("Neg", &product))
    })
}

/// `y = a^b`: da = dy b a^(b-1), db = dy y ln a (0 where a is 0, as in PyTorch).
pub(super) fn pow(backward: &mut Backward<'_>, node: &Node, dy: &Value) -> Result<(), Error> {
    let (a, b, y) = (node.input(0)?, node.input(1)?, node.output(0)?);
    backward.give(node, 0, |backward| {
        // The exponent may be an integer.
        let exponent = backward.builder().node("CastLike", &[&b, &a]);
        let one = backward.scalar(1.0, &a);
        let less = backward.binary("Sub", &exponent, &one);
        let power = backward.binary("Pow", &a, &less);
        let slope = backward.binary("Mul", &power, &exponent);
        Ok(backward.binary("Mul", dy, &slope))
    })?;
    backward.give(node, 1, |backward| {
        let zero = backward.scalar(0.0, &a);
        let one = backward.scalar(1.0, &a);
        let is_zero = backward.binary("Equal", &a, &zero);
        let safe = backward.builder().node("Where", &[&is_zero, &one, &a]);
        let log = backward.unary("Log", &safe);
        let slope = backward.binary("Mul", &y, &log);
        Ok(backward.binary("Mul", dy, &slope))
    })
}

/// `y = a + b + …`.
pub(super) fn sum(backward: &mut Backward<'_>, node: &Node, dy: &Value) -> Result<(), Error> {
    (0..node.count()).try_for_each(|input| backward.give(node, input, |_| Ok(dy.clone())))
}

/// `y = (a + b + …) / n`.
pub(super) fn mean(backward: &mut Backward<'_>, node: &Node, dy: &Value) -> Result<(), Error> {
    let share = backward.scaled(dy, 1.0 / node.count() as f32, dy);
    (0..node.count()).try_for_each(|input| backward.give(node, input, |_| Ok(share.clone())))
}

/// `y = max(a, b, …)` or `min`: dy goes to the inputs that equal y, in equal parts as in PyTorch.
pub(super) fn extreme(backward: &mut Backward<'_>, node: &Node, dy: &Value) -> Result<(), Error> {
    let y = node.output(0)?;
    let mut chosen = Vec::new();
    for input in 0..node.count() {
        let equal = backward.binary("Equal", &node.input(input)?, &y);
        chosen.push(backward.builder().node("CastLike", &[&equal, &y]));
    }
    let parts: Vec<&Value> = chosen.iter().collect();
    let count = backward.builder().node("Sum", &parts);
    let share = backward.binary("Div", dy, &count);
    (0..node.count())
        .try_for_each(|input| backward.give(node, input, |backward| Ok(backward.binary("Mul", &share, &chosen[input]))))
}

/// `y = c ? a : b`.
pub(super) fn choose(backward: &mut Backward<'_>, node: &Node, dy: &Value) -> Result<(), Error> {
    let condition = node.input(0)?;
    let zero = backward.scalar(0.0, &node.output(0)?);
    backward.give(node, 1, |backward| Ok(backward.builder().node("Where", &[&condition, dy, &zero])))?;
    backward.give(node, 2, |backward| Ok(backward.builder().node("Where", &[&condition, &zero, dy])))
}
