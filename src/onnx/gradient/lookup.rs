//! Operators that pick elements by index.

use super::backward::Backward;
use super::node::Node;
use crate::onnx::builder::Scatter;
use crate::onnx::facts::place_in;
use crate::onnx::value::Attribute;
use crate::onnx::{Error, Value};

/// Rows of a table, or slices along an axis: dy is added up where it was taken from.
pub(super) fn gather(backward: &mut Backward<'_>, node: &Node, dy: &Value) -> Result<(), Error> {
    let (data, index) = (node.input(0)?, node.input(1)?);
    let output = node.output(0)?;
    if let Some(Scatter { inverse, kept }) = backward.builder().scatter_of(output.name()).cloned() {
        return backward.give_shaped(node, 0, |backward| {
            let back = backward.binary("Gather", dy, &inverse);
            Ok(match kept {
                Some(kept) => backward.binary("Mul", &back, &kept),
                None => back,
            })
        });
    }
    if let Some(part) = backward.builder().part_of(output.name()).cloned() {
        if backward.wants(node, 0) {
            backward.defer_part(&data, part, dy);
        }
        return Ok(());
    }
    if backward.wants(node, 0) && node.integer("axis", 0) == 0 && backward.defer_rows(&data, &index, dy) {
        return Ok(());
    }
    let rank = backward.rank(node, &data)? as i64;
    let axis = place_in(node.integer("axis", 0), rank as usize) as i64;
    backward.give_shaped(node, 0, |backward| {
        let flat = backward.builder().ints(&[-1]);
        let positions = backward.binary("Reshape", &index, &flat);
        // The index may have any rank: its axes become one.
        let before = backward.shape_slice(&data, 0, axis);
        let count = backward.unary("Shape", &positions);
        let after = backward.shape_slice(&data, axis + 1, rank);
        let shape =
            backward.builder().node_with("Concat", "", &[&before, &count, &after], &[("axis", Attribute::Int(0))]);
        let dy = backward.binary("Reshape", dy, &shape);
        let length = backward.shape_slice(&data, axis, axis + 1);
        let element = backward.facts().element(&data);
        Ok(backward.scatter_axis(&dy, &positions, &length, (axis, rank), element))
    })
}

/// Elements by an index of their own: dy is added up where it was taken from.
pub(super) fn gather_elements(backward: &mut Backward<'_>, node: &Node, dy: &Value) -> Result<(), Error> {
    let (data, index) = (node.input(0)?, node.input(1)?);
    let axis = node.integer("axis", 0);
    backward.give_shaped(node, 0, |backward| {
        let shape = backward.unary("Shape", &data);
        let element = backward.facts().element(&data);
        Ok(backward.scatter_add(&shape, &index, dy, axis, element))
    })
}

/// Slices by a list of positions: dy is added up where it was taken from.
pub(super) fn gather_nd(backward: &mut Backward<'_>, node: &Node, dy: &Value) -> Result<(), Error> {
    if node.integer("batch_dims", 0) != 0 {
        return Err(node.refuse("batch axes are not supported"));
    }
    let (data, index) = (node.input(0)?, node.input(1)?);
    backward.give_shaped(node, 0, |backward| {
        let zeros = backward.zeros_like(&data);
        let add = [("reduction", Attribute::Text("add"))];
        Ok(backward.builder().node_with("ScatterND", "", &[&zeros, &index, dy], &add))
    })
}

/// `y = data` with elements replaced or added to: dy to the data but where it was replaced; dy from there to the rest.
pub(super) fn scatter_elements(backward: &mut Backward<'_>, node: &Node, dy: &Value) -> Result<(), Error> {
    let axis = [("axis", Attribute::Int(node.integer("axis", 0)))];
    scatter(backward, node, dy, "ScatterElements", "GatherElements", &axis)
}

/// As [`scatter_elements`], of slices by a list of positions.
pub(super) fn scatter_nd(backward: &mut Backward<'_>, node: &Node, dy: &Value) -> Result<(), Error> {
    scatter(backward, node, dy, "ScatterND", "GatherND", &[])
}

fn scatter(
    backward: &mut Backward<'_>,
    node: &Node,
    dy: &Value,
    put: &str,
    take: &str,
    attributes: &[(&str, Attribute)],
) -> Result<(), Error> {
    let replaces = match node.text("reduction") {
        None | Some(b"none") => true,
        Some(b"add") => false,
        Some(_) => return Err(node.refuse("only its reductions `none` and `add` are supported")),
    };
    let (index, updates) = (node.input(1)?, node.input(2)?);
    backward.give_shaped(node, 0, |backward| {
        if !replaces {
            return Ok(dy.clone());
        }
        let zeros = backward.zeros_like(&updates);
        Ok(backward.builder().node_with(put, "", &[dy, &index, &zeros], attributes))
    })?;
    backward.give_shaped(node, 2, |backward| Ok(backward.builder().node_with(take, "", &[dy, &index], attributes)))
}
