//! Where a frame may lie over an earlier one: all turns and shifts on a coarse grid.

use super::field::{Channels, Field};
use super::motion::Motion;

/// Cells of the coarse grid along its longer side, at most.
const CELLS: usize = 64;
/// Points of the later frame that are laid over the earlier one, at most.
const POINTS: usize = 1200;
/// Turns that are tried to either side, and the difference between two, radians.
const TURNS: i32 = 8;
const TURN: f64 = 0.035;
/// Candidates that are no more cells and turns apart lead to the same motion.
const BESIDE: i64 = 2;
/// The longest shift along x and y, as a part of the grid.
const FARTHEST: f64 = 0.25;

/// What a point of each channel gains at each cell of a frame.
#[derive(Debug)]
pub(super) struct Table {
    cell_m: [f64; 3],
    min_m: [f64; 3],
    size: [usize; 3],
    /// `[C, X, Y, Z]`
    gain: Vec<f32>,
}

impl Table {
    pub fn new(field: &Field, channels: &Channels) -> Table {
        let [nx, ny, nz] = field.grid.size;
        let step = nx.max(ny).div_ceil(CELLS);
        let size = [nx.div_ceil(step), ny.div_ceil(step), nz];
        let (columns, count) = (size[0] * size[1], field.channels);
        let mut sums = vec![0f32; columns * nz * count];
        let mut known = vec![0f32; columns * nz];
        let parts = field.share.chunks_exact(count).zip(&field.confidence);
        for (v, (shares, &confidence)) in parts.enumerate() {
            let cell = (v / (ny * nz) / step * size[1] + v / nz % ny / step) * nz + v % nz;
            known[cell] += confidence;
            let sums = &mut sums[cell * count..][..count];
            sums.iter_mut().zip(shares).for_each(|(sum, share)| *sum += confidence * share);
        }
        // A point gains by how much more of its channel there is than is usual at this height: road on road tells little, a pole
        // on a pole much, and the unknown nothing.
        let mut usual = vec![0f32; nz * count];
        for (z, usual) in usual.chunks_exact_mut(count).enumerate() {
            let of = |c: usize| (0..columns).map(|column| sums[(column * nz + z) * count + c]).sum::<f32>();
            let all = (0..columns).map(|column| known[column * nz + z]).sum::<f32>().max(1.0);
            usual.iter_mut().enumerate().for_each(|(c, usual)| *usual = of(c) / all);
        }
        let mut gain = vec![0f32; sums.len()];
        for (cell, &known) in known.iter().enumerate().filter(|(_, known)| **known > 0.0) {
            let sure = (known / (step * step) as f32).min(1.0);
            for c in 0..count {
                let more = sums[cell * count + c] / known - usual[cell % nz * count + c];
                gain[c * columns * nz + cell] = channels.weights[c] * sure * more;
            }
        }
        let [dx, dy, dz] = field.grid.voxel_size_m;
        let cell_m = [dx * step as f64, dy * step as f64, dz];
        Table { cell_m, min_m: field.grid.min_bound_m, size, gain }
    }

    /// The likeliest motions of the frame `later` into this one, the best first, at most `most` and none beside another.
    pub fn candidates(&self, later: &Field, most: usize) -> Vec<Motion> {
        let stride = later.samples.len().div_ceil(POINTS).max(1);
        let [nx, ny, nz] = self.size;
        let reach = [nx, ny].map(|side| (side as f64 * FARTHEST) as i64);
        let [wide, deep] = reach.map(|reach| (2 * reach + 1) as usize);
        let mut found: Vec<(f32, [i64; 3])> = Vec::with_capacity(wide * deep * (2 * TURNS + 1) as usize);
        for turn in -TURNS..=TURNS {
            let turned = Motion { yaw: f64::from(turn) * TURN, ..Motion::default() };
            let mut scores = vec![0f32; wide * deep];
            for point in later.samples.iter().step_by(stride) {
                let at = turned.apply(point.at);
                let [x, y, z] = std::array::from_fn(|a| ((at[a] - self.min_m[a]) / self.cell_m[a]).floor() as i64);
                let level = usize::try_from(z).unwrap_or(0).min(nz - 1);
                let gain = &self.gain[usize::from(point.channel) * nx * ny * nz..][..nx * ny * nz];
                // Of the shifts by (i, j) less the reach those that stay in the grid.
                let range = |v: i64, a: usize, side: usize| {
                    let last = (side as i64 + reach[a] - v).clamp(0, 2 * reach[a] + 1);
                    (reach[a] - v).clamp(0, last) as usize..last as usize
                };
                for i in range(x, 0, nx) {
                    let row = (x - reach[0] + i as i64) as usize * ny;
                    for j in range(y, 1, ny) {
                        let column = row + (y - reach[1] + j as i64) as usize;
                        scores[i * deep + j] += gain[column * nz + level];
                    }
                }
            }
            let shift = |at: usize| [(at / deep) as i64 - reach[0], (at % deep) as i64 - reach[1], i64::from(turn)];
            found.extend(scores.into_iter().enumerate().map(|(at, score)| (score, shift(at))));
        }
        found.sort_by(|a, b| b.0.total_cmp(&a.0));
        let mut taken: Vec<[i64; 3]> = Vec::with_capacity(most);
        for (_, place) in found {
            if taken.len() == most {
                break;
            }
            if taken.iter().all(|other| (0..3).any(|a| (other[a] - place[a]).abs() > BESIDE)) {
                taken.push(place);
            }
        }
        let motion = |[x, y, turn]: [i64; 3]| Motion {
            shift_m: [x as f64 * self.cell_m[0], y as f64 * self.cell_m[1], 0.0],
            yaw: turn as f64 * TURN,
        };
        taken.into_iter().map(motion).collect()
    }
}
