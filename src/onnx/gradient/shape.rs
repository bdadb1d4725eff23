//! Operators that move elements without changing them.

use super::backward::Backward;
use super::node::Node;
use crate::onnx::facts::place_in;
use crate::onnx::value::Attribute;
use crate::onnx::{ElementType, Error, Value};

/// Elements stay in order: dy in the shape of x.
pub(super) fn reshape(backward: &mut Backward<'_>, node: &Node, dy: &Value) -> Result<(), Error> {
    let x = node.input(0)?;
    backward.give_shaped(node, 0, |backward| Ok(backward.reshape_like(dy, &x)))
}

/// dy by the inverse permutation.
pub(super) fn transpose(backward: &mut Backward<'_>, node: &Node, dy: &Value) -> Result<(), Error> {
    let x = node.input(0)?;
    let rank = backward.rank(node, &x)?;
    let forward: Vec<i64> = node.integers("perm").map_or_else(|| (0..rank as i64).rev().collect(), <[i64]>::to_vec);
    let mut inverse = vec![0; forward.len()];
    for (to, &from) in forward.iter().enumerate() {
        if let Some(place) = inverse.get_mut(place_in(from, rank)) {
            *place = to as i64;
        }
    }
    backward.give_shaped(node, 0, |backward| {
        Ok(backward.builder().node_with("Transpose", "", &[dy], &[("perm", Attribute::Ints(inverse))]))
    })
}

/// dy summed over what x was repeated along.
pub(super) fn expand(backward: &mut Backward<'_>, node: &Node, dy: &Value) -> Result<(), Error> {
    backward.give(node, 0, |_| Ok(dy.clone()))
}

/// dy cut where the inputs were joined.
pub(super) fn concat(backward: &mut Backward<'_>, node: &Node, dy: &Value) -> Result<(), Error> {
    let rank = backward.rank(node, &node.output(0)?)?;
    let axis = place_in(node.integer("axis", 0), rank) as i64;
    let mut lengths = Vec::new();
    for input in 0..node.count() {
        lengths.push(backward.shape_slice(&node.input(input)?, axis, axis + 1));
    }
    let lengths: Vec<&Value> = lengths.iter().collect();
    let lengths = backward.builder().node_with("Concat", "", &lengths, &[("axis", Attribute::Int(0))]);
    let parts =
        backward.builder().node_outputs("Split", &[dy, &lengths], &[("axis", Attribute::Int(axis))], node.count());
    for (input, part) in parts.into_iter().enumerate() {
        backward.give_shaped(node, input, |_| Ok(part))?;
    }
    Ok(())
}

/// The parts joined again; zeros for one that nothing reached.
pub(super) fn split(backward: &mut Backward<'_>, node: &Node, reached: &[Option<Value>]) -> Result<(), Error> {
    let axis = node.integer("axis", 0);
    backward.give_shaped(node, 0, |backward| {
        let mut parts = Vec::new();
        for (output, part) in reached.iter().enumerate() {
            parts.push(match part {
                Some(part) => part.clone(),
                None => backward.zeros_like(&node.output(output)?),
            });
        }
        let parts: Vec<&Value> = parts.iter().collect();
        Ok(backward.builder().node_with("Concat", "", &parts, &[("axis", Attribute::Int(axis))]))
    })
}

/// dy put back where it was taken from, zeros elsewhere: axis by axis, by the positions that the slice took.
pub(super) fn slice(backward: &mut Backward<'_>, node: &Node, dy: &Value) -> Result<(), Error> {
    let x = node.input(0)?;
    let rank = backward.rank(node, &x)?;
    let axes = match node.optional(3) {
        Some(axes) => backward.facts().integers(&axes),
        None => backward.facts().shape(&node.input(1)?).and_then(|shape| match shape {
            [crate::onnx::facts::Dim::Size(count)] => Some((0..*count).collect()),
            _ => None,
        }),
    };
    let axes = axes.ok_or_else(|| node.refuse("its axes are computed while the graph runs; they must be constant"))?;
    backward.give_shaped(node, 0, |backward| {
        let mut gradient = dy.clone();
        let element = backward.facts().element(&x);
        for (number, &axis) in axes.iter().enumerate() {
            let axis = place_in(axis, rank) as i64;
            let length = backward.shape_slice(&x, axis, axis + 1);
            let taken = backward.positions(node, number as i64, &length)?;
            gradient = backward.scatter_axis(&gradient, &taken, &length, (axis, rank as i64), element);
        }
        Ok(gradient)
    })
}

