//! From motions between frames to one trajectory.

use std::cmp::Ordering;
use std::ops::Range;

use glam::{DMat4, DVec4};

use super::motion::{Motion, wrapped};
use super::pairs::{Edge, Flag, SPANS, differ};
use crate::data::Pose;

/// Rounds in which every frame is put where its neighbours want it.
const ROUNDS: usize = 60;
/// A motion over several frames counts if it is so near to what its pairs say, in voxels, and in radians.
const NEAR: f64 = 1.5;
const NEAR_TURN: f64 = 0.04;
/// A pair is contradicted if the others move it by more than so many voxels, or radians.
const MOVED: f64 = 0.75;
const MOVED_TURN: f64 = 0.025;
/// By how much the speed of a vehicle changes, m/s and rad/s in a second, usually.
const ACCELERATION: f64 = 2.0;
const TURN_ACCELERATION: f64 = 0.3;
/// By how much it never does, m/s in a second.
const HARDEST: f64 = 6.0;
/// A pair is as distinct as another if its contrast is not smaller than by this factor.
const DISTINCT: f64 = 1.25;
/// Frames are evenly spaced if one distance in time is longer than the other by no more than this part.
const UNEVEN: f64 = 0.1;

/// The motion between two consecutive frames, and how far it is to be trusted.
#[derive(Debug, Clone, Copy, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(into = "Packed", from = "Packed")]
pub struct Pair {
    /// Takes points of the later frame into the earlier one.
    pub motion: Motion,
    /// The mean cost of a telling point, from 0 (all as it was) to 1.
    pub cost: f64,
    /// The part of the telling points of which the earlier frame knows something.
    pub overlap: f64,
    /// By how much of its misfit it is better than any other motion that was tried.
    pub contrast: f64,
    /// The standard deviation of the shift in its least certain direction, metres; -1 where it has none.
    pub deviation_m: f64,
    /// Why it is not to be trusted, if so.
    pub flag: Option<Flag>,
}

/// A pair in few letters: shift and turn, cost, overlap, contrast, deviation, flag.
type Packed = ([f64; 4], [f64; 4], Option<Flag>);

impl From<Pair> for Packed {
    fn from(pair: Pair) -> Packed {
        let quality = [pair.cost, pair.overlap, pair.contrast, pair.deviation_m];
        (pair.motion.to_vector().to_array(), quality, pair.flag)
    }
}

impl From<Packed> for Pair {
    fn from((motion, [cost, overlap, contrast, deviation_m], flag): Packed) -> Pair {
        let motion = Motion::from_vector(DVec4::from_array(motion));
        Pair { motion, cost, overlap, contrast, deviation_m, flag }
    }
}

impl Pair {
    /// With no more digits than anything is known to, so that what is written and read again is the same.
    fn rounded(self) -> Pair {
        let (motion, quality, flag) = self.into();
        let round = |v: f64, digits: f64| (v * digits).round() / digits;
        (motion.map(|v| round(v, 1e6)), quality.map(|v| round(v, 1e4)), flag).into()
    }
}

/// How the sensor moved in a sequence.
#[derive(Debug, Clone, PartialEq)]
pub struct Trajectory {
    /// The motion between each frame and the next, one less than there are frames.
    pub pairs: Vec<Pair>,
    /// One a frame, relative to the first one. Across a flagged pair they mean nothing.
    poses: Vec<Pose>,
}

impl Trajectory {
    /// The trajectory of these pairs.
    pub(super) fn new(pairs: Vec<Pair>) -> Trajectory {
        let start = Motion::default();
        let rest = pairs.iter().scan(start, |at, pair| {
            *at = at.after(pair.motion);
            Some(*at)
        });
        let poses = std::iter::once(start).chain(rest).map(Motion::pose).collect();
        Trajectory { pairs, poses }
    }

    /// The poses of all frames relative to the first one, sensor to world, `[T]`; `None` if a pair is flagged.
    pub fn whole(&self) -> Option<&[Pose]> {
        self.across(0..self.poses.len())
    }

