//! ONNX Runtime itself: found, loaded once a process, with one thread pool for every session.

use std::path::{Path, PathBuf};
use std::sync::{Mutex, OnceLock};

use ort::environment::{Environment, GlobalThreadPoolOptions};
use ort::ep;
use ort::session::Session;
use ort::session::builder::{GraphOptimizationLevel, SessionBuilder};

use super::value::Dimension;
use super::{ElementType, Error, GraphBuilder};
use crate::settings::Device;

/// The loaded library and its environment; cheap to clone.
#[derive(Debug, Clone)]
pub struct Runtime {
    environment: Environment,
    library: PathBuf,
    threads: usize,
    /// Whether each session has a pool of its own.
    has_own_pools: bool,
}

/// Where sessions run for real.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Placement {
    /// The CPU.
    Cpu,
    /// A CUDA device by number.
    Cuda(u32),
}

impl std::fmt::Display for Placement {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Cpu => formatter.write_str("cpu"),
            Self::Cuda(number) => write!(formatter, "cuda:{number}"),
        }
    }
}

static RUNTIME: OnceLock<Runtime> = OnceLock::new();
static LOADING: Mutex<()> = Mutex::new(());

impl Runtime {
    /// The process's runtime, loaded at the first call; later calls return the same whatever they ask for.
    ///
    /// `library` names the shared library or its folder; without it the binary's folder and `.onnxruntime/` of the
    /// working folder are searched. `threads` is the size of the one thread pool that every session shares, so that
    /// two sessions never oversubscribe the cores; 0 is one thread a core. The pool does not spin when idle.
    ///
    /// # Errors
    /// A library that is missing, cannot be loaded or is too old.
    pub fn load(library: Option<&Path>, threads: usize) -> Result<Self, Error> {
        if let Some(runtime) = RUNTIME.get() {
            return Ok(runtime.clone());
        }
        let _guard = LOADING.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if let Some(runtime) = RUNTIME.get() {
            return Ok(runtime.clone());
        }
        let library = find_library(library)?;
        let threads = if threads == 0 { std::thread::available_parallelism().map_or(1, usize::from) } else { threads };
        // The library first: everything else calls into it.
        let builder = ort::init_from(&library).map_err(|error| Error::Library(error.to_string()))?;
        let pool = GlobalThreadPoolOptions::default()
            .with_intra_threads(threads)
            .and_then(|pool| pool.with_inter_threads(1))
            .and_then(|pool| pool.with_spin_control(false))
            .map_err(Error::run("make its thread pool"))?;
        let environment = builder
            .with_name("anced")
            .with_telemetry(false)
            .with_global_thread_pool(pool)
            .build()
            .map_err(Error::run("start"))?;
        Ok(RUNTIME.get_or_init(|| Self { environment, library, threads, has_own_pools: false }).clone())
    }

    /// The same runtime for sessions whose work is to go on beside that of the others: each has a pool of `threads`
    /// threads of its own; 0 is as many as the shared one has.
    #[must_use]
    pub fn with_own_pools(&self, threads: usize) -> Self {
        let threads = if threads == 0 { self.threads } else { threads };
        Self { threads, has_own_pools: true, ..self.clone() }
    }

    /// Threads of the pool that sessions share, or of each where they do not.
    pub(super) fn threads(&self) -> usize {
        self.threads
    }

    /// The shared library in use.
    pub fn library(&self) -> &Path {
        &self.library
    }

    /// Decides where sessions run. An explicit CUDA device is tried for real, with a session on it; `auto` takes CUDA
    /// where that trial works and warns where a CUDA build of the runtime is there but does not.
    ///
    /// # Errors
    /// An explicit device that cannot be had.
    pub fn place(&self, device: Device) -> Result<Placement, Error> {
        let provider = self.cuda_provider();
        match device {
            Device::Cpu => Ok(Placement::Cpu),
            Device::Cuda(number) => {
                let refuse = |reason| Error::Device { device: device.to_string(), reason };
                if !provider.is_file() {
                    return Err(refuse(format!(
                        "this ONNX Runtime is a CPU build ({} is missing; run `make setup GPU=1`)",
                        provider.display()
                    )));
                }
                self.try_cuda(number).map_err(refuse)?;
                Ok(Placement::Cuda(number))
            }
            Device::Auto if provider.is_file() => match self.try_cuda(0) {
                Ok(()) => Ok(Placement::Cuda(0)),
                Err(reason) => {
                    tracing::warn!(%reason, "CUDA cannot be used, the encoder runs on the CPU");
                    Ok(Placement::Cpu)
                }
            },
            Device::Auto => Ok(Placement::Cpu),
        }
    }

    /// Whether a placement is less than one would think: on the CPU, though nobody asked for that and the machine has an
    /// NVIDIA device, or this is a CUDA build.
    pub fn fell_back(&self, device: Device, placement: Placement) -> bool {
        let has_gpu = || Path::new("/dev/nvidiactl").exists() || self.cuda_provider().is_file();
        device == Device::Auto && placement == Placement::Cpu && has_gpu()
    }

    fn cuda_provider(&self) -> PathBuf {
        self.library.with_file_name("libonnxruntime_providers_cuda.so")
    }

