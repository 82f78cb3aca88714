//! The size and the place that a window was left with, where they can no longer be had.

use eframe::egui::{Rect, Vec2, pos2, vec2};
use winit::dpi::{PhysicalPosition, PhysicalSize};
use winit::window::Window;

/// So much of the window's upper edge, by which it is moved, is within reach, in pixels.
const GRIP: Vec2 = vec2(64.0, 16.0);

/// Makes the window at least `least` points large, unless its monitors are smaller, and moves it to where it is seen.
pub fn fit(window: &Window, least: Vec2) {
    if window.is_maximized() || window.fullscreen().is_some() {
        return;
    }
    let monitors: Vec<Rect> =
        window.available_monitors().map(|monitor| rect(monitor.position(), monitor.size())).collect();
    // Where windows do not know their place, nor can choose it, it is that of the first monitor.
    let place = window.outer_position();
    let left = rect(place.clone().unwrap_or_default(), window.inner_size());
    let fitted = fitted(left, least * window.scale_factor() as f32, &monitors);
    if fitted.size() != left.size() {
        let _ = window.request_inner_size(PhysicalSize::new(fitted.width(), fitted.height()));
    }
    if place.is_ok() && fitted.min != left.min {
        window.set_outer_position(PhysicalPosition::new(fitted.min.x, fitted.min.y));
    }
}

fn rect(place: PhysicalPosition<i32>, size: PhysicalSize<u32>) -> Rect {
    Rect::from_min_size(pos2(place.x as f32, place.y as f32), vec2(size.width as f32, size.height as f32))
}

/// The window's place and size among `monitors`, all in pixels.
fn fitted(window: Rect, least: Vec2, monitors: &[Rect]) -> Rect {
    let Some(first) = monitors.first() else {
        return Rect::from_min_size(window.min, window.size().max(least));
    };
    let largest = monitors.iter().fold(Vec2::ZERO, |largest, monitor| largest.max(monitor.size()));
    let size = window.size().max(least).min(largest);
    let edge = Rect::from_min_size(window.min, vec2(size.x, GRIP.y));
    let is_seen = |monitor: &Rect| {
        let seen = monitor.intersect(edge).size();
        seen.x >= GRIP.x.min(size.x) && seen.y >= GRIP.y
    };
    let min = if monitors.iter().any(is_seen) { window.min } else { first.min };
    Rect::from_min_size(min, size)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(x: f32, y: f32, width: f32, height: f32) -> Rect {
        Rect::from_min_size(pos2(x, y), vec2(width, height))
    }

    const LEAST: Vec2 = vec2(800.0, 520.0);

    #[test]
    fn a_window_is_not_reused_below_its_least_size() {
        let monitors = [at(0.0, 0.0, 1280.0, 800.0)];
        assert_eq!(fitted(at(10.0, 10.0, 427.0, 267.0), LEAST, &monitors), at(10.0, 10.0, 800.0, 520.0));
        assert_eq!(fitted(at(10.0, 10.0, 1000.0, 267.0), LEAST, &monitors), at(10.0, 10.0, 1000.0, 520.0));
        assert_eq!(fitted(at(10.0, 10.0, 427.0, 267.0), LEAST, &[]), at(10.0, 10.0, 800.0, 520.0));
    }

    #[test]
    fn a_window_is_no_larger_than_the_largest_monitor() {
        let small = at(0.0, 0.0, 640.0, 480.0);
        assert_eq!(fitted(at(0.0, 0.0, 427.0, 267.0), LEAST, &[small]), small);
        let monitors = [small, at(640.0, 0.0, 1920.0, 1080.0)];
        assert_eq!(fitted(at(700.0, 0.0, 4000.0, 600.0), LEAST, &monitors), at(700.0, 0.0, 1920.0, 600.0));
    }

    #[test]
    fn a_window_on_a_monitor_that_is_gone_comes_to_the_first() {
        let monitors = [at(0.0, 0.0, 1280.0, 800.0), at(1280.0, 0.0, 1280.0, 800.0)];
        let left = at(1400.0, 50.0, 900.0, 600.0);
        assert_eq!(fitted(left, LEAST, &monitors), left);
        assert_eq!(fitted(left, LEAST, &monitors[..1]), at(0.0, 0.0, 900.0, 600.0));
        for hidden in [at(0.0, 795.0, 900.0, 600.0), at(1270.0, 0.0, 900.0, 600.0), at(0.0, -50.0, 900.0, 600.0)] {
            assert_eq!(fitted(hidden, LEAST, &monitors[..1]).min, pos2(0.0, 0.0), "{hidden:?}");
        }
        let half_out = at(-300.0, 20.0, 900.0, 600.0);
        assert_eq!(fitted(half_out, LEAST, &monitors), half_out);
    }
}
