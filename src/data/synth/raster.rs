//! From solids to voxels, and which of them the sensors see.

use super::roads::{PERIOD_M, Vec2, wrap};
use super::shapes::Solid;
use super::town::Town;
use super::traffic::Moment;
use crate::data::Grid;
use crate::rng::philox;

/// Height of the sensor above the road, metres.
pub(super) const SENSOR_M: f64 = 1.8;
/// How far the ground lies above the grid's floor, in voxels: CarlaSC's 0.2 m of 0.375.
pub(super) const GROUND_VOXELS: f64 = 0.2 / 0.375;
/// Steeper than anything that matters; it keeps the slopes of walls comparable.
const STEEPEST: f64 = 1.5;

/// One frame as it is written: raw ids and ray counts, `[X, Y, Z]` in C order. Where no ray came, the id is 0.
#[derive(Debug, Clone)]
pub(super) struct Volume {
    pub raw: Vec<u8>,
    pub rays: Vec<u16>,
}

/// Draws a moment into the ego's grid.
pub(super) fn draw(town: &Town, moment: &Moment, grid: &Grid, seed: u64) -> Volume {
    let mut canvas = Canvas::new(town, moment, grid);
    for solid in &town.solids {
        canvas.add(solid);
    }
    let mut solids = Vec::new();
    for actor in &moment.actors {
        actor.kind.build(actor.at, actor.heading, &mut solids);
    }
    solids.iter().for_each(|solid| canvas.add(solid));
    canvas.look(moment, seed)
}

struct Canvas<'a> {
    grid: &'a Grid,
    ego: Vec2,
    heading: Vec2,
    raw: Vec<u8>,
    /// Height of what hides in each column, metres above the ground, `[X, Y]`.
    tall: Vec<f64>,
    /// Copies of the town that the grid reaches into, beyond the nearest one.
    copies: i32,
}

impl<'a> Canvas<'a> {
    fn new(town: &Town, moment: &Moment, grid: &'a Grid) -> Self {
        let [nx, ny, nz] = grid.size;
        let max = grid.max_bound_m();
        let reach = (0..2).map(|a| max[a].abs().max(grid.min_bound_m[a].abs()).powi(2)).sum::<f64>().sqrt();
        let copies = ((reach - PERIOD_M / 2.0) / PERIOD_M).ceil().max(0.0) as i32;
        let mut canvas = Canvas {
            grid,
            ego: moment.ego,
            heading: moment.heading,
            raw: vec![0; grid.voxels()],
            tall: vec![0.0; nx * ny],
            copies,
        };
        for x in 0..nx {
            for y in 0..ny {
                canvas.raw[(x * ny + y) * nz] = town.ground(canvas.world([x as f64 + 0.5, y as f64 + 0.5]));
            }
        }
        canvas
    }

    /// The world's point at a place of the grid, in voxels.
    fn world(&self, voxel: Vec2) -> Vec2 {
        let [c, s] = self.heading;
        let u = self.grid.min_bound_m[0] + voxel[0] * self.grid.voxel_size_m[0];
        let v = self.grid.min_bound_m[1] + voxel[1] * self.grid.voxel_size_m[1];
        [self.ego[0] + c * u - s * v, self.ego[1] + s * u + c * v]
    }

    /// A difference in the world, in the ego's axes.
    fn turned(&self, d: Vec2) -> Vec2 {
        let [c, s] = self.heading;
        [c * d[0] + s * d[1], c * d[1] - s * d[0]]
    }

    /// Height above the ground in voxels above the floor.
    fn level(&self, height: f64) -> f64 {
        height / self.grid.voxel_size_m[2] + GROUND_VOXELS
    }