    /// The poses of some consecutive frames, counted from the first one of the sequence, in one common frame; `None` if there
    /// are no such frames, or a pair among them is flagged.
    pub fn across(&self, frames: Range<usize>) -> Option<&[Pose]> {
        let poses = self.poses.get(frames.clone())?;
        let pairs = self.pairs.get(frames.start..frames.end.saturating_sub(1).max(frames.start))?;
        pairs.iter().all(|pair| pair.flag.is_none()).then_some(poses)
    }

    /// The places of the flagged pairs: that of their earlier frames.
    pub fn flagged(&self) -> Vec<usize> {
        (0..self.pairs.len()).filter(|&i| self.pairs[i].flag.is_some()).collect()
    }
}

/// The pairs of a sequence as all `edges` together want them; those over one frame are complete and in order. Where the times of the
/// frames are known (`[T]`, seconds), no change of speed is likely that no vehicle makes.
pub(super) fn reconcile(edges: &[Edge], voxel_m: f64, times_secs: Option<&[f64]>) -> Vec<Pair> {
    let of_pairs: Vec<&Edge> = edges.iter().filter(|edge| edge.frames[1] == edge.frames[0] + 1).collect();
    let mut poses = vec![Motion::default()];
    for edge in &of_pairs {
        let last = poses.last().copied().unwrap_or_default();
        poses.push(last.after(edge.fit.motion));
    }
    let mut flags: Vec<Option<Flag>> = of_pairs.iter().map(|edge| edge.flag).collect();
    let is_sound = |edge: &&Edge| edge.flag.is_none() && edge.frames[1] < poses.len();
    let (near, far): (Vec<&Edge>, Vec<&Edge>) = edges.iter().filter(is_sound).partition(|edge| {
        let chained = poses[edge.frames[0]].inverse().after(poses[edge.frames[1]]);
        !differ(chained, edge.fit.motion, NEAR * voxel_m, NEAR_TURN)
    });
    // Of the pairs that a sound motion over several frames contradicts, the least distinct one is wrong.
    for edge in far {
        let within = edge.frames[0]..edge.frames[1];
        let weakest = within.clone().min_by(|&a, &b| of_pairs[a].contrast.total_cmp(&of_pairs[b].contrast));
        if within.clone().all(|i| flags[i].is_none())
            && let Some(weakest) = weakest
        {
            flags[weakest] = Some(Flag::Contradicted);
        }
    }
    jerks(&of_pairs, times_secs.unwrap_or_default(), &mut flags);
    let across = |edge: &&Edge| (edge.frames[0]..edge.frames[1]).all(|i| flags[i].is_none());
    let kept: Vec<&Edge> = near.into_iter().filter(across).collect();
    let steady = times_secs.map_or_else(Vec::new, |times| {
        let sound = (1..flags.len()).filter(|&i| flags[i - 1].is_none() && flags[i].is_none());
        sound.filter_map(|i| Steady::new(i, times)).collect()
    });
    relax(&mut poses, &kept, &steady);
    let pair = |(i, edge): (usize, &&Edge)| {
        let sound = flags[i].is_none();
        let motion = if sound { poses[i].inverse().after(poses[i + 1]) } else { edge.fit.motion };
        let is_moved = sound && differ(motion, edge.fit.motion, MOVED * voxel_m, MOVED_TURN);
        let (deviation, _) = edge.fit.deviation();
        Pair {
            motion,
            cost: edge.fit.cost,
            overlap: edge.fit.overlap,
            contrast: edge.contrast,
            deviation_m: if deviation.is_finite() { deviation } else { -1.0 },
            flag: if is_moved { Some(Flag::Contradicted) } else { flags[i] },
        }
        .rounded()
    };
    of_pairs.iter().enumerate().map(pair).collect()
}

/// Flags pairs between which no vehicle changes its speed so much: the less distinct one, or both where neither is.
fn jerks(pairs: &[&Edge], times_secs: &[f64], flags: &mut [Option<Flag>]) {
    for i in 1..pairs.len() {
        let Some(squared) = even(i, times_secs).filter(|_| flags[i - 1].is_none() && flags[i].is_none()) else {
            continue;
        };
        let fits = [&pairs[i - 1].fit, &pairs[i].fit];
        let uncertain: f64 = fits.iter().map(|fit| 3.0 * fit.deviation().0).sum();
        let longest = HARDEST * squared + uncertain;
        let [a, b] = fits.map(|fit| fit.motion.shift_m);
        if (b[0] - a[0]).hypot(b[1] - a[1]) > longest {
            let [a, b] = [pairs[i - 1].contrast, pairs[i].contrast];
            for (place, own, other) in [(i - 1, a, b), (i, b, a)] {
                if own < other * DISTINCT {
                    flags[place] = Some(Flag::Contradicted);
                }
            }
        }
    }
}

