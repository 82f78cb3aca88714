//! Stand-in for the fused attention.

use crate::Result;
use crate::graph::{Graph, TensorId};
use crate::layers::dropout::dropout as drop_elements;
use crate::layers::matmul::{Matmul, matmul};
use crate::layers::permute::permute;
use crate::layers::softmax::softmax;

/// Dropout of the weights.
#[derive(Debug, Clone, Copy)]
pub struct Dropout {
    /// Seed and step.
    pub rng: TensorId,
    /// Stream of random numbers.
    pub stream: u32,
    /// Probability.
    pub probability: f32,
}

/// Attention.
pub fn attention(
    g: &mut Graph,
    q: TensorId,
    k: TensorId,
    v: TensorId,
    heads: usize,
    dropout: Option<Dropout>,
) -> Result<TensorId> {
    let split = |g: &mut Graph, x: TensorId| -> Result<TensorId> {
        let shape = g.shape(x).to_vec();
        let x = g.reshape(x, &[shape[0], shape[1], heads, shape[2] / heads])?;
        permute(g, x, &[0, 2, 1, 3])
    };
    let shape = g.shape(q).to_vec();
    let (q, k, v) = (split(g, q)?, split(g, k)?, split(g, v)?);
    let scale = 1.0 / ((shape[2] / heads) as f32).sqrt();
    let scores = g.push_one(Matmul { transpose_a: false, transpose_b: true, scale }, &[q, k])?;
    let mut weights = softmax(g, scores)?;
    if let Some(Dropout { rng, stream, probability }) = dropout {
        weights = drop_elements(g, weights, rng, stream, probability)?;
    }
    let y = matmul(g, weights, v)?;
    let y = permute(g, y, &[0, 2, 1, 3])?;
    g.reshape(y, &shape)
}
