//! What the files of an index hold, and whether they belong together; nothing is made ready to search.

use std::collections::HashSet;
use std::path::Path;

use roaring::RoaringTreemap;
use safetensors::{Dtype, SafeTensors};

use super::files::keys;
use super::graph::Graph;
use super::key::Key;
use super::{Error, IndexOptions};
use crate::settings::Settings;

/// What two files of an index hold.
#[derive(Debug, Clone, Default)]
pub struct Contents {
    /// The keys of the documents.
    pub documents: RoaringTreemap,
    /// What does not fit, for people.
    pub findings: Vec<String>,
}

/// Reads the vectors file and the graph of an index.
///
/// # Errors
/// A file that cannot be read, or is none of an index.
pub fn contents(vectors_file: &Path, graph_file: &Path, dimension: usize) -> Result<Contents, Error> {
    let refuse = |reason: String| Error::File { file: vectors_file.to_path_buf(), reason };
    let map = crate::system::map_file(vectors_file).map_err(|error| refuse(error.to_string()))?;
    let tensors = SafeTensors::deserialize(&map).map_err(|error| refuse(error.to_string()))?;
    let tensor = |name| tensors.tensor(name).map_err(|error| refuse(error.to_string()));
    let (vectors, sequences) = (tensor("vectors")?, tensor("sequences")?);
    tensor("unreached")?;
    let count = sequences.shape().first().copied().unwrap_or(0);
    if sequences.dtype() != Dtype::U64 || vectors.shape() != [count, dimension] {
        return Err(refuse(format!("its tensors do not fit {dimension} components")));
    }
    let graph = Graph::load(graph_file, dimension, &IndexOptions::from(&Settings::default()))?;
    let mut contents = Contents::default();
    let mut twice = HashSet::new();
    let mut missing = 0;
    for (sequence, key) in Key::number(keys(sequences.data())) {
        let key = key.ok_or_else(|| refuse(Error::Key { key: sequence }.to_string()))?;
        if key.is_first() && !contents.documents.insert(sequence) {
            twice.insert(sequence);
        }
        missing += u64::from(!graph.contains(key.raw()));
    }
    let infinite = match vectors.dtype() {
        Dtype::F32 => values(vectors.data(), |bytes: [u8; 4]| f32::from_le_bytes(bytes)),
        Dtype::F16 => values(vectors.data(), |bytes: [u8; 2]| half::f16::from_le_bytes(bytes).to_f32()),
        other => return Err(refuse(format!("`vectors` is {other:?}, not F32 or F16"))),
    };
    for (count, what) in [
        (twice.len() as u64, "documents stand in two places"),
        (missing, "vectors are not in the graph"),
        (infinite, "components are not finite"),
    ] {
        if count > 0 {
            contents.findings.push(format!("{count} {what}"));
        }
    }
    Ok(contents)
}

/// How many values are not finite.
fn values<const WIDTH: usize>(bytes: &[u8], decode: impl Fn([u8; WIDTH]) -> f32) -> u64 {
    bytes.as_chunks::<WIDTH>().0.iter().filter(|bytes| !decode(**bytes).is_finite()).count() as u64
}
