//! Reads an ONNX file into a builder, so that nodes can be added to it.

use std::path::Path;

use prost::Message as _;

use super::proto::{LOCATION_EXTERNAL, ModelProto};
use super::{Error, GraphBuilder};

/// The oldest operator set whose operators mean what those of the nodes added here mean.
const OLDEST_OPSET: i64 = 18;

impl GraphBuilder {
    /// Reads an ONNX file, such as an export of a Hugging Face model.
    ///
    /// The file must hold its weights, and be of operator set 18 or newer: before it the axes of reductions were
    /// attributes.
    ///
    /// # Errors
    /// A file that cannot be read, is no ONNX model, is older, keeps weights in other files, or has functions.
    pub fn read(path: &Path) -> Result<Self, Error> {
        let refuse = |reason: String| Error::File { file: path.to_path_buf(), reason };
        let bytes = std::fs::read(path).map_err(|error| refuse(error.to_string()))?;
        let model =
            ModelProto::decode(bytes.as_slice()).map_err(|error| refuse(format!("not an ONNX model: {error}")))?;
        let graph = model.graph.ok_or_else(|| refuse("not an ONNX model: no graph".into()))?;
        let standard = |domain: &str| domain.is_empty() || domain == "ai.onnx";
        let version = model.opset_import.iter().find(|set| standard(&set.domain)).map_or(0, |set| set.version);
        if version < OLDEST_OPSET {
            return Err(refuse(format!(
                "operator set {version}; {OLDEST_OPSET} or newer is needed (export it again with opset {OLDEST_OPSET}, \
                 or use onnx.version_converter)"
            )));
        }
        if let Some(function) = model.functions.first() {
            return Err(refuse(format!(
                "has functions of its own (`{}`), which are not read; inline them with onnx.inliner",
                function.name
            )));
        }
        if let Some(outside) = graph.initializer.iter().find(|tensor| tensor.data_location == LOCATION_EXTERNAL) {
            return Err(refuse(format!("weight `{}` lies in another file; save the model as one file", outside.name)));
        }
        Ok(Self::continued(graph, model.opset_import))
    }
}
