//! The factor that keeps small gradients from vanishing in 16 bits.

use serde::{Deserialize, Serialize};

use super::TrainingPrecision;

/// Dynamic loss scaling (Micikevicius et al. 2018, section 3.2; growth and fall as in PyTorch's `GradScaler`).
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct LossScale {
    /// What the loss is multiplied by.
    pub factor: f32,
    /// Steps without overflow since it last changed.
    pub steady: u32,
}

impl LossScale {
    pub(super) fn new(precision: TrainingPrecision) -> Self {
        Self { factor: if precision == TrainingPrecision::Fp16 { 65_536.0 } else { 1.0 }, steady: 0 }
    }

    pub(super) fn after(self, overflowed: bool) -> Self {
        match (overflowed, self.steady + 1) {
            (true, _) => Self { factor: (self.factor / 2.0).max(1.0), steady: 0 },
            (false, 2000) => Self { factor: self.factor * 2.0, steady: 0 },
            (false, steady) => Self { steady, ..self },
        }
    }
}
