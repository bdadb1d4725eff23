#![allow(clippy::unwrap_used, clippy::panic, reason = "a test ends by panicking")]

use super::super::value::{Attribute, Dimension};
use super::super::{ElementType, GraphBuilder, Value};
use super::*;

use Dimension::{Name, Size};

fn graph() -> GraphBuilder {
    GraphBuilder::new("test", ElementType::F32)
}

fn shape(builder: &GraphBuilder, value: &Value) -> Vec<Dim> {
    Facts::of(builder.graph()).shape(value).unwrap().to_vec()
}

fn join(builder: &mut GraphBuilder, parts: &[&Value]) -> Value {
    builder.node_with("Concat", "", parts, &[("axis", Attribute::Int(0))])
}

#[test]
fn tokens_in_rows_and_back_are_of_the_same_sizes() {
    let mut builder = graph();
    let x = builder.input("x", ElementType::F32, &[Name("batch"), Name("tokens"), Size(12)]);
    let flat = builder.ints(&[-1, 12]);
    let rows = builder.node("Reshape", &[&x, &flat]);
    let other = builder.node("Reshape", &[&x, &flat]);
    let sizes = builder.node("Shape", &[&x]);
    let back = builder.node("Reshape", &[&rows, &sizes]);
    let facts = Facts::of(builder.graph());
    let rows = facts.shape(&rows).unwrap();
    assert!(matches!(rows, [Dim::Symbol(_), Dim::Size(12)]), "{rows:?}");
    assert_eq!(facts.shape(&other).unwrap(), rows, "the same product is the same symbol");
    assert_eq!(facts.shape(&back), facts.shape(&x));
}

#[test]
fn an_open_size_is_found_in_a_product_that_is_taken_apart() {
    let mut builder = graph();
    let x = builder.input("x", ElementType::F32, &[Name("batch"), Name("tokens"), Size(12)]);
    let flat = builder.ints(&[-1, 12]);
    let rows = builder.node("Reshape", &[&x, &flat]);
    let sizes = builder.node_with("Shape", "", &[&x], &[("end", Attribute::Int(1))]);
    let rest = builder.ints(&[-1, 12]);
    let target = join(&mut builder, &[&sizes, &rest]);
    let back = builder.node("Reshape", &[&rows, &target]);
    assert_eq!(shape(&builder, &back), shape(&builder, &x));
}

/// Heads of packed tokens are rows, are gathered into texts of `tokens`, and are joined to tokens again.
#[test]
fn heads_of_tokens_are_joined_to_the_tokens_that_they_came_from() {
    let mut builder = graph();
    let x = builder.input("x", ElementType::F32, &[Name("tokens"), Size(12)]);
    let places = builder.input("places", ElementType::I64, &[Name("tokens"), Size(3)]);
    let heads = builder.ints(&[-1, 4]);
    let heads = builder.node("Reshape", &[&x, &heads]);
    let gathered = builder.node("Gather", &[&heads, &places]);
    let flat = builder.ints(&[-1, 12]);
    let rows = builder.node("Reshape", &[&gathered, &flat]);
    let apart = builder.ints(&[-1, 3, 4]);
    let apart = builder.node("Reshape", &[&heads, &apart]);
    let facts = Facts::of(builder.graph());
    let tokens = facts.shape(&x).unwrap()[0];
    assert_eq!(facts.shape(&gathered).unwrap(), [tokens, Dim::Size(3), Dim::Size(4)]);
    assert_eq!(facts.shape(&rows), facts.shape(&x));
    assert_eq!(facts.shape(&apart).unwrap(), [tokens, Dim::Size(3), Dim::Size(4)]);
}

#[test]
fn broadcasting_keeps_what_is_known() {
    let mut builder = graph();
    let a = builder.input("a", ElementType::F32, &[Name("n"), Size(1), Name("k"), Size(3)]);
    let b = builder.input("b", ElementType::F32, &[Name("m"), Name("k"), Name("other")]);
    let sum = builder.node("Add", &[&a, &b]);
    let facts = Facts::of(builder.graph());
    let (of_a, of_b) = (facts.shape(&a).unwrap(), facts.shape(&b).unwrap());
    assert_eq!(facts.shape(&sum).unwrap(), [of_a[0], of_b[0], of_a[2], Dim::Size(3)]);

    let two = builder.node("Mul", &[&a, &sum]);
    let third = builder.input("c", ElementType::F32, &[Name("else"), Name("k"), Size(3)]);
    let open = builder.node("Mul", &[&two, &third]);
    let facts = Facts::of(builder.graph());
    let open = facts.shape(&open).unwrap();
    assert!(open[1] != facts.shape(&sum).unwrap()[1] && open[1] != facts.shape(&third).unwrap()[0]);
    assert_eq!((open[2], open[3]), (facts.shape(&a).unwrap()[2], Dim::Size(3)));
}

