//! Sampling from the plane distributions, and their divergence from the standard normal (paper: Eqs. 7-8).

use super::case::Case;
use crate::graph::program::WORKGROUP;
use crate::graph::{CpuTensor, DType, Graph, Kernel, Node, Op, OpContext, Operand, Program, TensorId, TensorSpec};
use crate::{Result, rng};

/// Most elements of one invocation.
const MAX_ELEMENTS_PER_INVOCATION: usize = 16;

/// Workgroups that keep a GPU busy; larger inputs give each invocation more elements.
const ENOUGH_WORKGROUPS: usize = 1024;

/// Appends the sampling; returns `(sample, kl)`.
///
/// # Errors
/// [`crate::Error::Shape`] as [`Reparameterise`].
pub fn reparameterise(
    graph: &mut Graph,
    m: TensorId,
    rng: TensorId,
    stream: u32,
    kl_elements: usize,
) -> Result<(TensorId, TensorId)> {
    let outputs = graph.push(Reparameterise { stream, kl_elements }, &[m, rng])?;
    Ok((outputs[0], outputs[1]))
}

/// Appends [`Mean`]: what evaluation uses in place of a sample.
///
/// # Errors
/// [`crate::Error::Shape`] as [`Mean`].
pub fn mean(graph: &mut Graph, m: TensorId) -> Result<TensorId> {
    graph.push_one(Mean, &[m])
}

/// `sample = mu + eps * exp(logvar / 2)` and `kl = sum (mu^2 + exp(logvar) - 1 - logvar) / 2 / kl_elements`, where
/// `eps` of element `i` is [`rng::normal`]`(seed, step, stream, i)`, so that nothing random is stored.
///
/// # Shapes
/// - `m`: `[.., 2C]`, the first `C` channels `mu`, the others `logvar`
/// - `rng`: u32 `[3]` = (seed low, seed high, step), written by the host before each step
/// - `sample`: `[.., C]`
/// - `kl`: `[1]`
///
/// Saves `m`; the backward pass draws `eps` again and may overwrite `m`.
///
/// # Errors
/// [`crate::Error::Shape`] if `m` has an odd number of channels or `rng` is not three words.
#[derive(Debug)]
pub struct Reparameterise {
    /// Which stream of random numbers; each plane has one of its own.
    pub stream: u32,
    /// What the divergence is divided by: all plane elements of the model, so that the planes' `kl` add up to the mean.
    pub kl_elements: usize,
}

/// `d_mu = d_sample + d_kl * mu / kl_elements`,
/// `d_logvar = d_sample * eps * exp(logvar / 2) / 2 + d_kl * (exp(logvar) - 1) / 2 / kl_elements`.
///
/// # Shapes
/// - `m`, `rng`: those of [`Reparameterise`]
/// - `d_sample`: `[.., C]`; `d_kl`: `[1]`
/// - `d_m`: `[.., 2C]`, which may overwrite `m`
///
/// # Errors
/// [`crate::Error::Shape`] if the operands are not those of a forward pass.
#[derive(Debug)]
pub struct ReparameteriseBackward {
    /// That of the forward op.
    pub stream: u32,
    /// That of the forward op.
    pub kl_elements: usize,
}

/// `y = mu`: the first half of the channels of `m`; without a derivative.
///
/// # Shapes
/// - `m`: `[.., 2C]`
/// - `y`: `[.., C]`
///
/// # Errors
/// [`crate::Error::Shape`] if `m` has an odd number of channels.
#[derive(Debug)]
pub struct Mean;

fn halved(m: &TensorSpec) -> Result<TensorSpec, String> {
    let channels = m.channels();
    if m.shape.is_empty() || m.elements() == 0 || !channels.is_multiple_of(2) {
        return Err("m must be [.., 2C]: mu and logvar".to_owned());
    }
    if u32::try_from(m.elements()).is_err() {
        return Err("m must have fewer than 2^32 elements".to_owned());
    }
    let mut half = m.clone();
    if let Some(last) = half.shape.last_mut() {
        *last = channels / 2;
    }
    Ok(half)
}

fn check(inputs: &[TensorSpec], count: usize, kl_elements: usize) -> Result<TensorSpec, String> {
    if inputs.len() != count {
        return Err(format!("needs {count} operands, not {}", inputs.len()));
    }
    if inputs[1].dtype != DType::U32 || inputs[1].elements() != 3 {
        return Err("rng must be u32 [3]: seed low, seed high, step".to_owned());
    }
    if kl_elements == 0 {
        return Err("kl_elements must not be zero".to_owned());
    }
    halved(&inputs[0])
}

/// `eps` of all elements in f64.
fn noise(rng_words: &CpuTensor, stream: u32, elements: usize) -> impl Iterator<Item = f64> {
    let [low, high, step] = [0, 1, 2].map(|i| rng_words.data[i] as u32);
    let seed = u64::from(high) << 32 | u64::from(low);
    (0..elements).map(move |i| rng::normal(seed, step, stream, i as u32))
}

