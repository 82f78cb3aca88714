//! Sheets of panels: `original | reconstruction | error`, one row a frame; of several models a row of reconstructions beside the original,
//! and one of their errors below.

use std::borrow::Cow;
use std::io::Write;
use std::path::Path;

use image::{ImageEncoder, RgbaImage};

use super::camera::{Camera, Projection};
use super::error_view::{ErrorCounts, VoxelOutcome, outcomes, visible_outcomes};
use super::geometry::{ClassMask, Geometry, Visible};
use super::headless::Headless;
use super::layout::Page;
use super::mesh::Mesh;
use super::ornament::Ornaments;
use super::palette::Palette;
use super::renderer::Look;
use super::theme::{Rgb, Theme};
use crate::files::{AtomicFile, unwritable, write_atomically};
use crate::{Error, Result};

/// Panels are drawn this many times larger and averaged, beyond multisampling: voxels of two or three pixels need it.
const SUPERSAMPLING: u32 = 2;

/// Name and colour of one class.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClassStyle {
    /// As written in the legend.
    pub name: String,
    /// sRGB.
    pub color: Rgb,
}

/// One frame before and after each model.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ComparedFrame {
    /// `[X*Y*Z]` class ids, z fastest; 0 is free.
    pub original: Vec<u8>,
    /// Of each model `[X*Y*Z]` class ids, z fastest; 0 is free.
    pub reconstructions: Vec<Vec<u8>>,
    /// `[X*Y*Z]`: which voxels the sensor saw; the others are not judged. `None`: all.
    pub observed: Option<Vec<bool>>,
}

/// Everything a sheet or an animation shows.
#[derive(Debug, Clone)]
pub struct PictureInput<'a> {
    /// The grid of every frame.
    pub geometry: Geometry,
    /// The frames in order of time, at least one, with as many reconstructions each as there are models.
    pub frames: &'a [ComparedFrame],
    /// Headings of several models; empty if there is one.
    pub models: &'a [String],
    /// Number of the first frame in labels.
    pub first_frame: usize,
    /// By how much the number grows from one frame to the next.
    pub frame_step: usize,
    /// Time from frame to frame, seconds; `None` if unknown, then no times are written.
    pub frame_interval_s: Option<f32>,
    /// Name and colour by class id; entry 0, free, is never drawn.
    pub classes: &'a [ClassStyle],
    /// First line of the page; empty for none.
    pub title: &'a str,
    /// Second line, smaller, such as `step 2500, mIoU 53.1 %`; empty for none.
    pub caption: &'a str,
    /// Colours of page and panels.
    pub theme: Theme,
    /// Width and height of one panel, pixels.
    pub panel_px: [u32; 2],
    /// Most rows of a sheet; the frames shown are spread evenly from first to last.
    pub max_rows: usize,
    /// The view of every panel; `None` for [`Camera::three_quarter`], fitted to the grid.
    pub camera: Option<Camera>,
    /// What is drawn of every frame; errors of hidden classes are hidden with them.
    pub visible: Visible,
}

impl<'a> PictureInput<'a> {
    /// A light sheet of at most five rows of 480 x 360 panels, without title, caption or times.
    pub fn new(geometry: Geometry, frames: &'a [ComparedFrame], classes: &'a [ClassStyle]) -> PictureInput<'a> {
        PictureInput {
            geometry,
            frames,
            models: &[],
            first_frame: 1,
            frame_step: 1,
            frame_interval_s: None,
            classes,
            title: "",
            caption: "",
            theme: Theme::Light,
            panel_px: [480, 360],
            max_rows: 5,
            camera: None,
            visible: Visible::all(),
        }
    }
}

/// What stands in a place of a page.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Panel {
    /// The frame as it is.
    Original,
    /// What a model makes of it.
    Reconstruction(usize),
    /// Where that is wrong.
    Error(usize),
}