#[test]
fn sizes_go_through_shape_gather_slice_and_concat() {
    let mut builder = graph();
    let x = builder.input("x", ElementType::F32, &[Name("batch"), Name("tokens"), Size(12)]);
    let sizes = builder.node("Shape", &[&x]);
    let (first, last) = (builder.ints(&[0]), builder.int(-1));
    let batch = builder.node("Gather", &[&sizes, &first]);
    let width = builder.node("Gather", &[&sizes, &last]);
    let width = builder.node("Unsqueeze", &[&width, &first]);
    let (start, end) = (builder.ints(&[1]), builder.ints(&[-1]));
    let tokens = builder.node("Slice", &[&sizes, &start, &end]);
    let target = join(&mut builder, &[&tokens, &batch, &width]);
    let zero = builder.float(0.0);
    let wide = builder.node("Expand", &[&zero, &target]);
    let of_x = shape(&builder, &x);
    assert_eq!(shape(&builder, &wide), [of_x[1], of_x[0], of_x[2]]);
    assert_eq!(shape(&builder, &target), [Dim::Size(3)]);
}

/// Bounds past either end, and in the wrong order, are cut and do not fail.
#[test]
fn slices_of_sizes_with_bounds_past_the_ends() {
    for (from, to, left) in [(5, 9, 0), (-9, 2, 2), (2, 1, 0), (1, i64::MAX, 2), (i64::MIN, -1, 2)] {
        let mut builder = graph();
        let x = builder.input("x", ElementType::F32, &[Size(2), Size(3), Size(4)]);
        let sizes = builder.node("Shape", &[&x]);
        let (from, to) = (builder.ints(&[from]), builder.ints(&[to]));
        let cut = builder.node("Slice", &[&sizes, &from, &to]);
        let facts = Facts::of(builder.graph());
        assert_eq!(facts.integers(&cut).unwrap().len(), left);
    }
}

#[test]
fn products_and_reductions() {
    let mut builder = graph();
    let a = builder.input("a", ElementType::F32, &[Name("batch"), Name("tokens"), Size(4)]);
    let b = builder.input("b", ElementType::F32, &[Size(4), Name("width")]);
    let vector = builder.input("v", ElementType::F32, &[Size(4)]);
    let product = builder.node("MatMul", &[&a, &b]);
    let by_vector = builder.node("MatMul", &[&a, &vector]);
    let axes = builder.ints(&[-1, 0]);
    let narrow = builder.node_with("ReduceMean", "", &[&product, &axes], &[("keepdims", Attribute::Int(0))]);
    let kept = builder.node("ReduceMean", &[&product, &axes]);
    let none = builder.ints(&[]);
    let all = builder.node("ReduceMax", &[&product, &none]);
    let same = builder.node_with("ReduceMax", "", &[&product, &none], &[("noop_with_empty_axes", Attribute::Int(1))]);
    let facts = Facts::of(builder.graph());
    let (of_a, of_b) = (facts.shape(&a).unwrap(), facts.shape(&b).unwrap());
    assert_eq!(facts.shape(&product).unwrap(), [of_a[0], of_a[1], of_b[1]]);
    assert_eq!(facts.shape(&by_vector).unwrap(), &of_a[..2]);
    assert_eq!(facts.shape(&narrow).unwrap(), &of_a[1..2]);
    assert_eq!(facts.shape(&kept).unwrap(), [Dim::Size(1), of_a[1], Dim::Size(1)]);
    assert_eq!(facts.shape(&all).unwrap(), [Dim::Size(1); 3]);
    assert_eq!(facts.shape(&same), facts.shape(&product));
}

#[test]
fn element_types_follow_casts_and_comparisons() {
    let mut builder = graph();
    let x = builder.input("x", ElementType::F32, &[Name("n")]);
    let half = builder.cast(&x, ElementType::F16);
    let double = builder.node("Add", &[&half, &half]);
    let less = builder.node("Less", &[&x, &x]);
    let chosen = builder.node("Where", &[&less, &double, &double]);
    let count = builder.node("Size", &[&x]);
    let facts = Facts::of(builder.graph());
    assert_eq!(facts.element(&chosen), ElementType::F16);
    assert_eq!(facts.element(&less), ElementType::Bool);
    assert_eq!(facts.element(&count), ElementType::I64);
}
