//! Philox4x32-10, the counter-based generator of Salmon et al. (SC 2011), the same on CPU and GPU.
//!
//! Every random number of a run is a function of `(seed, step, stream, index)`, so nothing depends on the order of
//! execution and a resumed run repeats the very numbers. `shaders/common/philox.wgsl` is the same code in WGSL.

/// One Philox4x32-10 block: four words from a 128-bit counter and a 64-bit key.
pub fn philox(mut counter: [u32; 4], mut key: [u32; 2]) -> [u32; 4] {
    for _ in 0..10 {
        let p0 = u64::from(counter[0]) * 0xD251_1F53;
        let p1 = u64::from(counter[2]) * 0xCD9E_8D57;
        counter =
            [(p1 >> 32) as u32 ^ counter[1] ^ key[0], p1 as u32, (p0 >> 32) as u32 ^ counter[3] ^ key[1], p0 as u32];
        key = [key[0].wrapping_add(0x9E37_79B9), key[1].wrapping_add(0xBB67_AE85)];
    }
    counter
}

/// A uniform number in (0, 1], exactly representable in f32, from the upper 24 bits of a word.
pub fn unit(word: u32) -> f64 {
    f64::from((word >> 8) + 1) / 16_777_216.0
}

/// The standard normal number `index` of the stream `(seed, step, stream)`.
///
/// Box-Muller on words 0 and 1 of the block `[index, stream, step, 0]`; the block's other two words are not used, so that
/// every element is independent of its neighbours.
pub fn normal(seed: u64, step: u32, stream: u32, index: u32) -> f64 {
    let words = philox([index, stream, step, 0], [seed as u32, (seed >> 32) as u32]);
    (-2.0 * unit(words[0]).ln()).sqrt() * (2.0 * std::f64::consts::PI * unit(words[1])).cos()
}

/// A sequential generator over one Philox stream, for whatever runs on the CPU: initialisation, shuffling, towns, tests.
#[derive(Debug, Clone)]
pub struct Rng {
    key: [u32; 2],
    stream: u64,
    block: u64,
    words: [u32; 4],
    used: usize,
}

impl Rng {
    /// The generator of `stream` under `seed`.
    pub fn new(seed: u64, stream: u64) -> Self {
        Rng { key: [seed as u32, (seed >> 32) as u32], stream, block: 0, words: [0; 4], used: 4 }
    }

    /// The next 32 random bits.
    pub fn next_u32(&mut self) -> u32 {
        if self.used == 4 {
            let counter =
                [self.block as u32, (self.block >> 32) as u32, self.stream as u32, (self.stream >> 32) as u32];
            self.words = philox(counter, self.key);
            self.block += 1;
            self.used = 0;
        }
        self.used += 1;
        self.words[self.used - 1]
    }

    /// Uniform in (0, 1].
    pub fn unit(&mut self) -> f64 {
        unit(self.next_u32())
    }

    /// Uniform in [low, high].
    pub fn uniform(&mut self, low: f64, high: f64) -> f64 {
        low + (high - low) * self.unit()
    }

    /// Uniform integer in `0..n` (`n` at least 1).
    pub fn below(&mut self, n: usize) -> usize {
        ((u64::from(self.next_u32()) * n as u64) >> 32) as usize
    }

    /// True with probability `p`.
    pub fn chance(&mut self, p: f64) -> bool {
        self.unit() <= p
    }

    /// Standard normal (Box-Muller).
    pub fn normal(&mut self) -> f64 {
        let radius = (-2.0 * self.unit().ln()).sqrt();
        radius * (2.0 * std::f64::consts::PI * self.unit()).cos()
    }

    /// Shuffles in place (Fisher-Yates).
    pub fn shuffle<T>(&mut self, items: &mut [T]) {
        for i in (1..items.len()).rev() {
            items.swap(i, self.below(i + 1));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn philox_matches_the_published_vectors() {
        // Known-answer vectors of the Random123 distribution.
        assert_eq!(philox([0; 4], [0; 2]), [0x6627_e8d5, 0xe169_c58d, 0xbc57_ac4c, 0x9b00_dbd8]);
        assert_eq!(philox([u32::MAX; 4], [u32::MAX; 2]), [0x408f_276d, 0x41c8_3b0e, 0xa20b_c7c6, 0x6d54_51fd]);
    }

    #[test]
    fn normals_have_zero_mean_and_unit_variance() {
        let n = 100_000;
        let values: Vec<f64> = (0..n).map(|i| normal(7, 3, 1, i)).collect();
        let mean = values.iter().sum::<f64>() / f64::from(n);
        let variance = values.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / f64::from(n);
        assert!(mean.abs() < 0.02 && (variance - 1.0).abs() < 0.02, "mean {mean}, variance {variance}");
    }
}
