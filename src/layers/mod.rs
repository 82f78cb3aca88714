//! One file a layer: forward, backward, f64 CPU twin, docs; its kernels in `shaders/` under the same stem.

pub mod adam;
pub mod metrics;
pub mod pointwise;
pub mod reparameterise;
pub mod segmentation_loss;

use crate::selftest::Case;

/// Every layer's cases; `sep4d selftest` and the tests run them all.
pub fn cases() -> Vec<Case> {
    [adam::cases(), metrics::cases(), pointwise::cases(), reparameterise::cases(), segmentation_loss::cases()]
        .into_iter()
        .flatten()
        .collect()
}
