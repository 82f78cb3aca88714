//! Animated GIFs of all frames, with one palette so that nothing flickers.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};
use std::path::Path;

use color_quant::NeuQuant;
use image::RgbaImage;

use super::headless::Headless;
use super::picture::{PictureInput, Studio, spread, write_whole};
use super::theme::Rgb;
use crate::files::cause;
use crate::{Error, Result};

/// Frames from which the palette is learnt.
const PALETTE_FRAMES: usize = 6;
/// The palette index that means "as in the frame before".
const UNCHANGED: u8 = 255;

/// Renders all frames as an endless GIF of one row `original | reconstruction | error`, and writes it whole or not at
/// all. It plays in real time where `frame_interval_s` is known, but no slower than 2 and no faster than 10 frames a
/// second, and rests on the last frame.
///
/// # Errors
/// As [`super::sheet`]; also [`Error::Data`] if the file cannot be written, [`Error::Usage`] if it is larger than a
/// GIF can be (65,535 pixels a side).
pub fn gif(renderer: &mut Headless, input: &PictureInput<'_>, path: &Path) -> Result<()> {
    let all: Vec<usize> = (0..input.frames.len()).collect();
    let studio = Studio::new(input, &all)?;
    let page = studio.page(1)?;
    let mut picture = |frame: usize| -> Result<RgbaImage> {
        let mut canvas = page.blank();
        studio.row(renderer, &page, &mut canvas, 0, frame)?;
        Ok(canvas)
    };
    // The palette needs pixels of several frames at once; those few are kept, the others rendered as they are written.
    let mut kept = BTreeMap::new();
    for frame in spread(all.len(), PALETTE_FRAMES) {
        kept.insert(frame, picture(frame)?);
    }
    let mut quantizer = Quantizer::new(kept.values(), &studio.key_colors());

    let [width, height] = page.size_px().map(|side| {
        u16::try_from(side).map_err(|_| {
            Error::Usage(format!(
                "a GIF has at most 65535 pixels a side, this one would have {side}: use smaller panels"
            ))
        })
    });
    let (width, height) = (width?, height?);
    let delay_cs = (input.frame_interval_s.unwrap_or(0.2).clamp(0.1, 0.5) * 100.0).round() as u16;
    let mut before: Vec<u8> = Vec::new();
    let mut failure = None;
    let written = write_whole(path, |file| {
        let mut encoder = gif::Encoder::new(file, width, height, &quantizer.palette).map_err(|e| reason(&e))?;
        encoder.set_repeat(gif::Repeat::Infinite).map_err(|e| reason(&e))?;
        for &frame in &all {
            let canvas = kept.remove(&frame).map_or_else(|| picture(frame), Ok).map_err(|error| {
                let why = error.to_string();
                failure = Some(error);
                why
            })?;
            let now = quantizer.indices(&canvas);
            let is_last = frame + 1 == all.len();
            let delay = if is_last { delay_cs.max(25) * 3 } else { delay_cs };
            encoder.write_frame(&difference(&before, &now, width, delay)).map_err(|e| reason(&e))?;
            before = now;
        }
        Ok(())
    });
    match failure {
        Some(error) => Err(error),
        None => written,
    }
}

fn reason(why: &gif::EncodingError) -> String {
    match why {
        gif::EncodingError::Io(why) => cause(why),
        other => other.to_string(),
    }
}

/// A GIF frame of only the rectangle that changed, transparent where it did not.
fn difference<'a>(before: &[u8], now: &[u8], width: u16, delay_cs: u16) -> gif::Frame<'a> {
    let columns = usize::from(width);
    let changed = |i: usize| before.get(i) != Some(&now[i]);
    let (mut left, mut right, mut top, mut bottom) = (columns, 0, usize::MAX, 0);
    for i in (0..now.len()).filter(|&i| changed(i)) {
        let (x, y) = (i % columns, i / columns);
        (left, right) = (left.min(x), right.max(x));
        (top, bottom) = (top.min(y), bottom.max(y));
    }
    if top == usize::MAX {
        (left, right, top, bottom) = (0, 0, 0, 0);
    }
    let pixels: Vec<u8> = (top..=bottom)
        .flat_map(|y| (left..=right).map(move |x| y * columns + x))
        .map(|i| if changed(i) { now[i] } else { UNCHANGED })
        .collect();
    gif::Frame {
        left: left as u16,
        top: top as u16,
        width: (right - left + 1) as u16,
        height: (bottom - top + 1) as u16,
        buffer: Cow::Owned(pixels),
        delay: delay_cs,
        transparent: Some(UNCHANGED),
        dispose: gif::DisposalMethod::Keep,
        ..Default::default()
    }
}

