//! Keys and losses that several models have.

use super::{Key, LossTerm, Values};

/// C.
pub const LATENT_CHANNELS: Key = Key {
    key: "model.latent_channels",
    doc: "C, channels of the latent planes.",
    values: Values::Width { defaults: [4, 8, 16, 16], needed_for: Some("the latent planes need at least one channel") },
};

/// Width of the decoder.
pub const HIDDEN: Key = Key {
    key: "model.hidden",
    doc: "Width of the decoder at half resolution.",
    values: Values::Width { defaults: [8, 32, 64, 128], needed_for: Some("the decoder needs at least one channel") },
};

/// Width of its head.
pub const HEAD: Key = Key {
    key: "model.head",
    doc: "Width of the decoder at full resolution.",
    values: Values::Width {
        defaults: [4, 16, 32, 32],
        needed_for: Some("the decoder's head needs at least one channel"),
    },
};

/// Of Gaussian latents.
pub const KL: LossTerm =
    LossTerm { name: "kl", title: "KL", about: "KL divergence of the latent, before its weight", weight: "train.kl" };
