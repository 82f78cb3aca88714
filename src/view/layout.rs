//! The page around the panels: where everything lies, and its headings, labels and legends.

use image::{Rgba, RgbaImage, imageops};

use super::error_view::{ErrorCounts, VoxelOutcome};
use super::picture::{ClassStyle, PictureInput};
use super::text::{Style, Typeface, blend};
use super::theme::{Rgb, ThemeColors};
use crate::Result;

/// Lengths in pixels, all multiples of one scale that follows the panel's width.
struct Metrics {
    margin: f32,
    panel_gap: f32,
    row_gap: f32,
    swatch: f32,
    title: Style,
    heading: Style,
    label: Style,
    note: Style,
}

impl Metrics {
    fn new(panel_width: u32, colors: &ThemeColors) -> Metrics {
        let scale = (panel_width as f32 / 480.0).clamp(0.7, 3.0);
        let px = |at_480: f32| (at_480 * scale).round();
        let style = |em: f32, embolden: f32, color: Rgb| Style { em_px: px(em), embolden_px: embolden * scale, color };
        Metrics {
            margin: px(32.0),
            panel_gap: px(14.0),
            row_gap: px(14.0),
            swatch: px(13.0),
            title: style(25.0, 0.5, colors.ink),
            heading: style(18.0, 0.45, colors.ink),
            label: style(16.0, 0.2, colors.ink),
            note: style(15.0, 0.12, colors.muted_ink),
        }
    }
}

/// A page without its panels, and the places where they go.
pub(super) struct Page {
    /// Headings and legends, drawn once.
    base: RgbaImage,
    face: Typeface,
    metrics: Metrics,
    panel: [u32; 2],
    columns_x: Vec<f32>,
    rows_y: Vec<f32>,
}

impl Page {
    /// Lays out a page of `frames` frames with the given legends and draws everything that is the same on all pages.
    pub(super) fn new(
        input: &PictureInput<'_>,
        frames: usize,
        occurring: &[&ClassStyle],
        totals: &ErrorCounts,
    ) -> Result<Page> {
        let face = Typeface::load()?;
        let colors = input.theme.colors();
        let metrics = Metrics::new(input.panel_px[0], &colors);
        let panel = input.panel_px.map(|v| v as f32);
        let m = &metrics;

        let gutter = row_label_texts(input, input.frames.len().max(1) - 1, Some(1.0))
            .iter()
            .map(|(text, strong)| face.width_px(text, if *strong { m.label } else { m.note }))
            .fold(0.0, f32::max)
            .ceil()
            + m.panel_gap * 1.5;
        let headings = input.headings();
        let column = |c: usize| m.margin + gutter + c as f32 * (panel[0] + m.panel_gap);
        let columns_x: Vec<f32> = (0..headings.len()).map(column).collect();
        let last = columns_x[headings.len() - 1];
        let right = last + panel[0];
        let text_width = right - columns_x[0];

        let mut cursor = m.margin;
        let mut lines: Vec<(f32, f32, String, Style)> = Vec::new();
        for (text, style) in [(input.title, m.title), (input.caption, m.note)] {
            for line in face.wrap(text, style, text_width) {
                cursor += style.em_px;
                lines.push((columns_x[0], cursor, line, style));
                cursor += style.em_px * 0.45;
            }
        }
        if !lines.is_empty() {
            cursor += m.row_gap;
        }
        cursor += m.heading.em_px;
        for (&x, name) in columns_x.iter().zip(headings) {
            lines.push((x, cursor, name.to_owned(), m.heading));
        }
        cursor += m.heading.em_px * 0.65;
        let rows = frames * input.panels().len();
        let rows_y: Vec<f32> = (0..rows).map(|r| cursor + r as f32 * (panel[1] + m.row_gap)).collect();
        cursor += rows as f32 * (panel[1] + m.row_gap) + m.row_gap * 0.5;

        let classes: Vec<Entry> =
            occurring.iter().map(|c| Entry { text: c.name.clone(), value: None, color: c.color }).collect();
        // Shares of several models together would say nothing about any of them.
        let shares = input.models.len() < 2;
        let errors: Vec<Entry> = VoxelOutcome::JUDGED
            .into_iter()
            .map(|outcome| Entry {
                text: outcome.name().to_owned(),
                value: totals.share(outcome).filter(|_| shares).map(|share| format!("{:.1} %", 100.0 * share)),
                color: outcome.color(input.theme),
            })
            .collect();
        let classes = Legend::new(&face, m, "Classes", classes, last - columns_x[0] - m.panel_gap);
        let errors = Legend::new(
            &face,
            m,
            if shares { "Share of occupied voxels" } else { "Occupied voxels" },
            errors,
            panel[0],
        );
        let height = cursor + classes.height(m).max(errors.height(m)) + m.margin;

        let [r, g, b] = colors.page;
        let mut base = RgbaImage::from_pixel((right + m.margin) as u32, height as u32, Rgba([r, g, b, 255]));
        for (x, baseline, text, style) in &lines {
            face.draw(&mut base, *x, *baseline, text, *style);
        }
        classes.draw(&mut base, &face, m, columns_x[0], cursor);
        errors.draw(&mut base, &face, m, last, cursor);
        Ok(Page { base, face, metrics, panel: input.panel_px, columns_x, rows_y })
    }