/// Rows of `m` as `(mu, logvar)`.
fn rows<'a>(m: &CpuTensor<'a>) -> impl Iterator<Item = (&'a [f64], &'a [f64])> {
    let channels = m.shape.last().copied().unwrap_or(2);
    m.data.chunks_exact(channels).map(move |row| row.split_at(channels / 2))
}

impl Op for Reparameterise {
    fn name(&self) -> &'static str {
        "reparameterise_forward"
    }

    fn outputs(&self, inputs: &[TensorSpec]) -> Result<Vec<TensorSpec>, String> {
        Ok(vec![check(inputs, 2, self.kl_elements)?, TensorSpec::f32(&[1])])
    }

    fn cpu(&self, inputs: &[CpuTensor], outputs: &[TensorSpec]) -> Vec<Vec<f64>> {
        let mut noise = noise(&inputs[1], self.stream, outputs[0].elements());
        let mut sample = Vec::with_capacity(outputs[0].elements());
        let mut kl = 0.0;
        for (mu, logvar) in rows(&inputs[0]) {
            for ((mu, logvar), eps) in mu.iter().zip(logvar).zip(noise.by_ref()) {
                sample.push(mu + eps * (logvar / 2.0).exp());
                kl += 0.5 * (mu * mu + logvar.exp() - 1.0 - logvar);
            }
        }
        vec![sample, vec![kl / self.kl_elements as f64]]
    }

    fn program(&self, context: &OpContext) -> Result<Program> {
        let channels = context.outputs[0].channels();
        let rows = context.outputs[0].rows();
        let each = if context.limits.policy.for_cpu {
            MAX_ELEMENTS_PER_INVOCATION
        } else {
            (rows * channels / (WORKGROUP * ENOUGH_WORKGROUPS)).clamp(1, MAX_ELEMENTS_PER_INVOCATION)
        };
        let windows = context.windows(rows, &[2 * channels, channels])?;
        let groups_of = |window: &std::ops::Range<usize>| (window.len() * channels).div_ceil(WORKGROUP * each);
        let all_groups: usize = windows.iter().map(groups_of).sum();
        let mut program = Program::default();
        let partials = program.scratch(all_groups);
        let mut first_group = 0;
        for window in &windows {
            let groups = groups_of(window);
            program.dispatch(
                Kernel::new("reparameterise.wgsl", "reparameterise_forward"),
                vec![
                    (window.len() * channels) as u32,
                    channels as u32,
                    self.stream,
                    (window.start * channels) as u32,
                    each as u32,
                    first_group as u32,
                    groups as u32,
                    (1.0 / self.kl_elements as f32).to_bits(),
                ],
                vec![
                    context.input(0).window(window, 2 * channels),
                    context.input(1),
                    context.output(0).window(window, channels),
                    Operand::scratch(partials, all_groups),
                ],
                context.grid(groups),
            );
            first_group += groups;
        }
        program.dispatch(
            Kernel::new("reparameterise.wgsl", "reparameterise_kl"),
            vec![0, 0, 0, 0, 0, 0, all_groups as u32, (1.0 / self.kl_elements as f32).to_bits()],
            vec![Operand::scratch(partials, all_groups), context.output(1)],
            [1, 1, 1],
        );
        Ok(program)
    }

    fn backward(
        &self,
        graph: &mut Graph,
        node: &Node,
        d_outputs: &[Option<TensorId>],
        needs: &[bool],
    ) -> Result<Vec<Option<TensorId>>> {
        if !needs[0] {
            return Ok(vec![None, None]);
        }
        let mut operands = node.inputs.clone();
        for (d_output, &output) in d_outputs.iter().zip(&node.outputs) {
            operands.push(match d_output {
                Some(d) => *d,
                None => {
                    let shape = graph.shape(output).to_vec();
                    graph.constant("reparameterise_unused", &shape, vec![0.0; shape.iter().product()])?
                }
            });
        }
        let op = ReparameteriseBackward { stream: self.stream, kl_elements: self.kl_elements };
        Ok(vec![Some(graph.push_one(op, &operands)?), None])
    }

    fn flops(&self, _: &[TensorSpec], outputs: &[TensorSpec]) -> u64 {
        20 * outputs[0].elements() as u64
    }
}

