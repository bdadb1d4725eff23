//! Files that PyTorch's exporters wrote, with the gradients that PyTorch computed (tests/fixtures/export).

use std::path::{Path, PathBuf};

use prost::Message as _;
use safetensors::{Dtype, SafeTensors};

use super::{Array, Given, put_out, run, session, weighted_sum};
use crate::onnx::proto::{FunctionProto, GraphProto, ModelProto, OperatorSetId};
use crate::onnx::value::Dimension;
use crate::onnx::{ElementType, GraphBuilder, Value, gradients};

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/export").join(name)
}

fn given(tensors: &SafeTensors<'_>, name: &str) -> Given {
    let view = tensors.tensor(name).unwrap();
    let shape = view.shape().to_vec();
    match view.dtype() {
        Dtype::I64 => {
            let data = view.data().chunks_exact(8).map(|bytes| i64::from_le_bytes(bytes.try_into().unwrap()));
            Given::Integers(shape, data.collect())
        }
        _ => Given::Floats(array(tensors, name)),
    }
}

fn array(tensors: &SafeTensors<'_>, name: &str) -> Array {
    let view = tensors.tensor(name).unwrap();
    assert_eq!(view.dtype(), Dtype::F32);
    let data = view.data().chunks_exact(4).map(|bytes| f32::from_le_bytes(bytes.try_into().unwrap()));
    Array { shape: view.shape().to_vec(), data: data.collect() }
}

/// Largest distance of two arrays' entries, and the largest entry of the second.
fn distance(found: &Array, expected: &Array) -> (f32, f32) {
    assert_eq!(found.shape, expected.shape);
    let off = found.data.iter().zip(&expected.data).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
    (off, expected.data.iter().map(|value| value.abs()).fold(0.0, f32::max))
}

fn agrees_with_pytorch(name: &str) {
    let bytes = std::fs::read(fixture(&format!("{name}.safetensors"))).unwrap();
    let tensors = SafeTensors::deserialize(&bytes).unwrap();
    let mut builder = GraphBuilder::read(&fixture(&format!("{name}.onnx"))).unwrap();
    let batch = [Dimension::Name("batch"), Dimension::Name("sequence"), Dimension::Size(16)];
    let weight_hidden = builder.input("weight_hidden", ElementType::F32, &batch);
    let weight_pooled = builder.input("weight_pooled", ElementType::F32, &[batch[0].clone(), batch[2].clone()]);
    let hidden = weighted_sum(&mut builder, &Value::new("last_hidden_state"), &weight_hidden);
    let pooled = weighted_sum(&mut builder, &Value::new("pooler_output"), &weight_pooled);
    let loss = builder.node("Add", &[&hidden, &pooled]);
    let mut weights: Vec<&str> = tensors.names().into_iter().filter_map(|name| name.strip_prefix("grad.")).collect();
    weights.sort_unstable();
    assert!(weights.len() > 30, "{weights:?}");
    let wanted: Vec<Value> = weights.iter().map(|name| Value::new(*name)).collect();
    let found = gradients(&mut builder, &loss, &wanted, None).unwrap();
    put_out(&mut builder, &loss);
    found.iter().for_each(|gradient| put_out(&mut builder, gradient.as_ref().unwrap()));
    let inputs = ["input_ids", "attention_mask", "weight_hidden", "weight_pooled"];
    let inputs: Vec<(&str, Given)> = inputs.iter().map(|name| (*name, given(&tensors, name))).collect();
    eprintln!(
        "{name}: NonZero {} of {}",
        builder.graph().node.iter().filter(|n| n.op_type == "NonZero").count(),
        builder.graph().node.len()
    );
    let outputs = run(&mut session(builder), &inputs);

    for (output, name) in outputs.iter().zip(["last_hidden_state", "pooler_output"]) {
        let (off, _) = distance(output, &array(&tensors, name));
        assert!(off <= 1e-5, "{name} is {off} off");
    }
    let (off, size) = distance(&outputs[2], &array(&tensors, "loss"));
    assert!(off <= 1e-5 * size.max(1.0), "the loss is {off} off");
    for (gradient, name) in outputs[3..].iter().zip(weights) {
        let (off, largest) = distance(gradient, &array(&tensors, &format!("grad.{name}")));
        // A key's bias moves all scores of a query alike, which the softmax does not see.
        let allowed = if name.ends_with("key.bias") { 1e-6 } else { 1e-4 * largest };
        assert!(off <= allowed, "gradient of {name}: {off} off, largest entry {largest}");
    }
}

#[test]
fn the_legacy_exporter_with_eager_attention() {
    agrees_with_pytorch("legacy");
}

#[test]
fn the_dynamo_exporter_with_sdpa() {
    agrees_with_pytorch("dynamo");
}

fn refusal(path: &Path) -> String {
    let message = GraphBuilder::read(path).unwrap_err().to_string();
    assert!(message.starts_with(&path.display().to_string()), "{message}");
    message
}

#[test]
fn an_older_operator_set_is_refused_with_the_remedy() {
    let message = refusal(&fixture("legacy-14.onnx"));
    assert!(message.contains("operator set 14") && message.contains("opset 18"), "{message}");
}

fn written(bytes: &[u8]) -> tempfile::NamedTempFile {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), bytes).unwrap();
    file
}

#[test]
fn files_that_are_no_model_are_refused() {
    assert!(refusal(&fixture("nothing.onnx")).contains("No such file"));
    assert!(refusal(&fixture("legacy.safetensors")).contains("not an ONNX model"));
    assert!(refusal(written(b"").path()).contains("not an ONNX model: no graph"));
    let whole = std::fs::read(fixture("legacy.onnx")).unwrap();
    assert!(refusal(written(&whole[..whole.len() / 2]).path()).contains("not an ONNX model"));
}

#[test]
fn models_in_several_parts_are_refused_with_the_remedy() {
    let mut builder = GraphBuilder::new("test", ElementType::F32);
    builder.weight("embeddings", &[4, 2]);
    let message = refusal(written(&builder.finish().to_bytes()).path());
    assert!(message.contains("`embeddings`") && message.contains("one file"), "{message}");

    let model = ModelProto {
        graph: Some(GraphProto::default()),
        opset_import: vec![OperatorSetId { domain: String::new(), version: 18 }],
        functions: vec![FunctionProto { name: "attention".into() }],
        ..ModelProto::default()
    };
    let message = refusal(written(&model.encode_to_vec()).path());
    assert!(message.contains("`attention`") && message.contains("inline"), "{message}");
}
