//! Modules that several models share: layers with their parameters, under PyTorch's names and initial values.

use super::{BuiltLatent, LatentKind, LatentSpec, Losses, Mode};
use crate::Result;
use crate::graph::{Graph, Init, TensorId, TensorSpec};
use crate::layers::conv3d::{ConvGeometry, conv_transpose3d, conv3d, conv3d_with};
use crate::layers::instance_norm::instance_norm;
use crate::layers::linear::linear;
use crate::layers::pad3d::{PadMode, Padding, pad3d};
use crate::layers::pointwise::weighted_sum;
use crate::layers::reparameterise::{mean, reparameterise};

/// The axes of latent planes, which are their names too, in the order used everywhere.
pub const PLANES: [&str; 6] = ["xy", "xz", "yz", "tx", "ty", "tz"];

/// PyTorch's default for a layer with `fan_in` inputs per output.
pub fn default_init(fan_in: usize) -> Init {
    Init::Uniform(1.0 / (fan_in as f64).sqrt())
}

/// Turns the distributions of a model's Gaussian latents into what is decoded, by [`Mode`].
pub struct Sampler {
    mode: Mode,
    /// Of all latents together, over which their divergence is averaged.
    elements: usize,
    divergences: Vec<(f32, TensorId)>,
    latents: Vec<BuiltLatent>,
}

impl Sampler {
    /// For latents whose distributions have so many elements, means and log-variances together.
    pub fn new(mode: Mode, distributions: usize) -> Sampler {
        Sampler { mode, elements: distributions / 2, divergences: Vec::new(), latents: Vec::new() }
    }

    /// What is decoded of the latent of this name with `encoded [.., 2C]`: `[.., C]`. Noise is drawn from the stream of the
    /// latent's number.
    ///
    /// # Errors
    /// [`crate::Error::Shape`] if that is no distribution.
    pub fn decoded(
        &mut self,
        g: &mut Graph,
        name: &'static str,
        axes: &'static str,
        encoded: TensorId,
    ) -> Result<TensorId> {
        let decoded = match self.mode {
            Mode::Look => mean(g, encoded)?,
            Mode::Decode => {
                let mut shape = g.shape(encoded).to_vec();
                shape.iter_mut().next_back().into_iter().for_each(|channels| *channels /= 2);
                g.input(name, TensorSpec::f32(&shape))
            }
            Mode::Train { rng } => {
                let (sample, divergence) = reparameterise(g, encoded, rng, self.latents.len() as u32, self.elements)?;
                self.divergences.push((1.0, divergence));
                sample
            }
        };
        let latent = LatentSpec { name, axes, kind: LatentKind::Gaussian };
        self.latents.push(BuiltLatent { latent, encoded, decoded });
        Ok(decoded)
    }

    /// The latents in order, and where they are trained their Kullback-Leibler divergence from the standard normal, the mean
    /// over all elements, under the name `kl`.
    ///
    /// # Errors
    /// [`crate::Error::Shape`] if there are too many of them.
    pub fn finish(self, g: &mut Graph) -> Result<(Vec<BuiltLatent>, Losses)> {
        let losses = match self.divergences.as_slice() {
            [] => Vec::new(),
            divergences => vec![("kl", g.scope("loss", |g| weighted_sum(g, divergences))?)],
        };
        Ok((self.latents, losses))
    }
}

/// `(mu, logvar)`, `[.., 2C]`, from `x`, parameters `name.weight`, `name.bias`. The log-variances start near -4.
///
/// # Errors
/// [`crate::Error::Shape`] if the name is taken.
pub fn distribution_layer(g: &mut Graph, x: TensorId, name: &str, channels: usize) -> Result<TensorId> {
    let inputs = g.tensor(x).spec.channels();
    let bound = 1.0 / (inputs as f64).sqrt();
    let rows = channels * inputs;
    let options = LinearOptions {
        weight: Some(Init::Runs(vec![(rows, Init::Uniform(bound)), (rows, Init::Uniform(0.1 * bound))])),
        bias: Some(Init::Runs(vec![(channels, Init::Uniform(bound)), (channels, Init::Constant(-4.0))])),
        ..Default::default()
    };
    linear_layer(g, x, name, 2 * channels, options)
}

