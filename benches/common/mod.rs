//! Graphs of one layer of which a single pass is observable, so that nothing else runs.

use std::sync::Arc;

use sep4d::Result;
use sep4d::gpu::Context;
use sep4d::graph::execute::{Executor, Memory};
use sep4d::graph::plan::Plan;
use sep4d::graph::tune::tuned;
use sep4d::graph::{Graph, TensorId, TensorSpec};
use sep4d::layers::conv3d::{ConvGeometry, conv_transpose3d, conv3d, conv3d_with};
use sep4d::layers::linear::linear;

/// What is timed by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pass {
    Forward,
    /// The gradient of x.
    BackwardData,
    /// The gradients of the weight and the bias.
    BackwardWeight,
}

impl Pass {
    pub const ALL: [Pass; 3] = [Pass::Forward, Pass::BackwardData, Pass::BackwardWeight];
}

/// A convolution, or a linear layer.
#[derive(Debug, Clone)]
pub struct Convolution {
    /// Of x, channels last.
    pub x: Vec<usize>,
    /// Channels of y.
    pub outputs: usize,
    pub layer: Layer,
}

/// What it does with them.
#[derive(Debug, Clone, Copy)]
#[allow(dead_code, reason = "the comparison with peers has but one of them")]
pub enum Layer {
    Linear,
    /// Padded to equal size, with a kernel of such extents.
    Same([usize; 3]),
    Strided(ConvGeometry),
    Transposed(ConvGeometry),
}

/// One pass of it on a device. The inputs that the pass does not use have no place there.
pub struct Ready {
    pub executor: Executor,
    /// x, weight, bias and d_y.
    pub inputs: [TensorId; 4],
    /// y; or d_x; or d_weight and d_bias.
    #[allow(dead_code, reason = "only the comparison with peers reads results")]
    pub observed: Vec<TensorId>,
}

impl Convolution {
    /// Of one pass: 2 x taps x inputs x outputs x voxels, the padding's zeros included. The voxels are those at which the kernel is
    /// put: of x, without those that a stride skips.
    pub fn flops(&self) -> u64 {
        let skipped = match self.layer {
            Layer::Strided(geometry) => geometry.stride.iter().product(),
            _ => 1,
        };
        let taps: usize = self.kernel().map_or(1, |kernel| kernel.iter().product());
        2 * (self.x.iter().product::<usize>() * taps * self.outputs / skipped) as u64
    }

    fn kernel(&self) -> Option<[usize; 3]> {
        match self.layer {
            Layer::Linear => None,
            Layer::Same(kernel) => Some(kernel),
            Layer::Strided(geometry) | Layer::Transposed(geometry) => Some(geometry.kernel),
        }
    }

    /// Builds one pass.
    pub fn ready(&self, context: &Arc<Context>, pass: Pass) -> Result<Ready> {
        let i = self.x[self.x.len() - 1];
        let mut graph = Graph::new();
        let channels = if let Layer::Transposed(_) = self.layer { [i, self.outputs] } else { [self.outputs, i] };
        let weight_shape = self.kernel().map_or(channels.to_vec(), |kernel| [&channels[..], &kernel].concat());
        let x = graph.input("x", TensorSpec::f32(&self.x));
        let weight = graph.input("weight", TensorSpec::f32(&weight_shape));
        let bias = graph.input("bias", TensorSpec::f32(&[self.outputs]));
        let y = match self.layer {
            Layer::Linear => linear(&mut graph, x, weight, Some(bias), false)?,
            Layer::Same(kernel) => conv3d(&mut graph, x, weight, bias, kernel)?,
            Layer::Strided(geometry) => conv3d_with(&mut graph, x, weight, Some(bias), geometry)?,
            Layer::Transposed(geometry) => conv_transpose3d(&mut graph, x, weight, Some(bias), geometry)?,
        };
        let y_spec = graph.tensor(y).spec.clone();
        let d_y = graph.input("d_y", y_spec);
        let gradients = graph.backward(&[(y, d_y)], &[x, weight, bias])?;
        let observed = match pass {
            Pass::Forward => vec![Some(y)],
            Pass::BackwardData => vec![gradients.of(&graph, x)],
            Pass::BackwardWeight => vec![gradients.of(&graph, weight), gradients.of(&graph, bias)],
        };
        let observed: Vec<TensorId> = observed.into_iter().flatten().collect();
        observed.iter().for_each(|&id| graph.keep(id));
        let context = &tuned(context.clone(), std::slice::from_ref(&graph), |_, _| true)?;
        let plan = Plan::new(&graph, context.limits())?;
        let memory = Memory::new(context, &[&plan])?;
        let executor = Executor::new(context, graph, plan, &memory)?;
        Ok(Ready { executor, inputs: [x, weight, bias, d_y], observed })
    }
}
