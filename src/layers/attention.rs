//! Multi-head attention that never stores the weights: an online softmax forward, weights computed again backward (Dao et al.,
//! FlashAttention-2, 2023).

mod program;

use std::ops::Range;

use super::case::Case;
use super::common::expect;
use super::dropout::{self, dropout};
use super::matmul::Matmul;
use super::softmax::softmax;
use crate::graph::{CpuTensor, DType, Graph, Node, Op, OpContext, Program, Slot, TensorId, TensorSpec};
use crate::{Error, Result};
use program::Extents;

/// Channels of a head up to which the weights are not stored: with more, an invocation has too few registers, and a head's weights
/// are few beside its channels where sequences are short.
const WIDEST: usize = 16;

/// Longest sequences: an invocation loops over all of one, four tokens a turn.
const LONGEST: usize = 1 << 16;

/// Most weights that can be dropped: the number of a block of four random words is one word.
const MOST_DROPPED: u128 = 1 << 34;

/// Dropout of the weights after their normalisation, which multiplies those that are kept by `1 / (1 - probability)`.
///
/// Weight `i` of `[S, heads, Nq, N]` is dropped where [`dropout::Dropout`] would drop element `i`.
#[derive(Debug, Clone, Copy)]
pub struct Dropout {
    /// u32 `[3]` = (seed low, seed high, step), written by the host before each step.
    pub rng: TensorId,
    /// Which stream of random numbers; each layer has one of its own.
    pub stream: u32,
    /// That of a weight to be dropped.
    pub probability: f32,
}

/// Attention of `heads` heads (torch `nn.functional.scaled_dot_product_attention` of each head, with `dropout_p`).
///
/// Heads are consecutive ranges of `C / heads` channels. Those of up to 16 channels are one op, [`Attention`]; wider ones are
/// composed of products and a softmax, which store the weights, `[S, heads, Nq, N]`.
///
/// # Shapes
/// - `q`: `[S, Nq, C]`
/// - `k`, `v`: `[S, N, C]`
/// - result: `[S, Nq, C]`
///
/// # Errors
/// [`Error::Shape`] as [`Attention`].
pub fn attention(
    graph: &mut Graph,
    q: TensorId,
    k: TensorId,
    v: TensorId,
    heads: usize,
    dropout: Option<Dropout>,
) -> Result<TensorId> {
    let channels = graph.tensor(q).spec.channels();
    if heads == 0 || !channels.is_multiple_of(heads) {
        return Err(Error::Shape(format!("{} cannot be cut into {heads} heads", graph.describe(q))));
    }
    if channels / heads > WIDEST {
        return wide_attention(graph, [q, k, v], heads, dropout);
    }
    let rng = dropout.map(|dropout| dropout.rng);
    let dropout = dropout.map(|Dropout { stream, probability, .. }| dropout::Dropout { stream, probability });
    let inputs: Vec<TensorId> = [q, k, v].into_iter().chain(rng).collect();
    Ok(graph.push(Attention { heads, dropout }, &inputs)?[0])
}

fn wide_attention(
    graph: &mut Graph,
    [q, k, v]: [TensorId; 3],
    heads: usize,
    dropped: Option<Dropout>,
) -> Result<TensorId> {
    let scale = (graph.tensor(q).spec.channels() as f32 / heads as f32).powf(-0.5);
    let scores = Matmul { transpose_b: true, scale, heads, beside: [true, true, false], ..Matmul::default() };
    let scores = graph.push_one(scores, &[q, k])?;
    let mut weights = softmax(graph, scores)?;
    if let Some(Dropout { rng, stream, probability }) = dropped {
        weights = dropout(graph, weights, rng, stream, probability)?;
    }
    graph.push_one(Matmul { heads, beside: [false, true, true], ..Matmul::default() }, &[weights, v])
}

/// `y = drop(softmax(q k^T (C / heads)^-1/2)) v` of each head, in one pass over the keys.
///
/// # Shapes
/// - `q`: `[S, Nq, C]`
/// - `k`, `v`: `[S, N, C]`
/// - `rng`: u32 `[3]`, with dropout only
/// - `y`: `[S, Nq, C]`
/// - `lse`: `[S, heads, Nq]`, logarithms of the sums of the scores' exponentials
///
/// Saves `q`, `k`, `v`, `y` and `lse`. The backward pass overwrites `d_q`, `d_k` and `d_v`.
///
/// # Errors
/// [`Error::Shape`] if the extents do not match, C is no multiple of `heads`, a head has more than 16 channels, a sequence more
/// than 65,536 tokens, there is dropout of more than 2^34 weights, or its probability is not in `[0, 1)`.
#[derive(Debug, Clone)]
pub struct Attention {
    /// Heads.
    pub heads: usize,
    /// Which weights are dropped, if any.
    pub dropout: Option<dropout::Dropout>,
}

