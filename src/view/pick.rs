//! The voxel under a ray.

use glam::{DVec3, Vec3};

use super::geometry::{Geometry, Handedness, Visible};
use crate::Result;

/// The first shown voxel that a ray meets.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Hit {
    /// The voxel `[x, y, z]` of the data.
    pub voxel: [usize; 3],
    /// The side through which the ray enters, as a unit vector of the world; zero if the ray begins inside the voxel.
    pub normal: Vec3,
    /// Where it enters, metres in the world; see [`Geometry::flip_m`] for the data's axes.
    pub point_m: Vec3,
    /// Distance from the ray's origin, metres.
    pub distance_m: f32,
}

/// Follows a ray of the world through the grid, cell by cell (Amanatides and Woo, 1987), to the first shown voxel.
///
/// `labels`: `[X*Y*Z]` class ids, z fastest; `direction` is a unit vector.
///
/// # Errors
/// [`crate::Error::Shape`] if the labels do not match `geometry`.
pub fn pick(
    labels: &[u8],
    geometry: &Geometry,
    visible: &Visible,
    origin_m: Vec3,
    direction: Vec3,
) -> Result<Option<Hit>> {
    geometry.check(labels.len())?;
    // In units of voxels along the grid's own axes, so that cells are integers.
    let voxel_m = Vec3::from_array(geometry.voxel_size_m).as_dvec3();
    let mirror = DVec3::new(1.0, if geometry.handedness == Handedness::Left { -1.0 } else { 1.0 }, 1.0);
    let origin = geometry.flip_m(origin_m).as_dvec3() / voxel_m;
    let ray = direction.as_dvec3() * mirror / voxel_m;
    let crop = visible.crop_in(geometry.size);
    if crop.iter().any(|range| range.is_empty()) {
        return Ok(None);
    }

    // Where the ray is inside the crop: the last of the entries, the first of the exits.
    let (mut enter, mut leave, mut entered_through) = (0.0f64, f64::INFINITY, None);
    for axis in 0..3 {
        let [low, high] = [crop[axis].start, crop[axis].end].map(|plane| plane as f64 - origin[axis]);
        if ray[axis] == 0.0 {
            if low > 0.0 || high < 0.0 {
                return Ok(None);
            }
            continue;
        }
        let (a, b) = (low / ray[axis], high / ray[axis]);
        if a.min(b) > enter {
            (enter, entered_through) = (a.min(b), Some(axis));
        }
        leave = leave.min(a.max(b));
    }
    if enter > leave {
        return Ok(None);
    }

    let start = origin + ray * enter;
    let mut cell: [usize; 3] = std::array::from_fn(|axis| {
        let range = &crop[axis];
        (start[axis].floor().max(0.0) as usize).clamp(range.start, range.end - 1)
    });
    let next_plane = |cell: usize, axis: usize| {
        let plane = cell as f64 + f64::from(u8::from(ray[axis] > 0.0));
        if ray[axis] == 0.0 { f64::INFINITY } else { (plane - origin[axis]) / ray[axis] }
    };
    let mut next: [f64; 3] = std::array::from_fn(|axis| next_plane(cell[axis], axis));
    let mut at = enter;
    loop {
        if visible.classes.contains(labels[geometry.index(cell)]) {
            let mut normal = DVec3::ZERO;
            if let Some(axis) = entered_through {
                normal[axis] = -ray[axis].signum();
            }
            let point_m = origin_m + direction * at as f32;
            return Ok(Some(Hit { voxel: cell, normal: (normal * mirror).as_vec3(), point_m, distance_m: at as f32 }));
        }
        let axis = (0..3).fold(0, |least, axis| if next[axis] < next[least] { axis } else { least });
        let range = &crop[axis];
        let is_last = if ray[axis] > 0.0 { cell[axis] + 1 >= range.end } else { cell[axis] <= range.start };
        if is_last || next[axis] == f64::INFINITY {
            return Ok(None);
        }
        cell[axis] = if ray[axis] > 0.0 { cell[axis] + 1 } else { cell[axis] - 1 };
        (at, entered_through) = (next[axis], Some(axis));
        next[axis] = next_plane(cell[axis], axis);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Distances at which a ray enters and leaves a box, `None` if it misses.
    fn through(low: Vec3, high: Vec3, origin: Vec3, direction: Vec3) -> Option<[f64; 2]> {
        let (mut enter, mut leave) = (0.0f64, f64::INFINITY);
        for axis in 0..3 {
            let to = |plane: f32| (f64::from(plane) - f64::from(origin[axis])) / f64::from(direction[axis]);
            let (a, b) = (to(low[axis]), to(high[axis]));
            enter = enter.max(a.min(b));
            leave = leave.min(a.max(b));
        }
        (enter <= leave).then_some([enter, leave])
    }

    fn cube(voxel: [usize; 3]) -> [std::ops::Range<usize>; 3] {
        voxel.map(|v| v..v + 1)
    }

    proptest! {
        #[test]
        fn the_nearest_of_all_boxes_is_picked(
            labels in proptest::collection::vec(0u8..4, 5 * 4 * 3),
            origin in proptest::array::uniform3(-4.0f32..8.0),
            toward in proptest::array::uniform3(0.05f32..2.4),
            hidden in 0u8..4,
            crop in (0usize..3, 0usize..3, 0usize..2),
            is_left in any::<bool>(),
        ) {
            let handedness = if is_left { Handedness::Left } else { Handedness::Right };
            let geometry = Geometry { handedness, ..Geometry::new([5, 4, 3], [0.5, 0.7, 0.9]) };
            let mut visible = Visible::all();
            visible.classes.set(hidden, false);
            visible.crop = [crop.0..5, 0..4 - crop.1, crop.2..3];
            let origin = Vec3::from_array(origin);
            let direction = (Vec3::from_array(toward) - origin).normalize();
            prop_assume!(direction.abs().min_element() > 1e-4);

            let hit = pick(&labels, &geometry, &visible, origin, direction).unwrap();
            let mut nearest: Option<f64> = None;
            for x in 0..5 {
                for y in 0..4 {
                    for z in 0..3 {
                        let shown = visible.classes.contains(labels[geometry.index([x, y, z])])
                            && visible.crop.iter().zip([x, y, z]).all(|(range, v)| range.contains(&v));
                        let [low, high] = geometry.box_m(&cube([x, y, z]));
                        // A ray that only grazes a corner may be seen on either side of it.
                        match through(low, high, origin, direction) {
                            Some([enter, leave]) if shown && leave - enter > 1e-4 => {
                                nearest = Some(nearest.map_or(enter, |n| n.min(enter)));
                            }
                            _ => {}
                        }
                    }
                }
            }
            if let Some(distance) = nearest {
                let hit = hit.expect("a box is in the way");
                prop_assert!(f64::from(hit.distance_m) <= distance + 1e-4);
            }
            if let Some(hit) = hit {
                prop_assert!(visible.classes.contains(labels[geometry.index(hit.voxel)]));
                prop_assert!(visible.crop.iter().zip(hit.voxel).all(|(range, v)| range.contains(&v)));
                let [low, high] = geometry.box_m(&cube(hit.voxel));
                prop_assert!(through(low - 1e-4, high + 1e-4, origin, direction).is_some());
                prop_assert!((hit.point_m.clamp(low, high) - hit.point_m).length() < 1e-4, "the point is on the box");
                prop_assert!(nearest.is_none_or(|n| (n - f64::from(hit.distance_m)).abs() < 1e-3 || f64::from(hit.distance_m) < n));
                if hit.distance_m > 0.0 {
                    prop_assert!(hit.normal.dot(direction) < 0.0, "the side faces the ray");
                    let outside = hit.point_m + hit.normal * 1e-3;
                    prop_assert!((outside.clamp(low, high) - outside).length() > 5e-4, "the side is the box's");
                }
            }
        }
    }

    #[test]
    fn a_ray_along_an_axis_meets_the_side_it_faces() {
        let geometry = Geometry::new([4, 1, 1], [0.5, 1.0, 1.0]);
        let pick = |labels: &[u8], origin: Vec3, direction: Vec3| {
            pick(labels, &geometry, &Visible::all(), origin, direction).unwrap()
        };
        let origin = Vec3::new(-2.0, 0.5, 0.5);
        let hit = pick(&[0, 0, 3, 3], origin, Vec3::X).unwrap();
        assert_eq!((hit.voxel, hit.normal), ([2, 0, 0], Vec3::NEG_X));
        assert!((hit.distance_m - 3.0).abs() < 1e-6 && (hit.point_m.x - 1.0).abs() < 1e-6);
        assert!(pick(&[0; 4], origin, Vec3::X).is_none(), "nothing is there");
        assert!(pick(&[3; 4], origin, Vec3::NEG_X).is_none(), "the grid lies behind");
        assert!(pick(&[3; 4], origin, Vec3::Y).is_none(), "the ray passes by");
        let inside = pick(&[3; 4], Vec3::new(0.6, 0.5, 0.5), Vec3::X).unwrap();
        assert_eq!((inside.voxel, inside.normal, inside.distance_m), ([1, 0, 0], Vec3::ZERO, 0.0));
    }

    #[test]
    fn a_left_handed_grid_returns_the_voxel_of_the_data() {
        let geometry = Geometry { handedness: Handedness::Left, ..Geometry::new([1, 3, 1], [1.0; 3]) };
        let above = Vec3::new(0.5, 2.5, 5.0);
        let hit = super::pick(&[7, 0, 0], &geometry, &Visible::all(), above, Vec3::NEG_Z).unwrap().unwrap();
        assert_eq!((hit.voxel, hit.normal), ([0, 0, 0], Vec3::Z));
    }
}
