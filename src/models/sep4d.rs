//! SEP-4D: planar factorisation of 4D occupancy with a structure-equivalence prior.

use serde::{Deserialize, Serialize};

/// The widths of SEP-4D.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ModelConfig {
    /// K, the number of classes.
    pub classes: usize,
    /// C, the latent channels.
    pub latent_channels: usize,
    /// D, the channels of a plane's features.
    pub plane_features: usize,
    /// hid, the decoder's width.
    pub hidden: usize,
    /// hr, the width at full resolution.
    pub head: usize,
}
