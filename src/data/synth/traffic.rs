//! What moves: vehicles that follow lanes, queue at junctions and turn, people on the pavements, and the ego among them.

use super::roads::{PERIOD_M, Vec2, along, right};
use super::routes::{Leg, Routes};
use super::shapes::Kind;
use super::town::{Town, toward};
use crate::rng::Rng;

/// Seconds between frames.
pub(super) const FRAME_SECS: f64 = 0.1;
/// Comfortable acceleration and braking, m/s^2.
const ACCELERATION: f64 = 1.8;
const BRAKING: f64 = 2.5;
/// Gap kept between standing vehicles, metres.
const GAP_M: f64 = 2.2;
/// How long one approach may hold a junction while others wait, seconds.
const HOLD_SECS: f64 = 6.0;
/// Signalled junctions change direction after this long, seconds.
const SIGNAL_SECS: f64 = 7.0;

/// How much moves in a town.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Level {
    /// 25 vehicles and 25 pedestrians.
    Light,
    /// 50 of each.
    Medium,
    /// 100 of each.
    Heavy,
}

impl Level {
    /// The three levels of CarlaSC.
    pub const ALL: [Level; 3] = [Level::Light, Level::Medium, Level::Heavy];

    /// Its name in CarlaSC's sequences.
    pub fn name(self) -> &'static str {
        match self {
            Level::Light => "Light",
            Level::Medium => "Medium",
            Level::Heavy => "Heavy",
        }
    }

    fn actors(self) -> usize {
        match self {
            Level::Light => 25,
            Level::Medium => 50,
            Level::Heavy => 100,
        }
    }
}

/// Something that moves, at one moment.
#[derive(Debug, Clone, Copy)]
pub(super) struct Actor {
    pub kind: Kind,
    pub at: Vec2,
    pub heading: Vec2,
}

/// Where everything is at one moment.
#[derive(Debug, Clone)]
pub(super) struct Moment {
    /// The ego's position in the endless world, metres.
    pub ego: Vec2,
    /// The direction the ego faces.
    pub heading: Vec2,
    /// Points of view in the world: the ego's, and others on its way that fill in what it cannot see alone.
    pub views: Vec<Vec2>,
    /// Everything that moves but the ego.
    pub actors: Vec<Actor>,
}

struct Vehicle {
    kind: Kind,
    leg: usize,
    /// Distance of the front axle along the leg, metres.
    s: f64,
    speed: f64,
    desired: f64,
    front: Vec2,
    rear: Vec2,
    granted: bool,
    /// When it began to wait for its junction, seconds.
    asked: Option<f64>,
}

impl Vehicle {
    /// From the front axle to the front bumper, and from the front axle to the rear bumper.
    fn reach(&self) -> (f64, f64) {
        let overhang = (self.kind.size()[0] - self.kind.wheelbase()) / 2.0;
        (overhang, self.kind.size()[0] - overhang)
    }

    fn pose(&self) -> (Vec2, Vec2) {
        let d = [self.front[0] - self.rear[0], self.front[1] - self.rear[1]];
        let length = d[0].hypot(d[1]).max(1e-9);
        (along(self.rear, d, 0.5), [d[0] / length, d[1] / length])
    }
}

struct Walker {
    at: Vec2,
    heading: Vec2,
    speed: f64,
    /// +1 with the kerb on its left, -1 on its right.
    sign: f64,
    /// Distance from the kerb it keeps, metres.
    distance: f64,
}

#[derive(Clone, Default)]
struct Junction {
    /// The approach whose vehicles may pass, and since when.
    holder: Option<(usize, f64)>,
}

/// The simulation of one sequence.
pub(super) struct Traffic<'a> {
    town: &'a Town,
    routes: Routes,
    vehicles: Vec<Vehicle>,
    walkers: Vec<Walker>,
    junctions: Vec<Junction>,
    secs: f64,
    rng: Rng,
}

