//! Flat vectors in the memory of the device, and the places of weights in them.

use ort::memory::{AllocationDevice, Allocator};
use ort::value::{DynTensor, DynValue, Tensor, TensorElementType};

use crate::onnx::graph::WeightSlot;
use crate::onnx::{ElementType, Error, Weights};
use crate::system::tensor_view;

/// Weights start at multiples of so many elements: kernels of the device load whole lines.
const ALIGNMENT: usize = 64;

/// Where each weight lies in a flat vector.
#[derive(Debug, Clone)]
pub(super) struct Layout {
    pub(super) slots: Vec<WeightSlot>,
    pub(super) offsets: Vec<usize>,
    /// Elements in all, gaps included; the gaps hold zeros.
    pub(super) length: usize,
}

impl Layout {
    pub(super) fn new(slots: Vec<WeightSlot>) -> Self {
        let mut length = 0;
        let mut offsets = Vec::with_capacity(slots.len());
        for slot in &slots {
            offsets.push(length);
            length += elements(slot).next_multiple_of(ALIGNMENT);
        }
        Self { slots, offsets, length }
    }

    /// Each weight with its range.
    pub(super) fn ranges(&self) -> impl Iterator<Item = (&WeightSlot, std::ops::Range<usize>)> {
        self.slots.iter().zip(&self.offsets).map(|(slot, &offset)| (slot, offset..offset + elements(slot)))
    }

    /// A checkpoint's weights as one vector.
    pub(super) fn gather(&self, weights: &Weights) -> Result<Vec<f32>, Error> {
        let mut flat = vec![0.0; self.length];
        for (slot, range) in self.ranges() {
            flat[range].copy_from_slice(&weights.tensor(&slot.name, &slot.shape)?.data);
        }
        Ok(flat)
    }
}

pub(super) fn elements(slot: &WeightSlot) -> usize {
    slot.shape.iter().product()
}

/// A flat vector on a device.
#[derive(Debug)]
pub(super) struct Flat {
    tensor: DynTensor,
    allocator: Allocator,
    pub(super) length: usize,
}

impl Flat {
    /// A vector in the memory of `allocator`; what it holds is not defined on a device other than the CPU.
    pub(super) fn new(allocator: Allocator, element: ElementType, length: usize) -> Result<Self, Error> {
        let kind = match element {
            ElementType::F16 => TensorElementType::Float16,
            ElementType::BF16 => TensorElementType::Bfloat16,
            _ => TensorElementType::Float32,
        };
        let tensor = DynTensor::new(&allocator, kind, [length]).map_err(Error::run("allocate memory for training"))?;
        Ok(Self { tensor, allocator, length })
    }

    /// Part of the vector as a tensor of its own over the same memory. It must not be used once the vector is gone.
    pub(super) fn view(&self, offset: usize, shape: &[usize]) -> Result<DynValue, Error> {
        let shape: Vec<i64> = shape.iter().map(|&size| size as i64).collect();
        tensor_view(&self.tensor, &self.allocator, offset, &shape).map_err(Error::run("share memory for training"))
    }

    fn on_cpu(&self) -> bool {
        self.allocator.memory_info().allocation_device() == AllocationDevice::CPU
    }

    /// Writes all elements of a 32-bit vector.
    pub(super) fn write(&mut self, values: Vec<f32>) -> Result<(), Error> {
        if self.on_cpu() {
            let (_, place) =
                self.tensor.try_extract_tensor_mut::<f32>().map_err(Error::run("write to training memory"))?;
            place.copy_from_slice(&values);
            return Ok(());
        }
        let host = Tensor::from_array(([self.length], values)).map_err(Error::run("take weights"))?;
        host.upcast_ref().copy_into(&mut self.tensor).map_err(Error::run("copy weights to the device"))
    }

    /// All elements of a 32-bit vector.
    pub(super) fn read(&self) -> Result<Vec<f32>, Error> {
        if self.on_cpu() {
            let (_, data) = self.tensor.try_extract_tensor::<f32>().map_err(Error::run("read training memory"))?;
            return Ok(data.to_vec());
        }
        let host = self.tensor.to(AllocationDevice::CPU, 0).map_err(Error::run("copy weights from the device"))?;
        let (_, data) = host.try_extract_tensor::<f32>().map_err(Error::run("read training memory"))?;
        Ok(data.to_vec())
    }
}
