//! What holds whatever the operators are: which values have a gradient, what is skipped, what is refused.

use super::{Array, Case, Sizes, put_out, run, session, spread};
use crate::onnx::graph::MICROSOFT;
use crate::onnx::proto::{AttributeProto, GraphProto, NodeProto};
use crate::onnx::value::Attribute;
use crate::onnx::{ElementType, GraphBuilder, Value, gradients};

fn start(shapes: &[&[usize]]) -> (Case, GraphBuilder, Vec<Value>) {
    let case = Case::of(spread(1, shapes, -2.0, 2.0));
    let mut builder = GraphBuilder::new("test", ElementType::F32);
    let inputs = case.inputs(&mut builder, Sizes::Named);
    (case, builder, inputs)
}

fn total(builder: &mut GraphBuilder, value: &Value) -> Value {
    builder.node_with("ReduceSum", "", &[value], &[("keepdims", Attribute::Int(0))])
}

fn evaluated(mut builder: GraphBuilder, case: &Case, values: &[Option<Value>]) -> Vec<Array> {
    values.iter().for_each(|value| put_out(&mut builder, value.as_ref().unwrap()));
    run(&mut session(builder), &case.given())
}

/// The message of the error that the gradient of `y` is refused with.
fn refusal(builder: &mut GraphBuilder, y: &Value, wanted: &[Value]) -> String {
    let loss = total(builder, y);
    gradients(builder, &loss, wanted, None).unwrap_err().to_string()
}

#[test]
fn what_the_loss_does_not_depend_on_has_no_gradient() {
    let (case, mut builder, inputs) = start(&[&[3], &[3], &[3]]);
    builder.node("Mul", &[&inputs[1], &inputs[0]]);
    let masked = builder.node("Greater", &[&inputs[2], &inputs[0]]);
    let y = builder.node("Where", &[&masked, &inputs[0], &inputs[0]]);
    let loss = total(&mut builder, &y);
    let found = gradients(&mut builder, &loss, &inputs, None).unwrap();
    assert!(found[1].is_none(), "beside the way to the loss");
    assert!(found[2].is_none(), "by a comparison only");
    assert_eq!(evaluated(builder, &case, &found[..1])[0].data, vec![1.0; 3]);
}

#[test]
fn the_seed_scales_every_gradient() {
    let (case, mut builder, inputs) = start(&[&[2, 3]]);
    let y = builder.node("Mul", &[&inputs[0], &inputs[0]]);
    let loss = total(&mut builder, &y);
    let seed = builder.float(1024.0);
    let found = gradients(&mut builder, &loss, &[inputs[0].clone(), loss.clone()], Some(&seed)).unwrap();
    let outputs = evaluated(builder, &case, &found);
    let expected: Vec<f32> = case.floats[0].data.iter().map(|x| 2048.0 * x).collect();
    assert_eq!(outputs[0].data, expected);
    assert_eq!(outputs[1].data, vec![1024.0]);
}

#[test]
fn a_value_between_has_its_own_gradient_and_passes_it_on() {
    let (case, mut builder, inputs) = start(&[&[4]]);
    let middle = builder.node("Exp", &[&inputs[0]]);
    let y = builder.node("Mul", &[&middle, &middle]);
    let loss = total(&mut builder, &y);
    let found = gradients(&mut builder, &loss, &[middle, inputs[0].clone()], None).unwrap();
    let outputs = evaluated(builder, &case, &found);
    for (at, x) in case.floats[0].data.iter().enumerate() {
        assert!((outputs[0].data[at] - 2.0 * x.exp()).abs() < 1e-4);
        assert!((outputs[1].data[at] - 2.0 * (2.0 * x).exp()).abs() < 1e-3);
    }
}

#[test]
fn an_operator_without_a_rule_is_named_with_its_node() {
    let (_, mut builder, inputs) = start(&[&[3]]);
    let y = builder.node("Softsign", &[&inputs[0]]);
    let message = refusal(&mut builder, &y, &inputs);
    assert!(message.contains("`Softsign`") && message.contains(&format!("`{}`", y.name())), "{message}");
    assert!(message.contains("no gradient rule"), "{message}");
}

