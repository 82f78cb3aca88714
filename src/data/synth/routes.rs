//! Where vehicles may drive: lanes, and the ways through the junctions that join them.

use super::roads::{LINES, Roads, Vec2, along, right, wrap};

/// Speed in a turn, m/s.
const TURN_SPEED: f64 = 4.8;

/// A lane and one way on from its end, as one line of points.
#[derive(Debug, Clone)]
pub(super) struct Leg {
    /// Its lane, and the lane it leads into.
    pub lane: usize,
    pub next: usize,
    /// The junction at the lane's end, and the arm it is entered by.
    pub junction: usize,
    pub approach: usize,
    /// The family of the lane's road.
    pub family: usize,
    /// Where the lane ends and the junction begins, metres along the leg.
    pub stop: f64,
    /// The speed to enter the junction with, m/s.
    pub turn_speed: f64,
    points: Vec<Vec2>,
    /// The distance of each point along the leg.
    distances: Vec<f64>,
}

impl Leg {
    /// Its length to the begin of the next lane, metres.
    pub fn length(&self) -> f64 {
        self.distances.last().copied().unwrap_or(0.0)
    }

    /// The point `s` metres along it and the direction there; it goes on straight beyond its ends.
    pub fn point(&self, s: f64) -> (Vec2, Vec2) {
        let i = self.distances.partition_point(|&d| d <= s).clamp(1, self.points.len() - 1);
        let (a, b) = (self.points[i - 1], self.points[i]);
        let length = (self.distances[i] - self.distances[i - 1]).max(1e-9);
        let heading = [(b[0] - a[0]) / length, (b[1] - a[1]) / length];
        (along(a, heading, s - self.distances[i - 1]), heading)
    }
}

/// A lane between two junctions.
struct Lane {
    points: Vec<Vec2>,
    family: usize,
    /// Its place among the lanes of its direction, counted from the inside.
    k: usize,
    /// How many lanes its direction has.
    lanes: usize,
    start: usize,
    end: usize,
    /// The piece of road and the direction, the same for all lanes side by side.
    approach: usize,
}

/// All lanes and the ways between them.
pub(super) struct Routes {
    pub legs: Vec<Leg>,
    /// The legs that begin with each lane.
    pub of_lane: Vec<Vec<usize>>,
    /// How many junctions there are.
    pub junctions: usize,
}

impl Routes {
    /// Finds them.
    pub fn new(roads: &Roads) -> Routes {
        let lanes = lanes(roads);
        let mut legs = Vec::new();
        let mut of_lane = vec![Vec::new(); lanes.len()];
        for (i, lane) in lanes.iter().enumerate() {
            for (j, next) in lanes.iter().enumerate().filter(|(_, next)| next.start == lane.end) {
                let turn = turn(lane, next);
                // No turning back; right turns from the outer lane, left turns from the inner one; the lane is kept.
                let outer = lane.k + 1 == lane.lanes;
                let fits = match turn {
                    t if t.abs() > 2.4 => false,
                    t if t > 0.7 => outer && next.k + 1 == next.lanes,
                    t if t < -0.7 => lane.k == 0 && next.k == 0,
                    _ => next.k == lane.k.min(next.lanes - 1),
                };
                if fits {
                    of_lane[i].push(legs.len());
                    legs.push(leg(i, lane, j, next, turn));
                }
            }
            // An inner lane whose road ends here turns with the outer one.
            if of_lane[i].is_empty()
                && let Some((j, next)) =
                    lanes.iter().enumerate().find(|(_, next)| next.start == lane.end && turn(lane, next).abs() < 2.4)
            {
                of_lane[i].push(legs.len());
                legs.push(leg(i, lane, j, next, turn(lane, next)));
            }
        }
        Routes { legs, of_lane, junctions: LINES * LINES }
    }
}

