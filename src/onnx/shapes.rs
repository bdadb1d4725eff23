//! The shapes of values, by one rule an operator.

use super::facts::{Dim, Facts, MOST_AXES, attribute, integer, place_in, size, sizes};
use super::proto::NodeProto;

impl Facts {
    /// The shape of a node's first output, as far as it follows from what is known of its inputs.
    pub(super) fn shape_of(&mut self, node: &NodeProto) -> Option<Vec<Dim>> {
        match node.op_type.as_str() {
            "Shape" => self.integers_named(node.output.first()?).map(|sizes| vec![Dim::Size(sizes.len() as i64)]),
            "Size" => Some(Vec::new()),
            "Add" | "Sub" | "Mul" | "Div" | "Pow" | "Max" | "Min" | "Sum" | "Mean" | "Where" | "Equal" | "Greater"
            | "GreaterOrEqual" | "Less" | "LessOrEqual" | "And" | "Or" | "Xor" => self.broadcast(node),
            "Neg"
            | "Sqrt"
            | "Reciprocal"
            | "Exp"
            | "Log"
            | "Erf"
            | "Tanh"
            | "Sigmoid"
            | "Softplus"
            | "Relu"
            | "Abs"
            | "Gelu"
            | "Identity"
            | "Cast"
            | "CastLike"
            | "Clip"
            | "Dropout"
            | "Softmax"
            | "LogSoftmax"
            | "LayerNormalization"
            | "Not"
            | "IsNaN"
            | "IsInf"
            | "ScatterElements"
            | "ScatterND"
            | "Sin"
            | "Cos"
            | "Sign"
            | "BiasGelu"
            | "FastGelu"
            | "QuickGelu"
            | "LeakyRelu"
            | "Elu"
            | "HardSigmoid"
            | "HardSwish"
            | "Floor"
            | "Ceil"
            | "Round"
            | "CumSum"
            | "Trilu"
            | "RMSNormalization"
            | "SimplifiedLayerNormalization"
            | "SkipLayerNormalization" => self.get(node, 0).cloned(),
            "GatherElements" => self.get(node, 1).cloned(),
            "Gather" => {
                let (data, index) = (self.get(node, 0)?, self.get(node, 1)?);
                let axis = place_in(integer(node, "axis", 0), data.len());
                Some([data.get(..axis)?, index, data.get(axis + 1..)?].concat())
            }
            "Gemm" => {
                let (a, b) = (self.get(node, 0)?, self.get(node, 1)?);
                let row = usize::from(integer(node, "transA", 0) != 0);
                let column = usize::from(integer(node, "transB", 0) == 0);
                Some(vec![*a.get(row)?, *b.get(column)?])
            }
            "MatMul" | "FusedMatMul" => self.product(node),
            "Transpose" => {
                let shape = self.get(node, 0)?;
                match attribute(node, "perm") {
                    Some(perm) => perm.ints.iter().map(|&from| shape.get(from as usize).copied()).collect(),
                    None => Some(shape.iter().rev().copied().collect()),
                }
            }
            "Reshape" => self.reshape(node),
            "Expand" => {
                let shape = self.get(node, 0)?.clone();
                if let Some(target) = self.integer_input(node, 1).cloned() {
                    return self.broadcast_of(&[shape, target]);
                }
                let target = self.rank_of_target(node)?;
                Some((0..target.max(shape.len())).map(|_| self.fresh()).collect())
            }
            "ConstantOfShape" => self.integer_input(node, 0).cloned(),
            "Range" => Some(vec![self.fresh()]),
            "Unsqueeze" => {
                let shape = self.get(node, 0)?;
                let axes = sizes(self.integer_input(node, 1)?)?;
                let rank = shape.len() + axes.len();
                let axes: Vec<usize> = axes.iter().map(|&axis| place_in(axis, rank)).collect();
                let mut rest = shape.iter().copied();
                (0..rank).map(|at| if axes.contains(&at) { Some(Dim::Size(1)) } else { rest.next() }).collect()
            }
            "Squeeze" => {
                let shape = self.get(node, 0)?;
                let axes = sizes(self.integer_input(node, 1)?)?;
                let axes: Vec<usize> = axes.iter().map(|&axis| place_in(axis, shape.len())).collect();
                Some(shape.iter().enumerate().filter(|(at, _)| !axes.contains(at)).map(|(_, dim)| *dim).collect())
            }
            name if name.starts_with("Reduce") => {
                let shape = self.get(node, 0)?.clone();
                let keep = integer(node, "keepdims", 1) != 0;
                let Some(axes) = self.reduced_axes(node, shape.len()) else {
                    return keep.then(|| shape.iter().map(|_| self.fresh()).collect());
                };
                let dims = shape.iter().enumerate().filter(|(at, _)| keep || !axes.contains(at));
                Some(dims.map(|(at, dim)| if axes.contains(&at) { Dim::Size(1) } else { *dim }).collect())
            }
            "Concat" => {
                let mut shape = self.get(node, 0)?.clone();
                let axis = place_in(integer(node, "axis", 0), shape.len());
                let mut total = 0_i64;
                let mut known = true;
                for input in 0..node.input.len() {
                    match self.get(node, input)?.get(axis)? {
                        Dim::Size(size) => total = size.checked_add(total)?,
                        Dim::Symbol(_) => known = false,
                    }
                }
                *shape.get_mut(axis)? = if known { Dim::Size(total) } else { self.fresh() };
                Some(shape)
            }
            "Slice" => {
                let mut shape = self.get(node, 0)?.clone();
                let axes = match node.input.get(3).filter(|name| !name.is_empty()) {
                    Some(_) => sizes(self.integer_input(node, 3)?)?,
                    None => (0..self.rank_of_target(node)? as i64).collect(),
                };
                let rank = shape.len();
                for axis in axes {
                    let fresh = self.fresh();
                    *shape.get_mut(place_in(axis, rank))? = fresh;
                }
                Some(shape)
            }
            "Flatten" => Some(vec![self.fresh(), self.fresh()]),
            "Tile" => {
                let shape = self.get(node, 0)?.clone();
                let repeats = self.integer_input(node, 1).cloned();
                let repeat = |at: usize| repeats.as_ref()?.get(at).copied().and_then(size);
                let dims = shape.iter().enumerate().map(|(at, dim)| match (repeat(at), dim) {
                    (Some(1), dim) => *dim,
                    (Some(times), Dim::Size(size)) => times.checked_mul(*size).map_or_else(|| self.fresh(), Dim::Size),
                    _ => self.fresh(),
                });
                Some(dims.collect())
            }
            "Pad" => {
                let rank = self.get(node, 0)?.len();
                Some((0..rank).map(|_| self.fresh()).collect())
            }
            "GatherND" => {
                let (data, index) = (self.get(node, 0)?, self.get(node, 1)?);
                let (depth, places) = index.split_last()?;
                let depth = usize::try_from(size(*depth)?).ok()?;
                let from = depth.checked_add(usize::try_from(integer(node, "batch_dims", 0)).ok()?)?;
                Some([places, data.get(from..)?].concat())
            }
            _ => None,
        }
    }

