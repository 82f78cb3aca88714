//! The visible faces of a labelled voxel grid, with ambient occlusion, merged into rectangles of eight bytes each.
//!
//! Cells become bits of one long string, with an empty cell on every side of the grid, so that 64 of them meet their
//! neighbours with one shift. Neighbouring faces of one class whose corners are equally occluded become one rectangle:
//! the shader repeats the pattern of a single face over it.

use std::ops::Range;

use super::geometry::{ClassMask, Geometry, Handedness, Visible};
use crate::Result;

/// A rectangle of equal voxel faces: what the vertex shader reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C)]
pub struct Face {
    /// `x | y << 10 | z << 20 | direction << 29`; directions are -x +x -y +y -z +z.
    position: u32,
    /// `class | occlusion << 8 | (length - 1) << 16 | (width - 1) << 24`; the occlusion is two bits a corner.
    appearance: u32,
}

/// Most voxels along a side of a [`Face`].
const MAX_SIDE: u32 = 256;

impl Face {
    /// The voxel `[x, y, z]` at the lowest corner of the rectangle, y counted along the world's axis.
    pub fn voxel(self) -> [usize; 3] {
        [self.position & 1023, self.position >> 10 & 1023, self.position >> 20 & 511].map(|v| v as usize)
    }

    /// Which side of its voxels: 0..6 for -x +x -y +y -z +z.
    pub fn direction(self) -> usize {
        (self.position >> 29) as usize
    }

    /// The class id of the voxels.
    pub fn class(self) -> u8 {
        self.appearance as u8
    }

    /// How open each corner of each voxel's face is, 0 (closed in) to 3 (free). Corner `k` lies at `k & 1` along the
    /// face's first tangent axis and `k >> 1` along its second, the axes following the face's own in the cycle x, y, z.
    pub fn openness(self) -> [u8; 4] {
        std::array::from_fn(|k| (self.appearance >> (8 + 2 * k) & 3) as u8)
    }

    /// Voxels along the first and the second tangent axis.
    pub fn sides(self) -> [usize; 2] {
        [(self.appearance >> 16 & 255) as usize + 1, (self.appearance >> 24) as usize + 1]
    }

    /// Class and occlusion: what merged faces have in common.
    fn pattern(self) -> u32 {
        self.appearance & 0xffff
    }
}

/// The visible faces of a grid, by direction.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Mesh {
    /// All rectangles, those of one direction together.
    pub faces: Vec<Face>,
    /// Where each direction's lie: -x +x -y +y -z +z.
    pub directions: [Range<u32>; 6],
    /// The lowest and the highest plane on which each direction's faces lie, in voxels along its axis.
    pub planes: [[u32; 2]; 6],
}

impl Mesh {
    /// The faces between shown voxels and the free, hidden, cropped or outside cells beside them.
    ///
    /// What `visible` hides counts as free, so what lies behind it comes into view.
    ///
    /// `labels`: `[X*Y*Z]` class ids, z fastest.
    ///
    /// # Errors
    /// [`crate::Error::Shape`] if the labels do not match `geometry`, or the grid is larger than the packing holds.
    pub fn new(labels: &[u8], geometry: &Geometry, visible: &Visible) -> Result<Mesh> {
        geometry.check(labels.len())?;
        let solid = Solid::new(labels, geometry, visible);
        let mut mesh = Mesh::default();
        for direction in 0..6 {
            let start = mesh.faces.len();
            solid.faces(direction, &mut mesh.faces);
            mesh.directions[direction] = start as u32..mesh.faces.len() as u32;
            let planes = mesh.faces[start..].iter().map(|face| (face.voxel()[direction / 2] + direction % 2) as u32);
            mesh.planes[direction] = planes.fold([u32::MAX, 0], |[low, high], p| [low.min(p), high.max(p)]);
        }
        Ok(mesh)
    }
}

/// Which cells are shown, as bits: z fastest, then the world's y, then x, with one empty cell on every side.
struct Solid<'a> {
    labels: &'a [u8],
    geometry: Geometry,
    words: Vec<u64>,
    /// From a cell to the next along x, y and z.
    strides: [usize; 3],
    /// Words of empty cells before the first, so that every shift stays inside.
    lead: usize,
}