    /// Makes and runs a session of one product on a CUDA device.
    fn try_cuda(&self, number: u32) -> Result<(), String> {
        let mut builder = GraphBuilder::new("probe", ElementType::F32);
        let shape = [Dimension::Name("rows"), Dimension::Size(2)];
        let x = builder.input("x", ElementType::F32, &shape);
        let y = builder.node("Mul", &[&x, &x]);
        builder.output(&y, "y", ElementType::F32, &shape);
        let mut session = self
            .builder(Placement::Cuda(number))
            .and_then(|mut builder_| {
                builder_.commit_from_memory(&builder.finish().to_bytes()).map_err(Error::run("make a session"))
            })
            .map_err(|error| match error {
                // The caller says the rest of it.
                Error::Device { reason, .. } => reason,
                other => other.to_string(),
            })?;
        let x =
            ort::value::Tensor::from_array(([1_usize, 2], vec![3.0_f32, 4.0])).map_err(|error| error.to_string())?;
        let outputs = session.run(ort::inputs![x]).map_err(|error| error.to_string())?;
        match outputs[0].try_extract_tensor::<f32>() {
            Ok((_, [9.0, 16.0])) => Ok(()),
            Ok((_, wrong)) => Err(format!("the device computed {wrong:?} where 9 and 16 are right")),
            Err(error) => Err(error.to_string()),
        }
    }

    /// A builder of sessions that run on the calling thread, for callers that run several side by side.
    pub(super) fn single_threaded(&self, placement: Placement) -> Result<SessionBuilder, Error> {
        self.builder(placement)?
            .with_independent_thread_pool()
            .map_err(Error::run("set its threads"))?
            .with_intra_threads(1)
            .map_err(Error::run("set its threads"))
    }

    /// A builder of sessions on a device.
    pub(super) fn builder(&self, placement: Placement) -> Result<SessionBuilder, Error> {
        let builder = Session::builder(&self.environment)
            .map_err(Error::run("make session options"))?
            .with_optimization_level(GraphOptimizationLevel::All)
            .map_err(Error::run("set the optimisation level"))?
            // Memory patterns are kept for every shape ever seen: with texts of all lengths they only grow.
            .with_memory_pattern(false)
            .map_err(Error::run("set memory patterns"))?;
        let builder = if self.has_own_pools {
            builder
                .with_independent_thread_pool()
                .map_err(Error::run("set its threads"))?
                .with_intra_threads(self.threads)
                .map_err(Error::run("set its threads"))?
                .with_intra_op_spinning(false)
                .map_err(Error::run("set its threads"))?
        } else {
            builder
        };
        let provider = match placement {
            Placement::Cpu => ep::CPU::default().with_arena_allocator(true).build(),
            Placement::Cuda(number) => {
                ep::CUDA::default().with_device_id(i32::try_from(number).unwrap_or(i32::MAX)).with_tf32(false).build()
            }
        };
        builder.with_execution_providers([provider.error_on_failure()]).map_err(|error| Error::Device {
            device: placement.to_string(),
            reason: error.to_string().trim_end().into(),
        })
    }
}

/// The shared library: as named, else beside the binary, else in `.onnxruntime/` of the working folder.
fn find_library(named: Option<&Path>) -> Result<PathBuf, Error> {
    let places: Vec<PathBuf> = match named {
        Some(path) if path.is_file() => return Ok(path.to_path_buf()),
        Some(path) => vec![path.to_path_buf()],
        None => {
            let binary = std::env::current_exe().ok().and_then(|path| path.parent().map(Path::to_path_buf));
            binary.into_iter().chain([PathBuf::from(".onnxruntime")]).collect()
        }
    };
    for place in &places {
        let Ok(entries) = std::fs::read_dir(place) else { continue };
        let newest = entries
            .filter_map(|entry| entry.ok().map(|entry| entry.path()))
            .filter(|path| {
                path.file_name().and_then(|name| name.to_str()).is_some_and(|name| {
                    name == "libonnxruntime.so"
                        || name.starts_with("libonnxruntime.so.")
                        || name == "libonnxruntime.dylib"
                })
            })
            .max();
        if let Some(path) = newest {
            return Ok(path.canonicalize().unwrap_or(path));
        }
    }
    let looked = places.iter().map(|path| path.display().to_string()).collect::<Vec<_>>().join(", ");
    Err(Error::LibraryMissing { looked })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_library_is_named_with_the_remedy() {
        let error = find_library(Some(Path::new("/nowhere/libonnxruntime.so"))).unwrap_err().to_string();
        assert!(error.contains("/nowhere/libonnxruntime.so") && error.contains("make setup"), "{error}");
    }

    #[test]
    fn a_cpu_build_refuses_an_explicit_cuda_device() {
        let runtime = Runtime::load(None, 0).unwrap();
        assert_eq!(runtime.place(Device::Cpu).unwrap(), Placement::Cpu);
        if runtime.library.with_file_name("libonnxruntime_providers_cuda.so").exists() {
            return;
        }
        let error = runtime.place(Device::Cuda(0)).unwrap_err().to_string();
        assert!(error.contains("cuda:0") && error.contains("CPU build"), "{error}");
        assert_eq!(runtime.place(Device::Auto).unwrap(), Placement::Cpu);
    }
}
