//! Operators on the elements of one value.

use std::f32::consts::{FRAC_1_SQRT_2, PI};

use super::backward::Backward;
use super::node::Node;
use crate::onnx::{Error, Value};

/// `y = -x`.
pub(super) fn neg(backward: &mut Backward<'_>, node: &Node, dy: &Value) -> Result<(), Error> {
    backward.give(node, 0, |backward| Ok(backward.unary("Neg", dy)))
}

/// `y = |x|`: dx = dy sign(x).
pub(super) fn abs(backward: &mut Backward<'_>, node: &Node, dy: &Value) -> Result<(), Error> {
    let x = node.input(0)?;
    backward.give(node, 0, |backward| {
        let sign = backward.unary("Sign", &x);
        Ok(backward.binary("Mul", dy, &sign))
    })
}

/// `y = √x`: dx = dy / (2 y).
pub(super) fn sqrt(backward: &mut Backward<'_>, node: &Node, dy: &Value) -> Result<(), Error> {
    let y = node.output(0)?;
    backward.give(node, 0, |backward| {
        let half = backward.scaled(dy, 0.5, &y);
        Ok(backward.binary("Div", &half, &y))
    })
}

/// `y = 1 / x`: dx = -dy y².
pub(super) fn reciprocal(backward: &mut Backward<'_>, node: &Node, dy: &Value) -> Result<(), Error> {
    let y = node.output(0)?;
    backward.give(node, 0, |backward| {
        let square = backward.binary("Mul", &y, &y);
        let product = backward.binary("Mul", dy, &square);
        Ok(backward.unary("Neg", &product))
    })
}

/// `y = eˣ`: dx = dy y.
pub(super) fn exp(backward: &mut Backward<'_>, node: &Node, dy: &Value) -> Result<(), Error> {
    let y = node.output(0)?;
    backward.give(node, 0, |backward| Ok(backward.binary("Mul", dy, &y)))
}

/// `y = ln x`: dx = dy / x.
pub(super) fn log(backward: &mut Backward<'_>, node: &Node, dy: &Value) -> Result<(), Error> {
    let x = node.input(0)?;
    backward.give(node, 0, |backward| Ok(backward.binary("Div", dy, &x)))
}

/// `y = erf(x)`: dx = dy · 2/√π · e^(-x²).
pub(super) fn erf(backward: &mut Backward<'_>, node: &Node, dy: &Value) -> Result<(), Error> {
    let x = node.input(0)?;
    backward.give(node, 0, |backward| {
        let bell = backward.bell(&x, -1.0, 2.0 / PI.sqrt());
        Ok(backward.binary("Mul", dy, &bell))
    })
}

/// `y = tanh x`: dx = dy (1 - y²).
pub(super) fn tanh(backward: &mut Backward<'_>, node: &Node, dy: &Value) -> Result<(), Error> {
    let y = node.output(0)?;
    backward.give(node, 0, |backward| {
        let slope = backward.tanh_slope(&y);
        Ok(backward.binary("Mul", dy, &slope))
    })
}

/// `y = σ(x)`: dx = dy y (1 - y).
pub(super) fn sigmoid(backward: &mut Backward<'_>, node: &Node, dy: &Value) -> Result<(), Error> {
    let y = node.output(0)?;
    backward.give(node, 0, |backward| {
        let one = backward.scalar(1.0, &y);
        let rest = backward.binary("Sub", &one, &y);
        let slope = backward.binary("Mul", &y, &rest);
        Ok(backward.binary("Mul", dy, &slope))
    })
}

/// `y = ln(1 + eˣ)`: dx = dy σ(x).
pub(super) fn softplus(backward: &mut Backward<'_>, node: &Node, dy: &Value) -> Result<(), Error> {
    let x = node.input(0)?;
    backward.give(node, 0, |backward| {
        let slope = backward.unary("Sigmoid", &x);
        Ok(backward.binary("Mul", dy, &slope))
    })
}

/// `y = max(x, 0)`: dy where y > 0.
pub(super) fn relu(backward: &mut Backward<'_>, node: &Node, dy: &Value) -> Result<(), Error> {
    let y = node.output(0)?;
    backward.give(node, 0, |backward| {
        let zero = backward.scalar(0.0, &y);
        let positive = backward.is_positive(&y);
        Ok(backward.builder().node("Where", &[&positive, dy, &zero]))
    })
}