/// The square of the time from one frame to the next, seconds, if they are evenly spaced around this one.
fn even(frame: usize, times_secs: &[f64]) -> Option<f64> {
    let times = times_secs.get(frame - 1..=frame + 1)?;
    let (before, after) = (times[1] - times[0], times[2] - times[1]);
    (before > 0.0 && (after / before - 1.0).abs() < UNEVEN).then_some(before * after)
}

/// That the motions before and after a frame are about the same.
struct Steady {
    frame: usize,
    /// Of the difference between the two.
    information: DMat4,
}

impl Steady {
    /// By the times of a frame and of its neighbours; `None` if they are not evenly spaced.
    fn new(frame: usize, times_secs: &[f64]) -> Option<Steady> {
        let squared = even(frame, times_secs)?;
        let per = |change: f64| (change * squared).powi(-2);
        let shift = per(ACCELERATION);
        let information = DMat4::from_diagonal(DVec4::new(shift, shift, shift, per(TURN_ACCELERATION)));
        information.is_finite().then_some(Steady { frame, information })
    }

    /// Where it wants frame `i`, and the information about it.
    fn wants(&self, i: usize, poses: &[Motion]) -> (Motion, DMat4) {
        let [a, b, c] = [poses[self.frame - 1], poses[self.frame], poses[self.frame + 1]];
        match i.cmp(&self.frame) {
            Ordering::Less => (b.after(c.inverse().after(b)), self.information),
            // Moving the frame between changes both motions.
            Ordering::Equal => (a.after(half(a.inverse().after(c))), self.information * 4.0),
            Ordering::Greater => (b.after(a.inverse().after(b)), self.information),
        }
    }
}

/// The motion that makes another when it is done twice.
fn half(motion: Motion) -> Motion {
    let quarter = Motion { shift_m: [0.0; 3], yaw: -motion.yaw / 4.0 };
    let shift_m = quarter.apply(motion.shift_m);
    let scale = 0.5 / (motion.yaw / 4.0).cos();
    Motion { shift_m: [shift_m[0] * scale, shift_m[1] * scale, shift_m[2] * 0.5], yaw: motion.yaw / 2.0 }
}

/// Puts each frame in turn where all that is known of it wants it, by its information; the first one stays.
fn relax(poses: &mut [Motion], edges: &[&Edge], steady: &[Steady]) {
    let mut edges_at: Vec<Vec<(&Edge, DMat4)>> = vec![Vec::new(); poses.len()];
    for edge in edges {
        // Spans that end at one frame share what is by chance in it.
        let information = level(edge.fit.information) * (1.0 / SPANS.len() as f64);
        edge.frames.iter().for_each(|&frame| edges_at[frame].push((edge, information)));
    }
    let mut steady_at: Vec<Vec<&Steady>> = vec![Vec::new(); poses.len()];
    for steady in steady {
        (steady.frame - 1..=steady.frame + 1).for_each(|frame| steady_at[frame].push(steady));
    }
    for round in 0..ROUNDS {
        for k in 1..poses.len() {
            // To and fro, so that what one end knows soon reaches the other.
            let i = if round % 2 == 0 { k } else { poses.len() - k };
            let from_edges = edges_at[i].iter().map(|(edge, information)| {
                let [earlier, later] = edge.frames;
                let motion = edge.fit.motion;
                let back = || poses[later].after(motion.inverse());
                let wanted = if later == i { poses[earlier].after(motion) } else { back() };
                // It is told in the axes of the later frame.
                let turn = DMat4::from_rotation_z(poses[later].yaw);
                (wanted, turn * *information * turn.transpose())
            });
            let from_steadiness = steady_at[i].iter().map(|steady| steady.wants(i, poses));
            let (mut normal, mut side) = (DMat4::ZERO, DVec4::ZERO);
            for (wanted, information) in from_edges.chain(from_steadiness) {
                let mut step = wanted.to_vector() - poses[i].to_vector();
                step.w = wrapped(step.w);
                normal += information;
                side += information * step;
            }
            let step = normal.inverse() * side;
            if step.is_finite() {
                poses[i] = Motion::from_vector(poses[i].to_vector() + step);
            }
        }
    }
}

