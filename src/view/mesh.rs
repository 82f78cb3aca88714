//! The visible faces of a labelled voxel grid, with ambient occlusion, eight bytes a face.

use crate::{Error, Result};

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

/// Longest grid axis the packing holds: 10 bits for x and y.
pub const MAX_SIZE_XY: usize = 1024;
/// Tallest grid the packing holds: 9 bits for z.
pub const MAX_SIZE_Z: usize = 512;

/// One visible face of a voxel: what the vertex shader reads for each instance.
#[derive(Debug, Clone, Copy, PartialEq, Eq, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C)]
pub struct Face {
    /// `x | y << 10 | z << 20 | direction << 29`; directions are -x +x -y +y -z +z.
    position: u32,
    /// `class | occlusion << 8`, two bits for each of the four corners.
    appearance: u32,
}

impl Face {
    fn new(voxel: [usize; 3], direction: u32, class: u8, occlusion: u32) -> Face {
        Face {
            position: voxel[0] as u32 | (voxel[1] as u32) << 10 | (voxel[2] as u32) << 20 | direction << 29,
            appearance: u32::from(class) | occlusion << 8,
        }
    }

    /// The voxel `[x, y, z]` this face belongs to.
    pub fn voxel(self) -> [usize; 3] {
        [self.position & 1023, self.position >> 10 & 1023, self.position >> 20 & 511].map(|v| v as usize)
    }

    /// Which side of the voxel: 0..6 for -x +x -y +y -z +z.
    pub fn direction(self) -> usize {
        (self.position >> 29) as usize
    }

    /// The class id of the voxel.
    pub fn class(self) -> u8 {
        self.appearance as u8
    }

    /// How open each corner is, 0 (closed in) to 3 (free). Corner `k` lies at `k & 1` along the face's first tangent
    /// axis and `k >> 1` along its second, the axes following the face's own in the cycle x, y, z.
    pub fn openness(self) -> [u8; 4] {
        std::array::from_fn(|k| (self.appearance >> (8 + 2 * k) & 3) as u8)
    }
}

/// The faces between drawn voxels and the free, hidden or outside cells beside them.
///
/// A class that `visible` hides counts as free, so what lies behind it comes into view.
///
/// # Shapes
/// `labels`: `[X*Y*Z]` class ids, z fastest (C order of `[x][y][z]`); `size`: `[X, Y, Z]`.
///
/// # Errors
/// [`Error::Shape`] if the length does not match `size`, or the grid is larger than the packing holds.
pub fn visible_faces(labels: &[u8], size: [usize; 3], visible: &ClassMask) -> Result<Vec<Face>> {
    check_grid(labels.len(), size)?;
    let [nx, ny, nz] = size;
    // One empty cell on every side, so that no neighbour needs a bounds check.
    let strides = [(ny + 2) * (nz + 2), nz + 2, 1];
    let padded = |x: usize, y: usize, z: usize| (x + 1) * strides[0] + (y + 1) * strides[1] + z + 1;
    let mut solid = vec![0u8; (nx + 2) * strides[0]];
    for (column, cells) in labels.chunks_exact(nz).enumerate() {
        let start = padded(column / ny, column % ny, 0);
        for (slot, &class) in solid[start..start + nz].iter_mut().zip(cells) {
            *slot = u8::from(visible.contains(class));
        }
    }
    let mut faces = Vec::new();
    for (column, cells) in labels.chunks_exact(nz).enumerate() {
        let (x, y) = (column / ny, column % ny);
        for (z, &class) in cells.iter().enumerate() {
            let here = padded(x, y, z);
            if solid[here] == 0 {
                continue;
            }
            for direction in 0..6 {
                let axis = direction / 2;
                let before = if direction % 2 == 1 { here + strides[axis] } else { here - strides[axis] };
                if solid[before] == 0 {
                    let occlusion = corner_openness(&solid, before, strides[(axis + 1) % 3], strides[(axis + 2) % 3]);
                    faces.push(Face::new([x, y, z], direction as u32, class, occlusion));
                }
            }
        }
    }
    Ok(faces)
}