/// `y = sin x`: dx = dy cos x.
pub(super) fn sin(backward: &mut Backward<'_>, node: &Node, dy: &Value) -> Result<(), Error> {
    let x = node.input(0)?;
    backward.give(node, 0, |backward| {
        let slope = backward.unary("Cos", &x);
        Ok(backward.binary("Mul", dy, &slope))
    })
}

/// `y = cos x`: dx = -dy sin x.
pub(super) fn cos(backward: &mut Backward<'_>, node: &Node, dy: &Value) -> Result<(), Error> {
    let x = node.input(0)?;
    backward.give(node, 0, |backward| {
        let slope = backward.unary("Sin", &x);
        let product = backward.binary("Mul", dy, &slope);
        Ok(backward.unary("Neg", &product))
    })
}

/// `y = x` where x > 0, else α x: dy or α dy.
pub(super) fn leaky_relu(backward: &mut Backward<'_>, node: &Node, dy: &Value) -> Result<(), Error> {
    let x = node.input(0)?;
    let alpha = node.float("alpha", 0.01);
    backward.give(node, 0, |backward| {
        let positive = backward.is_positive(&x);
        let leak = backward.scaled(dy, alpha, &x);
        Ok(backward.builder().node("Where", &[&positive, dy, &leak]))
    })
}

/// `y = x` where x > 0, else α (eˣ - 1): dy or dy (y + α).
pub(super) fn elu(backward: &mut Backward<'_>, node: &Node, dy: &Value) -> Result<(), Error> {
    let (x, y) = (node.input(0)?, node.output(0)?);
    let alpha = node.float("alpha", 1.0);
    backward.give(node, 0, |backward| {
        let positive = backward.is_positive(&x);
        let alpha = backward.scalar(alpha, &x);
        let slope = backward.binary("Add", &y, &alpha);
        let below = backward.binary("Mul", dy, &slope);
        Ok(backward.builder().node("Where", &[&positive, dy, &below]))
    })
}

/// `y = min(max(α x + β, 0), 1)`: α dy where 0 < y < 1.
pub(super) fn hard_sigmoid(backward: &mut Backward<'_>, node: &Node, dy: &Value) -> Result<(), Error> {
    let y = node.output(0)?;
    let alpha = node.float("alpha", 0.2);
    backward.give(node, 0, |backward| {
        let (zero, one) = (backward.scalar(0.0, &y), backward.scalar(1.0, &y));
        let (above, below) = (backward.binary("Greater", &y, &zero), backward.binary("Less", &y, &one));
        let inside = backward.binary("And", &above, &below);
        let slope = backward.scaled(dy, alpha, &y);
        Ok(backward.builder().node("Where", &[&inside, &slope, &zero]))
    })
}

/// `y = x min(max(x / 6 + 1/2, 0), 1)`: dx = dy (x / 3 + 1/2) for |x| < 3, dy above, 0 below.
pub(super) fn hard_swish(backward: &mut Backward<'_>, node: &Node, dy: &Value) -> Result<(), Error> {
    let x = node.input(0)?;
    backward.give(node, 0, |backward| {
        let (half, zero, three) = (backward.scalar(0.5, &x), backward.scalar(0.0, &x), backward.scalar(3.0, &x));
        let third = backward.scaled(&x, 1.0 / 3.0, &x);
        let slope = backward.binary("Add", &third, &half);
        let product = backward.binary("Mul", dy, &slope);
        let size = backward.unary("Abs", &x);
        let inside = backward.binary("Less", &size, &three);
        let positive = backward.is_positive(&x);
        let outside = backward.builder().node("Where", &[&positive, dy, &zero]);
        Ok(backward.builder().node("Where", &[&inside, &product, &outside]))
    })
}

/// `y = min(max(x, low), high)`: dy where y = x. The bounds are taken as constants.
pub(super) fn clip(backward: &mut Backward<'_>, node: &Node, dy: &Value) -> Result<(), Error> {
    if backward.wants(node, 1) || backward.wants(node, 2) {
        return Err(node.refuse("the gradient of its bounds is not known"));
    }
    let (x, y) = (node.input(0)?, node.output(0)?);
    backward.give(node, 0, |backward| {
        let inside = backward.binary("Equal", &x, &y);
        let zero = backward.scalar(0.0, &y);
        Ok(backward.builder().node("Where", &[&inside, dy, &zero]))
    })
}