    /// The shapes of all parts of a `Split`.
    pub(super) fn split(&mut self, node: &NodeProto) {
        let Some(shape) = self.get(node, 0).cloned() else { return };
        let axis = place_in(integer(node, "axis", 0), shape.len());
        let parts = self.integer_input(node, 1).cloned();
        for (number, output) in node.output.iter().enumerate() {
            let mut part = shape.clone();
            let known = match (&parts, shape.get(axis)) {
                (Some(parts), _) => parts.get(number).copied(),
                (None, Some(Dim::Size(size))) if size % node.output.len() as i64 == 0 => {
                    Some(Dim::Size(size / node.output.len() as i64))
                }
                _ => None,
            };
            let dim = known.unwrap_or_else(|| self.fresh());
            if let Some(place) = part.get_mut(axis) {
                *place = dim;
                self.set_shape(output, part);
            }
        }
    }

    fn broadcast(&mut self, node: &NodeProto) -> Option<Vec<Dim>> {
        let shapes: Option<Vec<Vec<Dim>>> = (0..node.input.len()).map(|input| self.get(node, input).cloned()).collect();
        self.broadcast_of(&shapes?)
    }

    /// ONNX's (and numpy's) multidirectional broadcasting.
    fn broadcast_of(&mut self, shapes: &[Vec<Dim>]) -> Option<Vec<Dim>> {
        let rank = shapes.iter().map(Vec::len).max()?;
        let mut result = vec![Dim::Size(1); rank];
        for shape in shapes {
            for (place, &dim) in result[rank - shape.len()..].iter_mut().zip(shape) {
                *place = match (*place, dim) {
                    (a, b) if a == b => a,
                    (a, Dim::Size(1)) => a,
                    (Dim::Size(1), b) => b,
                    (Dim::Size(a), _) => Dim::Size(a),
                    (_, Dim::Size(b)) => Dim::Size(b),
                    _ => self.fresh(),
                };
            }
        }
        Some(result)
    }

