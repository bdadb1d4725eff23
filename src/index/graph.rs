//! The HNSW graph (Malkov and Yashunin 2016) of usearch.

use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use usearch::ffi::{IndexOptions as Options, Matches, MetricKind, ScalarKind};

use super::slots::Slots;
use super::{Error, IndexOptions};
use crate::settings::Quantization;

/// Threads that may work on a graph at once.
const THREADS: usize = 64;
/// Room that a new graph has.
const FIRST_CAPACITY: usize = 1024;

/// A graph that many threads search and change. Growing it needs it alone: usearch may not reserve while it serves.
pub(super) struct Graph {
    inner: RwLock<usearch::Index>,
    slots: Slots,
    bytes: AtomicUsize,
}

impl std::fmt::Debug for Graph {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Graph").finish_non_exhaustive()
    }
}

fn failed(action: &'static str) -> impl FnOnce(cxx::Exception) -> Error {
    move |error| Error::Graph { action, reason: error.to_string() }
}

impl Graph {
    pub(super) fn new(dimension: usize, options: &IndexOptions, capacity: usize) -> Result<Self, Error> {
        let inner = usearch::Index::new(&Options {
            dimensions: dimension,
            // Vectors are normalised beforehand where the similarity is the cosine.
            metric: MetricKind::IP,
            quantization: match options.quantization {
                Quantization::F32 => ScalarKind::F32,
                Quantization::F16 => ScalarKind::F16,
                Quantization::Bf16 => ScalarKind::BF16,
                Quantization::I8 => ScalarKind::I8,
            },
            connectivity: options.connectivity,
            expansion_add: options.expansion_add,
            // How wide a search looks is told by the number of matches it asks for, request by request: usearch takes
            // the larger of the two.
            expansion_search: 1,
            multi: false,
        })
        .map_err(failed("be made"))?;
        inner.reserve_capacity_and_threads(capacity.max(FIRST_CAPACITY), THREADS).map_err(failed("reserve memory"))?;
        Ok(Self { inner: RwLock::new(inner), slots: Slots::new(THREADS), bytes: AtomicUsize::new(0) })
    }

    fn read(&self) -> RwLockReadGuard<'_, usearch::Index> {
        self.inner.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, usearch::Index> {
        self.inner.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes room for `more` vectors beside those that are there.
    pub(super) fn reserve(&self, more: usize) -> Result<(), Error> {
        let has_room = |graph: &usearch::Index| graph.size() + more <= graph.capacity();
        if has_room(&self.read()) {
            return Ok(());
        }
        let graph = self.write();
        if has_room(&graph) {
            return Ok(());
        }
        let wanted = (graph.size() + more).max(graph.capacity() * 2);
        graph.reserve_capacity_and_threads(wanted, THREADS).map_err(failed("reserve memory"))
    }

    /// Adds a vector; room must have been reserved.
    pub(super) fn add(&self, key: u64, vector: &[f32]) -> Result<(), Error> {
        let _slot = self.slots.take();
        {
            let graph = self.read();
            if graph.size() > 0 {
                return graph.add(key, vector).map_err(failed("add a vector"));
            }
        }
        // usearch counts a node before it is there. Where others are, walks begin at one of them; at the first, a walk
        // would follow a pointer that leads nowhere.
        self.write().add(key, vector).map_err(failed("add a vector"))
    }

    /// Notes the memory that is taken; additions must not run meanwhile.
    pub(super) fn measure(&self) {
        let taken = self.read().memory_stats();
        self.bytes.store(taken.graph_allocated + taken.vectors_allocated, Ordering::Release);
    }

    /// Takes back an addition. Nodes are not removed otherwise: usearch gives their slots to others without cleaning
    /// the links that lead to them, which leaves nodes that no walk reaches.
    pub(super) fn remove(&self, key: u64) -> Result<(), Error> {
        let _slot = self.slots.take();
        self.read().remove(key).map(drop).map_err(failed("remove a vector"))
    }

    /// Keys near a query, as the graph sees them; `candidates` is both how many are wanted and how wide it looks. The
    /// walk goes also through nodes that `wanted` turns away.
    pub(super) fn search(
        &self,
        query: &[f32],
        candidates: usize,
        wanted: Option<&dyn Fn(u64) -> bool>,
    ) -> Result<Vec<u64>, Error> {
        let _slot = self.slots.take();
        let graph = self.read();
        let matches: Result<Matches, cxx::Exception> = match wanted {
            None => graph.search(query, candidates),
            Some(wanted) => graph.filtered_search(query, candidates, wanted),
        };
        matches.map(|matches| matches.keys).map_err(failed("search"))
    }

    pub(super) fn contains(&self, key: u64) -> bool {
        self.read().contains(key)
    }

    pub(super) fn len(&self) -> usize {
        self.read().size()
    }

    /// Bytes that it took when it was measured last. `memory_usage` of usearch would walk over all nodes, also those
    /// that are counted and not there yet: asked beside an addition, it ends the process.
    pub(super) fn bytes(&self) -> usize {
        self.bytes.load(Ordering::Acquire)
    }

    pub(super) fn save(&self, file: &Path) -> Result<(), Error> {
        let refuse = |reason: String| Error::File { file: file.to_path_buf(), reason };
        let graph = self.read();
        graph.save(&path_text(file)?).map_err(|error| refuse(error.to_string()))?;
        // usearch does not look at the outcome of closing the file, where the last bytes of its buffer are written.
        let (written, wanted) = (std::fs::metadata(file).map(|file| file.len()), graph.serialized_length() as u64);
        match written {
            Ok(written) if written == wanted => Ok(()),
            Ok(written) => {
                Err(refuse(format!("only {written} of {wanted} bytes could be written: the disk is full or failing")))
            }
            Err(error) => Err(refuse(error.to_string())),
        }
    }

    /// Reads a graph that was saved with any options; those of the file count.
    pub(super) fn load(file: &Path, dimension: usize, options: &IndexOptions) -> Result<Self, Error> {
        let refuse = |reason: String| Error::File { file: file.to_path_buf(), reason };
        let text = path_text(file)?;
        let head = usearch::Index::metadata(&text).map_err(|error| refuse(error.to_string()))?;
        if head.dimensions != dimension as u64 {
            return Err(refuse(format!(
                "holds vectors of {} components, the generation has {dimension}",
                head.dimensions
            )));
        }
        let graph = Self::new(dimension, options, FIRST_CAPACITY)?;
        {
            let inner = graph.write();
            inner.load(&text).map_err(|error| refuse(error.to_string()))?;
            inner
                .reserve_capacity_and_threads(inner.size() + FIRST_CAPACITY, THREADS)
                .map_err(failed("reserve memory"))?;
            inner.change_expansion_search(1);
            inner.change_expansion_add(options.expansion_add);
        }
        graph.measure();
        Ok(graph)
    }
}

fn path_text(file: &Path) -> Result<String, Error> {
    file.to_str().map(str::to_owned).ok_or_else(|| Error::File {
        file: file.to_path_buf(),
        reason: "the path is not UTF-8, which the HNSW library needs".into(),
    })
}
