//! Runs an elementwise graph over flat vectors, part by part.
//!
//! On the CPU the parts are small enough to stay in a core's cache from the graph's first node to its last, and cores
//! take parts of their own: a dozen operators cost about one pass over memory. Other devices take the whole at once.

use ort::session::{IoBinding, Session};
use ort::value::{DynValue, Tensor};
use rayon::prelude::*;

use super::memory::Flat;
use crate::onnx::{Error, Graph, Placement, Runtime};

/// Elements of a part on the CPU.
const PART: usize = 32 * 1024;

/// A graph bound to the parts of its vectors.
#[derive(Debug)]
pub(super) struct Elementwise {
    workers: Vec<Worker>,
}

#[derive(Debug)]
struct Worker {
    // Before the session and the memory that they hold on to.
    bindings: Vec<IoBinding>,
    session: Session,
    sums: Vec<Tensor<f32>>,
}

impl Elementwise {
    /// Binds inputs and outputs by name to vectors of one length. An output named `sum` is a number a part instead.
    pub(super) fn new(
        runtime: &Runtime,
        placement: Placement,
        graph: &Graph,
        inputs: &[(&str, &Flat)],
        outputs: &[(&str, &Flat)],
    ) -> Result<Self, Error> {
        let length = inputs.first().map_or(0, |(_, flat)| flat.length);
        let (threads, part) = match placement {
            Placement::Cpu => (runtime.threads().max(1), PART),
            Placement::Cuda(_) => (1, length.max(1)),
        };
        let starts: Vec<usize> = (0..length).step_by(part).collect();
        let share = starts.len().div_ceil(threads).max(1);
        let bytes = graph.to_bytes();
        let sums = graph.outputs().any(|name| name == "sum");
        let worker = |starts: &[usize]| -> Result<Worker, Error> {
            let session = runtime
                .single_threaded(placement)?
                .commit_from_memory(&bytes)
                .map_err(Error::run("make a session of the optimiser"))?;
            let mut worker = Worker { bindings: Vec::new(), session, sums: Vec::new() };
            for &start in starts {
                worker.bind(start, part.min(length - start), inputs, outputs, sums)?;
            }
            Ok(worker)
        };
        Ok(Self { workers: starts.chunks(share).map(worker).collect::<Result<_, _>>()? })
    }

    /// Binds a small input that is the same for all parts.
    pub(super) fn set(&mut self, name: &str, values: &[f32]) -> Result<(), Error> {
        let tensor =
            Tensor::from_array(([values.len()], values.to_vec())).map_err(Error::run("take an optimiser's rates"))?;
        for binding in self.workers.iter_mut().flat_map(|worker| &mut worker.bindings) {
            binding.bind_input(name, &tensor).map_err(Error::run("bind an optimiser's rates"))?;
        }
        Ok(())
    }

    /// Runs all parts.
    pub(super) fn run(&mut self) -> Result<(), Error> {
        self.workers.par_iter_mut().try_for_each(|worker| {
            for binding in &worker.bindings {
                worker.session.run_binding(binding).map_err(Error::run("run the optimiser"))?;
            }
            Ok(())
        })
    }

    /// The numbers that the parts gave, added up in their order.
    pub(super) fn sum(&self) -> Result<f64, Error> {
        let mut total = 0.0;
        for sum in self.workers.iter().flat_map(|worker| &worker.sums) {
            let (_, data) = sum.try_extract_tensor::<f32>().map_err(Error::run("read a sum"))?;
            total += data.iter().map(|&value| f64::from(value)).sum::<f64>();
        }
        Ok(total)
    }
}

impl Worker {
    fn bind(
        &mut self,
        start: usize,
        length: usize,
        inputs: &[(&str, &Flat)],
        outputs: &[(&str, &Flat)],
        sums: bool,
    ) -> Result<(), Error> {
        let mut binding = self.session.create_binding().map_err(Error::run("bind the optimiser"))?;
        let view = |flat: &Flat| -> Result<DynValue, Error> { flat.view(start, &[length]) };
        for (name, flat) in inputs {
            binding.bind_input(*name, &view(flat)?).map_err(Error::run("bind the optimiser's input"))?;
        }
        for (name, flat) in outputs {
            binding.bind_output(*name, view(flat)?).map_err(Error::run("bind the optimiser's output"))?;
        }
        if sums {
            let mut sum = Tensor::<f32>::new(&ort::memory::Allocator::default(), [1_usize])
                .map_err(Error::run("allocate memory for training"))?;
            binding.bind_output("sum", &mut sum).map_err(Error::run("bind the optimiser's output"))?;
            self.sums.push(sum);
        }
        self.bindings.push(binding);
        Ok(())
    }
}