impl Attention {
    fn check(&self, inputs: &[TensorSpec]) -> Result<Extents, String> {
        let [q, k, v, rng @ ..] = inputs else { return Err("needs q, k, v and, with dropout, rng".into()) };
        let is_tensor = |spec: &TensorSpec| spec.dtype == DType::F32 && spec.elements() > 0;
        let fits = v == k && k.channels() == q.channels() && k.shape.first() == q.shape.first();
        let (true, true, true, Some(extents)) = (fits, is_tensor(q), is_tensor(k), self.extents(inputs)) else {
            return Err("needs q [S, Nq, C] and k, v [S, N, C] in f32, of equal S and C, without an extent of 0".into());
        };
        let Extents { queries, keys, channels, .. } = extents;
        if self.heads == 0 || !channels.is_multiple_of(self.heads) || extents.width() > WIDEST {
            return Err(format!("needs heads of at most {WIDEST} channels, not {channels} channels in {}", self.heads));
        }
        if queries.max(keys) > LONGEST {
            return Err(format!("takes sequences of at most {LONGEST} tokens, not {}", queries.max(keys)));
        }
        match (&self.dropout, rng) {
            (None, []) => {}
            (Some(dropout), [rng]) => dropout.check(rng)?,
            _ => return Err("needs rng with dropout, and only then".into()),
        }
        if self.dropout.is_some() && extents.weights() > MOST_DROPPED {
            return Err(format!("drops at most {MOST_DROPPED} weights, not {}", extents.weights()));
        }
        Ok(extents)
    }

    fn extents(&self, inputs: &[TensorSpec]) -> Option<Extents> {
        let (&[sequences, queries, channels], &[_, keys, _]) = (&inputs[0].shape[..], &inputs[1].shape[..]) else {
            return None;
        };
        Some(Extents { sequences, queries, keys, channels, heads: self.heads })
    }

    /// What the twins loop over; `rng` is the number of that input.
    fn rows<'a>(&'a self, inputs: &'a [CpuTensor], rng: usize) -> impl Iterator<Item = Row> + 'a {
        let [queries, channels] = [1, 2].map(|axis| inputs[0].shape[axis]);
        let (keys, width) = (inputs[1].shape[1], channels / self.heads);
        (0..inputs[0].shape[0] * self.heads * queries).map(move |index| {
            let (query, head, s) = (index % queries, index / queries % self.heads, index / queries / self.heads);
            let factor = |key| match &self.dropout {
                Some(dropout) => dropout.factor(inputs[rng].data, index * keys + key),
                None => 1.0,
            };
            let token = |number: usize| number * channels + head * width;
            let query = token(s * queries + query)..token(s * queries + query) + width;
            let keys = (0..keys).map(|key| (token(s * keys + key), factor(key))).collect();
            Row { index, query, keys }
        })
    }
}

/// A query of one head, and the keys that it attends to.
struct Row {
    /// In `lse`.
    index: usize,
    /// The query's channels.
    query: Range<usize>,
    /// Each key's first channel, and the factor of its weight.
    keys: Vec<(usize, f64)>,
}

impl Row {
    /// The product of the query's channels of `a` with those of `b` at a key.
    fn dot(&self, a: &[f64], b: &[f64], key: usize) -> f64 {
        a[self.query.clone()].iter().zip(&b[key..]).map(|(a, b)| a * b).sum()
    }

    fn scale(&self) -> f64 {
        (self.query.len() as f64).powf(-0.5)
    }
}

/// Adds `factor` times as many channels of `x` from `from` on to those of `sum`.
fn add_channels(sum: &mut [f64], x: &[f64], from: usize, factor: f64) {
    sum.iter_mut().zip(&x[from..]).for_each(|(sum, x)| *sum += factor * x);
}