/// The information about the shift and that about the turn, each for itself.
fn level(information: DMat4) -> DMat4 {
    let mut covariance = information.inverse();
    for a in 0..3 {
        covariance.col_mut(a)[3] = 0.0;
        covariance.col_mut(3)[a] = 0.0;
    }
    covariance.inverse()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::register::fine::Fit;

    fn edge(frames: [usize; 2], x: f64, yaw: f64) -> Edge {
        let motion = Motion { shift_m: [x, 0.0, 0.0], yaw };
        let information = DMat4::from_diagonal(DVec4::new(1e4, 1e4, 1e4, 1e6));
        let fit = Fit { motion, cost: 0.1, overlap: 0.8, information };
        Edge { frames, fit, contrast: 1.0, flag: None }
    }

    #[test]
    fn longer_spans_average_the_errors_of_pairs() {
        // Each pair goes 5 cm too far, and what spans two and four does not.
        let mut edges: Vec<Edge> = (0..10).map(|i| edge([i, i + 1], 1.05, 0.0)).collect();
        edges.extend((0..9).map(|i| edge([i, i + 2], 2.0, 0.0)));
        edges.extend((0..7).map(|i| edge([i, i + 4], 4.0, 0.0)));
        let pairs = reconcile(&edges, 0.4, None);
        assert!(pairs.iter().all(|pair| (pair.motion.shift_m[0] - 1.0).abs() < 0.02 && pair.flag.is_none()));
        let trajectory = Trajectory::new(pairs);
        let poses = trajectory.whole().unwrap();
        assert!((poses[10].translation.x - 10.0).abs() < 0.1 && poses.len() == 11);
    }

    #[test]
    fn a_leap_that_no_vehicle_makes_is_flagged_where_times_are_known() {
        let mut edges: Vec<Edge> = (0..6).map(|i| edge([i, i + 1], 3.0, 0.0)).collect();
        edges[2].fit.motion.shift_m[0] = 0.3;
        edges[2].contrast = 0.5;
        let times: Vec<f64> = (0..7).map(|i| 0.5 * f64::from(i)).collect();
        let flagged = |times| Trajectory::new(reconcile(&edges, 0.4, times)).flagged();
        assert_eq!(flagged(Some(&times)), [2]);
        assert!(flagged(None).is_empty());
    }

    #[test]
    fn half_a_motion_done_twice_is_the_motion() {
        let motion = Motion { shift_m: [2.0, -0.7, 0.2], yaw: 0.6 };
        let twice = half(motion).after(half(motion));
        assert!(twice.to_vector().abs_diff_eq(motion.to_vector(), 1e-12));
    }

    #[test]
    fn a_pair_that_longer_spans_contradict_is_flagged_and_no_pose_leads_across_it() {
        let mut edges: Vec<Edge> = (0..6).map(|i| edge([i, i + 1], 1.0, 0.01)).collect();
        edges[3].fit.motion.shift_m[0] = -2.0;
        edges[3].contrast = 0.2;
        edges.extend((0..5).map(|i| edge([i, i + 2], 2.0, 0.02)));
        let trajectory = Trajectory::new(reconcile(&edges, 0.4, None));
        assert_eq!(trajectory.flagged(), [3]);
        assert_eq!(trajectory.pairs[3].flag, Some(Flag::Contradicted));
        assert!(trajectory.whole().is_none() && trajectory.across(2..5).is_none());
        assert_eq!(trajectory.across(0..4).map(<[Pose]>::len), Some(4));
        assert_eq!(trajectory.across(4..7).map(<[Pose]>::len), Some(3));
        assert!(trajectory.across(6..9).is_none() && trajectory.across(5..5).is_some_and(<[Pose]>::is_empty));
    }
}
