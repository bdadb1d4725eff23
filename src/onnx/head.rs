//! What comes after the transformer: pooling, projections, normalisation, as graph nodes.

use super::value::{Attribute, Dimension};
use super::{ElementType, Graph, GraphBuilder, Value};

/// How token vectors become one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PoolingMode {
    /// The first token's vector.
    Cls,
    /// The mean over all tokens but padding.
    Mean,
    /// The largest value of each component over all tokens but padding.
    Max,
}

/// The non-linearity of a dense layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Activation {
    /// None.
    Identity,
    /// The hyperbolic tangent.
    Tanh,
    /// Gelu by the error function (`gelu`).
    Gelu,
    /// Gelu by tanh (`gelu_new`, `gelu_pytorch_tanh`).
    GeluTanh,
    /// max(x, 0).
    Relu,
    /// x · sigmoid(x).
    Silu,
}

impl Activation {
    /// The activation that a configuration names, as transformers and PyTorch name it.
    pub fn from_name(name: &str) -> Option<Self> {
        Some(match name.rsplit('.').next().unwrap_or(name) {
            "Identity" | "identity" | "linear" => Self::Identity,
            "Tanh" | "tanh" => Self::Tanh,
            "gelu" | "GELU" | "gelu_python" => Self::Gelu,
            "gelu_new" | "gelu_fast" | "gelu_pytorch_tanh" => Self::GeluTanh,
            "relu" | "ReLU" => Self::Relu,
            "silu" | "swish" | "SiLU" => Self::Silu,
            _ => return None,
        })
    }

    pub(super) fn append(self, builder: &mut GraphBuilder, x: &Value) -> Value {
        match self {
            Self::Identity => x.clone(),
            Self::Tanh => builder.node("Tanh", &[x]),
            Self::Gelu => builder.node("Gelu", &[x]),
            Self::GeluTanh => builder.gelu_tanh(x),
            Self::Relu => builder.node("Relu", &[x]),
            Self::Silu => {
                let gate = builder.node("Sigmoid", &[x]);
                builder.node("Mul", &[x, &gate])
            }
        }
    }
}

/// One module after the transformer, as `modules.json` of sentence-transformers lists them.
#[derive(Debug, Clone, PartialEq)]
pub enum Head {
    /// Token vectors to one vector.
    Pooling(PoolingMode),
    /// `activation(x Wᵀ + b)`; the weights are `{name}.weight` [output, input] and, with a bias, `{name}.bias`.
    Dense {
        /// The prefix of its tensors.
        name: String,
        /// Components in.
        input: usize,
        /// Components out.
        output: usize,
        /// Whether it has a bias.
        bias: bool,
        /// What follows.
        activation: Activation,
    },
    /// Layer normalisation; the weights are `{name}.weight` and `{name}.bias`.
    LayerNorm {
        /// The prefix of its tensors.
        name: String,
        /// Components.
        size: usize,
        /// Added to the variance.
        epsilon: f32,
    },
    /// To length 1, as `torch.nn.functional.normalize` does (lengths below 1e-12 count as that).
    Normalize,
}

impl GraphBuilder {
    pub(super) fn gelu_tanh(&mut self, x: &Value) -> Value {
        // x/2 (1 + tanh(sqrt(2/π) (x + 0.044715 x³)))
        let (cubic, root, half, one) =
            (self.float(0.044_715), self.float((2.0 / std::f32::consts::PI).sqrt()), self.float(0.5), self.float(1.0));
        let square = self.node("Mul", &[x, x]);
        let cube = self.node("Mul", &[&square, x]);
        let cube = self.node("Mul", &[&cube, &cubic]);
        let sum = self.node("Add", &[x, &cube]);
        let inner = self.node("Mul", &[&sum, &root]);
        let tanh = self.node("Tanh", &[&inner]);
        let factor = self.node("Add", &[&tanh, &one]);
        let halved = self.node("Mul", &[x, &half]);
        self.node("Mul", &[&halved, &factor])
    }

    /// `x Wᵀ + b` over rows; `x` [n, input].
    pub(super) fn linear(&mut self, x: &Value, name: &str, input: usize, output: usize, bias: bool) -> Value {
        let weight = self.weight(&format!("{name}.weight"), &[output, input]);
        let trans = [("transB", Attribute::Int(1))];
        if bias {
            let bias = self.weight(&format!("{name}.bias"), &[output]);
            self.node_with("Gemm", "", &[x, &weight, &bias], &trans)
        } else {
            self.node_with("Gemm", "", &[x, &weight], &trans)
        }
    }