/// How [`linear_layer`] differs from `nn.Linear`.
#[derive(Debug, Clone, Default)]
pub struct LinearOptions {
    /// No bias parameter.
    pub no_bias: bool,
    /// Leaky ReLU after it.
    pub activation: bool,
    /// Initial weight where it is not PyTorch's.
    pub weight: Option<Init>,
    /// Initial bias where it is not PyTorch's.
    pub bias: Option<Init>,
}

/// `nn.Linear(I, outputs)` on the channel axis of `x`, parameters `name.weight`, `name.bias`.
///
/// # Errors
/// [`crate::Error::Shape`] if the name is taken.
pub fn linear_layer(
    g: &mut Graph,
    x: TensorId,
    name: &str,
    outputs: usize,
    options: LinearOptions,
) -> Result<TensorId> {
    let inputs = g.tensor(x).spec.channels();
    g.scope(name, |g| {
        let weight =
            g.parameter("weight", &[outputs, inputs], options.weight.unwrap_or_else(|| default_init(inputs)))?;
        let bias = match options.no_bias {
            true => None,
            false => Some(g.parameter("bias", &[outputs], options.bias.unwrap_or_else(|| default_init(inputs)))?),
        };
        linear(g, x, weight, bias, options.activation)
    })
}

/// `nn.Conv3d(I, outputs, kernel, padding="same")`, or `nn.Conv2d` for kernel `[1, 3, 3]`, on `x [N, X, Y, Z, I]`.
///
/// # Errors
/// [`crate::Error::Shape`] if the name is taken.
pub fn conv_layer(
    g: &mut Graph,
    x: TensorId,
    name: &str,
    outputs: usize,
    kernel: [usize; 3],
    init: Option<Init>,
) -> Result<TensorId> {
    let inputs = g.tensor(x).spec.channels();
    let init = init.unwrap_or_else(|| default_init(inputs * kernel.iter().product::<usize>()));
    let spatial = if kernel[0] == 1 { &kernel[1..] } else { &kernel[..] };
    g.scope(name, |g| {
        let weight = g.parameter("weight", &[&[outputs, inputs], spatial].concat(), init.clone())?;
        let bias = g.parameter("bias", &[outputs], init)?;
        conv3d(g, x, weight, bias, kernel)
    })
}

/// `nn.Conv3d(I, outputs, 3, padding=1, padding_mode="replicate")` on `x [N, X, Y, Z, I]`.
fn continued_conv_layer(g: &mut Graph, x: TensorId, name: &str, outputs: usize) -> Result<TensorId> {
    let inputs = g.tensor(x).spec.channels();
    let init = default_init(27 * inputs);
    g.scope(name, |g| {
        let weight = g.parameter("weight", &[outputs, inputs, 3, 3, 3], init.clone())?;
        let bias = g.parameter("bias", &[outputs], init)?;
        let x = pad3d(g, x, Padding { before: [1; 3], after: [1; 3], mode: PadMode::Replicate })?;
        conv3d_with(g, x, weight, Some(bias), ConvGeometry::new([3; 3], [1; 3], [0; 3]))
    })
}

/// `nn.Conv3d(I, outputs, by, stride=by)`, or `nn.Conv2d` along y and z where `by` begins with 1, on `x [N, X, Y, Z, I]`.
///
/// # Errors
/// [`crate::Error::Shape`] if the name is taken, or the extents are no multiples.
pub fn down_layer(g: &mut Graph, x: TensorId, name: &str, outputs: usize, by: [usize; 3]) -> Result<TensorId> {
    let inputs = g.tensor(x).spec.channels();
    let init = default_init(inputs * by.iter().product::<usize>());
    strided_layer(g, name, [outputs, inputs], outputs, by, init, |g, weight, bias| {
        conv3d_with(g, x, weight, Some(bias), ConvGeometry::new(by, by, [0; 3]))
    })
}