impl<'a> Solid<'a> {
    fn new(labels: &'a [u8], geometry: &Geometry, visible: &Visible) -> Solid<'a> {
        let [nx, ny, nz] = geometry.size;
        let strides = [(ny + 2) * (nz + 2), nz + 2, 1];
        let reach = (strides[0] + strides[1] + strides[2]).div_ceil(64) + 1;
        let cells = ((nx + 2) * strides[0]).div_ceil(64);
        let mut solid = Solid { labels, geometry: *geometry, words: vec![0; cells + 2 * reach], strides, lead: reach };
        let [xs, ys, zs] = visible.crop_in(geometry.size);
        let bits = Bits::new(&visible.classes);
        for x in xs {
            for y in ys.clone() {
                let column = &labels[geometry.index([x, y, 0])..][zs.clone()];
                let mut at = solid.cell(x, solid.world_y(y), zs.start);
                for part in column.chunks(64) {
                    let word = part.iter().enumerate().fold(0, |word, (i, &class)| word | bits.of(class) << i);
                    // A shift by 64 is two shifts.
                    solid.words[at / 64] |= word << (at % 64);
                    solid.words[at / 64 + 1] |= (word >> 1) >> (63 - at % 64);
                    at += 64;
                }
            }
        }
        solid
    }

    /// The world's y of the data's y, or back.
    fn world_y(&self, y: usize) -> usize {
        match self.geometry.handedness {
            Handedness::Right => y,
            Handedness::Left => self.geometry.size[1] - 1 - y,
        }
    }

    /// The bit of a cell.
    fn cell(&self, x: usize, y: usize, z: usize) -> usize {
        self.lead * 64 + (x + 1) * self.strides[0] + (y + 1) * self.strides[1] + z + 1
    }

    /// The 64 cells from a bit on.
    fn at(&self, bit: usize) -> u64 {
        let (word, shift) = (bit / 64, bit % 64);
        self.words[word] >> shift | (self.words[word + 1] << 1) << (63 - shift)
    }

    /// Appends the rectangles of one direction.
    fn faces(&self, direction: usize, faces: &mut Vec<Face>) {
        let axis = direction / 2;
        let (u, v) = (self.strides[(axis + 1) % 3], self.strides[(axis + 2) % 3]);
        let [_, y_stride, _] = self.strides;
        let size = self.geometry.size;
        let mut merge = Merge::new(axis, direction as u32, size, faces);
        for word in self.lead..self.words.len() - self.lead {
            let here = word * 64;
            let front = if direction % 2 == 1 { here + self.strides[axis] } else { here - self.strides[axis] };
            let mut open = self.words[word] & !self.at(front);
            if open == 0 {
                continue;
            }
            let [u0, u1, v0, v1] = [front - u, front + u, front - v, front + v].map(|bit| self.at(bit));
            let diagonals = [front - u - v, front + u - v, front - u + v, front + u + v].map(|bit| self.at(bit));
            let sides = [(u0, v0), (u1, v0), (u0, v1), (u1, v1)];
            // Bit planes of how closed each corner is: 3 if both sides are, otherwise how many of side, side, diagonal.
            let closed: [[u64; 2]; 4] = std::array::from_fn(|k| {
                let ((a, b), c) = (sides[k], diagonals[k]);
                [(a ^ b ^ c) | (a & b), (a & b) | (b & c) | (a & c)]
            });
            while open != 0 {
                let bit = open.trailing_zeros() as usize;
                open &= open - 1;
                let occlusion = closed.iter().enumerate().fold(0, |packed, (k, [low, high])| {
                    let closed = (low >> bit & 1) | (high >> bit & 1) << 1;
                    packed | (3 - closed as u32) << (2 * k)
                });
                let column = (here + bit - self.lead * 64) / y_stride;
                let z = here + bit - self.lead * 64 - column * y_stride - 1;
                let (x, y) = (column / (size[1] + 2) - 1, column % (size[1] + 2) - 1);
                let class = self.labels[self.geometry.index([x, self.world_y(y), z])];
                merge.push([x as u32, y as u32, z as u32], u32::from(class) | occlusion << 8);
            }
        }
        merge.finish();
    }
}

/// Shown or not, as bits to shift.
struct Bits([u64; 256]);

impl Bits {
    fn new(classes: &ClassMask) -> Bits {
        Bits(std::array::from_fn(|id| u64::from(classes.contains(id as u8))))
    }

    fn of(&self, class: u8) -> u64 {
        self.0[class as usize]
    }
}

/// Joins faces that arrive slice by slice, each slice's row by row: first into runs along a row, then a run with an
/// equal one of the row before.
struct Merge<'a> {
    faces: &'a mut Vec<Face>,
    axis: usize,
    direction: u32,
    /// The run that grows in each slice.
    runs: Vec<Run>,
    /// By slice and first cell of a run, the rectangle that last began there.
    last: Vec<u32>,
    row_cells: usize,
}

#[derive(Clone, Copy, Default)]
struct Run {
    voxel: [u32; 3],
    length: u32,
    pattern: u32,
}

