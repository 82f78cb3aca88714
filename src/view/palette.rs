//! The colours of ids: classes, or values on a scale.

use super::theme::{Rgb, Theme};

/// The look of every class id.
#[derive(Debug, Clone, PartialEq)]
pub struct Palette {
    /// sRGB colours by class id.
    pub colors: [Rgb; 256],
    /// By class id, how strongly shading, occlusion and edges show: 1 fully, 0 a flat silhouette.
    pub relief: [f32; 256],
}

impl Default for Palette {
    /// Mid grey with full relief for every class.
    fn default() -> Palette {
        Palette { colors: [[128; 3]; 256], relief: [1.0; 256] }
    }
}

impl Palette {
    /// The given colours for the first ids, mid grey for the rest, all with full relief.
    pub fn from_colors(colors: impl IntoIterator<Item = Rgb>) -> Palette {
        let mut palette = Palette::default();
        for (slot, color) in palette.colors.iter_mut().zip(colors) {
            *slot = color;
        }
        palette
    }
}

/// A scale for values quantised to the ids 1 (least) to 255 (most), such as entropies; 0 is free and never drawn.
///
/// The lightness changes evenly from near the background's to far from it, so that high values stand out in either
/// theme, with any colour vision and in grey.
pub fn heat_palette(theme: Theme) -> Palette {
    Palette::from_colors((0..=255u8).map(|id| heat_color(theme, f32::from(id.saturating_sub(1)) / 254.0)))
}

/// The colour of a value from 0 (least) to 1 (most) on the scale of [`heat_palette`], as its legend needs it.
pub fn heat_color(theme: Theme, value: f32) -> Rgb {
    let value = value.clamp(0.0, 1.0);
    // The ends of the scale, almost black and almost white, would be lost on the background.
    let t = match theme {
        Theme::Dark => 0.22 + 0.76 * value,
        Theme::Light => 0.88 - 0.72 * value,
    };
    // Magma (van der Walt and Smith, 2015), as polynomials fitted to its table.
    const TERMS: [[f32; 3]; 7] = [
        [-0.0021, -0.0007, -0.0054],
        [0.2517, 0.6775, 2.4940],
        [8.3537, -3.5777, 0.3145],
        [-27.6687, 14.2647, -13.6492],
        [52.1761, -27.9436, 12.9442],
        [-50.7685, 29.0466, 4.2342],
        [18.6557, -11.4898, -5.6020],
    ];
    std::array::from_fn(|channel| {
        let value = TERMS.iter().rev().fold(0.0, |sum, term| sum * t + term[channel]);
        (value * 255.0).round().clamp(0.0, 255.0) as u8
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn palettes_keep_their_order() {
        let palette = Palette::from_colors([[1, 2, 3], [4, 5, 6]]);
        assert_eq!((palette.colors[1], palette.colors[2]), ([4, 5, 6], [128; 3]));
    }

    #[test]
    fn heat_leaves_the_background_steadily() {
        // Lightness L* of CIELAB.
        let lightness = |color: Rgb| {
            let [r, g, b] = color.map(|c| (f32::from(c) / 255.0).powf(2.2));
            116.0 * (0.2126 * r + 0.7152 * g + 0.0722 * b).cbrt() - 16.0
        };
        for theme in [Theme::Light, Theme::Dark] {
            let palette = heat_palette(theme);
            let sign = if theme == Theme::Dark { 1.0 } else { -1.0 };
            let background = lightness(theme.colors().sky_top);
            let scale: Vec<f32> = palette.colors[1..].iter().map(|c| lightness(*c)).collect();
            assert!((scale[0] - background).abs() > 4.0, "{theme:?}: the least can be seen");
            let steps: Vec<f32> = scale.windows(24).step_by(23).map(|w| (w[23] - w[0]) * sign).collect();
            let [least, most] = [f32::min, f32::max].map(|f| steps.iter().copied().reduce(f).unwrap());
            assert!(least > 0.0 && most < 2.0 * least, "{theme:?}: {steps:?}");
        }
    }
}
