//! LAMB's second half: each weight's step by the ratio of its norms.

use ort::session::{IoBinding, Session};
use ort::value::Tensor;

use super::memory::{Flat, Layout, elements};
use crate::onnx::{Error, Placement, Runtime, optimizer};

/// The session, bound to every weight and its direction.
#[derive(Debug)]
pub(super) struct Trust {
    binding: IoBinding,
    session: Session,
}

impl Trust {
    pub(super) fn new(
        runtime: &Runtime,
        placement: Placement,
        layout: &Layout,
        weights: &Flat,
        directions: &Flat,
    ) -> Result<Self, Error> {
        let sizes: Vec<usize> = layout.slots.iter().map(elements).collect();
        let session = runtime
            .builder(placement)?
            .commit_from_memory(&optimizer::trust_graph(&sizes).to_bytes())
            .map_err(Error::run("make the session of LAMB"))?;
        let mut binding = session.create_binding().map_err(Error::run("bind LAMB"))?;
        for (number, (&size, &offset)) in sizes.iter().zip(&layout.offsets).enumerate() {
            let bind = |what: &str| format!("{what}/{number}");
            let (weight, direction) = (weights.view(offset, &[size])?, directions.view(offset, &[size])?);
            binding.bind_input(bind("weight"), &weight).map_err(Error::run("bind LAMB"))?;
            binding.bind_input(bind("direction"), &direction).map_err(Error::run("bind LAMB"))?;
            let place = weights.view(offset, &[size])?;
            binding.bind_output(format!("weight/{number}/new"), place).map_err(Error::run("bind LAMB"))?;
        }
        Ok(Self { binding, session })
    }

    pub(super) fn run(&mut self, learning_rate: f32) -> Result<(), Error> {
        let rate = Tensor::from_array(([1_usize], vec![learning_rate])).map_err(Error::run("take a learning rate"))?;
        self.binding.bind_input("learning_rate", &rate).map_err(Error::run("bind LAMB"))?;
        self.session.run_binding(&self.binding).map_err(Error::run("run LAMB"))?;
        Ok(())
    }
}