impl<'a> Merge<'a> {
    fn new(axis: usize, direction: u32, size: [usize; 3], faces: &'a mut Vec<Face>) -> Merge<'a> {
        let row_cells = size[Merge::along(axis)];
        Merge {
            faces,
            axis,
            direction,
            runs: vec![Run::default(); size[axis]],
            last: vec![u32::MAX; size[axis] * row_cells],
            row_cells,
        }
    }

    /// The axis along which rows run: cells arrive x by x, then y by y, then z by z.
    fn along(axis: usize) -> usize {
        if axis == 2 { 1 } else { 2 }
    }

    /// The axis from row to row.
    fn across(axis: usize) -> usize {
        if axis == 0 { 1 } else { 0 }
    }

    fn push(&mut self, voxel: [u32; 3], pattern: u32) {
        let (along, across) = (Merge::along(self.axis), Merge::across(self.axis));
        let slice = voxel[self.axis] as usize;
        let run = &mut self.runs[slice];
        let continues = run.pattern == pattern
            && voxel[across] == run.voxel[across]
            && voxel[along] == run.voxel[along] + run.length
            && run.length < MAX_SIDE;
        if continues {
            run.length += 1;
            return;
        }
        let ended = std::mem::replace(run, Run { voxel, length: 1, pattern });
        self.end(slice, ended);
    }

    fn finish(mut self) {
        for slice in 0..self.runs.len() {
            self.end(slice, self.runs[slice]);
        }
    }

    fn end(&mut self, slice: usize, run: Run) {
        if run.length == 0 {
            return;
        }
        let (along, across) = (Merge::along(self.axis), Merge::across(self.axis));
        // The first tangent axis follows the face's own in the cycle x, y, z.
        let along_is_first = (self.axis + 1) % 3 == along;
        let (along_shift, across_shift) = if along_is_first { (16, 24) } else { (24, 16) };
        let last = &mut self.last[slice * self.row_cells + run.voxel[along] as usize];
        if let Some(face) = self.faces.get_mut(*last as usize) {
            let rows = (face.appearance >> across_shift & 255) + 1;
            let touches = face.voxel()[across] as u32 + rows == run.voxel[across];
            let equal = face.pattern() == run.pattern && face.appearance >> along_shift & 255 == run.length - 1;
            if touches && equal && rows < MAX_SIDE {
                face.appearance += 1 << across_shift;
                return;
            }
        }
        *last = self.faces.len() as u32;
        let [x, y, z] = run.voxel;
        self.faces.push(Face {
            position: x | y << 10 | z << 20 | self.direction << 29,
            appearance: run.pattern | (run.length - 1) << along_shift,
        });
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use proptest::prelude::*;

    use super::*;

    fn mesh_of(size: [usize; 3], occupied: &[[usize; 3]]) -> Mesh {
        let geometry = Geometry::new(size, [1.0; 3]);
        let mut labels = vec![0; size.iter().product()];
        occupied.iter().for_each(|voxel| labels[geometry.index(*voxel)] = 7);
        Mesh::new(&labels, &geometry, &Visible::all()).unwrap()
    }

    /// Every single face: its voxel and direction, with its class and openness.
    fn singles(mesh: &Mesh) -> HashMap<([usize; 3], usize), (u8, [u8; 4])> {
        let mut all = HashMap::new();
        for face in &mesh.faces {
            let axis = face.direction() / 2;
            let [length, width] = face.sides();
            for i in 0..length * width {
                let mut voxel = face.voxel();
                voxel[(axis + 1) % 3] += i % length;
                voxel[(axis + 2) % 3] += i / length;
                let twice = all.insert((voxel, face.direction()), (face.class(), face.openness()));
                assert!(twice.is_none(), "{voxel:?} is covered twice");
            }
        }
        all
    }

    /// The same, cell by cell from the definition.
    fn naive(labels: &[u8], geometry: &Geometry, visible: &Visible) -> HashMap<([usize; 3], usize), (u8, [u8; 4])> {
        let size = geometry.size.map(|n| n as i64);
        let class = |cell: [i64; 3]| {
            let inside = (0..3).all(|a| (0..size[a]).contains(&cell[a]));
            let mut voxel = cell.map(|v| v.max(0) as usize);
            if inside && geometry.handedness == Handedness::Left {
                voxel[1] = geometry.size[1] - 1 - voxel[1];
            }
            let shown = inside && visible.crop.iter().zip(voxel).all(|(range, v)| range.contains(&v));
            if shown { Some(labels[geometry.index(voxel)]).filter(|c| visible.classes.contains(*c)) } else { None }
        };
        let mut all = HashMap::new();
        for i in 0..labels.len() as i64 {
            let cell = [i / (size[1] * size[2]), i / size[2] % size[1], i % size[2]];
            let Some(here) = class(cell) else { continue };
            for direction in 0..6 {
                let axis = direction / 2;
                let moved = |by_u: i64, by_v: i64| {
                    let mut front = cell;
                    front[axis] += if direction % 2 == 1 { 1 } else { -1 };
                    front[(axis + 1) % 3] += by_u;
                    front[(axis + 2) % 3] += by_v;
                    u8::from(class(front).is_some())
                };
                if moved(0, 0) == 1 {
                    continue;
                }
                let openness = std::array::from_fn(|k| {
                    let (du, dv) = ((k & 1) as i64 * 2 - 1, (k >> 1) as i64 * 2 - 1);
                    let (a, b) = (moved(du, 0), moved(0, dv));
                    if a + b == 2 { 0 } else { 3 - (a + b + moved(du, dv)) }
                });
                all.insert((cell.map(|v| v as usize), direction), (here, openness));
            }
        }
        all
    }

    proptest! {
        #[test]
        fn the_rectangles_are_the_faces_of_the_definition(
            size in (1usize..7, 1usize..7, prop_oneof![1usize..6, 60usize..70]),
            seed in proptest::collection::vec(0u8..4, 64),
            period in 1usize..64,
            is_left in any::<bool>(),
            is_cropped in any::<bool>(),
        ) {
            let handedness = if is_left { Handedness::Left } else { Handedness::Right };
            let geometry = Geometry { handedness, ..Geometry::new(size.into(), [1.0; 3]) };
            let labels: Vec<u8> = (0..size.0 * size.1 * size.2).map(|i| seed[i * period % 61]).collect();
            let mut visible = Visible::all();
            if is_cropped {
                visible.crop = [1..4, 0..3, 1..63];
                visible.classes.set(2, false);
            }
            let mesh = Mesh::new(&labels, &geometry, &visible).unwrap();
            prop_assert_eq!(singles(&mesh), naive(&labels, &geometry, &visible));
            for direction in 0..6 {
                let range = &mesh.directions[direction];
                for face in &mesh.faces[range.start as usize..range.end as usize] {
                    prop_assert_eq!(face.direction(), direction);
                    let plane = (face.voxel()[direction / 2] + direction % 2) as u32;
                    let [low, high] = mesh.planes[direction];
                    prop_assert!((low..=high).contains(&plane));
                }
            }
        }
    }

    #[test]
    fn equal_faces_merge() {
        let slab: Vec<[usize; 3]> = (0..300 * 5).map(|i| [i / 5, i % 5, 0]).collect();
        let mesh = mesh_of([300, 5, 1], &slab);
        let tops: Vec<_> = mesh.faces.iter().filter(|face| face.direction() == 5).map(|face| face.sides()).collect();
        assert_eq!(tops, [[256, 5], [44, 5]], "a side is at most 256 voxels long");
        let cube: Vec<[usize; 3]> = (0..27).map(|i| [1 + i / 9, 1 + i / 3 % 3, 1 + i % 3]).collect();
        assert_eq!(mesh_of([5, 5, 5], &cube).faces.len(), 6);
        assert!(mesh_of([4, 4, 4], &[]).faces.is_empty());
    }

    #[test]
    fn occlusion_follows_the_neighbours_of_the_free_cell() {
        let top = |occupied: &[[usize; 3]]| singles(&mesh_of([5, 5, 5], occupied))[&([2, 2, 1], 5)].1;
        assert_eq!(top(&[[2, 2, 1]]), [3, 3, 3, 3]);
        assert_eq!(top(&[[2, 2, 1], [1, 2, 2]]), [2, 3, 2, 3], "a wall at -x darkens the two corners at -x");
        assert_eq!(top(&[[2, 2, 1], [3, 3, 2]]), [3, 3, 3, 2], "a diagonal cell darkens one corner");
        assert_eq!(top(&[[2, 2, 1], [1, 2, 2], [2, 1, 2]]), [0, 2, 2, 3], "two walls close their corner");
    }

    #[test]
    fn hidden_classes_reveal_what_is_behind() {
        let geometry = Geometry::new([3, 1, 1], [1.0; 3]);
        let mut visible = Visible::all();
        let faces = |visible: &Visible| singles(&Mesh::new(&[1, 2, 1], &geometry, visible).unwrap());
        assert_eq!(faces(&visible).len(), 14);
        visible.classes.set(2, false);
        assert_eq!(faces(&visible).len(), 12);
        assert!(faces(&visible).values().all(|(class, _)| *class == 1));
        visible.classes.set(0, true);
        assert!(!visible.classes.contains(0), "free cannot be drawn");
    }
}
