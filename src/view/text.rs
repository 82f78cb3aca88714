//! Text on pictures: Ubuntu Light (Ubuntu Font Licence), the font that egui ships.

use ab_glyph::{Font, FontRef, PxScale, ScaleFont};
use image::RgbaImage;

use super::theme::Rgb;
use crate::{Error, Result};

/// Size, weight and colour of a run of text.
#[derive(Debug, Clone, Copy)]
pub(super) struct Style {
    /// Size of the em, pixels.
    pub em_px: f32,
    /// Added stroke width, pixels; the font is light, so headings get some.
    pub embolden_px: f32,
    pub color: Rgb,
}

/// The one typeface of the pictures.
#[derive(Debug)]
pub(super) struct Typeface(FontRef<'static>);

impl Typeface {
    pub(super) fn load() -> Result<Typeface> {
        FontRef::try_from_slice(epaint_default_fonts::UBUNTU_LIGHT)
            .map(Typeface)
            .map_err(|e| Error::Data(format!("the embedded font is unreadable: {e}")))
    }

    /// ab_glyph scales by ascent to descent; sizes here are of the em, as in every other program.
    fn scale(&self, em_px: f32) -> PxScale {
        PxScale::from(em_px * self.0.height_unscaled() / self.0.units_per_em().unwrap_or(1000.0))
    }

    /// Advance width in pixels.
    pub(super) fn width_px(&self, text: &str, style: Style) -> f32 {
        self.layout(text, style).last().map_or(0.0, |(_, _, end)| *end)
    }

    /// Draws one line; `baseline` is the y of the letters' feet.
    pub(super) fn draw(&self, canvas: &mut RgbaImage, x: f32, baseline: f32, text: &str, style: Style) {
        let scale = self.scale(style.em_px);
        for (glyph, start, _) in self.layout(text, style) {
            let at = |dx: f32| ab_glyph::point(x + start + dx, baseline.round());
            let mut shape = Coverage::default();
            for dx in [0.0, style.embolden_px] {
                if let Some(outline) = self.0.outline_glyph(glyph.with_scale_and_position(scale, at(dx))) {
                    let min = outline.px_bounds().min;
                    outline.draw(|px, py, cover| shape.add(px as i32 + min.x as i32, py as i32 + min.y as i32, cover));
                }
            }
            shape.paint(canvas, style.color);
        }
    }

    /// Words of `text` in lines no wider than `max_px`, where words allow.
    pub(super) fn wrap(&self, text: &str, style: Style, max_px: f32) -> Vec<String> {
        let mut lines: Vec<String> = Vec::new();
        for word in text.split_whitespace() {
            match lines.last_mut() {
                Some(line) if self.width_px(&format!("{line} {word}"), style) <= max_px => {
                    line.push(' ');
                    line.push_str(word);
                }
                _ => lines.push(word.to_owned()),
            }
        }
        lines
    }

    /// Each glyph with the x of its start and of its end.
    fn layout(&self, text: &str, style: Style) -> Vec<(ab_glyph::GlyphId, f32, f32)> {
        let font = self.0.as_scaled(self.scale(style.em_px));
        let mut pen = 0.0;
        let mut previous = None;
        text.chars()
            .map(|c| {
                let glyph = font.glyph_id(c);
                pen += previous.map_or(0.0, |p| font.kern(p, glyph));
                previous = Some(glyph);
                let start = pen;
                pen += font.h_advance(glyph) + style.embolden_px;
                (glyph, start, pen)
            })
            .collect()
    }
}

/// The pixels one glyph covers; drawing it twice keeps the larger cover.
#[derive(Default)]
struct Coverage(std::collections::BTreeMap<(i32, i32), f32>);

impl Coverage {
    fn add(&mut self, x: i32, y: i32, cover: f32) {
        let pixel = self.0.entry((x, y)).or_insert(0.0);
        *pixel = pixel.max(cover);
    }

    fn paint(&self, canvas: &mut RgbaImage, color: Rgb) {
        for (&(x, y), &cover) in &self.0 {
            if let (Ok(x), Ok(y)) = (u32::try_from(x), u32::try_from(y)) {
                // A light face fades at small sizes; a mild curve gives its thin stems their weight back.
                blend(canvas, x, y, color, cover.clamp(0.0, 1.0).powf(0.8));
            }
        }
    }
}

/// Mixes `color` into a pixel; outside the canvas nothing happens.
pub(super) fn blend(canvas: &mut RgbaImage, x: u32, y: u32, color: Rgb, cover: f32) {
    if let Some(pixel) = canvas.get_pixel_mut_checked(x, y) {
        for (channel, target) in pixel.0.iter_mut().zip(color) {
            *channel = (f32::from(*channel) + (f32::from(target) - f32::from(*channel)) * cover).round() as u8;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STYLE: Style = Style { em_px: 16.0, embolden_px: 0.0, color: [0; 3] };

    #[test]
    fn text_has_the_width_it_is_drawn_with() {
        let face = Typeface::load().unwrap();
        let width = face.width_px("Reconstruction", STYLE);
        let mut canvas = RgbaImage::from_pixel(200, 40, image::Rgba([255; 4]));
        face.draw(&mut canvas, 10.0, 28.0, "Reconstruction", STYLE);
        let inked = |x: u32| (0..40).any(|y| canvas.get_pixel(x, y).0[0] < 200);
        let (left, right) = ((0..200).find(|&x| inked(x)).unwrap(), (0..200).rev().find(|&x| inked(x)).unwrap());
        assert!((9..14).contains(&left), "starts at {left}");
        assert!((f64::from(right) - f64::from(10.0 + width)).abs() < 3.0, "ends at {right}, width {width}");
    }

    #[test]
    fn digits_are_tabular() {
        let face = Typeface::load().unwrap();
        assert!((face.width_px("111", STYLE) - face.width_px("808", STYLE)).abs() < 0.01);
    }

    #[test]
    fn every_character_of_the_pictures_is_in_the_font() {
        let face = Typeface::load().unwrap();
        for c in "IoU 75.0 % · – — × ± µ é".chars() {
            assert_ne!(face.0.glyph_id(c).0, 0, "{c:?}");
        }
    }

    #[test]
    fn wrapping_respects_the_width_and_keeps_every_word() {
        let face = Typeface::load().unwrap();
        let text = "demo, step 2500, mIoU 53.1 %, IoU 75.0 %";
        let lines = face.wrap(text, STYLE, 120.0);
        assert!(lines.len() > 1);
        assert!(lines.iter().all(|l| face.width_px(l, STYLE) <= 120.0), "{lines:?}");
        assert_eq!(lines.join(" "), text);
    }
}