fn lanes(roads: &Roads) -> Vec<Lane> {
    let mut lanes = Vec::new();
    for family in 0..2 {
        for (i, line) in roads.lines[family].iter().enumerate() {
            for j in (0..LINES).filter(|&j| line.present[j]) {
                let (start, end) = roads.piece(family, i, j);
                let node = |j: usize| if family == 0 { i * LINES + j % LINES } else { (j % LINES) * LINES + i };
                // Lanes end before the kerbs of the crossing road, with room for their rounding.
                let clear = |j: usize| roads.lines[1 - family][j % LINES].half_width() + 5.0;
                let (from, to) = (start + clear(j), end - clear(j + 1));
                let steps = (to - from).ceil().max(2.0) as usize;
                for forward in [true, false] {
                    for k in 0..line.lanes {
                        let mut points: Vec<Vec2> = (0..=steps)
                            .map(|n| {
                                let t = from + (to - from) * n as f64 / steps as f64;
                                let (centre, heading) = roads.point(family, i, t);
                                let side = if forward { 1.0 } else { -1.0 };
                                along(centre, right(heading), side * line.lane_offset(k))
                            })
                            .collect();
                        if !forward {
                            points.reverse();
                        }
                        let (start, end) = if forward { (node(j), node(j + 1)) } else { (node(j + 1), node(j)) };
                        let approach = ((family * LINES + i) * LINES + j) * 2 + usize::from(forward);
                        lanes.push(Lane { points, family, k, lanes: line.lanes, start, end, approach });
                    }
                }
            }
        }
    }
    lanes
}

fn heading(a: Vec2, b: Vec2) -> Vec2 {
    let d = [b[0] - a[0], b[1] - a[1]];
    let length = d[0].hypot(d[1]).max(1e-9);
    [d[0] / length, d[1] / length]
}

fn ends(lane: &Lane, next: &Lane) -> (Vec2, Vec2, Vec2, Vec2) {
    let n = lane.points.len();
    let (from, to) = (lane.points[n - 1], next.points[0]);
    let to_near = [from[0] + wrap(to[0] - from[0]), from[1] + wrap(to[1] - from[1])];
    (from, heading(lane.points[n - 2], from), to_near, heading(to, next.points[1]))
}

/// The angle between the lanes, radians, positive to the right.
fn turn(lane: &Lane, next: &Lane) -> f64 {
    let (_, a, _, b) = ends(lane, next);
    (a[0] * b[1] - a[1] * b[0]).atan2(a[0] * b[0] + a[1] * b[1])
}

fn leg(i: usize, lane: &Lane, j: usize, next: &Lane, turn: f64) -> Leg {
    let (from, out, to, into) = ends(lane, next);
    let mut points = lane.points.clone();
    let stop_at = points.len() - 1;
    // A cubic that is nearly a circle's arc in a quarter turn.
    let arm = (to[0] - from[0]).hypot(to[1] - from[1]) * 0.39;
    let (b, c) = (along(from, out, arm), along(to, into, -arm));
    let steps = 24;
    for n in 1..=steps {
        let t = f64::from(n) / f64::from(steps);
        let u = 1.0 - t;
        let weights = [u * u * u, 3.0 * u * u * t, 3.0 * u * t * t, t * t * t];
        let of = |a: usize| weights[0] * from[a] + weights[1] * b[a] + weights[2] * c[a] + weights[3] * to[a];
        points.push([of(0), of(1)]);
    }
    let mut distances = vec![0.0];
    for pair in points.windows(2) {
        distances.push(distances[distances.len() - 1] + (pair[1][0] - pair[0][0]).hypot(pair[1][1] - pair[0][1]));
    }
    Leg {
        lane: i,
        next: j,
        junction: lane.end,
        approach: lane.approach,
        family: lane.family,
        stop: distances[stop_at],
        turn_speed: if turn.abs() > 0.7 { TURN_SPEED } else { f64::MAX },
        points,
        distances,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng::Rng;

    #[test]
    fn every_lane_leads_on_and_legs_are_continuous() {
        for seed in 0..10 {
            let routes = Routes::new(&Roads::new(&mut Rng::new(seed, 0)));
            assert!(routes.of_lane.iter().all(|legs| !legs.is_empty()));
            for leg in &routes.legs {
                let start = routes.legs[routes.of_lane[leg.next][0]].point(0.0).0;
                let end = leg.point(leg.length()).0;
                assert!(wrap(start[0] - end[0]).hypot(wrap(start[1] - end[1])) < 1e-6);
                assert!(leg.stop > 15.0 && leg.length() - leg.stop < 60.0);
            }
        }
    }
}
