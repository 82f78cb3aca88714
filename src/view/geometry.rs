//! Where the voxels of a grid lie in the world, and which of them are shown.

use std::ops::Range;

use glam::Vec3;

pub use crate::data::Handedness;
use crate::{Error, Result};

/// Longest grid axis that faces can be packed for: 10 bits for x and y.
pub const MAX_SIZE_XY: usize = 1024;
/// Tallest grid that faces can be packed for: 9 bits for z.
pub const MAX_SIZE_Z: usize = 512;

/// Size and place of a grid whose lowest corner is the world's origin.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Geometry {
    /// Grid size in voxels, `[X, Y, Z]`.
    pub size: [usize; 3],
    /// Edges of one voxel, metres.
    pub voxel_size_m: [f32; 3],
    /// Which way y points.
    pub handedness: Handedness,
}

impl Geometry {
    /// A right-handed grid.
    pub fn new(size: [usize; 3], voxel_size_m: [f32; 3]) -> Geometry {
        Geometry { size, voxel_size_m, handedness: Handedness::Right }
    }

    /// The grid's size in metres.
    pub fn extent_m(&self) -> Vec3 {
        Vec3::from_array(std::array::from_fn(|axis| self.size[axis] as f32 * self.voxel_size_m[axis]))
    }

    /// Place of a voxel `[x, y, z]` in labels `[X*Y*Z]`, z fastest.
    pub fn index(&self, [x, y, z]: [usize; 3]) -> usize {
        (x * self.size[1] + y) * self.size[2] + z
    }

    /// From a point of the world to metres from the grid's first voxel along the grid's own axes, or back.
    pub fn flip_m(&self, point_m: Vec3) -> Vec3 {
        match self.handedness {
            Handedness::Right => point_m,
            Handedness::Left => Vec3::new(point_m.x, self.extent_m().y - point_m.y, point_m.z),
        }
    }

    /// Lowest and highest corner in the world, metres, of the box of voxels in `ranges` along x, y and z.
    pub fn box_m(&self, ranges: &[Range<usize>; 3]) -> [Vec3; 2] {
        let corner = |voxel: [usize; 3]| {
            self.flip_m(Vec3::from_array(std::array::from_fn(|axis| voxel[axis] as f32 * self.voxel_size_m[axis])))
        };
        let (a, b) = (corner(ranges.each_ref().map(|r| r.start)), corner(ranges.each_ref().map(|r| r.end)));
        [a.min(b), a.max(b)]
    }

    /// Refuses labels that do not match the size, or a grid that the packing of faces cannot hold.
    ///
    /// # Errors
    /// [`Error::Shape`].
    pub fn check(&self, labels: usize) -> Result<()> {
        let [nx, ny, nz] = self.size;
        if self.size.contains(&0) || nx > MAX_SIZE_XY || ny > MAX_SIZE_XY || nz > MAX_SIZE_Z {
            return Err(Error::Shape(format!(
                "cannot draw a grid of {nx} x {ny} x {nz} voxels: 1 to {MAX_SIZE_XY} along x and y, 1 to {MAX_SIZE_Z} along z"
            )));
        }
        if labels != nx * ny * nz {
            return Err(Error::Shape(format!(
                "a grid of {nx} x {ny} x {nz} voxels needs {} labels, but {labels} were given",
                nx * ny * nz
            )));
        }
        Ok(())
    }
}

/// Which class ids are drawn. Class 0 is free and never drawn.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClassMask([bool; 256]);

impl ClassMask {
    /// Every class but free.
    pub fn all() -> ClassMask {
        ClassMask(std::array::from_fn(|id| id != 0))
    }

    /// No class; show some with [`ClassMask::set`].
    pub fn none() -> ClassMask {
        ClassMask([false; 256])
    }

    /// Shows or hides a class. Free stays hidden.
    pub fn set(&mut self, class: u8, visible: bool) {
        self.0[class as usize] = visible && class != 0;
    }

    /// Whether a class is drawn.
    pub fn contains(&self, class: u8) -> bool {
        self.0[class as usize]
    }
}

impl Default for ClassMask {
    fn default() -> ClassMask {
        ClassMask::all()
    }
}

/// What is shown of a grid, and so what can be picked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Visible {
    /// The classes.
    pub classes: ClassMask,
    /// The voxels along x, y and z of the data; what lies beyond the grid is ignored. A slice is a range of one.
    pub crop: [Range<usize>; 3],
}

impl Visible {
    /// Everything.
    pub fn all() -> Visible {
        Visible::classes(ClassMask::all())
    }

    /// Some classes of the whole grid.
    pub fn classes(classes: ClassMask) -> Visible {
        Visible { classes, crop: [0..usize::MAX, 0..usize::MAX, 0..usize::MAX] }
    }

    /// The part of the crop that lies in a grid of `size`; empty ranges if nothing does.
    pub fn crop_in(&self, size: [usize; 3]) -> [Range<usize>; 3] {
        std::array::from_fn(|axis| {
            let Range { start, end } = self.crop[axis];
            start.min(size[axis])..end.min(size[axis]).max(start.min(size[axis]))
        })
    }

    /// Whether the crop leaves out voxels of a grid of `size`.
    pub fn is_cropped(&self, size: [usize; 3]) -> bool {
        self.crop_in(size) != size.map(|n| 0..n)
    }
}

impl Default for Visible {
    fn default() -> Visible {
        Visible::all()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_left_handed_grid_is_mirrored_within_its_box() {
        let geometry = Geometry { handedness: Handedness::Left, ..Geometry::new([4, 10, 2], [0.5; 3]) };
        let [low, high] = geometry.box_m(&[1..2, 0..1, 0..1]);
        assert_eq!((low, high), (Vec3::new(0.5, 4.5, 0.0), Vec3::new(1.0, 5.0, 0.5)));
        let point = Vec3::new(0.3, 1.2, 0.7);
        assert!((geometry.flip_m(geometry.flip_m(point)) - point).length() < 1e-6);
        let right = Geometry::new([4, 10, 2], [0.5; 3]);
        assert_eq!(right.box_m(&[1..2, 0..1, 0..1])[0], Vec3::new(0.5, 0.0, 0.0));
    }

    #[test]
    fn a_crop_is_cut_to_the_grid() {
        let mut visible = Visible::all();
        assert!(!visible.is_cropped([4, 4, 2]));
        visible.crop = [1..9, 7..9, 0..2];
        assert_eq!(visible.crop_in([4, 4, 2]), [1..4, 4..4, 0..2]);
        assert!(visible.is_cropped([4, 4, 2]));
    }

    #[test]
    fn sizes_that_do_not_fit_are_refused() {
        let check = |size, labels| Geometry::new(size, [1.0; 3]).check(labels);
        assert!(check([2, 2, 2], 8).is_ok());
        assert!(matches!(check([2, 2, 2], 7), Err(Error::Shape(_))));
        assert!(matches!(check([0, 2, 2], 0), Err(Error::Shape(_))));
        assert!(matches!(check([1025, 1, 1], 1025), Err(Error::Shape(_))));
    }
}
