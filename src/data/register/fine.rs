//! The motion between two fields to a part of a voxel: robust Gauss-Newton with the gradients of the later one (inverse
//! compositional, Baker and Matthews 2004).

use glam::{DMat4, DVec4};

use super::field::{CORRELATED, Channels, Field};
use super::motion::Motion;

/// Differences beyond what a shift of so many voxels makes count as something else there (Geman and McClure).
const OUTLIER: f64 = 2.0;
/// What a point costs of which the other frame knows nothing, so that little overlap is no way to look good; 1 is the most.
const UNKNOWN: f64 = 0.25;
/// Differences are never smaller than what a shift of this part of a voxel makes: voxels are where they are by chance.
const NOISE: f64 = 0.15;
/// Rounds of Gauss-Newton at most.
const ROUNDS: usize = 20;
/// The longest turn of a round, radians; the longest shift is a voxel.
const LONGEST_TURN: f64 = 0.03;

/// The later frame of a pair, ready to be laid over others.
#[derive(Debug)]
pub(super) struct Template<'a> {
    field: &'a Field,
    weights: &'a [f32],
    /// For each sample and channel the change with the motion, `[S, C]`.
    gradients: Vec<DVec4>,
    /// The channels at each sample, `[S, C]`.
    own: Vec<f32>,
    /// The square of the difference that a shift of a voxel makes, on average.
    per_voxel: f64,
}

/// How well a motion lays the later frame over the earlier one.
#[derive(Debug, Clone, Copy)]
pub(super) struct Fit {
    /// Takes points of the later frame into the earlier one.
    pub motion: Motion,
    /// The mean cost of a point, from 0 (all as it was) to 1.
    pub cost: f64,
    /// The part of the points of which the earlier frame knows something.
    pub overlap: f64,
    /// The inverse of the covariance of (x, y, z, yaw), in the later frame's axes.
    pub information: DMat4,
}

/// What one pass over all points sums up.
struct Pass {
    cost: f64,
    overlap: f64,
    /// The normal equations: `normal * step = side`.
    normal: DMat4,
    side: DVec4,
    /// The mean square of the differences, each with its robust weight.
    variance: f64,
}

