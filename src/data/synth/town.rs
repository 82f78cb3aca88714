//! A town's static world: what the ground is made of, and everything that stands on it.

use rayon::prelude::*;

use super::roads::{LINES, PERIOD_M, Roads, Vec2, along, right, wrap};
use super::shapes::{Kind, Solid, raw, tree};
use crate::rng::Rng;

/// Cells of the ground map along one side.
const CELLS: usize = 1200;
/// Cells along one side of the map of built-up places, 1 m each.
const PLOTS: usize = PERIOD_M as usize;

/// What a block is used for; it decides what stands behind the pavement.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Zone {
    Shops,
    Houses,
    Walled,
    Park,
    Lot,
}

/// The zones in the proportions they occur in.
const ZONES: [Zone; 8] =
    [Zone::Shops, Zone::Shops, Zone::Houses, Zone::Houses, Zone::Houses, Zone::Walled, Zone::Park, Zone::Lot];

/// What runs along the back of the pavement around a block.
#[derive(Debug, Clone, Copy)]
struct Fence {
    raw: u8,
    height: f64,
    /// How far behind the pavement it runs, metres.
    setback: f64,
    /// How often a gate begins, for every 2 m.
    gates: f64,
}

/// The static world of a town.
pub(super) struct Town {
    /// The road network.
    pub roads: Roads,
    /// Width of the pavements, metres.
    pub pavement: f64,
    /// Everything that stands on the ground; later ones win where they overlap.
    pub solids: Vec<Solid>,
    /// Raw ids of the ground, `[x][y]`, over one period.
    ground: Vec<u8>,
}

impl Town {
    /// Builds the town of a seed.
    pub fn new(seed: u64) -> Town {
        let rng = &mut Rng::new(seed, 1);
        let roads = Roads::new(rng);
        let pavement = rng.uniform(3.4, 4.4);
        let zones: Vec<Zone> = (0..LINES * LINES).map(|_| ZONES[rng.below(ZONES.len())]).collect();
        let ground = paint(&roads, pavement, &zones);
        let mut builder = Builder {
            fences: zones.iter().map(|&zone| fence(zone, rng)).collect(),
            built: vec![false; PLOTS * PLOTS],
            fenced: vec![false; PLOTS * PLOTS],
            solids: Vec::new(),
            roads: &roads,
            pavement,
            rng: Rng::new(seed, 2),
        };
        for family in 0..2 {
            for i in 0..LINES {
                for j in (0..LINES).filter(|&j| roads.lines[family][i].present[j]) {
                    builder.piece(family, i, j, &zones);
                }
            }
        }
        let mut solids = builder.solids;
        let rank = |solid: &Solid| match solid.raw {
            raw::VEGETATION => 0,
            raw::BUILDING => 1,
            raw::POLE | raw::SIGN | raw::TRAFFIC_LIGHT => 4,
            raw::VEHICLE => 3,
            _ => 2,
        };
        solids.sort_by_key(rank);
        Town { roads, pavement, solids, ground }
    }

    /// The raw id of the ground at a point.
    pub fn ground(&self, at: Vec2) -> u8 {
        let cell = |v: f64| ((v.rem_euclid(PERIOD_M) * (CELLS as f64 / PERIOD_M)) as usize).min(CELLS - 1);
        self.ground[cell(at[0]) * CELLS + cell(at[1])]
    }
}

fn fence(zone: Zone, rng: &mut Rng) -> Option<Fence> {
    let (raw, height, gates) = match zone {
        Zone::Shops if rng.chance(0.5) => (raw::WALL, 2.3, 0.02),
        Zone::Shops => return None,
        Zone::Houses => match rng.unit() {
            style if style < 0.6 => (raw::FENCE, 1.5, 0.06),
            style if style < 0.8 => (raw::WALL, 1.25, 0.06),
            _ => (raw::VEGETATION, 1.3, 0.08),
        },
        Zone::Walled => (raw::WALL, 2.5, 0.02),
        Zone::Park => (raw::FENCE, 1.25, 0.05),
        Zone::Lot => (raw::FENCE, 2.0, 0.05),
    };
    // Behind the shops' fronts it closes the gaps between them.
    let setback = if zone == Zone::Shops { 2.4 } else { 0.3 };
    Some(Fence { raw, height, setback, gates })
}