    fn add(&mut self, solid: &Solid) {
        let nearest = [wrap(solid.at[0] - self.ego[0]), wrap(solid.at[1] - self.ego[1])];
        for i in -self.copies..=self.copies {
            for j in -self.copies..=self.copies {
                let shifted = [nearest[0] + f64::from(i) * PERIOD_M, nearest[1] + f64::from(j) * PERIOD_M];
                self.add_at(solid, self.turned(shifted));
            }
        }
    }

    fn add_at(&mut self, solid: &Solid, at: Vec2) {
        let [dx, dy, _] = self.grid.voxel_size_m;
        let [nx, ny, nz] = self.grid.size;
        // Nothing is thinner than a voxel, so that walls stay closed and poles do not vanish.
        let half = solid.half.map(|half| half.max(0.5 * dx.max(dy)));
        let radius = half[0].hypot(half[1]);
        let place = [(at[0] - self.grid.min_bound_m[0]) / dx, (at[1] - self.grid.min_bound_m[1]) / dy];
        let range = |a: usize, d: f64, n: usize| {
            let low = (place[a] - radius / d - 0.5).ceil().max(0.0) as usize;
            let high = (place[a] + radius / d + 0.5).floor().clamp(0.0, n as f64) as usize;
            low..high
        };
        let axis = self.turned(solid.heading);
        let mut hit = false;
        for x in range(0, dx, nx) {
            for y in range(1, dy, ny) {
                let d = [(x as f64 + 0.5 - place[0]) * dx, (y as f64 + 0.5 - place[1]) * dy];
                let u = (d[0] * axis[0] + d[1] * axis[1]) / half[0];
                let v = (d[1] * axis[0] - d[0] * axis[1]) / half[1];
                let inside = if solid.round { u * u + v * v <= 1.0 } else { u.abs() <= 1.0 && v.abs() <= 1.0 };
                if inside {
                    hit = true;
                    let bulge = if solid.round { (1.0 - u * u - v * v).sqrt() } else { 1.0 };
                    self.fill(x * ny + y, nz, solid, bulge);
                }
            }
        }
        // A turned footprint of one voxel may lie between the centres of all columns.
        let within = |v: f64, n: usize| v >= 0.0 && v < n as f64;
        if !hit && within(place[0], nx) && within(place[1], ny) {
            self.fill(place[0] as usize * ny + place[1] as usize, nz, solid, 1.0);
        }
    }

    /// Fills the voxels of a column whose centres lie in the solid, and at least one.
    fn fill(&mut self, column: usize, nz: usize, solid: &Solid, bulge: f64) {
        let (middle, half) = ((solid.height[0] + solid.height[1]) / 2.0, (solid.height[1] - solid.height[0]) / 2.0);
        let (bottom, top) = (middle - half * bulge, middle + half * bulge);
        let low = (self.level(bottom) + 0.5).floor().max(0.0) as usize;
        let high = ((self.level(top) + 0.5).floor().max(0.0) as usize).max(low + 1).min(nz);
        for z in low..high {
            self.raw[column * nz + z] = solid.raw;
        }
        if solid.opaque {
            self.tall[column] = self.tall[column].max(top);
        }
    }

