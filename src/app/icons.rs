//! The icons of buttons, drawn as shapes: no font has to have them, and all have one weight.

use eframe::egui::{Color32, Painter, Pos2, Rect, Shape, Stroke, pos2, vec2};

/// A picture on a button.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Icon {
    Play,
    Pause,
    Step,
    Stop,
    Save,
    Loop,
    Close,
    Menu,
    Previous,
    Next,
    First,
    Last,
    Reset,
    Town,
    Folder,
    Curve,
    More,
    In,
    Out,
}

impl Icon {
    /// Paints it in the middle of `rect`, `size` points high.
    pub fn paint(self, painter: &Painter, rect: Rect, size: f32, color: Color32) {
        let square = Rect::from_center_size(rect.center(), vec2(size, size));
        // Coordinates from 0 to 1 within the square.
        let at = |x: f32, y: f32| -> Pos2 { pos2(square.left() + x * size, square.top() + y * size) };
        let stroke = Stroke::new(1.5, color);
        let fill = |points: Vec<Pos2>| painter.add(Shape::convex_polygon(points, color, Stroke::NONE));
        let bar = |left: f32, right: f32| {
            painter.rect_filled(Rect::from_min_max(at(left, 0.1), at(right, 0.9)), 1.0, color);
        };
        let line = |points: &[(f32, f32)]| {
            painter.add(Shape::line(points.iter().map(|&(x, y)| at(x, y)).collect(), stroke));
        };
        match self {
            Icon::Play => {
                fill(vec![at(0.18, 0.06), at(0.92, 0.5), at(0.18, 0.94)]);
            }
            Icon::Pause => {
                bar(0.16, 0.4);
                bar(0.6, 0.84);
            }
            Icon::Step | Icon::Next => {
                fill(vec![at(0.1, 0.1), at(0.7, 0.5), at(0.1, 0.9)]);
                bar(0.74, 0.9);
            }
            Icon::Previous => {
                fill(vec![at(0.9, 0.1), at(0.3, 0.5), at(0.9, 0.9)]);
                bar(0.1, 0.26);
            }
            Icon::First => {
                line(&[(0.5, 0.15), (0.15, 0.5), (0.5, 0.85)]);
                line(&[(0.85, 0.15), (0.5, 0.5), (0.85, 0.85)]);
            }
            Icon::Last => {
                line(&[(0.15, 0.15), (0.5, 0.5), (0.15, 0.85)]);
                line(&[(0.5, 0.15), (0.85, 0.5), (0.5, 0.85)]);
            }
            Icon::Stop => {
                painter.rect_filled(square.shrink(size * 0.12), 1.5, color);
            }
            Icon::Save => {
                line(&[(0.5, 0.05), (0.5, 0.62)]);
                line(&[(0.25, 0.4), (0.5, 0.65), (0.75, 0.4)]);
                line(&[(0.08, 0.68), (0.08, 0.94), (0.92, 0.94), (0.92, 0.68)]);
            }
            Icon::Loop | Icon::Reset => {
                let arc = |from: f32, to: f32| -> Vec<(f32, f32)> {
                    let angle = |i: usize| from + (to - from) * i as f32 / 16.0;
                    (0..=16).map(|i| (0.5 + 0.4 * angle(i).cos(), 0.5 + 0.4 * angle(i).sin())).collect()
                };
                let whole = if self == Icon::Loop { 5.4 } else { -5.4 };
                let start = if self == Icon::Loop { 0.3 } else { std::f32::consts::PI - 0.3 };
                let points = arc(start, start + whole);
                line(&points);
                let (x, y) = points[16];
                let side = if self == Icon::Loop { 1.0 } else { -1.0 };
                line(&[(x - 0.3 * side, y - 0.02), (x, y), (x + 0.02 * side, y - 0.32)]);
            }
            Icon::Close => {
                line(&[(0.18, 0.18), (0.82, 0.82)]);
                line(&[(0.82, 0.18), (0.18, 0.82)]);
            }
            Icon::In | Icon::Out => {
                line(&[(0.1, 0.5), (0.9, 0.5)]);
                if self == Icon::In {
                    line(&[(0.5, 0.1), (0.5, 0.9)]);
                }
            }
            Icon::More => line(&[(0.2, 0.35), (0.5, 0.65), (0.8, 0.35)]),
            Icon::Town => {
                for (left, right, top) in [(0.04, 0.3, 0.5), (0.36, 0.66, 0.1), (0.72, 0.96, 0.34)] {
                    let house = Rect::from_min_max(at(left, top), at(right, 0.94));
                    painter.rect_stroke(house, 1.0, stroke, eframe::egui::StrokeKind::Middle);
                    for i in 0..((0.8 - top) / 0.2) as usize {
                        let middle = (left + right) / 2.0;
                        let y = top + 0.16 + 0.2 * i as f32;
                        line(&[(middle - 0.05, y), (middle + 0.05, y)]);
                    }
                }
            }
            Icon::Folder => {
                line(&[(0.04, 0.86), (0.04, 0.16), (0.36, 0.16), (0.46, 0.3), (0.96, 0.3), (0.96, 0.86), (0.04, 0.86)]);
                line(&[(0.04, 0.46), (0.96, 0.46)]);
            }
            Icon::Curve => {
                line(&[(0.06, 0.06), (0.06, 0.94), (0.96, 0.94)]);
                line(&[(0.18, 0.2), (0.28, 0.5), (0.42, 0.66), (0.6, 0.74), (0.92, 0.78)]);
            }
            Icon::Menu => {
                for y in [0.2, 0.5, 0.8] {
                    line(&[(0.08, y), (0.92, y)]);
                }
            }
        }
    }
}
