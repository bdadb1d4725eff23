//! An index on disk: the vectors as safetensors, the graph as usearch writes it.
//!
//! The keys of what the graph does not reach lie beside the vectors.

use std::fs::File;
use std::io::{self, BufWriter, Write as _};
use std::path::Path;
use std::sync::PoisonError;

use half::f16;
use roaring::RoaringTreemap;
use safetensors::tensor::{Metadata, TensorInfo};
use safetensors::{Dtype, SafeTensors};

use super::graph::Graph;
use super::key::Key;
use super::vectors::Vectors;
use super::{Error, Index, IndexOptions};
use crate::onnx::Runtime;
use crate::settings::{Similarity, VectorType};

/// The file of the vectors: `vectors` F32 or F16 `[n, dimension]`, `sequences` U64 `[n]` and `unreached` U64 `[m]`. A
/// document of several pieces has as many rows one after the other; `unreached` has a piece's number, from 0, in the
/// upper 16 bits.
pub const VECTORS_FILE: &str = "vectors.safetensors";
/// The file of the graph.
pub const GRAPH_FILE: &str = "index.usearch";

impl Index {
    /// Writes both files and flushes them to the disk. Additions and removals must not run until the graph is written:
    /// `held`, which is what keeps them away, is dropped then. Of the vectors there is a snapshot.
    ///
    /// # Errors
    /// A file that cannot be written: a full disk, a folder that is gone.
    pub fn save<G>(&self, vectors_file: &Path, graph_file: &Path, held: G) -> Result<(), Error> {
        let failed = |file: &Path, reason: String| Error::File { file: file.to_path_buf(), reason };
        let (blocks, is_chunked) = {
            let vectors = self.read_vectors();
            (vectors.blocks.clone(), vectors.is_chunked())
        };
        let unreached = self.unreached.read().unwrap_or_else(PoisonError::into_inner).clone();
        self.read_graph().save(graph_file)?;
        drop(held);
        let mut rows: Vec<(Key, &[f32])> = blocks.iter().flat_map(|block| self.rows(block)).collect();
        if is_chunked {
            // Removals leave rows in any order, and a piece's number is told by its place.
            rows.sort_unstable_by_key(|(key, _)| (key.sequence(), key.chunk()));
        }
        write_vectors(vectors_file, self.options.vectors, self.dimension, &rows, &unreached)
            .map_err(|error| failed(vectors_file, error.to_string()))?;
        File::open(graph_file)
            .and_then(|opened| opened.sync_all())
            .map_err(|error| failed(graph_file, error.to_string()))
    }

    /// Reads both files; their contents must have been verified beforehand.
    ///
    /// # Errors
    /// A file that cannot be read, or files that do not belong together.
    pub fn open(
        vectors_file: &Path,
        graph_file: &Path,
        dimension: usize,
        similarity: Similarity,
        options: IndexOptions,
        runtime: &Runtime,
    ) -> Result<Self, Error> {
        let (vectors, unreached) = read_vectors(vectors_file, dimension)?;
        let graph = Graph::load(graph_file, dimension, &options)?;
        if graph.len() < vectors.len() {
            let reason = format!("holds {} vectors, {} has {}", graph.len(), vectors_file.display(), vectors.len());
            return Err(Error::File { file: graph_file.to_path_buf(), reason });
        }
        let index = Self::from_parts(dimension, similarity, options, graph, vectors, runtime)?;
        *index.unreached.write().unwrap_or_else(PoisonError::into_inner) = unreached;
        Ok(index)
    }
}

