//! A frame as soft fields of its static classes, in which motions of a part of a voxel show.

use std::f64::consts::PI;

use glam::DVec4;

use crate::data::{Frame, Grid};

/// Spread of the smoothing along x, y and z, voxels: the statistics of so many voxels tell a part of one.
const SPREAD: [f64; 3] = [1.5, 1.5, 0.7];
/// How many voxels the smoothing makes one: what is seen of a field is that much less than its voxels.
pub(super) const CORRELATED: f64 = 8.0 * PI * SPREAD[0] * SPREAD[1] * SPREAD[2] * 1.772_453_850_905_516;
/// Where less than this share of what is around was observed, a field says nothing.
const LEAST_CONFIDENCE: f32 = 0.2;
/// Fields of more voxels are made of blocks of 2 x 2 x 2.
const MOST_VOXELS: usize = 700_000;
/// Channels of a field: free space, the commonest static classes, and the others together.
const MOST_CHANNELS: usize = 10;
/// Points of a frame that are compared with another.
const MOST_SAMPLES: usize = 6000;
/// The square of the change from a voxel to the next, weighted, from which on a point tells where it is.
const LEAST_CHANGE: f32 = 0.005;
/// No channel counts more than this for being rare.
const RAREST: f64 = 1e-3;

/// How classes become channels: free space is channel 0, static classes follow, and what moves has none.
#[derive(Debug, Clone)]
pub(super) struct Channels {
    /// The channel of each class, `[K]`; `None` for what moves.
    of_class: Vec<Option<u8>>,
    /// How much the squared difference in each channel counts, `[C]`: by the square root of its rarity.
    pub weights: Vec<f32>,
}

impl Channels {
    /// Channels by the voxels of each class in a few frames, and which classes move, `[K]` both.
    pub fn new(counts: &[u64], moves: &[bool]) -> Channels {
        let mut order: Vec<usize> = (1..counts.len()).filter(|&class| !moves[class]).collect();
        order.sort_by_key(|&class| std::cmp::Reverse(counts[class]));
        let mut of_class = vec![None; counts.len()];
        of_class[0] = Some(0);
        let mut sums = vec![0; (order.len() + 1).min(MOST_CHANNELS)];
        for (place, &class) in order.iter().enumerate() {
            let channel = (place + 1).min(MOST_CHANNELS - 1);
            of_class[class] = Some(channel as u8);
            sums[channel] += counts[class];
        }
        let all = sums[1..].iter().sum::<u64>().max(1) as f64;
        let mut weights: Vec<f32> = sums.iter().map(|&sum| (sum as f64 / all).max(RAREST).powf(-0.5) as f32).collect();
        weights[0] = 1.0;
        Channels { of_class, weights }
    }

    /// C, how many there are.
    pub fn len(&self) -> usize {
        self.weights.len()
    }
}

/// One point of a frame that tells where it is.
#[derive(Debug, Clone, Copy)]
pub(super) struct Sample {
    /// Metres from the sensor.
    pub at: [f64; 3],
    /// The place of its voxel.
    voxel: usize,
    /// The channel that is most of its voxel.
    pub channel: u8,
}

/// The smoothed share of each channel in what was observed around each voxel.
#[derive(Debug)]
pub(super) struct Field {
    /// That of the frame, or coarser.
    pub grid: Grid,
    /// C, the number of channels.
    pub channels: usize,
    /// `[X, Y, Z, C]`
    pub share: Vec<f32>,
    /// Which part of what is around was observed, `[X, Y, Z]`.
    pub confidence: Vec<f32>,
    /// Where the field changes most, in the order of their voxels.
    pub samples: Vec<Sample>,
}