    pub(super) fn layer_norm(&mut self, x: &Value, name: &str, size: usize, epsilon: f32) -> Value {
        let scale = self.weight(&format!("{name}.weight"), &[size]);
        let shift = self.weight(&format!("{name}.bias"), &[size]);
        let attributes = [("axis", Attribute::Int(-1)), ("epsilon", Attribute::Float(epsilon))];
        self.node_with("LayerNormalization", "", &[x, &scale, &shift], &attributes)
    }

    /// The modules after the transformer: `hidden` [batch, tokens, size], `mask` i64 [batch, tokens] (1 for a token, 0
    /// for padding) to f32 [batch, dimension].
    pub(super) fn heads(&mut self, hidden: &Value, mask: &Value, heads: &[Head]) -> Value {
        let mut x = hidden.clone();
        for head in heads {
            x = match head {
                Head::Pooling(mode) => self.pool(&x, mask, *mode),
                Head::Dense { name, input, output, bias, activation } => {
                    let y = self.linear(&x, name, *input, *output, *bias);
                    activation.append(self, &y)
                }
                Head::LayerNorm { name, size, epsilon } => self.layer_norm(&x, name, *size, *epsilon),
                Head::Normalize => self.normalize(&x),
            };
        }
        if self.float == ElementType::F32 { x } else { self.cast(&x, ElementType::F32) }
    }

    pub(super) fn cast(&mut self, x: &Value, to: ElementType) -> Value {
        self.node_with("Cast", "", &[x], &[("to", Attribute::Int(to as i64))])
    }

    fn pool(&mut self, hidden: &Value, mask: &Value, mode: PoolingMode) -> Value {
        let (first, second) = (self.ints(&[1]), self.ints(&[2]));
        let float = self.float;
        match mode {
            PoolingMode::Cls => {
                let zero = self.int(0);
                self.node_with("Gather", "", &[hidden, &zero], &[("axis", Attribute::Int(1))])
            }
            PoolingMode::Mean => {
                let mask = self.cast(mask, float);
                let column = self.node("Unsqueeze", &[&mask, &second]);
                let kept = self.node("Mul", &[hidden, &column]);
                let no_dims = [("keepdims", Attribute::Int(0))];
                let sum = self.node_with("ReduceSum", "", &[&kept, &first], &no_dims);
                let count = self.node_with("ReduceSum", "", &[&column, &first], &no_dims);
                self.node("Div", &[&sum, &count])
            }
            PoolingMode::Max => {
                let mask = self.cast(mask, float);
                let one = self.float(1.0);
                // The largest penalty that 16-bit floats hold.
                let penalty = self.float(-60_000.0);
                let padding = self.node("Sub", &[&one, &mask]);
                let bias = self.node("Mul", &[&padding, &penalty]);
                let bias = self.node("Unsqueeze", &[&bias, &second]);
                let masked = self.node("Add", &[hidden, &bias]);
                self.node_with("ReduceMax", "", &[&masked, &first], &[("keepdims", Attribute::Int(0))])
            }
        }
    }

    fn normalize(&mut self, x: &Value) -> Value {
        // In 32 bits: the squares of 16-bit floats overflow.
        let wide = if self.float == ElementType::F32 { x.clone() } else { self.cast(x, ElementType::F32) };
        let narrow = std::mem::replace(&mut self.float, ElementType::F32);
        let last = self.ints(&[-1]);
        let least = self.float(1e-12);
        let square = self.node("Mul", &[&wide, &wide]);
        let sum = self.node_with("ReduceSum", "", &[&square, &last], &[("keepdims", Attribute::Int(1))]);
        let length = self.node("Sqrt", &[&sum]);
        let length = self.node("Max", &[&length, &least]);
        let unit = self.node("Div", &[&wide, &length]);
        self.float = narrow;
        if narrow == ElementType::F32 { unit } else { self.cast(&unit, narrow) }
    }
}

/// The modules alone, for models whose transformer came as an ONNX file: inputs `last_hidden_state` f32 [batch, tokens,
/// size] and `attention_mask` i64 [batch, tokens], output `sentence_embedding` f32 [batch, dimension].
pub fn head_graph(heads: &[Head], size: usize, dimension: usize) -> Graph {
    let mut builder = GraphBuilder::new("head", ElementType::F32);
    let (batch, tokens) = (Dimension::Name("batch"), Dimension::Name("tokens"));
    let hidden = builder.input(
        "last_hidden_state",
        ElementType::F32,
        &[batch.clone(), tokens.clone(), Dimension::Size(size as i64)],
    );
    let mask = builder.input("attention_mask", ElementType::I64, &[batch.clone(), tokens]);
    let vector = builder.heads(&hidden, &mask, heads);
    builder.output(&vector, "sentence_embedding", ElementType::F32, &[batch, Dimension::Size(dimension as i64)]);
    builder.finish()
}