fn paint(roads: &Roads, pavement: f64, zones: &[Zone]) -> Vec<u8> {
    let mut ground = vec![0u8; CELLS * CELLS];
    let step = PERIOD_M / CELLS as f64;
    ground.par_chunks_mut(CELLS).enumerate().for_each(|(i, row)| {
        for (j, cell) in row.iter_mut().enumerate() {
            let at = [(i as f64 + 0.5) * step, (j as f64 + 0.5) * step];
            let here = roads.ground(at);
            *cell = if here.kerb < 0.0 {
                if here.marking { raw::ROAD_LINE } else { raw::ROAD }
            } else if here.kerb < pavement {
                raw::SIDEWALK
            } else {
                let [v, h] = roads.block(at);
                match zones[v * LINES + h] {
                    Zone::Park | Zone::Houses => raw::TERRAIN,
                    Zone::Shops if here.kerb < pavement + 1.5 => raw::SIDEWALK,
                    _ => raw::GROUND,
                }
            };
        }
    });
    ground
}

fn rail(at: Vec2, heading: Vec2) -> Solid {
    Solid::block(raw::GUARD_RAIL, at, heading, [1.05, 0.12], [-0.2, 0.9]).porous()
}

/// Places solids along the roads.
struct Builder<'a> {
    /// What surrounds each block.
    fences: Vec<Option<Fence>>,
    /// Where something stands behind the pavement, and where a fence has been drawn.
    built: Vec<bool>,
    fenced: Vec<bool>,
    solids: Vec<Solid>,
    roads: &'a Roads,
    pavement: f64,
    rng: Rng,
}

/// One side of a piece of road.
#[derive(Clone, Copy)]
struct Side {
    family: usize,
    line: usize,
    /// +1 to the right of growing t, -1 to the left.
    sign: f64,
    /// Where things may stand, along the line.
    from: f64,
    to: f64,
}

