//! An ONNX file, read and differentiated.

use anced::onnx::{GraphBuilder, Value, gradients};

use super::scratch;

pub fn run(input: &[u8]) {
    let folder = scratch();
    let file = folder.path().join("model.onnx");
    std::fs::write(&file, input).unwrap();
    let Ok(mut builder) = GraphBuilder::read(&file) else { return };
    let (loss, weights) = (Value::new("loss"), [Value::new("w"), Value::new("x")]);
    if let Ok(found) = gradients(&mut builder, &loss, &weights, None) {
        assert_eq!(found.len(), weights.len());
    }
}
