//! A model in training: its weights and moments on the device, and the sessions that step them.

use std::collections::HashMap;

use ort::memory::{AllocationDevice, Allocator, AllocatorType, MemoryInfo, MemoryType};
use ort::session::{IoBinding, Session};
use ort::value::Tensor;
use serde::{Deserialize, Serialize};

use super::batch::{Batch, Buckets, Input, Values};
use super::elementwise::Elementwise;
use super::loss_scale::LossScale;
use super::memory::{Flat, Layout, elements};
use super::step::{GRADIENT, Step, Task};
use super::trust::Trust;
use crate::onnx::bert::DropoutSeed;
use crate::onnx::optimizer::{self, Optimizer, Rates};
use crate::onnx::{ElementType, Error, Placement, Runtime, Weights};

/// What matrix products are computed in; weights are kept in 32 bits whatever it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TrainingPrecision {
    /// 32-bit floats.
    Fp32,
    /// 16-bit floats; the loss is scaled so that small gradients are not lost. CUDA only.
    Fp16,
    /// 16-bit floats with the exponent of 32 bits. CUDA only.
    Bf16,
}

/// How a model is trained.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct TrainingOptions {
    /// How weights follow their gradients.
    pub optimizer: Optimizer,
    /// The largest global norm of the gradient; a longer one is scaled down to it.
    pub clip: f32,
    /// What matrix products are computed in.
    pub precision: TrainingPrecision,
    /// The seed of dropout and the number of batches before this session's first; none for no dropout.
    pub dropout: Option<DropoutSeed>,
    /// Batches a step: their gradients are averaged.
    pub accumulation: usize,
}

/// What a step did.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Update {
    /// The mean loss of its batches, before the step.
    pub loss: f32,
    /// The global norm of the gradient before clipping.
    pub norm: f64,
    /// The weights were left as they were: in 16 bits the scaled gradient overflowed.
    pub skipped: bool,
}

/// The state of an optimiser.
#[derive(Debug, Clone, PartialEq)]
pub struct Moments {
    /// First moments, flat, each weight in its range of [`TrainingSession::ranges`].
    pub first: Vec<f32>,
    /// Second moments.
    pub second: Vec<f32>,
    /// What the loss is multiplied by, and the steps since it last changed.
    pub loss_scale: LossScale,
}

/// A model in training.
#[derive(Debug)]
pub struct TrainingSession {
    // Bindings before the memory that they point into: fields are dropped in this order.
    binding: IoBinding,
    session: Session,
    square: Elementwise,
    accumulate: Option<Elementwise>,
    update: Elementwise,
    trust: Option<Trust>,
    narrow: Option<Elementwise>,
    loss: Tensor<f32>,
    weights: Flat,
    first: Flat,
    second: Flat,
    gradient: Flat,
    /// What a batch gives, where it is gathered or is of another type; and the weights in that type.
    _fresh: Option<Flat>,
    _narrow_weights: Option<Flat>,
    layout: Layout,
    task: Task,
    options: TrainingOptions,
    buckets: Buckets,
    loss_scale: LossScale,
}

impl TrainingSession {
    /// Puts the weights of a checkpoint on the device, and makes the sessions.
    ///
    /// # Errors
    /// A weight that is missing or of another shape, a precision that the device does not have, memory that cannot be
    /// had, a model that cannot be differentiated.
    pub fn new(
        runtime: &Runtime,
        placement: Placement,
        task: &Task,
        weights: &Weights,
        options: TrainingOptions,
    ) -> Result<Self, Error> {
        let compute = match (options.precision, placement) {
            (TrainingPrecision::Fp32, _) => ElementType::F32,
            (TrainingPrecision::Fp16, Placement::Cuda(_)) => ElementType::F16,
            (TrainingPrecision::Bf16, Placement::Cuda(_)) => ElementType::BF16,
            (_, Placement::Cpu) => {
                return Err(Error::Unsupported(
                    "training in 16 bits needs a CUDA device; the CPU trains in fp32".into(),
                ));
            }
        };
        Self::with_compute(runtime, placement, task, weights, options, compute)
    }