impl Field {
    /// The field of a frame.
    pub fn new(frame: &Frame, grid: &Grid, channels: &Channels) -> Field {
        let count = channels.len();
        let [nx, ny, nz] = grid.size;
        let (grid, step) = coarser(grid);
        let mut share = vec![0f32; grid.voxels() * count];
        let mut confidence = vec![0f32; grid.voxels()];
        let part = 1.0 / step.pow(3) as f32;
        for x in 0..nx {
            for y in 0..ny {
                for z in 0..nz {
                    let from = (x * ny + y) * nz + z;
                    let class = usize::from(frame.labels[from]);
                    if let Some(channel) = channels.of_class[class].filter(|_| frame.observed[from]) {
                        let to = grid.index(x / step, y / step, z / step);
                        share[to * count + usize::from(channel)] += part;
                        confidence[to] += part;
                    }
                }
            }
        }
        let most = |shares: &[f32]| shares.iter().enumerate().max_by(|a, b| a.1.total_cmp(b.1)).map(|(c, _)| c as u8);
        let solid: Vec<Option<u8>> = (share.chunks_exact(count).zip(&confidence))
            .map(|(shares, &seen)| if seen > 0.0 { most(shares) } else { None })
            .collect();
        for (axis, spread) in SPREAD.into_iter().enumerate() {
            let kernel = kernel(spread);
            smooth(&mut share, &grid, count, axis, &kernel);
            smooth(&mut confidence, &grid, 1, axis, &kernel);
        }
        for (shares, confidence) in share.chunks_exact_mut(count).zip(&mut confidence) {
            if *confidence < LEAST_CONFIDENCE {
                shares.fill(0.0);
                *confidence = 0.0;
            } else {
                shares.iter_mut().for_each(|share| *share /= *confidence);
            }
        }
        let mut field = Field { grid, channels: count, share, confidence, samples: Vec::new() };
        field.samples = field.telling(&solid, &channels.weights);
        field
    }

    /// How many bytes it takes.
    pub fn bytes(&self) -> usize {
        4 * (self.share.len() + self.confidence.len())
    }

    /// The points where the field changes most, of the voxels that have a channel.
    fn telling(&self, solid: &[Option<u8>], weights: &[f32]) -> Vec<Sample> {
        let mut found: Vec<(f32, usize, u8)> = Vec::new();
        for (v, channel) in solid.iter().enumerate() {
            let Some(channel) = *channel else { continue };
            let change = self.change(v, weights);
            if change > LEAST_CHANGE {
                found.push((change, v, channel));
            }
        }
        if found.len() > MOST_SAMPLES {
            found.select_nth_unstable_by(MOST_SAMPLES, |a, b| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1)));
            found.truncate(MOST_SAMPLES);
            found.sort_by_key(|&(_, v, _)| v);
        }
        let [_, ny, nz] = self.grid.size;
        let sample = |(_, v, channel): (f32, usize, u8)| {
            let place = [v / (ny * nz), v / nz % ny, v % nz];
            let middle = |a: usize| self.grid.min_bound_m[a] + (place[a] as f64 + 0.5) * self.grid.voxel_size_m[a];
            Sample { at: std::array::from_fn(middle), voxel: v, channel }
        };
        found.into_iter().map(sample).collect()
    }

    /// The weighted square of how the channels change from a voxel to the next, in the plane.
    fn change(&self, v: usize, weights: &[f32]) -> f32 {
        let along = |axis| {
            self.neighbours(v, axis).map_or(0.0, |(low, high, voxels)| {
                let squares = low.iter().zip(high).zip(weights).map(|((l, h), w)| w * (h - l) * (h - l));
                squares.sum::<f32>() / (voxels * voxels) as f32
            })
        };
        along(0) + along(1)
    }

    /// The channels to both sides of a voxel along an axis, as far as they are known, and how many voxels they are apart.
    fn neighbours(&self, v: usize, axis: usize) -> Option<(&[f32], &[f32], usize)> {
        let [_, ny, nz] = self.grid.size;
        let stride = [ny * nz, nz, 1][axis];
        let place = v / stride % self.grid.size[axis];
        let low = place > 0 && self.confidence[v - stride] > 0.0;
        let high = place + 1 < self.grid.size[axis] && self.confidence[v + stride] > 0.0;
        let apart = usize::from(low) + usize::from(high);
        let of = |v: usize| &self.share[v * self.channels..][..self.channels];
        let first = if low { v - stride } else { v };
        (apart > 0).then(|| (of(first), of(first + apart * stride), apart))
    }

    /// How each channel at a sample changes with (x, y, z, yaw) of the motion of its frame, per metre and radian, `[C]`.
    pub fn gradients(&self, sample: &Sample) -> Vec<DVec4> {
        let mut slopes = vec![[0f64; 3]; self.channels];
        for axis in 0..3 {
            if let Some((low, high, apart)) = self.neighbours(sample.voxel, axis) {
                let span = apart as f64 * self.grid.voxel_size_m[axis];
                let change = low.iter().zip(high).map(|(low, high)| f64::from(high - low) / span);
                slopes.iter_mut().zip(change).for_each(|(slope, change)| slope[axis] = change);
            }
        }
        let [x, y, _] = sample.at;
        slopes.into_iter().map(|[gx, gy, gz]| DVec4::new(gx, gy, gz, x * gy - y * gx)).collect()
    }

    /// Reads the channels at a point (metres) into `out` (`[C]`) and returns how far they are known; 0: not at all.
    ///
    /// Quadratic B-splines in the plane smooth alike wherever a point lies between voxels. Linear interpolation smooths between
    /// them only, which would draw motions to whole voxels.
    pub fn read(&self, at: [f64; 3], out: &mut [f32]) -> f32 {
        let size = self.grid.size;
        let mut first = [0i64; 3];
        let mut weights = [[0f32; 3]; 3];
        for a in 0..3 {
            let u = (at[a] - self.grid.min_bound_m[a]) / self.grid.voxel_size_m[a] - 0.5;
            // Written so that what is no number is outside, too.
            if !(u >= -0.5 && u <= size[a] as f64 - 0.5) {
                return 0.0;
            }
            if a < 2 {
                let nearest = u.round();
                let d = (u - nearest) as f32;
                first[a] = nearest as i64 - 1;
                weights[a] = [0.5 * (0.5 - d).powi(2), 0.75 - d * d, 0.5 * (0.5 + d).powi(2)];
            } else {
                let below = u.floor();
                let d = (u - below) as f32;
                first[a] = below as i64;
                weights[a] = [1.0 - d, d, 0.0];
            }
        }
        out.fill(0.0);
        let mut known = 0.0;
        let within = |a: usize, i: usize| usize::try_from(first[a] + i as i64).ok().filter(|place| *place < size[a]);
        for (i, wx) in weights[0].iter().enumerate() {
            let Some(x) = within(0, i) else { continue };
            for (j, wy) in weights[1].iter().enumerate() {
                let Some(y) = within(1, j) else { continue };
                for (k, wz) in weights[2].iter().enumerate() {
                    let Some(z) = within(2, k).filter(|_| *wz > 0.0) else { continue };
                    let voxel = self.grid.index(x, y, z);
                    let weight = wx * wy * wz * self.confidence[voxel];
                    if weight > 0.0 {
                        known += weight;
                        let shares = &self.share[voxel * self.channels..][..self.channels];
                        out.iter_mut().zip(shares).for_each(|(out, share)| *out += weight * share);
                    }
                }
            }
        }
        if known > 0.0 {
            out.iter_mut().for_each(|out| *out /= known);
        }
        known
    }
}