impl PictureInput<'_> {
    /// The panels of a frame with their columns, row by row.
    pub(super) fn panels(&self) -> Vec<Vec<(usize, Panel)>> {
        let of = |panel: fn(usize) -> Panel| (0..self.models.len()).map(move |model| (model + 1, panel(model)));
        match self.models.len() {
            0 | 1 => vec![vec![(0, Panel::Original), (1, Panel::Reconstruction(0)), (2, Panel::Error(0))]],
            _ => {
                let original = std::iter::once((0, Panel::Original));
                vec![original.chain(of(Panel::Reconstruction)).collect(), of(Panel::Error).collect()]
            }
        }
    }

    /// The headings of the columns.
    pub(super) fn headings(&self) -> Vec<&str> {
        match self.models {
            [] => vec!["Original", "Reconstruction", "Error"],
            [one] => vec!["Original", one, "Error"],
            several => std::iter::once("Original").chain(several.iter().map(String::as_str)).collect(),
        }
    }
}

/// Renders a sheet: a row for each of up to `max_rows` frames, with headings, row labels and legends.
///
/// # Errors
/// [`Error::Usage`] without frames, or with panels of no size or a size the adapter cannot draw; [`Error::Shape`] if a
/// grid does not match `size`; [`Error::Data`] if a label has no class; [`Error::Device`] if rendering fails.
pub fn sheet(renderer: &mut Headless, input: &PictureInput<'_>) -> Result<RgbaImage> {
    let shown = spread(input.frames.len(), input.max_rows.max(1));
    let studio = Studio::new(input, &shown)?;
    let page = studio.page(shown.len())?;
    let mut canvas = page.blank();
    for (row, &frame) in shown.iter().enumerate() {
        studio.row(renderer, &page, &mut canvas, row, frame)?;
    }
    Ok(canvas)
}

/// Writes a picture as PNG, whole or not at all.
///
/// # Errors
/// [`Error::Data`] if the file cannot be written.
pub fn save_png(image: &RgbaImage, path: &Path) -> Result<()> {
    let mut bytes = Vec::new();
    image::codecs::png::PngEncoder::new(&mut bytes)
        .write_image(image, image.width(), image.height(), image::ExtendedColorType::Rgba8)
        .map_err(|e| Error::Data(format!("cannot encode {}: {e}; draw fewer frames", path.display())))?;
    write_atomically(path, &bytes)
}

/// Lets `write` fill a sibling temporary file, then renames it to `path`.
pub(super) fn write_whole(path: &Path, write: impl FnOnce(&mut dyn Write) -> Result<(), String>) -> Result<()> {
    let failed = |why: String| {
        Error::Data(format!("cannot write {}: {why}; free some space, or choose another folder", path.display()))
    };
    let mut file = AtomicFile::create(path).map_err(|e| unwritable(path, &e))?;
    write(&mut file).map_err(failed)?;
    file.commit().map_err(|e| unwritable(path, &e))
}

/// The mean of every square of [`SUPERSAMPLING`] pixels a side.
fn shrink(image: &RgbaImage) -> RgbaImage {
    RgbaImage::from_fn(image.width() / SUPERSAMPLING, image.height() / SUPERSAMPLING, |x, y| {
        let mut sum = [SUPERSAMPLING * SUPERSAMPLING / 2; 4];
        for dy in 0..SUPERSAMPLING {
            for dx in 0..SUPERSAMPLING {
                let pixel = image.get_pixel(x * SUPERSAMPLING + dx, y * SUPERSAMPLING + dy);
                sum.iter_mut().zip(pixel.0).for_each(|(s, channel)| *s += u32::from(channel));
            }
        }
        image::Rgba(sum.map(|s| (s / (SUPERSAMPLING * SUPERSAMPLING)) as u8))
    })
}

/// Up to `most` of `count` indices, evenly spread from the first to the last.
pub(super) fn spread(count: usize, most: usize) -> Vec<usize> {
    let n = count.min(most);
    (0..n).map(|i| if n == 1 { 0 } else { (i * (count - 1) + (n - 1) / 2) / (n - 1) }).collect()
}

/// A checked input with what all of its pages share.
pub(super) struct Studio<'a> {
    input: &'a PictureInput<'a>,
    camera: Camera,
    class_palette: Palette,
    error_palette: Palette,
    occurring: Vec<&'a ClassStyle>,
    totals: ErrorCounts,
}

