//! One file a layer: forward, backward, f64 CPU twin, docs; its kernels in `shaders/` under the same stem.

pub mod broadcast_add;
mod common;
pub mod concat;
pub mod gate;
pub mod label_table;
pub mod lift;
pub mod permute;
pub mod pointwise;

use crate::selftest::Case;

/// Every layer's cases; `sep4d selftest` and the tests run them all.
pub fn cases() -> Vec<Case> {
    [
        pointwise::cases(),
        lift::cases(),
        gate::cases(),
        broadcast_add::cases(),
        label_table::cases(),
        permute::cases(),
        concat::cases(),
    ]
    .into_iter()
    .flatten()
    .collect()
}