    /// Width and height of the page, pixels.
    pub(super) fn size_px(&self) -> [u32; 2] {
        [self.base.width(), self.base.height()]
    }

    /// A copy of the page with nothing in its rows.
    pub(super) fn blank(&self) -> RgbaImage {
        self.base.clone()
    }

    /// Puts one panel in its place.
    pub(super) fn place(&self, canvas: &mut RgbaImage, row: usize, column: usize, panel: &RgbaImage) {
        imageops::replace(canvas, panel, self.columns_x[column] as i64, self.rows_y[row] as i64);
    }

    /// Writes frame number, time and IoU beside a row, right-aligned to the first panel.
    pub(super) fn label(
        &self,
        canvas: &mut RgbaImage,
        row: usize,
        input: &PictureInput<'_>,
        frame: usize,
        iou: Option<f64>,
    ) {
        let m = &self.metrics;
        let texts = row_label_texts(input, frame, iou);
        let mut baseline = self.rows_y[row] + self.panel[1] as f32 * 0.5 - m.label.em_px * 0.6;
        for (text, strong) in texts {
            let style = if strong { m.label } else { m.note };
            let x = self.columns_x[0] - m.panel_gap - self.face.width_px(&text, style);
            self.face.draw(canvas, x, baseline, &text, style);
            baseline += m.label.em_px * 1.45;
        }
    }
}

/// The lines beside a row, and whether each is a main one.
fn row_label_texts(input: &PictureInput<'_>, frame: usize, iou: Option<f64>) -> Vec<(String, bool)> {
    let mut texts = vec![(format!("Frame {}", input.first_frame + frame * input.frame_step), true)];
    if let Some(interval_s) = input.frame_interval_s {
        texts.push((format!("{:.1} s", interval_s * frame as f32), false));
    }
    if let Some(iou) = iou {
        texts.push((format!("IoU {:.1} %", 100.0 * iou), false));
    }
    texts
}

struct Entry {
    text: String,
    value: Option<String>,
    color: Rgb,
}

/// A heading and swatches with names, in columns of equal width filled row by row.
struct Legend {
    heading: &'static str,
    entries: Vec<Entry>,
    column_width: f32,
    text_width: f32,
    columns: usize,
}

impl Legend {
    fn new(face: &Typeface, m: &Metrics, heading: &'static str, entries: Vec<Entry>, max_width: f32) -> Legend {
        let widest =
            |texts: &mut dyn Iterator<Item = &str>| texts.map(|t| face.width_px(t, m.label)).fold(0.0, f32::max).ceil();
        let text_width = widest(&mut entries.iter().map(|e| e.text.as_str()));
        let value_width = widest(&mut entries.iter().filter_map(|e| e.value.as_deref()));
        let value_gap = if value_width > 0.0 { m.swatch * 0.6 } else { 0.0 };
        let column_width = m.swatch * 1.6 + text_width + value_gap + value_width;
        let gap = m.swatch * 2.0;
        let columns = (((max_width + gap) / (column_width + gap)) as usize).clamp(1, entries.len().max(1));
        // As many rows as needed, then no more columns than fill them: 9 entries become 5 + 4, not 8 + 1.
        let rows = entries.len().div_ceil(columns).max(1);
        let columns = entries.len().div_ceil(rows).max(1);
        Legend { heading, entries, column_width: column_width + gap, text_width, columns }
    }

    fn row_height(m: &Metrics) -> f32 {
        (m.label.em_px * 1.6).round()
    }

    fn height(&self, m: &Metrics) -> f32 {
        m.note.em_px * 1.9 + self.entries.len().div_ceil(self.columns) as f32 * Legend::row_height(m)
    }

    fn draw(&self, canvas: &mut RgbaImage, face: &Typeface, m: &Metrics, x: f32, y: f32) {
        face.draw(canvas, x, y + m.note.em_px, self.heading, m.note);
        let top = y + m.note.em_px * 1.9;
        for (i, entry) in self.entries.iter().enumerate() {
            let left = x + (i % self.columns) as f32 * self.column_width;
            let middle = top + ((i / self.columns) as f32 + 0.5) * Legend::row_height(m);
            swatch(canvas, left, (middle - m.swatch * 0.5).round(), m.swatch, entry.color);
            let baseline = middle + m.label.em_px * 0.35;
            let text_x = left + m.swatch * 1.6;
            face.draw(canvas, text_x, baseline, &entry.text, m.label);
            if let Some(value) = &entry.value {
                let end = left + self.column_width - m.swatch * 2.0;
                let value_x = (end - face.width_px(value, m.note)).max(text_x + self.text_width);
                face.draw(canvas, value_x, baseline, value, m.note);
            }
        }
    }
}

/// A square of `side` pixels with slightly rounded corners.
fn swatch(canvas: &mut RgbaImage, left: f32, top: f32, side: f32, color: Rgb) {
    let radius = side * 0.22;
    for dy in 0..side as u32 {
        for dx in 0..side as u32 {
            let from_edge = |d: u32| (radius - (d as f32 + 0.5).min(side - d as f32 - 0.5)).max(0.0);
            let cover = (radius + 0.5 - from_edge(dx).hypot(from_edge(dy))).clamp(0.0, 1.0);
            blend(canvas, left as u32 + dx, top as u32 + dy, color, cover);
        }
    }
}
