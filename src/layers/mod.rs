//! One file a layer: forward, backward, f64 CPU twin, docs; its kernels in `shaders/` under the same stem.

pub mod activation;
pub mod adam;
pub mod attention;
pub mod average;
pub mod axis_mean;
pub mod axis_pool;
pub mod batch_norm;
pub mod broadcast_add;
pub mod broadcast_mul;
pub mod case;
pub mod ceiling;
pub mod commitment_loss;
mod common;
pub mod concat;
pub mod conv3d;
pub mod dropout;
pub mod gate;
pub mod gather;
pub mod group_norm;
pub mod instance_norm;
pub mod label_conv;
pub mod label_table;
pub mod layer_norm;
pub mod lift;
pub mod likely;
pub mod linear;
pub mod matmul;
pub mod metrics;
pub mod nearest_code;
pub mod pad3d;
pub mod permute;
pub mod plane_product;
pub mod pointwise;
mod reduce;
pub mod reparameterise;
pub mod resample;
pub mod segmentation_loss;
pub mod softmax;
pub mod space_to_depth;
pub mod unpack;

use case::Case;

/// Every layer's cases; `sep4d selftest` and the tests run them all.
pub fn cases() -> Vec<Case> {
    [
        activation::cases(),
        adam::cases(),
        attention::cases(),
        average::cases(),
        axis_mean::cases(),
        axis_pool::cases(),
        batch_norm::cases(),
        broadcast_add::cases(),
        broadcast_mul::cases(),
        ceiling::cases(),
        commitment_loss::cases(),
        concat::cases(),
        conv3d::cases(),
        dropout::cases(),
        gate::cases(),
        gather::cases(),
        group_norm::cases(),
        instance_norm::cases(),
        label_conv::cases(),
        label_table::cases(),
        layer_norm::cases(),
        lift::cases(),
        likely::cases(),
        linear::cases(),
        matmul::cases(),
        metrics::cases(),
        nearest_code::cases(),
        pad3d::cases(),
        permute::cases(),
        plane_product::cases(),
        pointwise::cases(),
        reparameterise::cases(),
        resample::cases(),
        segmentation_loss::cases(),
        softmax::cases(),
        space_to_depth::cases(),
        unpack::cases(),
    ]
    .into_iter()
    .flatten()
    .collect()
}
