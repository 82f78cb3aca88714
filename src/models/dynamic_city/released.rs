//! The checkpoint that DynamicCity's authors released, as parameters of the model here.

use std::collections::BTreeMap;

use crate::graph::ParameterSpec;
use crate::models::modules::PLANES;
use crate::{Error, Result};

/// Tensors of a checkpoint by name: shape and values, the last axis the fastest.
pub type Tensors = BTreeMap<String, (Vec<usize>, Vec<f32>)>;

/// The values of the model's `parameters`, in their order, from tensors with the names and shapes of the release. Others are left
/// aside.
///
/// # Errors
/// [`Error::Data`] naming the first tensor that is missing or of another shape.
pub fn parameters(parameters: &[ParameterSpec], released: &Tensors) -> Result<Vec<Vec<f32>>> {
    parameters.iter().map(|parameter| value(parameter, released)).collect()
}

fn value(parameter: &ParameterSpec, released: &Tensors) -> Result<Vec<f32>> {
    let Source { name, part } = source(&parameter.name).ok_or_else(|| {
        Error::Data(format!("the released DynamicCity has nothing in the place of {}", parameter.name))
    })?;
    let Some((shape, values)) = released.get(&name) else {
        return Err(Error::Data(format!(
            "the released checkpoint lacks the tensor {name}, which becomes {}; choose one of DynamicCity's VAE",
            parameter.name
        )));
    };
    let mut needed = parameter.shape.clone();
    needed[0] *= if part.is_some() { GROUPED } else { 1 };
    // Linear layers are convolutions of kernel 1 there, and tokens have a batch.
    let long = |shape: &[usize]| shape.iter().copied().filter(|&extent| extent > 1).collect::<Vec<_>>();
    if long(shape) != long(&needed) || values.len() != needed.iter().product::<usize>() {
        return Err(Error::Data(format!(
            "the released checkpoint has {name} as {shape:?}, but the model needs {needed:?}; use the model.* values, T and grid \
             that it was trained with"
        )));
    }
    let start = part.unwrap_or(0) * parameter.elements();
    Ok(values[start..start + parameter.elements()].to_vec())
}

/// Planes whose convolutions are one grouped one in the release: those over space, and those over time.
const GROUPED: usize = 3;

/// Where a parameter is in the release.
struct Source {
    name: String,
    /// Which of a grouped convolution's planes, if it is one's.
    part: Option<usize>,
}

/// That of the parameter of this name.
fn source(name: &str) -> Option<Source> {
    let plane_number = |name: &str| PLANES.iter().position(|plane| *plane == name);
    // Of the first and the second layer of a block, with an activation and perhaps a norm between.
    let conv = |name: &str| if name == "conv1" { "0" } else { "3" };
    let mut grouped = None;
    let parts: Vec<&str> = name.split('.').collect();
    let name = match parts[..] {
        ["encoder", "embedding", part] => format!("encoder.embedding.{part}"),
        ["encoder", "projection", axes, "token"] => format!("encoder.tokens.{axes}"),
        ["encoder", "projection", axes, "positions"] => format!("encoder.pos_encodings.{axes}"),
        ["encoder", "projection", axes, out @ ("out1" | "out2"), part] => {
            format!("encoder.convs.{axes}.{}.{part}", if out == "out1" { 0 } else { 2 })
        }
        ["encoder", "projection", axes, layer, module, part] => {
            let number: usize = layer.strip_prefix("layer")?.parse().ok()?;
            let place = match module {
                "norm1" => "0.0",
                "norm2" => "1.0",
                "qkv" | "proj" => &format!("0.1.{module}"),
                _ => &format!("1.1.{module}"),
            };
            format!("encoder.transformers.{axes}.layers.{}.{place}.{part}", number.checked_sub(1)?)
        }
        ["encoder", "down", plane, part] => {
            format!("encoder.downsamplers.{}.down.1.0.{part}", plane_number(plane)?)
        }
        ["encoder", kind, ref layer @ ..] => {
            let kind = if kind == "space" { "voxel_encoder" } else { "t_encoder" };
            let layer = match *layer {
                ["conv0", part] => format!("conv0.{part}"),
                ["res0", name, part] => format!("conv1.{}.{part}", conv(name)),
                ["down", part] => format!("down.0.0.{part}"),
                ["res1", name, part] => format!("down.1.{}.{part}", conv(name)),
                _ => return None,
            };
            format!("encoder.{kind}.{layer}")
        }
        ["distributions", plane, part] => format!("vae.fc_mu_logvar.{}.{part}", plane_number(plane)?),
        ["decoder", "blocks", plane, "norm", part] => {
            format!("decoder.conv_block.norms.{}.{part}", plane_number(plane)?)
        }
        ["decoder", "blocks", plane, layer, part] => {
            let number = plane_number(plane)?;
            grouped = Some(number % GROUPED);
            let side = if number < GROUPED { "h" } else { "t" };
            let layer = match layer {
                "conv1" => format!("in_layers_{side}"),
                "conv2" => format!("out_layers_{side}.1"),
                _ => format!("shortcut_{side}"),
            };
            format!("decoder.conv_block.{layer}.{part}")
        }
        ["decoder", "up", plane, layer, part] => {
            let layer = if layer == "transposed" { 0 } else { 3 };
            format!("decoder.hex_upsample_block.{}.upsample.{layer}.{part}", plane_number(plane)?)
        }
        ["decoder", ref layer @ ..] => {
            let layer = match *layer {
                ["in", part] => format!("conv_in.0.{part}"),
                ["res3", name, part] => format!("conv_layers.0.{}.{part}", conv(name)),
                ["res1", name, part] => format!("conv_layers.1.{}.{part}", conv(name)),
                ["expand", part] => format!("transpose_conv.{part}"),
                ["head", "hidden", part] => format!("final_conv.0.{part}"),
                ["head", "out", part] => format!("final_conv.3.{part}"),
                _ => return None,
            };
            format!("decoder.voxel_decoder.{layer}")
        }
        _ => return None,
    };
    Some(Source { name, part: grouped })
}