/// The grid of a field, and how many voxels of the frame one of its voxels has along each axis.
fn coarser(grid: &Grid) -> (Grid, usize) {
    let (mut coarse, mut step) = (*grid, 1);
    while coarse.voxels() > MOST_VOXELS {
        step *= 2;
        coarse.size = grid.size.map(|side| side.div_ceil(step));
        coarse.voxel_size_m = grid.voxel_size_m.map(|edge| edge * step as f64);
    }
    (coarse, step)
}

/// A normalised Gaussian.
fn kernel(spread: f64) -> Vec<f32> {
    let reach = (3.0 * spread).ceil() as i32;
    let raw: Vec<f64> = (-reach..=reach).map(|i| (-0.5 * (f64::from(i) / spread).powi(2)).exp()).collect();
    let sum: f64 = raw.iter().sum();
    raw.into_iter().map(|v| (v / sum) as f32).collect()
}

/// Convolves `[X, Y, Z, C]` values along one axis; beyond the grid nothing was observed.
fn smooth(values: &mut [f32], grid: &Grid, channels: usize, axis: usize, kernel: &[f32]) {
    let [nx, ny, nz] = grid.size;
    let reach = kernel.len() / 2;
    let (lines, run) = match axis {
        0 => (1, ny * nz * channels),
        1 => (nx, nz * channels),
        _ => (nx * ny, channels),
    };
    let length = grid.size[axis];
    let mut smoothed = vec![0f32; length * run];
    for line in values.chunks_exact_mut(length * run).take(lines) {
        smoothed.fill(0.0);
        for (i, out) in smoothed.chunks_exact_mut(run).enumerate() {
            for (k, &weight) in kernel.iter().enumerate() {
                let Some(from) = (i + k).checked_sub(reach).filter(|from| *from < length) else { continue };
                out.iter_mut().zip(&line[from * run..][..run]).for_each(|(out, value)| *out += weight * value);
            }
        }
        line.copy_from_slice(&smoothed);
    }
}