    /// As [`new`](Self::new), in any type: on the CPU 16-bit operators run in 32 bits between casts.
    pub(crate) fn with_compute(
        runtime: &Runtime,
        placement: Placement,
        task: &Task,
        weights: &Weights,
        options: TrainingOptions,
        compute: ElementType,
    ) -> Result<Self, Error> {
        let Step { graph, weights: slots } = task.step(compute, options.dropout)?;
        let layout = Layout::new(slots);
        let session = runtime
            .builder(placement)?
            .commit_from_memory(&graph.to_bytes())
            .map_err(Error::run("make the training session"))?;
        let vector = |element| Flat::new(allocator(&session, placement)?, element, layout.length);
        let (mut flat_weights, mut first, mut second) =
            (vector(ElementType::F32)?, vector(ElementType::F32)?, vector(ElementType::F32)?);
        let mut gradient = vector(ElementType::F32)?;
        flat_weights.write(layout.gather(weights)?)?;
        for zeros in [&mut first, &mut second, &mut gradient] {
            zeros.write(vec![0.0; layout.length])?;
        }
        let narrow_weights = if compute == ElementType::F32 { None } else { Some(vector(compute)?) };
        let apart = compute != ElementType::F32 || options.accumulation > 1;
        let fresh = if apart { Some(vector(compute)?) } else { None };

        let part = |graph, inputs: &[_], outputs: &[_]| Elementwise::new(runtime, placement, &graph, inputs, outputs);
        let square = part(optimizer::square_graph(), &[("gradient", &gradient)], &[])?;
        let accumulate = match &fresh {
            Some(fresh) => Some(part(
                optimizer::accumulate_graph(compute),
                &[("fresh", fresh), ("gradient", &gradient)],
                &[("gradient/new", &gradient)],
            )?),
            None => None,
        };
        let narrow = match &narrow_weights {
            Some(narrow) => {
                let graph = optimizer::cast_graph(ElementType::F32, compute);
                Some(part(graph, &[("x", &flat_weights)], &[("y", narrow)])?)
            }
            None => None,
        };
        let is_lamb = matches!(options.optimizer, Optimizer::Lamb(_));
        let result = if is_lamb { ("direction", &gradient) } else { ("weight/new", &flat_weights) };
        let mut inputs = vec![("first", &first), ("second", &second), ("gradient", &gradient)];
        if !is_lamb || options.optimizer.adam().weight_decay != 0.0 {
            inputs.push(("weight", &flat_weights));
        }
        let update =
            part(options.optimizer.update_graph(), &inputs, &[("first/new", &first), ("second/new", &second), result])?;
        let trust =
            if is_lamb { Some(Trust::new(runtime, placement, &layout, &flat_weights, &gradient)?) } else { None };

        let mut binding = session.create_binding().map_err(Error::run("bind the training session"))?;
        let mut loss = Tensor::<f32>::new(&Allocator::default(), [0_usize; 0])
            .map_err(Error::run("allocate memory for training"))?;
        binding.bind_output("loss", &mut loss).map_err(Error::run("bind the loss"))?;
        let read = narrow_weights.as_ref().unwrap_or(&flat_weights);
        let written = fresh.as_ref().unwrap_or(&gradient);
        for (slot, &offset) in layout.slots.iter().zip(&layout.offsets) {
            let weight = read.view(offset, &slot.shape)?;
            binding.bind_input(&slot.name, &weight).map_err(Error::run("bind a weight"))?;
            let place = written.view(offset, &slot.shape)?;
            let name = format!("{GRADIENT}{}", slot.name);
            binding.bind_output(name, place).map_err(Error::run("bind a gradient"))?;
        }
        let mut training = Self {
            binding,
            session,
            square,
            accumulate,
            update,
            trust,
            narrow,
            loss,
            weights: flat_weights,
            first,
            second,
            gradient,
            _fresh: fresh,
            _narrow_weights: narrow_weights,
            layout,
            task: task.clone(),
            options,
            buckets: Buckets::of(placement),
            loss_scale: LossScale::new(options.precision),
        };
        training.narrow_weights()?;
        Ok(training)
    }

    /// Rounds lengths up to others than the device's own: fewer shapes, more padding.
    #[must_use]
    pub fn with_buckets(self, buckets: Buckets) -> Self {
        Self { buckets, ..self }
    }

    /// One step over one or several batches: the weights move by `learning_rate`; `step` counts from 1.
    ///
    /// # Errors
    /// A batch that does not fit the model, a loss or gradient that is not finite (the weights are then as before, but
    /// for 16-bit overflow, which is told in the [`Update`]), what the runtime says.
    pub fn step(&mut self, batches: &[Batch], learning_rate: f32, step: u64) -> Result<Update, Error> {
        if batches.is_empty() || (batches.len() > 1 && self.options.accumulation < 2) {
            let wanted = self.options.accumulation;
            return Err(Error::Batch(format!("{} batches a step, made for {wanted}", batches.len())));
        }
        // All of them before the first run: every run counts for dropout, those of a refused step too.
        let inputs: Vec<Vec<Input>> =
            batches.iter().map(|batch| batch.inputs(&self.task, self.buckets)).collect::<Result<_, _>>()?;
        let mut loss = 0.0;
        for (number, inputs) in inputs.into_iter().enumerate() {
            loss += self.gradients(inputs)?;
            if let Some(accumulate) = &mut self.accumulate {
                if number == 0 {
                    self.gradient.write(vec![0.0; self.layout.length])?;
                }
                accumulate.run()?;
            }
        }
        let loss = loss / batches.len() as f32;
        let share = 1.0 / (f64::from(self.loss_scale.factor) * batches.len() as f64);
        self.square.run()?;
        let norm = self.square.sum()?.sqrt() * share;
        let finite = norm.is_finite() && loss.is_finite();
        if !finite && (self.options.precision != TrainingPrecision::Fp16 || !loss.is_finite()) {
            return Err(Error::Diverged { step, loss, norm });
        }
        if self.options.precision == TrainingPrecision::Fp16 {
            self.loss_scale = self.loss_scale.after(!finite);
        }
        if !finite {
            return Ok(Update { loss, norm, skipped: true });
        }
        // As torch.nn.utils.clip_grad_norm_.
        let clip = (f64::from(self.options.clip) / (norm + 1e-6)).min(1.0);
        let rates = Rates { gradient: (share * clip) as f32, learning_rate, step };
        self.update.set("rates", &self.options.optimizer.rates(rates))?;
        self.update.run()?;
        if let Some(trust) = &mut self.trust {
            trust.run(learning_rate)?;
        }
        self.narrow_weights()?;
        Ok(Update { loss, norm, skipped: false })
    }

