//! Broadcasting undone: what reached a value that was repeated is summed to its shape.

use super::backward::Backward;
use crate::onnx::Value;
use crate::onnx::facts::Dim;
use crate::onnx::value::Attribute;

impl Backward<'_> {
    /// Sums `gradient`, shaped as `from`, to the shape of `to`, which was broadcast to it.
    pub(super) fn unbroadcast(&mut self, gradient: &Value, from: &Value, to: &Value) -> Value {
        match (self.facts.shape(from), self.facts.shape(to)) {
            (Some(from), Some(target)) => match broadcast_axes(from, target) {
                Some(axes) if axes.is_empty() => gradient.clone(),
                Some(axes) => {
                    let (leading, inner) = (from.len() - target.len(), target.contains(&Dim::Size(1)));
                    if let ([rows, _], [_], [0]) = (from, target, axes.as_slice()) {
                        let rows = *rows;
                        return self.sum_rows(gradient, rows, to);
                    }
                    if leading == 0 {
                        return self.reduce("ReduceSum", gradient, &axes, true);
                    }
                    let sum = self.reduce("ReduceSum", gradient, &axes, false);
                    if inner { self.reshape_like(&sum, to) } else { sum }
                }
                None => {
                    let same_rank = from.len() == target.len();
                    self.unbroadcast_at_run_time(gradient, to, same_rank)
                }
            },
            _ => self.unbroadcast_at_run_time(gradient, to, false),
        }
    }

    /// `[rows, n]` to `[n]` as a product with ones: on the CPU three times as fast as `ReduceSum` over rows.
    fn sum_rows(&mut self, gradient: &Value, rows: Dim, to: &Value) -> Value {
        let element = self.facts.element(to);
        let ones = match self.ones.get(&(rows, element)) {
            Some(ones) => ones.clone(),
            None => {
                let count = self.shape_slice(gradient, 0, 1);
                let one = self.builder.float_of(1.0, element);
                let ones = self.builder.node("Expand", &[&one, &count]);
                self.ones.insert((rows, element), ones.clone());
                ones
            }
        };
        self.binary("MatMul", &ones, gradient)
    }

    /// As [`unbroadcast`](Self::unbroadcast), where sizes are known only when the graph runs.
    fn unbroadcast_at_run_time(&mut self, gradient: &Value, to: &Value, same_rank: bool) -> Value {
        let shape = self.builder.node("Shape", &[to]);
        let padded = if same_rank {
            shape.clone()
        } else {
            let wide = self.builder.node("Shape", &[gradient]);
            let (wide, narrow) = (self.builder.node("Size", &[&wide]), self.builder.node("Size", &[&shape]));
            let missing = self.builder.node("Sub", &[&wide, &narrow]);
            let one = self.builder.ints(&[1]);
            let missing = self.builder.node("Reshape", &[&missing, &one]);
            let single = self.builder.int(1);
            let ones = self.builder.node("Expand", &[&single, &missing]);
            self.builder.node_with("Concat", "", &[&ones, &shape], &[("axis", Attribute::Int(0))])
        };
        let one = self.builder.int(1);
        let single = self.builder.node("Equal", &[&padded, &one]);
        let axes = self.builder.node("NonZero", &[&single]);
        let flat = self.builder.ints(&[-1]);
        let axes = self.builder.node("Reshape", &[&axes, &flat]);
        let attributes = [("keepdims", Attribute::Int(1)), ("noop_with_empty_axes", Attribute::Int(1))];
        let sum = self.builder.node_with("ReduceSum", "", &[gradient, &axes], &attributes);
        self.builder.node("Reshape", &[&sum, &shape])
    }

    /// Sums a gradient whose leading axes are those of `product` to the shape of `side`, a factor of the product.
    pub(super) fn sum_batches(&mut self, gradient: &Value, product: &Value, side: &Value) -> Value {
        let known = match (self.facts.shape(product), self.facts.shape(side)) {
            (Some(batch), Some(side)) if batch.len() == side.len() && side.len() > 2 => {
                let outer = side.len() - 2;
                broadcast_axes(&batch[..outer], &side[..outer])
            }
            _ => None,
        };
        match known {
            Some(axes) if axes.is_empty() => gradient.clone(),
            Some(axes) => self.reduce("ReduceSum", gradient, &axes, true),
            None => self.unbroadcast_at_run_time(gradient, side, false),
        }
    }
}

/// The axes of `from` along which a value of shape `to` was repeated; none where sizes are not known.
fn broadcast_axes(from: &[Dim], to: &[Dim]) -> Option<Vec<i64>> {
    let leading = from.len().checked_sub(to.len())?;
    let mut axes: Vec<i64> = (0..leading as i64).collect();
    for (at, (from, to)) in from[leading..].iter().zip(to).enumerate() {
        match (from, to) {
            (from, to) if from == to => {}
            (_, Dim::Size(1)) => axes.push((leading + at) as i64),
            // Only what has size 1 is repeated.
            (_, Dim::Size(_)) => {}
            (_, Dim::Symbol(_)) => return None,
        }
    }
    Some(axes)
}