/// The four corners' openness, two bits each, from the eight cells around the free cell `before` a face.
fn corner_openness(solid: &[u8], before: usize, u: usize, v: usize) -> u32 {
    let at = |i: usize| u32::from(solid[i]);
    let (u0, u1, v0, v1) = (at(before - u), at(before + u), at(before - v), at(before + v));
    let corner = |side_a: u32, side_b: u32, diagonal: usize| {
        if side_a & side_b == 1 { 0 } else { 3 - (side_a + side_b + at(diagonal)) }
    };
    corner(u0, v0, before - u - v)
        | corner(u1, v0, before + u - v) << 2
        | corner(u0, v1, before - u + v) << 4
        | corner(u1, v1, before + u + v) << 6
}

/// Refuses a grid whose labels do not match its size, or that the packing cannot hold.
///
/// # Errors
/// [`Error::Shape`].
pub fn check_grid(labels: usize, size: [usize; 3]) -> Result<()> {
    let [nx, ny, nz] = size;
    if size.contains(&0) || nx > MAX_SIZE_XY || ny > MAX_SIZE_XY || nz > MAX_SIZE_Z {
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

#[cfg(test)]
mod tests {
    use super::*;

    fn faces_of(size: [usize; 3], occupied: &[[usize; 3]]) -> Vec<Face> {
        let mut labels = vec![0; size.iter().product()];
        for [x, y, z] in occupied {
            labels[(x * size[1] + y) * size[2] + z] = 7;
        }
        visible_faces(&labels, size, &ClassMask::all()).unwrap()
    }

    #[test]
    fn simple_solids_have_their_outer_faces() {
        assert_eq!(faces_of([3, 3, 3], &[[1, 1, 1]]).len(), 6);
        assert_eq!(faces_of([1, 1, 1], &[[0, 0, 0]]).len(), 6, "a voxel at the border of the grid shows all sides");
        assert_eq!(faces_of([4, 3, 3], &[[1, 1, 1], [2, 1, 1]]).len(), 10);
        let cube: Vec<[usize; 3]> = (0..27).map(|i| [1 + i / 9, 1 + i / 3 % 3, 1 + i % 3]).collect();
        let faces = faces_of([5, 5, 5], &cube);
        assert_eq!(faces.len(), 54);
        assert!(faces.iter().all(|f| f.voxel() != [2, 2, 2]), "the interior voxel is hidden");
    }

    #[test]
    fn packing_returns_what_went_in() {
        let face = Face::new([1023, 517, 511], 5, 200, 0b11_10_01_00);
        assert_eq!((face.voxel(), face.direction(), face.class()), ([1023, 517, 511], 5, 200));
        assert_eq!(face.openness(), [0, 1, 2, 3]);
    }

    #[test]
    fn occlusion_follows_the_neighbours_of_the_free_cell() {
        let top = |occupied: &[[usize; 3]]| {
            let faces = faces_of([5, 5, 5], occupied);
            faces.into_iter().find(|f| f.voxel() == [2, 2, 1] && f.direction() == 5).unwrap().openness()
        };
        assert_eq!(top(&[[2, 2, 1]]), [3, 3, 3, 3]);
        assert_eq!(top(&[[2, 2, 1], [1, 2, 2]]), [2, 3, 2, 3], "a wall at -x darkens the two corners at -x");
        assert_eq!(top(&[[2, 2, 1], [3, 3, 2]]), [3, 3, 3, 2], "a diagonal cell darkens one corner");
        assert_eq!(top(&[[2, 2, 1], [1, 2, 2], [2, 1, 2]]), [0, 2, 2, 3], "two walls close their corner");
    }

    #[test]
    fn hidden_classes_reveal_what_is_behind() {
        let labels = [1, 2, 1];
        let mut mask = ClassMask::all();
        assert_eq!(visible_faces(&labels, [3, 1, 1], &mask).unwrap().len(), 14);
        mask.set(2, false);
        let faces = visible_faces(&labels, [3, 1, 1], &mask).unwrap();
        assert_eq!(faces.len(), 12);
        assert!(faces.iter().all(|f| f.class() == 1));
        mask.set(0, true);
        assert!(!mask.contains(0), "free cannot be drawn");
    }

    #[test]
    fn sizes_that_do_not_fit_are_refused() {
        let all = ClassMask::all();
        assert!(matches!(visible_faces(&[0; 7], [2, 2, 2], &all), Err(Error::Shape(_))));
        assert!(matches!(visible_faces(&[], [0, 2, 2], &all), Err(Error::Shape(_))));
        assert!(matches!(visible_faces(&[0; 1025], [1025, 1, 1], &all), Err(Error::Shape(_))));
    }
}
