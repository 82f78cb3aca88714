//! The road network: two families of wavy lines on a square that repeats without end, with some pieces left out.

use std::f64::consts::TAU;

use crate::rng::Rng;

/// The town repeats after this distance in x and y, metres, so that no drive ever reaches an edge.
pub(super) const PERIOD_M: f64 = 300.0;
/// Roads of each family; family 0 runs along y, family 1 along x.
pub(super) const LINES: usize = 4;
/// Width of a driving lane, metres.
const LANE_M: f64 = 3.5;
/// Width of a lane of parked cars, metres.
const PARKING_M: f64 = 2.4;
/// How far the kerbs of a junction's corners are rounded, metres.
const CORNER_M: f64 = 7.0;

/// A vector of the ground plane, metres.
pub(super) type Vec2 = [f64; 2];

/// `a + b * k`.
pub(super) fn along(a: Vec2, b: Vec2, k: f64) -> Vec2 {
    [a[0] + b[0] * k, a[1] + b[1] * k]
}

/// The direction to the right of `heading` (y points right in CarlaSC's frame).
pub(super) fn right(heading: Vec2) -> Vec2 {
    [-heading[1], heading[0]]
}

/// The nearest representative of a difference in the repeating town.
pub(super) fn wrap(d: f64) -> f64 {
    d - (d / PERIOD_M).round() * PERIOD_M
}

/// One road around the town: `across(t) = at + amplitude * sin(waves * t + phase)`.
#[derive(Debug, Clone)]
pub(super) struct Line {
    at: f64,
    amplitude: f64,
    waves: f64,
    phase: f64,
    /// Driving lanes in each direction.
    pub lanes: usize,
    /// Whether cars park at both kerbs.
    pub parking: bool,
    /// Width of the strip between the directions, metres.
    pub median: f64,
    /// Whether the piece from crossing j to crossing j + 1 exists.
    pub present: [bool; LINES],
}

impl Line {
    /// The coordinate across the line's family at `t` along it, and its slope.
    fn across(&self, t: f64) -> (f64, f64) {
        let (sin, cos) = (self.waves * t + self.phase).sin_cos();
        (self.at + self.amplitude * sin, self.amplitude * self.waves * cos)
    }

    /// Distance from the centre line to the kerb.
    pub fn half_width(&self) -> f64 {
        let parking = if self.parking { PARKING_M } else { 0.4 };
        self.lanes as f64 * LANE_M + self.median / 2.0 + parking
    }

    /// Distance from the centre line to the middle of lane `k`, counted from the inside.
    pub fn lane_offset(&self, k: usize) -> f64 {
        self.median / 2.0 + (k as f64 + 0.5) * LANE_M
    }
}

/// What the road network says about a point.
#[derive(Debug, Clone, Copy)]
pub(super) struct Ground {
    /// Distance to the nearest kerb, metres; negative on the road.
    pub kerb: f64,
    /// Whether the point lies on a centre line's marking.
    pub marking: bool,
}

/// The road network of a town.
#[derive(Debug, Clone)]
pub(super) struct Roads {
    /// By family and line.
    pub lines: [Vec<Line>; 2],
    /// `crossings[f][i][j]`: where line i of family f meets line j of the other family, along line i.
    crossings: [[[f64; LINES]; LINES]; 2],
}

impl Roads {
    /// Draws a network.
    pub fn new(rng: &mut Rng) -> Roads {
        let spacing = PERIOD_M / LINES as f64;
        let mut family = || -> Vec<Line> {
            let wide = rng.below(2);
            (0..LINES)
                .map(|i| {
                    let lanes = if i % 2 == wide { 2 } else { 1 };
                    let waves = 1 + rng.below(2);
                    Line {
                        at: (i as f64 + 0.5) * spacing + rng.uniform(-6.0, 6.0),
                        amplitude: rng.uniform(2.0, 11.0) / waves as f64,
                        waves: waves as f64 * TAU / PERIOD_M,
                        phase: rng.uniform(0.0, TAU),
                        lanes,
                        parking: lanes == 1 && rng.chance(0.6),
                        median: if lanes == 2 && rng.chance(0.5) { 1.6 } else { 0.0 },
                        present: [true; LINES],
                    }
                })
                .collect()
        };
        let mut roads = Roads { lines: [family(), family()], crossings: Default::default() };
        for i in 0..LINES {
            for j in 0..LINES {
                // The slopes are small, so the two coordinates settle within a few rounds.
                let (mut x, mut y) = (roads.lines[0][i].at, roads.lines[1][j].at);
                for _ in 0..60 {
                    x = roads.lines[0][i].across(y).0;
                    y = roads.lines[1][j].across(x).0;
                }
                roads.crossings[0][i][j] = y;
                roads.crossings[1][j][i] = x;
            }
        }
        roads.leave_out(rng);
        roads
    }