#[test]
fn an_operator_of_another_domain_is_not_taken_for_one_of_the_same_name() {
    let (_, mut builder, inputs) = start(&[&[3]]);
    let y = builder.node_with("Softmax", "somebody.else", &[&inputs[0]], &[]);
    assert!(refusal(&mut builder, &y, &inputs).contains("no gradient rule"));
}

#[test]
fn an_operator_without_a_rule_is_passed_over_where_no_gradient_flows() {
    let (case, mut builder, inputs) = start(&[&[3], &[3]]);
    // Of a value that is not wanted; after the wanted value, but not on the way to the loss; before a wanted value.
    let constant = builder.node("Softsign", &[&inputs[1]]);
    builder.node("Softsign", &[&inputs[0]]);
    let y = builder.node("Mul", &[&inputs[0], &constant]);
    let loss = total(&mut builder, &y);
    let found = gradients(&mut builder, &loss, &[inputs[0].clone(), constant.clone()], None).unwrap();
    put_out(&mut builder, &constant);
    let outputs = evaluated(builder, &case, &found);
    assert_eq!(outputs[0].data, outputs[1].data, "the other factor");
    assert_eq!(outputs[2].data, case.floats[0].data, "the other factor");
}

#[test]
fn another_output_than_the_first_is_refused() {
    let (_, mut builder, inputs) = start(&[&[2, 3], &[3]]);
    let outputs = builder.node_outputs("LayerNormalization", &[&inputs[0], &inputs[1]], &[], 2);
    let message = refusal(&mut builder, &outputs[1], &inputs);
    assert!(message.contains("LayerNormalization") && message.contains("first output"), "{message}");
}

/// The body of a branch reads values of the graph around it, which are no inputs of the node.
#[test]
fn a_branch_that_reads_a_wanted_value_is_refused() {
    let (_, mut builder, inputs) = start(&[&[3]]);
    let condition = builder.truth(true);
    let y = builder.node("If", &[&condition]);
    let body = NodeProto {
        input: vec![inputs[0].name().into()],
        output: vec!["inner".into()],
        op_type: "Exp".into(),
        ..NodeProto::default()
    };
    let graph = GraphProto { node: vec![body], ..GraphProto::default() };
    let attribute =
        AttributeProto { name: "then_branch".into(), g: Some(Box::new(graph)), ..AttributeProto::default() };
    builder.graph_mut().node.last_mut().unwrap().attribute.push(attribute);
    assert!(refusal(&mut builder, &y, &inputs).contains("`If`"));
}

#[test]
fn what_a_rule_does_not_cover_is_refused_with_the_reason() {
    let (_, mut builder, inputs) = start(&[&[3], &[]]);
    let clipped = builder.node("Clip", &[&inputs[0], &inputs[1]]);
    let pads = builder.ints(&[1, 1]);
    let padded = builder.node("Pad", &[&inputs[0], &pads, &inputs[1]]);
    let mirrored = builder.node_with("Pad", "", &[&inputs[0], &pads], &[("mode", Attribute::Text("reflect"))]);
    let turned =
        builder.node_with("FusedMatMul", MICROSOFT, &[&inputs[0], &inputs[0]], &[("transBatchA", Attribute::Int(1))]);
    let index = builder.ints(&[0]);
    let multiplied = builder.node_with(
        "ScatterElements",
        "",
        &[&inputs[0], &index, &inputs[0]],
        &[("reduction", Attribute::Text("mul"))],
    );
    let rows = builder.node_with("GatherND", "", &[&inputs[0], &index], &[("batch_dims", Attribute::Int(1))]);
    let axes = builder.node("NonZero", &[&inputs[1]]);
    let summed = builder.node("ReduceSum", &[&inputs[0], &axes]);
    let cut = builder.node("Slice", &[&inputs[0], &index, &index, &axes]);
    let cases = [
        (clipped, "bounds"),
        (padded, "constant"),
        (mirrored, "mode"),
        (turned, "batch axes"),
        (multiplied, "reductions"),
        (rows, "batch axes"),
        (summed, "must be constant"),
        (cut, "must be constant"),
    ];
    for (y, reason) in cases {
        let message = refusal(&mut builder, &y, &inputs);
        assert!(message.contains(y.name()) && message.contains(reason), "{message}");
    }
}