impl<'a> Studio<'a> {
    /// Checks the input; the legends count the frames in `shown`.
    pub(super) fn new(input: &'a PictureInput<'a>, shown: &[usize]) -> Result<Studio<'a>> {
        let [width, height] = input.panel_px;
        if input.frames.is_empty() || width == 0 || height == 0 {
            return Err(Error::Usage(format!(
                "a picture needs at least one frame and panels of at least one pixel; there are {} frames \
                 and panels of {width} x {height}",
                input.frames.len()
            )));
        }
        let mut occurs = [false; 256];
        let mut totals = ErrorCounts::default();
        for &frame in shown {
            let ComparedFrame { original, reconstructions, observed } = &input.frames[frame];
            if reconstructions.len() != input.models.len().max(1) {
                return Err(Error::Usage(format!(
                    "a frame has {} reconstructions, but there are {} models",
                    reconstructions.len(),
                    input.models.len().max(1)
                )));
            }
            for labels in std::iter::once(original).chain(reconstructions) {
                input.geometry.check(labels.len())?;
                labels.iter().for_each(|&label| occurs[label as usize] = true);
            }
            for reconstruction in reconstructions {
                totals.add(&outcomes(original, reconstruction, observed.as_deref())?.1);
            }
        }
        let unnamed = (input.classes.len()..256).find(|&id| occurs[id]);
        if let Some(id) = unnamed {
            return Err(Error::Data(format!(
                "a frame holds class {id}, but only {} classes (0 to {}) have a name and a colour; \
                 were raw ids mapped to classes?",
                input.classes.len(),
                input.classes.len().saturating_sub(1)
            )));
        }
        let aspect = width as f32 / height as f32;
        let extent = input.geometry.extent_m();
        let default_camera = || Camera::three_quarter(extent, aspect, Projection::Perspective);
        Ok(Studio {
            input,
            camera: input.camera.unwrap_or_else(default_camera),
            class_palette: Palette::from_colors(input.classes.iter().map(|c| c.color)),
            error_palette: VoxelOutcome::palette(input.theme),
            occurring: input.classes.iter().enumerate().skip(1).filter(|(id, _)| occurs[*id]).map(|(_, c)| c).collect(),
            totals,
        })
    }

    /// The colours that must survive any reduction of the palette: text, page and legends.
    pub(super) fn key_colors(&self) -> Vec<Rgb> {
        let colors = self.input.theme.colors();
        let outcomes = VoxelOutcome::JUDGED.map(|o| o.color(self.input.theme));
        [colors.page, colors.ink, colors.muted_ink]
            .into_iter()
            .chain(outcomes)
            .chain(self.occurring.iter().map(|c| c.color))
            .collect()
    }

    /// A page with room for `rows` frames.
    pub(super) fn page(&self, rows: usize) -> Result<Page> {
        Page::new(self.input, rows, &self.occurring, &self.totals)
    }

    /// Renders the panels of a frame into its place on the page, counted in frames, and labels it.
    pub(super) fn row(
        &self,
        renderer: &mut Headless,
        page: &Page,
        canvas: &mut RgbaImage,
        row: usize,
        frame: usize,
    ) -> Result<()> {
        let input = self.input;
        let ComparedFrame { original, reconstructions, observed } = &input.frames[frame];
        let observed = observed.as_deref();
        let mut classes = ClassMask::all();
        classes.set(VoxelOutcome::Unobserved as u8, false);
        let judged = Visible { classes, ..input.visible.clone() };
        let panels = input.panels();
        for (line, places) in panels.iter().enumerate() {
            for &(column, panel) in places {
                let (labels, visible, palette) = match panel {
                    Panel::Original => (original.as_slice().into(), &input.visible, &self.class_palette),
                    Panel::Reconstruction(model) => {
                        (reconstructions[model].as_slice().into(), &input.visible, &self.class_palette)
                    }
                    Panel::Error(model) => {
                        let errors =
                            visible_outcomes(original, &reconstructions[model], observed, &input.visible.classes);
                        (Cow::Owned(errors), &judged, &self.error_palette)
                    }
                };
                let mesh = Mesh::new(&labels, &input.geometry, visible)?;
                let look = Look {
                    camera: &self.camera,
                    geometry: input.geometry,
                    palette,
                    theme: input.theme,
                    ornaments: &Ornaments::default(),
                    pixels_per_point: SUPERSAMPLING as f32,
                };
                let [width, height] = input.panel_px.map(|side| side.saturating_mul(SUPERSAMPLING));
                let panel = renderer.render(mesh, &look, width, height)?;
                page.place(canvas, row * panels.len() + line, column, &shrink(&panel));
            }
        }
        let counts = match reconstructions.as_slice() {
            [one] => Some(outcomes(original, one, observed)?.1),
            _ => None,
        };
        page.label(canvas, row * panels.len(), input, frame, counts.and_then(|counts| counts.occupancy_iou()));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_spread_from_first_to_last() {
        assert_eq!(spread(16, 4), [0, 5, 10, 15]);
        assert_eq!(spread(3, 5), [0, 1, 2]);
        assert_eq!(spread(8, 5), [0, 2, 4, 5, 7]);
        assert_eq!(spread(9, 1), [0]);
        assert!(spread(0, 5).is_empty());
    }

    fn classes(n: usize) -> Vec<ClassStyle> {
        (0..n).map(|i| ClassStyle { name: format!("class {i}"), color: [i as u8; 3] }).collect()
    }

    fn frame(original: [u8; 8], reconstruction: &[u8]) -> ComparedFrame {
        ComparedFrame { original: original.into(), reconstructions: vec![reconstruction.into()], observed: None }
    }

    #[test]
    fn wrong_input_is_refused_before_anything_is_drawn() {
        let (two, good) = (classes(2), [frame([1; 8], &[1; 8])]);
        let check = |frames: &[ComparedFrame], classes: &[ClassStyle], panel_px| {
            let input =
                PictureInput { panel_px, ..PictureInput::new(Geometry::new([2, 2, 2], [0.4; 3]), frames, classes) };
            Studio::new(&input, &spread(frames.len(), 5)).map(|_| ())
        };
        assert!(check(&good, &two, [64, 64]).is_ok());
        assert!(matches!(check(&[], &two, [64, 64]), Err(Error::Usage(_))));
        assert!(matches!(check(&good, &two, [0, 64]), Err(Error::Usage(_))));
        assert!(matches!(check(&[frame([1; 8], &[1; 7])], &two, [64, 64]), Err(Error::Shape(_))));
        assert!(matches!(check(&[frame([1; 8], &[9; 8])], &two, [64, 64]), Err(Error::Data(_))));
        let alone = ComparedFrame { reconstructions: Vec::new(), ..frame([1; 8], &[]) };
        assert!(matches!(check(&[alone], &two, [64, 64]), Err(Error::Usage(_))));
    }

    #[test]
    fn shrinking_averages_squares() {
        let checker =
            RgbaImage::from_fn(4, 2, |x, y| image::Rgba([if (x + y) % 2 == 0 { 255 } else { 0 }, x as u8, 7, 255]));
        let small = shrink(&checker);
        assert_eq!((small.dimensions(), small.get_pixel(1, 0).0), ((2, 1), [128, 3, 7, 255]));
    }

    #[test]
    fn the_legend_lists_only_classes_that_occur() {
        let (named, frames) = (classes(6), [frame([0, 0, 0, 0, 0, 0, 0, 3], &[0, 0, 0, 0, 0, 0, 5, 3])]);
        let input = PictureInput::new(Geometry::new([2, 2, 2], [0.4; 3]), &frames, &named);
        let studio = Studio::new(&input, &[0]).unwrap();
        let names: Vec<&str> = studio.occurring.iter().map(|c| c.name.as_str()).collect();
        assert_eq!(names, ["class 3", "class 5"]);
    }

    #[test]
    fn an_unwritable_path_is_a_data_error_and_leaves_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let image = RgbaImage::new(2, 2);
        let error = save_png(&image, &folder.path().join("missing/picture.png")).unwrap_err();
        assert!(matches!(&error, Error::Data(m) if m.contains("picture.png")), "{error}");
        let path = folder.path().join("picture.png");
        let failed = write_whole(&path, |file| {
            file.write_all(b"half").map_err(|e| e.to_string())?;
            Err("stopped".into())
        });
        assert!(failed.is_err());
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
    }
}