/// `nn.ConvTranspose3d(I, outputs, by, stride=by)`, or `nn.ConvTranspose2d`, likewise.
///
/// # Errors
/// [`crate::Error::Shape`] if the name is taken.
pub fn up_layer(g: &mut Graph, x: TensorId, name: &str, outputs: usize, by: [usize; 3]) -> Result<TensorId> {
    let inputs = g.tensor(x).spec.channels();
    // PyTorch's fan-in of a transposed convolution counts its output channels.
    let init = default_init(outputs * by.iter().product::<usize>());
    strided_layer(g, name, [inputs, outputs], outputs, by, init, |g, weight, bias| {
        conv_transpose3d(g, x, weight, Some(bias), ConvGeometry::new(by, by, [0; 3]))
    })
}

fn strided_layer(
    g: &mut Graph,
    name: &str,
    channels: [usize; 2],
    outputs: usize,
    by: [usize; 3],
    init: Init,
    layer: impl FnOnce(&mut Graph, TensorId, TensorId) -> Result<TensorId>,
) -> Result<TensorId> {
    let spatial = if by[0] == 1 { &by[1..] } else { &by[..] };
    g.scope(name, |g| {
        let weight = g.parameter("weight", &[&channels[..], spatial].concat(), init.clone())?;
        let bias = g.parameter("bias", &[outputs], init)?;
        let weight = g.reshape(weight, &[&channels[..], &by[..]].concat())?;
        layer(g, weight, bias)
    })
}

/// Kernel of a residual block.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Kernel {
    /// 1x1x1.
    One,
    /// 3x3 along y and z, on tensors of one cell along x.
    Plane,
    /// 3x3x3.
    Three,
    /// 3x3x3 on a volume that is continued by its edge, not by zeros.
    Continued,
}

/// `x + act(IN(conv2(lrelu(IN(conv1(x))))))` of equal width, with leaky ReLU for `act` if `branch_activation`, and leaky
/// ReLU of the sum if `post_activation` (design: `Res3(c)`).
///
/// # Errors
/// [`crate::Error::Shape`] if the name is taken.
pub fn residual_block(
    g: &mut Graph,
    x: TensorId,
    name: &str,
    kernel: Kernel,
    branch_activation: bool,
    post_activation: bool,
) -> Result<TensorId> {
    let width = g.tensor(x).spec.channels();
    let conv = |g: &mut Graph, x, name: &str| match kernel {
        Kernel::One => linear_layer(g, x, name, width, LinearOptions::default()),
        Kernel::Plane => conv_layer(g, x, name, width, [1, 3, 3], None),
        Kernel::Three => conv_layer(g, x, name, width, [3, 3, 3], None),
        Kernel::Continued => continued_conv_layer(g, x, name, width),
    };
    g.scope(name, |g| {
        let h = conv(g, x, "conv1")?;
        let h = instance_norm(g, h, None, true, false)?;
        let h = conv(g, h, "conv2")?;
        instance_norm(g, h, Some(x), branch_activation, post_activation)
    })
}

/// `pe(u) = [2u-1, sin(2^f pi u), cos(2^f pi u)]`, f = 0..3, at the cell centres `u = (i + 1/2)/n` of every axis, the codes
/// of the axes concatenated: `[prod(extents), 9 * extents.len()]`.
pub fn positional_code(extents: &[usize]) -> Vec<f32> {
    let cells: usize = extents.iter().product();
    let mut codes = Vec::with_capacity(cells * 9 * extents.len());
    for cell in 0..cells {
        for (axis, &extent) in extents.iter().enumerate() {
            let stride: usize = extents[axis + 1..].iter().product();
            let u = ((cell / stride % extent) as f64 + 0.5) / extent as f64;
            codes.push((2.0 * u - 1.0) as f32);
            for f in 0..4 {
                let angle = f64::from(1 << f) * std::f64::consts::PI * u;
                codes.extend([angle.sin() as f32, angle.cos() as f32]);
            }
        }
    }
    codes
}