impl<'a> Template<'a> {
    pub fn new(field: &'a Field, channels: &'a Channels) -> Template<'a> {
        let gradients: Vec<DVec4> = field.samples.iter().flat_map(|sample| field.gradients(sample)).collect();
        let mut own = vec![0f32; gradients.len()];
        for (sample, own) in field.samples.iter().zip(own.chunks_exact_mut(field.channels)) {
            field.read(sample.at, own);
        }
        let weights = channels.weights.iter().cycle().map(|w| f64::from(*w));
        let steepness: f64 = gradients.iter().zip(weights).map(|(g, w)| w * (g.x * g.x + g.y * g.y)).sum();
        let per_voxel = steepness / field.samples.len().max(1) as f64 * field.grid.voxel_size_m[0].powi(2);
        Template { field, weights: &channels.weights, gradients, own, per_voxel: per_voxel.max(1e-9) }
    }

    fn pass(&self, earlier: &Field, motion: Motion) -> Pass {
        let count = self.field.channels;
        let outlier = self.per_voxel * OUTLIER * OUTLIER;
        let mut there = vec![0f32; count];
        let (mut cost, mut overlap, mut squares, mut robusts) = (0.0, 0.0, 0.0, 0.0);
        let (mut normal, mut side) = (DMat4::ZERO, DVec4::ZERO);
        let parts = self.gradients.chunks_exact(count).zip(self.own.chunks_exact(count));
        for (sample, (gradients, own)) in self.field.samples.iter().zip(parts) {
            let known = f64::from(earlier.read(motion.apply(sample.at), &mut there));
            if known <= 0.0 {
                cost += UNKNOWN;
                continue;
            }
            let differences = || there.iter().zip(own).map(|(there, own)| f64::from(there - own));
            let weighted = differences().zip(self.weights).map(|(d, w)| f64::from(*w) * d * d);
            let square = weighted.sum::<f64>() / outlier;
            cost += known * square / (square + 1.0) + (1.0 - known) * UNKNOWN;
            overlap += known;
            let robust = known / ((square + 1.0) * (square + 1.0));
            squares += robust * square * outlier;
            robusts += robust;
            for ((d, w), &g) in differences().zip(self.weights).zip(gradients) {
                let weighted = g * (robust * f64::from(*w));
                side += weighted * d;
                normal += DMat4::from_cols(weighted * g.x, weighted * g.y, weighted * g.z, weighted * g.w);
            }
        }
        let points = self.field.samples.len().max(1) as f64;
        let variance = if robusts > 0.0 { squares / robusts } else { 0.0 };
        Pass { cost: cost / points, overlap: overlap / points, normal, side, variance }
    }

    /// What a motion costs, of the points of which the earlier frame knows something, as [`Fit::misfit`].
    pub fn misfit(&self, earlier: &Field, motion: Motion) -> f64 {
        let count = self.field.channels;
        let outlier = self.per_voxel * OUTLIER * OUTLIER;
        let mut there = vec![0f32; count];
        let (mut cost, mut overlap) = (0.0, 0.0);
        for (sample, own) in self.field.samples.iter().zip(self.own.chunks_exact(count)) {
            let known = f64::from(earlier.read(motion.apply(sample.at), &mut there));
            if known > 0.0 {
                let weighted = there.iter().zip(own).zip(self.weights).map(|((t, o), w)| w * (t - o) * (t - o));
                let square = f64::from(weighted.sum::<f32>()) / outlier;
                cost += known * square / (square + 1.0);
                overlap += known;
            }
        }
        if overlap > 0.0 { cost / overlap } else { 1.0 }
    }

    /// The best motion near `start`.
    pub fn fit(&self, earlier: &Field, start: Motion) -> Fit {
        let mut motion = start;
        // A little stiffness leaves where it was what nothing tells.
        let points = self.field.samples.len() as f64;
        let stiff = DMat4::from_diagonal(DVec4::new(1e-3, 1e-3, 1e-1, 1e-1) * (points * self.per_voxel).max(1e-9));
        for _ in 0..ROUNDS {
            let Pass { normal, side, .. } = self.pass(earlier, motion);
            let step = (normal + stiff).inverse() * side;
            if !step.is_finite() {
                break;
            }
            let shift = step.truncate().length();
            let too_long = (shift / self.field.grid.voxel_size_m[0]).max(step.w.abs() / LONGEST_TURN).max(1.0);
            motion = motion.after(Motion::from_vector(step / too_long).inverse());
            if shift < 1e-4 && step.w.abs() < 1e-5 {
                break;
            }
        }
        let Pass { cost, overlap, normal, variance, .. } = self.pass(earlier, motion);
        let variance = variance.max(self.per_voxel * NOISE * NOISE) * CORRELATED;
        Fit { motion, cost, overlap, information: normal * (1.0 / variance) }
    }
}

impl Fit {
    /// The mean cost of what both frames know: to compare motions, whatever their overlap.
    pub fn misfit(&self) -> f64 {
        if self.overlap > 0.0 { (self.cost - (1.0 - self.overlap) * UNKNOWN) / self.overlap } else { 1.0 }
    }

    /// The standard deviation of the shift in the plane, in the direction in which it is largest, metres, and that of the
    /// turn, radians; infinite where nothing tells.
    pub fn deviation(&self) -> (f64, f64) {
        let covariance = self.information.inverse();
        let (xx, xy, yy) = (covariance.x_axis.x, covariance.x_axis.y, covariance.y_axis.y);
        let largest = (xx + yy) / 2.0 + ((xx - yy) / 2.0).hypot(xy);
        let root = |v: f64| if v.is_finite() && v >= 0.0 { v.sqrt() } else { f64::INFINITY };
        (root(largest), root(covariance.w_axis.w))
    }
}