/// 255 colours for all frames: the key colours exactly, the others by NeuQuant.
struct Quantizer {
    /// RGB triples, 256 of them; the last is [`UNCHANGED`].
    palette: Vec<u8>,
    colors: Vec<Rgb>,
    nearest: HashMap<Rgb, u8>,
}

impl Quantizer {
    fn new<'a>(samples: impl IntoIterator<Item = &'a RgbaImage>, key_colors: &[Rgb]) -> Quantizer {
        let mut colors: Vec<Rgb> = Vec::new();
        for &color in key_colors.iter().take(128) {
            if !colors.contains(&color) {
                colors.push(color);
            }
        }
        // Page, text and swatches are most of the pixels and have their own entries; the rest is learnt.
        let mut pixels: Vec<u8> = Vec::new();
        for pixel in samples.into_iter().flat_map(|s| s.pixels()) {
            let [r, g, b, _] = pixel.0;
            if !colors.contains(&[r, g, b]) {
                pixels.extend([r, g, b, 255]);
            }
        }
        let learnt = usize::from(UNCHANGED) - colors.len();
        // NeuQuant needs at least as many samples as colours, and a prime step over a longer picture.
        if pixels.len() / 4 >= 1024 {
            let network = NeuQuant::new(5, learnt, &pixels);
            colors.extend(network.color_map_rgb().chunks_exact(3).map(|c| [c[0], c[1], c[2]]));
        }
        let mut palette: Vec<u8> = colors.iter().flatten().copied().collect();
        palette.resize(256 * 3, 0);
        Quantizer { palette, colors, nearest: Default::default() }
    }

    fn indices(&mut self, image: &RgbaImage) -> Vec<u8> {
        let colors = &self.colors;
        let mut last = ([0; 3], None);
        image
            .pixels()
            .map(|pixel| {
                let [r, g, b, _] = pixel.0;
                let color = [r, g, b];
                match last {
                    (same, Some(index)) if same == color => index,
                    _ => {
                        let index = *self.nearest.entry(color).or_insert_with(|| nearest(colors, color));
                        last = (color, Some(index));
                        index
                    }
                }
            })
            .collect()
    }
}

fn nearest(colors: &[Rgb], color: Rgb) -> u8 {
    let distance = |other: &Rgb| {
        let [r, g, b]: [i32; 3] = std::array::from_fn(|i| i32::from(other[i]) - i32::from(color[i]));
        // Green counts most for the eye, blue least.
        3 * r * r + 6 * g * g + b * b
    };
    colors.iter().enumerate().min_by_key(|(_, other)| distance(other)).map_or(0, |(i, _)| i as u8)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_changed_rectangle_is_written() {
        let before = [1u8; 12];
        let mut now = before;
        (now[5], now[10]) = (2, 3);
        let frame = difference(&before, &now, 4, 10);
        assert_eq!((frame.left, frame.top, frame.width, frame.height), (1, 1, 2, 2));
        assert_eq!(frame.buffer.as_ref(), [2, UNCHANGED, UNCHANGED, 3]);
        let same = difference(&now, &now, 4, 10);
        assert_eq!((same.width, same.height, same.buffer.as_ref()), (1, 1, [UNCHANGED].as_slice()));
        let first = difference(&[], &now, 4, 10);
        assert_eq!(first.buffer.as_ref(), now);
    }

    #[test]
    fn key_colors_survive_quantisation() {
        let noisy = RgbaImage::from_fn(64, 64, |x, y| image::Rgba([x as u8 * 4, y as u8 * 4, (x * y) as u8, 255]));
        let keys = [[255, 255, 255], [1, 2, 3], [0, 104, 178]];
        let mut quantizer = Quantizer::new(&[noisy], &keys);
        assert_eq!(quantizer.palette.len(), 768);
        for key in keys {
            let [r, g, b] = key;
            let index = quantizer.indices(&RgbaImage::from_pixel(1, 1, image::Rgba([r, g, b, 255])))[0];
            assert_eq!(quantizer.palette[index as usize * 3..][..3], key);
        }
    }
}