    fn product(&mut self, node: &NodeProto) -> Option<Vec<Dim>> {
        let (mut a, mut b) = (self.get(node, 0)?.clone(), self.get(node, 1)?.clone());
        let (flat_a, flat_b) = (a.len() == 1, b.len() == 1);
        if flat_a {
            a.insert(0, Dim::Size(1));
        }
        if flat_b {
            b.push(Dim::Size(1));
        }
        let (rank_a, rank_b) = (a.len(), b.len());
        if rank_a < 2 || rank_b < 2 {
            return None;
        }
        let rows = a[rank_a - if integer(node, "transA", 0) != 0 { 1 } else { 2 }];
        let columns = b[rank_b - if integer(node, "transB", 0) != 0 { 2 } else { 1 }];
        let mut shape = self.broadcast_of(&[a[..rank_a - 2].to_vec(), b[..rank_b - 2].to_vec()])?;
        if !flat_a {
            shape.push(rows);
        }
        if !flat_b {
            shape.push(columns);
        }
        Some(shape)
    }

    fn reshape(&mut self, node: &NodeProto) -> Option<Vec<Dim>> {
        let source = self.get(node, 0)?.clone();
        let Some(target) = self.integer_input(node, 1).cloned() else {
            let rank = self.rank_of_target(node)?;
            return Some((0..rank).map(|_| self.fresh()).collect());
        };
        let mut shape = Vec::with_capacity(target.len());
        let mut open = None;
        for (at, dim) in target.iter().enumerate() {
            match dim {
                Dim::Size(-1) => {
                    open = Some(at);
                    shape.push(Dim::Size(1));
                }
                Dim::Size(0) if integer(node, "allowzero", 0) == 0 => shape.push(*source.get(at)?),
                other => shape.push(*other),
            }
        }
        if let Some(at) = open {
            shape[at] = self.quotient(&source, &shape);
        }
        Some(shape)
    }

    /// The rank at least of what a node's second input says: its length.
    fn rank_of_target(&self, node: &NodeProto) -> Option<usize> {
        let rank = self.get(node, 1)?.first().copied().and_then(size)?;
        usize::try_from(rank).ok().filter(|rank| *rank <= MOST_AXES)
    }

    /// The product of `whole` over that of `part`.
    fn quotient(&mut self, whole: &[Dim], part: &[Dim]) -> Dim {
        let ((mut symbols, above), (divisors, below)) = (self.factors(whole), self.factors(part));
        for one in divisors {
            match symbols.iter().position(|other| *other == one) {
                Some(at) => {
                    symbols.swap_remove(at);
                }
                None => return self.fresh(),
            }
        }
        // Products of products would grow without end.
        if symbols.len() > MOST_AXES || above.checked_rem(below) != Some(0) {
            return self.fresh();
        }
        match (symbols.as_slice(), above / below) {
            ([], size) => Dim::Size(size),
            ([one], 1) => Dim::Symbol(*one),
            (_, size) => {
                symbols.sort_unstable();
                self.product_symbol(symbols, size)
            }
        }
    }

    /// The product of sizes: the symbols in it, those that are products taken apart, and the factor before them.
    fn factors(&self, dims: &[Dim]) -> (Vec<usize>, i64) {
        let (mut symbols, mut factor) = (Vec::new(), 1_i64);
        for dim in dims {
            match dim {
                Dim::Size(size) => factor = factor.saturating_mul(*size),
                Dim::Symbol(symbol) => match self.product_of(*symbol) {
                    Some((inner, size)) => {
                        symbols.extend_from_slice(inner);
                        factor = factor.saturating_mul(size);
                    }
                    None => symbols.push(*symbol),
                },
            }
        }
        (symbols, factor)
    }
}

#[cfg(test)]
mod tests;
