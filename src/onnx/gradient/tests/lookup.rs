use proptest::prelude::*;

use super::{Case, Sizes, elements, shapes, spread};
use crate::onnx::builder::Scatter;
use crate::onnx::value::Attribute;

fn axis(axis: i64) -> [(&'static str, Attribute); 1] {
    [("axis", Attribute::Int(axis))]
}

/// Places along an axis, some repeated, some counted from the end.
fn places(seed: u64, count: usize, length: usize) -> Vec<i64> {
    let mut random = super::Random(seed);
    (0..count).map(|_| random.below(2 * length) as i64 - length as i64).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn gather_on_any_axis(seed: u64, shape in shapes(1..=3), at: prop::sample::Index, index in shapes(0..=2), from_the_end: bool) {
        let place = at.index(shape.len());
        let chosen = places(seed, elements(&index), shape[place]);
        let place = place as i64 - if from_the_end { shape.len() as i64 } else { 0 };
        let case = Case::of(spread(seed, &[&shape], -2.0, 2.0)).with(&index, &chosen);
        case.check(|builder, inputs| builder.node_with("Gather", "", &[&inputs[0], &inputs[1]], &axis(place)));
        // Not of an input, so that the gradient has to flow on.
        case.check(|builder, inputs| {
            let square = builder.node("Mul", &[&inputs[0], &inputs[0]]);
            builder.node_with("Gather", "", &[&square, &inputs[1]], &axis(place))
        });
    }

    #[test]
    fn gather_elements_on_any_axis(seed: u64, shape in shapes(1..=3), at: prop::sample::Index, count in 1..=4_usize) {
        let place = at.index(shape.len());
        let mut index = shape.clone();
        index[place] = count;
        let chosen = places(seed, elements(&index), shape[place]);
        Case::of(spread(seed, &[&shape], -2.0, 2.0)).with(&index, &chosen).check(|builder, inputs| {
            builder.node_with("GatherElements", "", &[&inputs[0], &inputs[1]], &axis(place as i64))
        });
    }
}

/// The rows of one table that two texts use are put back at once, beside what reaches the table otherwise.
#[test]
fn a_table_that_is_used_twice_and_whole() {
    for whole in [false, true] {
        Case::of(spread(1, &[&[5, 3], &[5, 3]], -2.0, 2.0)).with(&[2, 2], &[1, 3, -2, 1]).with(&[3], &[0, 1, 1]).check(
            |builder, inputs| {
                let (table, other) = (&inputs[0], &inputs[1]);
                let (a, b) =
                    (builder.node("Gather", &[table, &inputs[2]]), builder.node("Gather", &[table, &inputs[3]]));
                let square = builder.node("Mul", &[&b, &b]);
                let flat = builder.ints(&[-1, 3]);
                let a = builder.node("Reshape", &[&a, &flat]);
                let rows = builder.node_with("Concat", "", &[&a, &square], &axis(0));
                let rest = builder.node("Gather", &[other, &inputs[3]]);
                if whole {
                    let all = builder.node("Mul", &[table, table]);
                    return builder.node_with("Concat", "", &[&rows, &all, &rest], &axis(0));
                }
                builder.node_with("Concat", "", &[&rows, &rest], &axis(0))
            },
        );
    }
}

#[test]
fn a_table_that_is_used_with_wide_and_narrow_places() {
    Case::of(spread(1, &[&[5, 3]], -2.0, 2.0)).with(&[2], &[1, -2]).check(|builder, inputs| {
        let narrow = builder.cast(&inputs[1], crate::onnx::ElementType::I32);
        let (a, b) =
            (builder.node("Gather", &[&inputs[0], &inputs[1]]), builder.node("Gather", &[&inputs[0], &narrow]));
        builder.node("Mul", &[&a, &b])
    });
}

/// Wanted itself, and a step on the way to what else is wanted.
#[test]
fn a_table_that_is_computed_passes_its_rows_on() {
    use crate::onnx::{ElementType, GraphBuilder, gradients};
    let case = Case::of(spread(1, &[&[4, 2]], -2.0, 2.0));
    let mut builder = GraphBuilder::new("test", ElementType::F32);
    let x = case.inputs(&mut builder, Sizes::Fixed).remove(0);
    let three = builder.float(3.0);
    let table = builder.node("Mul", &[&x, &three]);
    let index = builder.ints(&[2, 0, 2]);
    let rows = builder.node("Gather", &[&table, &index]);
    let loss = builder.node_with("ReduceSum", "", &[&rows], &[("keepdims", Attribute::Int(0))]);
    let found = gradients(&mut builder, &loss, &[table, x.clone(), x], None).unwrap();
    found.iter().for_each(|gradient| super::put_out(&mut builder, gradient.as_ref().unwrap()));
    let outputs = super::run(&mut super::session(builder), &case.given());
    let counts = [1.0, 1.0, 0.0, 0.0, 2.0, 2.0, 0.0, 0.0];
    assert_eq!(outputs[0].data, counts);
    let tripled = counts.map(|count| 3.0 * count);
    assert_eq!((&outputs[1].data[..], &outputs[2].data[..]), (&tripled[..], &tripled[..]));
}

/// Rows that the index names at most once; row 2 is left out, and the row of padding is dropped from the loss.
#[test]
fn rows_gathered_back_by_their_inverse() {
    Case::of(spread(1, &[&[4, 3]], -2.0, 2.0)).check(|builder, inputs| {
        let index = builder.ints(&[3, 0, 1, 0]);
        let scatter = Scatter { inverse: builder.ints(&[1, 2, 0, 0]), kept: None };
        let kept = [1, 1, 0, 1].map(|kept| kept as f32);
        let kept: Vec<_> = kept.iter().map(|&kept| builder.float(kept)).collect();
        let pair = builder.ints(&[1, 1]);
        let kept: Vec<_> = kept.iter().map(|kept| builder.node("Reshape", &[kept, &pair])).collect();
        let kept = builder.node_with("Concat", "", &kept.iter().collect::<Vec<_>>(), &axis(0));
        let rows = builder.gather_rows(&inputs[0], &index, Scatter { kept: Some(kept), ..scatter });
        let (start, end) = (builder.ints(&[0]), builder.ints(&[3]));
        builder.node("Slice", &[&rows, &start, &end])
    });
}

#[test]
fn rows_in_another_order_gathered_back() {
    Case::of(spread(1, &[&[4, 3]], -2.0, 2.0)).check(|builder, inputs| {
        let index = builder.ints(&[3, 0, 1, 2]);
        let scatter = Scatter { inverse: builder.ints(&[1, 2, 3, 0]), kept: None };
        builder.gather_rows(&inputs[0], &index, scatter)
    });
}

#[test]
fn gather_by_lists_of_positions() {
    let lists: [(&[usize], &[i64]); 3] =
        [(&[3, 2], &[0, 1, 2, 0, 0, 1]), (&[2, 1], &[1, -1]), (&[2, 2, 3], &[0, 0, 1, 2, 1, 0, 0, 0, 1, 1, 1, 1])];
    for (shape, positions) in lists {
        Case::of(spread(1, &[&[3, 2, 2]], -2.0, 2.0))
            .with(shape, positions)
            .check(|builder, inputs| builder.node("GatherND", &[&inputs[0], &inputs[1]]));
    }
}

#[test]
fn scattered_elements_and_slices() {
    for reduction in ["none", "add"] {
        let attributes = [("axis", Attribute::Int(1)), ("reduction", Attribute::Text(reduction))];
        Case::of(spread(1, &[&[2, 4], &[2, 2]], -2.0, 2.0)).with(&[2, 2], &[0, 2, -1, 0]).check(|builder, inputs| {
            builder.node_with("ScatterElements", "", &[&inputs[0], &inputs[2], &inputs[1]], &attributes)
        });
        Case::of(spread(1, &[&[3, 2, 2], &[2, 2, 2]], -2.0, 2.0)).with(&[2, 1], &[2, 0]).check(|builder, inputs| {
            builder.node_with("ScatterND", "", &[&inputs[0], &inputs[2], &inputs[1]], &attributes[1..])
        });
    }
}
