//! The activations that a layer or a model may choose from.

use super::case::Case;
use super::pointwise::Pointwise;
use crate::Result;
use crate::graph::{Graph, TensorId};

/// A function of each element.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Activation {
    /// `x` itself.
    None,
    /// [`Pointwise::Lrelu`]
    Lrelu,
    /// [`Pointwise::Relu`]
    Relu,
    /// [`Pointwise::Silu`]
    Silu,
    /// [`Pointwise::Gelu`]
    Gelu,
    /// [`Pointwise::Tanh`]
    Tanh,
}

impl Activation {
    fn op(self) -> Option<Pointwise> {
        match self {
            Activation::None => None,
            Activation::Lrelu => Some(Pointwise::Lrelu),
            Activation::Relu => Some(Pointwise::Relu),
            Activation::Silu => Some(Pointwise::Silu),
            Activation::Gelu => Some(Pointwise::Gelu),
            Activation::Tanh => Some(Pointwise::Tanh),
        }
    }
}

/// Appends `activation` of `x`, of any shape, to `graph`; nothing for [`Activation::None`].
///
/// # Errors
/// As [`Graph::push`].
pub fn activate(graph: &mut Graph, x: TensorId, activation: Activation) -> Result<TensorId> {
    match activation.op() {
        Some(op) => graph.push_one(op, &[x]),
        None => Ok(x),
    }
}

/// `1 / (1 + exp(-x))` in f64.
pub(super) fn sigmoid(x: f64) -> f64 {
    1.0 / (1.0 + (-x).exp())
}

/// The density of the standard normal in f64.
pub(super) fn normal_density(x: f64) -> f64 {
    (-x * x / 2.0).exp() / (2.0 * std::f64::consts::PI).sqrt()
}

/// The distribution function of the standard normal in f64, `1/2 + phi(x) (x + x^3/3 + x^5/(3*5) + ..)` (Marsaglia 2004),
/// whose terms have one sign.
pub(super) fn normal_cdf(x: f64) -> f64 {
    if x.abs() > 9.0 {
        return f64::from(u8::from(x > 0.0));
    }
    let (mut term, mut sum, mut odd) = (x, x, 1.0);
    while term.abs() > f64::EPSILON * sum.abs() {
        odd += 2.0;
        term *= x * x / odd;
        sum += term;
    }
    0.5 + normal_density(x) * sum
}

/// The layer's cases for the self-test.
pub fn cases() -> Vec<Case> {
    let case = |activation: Activation, suffix: &str, shape: [usize; 2]| {
        Case::new(format!("{activation:?}{suffix}").to_lowercase(), move |b| {
            let x = b.normal("x", &shape);
            Ok(vec![activate(&mut b.graph, x, activation)?])
        })
        .windowed(512)
    };
    [Activation::Relu, Activation::Silu, Activation::Gelu, Activation::Tanh]
        .into_iter()
        .flat_map(|activation| [case(activation, "", [7, 33]), case(activation, " in fours", [8, 41])])
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_normal_distribution_has_its_known_values() {
        let known = [(0.0, 0.5), (1.0, 0.841_344_746_068_543), (-2.5, 0.006_209_665_325_776_132), (-30.0, 0.0)];
        for (x, expected) in known {
            assert!((normal_cdf(x) - expected).abs() < 1e-15, "{x}: {}", normal_cdf(x));
        }
    }
}
