//! The blocks of encoder and decoder: batch norms, convolutions and attention along each axis.

use crate::Result;
use crate::graph::{Add, Graph, Init, TensorId};
use crate::layers::attention::attention;
use crate::layers::batch_norm::{RunningAverage, batch_norm, batch_norm_inference};
use crate::layers::conv3d::{ConvGeometry, conv3d_with};
use crate::layers::permute::permute;
use crate::layers::pointwise::Pointwise;
use crate::models::Mode;
use crate::models::modules::{LinearOptions, default_init, linear_layer};

/// Heads of an attention.
const HEADS: usize = 2;

/// The axes along which there is attention, with their places in `[B, T, X, Y, W]`.
const AXES: [(&str, usize); 3] = [("y", 3), ("x", 2), ("t", 1)];

/// `x + axial(relu(BN3(conv2(relu(BN2(conv1(relu(BN1(x)))))))))` of `x [B, T, X, Y, W]`.
///
/// # Errors
/// [`crate::Error::Shape`] if the names are taken.
pub fn block(g: &mut Graph, x: TensorId, mode: Mode) -> Result<TensorId> {
    let width = g.tensor(x).spec.channels();
    let h = norm_relu(g, x, "norm1", mode)?;
    let h = conv(g, h, "conv1", width / 2)?;
    let h = norm_relu(g, h, "norm2", mode)?;
    let h = linear_layer(g, h, "conv2", width, LinearOptions { no_bias: true, ..Default::default() })?;
    let h = norm_relu(g, h, "norm3", mode)?;
    AXES.into_iter().try_fold(x, |sum, (name, axis)| {
        let attended = g.scope(&format!("attention.{name}"), |g| attention_along(g, h, axis))?;
        g.push_one(Add, &[sum, attended])
    })
}

/// relu after batch norm: with the statistics of the batch where it is trained, which move the running ones, else with these.
///
/// # Errors
/// [`crate::Error::Shape`] if the name is taken, or a batch has less than two rows.
pub fn norm_relu(g: &mut Graph, x: TensorId, name: &str, mode: Mode) -> Result<TensorId> {
    const EPS: f32 = 1e-5;
    let shape = [g.tensor(x).spec.channels()];
    let y = g.scope(name, |g| {
        let weight = g.parameter("weight", &shape, Init::Constant(1.0))?;
        let bias = g.parameter("bias", &shape, Init::Constant(0.0))?;
        let running = [
            g.buffer("running_mean", &shape, Init::Constant(0.0))?,
            g.buffer("running_var", &shape, Init::Constant(1.0))?,
        ];
        let Mode::Train { .. } = mode else { return batch_norm_inference(g, x, weight, bias, running, EPS) };
        let norm = batch_norm(g, x, weight, bias, EPS)?;
        for (running, batch) in running.into_iter().zip([norm.mean, norm.variance]) {
            g.push_into(RunningAverage { momentum: 0.1 }, &[running, batch], &[running])?;
        }
        Ok(norm.y)
    })?;
    g.push_one(Pointwise::Relu, &[y])
}

/// `nn.Conv3d(I, outputs, 3, padding=1, bias=False)`.
fn conv(g: &mut Graph, x: TensorId, name: &str, outputs: usize) -> Result<TensorId> {
    let inputs = g.tensor(x).spec.channels();
    g.scope(name, |g| {
        let weight = g.parameter("weight", &[outputs, inputs, 3, 3, 3], default_init(inputs * 27))?;
        conv3d_with(g, x, weight, None, ConvGeometry::new([3; 3], [1; 3], [1; 3]))
    })
}

/// Self-attention of the cells of `x [B, T, X, Y, W]` that lie along one axis.
fn attention_along(g: &mut Graph, x: TensorId, axis: usize) -> Result<TensorId> {
    let width = g.tensor(x).spec.channels();
    // With that axis beside the channels, and back.
    let order: Vec<usize> = (0..4).filter(|&other| other != axis).chain([axis, 4]).collect();
    let back: Vec<usize> = (0..5).filter_map(|to| order.iter().position(|&from| from == to)).collect();
    let x = permute(g, x, &order)?;
    let shape = g.shape(x).to_vec();
    let x = g.reshape(x, &[shape[..3].iter().product(), shape[3], width])?;
    let layer = |g: &mut Graph, x, name: &str, no_bias| {
        let weight = Some(Init::Gaussian((1.0 / width as f64).sqrt()));
        linear_layer(g, x, name, width, LinearOptions { no_bias, weight, ..Default::default() })
    };
    let [q, k, v] = [layer(g, x, "q", true)?, layer(g, x, "k", true)?, layer(g, x, "v", true)?];
    let read = attention(g, q, k, v, HEADS, None)?;
    let out = layer(g, read, "out", false)?;
    let out = g.reshape(out, &shape)?;
    permute(g, out, &back)
}