impl<'a> Traffic<'a> {
    /// Fills a town and lets it run until queues have formed.
    pub fn new(town: &'a Town, level: Level, seed: u64) -> Traffic<'a> {
        let mut rng = Rng::new(seed, 3);
        let routes = Routes::new(&town.roads);
        let mut vehicles: Vec<Vehicle> = Vec::new();
        for i in 0..level.actors() + 1 {
            // The ego is the first. A place is tried a few times; a full town takes fewer vehicles.
            for _ in 0..30 {
                let leg = rng.below(routes.legs.len());
                let s = rng.uniform(9.0, (routes.legs[leg].stop - 2.0).max(9.1));
                let kind = match rng.unit() {
                    _ if i == 0 => Kind::Car,
                    k if k < 0.74 => Kind::Car,
                    k if k < 0.88 => Kind::Truck,
                    k if k < 0.94 => Kind::Motorbike,
                    _ => Kind::Bus,
                };
                let lane = routes.legs[leg].lane;
                if vehicles.iter().any(|v| routes.legs[v.leg].lane == lane && (v.s - s).abs() < 15.0) {
                    continue;
                }
                let (front, heading) = routes.legs[leg].point(s);
                let desired = if i == 0 { rng.uniform(7.0, 9.0) } else { rng.uniform(5.5, 11.5) };
                let rear = along(front, heading, -kind.wheelbase());
                vehicles.push(Vehicle {
                    kind,
                    leg,
                    s,
                    speed: 0.5 * desired,
                    desired,
                    front,
                    rear,
                    granted: false,
                    asked: None,
                });
                break;
            }
        }
        let walkers = walkers(town, level.actors(), &mut rng);
        let junctions = vec![Junction::default(); routes.junctions];
        let mut traffic = Traffic { town, routes, vehicles, walkers, junctions, secs: 0.0, rng };
        for _ in 0..250 {
            traffic.step();
        }
        traffic
    }

    /// The present moment; then time moves on by one frame.
    pub fn next_moment(&mut self) -> Moment {
        let (ego, heading) = self.vehicles[0].pose();
        let moment = Moment {
            ego,
            heading,
            views: self.views(ego),
            actors: self
                .vehicles
                .iter()
                .skip(1)
                .map(|v| {
                    let (at, heading) = v.pose();
                    Actor { kind: v.kind, at, heading }
                })
                .chain(self.walkers.iter().map(|w| Actor { kind: Kind::Pedestrian, at: w.at, heading: w.heading }))
                .collect(),
        };
        self.step();
        moment
    }

    /// The ego's place, and places ahead of it and behind it on its way.
    fn views(&self, ego: Vec2) -> Vec<Vec2> {
        let (vehicle, leg) = (&self.vehicles[0], &self.routes.legs[self.vehicles[0].leg]);
        let mut views = vec![ego];
        for distance in [-16.0, 14.0] {
            let s = vehicle.s + distance;
            let point = if s <= leg.length() {
                leg.point(s).0
            } else {
                self.routes.legs[self.routes.of_lane[leg.next][0]].point(s - leg.length()).0
            };
            views.push(along(ego, toward(ego, point), 1.0));
        }
        views
    }

    fn step(&mut self) {
        self.grant();
        let accelerations: Vec<f64> = (0..self.vehicles.len()).map(|i| self.acceleration(i)).collect();
        for (i, acceleration) in accelerations.into_iter().enumerate() {
            self.advance(i, acceleration);
        }
        self.walk();
        self.secs += FRAME_SECS;
    }

    /// Intelligent-driver acceleration (Treiber et al. 2000) towards the desired speed, the turn and whatever is in front.
    fn acceleration(&self, i: usize) -> f64 {
        let vehicle = &self.vehicles[i];
        let leg = &self.routes.legs[vehicle.leg];
        let before_turn = (leg.stop - vehicle.s).max(0.0);
        let limit = if vehicle.s > leg.length() - 2.0 { f64::MAX } else { leg.turn_speed };
        let desired = vehicle.desired.min((limit * limit + 2.0 * 1.5 * before_turn).sqrt());
        let mut strongest = ACCELERATION * (1.0 - (vehicle.speed / desired).powi(4));
        let mut follow = |gap: f64, speed: f64| {
            let closing = vehicle.speed - speed;
            let wanted = GAP_M
                + (vehicle.speed * 1.1 + vehicle.speed * closing / (2.0 * (ACCELERATION * BRAKING).sqrt())).max(0.0);
            let free = (vehicle.speed / desired).powi(4);
            strongest = strongest.min(ACCELERATION * (1.0 - free - (wanted / gap.max(0.1)).powi(2)));
        };
        if vehicle.s < leg.stop && !vehicle.granted {
            follow(leg.stop - vehicle.s + GAP_M - 1.0, 0.0);
        }
        for (j, other) in self.vehicles.iter().enumerate().filter(|&(j, _)| j != i) {
            if let Some(gap) = self.gap(i, j) {
                follow(gap - vehicle.reach().0 - other.reach().1, other.speed);
            }
        }
        strongest.clamp(-8.0, ACCELERATION)
    }

    /// The distance between the front axles if vehicle `j` is in front of vehicle `i` on its way.
    fn gap(&self, i: usize, j: usize) -> Option<f64> {
        let (a, b) = (&self.vehicles[i], &self.vehicles[j]);
        let (leg, other) = (&self.routes.legs[a.leg], &self.routes.legs[b.leg]);
        if leg.lane == other.lane && (a.leg == b.leg || a.s < leg.stop + 4.0) {
            return (b.s > a.s || (b.s == a.s && j < i)).then_some(b.s - a.s);
        }
        if other.lane == leg.next && b.s < other.stop {
            return Some(leg.length() - a.s + b.s);
        }
        // Two lanes become one: who has less way left goes first.
        let (left, others) = (leg.length() - a.s, other.length() - b.s);
        let merging = other.next == leg.next && b.s > other.stop && (a.s > leg.stop || a.granted);
        (merging && (others < left || (others == left && j < i))).then_some(left - others)
    }

    /// Lets waiting vehicles into the junctions, one approach at a time, in the order of their waiting.
    fn grant(&mut self) {
        for (node, junction) in self.junctions.iter_mut().enumerate() {
            let legs = &self.routes.legs;
            let here = |v: &&Vehicle| legs[v.leg].junction == node;
            if self.vehicles.iter().filter(here).all(|v| !v.granted) {
                junction.holder = None;
            }
            // Every second junction has signals that let the two directions pass in turn.
            let phase = (self.secs / SIGNAL_SECS) as usize + node;
            let green = |leg: &Leg| node % 2 == 0 || leg.family == phase % 2;
            let mut waiting: Vec<(f64, usize)> = Vec::new();
            for (i, vehicle) in self.vehicles.iter_mut().enumerate() {
                let leg = &legs[vehicle.leg];
                let near = leg.stop - vehicle.s < 10.0 + vehicle.speed * vehicle.speed / (2.0 * 1.8);
                if leg.junction == node && !vehicle.granted && vehicle.s < leg.stop && near && green(leg) {
                    waiting.push((*vehicle.asked.get_or_insert(self.secs), i));
                }
            }
            waiting.sort_by(|a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)));
            let first = waiting.first().map(|&(_, i)| legs[self.vehicles[i].leg].approach);
            for (_, i) in waiting {
                let leg = &legs[self.vehicles[i].leg];
                let may = match junction.holder {
                    None => true,
                    Some((approach, since)) => {
                        approach == leg.approach && (self.secs - since < HOLD_SECS || first == Some(approach))
                    }
                };
                if may && room(&self.vehicles, legs, i) {
                    junction.holder.get_or_insert((leg.approach, self.secs));
                    self.vehicles[i].granted = true;
                }
            }
        }
    }

    fn advance(&mut self, i: usize, acceleration: f64) {
        let vehicle = &mut self.vehicles[i];
        vehicle.speed = (vehicle.speed + acceleration * FRAME_SECS).max(0.0);
        if vehicle.speed < 0.05 && acceleration <= 0.0 {
            vehicle.speed = 0.0;
        }
        vehicle.s += vehicle.speed * FRAME_SECS;
        let leg = &self.routes.legs[vehicle.leg];
        if vehicle.s >= leg.length() {
            vehicle.s -= leg.length();
            let options = &self.routes.of_lane[leg.next];
            vehicle.leg = options[self.rng.below(options.len())];
            vehicle.granted = false;
            vehicle.asked = None;
        }
        let target = self.routes.legs[vehicle.leg].point(vehicle.s).0;
        // The rear axle is dragged behind the front one, as a trailer is.
        vehicle.front = along(vehicle.front, toward(vehicle.front, target), 1.0);
        let d = [vehicle.front[0] - vehicle.rear[0], vehicle.front[1] - vehicle.rear[1]];
        let pull = vehicle.kind.wheelbase() / d[0].hypot(d[1]).max(1e-9);
        vehicle.rear = along(vehicle.front, d, -pull);
    }

    /// People follow the kerb at their own distance.
    fn walk(&mut self) {
        for walker in &mut self.walkers {
            let (kerb, uphill) = self.town.roads.slope(walker.at);
            let way = right(uphill).map(|v| v * walker.sign);
            let aside = ((walker.distance - kerb) * 0.6).clamp(-0.7, 0.7);
            let sought = along(way, uphill, aside);
            let length = sought[0].hypot(sought[1]).max(1e-9);
            let turned = along(walker.heading.map(|v| v * 0.8), sought, 0.2 / length);
            let length = turned[0].hypot(turned[1]).max(1e-9);
            walker.heading = [turned[0] / length, turned[1] / length];
            walker.at = along(walker.at, walker.heading, walker.speed * FRAME_SECS).map(|v| v.rem_euclid(PERIOD_M));
        }
    }
}

