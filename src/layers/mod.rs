//! One file a layer: forward, backward, f64 CPU twin, docs; its kernels in `shaders/` under the same stem.

pub mod axis_mean;
pub mod axis_pool;
pub mod instance_norm;
pub mod pointwise;
mod reduction;

use crate::selftest::Case;

/// Every layer's cases; `sep4d selftest` and the tests run them all.
pub fn cases() -> Vec<Case> {
    [
        pointwise::cases(), //
        instance_norm::cases(),
        axis_mean::cases(),
        axis_pool::cases(),
    ]
    .into_iter()
    .flatten()
    .collect()
}
