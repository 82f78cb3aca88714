//! Volumes of labels and masks in NumPy's files.

use std::path::Path;

use crate::data::npy::{Arrays, missing};
use crate::data::{ClassSet, Grid, by};
use crate::{Error, Result};

/// No grid has more voxels.
pub(super) const MOST_VOXELS: usize = 1 << 28;

/// Where a volume stands: in the array `name` of the file `path`, after `from` others.
#[derive(Debug, Clone, Copy)]
pub(super) struct Volume<'a> {
    pub path: &'a Path,
    pub name: &'a str,
    pub from: usize,
    pub grid: &'a Grid,
}

impl<'a> Volume<'a> {
    /// The only volume of an array.
    pub fn of(path: &'a Path, name: &'a str, grid: &'a Grid) -> Volume<'a> {
        Volume { path, name, from: 0, grid }
    }

    /// Its voxels, by what `convert` makes of their values.
    fn read<V>(&self, mut convert: impl FnMut(usize, f64) -> Result<V>) -> Result<Vec<V>> {
        let mut arrays = Arrays::open(self.path)?;
        let header = arrays.header(self.name)?.ok_or_else(|| missing(self.path, self.name))?;
        if !header.shape.ends_with(&self.grid.size) {
            return Err(Error::Data(format!(
                "{}: the array {:?} has the shape {:?}, but the grid is {}; copy or generate the file again",
                self.path.display(),
                self.name,
                header.shape,
                by(self.grid.size)
            )));
        }
        let voxels = self.grid.voxels();
        let mut values = Vec::new();
        arrays.each(self.name, self.from * voxels, voxels, |at, value| {
            values.push(convert(at, value)?);
            Ok(())
        })?;
        Ok(values)
    }

    /// The class of every voxel.
    ///
    /// # Errors
    /// [`Error::Data`], naming the file, if it is unreadable, of another grid, or holds an id that `classes` lack.
    pub fn labels(&self, classes: &ClassSet) -> Result<Vec<u8>> {
        self.read(|at, id| {
            let class = if id >= 0.0 && id.fract() == 0.0 { classes.class_of(id as u64) } else { None };
            class.ok_or_else(|| unknown_id(self.path, id, at, self.grid, classes))
        })
    }

    /// Whether each voxel's value is not 0.
    ///
    /// # Errors
    /// [`Error::Data`], naming the file, if it is unreadable, of another grid, or holds NaN.
    pub fn mask(&self) -> Result<Vec<bool>> {
        self.read(|at, value| {
            if value.is_nan() {
                let (path, voxel) = (self.path.display(), voxel(at, self.grid));
                return Err(Error::Data(format!(
                    "{path} holds NaN at voxel {voxel} of {:?}; the file is damaged: copy or generate it again",
                    self.name
                )));
            }
            Ok(value != 0.0)
        })
    }
}

/// That a file holds an id that its data set does not have.
pub(super) fn unknown_id(path: &Path, id: f64, at: usize, grid: &Grid, classes: &ClassSet) -> Error {
    Error::Data(format!(
        "{} has the class id {id} at voxel {}, which {} does not have; the file is damaged or of another data set",
        path.display(),
        voxel(at, grid),
        classes.name
    ))
}

/// The place of voxel `i`.
pub(super) fn voxel(i: usize, grid: &Grid) -> String {
    let [_, ny, nz] = grid.size;
    format!("({}, {}, {})", i / (ny * nz), i / nz % ny, i % nz)
}

/// The id that occurs most often in a volume, which free space does; `None` if there is no voxel.
///
/// # Errors
/// As for [`Volume::mask`].
pub(super) fn commonest(volume: &Volume) -> Result<Option<u64>> {
    let mut counts = vec![0u64; 256];
    volume.read(|_, id| {
        counts.get_mut(id as usize).into_iter().for_each(|count| *count += 1);
        Ok(())
    })?;
    let most = counts.iter().copied().max().filter(|most| *most > 0);
    Ok(most.and_then(|most| counts.iter().position(|count| *count == most)).map(|id| id as u64))
}

/// The values of the middle part `part` of the grid `whole` within it; `rest` stands around them.
///
/// # Errors
/// [`Error::Shape`] if they are not those of such a part.
pub(super) fn embedded<V: Copy>(values: &[V], part: &Grid, whole: &Grid, rest: V) -> Result<Vec<V>> {
    let (of, first) = whole.crop(part.size)?;
    if values.len() != of.voxels() {
        return Err(Error::Shape(format!("a frame of {} voxels does not fill {}", values.len(), by(of.size))));
    }
    let mut all = vec![rest; whole.voxels()];
    for (row, values) in values.chunks_exact(of.size[2]).enumerate() {
        let (x, y) = (row / of.size[1], row % of.size[1]);
        let at = whole.index(x + first[0], y + first[1], first[2]);
        all[at..at + of.size[2]].copy_from_slice(values);
    }
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_is_put_back_where_it_was_cut() {
        let whole = Grid { size: [4, 4, 2], voxel_size_m: [1.0; 3], min_bound_m: [0.0; 3] };
        let (part, first) = whole.crop([2, 2, 1]).unwrap();
        let all = embedded(&[1, 2, 3, 4], &part, &whole, 0).unwrap();
        assert_eq!(first, [1, 1, 0]);
        assert_eq!([(1, 1), (1, 2), (2, 1), (2, 2)].map(|(x, y)| all[whole.index(x, y, 0)]), [1, 2, 3, 4]);
        assert_eq!(all.iter().filter(|value| **value != 0).count(), 4);
        assert!(embedded(&[1, 2], &part, &whole, 0).is_err());
    }
}
