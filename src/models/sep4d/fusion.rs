//! The fusion g_theta (Eqs. 9-10): six sampled planes become one continuous 4D latent.

use super::Planes;
use crate::Result;
use crate::graph::{Graph, Init, TensorId};
use crate::layers::axis_mean::axis_mean;
use crate::layers::broadcast_add::broadcast_add;
use crate::layers::concat::concat;
use crate::layers::gate::gate;
use crate::layers::lift::lift;
use crate::layers::pointwise::Pointwise;
use crate::models::modules::{LinearOptions, conv_layer, linear_layer, positional_code};

/// `z [B, T, X', Y', Z', D]` from planes of D features (`docs/model.md`).
///
/// The static planes are lifted to a volume V, whose 3x3x3 stencil gates the temporal planes, so that whatever changes in
/// time is a function of V and its gradient (Eq. 5).
///
/// # Errors
/// [`crate::Error::Shape`] if the planes do not belong together.
pub fn structure_equivalent(g: &mut Graph, planes: &Planes) -> Result<TensorId> {
    let features = g.tensor(planes.xy).spec.channels();
    // Per plane: the two other static planes, averaged onto the axis that it lacks.
    let phi_xy = phi(g, "xy", [(planes.xz, 1), (planes.yz, 1)])?;
    let phi_xz = phi(g, "xz", [(planes.xy, 1), (planes.yz, 2)])?;
    let phi_yz = phi(g, "yz", [(planes.xy, 2), (planes.xz, 2)])?;
    let volume = lift(g, [phi_xy, planes.xy, phi_xz, planes.xz, phi_yz, planes.yz])?;
    let psi = conv_layer(g, volume, "psi", 3 * features, [3, 3, 3], None)?;
    let psi = g.push_one(Pointwise::Sigmoid { scale: 2.0 }, &[psi])?;
    let change = gate(g, psi, [planes.tx, planes.ty, planes.tz])?;
    g.scope("mlp", |g| {
        let hidden = 2 * features;
        let still = linear_layer(g, volume, "static", hidden, LinearOptions { no_bias: true, ..Default::default() })?;
        let moving = linear_layer(g, change, "dynamic", hidden, LinearOptions::default())?;
        let hidden = broadcast_add(g, moving, still, true)?;
        linear_layer(g, hidden, "out", features, LinearOptions::default())
    })
}

/// Geometry-aware attention along the axis that plane `name` lacks, `[B, n, D]`: from that axis' positional code and the
/// other two static planes averaged onto it. Each of `others` comes with the axis to average over.
fn phi(g: &mut Graph, name: &str, others: [(TensorId, usize); 2]) -> Result<TensorId> {
    let means = others.map(|(plane, axis)| axis_mean(g, plane, axis));
    let [first, second] = means;
    let (first, second) = (first?, second?);
    let &[batch, extent, features] = g.shape(first) else {
        return Err(crate::Error::Shape(format!("phi.{name}: {} is not [B, n, D]", g.describe(first))));
    };
    g.scope(&format!("phi.{name}"), |g| {
        let code = g.constant("code", &[batch, extent, 9], positional_code(&[extent]).repeat(batch))?;
        let joined = concat(g, &[code, first, second])?;
        let hidden =
            linear_layer(g, joined, "hidden", features, LinearOptions { activation: true, ..Default::default() })?;
        let one = LinearOptions { bias: Some(Init::Constant(1.0)), ..Default::default() };
        linear_layer(g, hidden, "out", features, one)
    })
}