/// Writes row by row what safetensors' own writer would want in memory as a whole, and flushes it.
fn write_vectors(
    file: &Path,
    kind: VectorType,
    dimension: usize,
    rows: &[(Key, &[f32])],
    unreached: &RoaringTreemap,
) -> io::Result<()> {
    let (dtype, width) = match kind {
        VectorType::F32 => (Dtype::F32, 4),
        VectorType::F16 => (Dtype::F16, 2),
    };
    let unreached_count = usize::try_from(unreached.len()).map_err(io::Error::other)?;
    // The widest first, so that each begins where its values may lie.
    let tensors = [
        ("sequences", Dtype::U64, vec![rows.len()], rows.len() * 8),
        ("unreached", Dtype::U64, vec![unreached_count], unreached_count * 8),
        ("vectors", dtype, vec![rows.len(), dimension], rows.len() * dimension * width),
    ];
    let mut end = 0;
    let described = tensors.into_iter().map(|(name, dtype, shape, bytes)| {
        let start = end;
        end += bytes;
        (name.to_owned(), TensorInfo { dtype, shape, data_offsets: (start, end) })
    });
    let header = Metadata::new(None, described.collect()).map_err(io::Error::other)?;
    let mut header = serde_json::to_vec(&header)?;
    header.resize(header.len().next_multiple_of(8), b' ');

    let mut out = BufWriter::with_capacity(1 << 20, File::create(file)?);
    out.write_all(&(header.len() as u64).to_le_bytes())?;
    out.write_all(&header)?;
    for key in rows.iter().map(|(key, _)| key.sequence()).chain(unreached) {
        out.write_all(&key.to_le_bytes())?;
    }
    let mut row = Vec::with_capacity(dimension * width);
    for (_, vector) in rows {
        row.clear();
        match kind {
            VectorType::F32 => row.extend(vector.iter().flat_map(|value| value.to_le_bytes())),
            VectorType::F16 => row.extend(vector.iter().flat_map(|value| f16::from_f32(*value).to_le_bytes())),
        }
        out.write_all(&row)?;
    }
    out.into_inner().map_err(io::IntoInnerError::into_error)?.sync_all()
}

fn read_vectors(file: &Path, dimension: usize) -> Result<(Vectors, RoaringTreemap), Error> {
    let refuse = |reason: String| Error::File { file: file.to_path_buf(), reason };
    let map = crate::system::map_file(file).map_err(|error| refuse(error.to_string()))?;
    let tensors = SafeTensors::deserialize(&map).map_err(|error| refuse(error.to_string()))?;
    let values = tensors.tensor("vectors").map_err(|error| refuse(error.to_string()))?;
    let sequences = tensors.tensor("sequences").map_err(|error| refuse(error.to_string()))?;
    let count = sequences.shape().first().copied().unwrap_or(0);
    if sequences.dtype() != Dtype::U64 || values.shape() != [count, dimension] {
        return Err(refuse(format!(
            "`vectors` {:?} and `sequences` {:?} do not fit {dimension} components",
            values.shape(),
            sequences.shape()
        )));
    }
    let decode: fn(&[u8]) -> f32 = match values.dtype() {
        Dtype::F32 => |bytes| f32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]),
        Dtype::F16 => |bytes| f16::from_le_bytes([bytes[0], bytes[1]]).to_f32(),
        other => return Err(refuse(format!("`vectors` is {other:?}, not F32 or F16"))),
    };
    let width = if values.dtype() == Dtype::F32 { 4 } else { 2 };
    let mut vectors = Vectors::new(dimension);
    let mut row = Vec::with_capacity(dimension);
    for ((sequence, key), bytes) in
        Key::number(keys(sequences.data())).zip(values.data().chunks_exact(width * dimension))
    {
        row.clear();
        row.extend(bytes.chunks_exact(width).map(decode));
        let key = key.ok_or_else(|| refuse(Error::Key { key: sequence }.to_string()))?;
        if !vectors.push(key, &row) {
            return Err(refuse(format!("sequence {sequence} stands in two places")));
        }
    }
    let unreached = tensors.tensor("unreached").map_err(|error| refuse(error.to_string()))?;
    let unreached = keys(unreached.data()).collect();
    Ok((vectors, unreached))
}

pub(super) fn keys(bytes: &[u8]) -> impl Iterator<Item = u64> {
    bytes.as_chunks::<8>().0.iter().map(|key| u64::from_le_bytes(*key))
}