/// Whether the lane behind the junction takes one more vehicle, those on their way into it counted.
fn room(vehicles: &[Vehicle], legs: &[Leg], i: usize) -> bool {
    let next = legs[vehicles[i].leg].next;
    let mut room = 40.0;
    let mut coming = vehicles[i].kind.size()[0] + GAP_M;
    for (j, other) in vehicles.iter().enumerate().filter(|&(j, _)| j != i) {
        let leg = &legs[other.leg];
        if leg.lane == next {
            // Who drives away makes room.
            room = f64::min(room, other.s - other.reach().1 + 1.2 * other.speed);
        } else if leg.next == next && (other.granted || other.s > leg.stop) && j != i {
            coming += other.kind.size()[0] + GAP_M;
        }
    }
    room > coming
}

fn walkers(town: &Town, count: usize, rng: &mut Rng) -> Vec<Walker> {
    let mut walkers = Vec::new();
    for _ in 0..count * 200 {
        if walkers.len() == count {
            break;
        }
        let at = [rng.uniform(0.0, PERIOD_M), rng.uniform(0.0, PERIOD_M)];
        let kerb = town.roads.ground(at).kerb;
        if kerb > 1.0 && kerb < town.pavement - 0.6 {
            let sign = if rng.chance(0.5) { 1.0 } else { -1.0 };
            let heading = right(town.roads.slope(at).1).map(|v| v * sign);
            walkers.push(Walker { at, heading, speed: rng.uniform(1.0, 1.6), sign, distance: kerb });
        }
    }
    walkers
}

