use proptest::prelude::*;

use super::{Case, spread};
use crate::onnx::graph::MICROSOFT;
use crate::onnx::value::Attribute;

fn turned(shape: &[usize], turn: bool) -> Vec<usize> {
    let mut shape = shape.to_vec();
    let rank = shape.len();
    if turn {
        shape.swap(rank - 2, rank - 1);
    }
    shape
}

fn flags(pairs: &[(&'static str, bool)]) -> Vec<(&'static str, Attribute)> {
    pairs.iter().map(|&(name, flag)| (name, Attribute::Int(i64::from(flag)))).collect()
}

/// Every pair of ranks; batches that are broadcast on either side, on both, and on neither.
#[test]
fn products_of_all_ranks() {
    let pairs: [(&[usize], &[usize]); 20] = [
        (&[3], &[3]),
        (&[3], &[3, 2]),
        (&[3], &[2, 3, 4]),
        (&[3], &[2, 1, 3, 2]),
        (&[2, 3], &[3]),
        (&[4, 2, 3], &[3]),
        (&[2, 1, 2, 3], &[3]),
        (&[2, 3], &[3, 4]),
        (&[1, 3], &[3, 1]),
        (&[2, 1], &[1, 2]),
        (&[2, 2, 3], &[3, 2]),
        (&[2, 1, 2, 3], &[3, 1]),
        (&[2, 3], &[2, 3, 2]),
        (&[1, 3], &[2, 2, 3, 1]),
        (&[2, 2, 3], &[2, 3, 2]),
        (&[1, 2, 3], &[2, 3, 2]),
        (&[2, 2, 3], &[1, 3, 2]),
        (&[2, 1, 2, 3], &[1, 2, 3, 1]),
        (&[2, 2, 3], &[2, 1, 3, 2]),
        (&[2, 2, 1, 3], &[2, 3, 2]),
    ];
    for (a, b) in pairs {
        Case::of(spread(1, &[a, b], -1.5, 1.5))
            .check(|builder, inputs| builder.node("MatMul", &[&inputs[0], &inputs[1]]));
    }
}

#[test]
fn the_square_of_a_matrix() {
    Case::of(spread(1, &[&[3, 3]], -1.5, 1.5))
        .check(|builder, inputs| builder.node("MatMul", &[&inputs[0], &inputs[0]]));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn fused_products(
        seed: u64,
        sizes in (1..=3_usize, 1..=3_usize, 1..=3_usize),
        batches in prop::sample::select(vec![
            (vec![], vec![]), (vec![2], vec![]), (vec![], vec![2]), (vec![2], vec![2]), (vec![1], vec![2]),
            (vec![2], vec![1]), (vec![2, 1], vec![1, 2]), (vec![2, 2], vec![2]), (vec![2, 2], vec![2, 2]),
        ]),
        turn_a: bool,
        turn_b: bool,
        alpha in prop::sample::select(vec![1.0_f32, 0.5, -2.0]),
    ) {
        let (m, k, n) = sizes;
        let a = turned(&[batches.0, vec![m, k]].concat(), turn_a);
        let b = turned(&[batches.1, vec![k, n]].concat(), turn_b);
        let mut attributes = flags(&[("transA", turn_a), ("transB", turn_b)]);
        attributes.push(("alpha", Attribute::Float(alpha)));
        Case::of(spread(seed, &[&a, &b], -1.5, 1.5)).check(|builder, inputs| {
            builder.node_with("FusedMatMul", MICROSOFT, &[&inputs[0], &inputs[1]], &attributes)
        });
    }

    #[test]
    fn general_products(
        seed: u64,
        sizes in (1..=3_usize, 1..=3_usize, 1..=3_usize),
        addend in 0..6,
        turn_a: bool,
        turn_b: bool,
        alpha in prop::sample::select(vec![1.0_f32, 0.5, -2.0]),
        beta in prop::sample::select(vec![1.0_f32, 0.5, -2.0]),
    ) {
        let (m, k, n) = sizes;
        let (a, b) = (turned(&[m, k], turn_a), turned(&[k, n], turn_b));
        let mut attributes = flags(&[("transA", turn_a), ("transB", turn_b)]);
        attributes.extend([("alpha", Attribute::Float(alpha)), ("beta", Attribute::Float(beta))]);
        let c = match addend {
            0 => None,
            1 => Some(vec![]),
            2 => Some(vec![n]),
            3 => Some(vec![1, n]),
            4 => Some(vec![m, 1]),
            _ => Some(vec![m, n]),
        };
        let shapes: Vec<&[usize]> = [&a, &b].into_iter().chain(&c).map(Vec::as_slice).collect();
        Case::of(spread(seed, &shapes, -1.5, 1.5)).check(|builder, inputs| {
            builder.node_with("Gemm", "", &inputs.iter().collect::<Vec<_>>(), &attributes)
        });
    }
}