/// x repeated along its axes: dy summed over the repetitions.
pub(super) fn tile(backward: &mut Backward<'_>, node: &Node, dy: &Value) -> Result<(), Error> {
    let (x, repeats) = (node.input(0)?, node.input(1)?);
    let rank = backward.rank(node, &x)? as i64;
    backward.give_shaped(node, 0, |backward| {
        let shape = backward.unary("Shape", &x);
        // Each axis becomes two: repetitions and elements.
        let (second, flat) = (backward.builder().ints(&[1]), backward.builder().ints(&[-1]));
        let (repeats, sizes) =
            (backward.binary("Unsqueeze", &repeats, &second), backward.binary("Unsqueeze", &shape, &second));
        let pairs = backward.builder().node_with("Concat", "", &[&repeats, &sizes], &[("axis", Attribute::Int(1))]);
        let pairs = backward.binary("Reshape", &pairs, &flat);
        let dy = backward.binary("Reshape", dy, &pairs);
        let axes: Vec<i64> = (0..rank).map(|axis| 2 * axis).collect();
        Ok(if axes.is_empty() { dy } else { backward.reduce("ReduceSum", &dy, &axes, false) })
    })
}

/// Constants around x, or a negative number of them: dy cut by as many, or zeros around it.
pub(super) fn pad(backward: &mut Backward<'_>, node: &Node, dy: &Value) -> Result<(), Error> {
    if !matches!(node.text("mode"), None | Some(b"constant")) {
        return Err(node.refuse("only its mode `constant` is supported"));
    }
    if backward.wants(node, 2) {
        return Err(node.refuse("the gradient of the constant is not known"));
    }
    let (pads, axes) = (node.input(1)?, node.optional(3));
    backward.give_shaped(node, 0, |backward| {
        let back = backward.unary("Neg", &pads);
        let inputs = [Some(dy), Some(&back), None, axes.as_ref()];
        Ok(backward.builder().node_optional("Pad", "", &inputs[..if axes.is_some() { 4 } else { 2 }], &[]))
    })
}

/// One triangle of x, zeros in the other: that triangle of dy.
pub(super) fn trilu(backward: &mut Backward<'_>, node: &Node, dy: &Value) -> Result<(), Error> {
    let (diagonal, upper) = (node.optional(1), node.integer("upper", 1));
    backward.give_shaped(node, 0, |backward| {
        let inputs: Vec<&Value> = std::iter::once(dy).chain(&diagonal).collect();
        Ok(backward.builder().node_with("Trilu", "", &inputs, &[("upper", Attribute::Int(upper))]))
    })
}

impl Backward<'_> {
    /// The positions along one axis that entry `number` of a slice takes.
    fn positions(&mut self, node: &Node, number: i64, length: &Value) -> Result<Value, Error> {
        let zero = self.builder().int(0);
        let one = self.builder().int(1);
        let empty = self.builder().ints(&[]);
        let length = self.builder().node("Reshape", &[length, &empty]);
        let all = self.builder().node("Range", &[&zero, &length, &one]);
        let at = self.builder().ints(&[number]);
        let bound = |backward: &mut Self, bounds: &Value| {
            let bounds = backward.wide_integer(bounds);
            backward.binary("Gather", &bounds, &at)
        };
        let (start, end) = (bound(self, &node.input(1)?), bound(self, &node.input(2)?));
        let first = self.builder().ints(&[0]);
        Ok(match node.optional(4) {
            Some(steps) => {
                let step = bound(self, &steps);
                self.builder().node("Slice", &[&all, &start, &end, &first, &step])
            }
            None => self.builder().node("Slice", &[&all, &start, &end, &first]),
        })
    }

    /// `gradient`, of rank `rank`, added to zeros of size `length` (i64 `[1]`) at `positions` (i64 `[k]`) of an axis.
    pub(super) fn scatter_axis(
        &mut self,
        gradient: &Value,
        positions: &Value,
        length: &Value,
        (axis, rank): (i64, i64),
        element: ElementType,
    ) -> Value {
        let before = self.shape_slice(gradient, 0, axis);
        let after = self.shape_slice(gradient, axis + 1, rank);
        let shape = self.builder().node_with("Concat", "", &[&before, length, &after], &[("axis", Attribute::Int(0))]);
        let places = if rank > axis + 1 {
            let inner: Vec<i64> = (1..rank - axis).collect();
            let inner = self.builder().ints(&inner);
            self.binary("Unsqueeze", positions, &inner)
        } else {
            positions.clone()
        };
        let full = self.unary("Shape", gradient);
        let places = self.binary("Expand", &places, &full);
        self.scatter_add(&shape, &places, gradient, axis, element)
    }
}