impl Op for ReparameteriseBackward {
    fn name(&self) -> &'static str {
        "reparameterise_backward"
    }

    fn outputs(&self, inputs: &[TensorSpec]) -> Result<Vec<TensorSpec>, String> {
        let half = check(inputs, 4, self.kl_elements)?;
        if inputs[2].elements() != half.elements() || inputs[3].elements() != 1 {
            return Err(format!("d_sample must be {half} and d_kl [1]"));
        }
        Ok(vec![inputs[0].clone()])
    }

    fn cpu(&self, inputs: &[CpuTensor], _: &[TensorSpec]) -> Vec<Vec<f64>> {
        let mut noise = noise(&inputs[1], self.stream, inputs[2].data.len());
        let mut d_sample = inputs[2].data.iter();
        let d_kl = inputs[3].data[0] / self.kl_elements as f64;
        let mut d_m = Vec::with_capacity(inputs[0].data.len());
        for (mu, logvar) in rows(&inputs[0]) {
            let mut d_logvar = Vec::with_capacity(logvar.len());
            for ((mu, logvar), (d, eps)) in mu.iter().zip(logvar).zip(d_sample.by_ref().zip(noise.by_ref())) {
                d_m.push(d + d_kl * mu);
                d_logvar.push(d * eps * (logvar / 2.0).exp() / 2.0 + d_kl * (logvar.exp() - 1.0) / 2.0);
            }
            d_m.extend(d_logvar);
        }
        vec![d_m]
    }

    fn program(&self, context: &OpContext) -> Result<Program> {
        let channels = context.inputs[0].channels() / 2;
        let mut program = Program::default();
        for window in context.windows(context.inputs[0].rows(), &[2 * channels, channels])? {
            let elements = window.len() * channels;
            program.dispatch(
                Kernel::new("reparameterise.wgsl", "reparameterise_backward"),
                vec![
                    elements as u32,
                    channels as u32,
                    self.stream,
                    (window.start * channels) as u32,
                    0,
                    0,
                    0,
                    (1.0 / self.kl_elements as f32).to_bits(),
                ],
                vec![
                    context.input(0).window(&window, 2 * channels),
                    context.input(1),
                    context.input(2).window(&window, channels),
                    context.input(3),
                    context.output(0).window(&window, 2 * channels),
                ],
                context.grid_for(elements),
            );
        }
        Ok(program)
    }

    fn in_place(&self) -> Option<(usize, usize)> {
        Some((0, 0))
    }

    fn flops(&self, inputs: &[TensorSpec], _: &[TensorSpec]) -> u64 {
        20 * inputs[2].elements() as u64
    }
}

impl Op for Mean {
    fn name(&self) -> &'static str {
        "reparameterise_mean"
    }

    fn outputs(&self, inputs: &[TensorSpec]) -> Result<Vec<TensorSpec>, String> {
        match inputs {
            [m] => Ok(vec![halved(m)?]),
            _ => Err("needs one operand".to_owned()),
        }
    }

    fn cpu(&self, inputs: &[CpuTensor], _: &[TensorSpec]) -> Vec<Vec<f64>> {
        vec![rows(&inputs[0]).flat_map(|(mu, _)| mu.to_vec()).collect()]
    }

    fn program(&self, context: &OpContext) -> Result<Program> {
        let channels = context.outputs[0].channels();
        let mut program = Program::default();
        for window in context.windows(context.outputs[0].rows(), &[2 * channels, channels])? {
            let elements = window.len() * channels;
            program.dispatch(
                Kernel::new("reparameterise.wgsl", "reparameterise_mean"),
                vec![elements as u32, channels as u32, 0, 0, 0, 0, 0, 0],
                vec![context.input(0).window(&window, 2 * channels), context.output(0).window(&window, channels)],
                context.grid_for(elements),
            );
        }
        Ok(program)
    }
}

/// The layer's cases for the self-test.
pub fn cases() -> Vec<Case> {
    let sampled = |name: &str, shape: &'static [usize], step: u32, kl_elements: usize| {
        Case::new(name, move |b| {
            let m = b.normal("m", shape);
            let rng = b.words("rng", &[3], &[0x9e37_79b9, 17, step]);
            let (sample, kl) = reparameterise(&mut b.graph, m, rng, 5, kl_elements)?;
            Ok(vec![sample, kl])
        })
    };
    vec![
        sampled("reparameterise", &[3, 37, 16], 3, 5000).windowed(2048),
        sampled("reparameterise large", &[1801, 10], 70_000, 9005).windowed(16_384),
        sampled("reparameterise one element", &[1, 2], 0, 1),
        Case::new("reparameterise divergence only", |b| {
            let m = b.normal("m", &[7, 6]);
            let rng = b.words("rng", &[3], &[1, 2, 3]);
            let (_, kl) = reparameterise(&mut b.graph, m, rng, 0, 21)?;
            Ok(vec![kl])
        }),
        Case::new("reparameterise mean", |b| {
            let m = b.constant_normal("m", &[5, 29, 14]);
            Ok(vec![mean(&mut b.graph, m)?])
        })
        .windowed(4096),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Error;

    #[test]
    fn misfits_are_named() {
        let mut graph = Graph::new();
        let odd = graph.input("m", TensorSpec::f32(&[4, 3]));
        let even = graph.input("m", TensorSpec::f32(&[4, 6]));
        let (rng, words) = (graph.input("rng", TensorSpec::u32(&[3])), graph.input("rng", TensorSpec::u32(&[2])));
        let message = |result: Result<(TensorId, TensorId)>| match result {
            Err(Error::Shape(message)) => message,
            other => panic!("{other:?}"),
        };
        assert!(message(reparameterise(&mut graph, odd, rng, 0, 1)).contains("mu and logvar"));
        assert!(message(reparameterise(&mut graph, even, words, 0, 1)).contains("seed low"));
        assert!(mean(&mut graph, odd).is_err());
    }
}