    /// Loss and gradients of a batch, the latter left on the device.
    fn gradients(&mut self, inputs: Vec<Input>) -> Result<f32, Error> {
        for (name, shape, values) in inputs {
            let bind = Error::run("bind a batch");
            match values {
                Values::Integers(data) => {
                    let tensor = Tensor::from_array((shape, data)).map_err(Error::run("take a batch"))?;
                    self.binding.bind_input(name, &tensor).map_err(bind)?;
                }
                Values::Floats(data) => {
                    let tensor = Tensor::from_array((shape, data)).map_err(Error::run("take a batch"))?;
                    self.binding.bind_input(name, &tensor).map_err(bind)?;
                }
            }
        }
        let scale = Tensor::from_array(([0_usize; 0], vec![self.loss_scale.factor]))
            .map_err(Error::run("take the loss scale"))?;
        self.binding.bind_input("loss_scale", &scale).map_err(Error::run("bind the loss scale"))?;
        self.session.run_binding(&self.binding).map_err(Error::run("compute gradients"))?;
        let (_, loss) = self.loss.try_extract_tensor::<f32>().map_err(Error::run("read the loss"))?;
        Ok(loss.first().copied().unwrap_or(f32::NAN))
    }

    fn narrow_weights(&mut self) -> Result<(), Error> {
        self.narrow.as_mut().map_or(Ok(()), Elementwise::run)
    }

    /// The names of the weights that are trained, with their places in what [`weights`](Self::weights) gives.
    pub fn ranges(&self) -> HashMap<String, std::ops::Range<usize>> {
        self.layout.ranges().map(|(slot, range)| (slot.name.clone(), range)).collect()
    }

    /// All weights, flat.
    ///
    /// # Errors
    /// What the runtime says.
    pub fn weights(&self) -> Result<Vec<f32>, Error> {
        self.weights.read()
    }

    /// The gradient of the last step, flat: the sum over its batches before clipping, times the loss scale; LAMB's
    /// direction is written over it.
    ///
    /// # Errors
    /// What the runtime says.
    pub fn gradient(&self) -> Result<Vec<f32>, Error> {
        self.gradient.read()
    }

    /// The optimiser's state.
    ///
    /// # Errors
    /// What the runtime says.
    pub fn moments(&self) -> Result<Moments, Error> {
        Ok(Moments { first: self.first.read()?, second: self.second.read()?, loss_scale: self.loss_scale })
    }

    /// Puts weights and an optimiser's state back as they were.
    ///
    /// # Errors
    /// Vectors of another length, what the runtime says.
    pub fn restore(&mut self, weights: Vec<f32>, moments: Moments) -> Result<(), Error> {
        let length = self.layout.length;
        if [&weights, &moments.first, &moments.second].iter().any(|flat| flat.len() != length) {
            return Err(Error::Unsupported(format!("a training state that does not have {length} elements")));
        }
        self.weights.write(weights)?;
        self.first.write(moments.first)?;
        self.second.write(moments.second)?;
        self.loss_scale = moments.loss_scale;
        self.narrow_weights()
    }

    /// Numbers that are trained.
    pub fn parameters(&self) -> usize {
        self.layout.slots.iter().map(elements).sum()
    }
}

fn allocator(session: &Session, placement: Placement) -> Result<Allocator, Error> {
    match placement {
        Placement::Cpu => Ok(Allocator::default()),
        Placement::Cuda(number) => {
            let number = i32::try_from(number).unwrap_or(i32::MAX);
            MemoryInfo::new(AllocationDevice::CUDA, number, AllocatorType::Device, MemoryType::Default)
                .and_then(|info| Allocator::new(session, info))
                .map_err(Error::run("reach the device's memory"))
        }
    }
}