impl Op for Attention {
    fn name(&self) -> &'static str {
        "attention_forward"
    }

    fn outputs(&self, inputs: &[TensorSpec]) -> Result<Vec<TensorSpec>, String> {
        let Extents { sequences, queries, .. } = self.check(inputs)?;
        Ok(vec![inputs[0].clone(), TensorSpec::f32(&[sequences, self.heads, queries])])
    }

    fn cpu(&self, inputs: &[CpuTensor], outputs: &[TensorSpec]) -> Vec<Vec<f64>> {
        let [q, k, v] = [0, 1, 2].map(|i| inputs[i].data);
        let mut y = vec![0.0; outputs[0].elements()];
        let mut lse = Vec::with_capacity(outputs[1].elements());
        for row in self.rows(inputs, 3) {
            let scores: Vec<f64> = row.keys.iter().map(|&(key, _)| row.scale() * row.dot(q, k, key)).collect();
            let largest = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
            let sum = largest + scores.iter().map(|score| (score - largest).exp()).sum::<f64>().ln();
            for (score, &(key, factor)) in scores.iter().zip(&row.keys) {
                add_channels(&mut y[row.query.clone()], v, key, factor * (score - sum).exp());
            }
            lse.push(sum);
        }
        vec![y, lse]
    }

    fn program(&self, context: &OpContext) -> Result<Program> {
        let Some(extents) = self.extents(context.inputs) else { return Ok(Program::default()) };
        program::forward(context, &extents, self.dropout.as_ref())
    }

    fn backward(
        &self,
        graph: &mut Graph,
        node: &Node,
        d_outputs: &[Option<TensorId>],
        _: &[bool],
    ) -> Result<Vec<Option<TensorId>>> {
        let Some(d_y) = d_outputs[0] else { return Ok(vec![None; node.inputs.len()]) };
        let (tensors, rng) = node.inputs.split_at(3);
        let operands = [tensors, &[node.outputs[0], node.outputs[1], d_y], rng].concat();
        let gradients = graph.push(AttentionBackward { forward: self.clone() }, &operands)?;
        Ok(gradients.into_iter().map(Some).chain(rng.iter().map(|_| None)).collect())
    }

    fn takes_half(&self, operand: Slot) -> bool {
        matches!(operand, Slot::Input(0..3) | Slot::Output(0))
    }

    fn flops(&self, inputs: &[TensorSpec], _: &[TensorSpec]) -> u64 {
        4 * inputs[0].elements() as u64 * inputs[1].shape[1] as u64
    }
}

/// With weights `w = exp(q k^T (C / heads)^-1/2 - lse)`, `m` what dropout multiplies them by and `d = m (d_y v^T) - sum d_y y`:
/// `d_q = (C / heads)^-1/2 (w d) k`, `d_k = (C / heads)^-1/2 (w d)^T q` and `d_v = (w m)^T d_y`.
///
/// Sums over the keys belong to the invocations that own queries, sums over the queries to those that own keys, so that the order
/// of additions is fixed.
///
/// # Shapes
/// - `q`, `k`, `v`, `y`, `lse`, `rng`: those of the forward pass
/// - `d_y`, `d_q`: as `q`
/// - `d_k`, `d_v`: as `k`
#[derive(Debug)]
pub struct AttentionBackward {
    /// The op whose gradient it is.
    pub forward: Attention,
}

impl Op for AttentionBackward {
    fn name(&self) -> &'static str {
        "attention_backward"
    }

    fn outputs(&self, inputs: &[TensorSpec]) -> Result<Vec<TensorSpec>, String> {
        let [q, k, v, y, lse, d_y, rng @ ..] = inputs else { return Err("needs q, k, v, y, lse, d_y".into()) };
        let tensors = [q, k, v].map(Clone::clone);
        let expected = self.forward.outputs(&[&tensors[..], rng].concat())?;
        expect("y", y, &expected[0].shape)?;
        expect("lse", lse, &expected[1].shape)?;
        expect("d_y", d_y, &q.shape)?;
        Ok(tensors.to_vec())
    }

    fn cpu(&self, inputs: &[CpuTensor], outputs: &[TensorSpec]) -> Vec<Vec<f64>> {
        let [q, k, v, y, lse, d_y] = [0, 1, 2, 3, 4, 5].map(|i| inputs[i].data);
        let [mut d_q, mut d_k, mut d_v] = [0, 1, 2].map(|i| vec![0.0; outputs[i].elements()]);
        for row in self.forward.rows(inputs, 6) {
            let (query, from) = (row.query.clone(), row.query.start);
            let mean = row.dot(d_y, y, from);
            for &(key, factor) in &row.keys {
                let weight = (row.scale() * row.dot(q, k, key) - lse[row.index]).exp();
                let d_score = row.scale() * weight * (factor * row.dot(d_y, v, key) - mean);
                let key_channels = key..key + query.len();
                add_channels(&mut d_q[query.clone()], k, key, d_score);
                add_channels(&mut d_k[key_channels.clone()], q, from, d_score);
                add_channels(&mut d_v[key_channels], d_y, from, weight * factor);
            }
        }
        vec![d_q, d_k, d_v]
    }

    fn program(&self, context: &OpContext) -> Result<Program> {
        let Some(extents) = self.forward.extents(context.inputs) else { return Ok(Program::default()) };
        program::backward(context, &extents, self.forward.dropout.as_ref())
    }

    fn takes_half(&self, operand: Slot) -> bool {
        matches!(operand, Slot::Input(0..=3 | 5) | Slot::Output(_))
    }

    fn flops(&self, inputs: &[TensorSpec], _: &[TensorSpec]) -> u64 {
        10 * inputs[0].elements() as u64 * inputs[1].shape[1] as u64
    }
}