    /// Removes what no point of view sees.
    fn look(mut self, moment: &Moment, seed: u64) -> Volume {
        let [nx, ny, nz] = self.grid.size;
        let [dx, dy, dz] = self.grid.voxel_size_m;
        let mut rays = vec![0u16; self.grid.voxels()];
        let mut horizon = vec![0.0; nx * ny];
        for view in &moment.views {
            let offset = self.turned([view[0] - self.ego[0], view[1] - self.ego[1]]);
            let cell = [(offset[0] - self.grid.min_bound_m[0]) / dx, (offset[1] - self.grid.min_bound_m[1]) / dy]
                .map(f64::floor);
            if cell[0] < 0.0 || cell[1] < 0.0 || cell[0] >= nx as f64 || cell[1] >= ny as f64 {
                continue;
            }
            let source = cell.map(|v| v as usize);
            if self.tall[source[0] * ny + source[1]] < SENSOR_M {
                self.cast(source, &mut horizon, &mut rays);
            }
        }
        let key = [seed as u32, (seed >> 32) as u32];
        for x in 0..nx {
            for y in 0..ny {
                let column = x * ny + y;
                let [wx, wy] = self.world([x as f64 + 0.5, y as f64 + 0.5]);
                let cell = [(wx / dx).floor() as i64 as u32, (wy / dy).floor() as i64 as u32];
                let u = self.grid.min_bound_m[0] + (x as f64 + 0.5) * dx;
                let v = self.grid.min_bound_m[1] + (y as f64 + 0.5) * dy;
                let distance = (u * u + v * v).sqrt() / 36.0;
                // Gaps between rays stay where they are in the world; there are more of them far out and in the air.
                let gaps_on_things = 0.004 + 0.08 * distance.powi(3).min(1.0);
                let gaps_in_air = 0.03 + 0.4 * (distance * distance).min(1.0);
                let thresholds = [gaps_in_air, gaps_on_things].map(|p| (p * 65536.0) as u32);
                let mut words = [0; 4];
                for z in 0..nz {
                    if z % 8 == 0 {
                        words = philox([cell[0], cell[1], (z / 8) as u32, 0x70], key);
                    }
                    let i = column * nz + z;
                    let chance = words[z % 8 / 2] >> (16 * (z % 2)) & 0xFFFF;
                    if rays[i] == 0 || chance < thresholds[usize::from(self.raw[i] != 0)] {
                        rays[i] = 0;
                        self.raw[i] = 0;
                    } else {
                        let height = (z as f64 + 0.5) * dz + self.grid.min_bound_m[2];
                        let near = 400.0 / (u * u + v * v + height * height).max(2.0);
                        rays[i] *= 1 + near as u16;
                    }
                }
            }
        }
        Volume { raw: self.raw, rays }
    }

