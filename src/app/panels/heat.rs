//! Values as colours: the maps, and the bars that explain them.

use eframe::egui::{Align2, Color32, FontId, Rect, Sense, Ui, Visuals, pos2, vec2};

use crate::app::style;
use crate::view::heat_color;

/// How values of a range become colours.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Heat {
    /// The least value.
    pub low: f32,
    /// The greatest value.
    pub high: f32,
    /// Whether the middle of the range is neutral, and its two sides differ in hue.
    pub diverges: bool,
}

impl Heat {
    /// From 0 to the greatest of `values`, or as far to either side of 0 if some are negative and it `diverges`.
    pub fn over(values: impl Iterator<Item = f32>, diverges: bool) -> Heat {
        let most = values.filter(|value| value.is_finite()).fold(0.0, |most: f32, value| most.max(value.abs()));
        let high = if most > 0.0 { most } else { 1.0 };
        Heat { low: if diverges { -high } else { 0.0 }, high, diverges }
    }

    /// The colour of `value` on the background of `visuals`.
    pub fn color(&self, visuals: &Visuals, value: f32) -> Color32 {
        let place = ((value - self.low) / (self.high - self.low)).clamp(0.0, 1.0);
        if !place.is_finite() {
            return style::colors(visuals).error;
        }
        if !self.diverges {
            let [r, g, b] = heat_color(style::scene_theme(visuals), place);
            return Color32::from_rgb(r, g, b);
        }
        let [negative, neutral, positive] = if visuals.dark_mode {
            [[86, 180, 240], [38, 42, 50], [240, 120, 40]]
        } else {
            [[0, 90, 170], [238, 240, 243], [196, 66, 0]]
        };
        let (end, part) = if place < 0.5 { (negative, 1.0 - 2.0 * place) } else { (positive, 2.0 * place - 1.0) };
        mix(neutral, end, part)
    }

    /// A bar that explains the colours, as wide as there is room, with the range's ends and middle below it.
    pub fn bar(&self, ui: &mut Ui, number: impl Fn(f32) -> String) {
        const STEPS: usize = 64;
        let (rect, _) = ui.allocate_exact_size(vec2(ui.available_width(), 25.0), Sense::hover());
        let strip = Rect::from_min_size(rect.min, vec2(rect.width(), 9.0));
        let (painter, quiet) = (ui.painter(), style::colors(ui.visuals()).quiet);
        for step in 0..STEPS {
            let at = |part: usize| strip.left() + strip.width() * part as f32 / STEPS as f32;
            let slot = Rect::from_min_max(pos2(at(step), strip.top()), pos2(at(step + 1) + 0.5, strip.bottom()));
            let value = self.low + (self.high - self.low) * (step as f32 + 0.5) / STEPS as f32;
            painter.rect_filled(slot.intersect(strip), 0.0, self.color(ui.visuals(), value));
        }
        for (place, align) in [(0.0, Align2::LEFT_TOP), (0.5, Align2::CENTER_TOP), (1.0, Align2::RIGHT_TOP)] {
            let value = self.low + (self.high - self.low) * place;
            let at = pos2(strip.left() + strip.width() * place, strip.bottom() + 2.0);
            painter.text(at, align, number(value), FontId::monospace(11.0), quiet);
        }
    }
}

/// `part` of the way from `a` to `b`.
pub fn mix(a: [u8; 3], b: [u8; 3], part: f32) -> Color32 {
    let [r, g, b] = std::array::from_fn(|i| (f32::from(a[i]) * (1.0 - part) + f32::from(b[i]) * part).round() as u8);
    Color32::from_rgb(r, g, b)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_cover_their_values_and_are_never_empty() {
        let values = || [-3.0, 1.0, f32::NAN].into_iter();
        assert_eq!(Heat::over(values(), true), Heat { low: -3.0, high: 3.0, diverges: true });
        assert_eq!(Heat::over(values(), false), Heat { low: 0.0, high: 3.0, diverges: false });
        assert_eq!(Heat::over([0.0].into_iter(), false).high, 1.0);
    }

    #[test]
    fn signs_differ_in_hue_and_zero_is_neutral() {
        for visuals in [Visuals::dark(), Visuals::light()] {
            let heat = Heat { low: -2.0, high: 2.0, diverges: true };
            let [low, middle, high] = [-2.0, 0.0, 2.0].map(|value| heat.color(&visuals, value));
            assert!(low.b() > low.r() && high.r() > high.b());
            assert!(middle.r().abs_diff(middle.b()) < 15);
            assert_eq!(heat.color(&visuals, -9.0), low);
        }
    }
}