/// The layer's cases for the self-test.
pub fn cases() -> Vec<Case> {
    // Of sequences, queries, keys, heads and channels of each.
    let case = |[s, queries, keys, heads, width]: [usize; 5], probability: f32| {
        let dropped = if probability > 0.0 { " dropped" } else { "" };
        Case::new(format!("attention {s} x {queries} of {keys}, {heads} x {width}{dropped}"), move |b| {
            let q = b.normal("q", &[s, queries, heads * width]);
            let [k, v] = ["k", "v"].map(|name| b.normal(name, &[s, keys, heads * width]));
            let dropout = (probability > 0.0).then(|| {
                let rng = b.words("rng", &[3], &[0x9e37_79b9, 17, 70_000]);
                Dropout { rng, stream: 3, probability }
            });
            Ok(vec![attention(&mut b.graph, q, k, v, heads, dropout)?])
        })
    };
    vec![
        case([130, 5, 5, 2, 8], 0.0).windowed(24_000),
        case([5, 33, 17, 2, 8], 0.0),
        case([5, 17, 17, 2, 2], 0.0),
        case([3, 9, 13, 4, 1], 0.0),
        case([3, 13, 9, 1, 1], 0.0),
        case([2, 7, 1, 2, 3], 0.0),
        case([3, 6, 11, 4, 3], 0.0),
        case([2, 1, 300, 2, 8], 0.0),
        case([300, 1, 5, 2, 4], 0.0),
        case([2, 70, 67, 1, 16], 0.0),
        case([3, 10, 6, 2, 7], 0.0),
        // With rows of weights that do and do not begin at a block of random words.
        case([3, 17, 17, 2, 8], 0.3),
        case([3, 34, 40, 2, 4], 0.3),
        case([67, 4, 7, 1, 8], 0.5).windowed(8192),
        case([2, 1, 301, 2, 2], 0.1),
        // Composed of products and a softmax.
        case([9, 7, 7, 2, 20], 0.0),
        case([5, 6, 13, 2, 32], 0.2),
        case([3, 5, 4, 1, 33], 0.0),
        Case::new("attention of large scores", |b| {
            let [q, k] = ["q", "k"].map(|name| {
                let values = (0..2 * 12 * 8).map(|i| f64::from(i % 5) * 4.0 + b.rng.normal()).collect();
                b.differentiable(name, &[2, 12, 8], values)
            });
            let v = b.normal("v", &[2, 12, 8]);
            Ok(vec![attention(&mut b.graph, q, k, v, 2, None)?])
        }),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn misfits_are_named() {
        let mut graph = Graph::new();
        let mut tensor = |shape: &[usize]| graph.input("x", TensorSpec::f32(shape));
        let [short, long, odd] = [[4, 8, 6], [4, 1 << 17, 6], [2, 8, 6]].map(|shape| tensor(&shape));
        let many = tensor(&[1 << 10, 1 << 13, 2]);
        let rng = graph.input("rng", TensorSpec::u32(&[3]));
        let mut message = |q, k, heads, probability: f32| {
            let dropout = (probability > 0.0).then_some(Dropout { rng, stream: 0, probability });
            attention(&mut graph, q, k, k, heads, dropout).unwrap_err().to_string()
        };
        assert!(message(short, short, 4, 0.0).contains("cannot be cut into 4 heads"));
        assert!(message(short, odd, 2, 0.0).contains("of equal S"));
        assert!(message(short, long, 2, 0.0).contains("at most 65536 tokens, not 131072"));
        assert!(message(short, short, 2, 1.0).contains("0 <= p < 1"));
        assert!(message(many, many, 1, 0.5).contains("at most 17179869184 weights"));
    }
}
