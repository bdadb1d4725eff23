use proptest::prelude::*;

use super::{Case, Random, broadcast_shapes, shapes, spread};
use crate::onnx::value::Attribute;

fn axis(axis: i64) -> [(&'static str, Attribute); 1] {
    [("axis", Attribute::Int(axis))]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn transpose(seed: u64, shape in shapes(0..=4), default: bool) {
        let mut order: Vec<i64> = (0..shape.len() as i64).collect();
        let mut random = Random(seed);
        (1..order.len()).for_each(|at| order.swap(at, random.below(at + 1)));
        let order = if default { vec![] } else { vec![("perm", Attribute::Ints(order))] };
        Case::of(spread(seed, &[&shape], -2.0, 2.0))
            .check(|builder, inputs| builder.node_with("Transpose", "", &[&inputs[0]], &order));
    }

    #[test]
    fn expand_to_any_wider_shape(seed: u64, shapes in broadcast_shapes(2)) {
        let wide: Vec<i64> = shapes[1].iter().map(|&size| size as i64).collect();
        let case = Case::of(spread(seed, &[&shapes[0]], -2.0, 2.0));
        case.check(|builder, inputs| {
            let wide = builder.ints(&wide);
            builder.node("Expand", &[&inputs[0], &wide])
        });
        case.with(&[wide.len()], &wide).check(|builder, inputs| builder.node("Expand", &[&inputs[0], &inputs[1]]));
    }

    #[test]
    fn slice_with_any_bounds(
        seed: u64,
        shape in shapes(1..=3),
        bounds in prop::collection::vec((-4..=4_i64, -5..=5_i64, prop::sample::select(vec![1, 2, -1, -2])), 3),
        computed: bool,
    ) {
        let rank = shape.len();
        // Axes in any order; a slice of none is not what an encoder has.
        let mut entries = Vec::new();
        for (at, &(start, end, step)) in bounds.iter().enumerate().take(rank).rev() {
            let size = shape[at] as i64;
            let end = if end == 5 { i64::MAX } else if end == -5 { i64::MIN + 1 } else { end };
            let place = |bound: i64| if bound < 0 { bound.saturating_add(size) } else { bound };
            let (first, last) = if step > 0 {
                (place(start).clamp(0, size), place(end).clamp(0, size))
            } else {
                (place(start).clamp(0, size - 1), place(end).clamp(-1, size - 1))
            };
            if (last - first) * step > 0 {
                entries.push((start, end, at as i64 - if at % 2 == 0 { rank as i64 } else { 0 }, step));
            }
        }
        prop_assume!(!entries.is_empty());
        let list = |pick: fn(&(i64, i64, i64, i64)) -> i64| entries.iter().map(pick).collect::<Vec<_>>();
        let (starts, ends, axes, steps) = (list(|e| e.0), list(|e| e.1), list(|e| e.2), list(|e| e.3));
        let case = Case::of(spread(seed, &[&shape], -2.0, 2.0)).with(&[starts.len()], &starts);
        case.check(|builder, inputs| {
            let starts = if computed { inputs[1].clone() } else { builder.ints(&starts) };
            let (ends, axes, steps) = (builder.ints(&ends), builder.ints(&axes), builder.ints(&steps));
            builder.node("Slice", &[&inputs[0], &starts, &ends, &axes, &steps])
        });
    }

    #[test]
    fn concat_on_any_axis(seed: u64, shape in shapes(1..=3), at: prop::sample::Index, lengths in prop::collection::vec(1..=3_usize, 1..=3)) {
        let place = at.index(shape.len());
        let shapes: Vec<Vec<usize>> = lengths.iter().map(|&length| { let mut one = shape.clone(); one[place] = length; one }).collect();
        let shapes: Vec<&[usize]> = shapes.iter().map(Vec::as_slice).collect();
        Case::of(spread(seed, &shapes, -2.5, 2.5)).check(|builder, inputs| {
            builder.node_with("Concat", "", &inputs.iter().collect::<Vec<_>>(), &axis(place as i64))
        });
    }
}

#[test]
fn slices_without_axes_or_steps() {
    Case::of(spread(1, &[&[3, 4]], -2.0, 2.0)).check(|builder, inputs| {
        let (starts, ends) = (builder.ints(&[1, -3]), builder.ints(&[3, i64::MAX]));
        builder.node("Slice", &[&inputs[0], &starts, &ends])
    });
    Case::of(spread(1, &[&[3, 4]], -2.0, 2.0)).check(|builder, inputs| {
        let (starts, ends) = (builder.ints(&[0]), builder.ints(&[1]));
        let axes = builder.ints(&[-1]);
        builder.node("Slice", &[&inputs[0], &starts, &ends, &axes])
    });
}

#[test]
fn a_slice_with_narrow_bounds() {
    use crate::onnx::ElementType;
    Case::of(spread(1, &[&[5, 2]], -2.0, 2.0)).check(|builder, inputs| {
        let bounds = [1, 4, 0, 2].map(|bound| builder.ints(&[bound]));
        let bounds = bounds.map(|bound| builder.cast(&bound, ElementType::I32));
        let [start, end, axis, step] = &bounds;
        builder.node("Slice", &[&inputs[0], start, end, axis, step])
    });
}

#[test]
fn a_slice_of_steps_without_axes() {
    Case::of(spread(1, &[&[5, 2]], -2.0, 2.0)).check(|builder, inputs| {
        let (starts, ends, steps) = (builder.ints(&[0, 0]), builder.ints(&[5, 2]), builder.ints(&[2, 1]));
        builder.node_optional("Slice", "", &[Some(&inputs[0]), Some(&starts), Some(&ends), None, Some(&steps)], &[])
    });
}

#[test]
fn splits_with_every_and_with_unused_parts() {
    for (used, lengths, place) in [(vec![0, 1, 2], true, 1), (vec![2], true, -1), (vec![0, 2], false, 1)] {
        Case::of(spread(1, &[&[2, 6]], -2.0, 2.0)).check(|builder, inputs| {
            let parts = if lengths {
                let lengths = builder.ints(&[2, 2, 2]);
                builder.node_outputs("Split", &[&inputs[0], &lengths], &axis(place), 3)
            } else {
                let attributes = [("axis", Attribute::Int(place)), ("num_outputs", Attribute::Int(3))];
                builder.node_outputs("Split", &[&inputs[0]], &attributes, 3)
            };
            let mut sum = parts[used[0]].clone();
            for &part in &used[1..] {
                let square = builder.node("Mul", &[&parts[part], &parts[part]]);
                sum = builder.node("Add", &[&sum, &square]);
            }
            sum
        });
    }
}

#[test]
fn splits_of_different_lengths() {
    Case::of(spread(1, &[&[6, 2]], -2.0, 2.0)).check(|builder, inputs| {
        let lengths = builder.ints(&[1, 3, 2]);
        let parts = builder.node_outputs("Split", &[&inputs[0], &lengths], &[], 3);
        let wide = builder.node("Mul", &[&parts[1], &parts[0]]);
        builder.node_with("Concat", "", &[&wide, &parts[1]], &axis(0))
    });
}

#[test]
fn reshapes_with_copied_and_open_sizes() {
    for target in [&[-1][..], &[0, -1], &[0, 0, 2, 2], &[3, -1, 2], &[-1, 0, 4], &[24]] {
        Case::of(spread(1, &[&[2, 3, 4]], -2.0, 2.0)).check(|builder, inputs| {
            let target = builder.ints(target);
            builder.node("Reshape", &[&inputs[0], &target])
        });
    }
    Case::of(spread(1, &[&[2, 6]], -2.0, 2.0)).with(&[3], &[2, 3, 2]).check(|builder, inputs| {
        let cube = builder.node("Reshape", &[&inputs[0], &inputs[1]]);
        let scale = builder.node("Exp", &[&inputs[0]]);
        let scale = builder.node("Reshape", &[&scale, &inputs[1]]);
        builder.node("Mul", &[&cube, &scale])
    });
}

/// Tokens of all texts in rows, and back, with a bias that is broadcast in either form.
#[test]
fn rows_and_back() {
    Case::of(spread(1, &[&[2, 3, 4], &[4], &[3, 1]], -2.0, 2.0)).check(|builder, inputs| {
        let flat = builder.ints(&[-1, 4]);
        let rows = builder.node("Reshape", &[&inputs[0], &flat]);
        let rows = builder.node("Mul", &[&rows, &inputs[1]]);
        let shape = builder.node("Shape", &[&inputs[0]]);
        let back = builder.node("Reshape", &[&rows, &shape]);
        builder.node("Mul", &[&back, &inputs[2]])
    });
}

#[test]
fn squeezes_and_flattened_axes() {
    Case::of(spread(1, &[&[2, 1, 3]], -2.0, 2.0)).check(|builder, inputs| {
        let axes = builder.ints(&[-1, 1]);
        let wide = builder.node("Unsqueeze", &[&inputs[0], &axes]);
        let axes = builder.ints(&[1, -1, 2]);
        builder.node("Squeeze", &[&wide, &axes])
    });
    Case::of(spread(1, &[&[2, 1, 3]], -2.0, 2.0)).check(|builder, inputs| builder.node("Squeeze", &[&inputs[0]]));
    for place in [0, 1, 2, 3, -1] {
        Case::of(spread(1, &[&[2, 2, 3]], -2.0, 2.0))
            .check(|builder, inputs| builder.node_with("Flatten", "", &[&inputs[0]], &axis(place)));
    }
}

#[test]
fn tiles() {
    for repeats in [&[2, 1][..], &[1, 3], &[3, 2], &[1, 1]] {
        let case = Case::of(spread(1, &[&[2, 3]], -2.0, 2.0)).with(&[2], repeats);
        case.check(|builder, inputs| builder.node("Tile", &[&inputs[0], &inputs[1]]));
        case.check(|builder, inputs| {
            let repeats = builder.ints(repeats);
            let tiles = builder.node("Tile", &[&inputs[0], &repeats]);
            builder.node("Mul", &[&tiles, &tiles])
        });
    }
}

#[test]
fn padding_on_all_and_on_some_axes() {
    for (pads, axes) in
        [(&[1, 0, 0, 2][..], None), (&[-1, 1, 0, 0], None), (&[2, 1], Some(&[1][..])), (&[0, -1], Some(&[-2]))]
    {
        Case::of(spread(1, &[&[3, 2]], -2.0, 2.0)).check(|builder, inputs| {
            let pads = builder.ints(pads);
            let (five, axes) = (builder.float(5.0), axes.map(|axes| builder.ints(axes)));
            builder.node_optional("Pad", "", &[Some(&inputs[0]), Some(&pads), Some(&five), axes.as_ref()], &[])
        });
    }
}

#[test]
fn triangles() {
    for (upper, diagonal) in [(1, None), (0, None), (1, Some(1)), (0, Some(-1))] {
        Case::of(spread(1, &[&[2, 3, 3]], -2.0, 2.0)).check(|builder, inputs| {
            let diagonal = diagonal.map(|diagonal| builder.int(diagonal));
            let inputs: Vec<_> = std::iter::once(&inputs[0]).chain(&diagonal).collect();
            builder.node_with("Trilu", "", &inputs, &[("upper", Attribute::Int(upper))])
        });
    }
}