    /// Adds 1 to the rays of every voxel seen from the middle of a column.
    ///
    /// Works outwards ring by ring: the horizon a column sees over is blended from the two columns before it.
    fn cast(&self, source: [usize; 2], horizon: &mut [f64], rays: &mut [u16]) {
        let [nx, ny, nz] = self.grid.size;
        let [dx, dy, dz] = self.grid.voxel_size_m;
        // Upper ends of the voxels relative to the sensor.
        let upper = |z: usize| (z as f64 + 1.0 - GROUND_VOXELS) * dz - SENSOR_M;
        let at = |x: i64, y: i64| x as usize * ny + y as usize;
        let [sx, sy] = source.map(|v| v as i64);
        let (nx, ny) = (nx as i64, ny as i64);
        let column = source[0] * ny as usize + source[1];
        horizon[column] = f64::MIN;
        rays[column * nz..][..nz].iter_mut().for_each(|count| *count += 1);
        let mut visit = |x: i64, y: i64, ring: i64| {
            let (ox, oy) = (x - sx, y - sy);
            let distance = ((ox as f64 * dx).powi(2) + (oy as f64 * dy).powi(2)).sqrt();
            let inner = (ring - 1) as f64 / ring as f64;
            let (px, py) = (ox as f64 * inner, oy as f64 * inner);
            let (ax, ay) = (px.floor(), py.floor());
            let (fx, fy) = (px - ax, py - ay);
            let (ax, ay) = (sx + ax as i64, sy + ay as i64);
            let mut seen = horizon[at(ax, ay)];
            if fx > 0.0 {
                seen += (horizon[at(ax + 1, ay)] - seen) * fx;
            } else if fy > 0.0 {
                seen += (horizon[at(ax, ay + 1)] - seen) * fy;
            }
            let column = at(x, y);
            for z in 0..nz {
                let i = column * nz + z;
                let top = if self.raw[i] == 0 { upper(z) - 0.5 * dz } else { upper(z) };
                if top >= (seen - 1e-6) * distance {
                    rays[i] += 1;
                }
            }
            let slope = ((self.tall[column] - SENSOR_M) / distance).min(STEEPEST);
            horizon[column] = seen.max(slope);
        };
        for ring in 1..=nx.max(ny) {
            for d in -ring..=ring {
                for (x, y) in [(sx - ring, sy + d), (sx + ring, sy + d)] {
                    if (0..nx).contains(&x) && (0..ny).contains(&y) {
                        visit(x, y, ring);
                    }
                }
                for (x, y) in [(sx + d, sy - ring), (sx + d, sy + ring)] {
                    if d.abs() < ring && (0..nx).contains(&x) && (0..ny).contains(&y) {
                        visit(x, y, ring);
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::synth::shapes::raw;

    /// A canvas of road, with the ego in the middle looking along x.
    fn empty(grid: &Grid) -> Canvas<'_> {
        let mut canvas = Canvas {
            grid,
            ego: [7.0, 9.0],
            heading: [1.0, 0.0],
            raw: vec![0; grid.voxels()],
            tall: vec![0.0; grid.size[0] * grid.size[1]],
            copies: 0,
        };
        canvas.raw.iter_mut().step_by(grid.size[2]).for_each(|id| *id = raw::ROAD);
        canvas
    }

    fn seen(canvas: Canvas<'_>) -> Vec<u16> {
        let (nx, ny) = (canvas.grid.size[0], canvas.grid.size[1]);
        let mut rays = vec![0; canvas.grid.voxels()];
        canvas.cast([nx / 2, ny / 2], &mut vec![0.0; nx * ny], &mut rays);
        rays
    }

    #[test]
    fn a_wall_hides_the_road_behind_it_and_nothing_before_it() {
        let grid = Grid::CARLA_SC;
        let mut canvas = empty(&grid);
        canvas.add(&Solid::block(raw::WALL, [12.0, 9.0], [0.0, 1.0], [6.0, 0.2], [-0.2, 5.0]));
        let wall = grid.index(76, 64, 0);
        assert_eq!(&canvas.raw[wall..wall + 8], &[raw::WALL; 8]);
        let rays = seen(canvas);
        assert!(rays[wall..wall + 8].iter().all(|&count| count == 1));
        for x in 80..128 {
            assert!(rays[grid.index(x, 64, 0)..][..8].iter().all(|&count| count == 0));
        }
        for x in 0..74 {
            assert_eq!(rays[grid.index(x, 64, 0)], 1);
        }
    }

    #[test]
    fn a_low_wall_hides_only_its_shadow() {
        let grid = Grid::CARLA_SC;
        let mut canvas = empty(&grid);
        // 0.9 m at 5 m: the eye at 1.8 m sees the road again from 10 m on.
        canvas.add(&Solid::block(raw::WALL, [12.0, 9.0], [0.0, 1.0], [6.0, 0.2], [-0.2, 0.9]));
        let rays = seen(canvas);
        assert_eq!(rays[grid.index(84, 64, 0)], 0);
        assert_eq!(rays[grid.index(96, 64, 0)], 1);
    }

    #[test]
    fn a_pole_survives_any_voxel_size() {
        for d in [0.1, 0.4, 0.8, 1.2, 3.0] {
            let grid = Grid { size: [16, 16, 8], voxel_size_m: [d, d, 0.375], min_bound_m: [-8.0 * d, -8.0 * d, -2.0] };
            for k in 0..20 {
                let mut canvas = empty(&grid);
                let offset = f64::from(k) * 0.07 * d;
                canvas.add(&Solid::post(raw::POLE, [7.0 + offset, 9.0 - 0.6 * offset], 0.08, 6.0));
                let columns = canvas.raw.iter().skip(4).step_by(8).filter(|&&id| id == raw::POLE).count();
                assert!((1..=4).contains(&columns), "{columns} columns at voxel size {d}");
            }
        }
    }
}