    /// Removes pieces, at most one at any junction, so that every junction keeps three arms or four.
    fn leave_out(&mut self, rng: &mut Rng) {
        let mut touched = [[false; LINES]; LINES];
        for _ in 0..14 {
            let (family, i, j) = (rng.below(2), rng.below(LINES), rng.below(LINES));
            let ends = [[i, j], [i, (j + 1) % LINES]].map(|[i, j]| if family == 0 { [i, j] } else { [j, i] });
            if ends.iter().all(|&[v, h]| !touched[v][h]) {
                self.lines[family][i].present[j] = false;
                ends.iter().for_each(|&[v, h]| touched[v][h] = true);
            }
        }
    }

    /// Where piece `j` of line `i` begins and ends along the line (the end exceeds the period where it wraps).
    pub fn piece(&self, family: usize, i: usize, j: usize) -> (f64, f64) {
        let row = &self.crossings[family][i];
        (row[j], if j + 1 == LINES { row[0] + PERIOD_M } else { row[j + 1] })
    }

    /// The point at `t` along a line, and the direction of growing `t`.
    pub fn point(&self, family: usize, i: usize, t: f64) -> (Vec2, Vec2) {
        let (across, slope) = self.lines[family][i].across(t);
        let length = slope.hypot(1.0);
        if family == 0 {
            ([across, t], [slope / length, 1.0 / length])
        } else {
            ([t, across], [1.0 / length, slope / length])
        }
    }

    /// The piece of a line that holds `t`.
    fn piece_at(&self, family: usize, i: usize, t: f64) -> usize {
        let row = &self.crossings[family][i];
        let t = row[0] + (t - row[0]).rem_euclid(PERIOD_M);
        row.iter().rposition(|&crossing| crossing <= t).unwrap_or(0)
    }

    /// Distance to the nearest kerb and centre line.
    pub fn ground(&self, [x, y]: Vec2) -> Ground {
        let mut kerbs = [f64::from(1u16 << 10); 2];
        let mut centre = f64::MAX;
        for (family, kerb) in kerbs.iter_mut().enumerate() {
            let (across, t) = if family == 0 { (x, y) } else { (y, x) };
            for (i, line) in self.lines[family].iter().enumerate() {
                let (at, slope) = line.across(t);
                let distance = wrap(across - at).abs() / slope.hypot(1.0);
                let from_kerb = distance - line.half_width();
                if from_kerb < *kerb && line.present[self.piece_at(family, i, t)] {
                    *kerb = from_kerb;
                    centre = centre.min(distance);
                }
            }
        }
        let rounding = (CORNER_M - (kerbs[0] - kerbs[1]).abs()).max(0.0);
        let kerb = kerbs[0].min(kerbs[1]) - rounding * rounding / (4.0 * CORNER_M);
        Ground { kerb, marking: centre < 0.2 && kerbs[0].max(kerbs[1]) > 4.0 }
    }

    /// Distance to the nearest kerb, and the direction in which it grows.
    pub fn slope(&self, at: Vec2) -> (f64, Vec2) {
        let kerb = |x: f64, y: f64| self.ground([at[0] + x, at[1] + y]).kerb;
        let here = kerb(0.0, 0.0);
        let d = [kerb(0.1, 0.0) - here, kerb(0.0, 0.1) - here];
        let length = d[0].hypot(d[1]).max(1e-9);
        (here, [d[0] / length, d[1] / length])
    }

    /// The block a point lies in, by the lines to its left and above.
    pub fn block(&self, [x, y]: Vec2) -> [usize; 2] {
        let place = |family: usize, across: f64, t: f64| {
            let first = self.lines[family][0].across(t).0;
            let offset = (across - first).rem_euclid(PERIOD_M);
            let lines = self.lines[family].iter();
            lines.filter(|line| (line.across(t).0 - first).rem_euclid(PERIOD_M) <= offset).count().max(1) - 1
        };
        [place(0, x, y), place(1, y, x)]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_meet_at_their_crossings_and_every_junction_has_three_arms() {
        for seed in 0..20 {
            let roads = Roads::new(&mut Rng::new(seed, 0));
            for i in 0..LINES {
                for j in 0..LINES {
                    let a = roads.point(0, i, roads.crossings[0][i][j]).0;
                    let b = roads.point(1, j, roads.crossings[1][j][i]).0;
                    assert!((a[0] - b[0]).abs() < 1e-6 && (a[1] - b[1]).abs() < 1e-6);
                    let arms = [(0, i, j), (1, j, i)].map(|(family, line, at)| {
                        let present = &roads.lines[family][line].present;
                        usize::from(present[at]) + usize::from(present[(at + LINES - 1) % LINES])
                    });
                    assert!(arms[0] + arms[1] >= 3);
                }
            }
        }
    }

    #[test]
    fn the_kerb_lies_half_a_width_from_the_centre_line() {
        let roads = Roads::new(&mut Rng::new(3, 0));
        for (i, line) in roads.lines[0].iter().enumerate() {
            let (start, end) = roads.piece(0, i, 1);
            let (point, heading) = roads.point(0, i, (start + end) / 2.0);
            if line.present[1] {
                let side = along(point, right(heading), line.half_width());
                assert!(roads.ground(side).kerb.abs() < 0.5);
                assert!(roads.ground(point).kerb < -3.0);
                assert!(roads.ground(point).marking);
            }
        }
    }
}