/// `y = x Φ(x)`: dx = dy (Φ(x) + x φ(x)), Φ and φ of the normal distribution; or its approximation by tanh.
pub(super) fn gelu(backward: &mut Backward<'_>, node: &Node, dy: &Value) -> Result<(), Error> {
    let x = node.input(0)?;
    let by_tanh = node.text("approximate") == Some(b"tanh");
    backward.give(node, 0, |backward| {
        let slope = if by_tanh { backward.gelu_tanh_slope(&x) } else { backward.gelu_slope(&x) };
        Ok(backward.binary("Mul", dy, &slope))
    })
}

/// `y = x`.
pub(super) fn identity(backward: &mut Backward<'_>, node: &Node, dy: &Value) -> Result<(), Error> {
    backward.give(node, 0, |_| Ok(dy.clone()))
}

/// `y = x` in another type: dy in the type of x.
pub(super) fn cast(backward: &mut Backward<'_>, node: &Node, dy: &Value) -> Result<(), Error> {
    let x = node.input(0)?;
    let element = backward.facts().element(&x);
    backward.give(node, 0, |backward| Ok(backward.builder().cast(dy, element)))
}

/// `y = x mask / (1 - ratio)` in training, else x. The mask is the node's second output.
pub(super) fn dropout(backward: &mut Backward<'_>, node: &Node, dy: &Value) -> Result<(), Error> {
    if node.optional(2).is_none() {
        return backward.give(node, 0, |_| Ok(dy.clone()));
    }
    let y = node.output(0)?;
    let mask = backward.extra_output(node, 1);
    let ratio = node.optional(1);
    backward.give(node, 0, |backward| {
        let zero = backward.scalar(0.0, &y);
        let one = backward.scalar(1.0, &y);
        let ratio = match ratio {
            Some(ratio) => backward.builder().node("CastLike", &[&ratio, &y]),
            None => backward.scalar(0.5, &y),
        };
        // Outside training nothing is dropped, and nothing is scaled.
        let training = node.input(2)?;
        let ratio = backward.builder().node("Where", &[&training, &ratio, &zero]);
        let kept = backward.binary("Sub", &one, &ratio);
        let scaled = backward.binary("Div", dy, &kept);
        Ok(backward.builder().node("Where", &[&mask, &scaled, &zero]))
    })
}

impl Backward<'_> {
    fn is_positive(&mut self, x: &Value) -> Value {
        let zero = self.scalar(0.0, x);
        self.binary("Greater", x, &zero)
    }

    /// `factor · e^(rate x²)`.
    fn bell(&mut self, x: &Value, rate: f32, factor: f32) -> Value {
        let square = self.binary("Mul", x, x);
        let exponent = self.scaled(&square, rate, x);
        let bell = self.unary("Exp", &exponent);
        self.scaled(&bell, factor, x)
    }

    /// `1 - y²`.
    fn tanh_slope(&mut self, y: &Value) -> Value {
        let one = self.scalar(1.0, y);
        let square = self.binary("Mul", y, y);
        self.binary("Sub", &one, &square)
    }

    pub(super) fn gelu_slope(&mut self, x: &Value) -> Value {
        let scaled = self.scaled(x, FRAC_1_SQRT_2, x);
        let erf = self.unary("Erf", &scaled);
        let half = self.scaled(&erf, 0.5, x);
        let offset = self.scalar(0.5, x);
        let below = self.binary("Add", &half, &offset);
        let density = self.bell(x, -0.5, 1.0 / (2.0 * PI).sqrt());
        let weighted = self.binary("Mul", x, &density);
        self.binary("Add", &below, &weighted)
    }

    /// With t = tanh(u), u = √(2/π) (x + 0.044715 x³): (1 + t) / 2 + x (1 - t²) √(2/π) (1 + 3 · 0.044715 x²) / 2.
    pub(super) fn gelu_tanh_slope(&mut self, x: &Value) -> Value {
        let root = (2.0 / PI).sqrt();
        let square = self.binary("Mul", x, x);
        let one = self.scalar(1.0, x);
        let cubic = self.scaled(&square, 0.044_715, x);
        let inner = self.binary("Add", &cubic, &one);
        let inner = self.binary("Mul", &inner, x);
        let inner = self.scaled(&inner, root, x);
        let tanh = self.unary("Tanh", &inner);
        let first = self.binary("Add", &tanh, &one);
        let steep = self.scaled(&square, 3.0 * 0.044_715, x);
        let steep = self.binary("Add", &steep, &one);
        let steep = self.scaled(&steep, root, x);
        let slope = self.tanh_slope(&tanh);
        let second = self.binary("Mul", &slope, &steep);
        let second = self.binary("Mul", &second, x);
        let sum = self.binary("Add", &first, &second);
        self.scaled(&sum, 0.5, x)
    }
}
