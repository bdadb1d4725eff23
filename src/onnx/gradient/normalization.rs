//! Softmax and layer normalisation.

use super::backward::Backward;
use super::node::Node;
use crate::onnx::facts::MOST_AXES;
use crate::onnx::value::Attribute;
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
    if backward.wants(node, 0) || backward.wants(node, 1) {
        let axes = backward.normed_axes(node, &x)?;
        let (mean, inverse) = (backward.extra_output(node, 1), backward.extra_output(node, 2));
        // The statistics are 32-bit floats whatever x is.
        let mean = backward.builder().node("CastLike", &[&mean, &x]);
        let inverse = backward.builder().node("CastLike", &[&inverse, &x]);
        let centred = backward.binary("Sub", &x, &mean);
        let unit = backward.binary("Mul", &centred, &inverse);
        backward.give_shaped(node, 0, |backward| {
            let g = backward.binary("Mul", dy, &scale);
            Ok(backward.unit_gradient(&g, &unit, &inverse, &axes, true))
        })?;
        backward.give(node, 1, |backward| Ok(backward.binary("Mul", dy, &unit)))?;
    }
    backward.give(node, 2, |_| Ok(dy.clone()))
}

/// `y = h scale`, `h = x / √(mean(x²) + ε)`: as [`layer_norm`], without the mean.
pub(super) fn rms_norm(backward: &mut Backward<'_>, node: &Node, dy: &Value) -> Result<(), Error> {
    let (x, scale) = (node.input(0)?, node.input(1)?);
    let axes = backward.normed_axes(node, &x)?;
    let square = backward.binary("Mul", &x, &x);
    let square = backward.reduce("ReduceMean", &square, &axes, true);
    let epsilon = backward.scalar(node.float("epsilon", 1e-5), &x);
    let square = backward.binary("Add", &square, &epsilon);
    let deviation = backward.unary("Sqrt", &square);
    let inverse = backward.unary("Reciprocal", &deviation);
    let unit = backward.binary("Mul", &x, &inverse);
    backward.give_shaped(node, 0, |backward| {
        let g = backward.binary("Mul", dy, &scale);
        Ok(backward.unit_gradient(&g, &unit, &inverse, &axes, false))
    })?;
    backward.give(node, 1, |backward| Ok(backward.binary("Mul", dy, &unit)))
}

/// `y = layer_norm(s)`, `s = x + skip + bias`, s also being output 3: ds to each summand. The inputs are x, skip, scale,
/// shift, bias.
pub(super) fn skip_layer_norm(
    backward: &mut Backward<'_>,
    node: &Node,
    reached: &[Option<Value>],
) -> Result<(), Error> {
    let (x, skip, scale) = (node.input(0)?, node.input(1)?, node.input(2)?);
    let mut sum = backward.binary("Add", &x, &skip);
    if let Some(bias) = node.optional(4) {
        sum = backward.binary("Add", &sum, &bias);
    }
    let mut reaches_sum = reached.get(3).cloned().flatten();
    if let Some(dy) = reached.first().and_then(Option::as_ref) {
        // ONNX Runtime leaves the node's own statistics empty on the CPU.
        let epsilon = node.float("epsilon", 1e-12);
        let attributes = [("axis", Attribute::Int(-1)), ("epsilon", Attribute::Float(epsilon))];
        let outputs = backward.builder().node_outputs("LayerNormalization", &[&sum, &scale], &attributes, 3);
        let [_, mean, inverse] = outputs.as_slice() else { return Err(node.refuse("its statistics are missing")) };
        let mean = backward.builder().node("CastLike", &[mean, &x]);
        let inverse = backward.builder().node("CastLike", &[inverse, &x]);
        let centred = backward.binary("Sub", &sum, &mean);
        let unit = backward.binary("Mul", &centred, &inverse);
        let g = backward.binary("Mul", dy, &scale);
        let ds = backward.unit_gradient(&g, &unit, &inverse, &[-1], true);
        reaches_sum = Some(match reaches_sum {
            Some(other) => backward.binary("Add", &ds, &other),
            None => ds,
        });
        backward.give(node, 2, |backward| Ok(backward.binary("Mul", dy, &unit)))?;
        backward.give(node, 3, |_| Ok(dy.clone()))?;
    }
    let Some(ds) = reaches_sum else { return Err(node.refuse("only the gradients of y and of the sum are known")) };
    [0, 1, 4].into_iter().try_for_each(|input| backward.give(node, input, |_| Ok(ds.clone())))
}

impl Backward<'_> {
    /// The axes from the node's `axis` on, counted from the end.
    fn normed_axes(&self, node: &Node, x: &Value) -> Result<Vec<i64>, Error> {
        let axis = node.integer("axis", -1);
        let first = if axis < 0 { axis } else { axis - self.rank(node, x)? as i64 };
        let most = self.facts().rank(x).unwrap_or(MOST_AXES) as i64;
        if !(-most..0).contains(&first) {
            return Err(node.refuse(&format!("its input has no axis {axis}")));
        }
        Ok((first..0).collect())
    }

    /// What reaches x when `g` reaches the normed x: `(g - mean(g) - unit mean(g unit)) inverse`; without mean(g) where
    /// x was not centred.
    fn unit_gradient(&mut self, g: &Value, unit: &Value, inverse: &Value, axes: &[i64], centred: bool) -> Value {
        let along = self.binary("Mul", g, unit);
        let along = self.reduce("ReduceMean", &along, axes, true);
        let along = self.binary("Mul", unit, &along);
        let mut rest = self.binary("Sub", g, &along);
        if centred {
            let level = self.reduce("ReduceMean", g, axes, true);
            rest = self.binary("Sub", &rest, &level);
        }
        self.binary("Mul", &rest, inverse)
    }
}