#[cfg(test)]
mod tests {
    use super::super::roads::wrap;
    use super::*;

    #[test]
    fn nothing_jumps_and_the_ego_gets_around() {
        let town = Town::new(5);
        let mut traffic = Traffic::new(&town, Level::Heavy, 8);
        let mut before = traffic.next_moment();
        let (mut way, mut standing) = (0.0, 0);
        for _ in 0..1500 {
            let now = traffic.next_moment();
            let step = (now.ego[0] - before.ego[0]).hypot(now.ego[1] - before.ego[1]);
            let turn = (now.heading[0] * before.heading[1] - now.heading[1] * before.heading[0]).abs();
            assert!(step < 1.2 && turn < 0.12, "the ego moved {step} m and turned {turn}");
            way += step;
            standing += usize::from(step < 0.01);
            for (a, b) in now.actors.iter().zip(&before.actors) {
                assert!(wrap(a.at[0] - b.at[0]).hypot(wrap(a.at[1] - b.at[1])) < 1.4);
            }
            before = now;
        }
        assert!(way > 300.0, "the ego moved only {way} m in 150 s and stood for {standing} frames");
    }

    #[test]
    fn vehicles_stay_on_the_road_and_people_off_it() {
        let town = Town::new(6);
        let mut traffic = Traffic::new(&town, Level::Medium, 9);
        let (mut vehicles, mut walkers, mut off, mut on) = (0, 0, 0, 0);
        for _ in 0..200 {
            for actor in traffic.next_moment().actors {
                let kerb = town.roads.ground(actor.at).kerb;
                if actor.kind == Kind::Pedestrian {
                    walkers += 1;
                    on += usize::from(kerb < 0.2);
                } else {
                    vehicles += 1;
                    off += usize::from(kerb > -0.8);
                }
            }
        }
        assert!(off * 100 < vehicles && on * 50 < walkers, "{off} of {vehicles} off the road, {on} of {walkers} on it");
    }

    #[test]
    fn vehicles_hardly_ever_drive_through_each_other() {
        let (mut met, mut seen) = (0, 0);
        for seed in 0..3 {
            let town = Town::new(20 + seed);
            let mut traffic = Traffic::new(&town, Level::Heavy, seed);
            for _ in 0..300 {
                let actors = traffic.next_moment().actors;
                let vehicles: Vec<&Actor> = actors.iter().filter(|a| a.kind != Kind::Pedestrian).collect();
                for (i, a) in vehicles.iter().enumerate() {
                    let close = |b: &&&Actor| wrap(a.at[0] - b.at[0]).hypot(wrap(a.at[1] - b.at[1])) < 2.2;
                    met += vehicles[..i].iter().filter(close).count();
                    seen += 1;
                }
            }
        }
        assert!(met * 500 < seen, "{met} meetings in {seen} sightings");
    }
}
