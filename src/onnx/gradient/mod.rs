//! Reverse-mode differentiation of a graph (Griewank and Walther 2008, chapter 3): nodes that compute the gradient of a
//! scalar are appended to the graph that computes the scalar.
//!
//! Each operator has one rule, which says what reaches its inputs when `dy` reaches its output. Broadcasting is undone
//! in one place ([`Backward::give`]). Nodes that no wanted value flows through, such as those that compute shapes and
//! masks, are skipped, so that an operator without a rule is refused only where its gradient is needed.

mod arithmetic;
mod backward;
mod broadcast;
mod functions;
mod fused;
mod lookup;
mod matrix;
mod node;
mod normalization;
mod reduction;
mod shape;

use std::collections::HashSet;

use backward::Backward;
use node::Node;

use super::graph::MICROSOFT;
use super::{Error, GraphBuilder, Value};

/// Gives a node's inputs what reaches them, given what reaches its first output.
type OfFirst = fn(&mut Backward<'_>, &Node, &Value) -> Result<(), Error>;
/// As [`OfFirst`], given what reaches each output, if anything.
type OfAll = fn(&mut Backward<'_>, &Node, &[Option<Value>]) -> Result<(), Error>;

/// The rule of an operator.
#[derive(Clone, Copy)]
enum Rule {
    /// Only the first output is differentiable.
    One(OfFirst),
    /// Several outputs are.
    All(OfAll),
}

/// Appends the gradient of the scalar `loss` with respect to each of `wanted` (initializers, inputs or any other
/// values); none for a value that the loss does not depend on. A gradient has the shape of its value.
///
/// `seed` is what reaches the loss: a scalar, 1 where there is none. A loss scale goes in here.
///
/// # Errors
/// An operator without a rule where a gradient would have to flow through it, named with its node.
pub fn gradients(
    builder: &mut GraphBuilder,
    loss: &Value,
    wanted: &[Value],
    seed: Option<&Value>,
) -> Result<Vec<Option<Value>>, Error> {
    let nodes: Vec<Node> = builder.graph().node.iter().enumerate().map(|(at, node)| Node::new(at, node)).collect();
    let moving = moving(&nodes, wanted);
    let mut backward = Backward::new(builder, moving, wanted);
    let seed = match seed {
        Some(seed) => seed.clone(),
        None => backward.scalar(1.0, loss),
    };
    backward.add(loss.name(), seed);
    for node in nodes.iter().rev() {
        let through = node.reads().into_iter().any(|input| backward.moves(input));
        if !through || !node.outputs().any(|output| backward.moves(output)) {
            continue;
        }
        let reached: Vec<Option<Value>> = node.output_names().map(|output| backward.total(output)).collect();
        if reached.iter().all(Option::is_none) {
            continue;
        }
        match (rule(node), reached.as_slice()) {
            (Some(Rule::All(rule)), reached) => rule(&mut backward, node, reached)?,
            (Some(Rule::One(rule)), [Some(dy), rest @ ..]) if rest.iter().all(Option::is_none) => {
                rule(&mut backward, node, dy)?;
            }
            (Some(Rule::One(_)), _) => {
                return Err(node.refuse("only the gradient of its first output is known"));
            }
            (None, _) => return Err(node.refuse("it has no gradient rule")),
        }
    }
    backward.finish(wanted)
}

/// The values that change with the wanted ones.
fn moving(nodes: &[Node], wanted: &[Value]) -> HashSet<String> {
    let mut moving: HashSet<String> = wanted.iter().map(|value| value.name().to_owned()).collect();
    for node in nodes {
        if !node.is_constant() && node.reads().into_iter().any(|input| moving.contains(input)) {
            moving.extend(node.outputs().map(str::to_owned));
        }
    }
    moving
}

fn rule(node: &Node) -> Option<Rule> {
    let one: OfFirst = match (node.domain(), node.operator()) {
        ("", "Add") => arithmetic::add,
        ("", "Sub") => arithmetic::sub,
        ("", "Mul") => arithmetic::mul,
        ("", "Div") => arithmetic::div,
        ("", "Pow") => arithmetic::pow,
        ("", "Sum") => arithmetic::sum,
        ("", "Mean") => arithmetic::mean,
        ("", "Max" | "Min") => arithmetic::extreme,
        ("", "Where") => arithmetic::choose,
        ("", "Neg") => functions::neg,
        ("", "Abs") => functions::abs,
        ("", "Sqrt") => functions::sqrt,
        ("", "Reciprocal") => functions::reciprocal,
        ("", "Exp") => functions::exp,
        ("", "Log") => functions::log,
        ("", "Erf") => functions::erf,
        ("", "Tanh") => functions::tanh,
        ("", "Sigmoid") => functions::sigmoid,
        ("", "Softplus") => functions::softplus,
        ("", "Relu") => functions::relu,
        ("", "Sin") => functions::sin,
        ("", "Cos") => functions::cos,
        ("", "LeakyRelu") => functions::leaky_relu,
        ("", "Elu") => functions::elu,
        ("", "HardSigmoid") => functions::hard_sigmoid,
        ("", "HardSwish") => functions::hard_swish,
        ("", "Clip") => functions::clip,
        ("" | MICROSOFT, "Gelu") => functions::gelu,
        (MICROSOFT, "BiasGelu") => fused::bias_gelu,
        (MICROSOFT, "FastGelu") => fused::fast_gelu,
        (MICROSOFT, "QuickGelu") => fused::quick_gelu,
        ("", "Identity") => functions::identity,
        ("", "Cast" | "CastLike") => functions::cast,
        ("", "Dropout") => functions::dropout,
        ("", "Softmax") => normalization::softmax,
        ("", "LogSoftmax") => normalization::log_softmax,
        ("", "LayerNormalization") => normalization::layer_norm,
        ("", "RMSNormalization" | "SimplifiedLayerNormalization") => normalization::rms_norm,
        ("", "ReduceSum") => reduction::sum,
        ("", "ReduceMean") => reduction::mean,
        ("", "ReduceMax" | "ReduceMin") => reduction::extreme,
        ("", "ReduceSumSquare") => reduction::sum_square,
        ("", "ReduceL2") => reduction::l2,
        ("", "ReduceL1") => reduction::l1,
        ("", "ReduceLogSum") => reduction::log_sum,
        ("", "CumSum") => reduction::running_sum,
        ("", "ReduceLogSumExp") => reduction::log_sum_exp,
        ("", "Reshape" | "Squeeze" | "Unsqueeze" | "Flatten") => shape::reshape,
        ("", "Transpose") => shape::transpose,
        ("", "Expand") => shape::expand,
        ("", "Concat") => shape::concat,
        ("", "Slice") => shape::slice,
        ("", "Tile") => shape::tile,
        ("", "Pad") => shape::pad,
        ("", "Trilu") => shape::trilu,
        ("", "Gather") => lookup::gather,
        ("", "GatherElements") => lookup::gather_elements,
        ("", "GatherND") => lookup::gather_nd,
        ("", "ScatterElements") => lookup::scatter_elements,
        ("", "ScatterND") => lookup::scatter_nd,
        ("", "MatMul") | (MICROSOFT, "FusedMatMul") => matrix::mat_mul,
        ("", "Gemm") => matrix::gemm,
        ("", "Split") => return Some(Rule::All(shape::split)),
        (MICROSOFT, "SkipLayerNormalization") => return Some(Rule::All(normalization::skip_layer_norm)),
        _ => return None,
    };
    Some(Rule::One(one))
}

#[cfg(test)]
mod tests;
