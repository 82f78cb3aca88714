//! Maps: grids of labels seen straight from above, drawn without a GPU.

use image::{Rgba, RgbaImage};

use super::text::{Style, Typeface};
use super::theme::{Rgb, Theme};
use crate::data::Handedness;
use crate::{Error, Result};

/// About how wide a map is, pixels.
const WIDTH_PX: u32 = 560;
const MARGIN_PX: u32 = 28;
const GAP_PX: u32 = 16;
/// How much of its colour the lowest voxel keeps.
const LOWEST: f32 = 0.72;

/// A grid of labels with its heading.
#[derive(Debug, Clone, Copy)]
pub struct Map<'a> {
    /// What is written above it.
    pub heading: &'a str,
    /// Class of every voxel, `[X, Y, Z]` in C order; 0 is free.
    pub labels: &'a [u8],
}

/// Draws maps of grids of the same `size` (X, Y, Z) side by side, x upwards and the world's left on the left, below a title. Of
/// each column the highest voxel shows, the brighter the higher, in the colours of the classes (`[K]`).
///
/// # Errors
/// [`Error::Shape`] if a grid does not match `size`, or has no voxels; [`Error::Data`] if the font cannot be read.
pub fn maps(
    maps: &[Map<'_>],
    size: [usize; 3],
    handedness: Handedness,
    colors: &[Rgb],
    title: &str,
    theme: Theme,
) -> Result<RgbaImage> {
    let [nx, ny, nz] = size;
    if nx * ny * nz == 0 || maps.iter().any(|map| map.labels.len() != nx * ny * nz) {
        return Err(Error::Shape(format!("a map shows {nx} x {ny} x {nz} voxels, and the labels are not so many")));
    }
    let face = Typeface::load()?;
    let theme = theme.colors();
    let cell = (WIDTH_PX / nx.max(ny) as u32).max(1);
    let [width, height] = [ny, nx].map(|side| side as u32 * cell);
    let style = |em_px: f32| Style { em_px, embolden_px: 0.4, color: theme.ink };
    let (title_style, heading_style) = (style(22.0), style(17.0));
    let lines = face.wrap(title, title_style, (maps.len() as u32 * (width + GAP_PX)) as f32);
    let top = MARGIN_PX + lines.len() as u32 * 30 + 30;
    let count = maps.len() as u32;
    let page = Rgba([theme.page[0], theme.page[1], theme.page[2], 255]);
    let full = [2 * MARGIN_PX + count * width + count.saturating_sub(1) * GAP_PX, top + height + MARGIN_PX];
    let mut canvas = RgbaImage::from_pixel(full[0], full[1], page);
    for (i, line) in lines.iter().enumerate() {
        face.draw(&mut canvas, MARGIN_PX as f32, (MARGIN_PX + 16 + 30 * i as u32) as f32, line, title_style);
    }
    for (i, map) in maps.iter().enumerate() {
        let left = MARGIN_PX + i as u32 * (width + GAP_PX);
        face.draw(&mut canvas, left as f32, (top - 12) as f32, map.heading, heading_style);
        for px in 0..width {
            for py in 0..height {
                let column = (px / cell) as usize;
                let y = if handedness == Handedness::Left { column } else { ny - 1 - column };
                let x = nx - 1 - (py / cell) as usize;
                let labels = &map.labels[(x * ny + y) * nz..][..nz];
                let color = match labels.iter().rposition(|label| *label != 0) {
                    Some(z) => {
                        let light = LOWEST + (1.0 - LOWEST) * z as f32 / (nz - 1).max(1) as f32;
                        let color = colors.get(usize::from(labels[z])).copied().unwrap_or([128; 3]);
                        color.map(|part| (f32::from(part) * light) as u8)
                    }
                    None => theme.floor,
                };
                canvas.put_pixel(left + px, top + py, Rgba([color[0], color[1], color[2], 255]));
            }
        }
    }
    Ok(canvas)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn x_points_up_and_the_worlds_left_is_on_the_left() {
        // Of 2 x 2 x 1 voxels only (1, 0, 0) is there: ahead, and on the right where y points left.
        let labels = [0, 0, 1, 0];
        let map = Map { heading: "here", labels: &labels };
        let colors = [[255; 3], [10, 200, 30]];
        let place = |handedness| {
            let image = maps(&[map], [2, 2, 1], handedness, &colors, "", Theme::Light).unwrap();
            let is_voxel = |(_, _, pixel): &(u32, u32, &Rgba<u8>)| pixel.0[1] > 140 && pixel.0[0] < 20;
            let (x, y, _) = image.enumerate_pixels().find(is_voxel).unwrap();
            (x < image.width() / 3, y < image.height() / 3)
        };
        assert_eq!(place(Handedness::Right), (false, true));
        assert_eq!(place(Handedness::Left), (true, true));
        assert!(matches!(maps(&[map], [2, 2, 2], Handedness::Left, &colors, "", Theme::Light), Err(Error::Shape(_))));
    }
}