impl Builder<'_> {
    fn piece(&mut self, family: usize, line: usize, j: usize, zones: &[Zone]) {
        let (start, end) = self.roads.piece(family, line, j);
        for sign in [-1.0, 1.0] {
            let side = Side { family, line, sign, from: start + 8.0, to: end - 8.0 };
            let (middle, _) = self.at(side, (start + end) / 2.0, self.pavement + 6.0);
            let [v, h] = self.roads.block(middle);
            let zone = zones[v * LINES + h];
            self.kerb(side, zone);
            self.kerb_rail(side);
            self.parked(side);
            self.frontage(side, zone, self.fences[v * LINES + h]);
        }
        self.median(family, line, start, end);
    }

    /// The point `d` metres behind the kerb at `t`, and the road's direction there.
    fn at(&self, side: Side, t: f64, d: f64) -> (Vec2, Vec2) {
        let (centre, heading) = self.roads.point(side.family, side.line, t);
        let half_width = self.roads.lines[side.family][side.line].half_width();
        (along(centre, right(heading), side.sign * (half_width + d)), heading)
    }

    /// Whether a point lies at least `distance` behind every kerb.
    fn behind(&self, at: Vec2, distance: f64) -> bool {
        self.roads.ground(at).kerb >= distance
    }

    /// Puts a solid behind the pavement unless something stands there or it would reach into a street.
    fn build(&mut self, solid: Solid) -> bool {
        let mut cells = Vec::new();
        let steps = |half: f64| (2.0 * half).ceil().max(1.0) as usize;
        let (n, m) = (steps(solid.half[0]), steps(solid.half[1]));
        for a in 0..=n {
            for b in 0..=m {
                let u = (a as f64 / n as f64 * 2.0 - 1.0) * solid.half[0];
                let v = (b as f64 / m as f64 * 2.0 - 1.0) * solid.half[1];
                let at = along(along(solid.at, solid.heading, u), right(solid.heading), v);
                if !self.behind(at, self.pavement) {
                    return false;
                }
                let cell = at.map(|v| (v.rem_euclid(PERIOD_M) as usize).min(PLOTS - 1));
                cells.push(cell[0] * PLOTS + cell[1]);
            }
        }
        if cells.iter().any(|&cell| self.built[cell]) {
            return false;
        }
        cells.into_iter().for_each(|cell| self.built[cell] = true);
        self.solids.push(solid);
        true
    }

    /// Lamps, lights, signs, trees and clutter on the pavement.
    fn kerb(&mut self, side: Side, zone: Zone) {
        let mut t = side.from + self.rng.uniform(0.0, 14.0);
        while t < side.to {
            self.on_pavement(side, t, 0.5, |at, _| vec![Solid::post(raw::POLE, at, 0.12, 6.0)]);
            t += self.rng.uniform(22.0, 30.0);
        }
        // Traffic lights stand where the lanes end: at the far end on the right, at the near end on the left.
        let end = if side.sign > 0.0 { side.to - 3.0 } else { side.from + 3.0 };
        self.on_pavement(side, end, 0.7, |at, _| vec![Solid::post(raw::TRAFFIC_LIGHT, at, 0.15, 3.2)]);
        let leafy = matches!(zone, Zone::Park | Zone::Houses) || self.rng.chance(0.5);
        let mut t = side.from + self.rng.uniform(2.0, 8.0);
        while t < side.to {
            let kind = self.rng.unit();
            let (radius, bottom) = (self.rng.uniform(1.5, 2.4), self.rng.uniform(1.8, 2.4));
            let inner = self.pavement - 0.7;
            match kind {
                k if k < 0.3 && leafy => self.on_pavement(side, t, 0.9, |at, _| tree(at, radius, bottom).to_vec()),
                k if k < 0.42 => self.on_pavement(side, t, 0.6, |at, heading| {
                    let plate = Solid::block(raw::SIGN, at, right(heading), [0.4, 0.1], [1.7, 2.4]).porous();
                    vec![Solid::post(raw::POLE, at, 0.08, 1.9), plate]
                }),
                k if k < 0.56 => self.on_pavement(side, t, inner, |at, heading| {
                    vec![Solid::block(raw::STATIC, at, heading, [0.9, 0.3], [0.1, 0.9])]
                }),
                k if k < 0.66 => self.on_pavement(side, t, 0.8, |at, heading| {
                    vec![Solid::block(raw::STATIC, at, heading, [0.4, 0.4], [0.1, 1.2])]
                }),
                k if k < 0.72 => self.on_pavement(side, t, inner - 0.1, |at, heading| {
                    vec![Solid::block(raw::STATIC, at, heading, [1.0, 0.5], [0.1, 1.7])]
                }),
                k if k < 0.76 => self.on_pavement(side, t, 1.3, |at, heading| {
                    let inward = right(heading).map(|v| v * side.sign);
                    let back = along(at, inward, 0.7);
                    vec![
                        Solid::block(raw::STATIC, at, heading, [2.0, 0.8], [2.2, 2.5]).porous(),
                        Solid::block(raw::STATIC, back, heading, [2.0, 0.06], [0.1, 2.2]).porous(),
                    ]
                }),
                k if k < 0.82 && zone == Zone::Shops => self.on_pavement(side, t, inner, |at, heading| {
                    vec![Solid::block(raw::DYNAMIC, at, heading, [0.6, 0.6], [0.1, 1.0])]
                }),
                _ => {}
            }
            t += self.rng.uniform(3.0, 6.0);
        }
    }

    /// Adds what `make` builds at `d` behind the kerb, unless another street or its pavement's kerb is in the way.
    fn on_pavement(&mut self, side: Side, t: f64, d: f64, make: impl Fn(Vec2, Vec2) -> Vec<Solid>) {
        let (at, heading) = self.at(side, t, d);
        if self.behind(at, d - 0.3) {
            self.solids.extend(make(at, heading));
        }
    }

    /// Cars at the kerb of roads that allow it.
    fn parked(&mut self, side: Side) {
        if !self.roads.lines[side.family][side.line].parking {
            return;
        }
        let mut t = side.from + 6.0;
        while t < side.to - 6.0 {
            if self.rng.chance(0.33) {
                let kind = if self.rng.chance(0.85) { Kind::Car } else { Kind::Truck };
                let (at, heading) = self.at(side, t, -1.25);
                kind.build(at, heading.map(|v| v * side.sign), &mut self.solids);
            }
            t += self.rng.uniform(6.2, 7.0);
        }
    }

    /// A guard rail between the directions of a wide road.
    fn median(&mut self, family: usize, line: usize, start: f64, end: f64) {
        if self.roads.lines[family][line].median > 0.0 {
            let mut t = start + 15.0;
            while t < end - 15.0 {
                let (at, heading) = self.roads.point(family, line, t);
                self.solids.push(rail(at, heading));
                t += 2.0;
            }
        }
    }

    /// A guard rail along the kerb of some wide roads, with openings.
    fn kerb_rail(&mut self, side: Side) {
        if self.roads.lines[side.family][side.line].lanes < 2 || !self.rng.chance(0.5) {
            return;
        }
        let mut t = side.from + 7.0;
        while t < side.to - 7.0 {
            for _ in 0..6 {
                self.on_pavement(side, t, 0.3, |at, heading| vec![rail(at, heading)]);
                t += 2.0;
            }
            t += self.rng.uniform(1.0, 4.0);
        }
    }

    /// Buildings, gardens, fences and walls behind the pavement.
    fn frontage(&mut self, side: Side, zone: Zone, fence: Option<Fence>) {
        if let Some(fence) = fence {
            self.barrier(side, fence);
        }
        match zone {
            Zone::Shops => {
                self.buildings(side, 0.1, [9.0, 18.0], [4.0, 15.0], 0.4);
                self.buildings(side, 0.1, [5.0, 7.0], [4.0, 9.0], 0.6);
            }
            Zone::Houses => {
                self.buildings(side, 3.5, [9.0, 13.0], [5.0, 7.5], 0.7);
                self.garden(side, 0.7, 0.6);
            }
            Zone::Walled => {
                self.buildings(side, 3.0, [10.0, 20.0], [5.0, 10.0], 0.4);
                self.garden(side, 0.7, 0.1);
            }
            Zone::Park => {
                self.garden(side, 0.9, 0.8);
            }
            Zone::Lot => {
                let mut t = side.from + 6.0;
                while t < side.to - 6.0 {
                    let (at, heading) = self.at(side, t, self.pavement + 4.0);
                    let footprint = Solid::block(raw::VEHICLE, at, right(heading), [2.3, 0.9], [0.2, 1.6]);
                    if self.rng.chance(0.35) && self.build(footprint) {
                        self.solids.pop();
                        Kind::Car.build(at, right(heading), &mut self.solids);
                    }
                    t += 2.9;
                }
                self.buildings(side, 12.0, [14.0, 24.0], [5.0, 9.0], 0.6);
                self.garden(side, 0.15, 0.2);
            }
        }
    }

    /// A row of buildings `setback` behind the pavement.
    fn buildings(&mut self, side: Side, setback: f64, width: [f64; 2], height: [f64; 2], gaps: f64) {
        let mut t = side.from;
        while t < side.to {
            let wide = self.rng.uniform(width[0], width[1]);
            let deep = self.rng.uniform(8.0, 13.0);
            let step = if self.rng.chance(0.5) { 0.0 } else { self.rng.uniform(0.0, 1.5) };
            let tall = self.rng.uniform(height[0], height[1]);
            let (at, heading) = self.at(side, t + wide / 2.0, self.pavement + setback + step + deep / 2.0 + 0.3);
            let gap = if self.rng.chance(gaps) { self.rng.uniform(2.0, 7.0) } else { 0.1 };
            let fits = self.build(Solid::block(raw::BUILDING, at, heading, [wide / 2.0, deep / 2.0], [-0.2, tall]));
            t += if fits { wide + gap } else { 1.5 };
        }
    }

    /// A fence, wall or hedge that follows the back of the pavement around the block, with gates.
    fn barrier(&mut self, side: Side, fence: Fence) {
        let distance = self.pavement + fence.setback;
        let start = self.at(side, (side.from + side.to) / 2.0, distance).0;
        let block = self.roads.block(start);
        for turn in [-1.0, 1.0] {
            let (mut at, mut open) = (start, 0.0);
            for step in 0..100 {
                let (kerb, uphill) = self.roads.slope(at);
                at = along(at, uphill, distance - kerb);
                let cell = at.map(|v| (v.rem_euclid(PERIOD_M) as usize).min(PLOTS - 1));
                let fenced = &mut self.fenced[cell[0] * PLOTS + cell[1]];
                if (*fenced && step > 0) || self.roads.block(at) != block {
                    break;
                }
                *fenced = true;
                if open <= 0.0 && self.rng.chance(fence.gates) {
                    open = self.rng.uniform(2.0, 4.5);
                }
                let way = right(uphill);
                if open <= 0.0 && (kerb - distance).abs() < 1.0 {
                    let width = if fence.raw == raw::VEGETATION { 0.45 } else { 0.12 };
                    let panel = Solid::block(fence.raw, at, way, [1.05, width], [-0.2, fence.height]);
                    self.solids.push(if fence.raw == raw::FENCE { panel.porous() } else { panel });
                }
                open -= 2.0;
                at = along(at, way, 2.0 * turn);
            }
        }
    }

    /// Trees and bushes behind the pavement, as shares of places along the road, and things left lying about.
    fn garden(&mut self, side: Side, trees: f64, bushes: f64) {
        let mut t = side.from;
        while t < side.to {
            let d = self.pavement + self.rng.uniform(1.6, 9.0);
            let at = self.at(side, t, d).0;
            let (radius, bottom) = (self.rng.uniform(1.6, 3.0), self.rng.uniform(1.7, 2.3));
            let trunk = Solid::post(raw::VEGETATION, at, 0.3, 2.0);
            if self.rng.chance(trees) && self.build(trunk) {
                self.solids.extend(tree(at, radius, bottom));
            }
            let d = self.pavement + self.rng.uniform(1.2, 5.0);
            let at = self.at(side, t + 2.5, d).0;
            let radius = self.rng.uniform(0.5, 1.1);
            let bush = Solid::foliage(at, radius, [-radius, 0.7 + 0.4 * radius]);
            if self.rng.chance(bushes) {
                self.build(bush);
            }
            let d = self.pavement + self.rng.uniform(1.5, 6.0);
            let (at, heading) = self.at(side, t + 1.2, d);
            let half = [self.rng.uniform(0.5, 1.4), self.rng.uniform(0.4, 0.9)];
            let thing = Solid::block(raw::STATIC, at, heading, half, [0.0, self.rng.uniform(0.7, 2.2)]);
            if self.rng.chance(0.22) {
                self.build(thing);
            }
            t += self.rng.uniform(4.0, 7.0);
        }
    }
}

/// The shortest vector from `a` to `b` in the repeating town.
pub(super) fn toward(a: Vec2, b: Vec2) -> Vec2 {
    [wrap(b[0] - a[0]), wrap(b[1] - a[1])]
}
