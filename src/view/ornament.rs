//! Lines over a scene: outlines of voxels and of the crop, the axes, the vehicle.

use std::ops::Range;

use glam::{Mat4, Vec2, Vec3, Vec4};

use super::camera::Camera;
use super::geometry::Geometry;
use super::renderer::Look;
use super::theme::Rgb;

/// What is drawn besides the voxels.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Ornaments {
    /// The voxel of the data with a strong outline.
    pub selected: Option<[usize; 3]>,
    /// The voxel of the data with a light outline.
    pub hovered: Option<[usize; 3]>,
    /// The voxels of the data whose box is outlined, such as [`super::Visible::crop_in`].
    pub crop: Option<[Range<usize>; 3]>,
    /// Where the vehicle stands, metres in the world, and its heading, radians from x towards the world's y.
    pub ego: Option<(Vec3, f32)>,
    /// The axes in the lower left corner, at [`AXES_CENTER_POINTS`].
    pub axes: bool,
}

/// Where the axes meet, in points from the view's lower left corner.
pub const AXES_CENTER_POINTS: Vec2 = Vec2::new(44.0, 44.0);
/// Length of an axis that lies in the plane of the screen, points; see [`Camera::axes_on_screen`] for where each ends.
pub const AXES_LENGTH_POINTS: f32 = 28.0;
/// Colours of the axes x, y and z.
pub const AXES_COLORS: [Rgb; 3] = [[222, 74, 74], [76, 166, 84], [72, 134, 236]];

/// The longest of 1, 2, 5 times a power of ten metres that is at most `at_most_m`: for floor lines and scale bars.
pub fn round_length_m(at_most_m: f32) -> f32 {
    let power = 10f32.powf(at_most_m.max(1e-6).log10().floor());
    let step = [5.0, 2.0, 1.0].into_iter().find(|step| step * power <= at_most_m * 1.0001);
    step.unwrap_or(1.0) * power
}

/// A line as the vertex shader reads it.
#[derive(Debug, Clone, Copy, PartialEq, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C)]
pub(super) struct Line {
    /// Both ends in clip space, before the division.
    ends: [[f32; 4]; 2],
    color: [f32; 4],
    width_points: f32,
    /// Opacity where voxels hide it.
    hidden: f32,
}

struct Pencil<'a> {
    clip_from_world: Mat4,
    camera: &'a Camera,
    /// How far lines are moved towards the eye, so that they lie on the faces whose edges they follow.
    lift_m: f32,
    lines: Vec<Line>,
}

#[derive(Clone, Copy)]
struct Stroke {
    color: Rgb,
    opacity: f32,
    width_points: f32,
    hidden: f32,
}

/// The lines of a look in a view of `size_px` pixels.
pub(super) fn lines(look: &Look<'_>, size_px: [f32; 2]) -> Vec<Line> {
    let colors = look.theme.colors();
    let geometry = &look.geometry;
    let mut pencil = Pencil {
        clip_from_world: look.camera.clip_from_world(size_px[0] / size_px[1]),
        camera: look.camera,
        lift_m: 0.25 * Vec3::from_array(geometry.voxel_size_m).min_element(),
        lines: Vec::new(),
    };
    let stroke = |color, width_points, hidden| Stroke { color, opacity: 1.0, width_points, hidden };
    if let Some(crop) = &look.ornaments.crop {
        pencil.cuboid(geometry, crop, Stroke { opacity: 0.7, ..stroke(colors.muted_ink, 1.0, 0.3) });
    }
    if let Some((ego_m, heading_rad)) = look.ornaments.ego {
        pencil.arrow(ego_m, heading_rad, stroke(colors.page, 4.5, 0.12));
        pencil.arrow(ego_m, heading_rad, stroke(colors.ink, 2.0, 0.3));
    }
    // A rim of the page's colour keeps the ink legible on every class.
    for (voxel, rim, width) in [(look.ornaments.hovered, 3.0, 1.25), (look.ornaments.selected, 5.0, 2.25)] {
        if let Some(voxel) = voxel {
            let ranges = voxel.map(|v| v..v + 1);
            pencil.cuboid(geometry, &ranges, stroke(colors.page, rim, 0.15));
            pencil.cuboid(geometry, &ranges, stroke(colors.ink, width, 0.35));
        }
    }
    if look.ornaments.axes {
        pencil.axes(look, size_px);
    }
    pencil.lines
}

impl Pencil<'_> {
    fn line(&mut self, a: Vec3, b: Vec3, stroke: Stroke) {
        let clip = |p: Vec3| {
            let toward_eye = match self.camera.projection {
                super::Projection::Perspective => (self.camera.eye_m() - p).normalize_or_zero(),
                super::Projection::Orthographic => -self.camera.forward_right_up()[0],
            };
            self.clip_from_world * (p + toward_eye * self.lift_m).extend(1.0)
        };
        let (mut a, mut b) = (clip(a), clip(b));
        // What lies before the near plane (z < 0) cannot be projected.
        if a.z < 0.0 && b.z < 0.0 {
            return;
        }
        if a.z < 0.0 {
            a = a.lerp(b, a.z / (a.z - b.z));
        } else if b.z < 0.0 {
            b = b.lerp(a, b.z / (b.z - a.z));
        }
        self.push(a, b, stroke);
    }

    fn push(&mut self, a: Vec4, b: Vec4, Stroke { color, opacity, width_points, hidden }: Stroke) {
        let [r, g, b_] = color.map(|c| f32::from(c) / 255.0);
        self.lines.push(Line { ends: [a.to_array(), b.to_array()], color: [r, g, b_, opacity], width_points, hidden });
    }

    fn cuboid(&mut self, geometry: &Geometry, ranges: &[Range<usize>; 3], stroke: Stroke) {
        let [low, high] = geometry.box_m(ranges);
        for axis in 0..3 {
            for side in 0..4 {
                let mut a = low;
                a[(axis + 1) % 3] = if side & 1 == 1 { high } else { low }[(axis + 1) % 3];
                a[(axis + 2) % 3] = if side & 2 == 2 { high } else { low }[(axis + 2) % 3];
                let mut b = a;
                b[axis] = high[axis];
                self.line(a, b, stroke);
            }
        }
    }

    /// An arrowhead of a car's size, flat on the ground.
    fn arrow(&mut self, ego_m: Vec3, heading_rad: f32, stroke: Stroke) {
        let ahead = Vec3::new(heading_rad.cos(), heading_rad.sin(), 0.0);
        let left = Vec3::new(-ahead.y, ahead.x, 0.0);
        let outline = [(2.3, 0.0), (-1.9, 1.1), (-1.1, 0.0), (-1.9, -1.1)].map(|(x, y)| ego_m + ahead * x + left * y);
        for (i, corner) in outline.into_iter().enumerate() {
            self.line(corner, outline[(i + 1) % 4], stroke);
        }
    }

    fn axes(&mut self, look: &Look<'_>, size_px: [f32; 2]) {
        let clip = |points: Vec2| {
            let px = points * look.pixels_per_point;
            Vec4::new(px.x * 2.0 / size_px[0] - 1.0, px.y * 2.0 / size_px[1] - 1.0, 0.0, 1.0)
        };
        let mut axes: Vec<(Vec3, Rgb)> =
            look.camera.axes_on_screen(look.geometry.handedness).into_iter().zip(AXES_COLORS).collect();
        axes.sort_by(|(a, _), (b, _)| a.z.total_cmp(&b.z));
        for (axis, color) in axes {
            let end = AXES_CENTER_POINTS + axis.truncate() * AXES_LENGTH_POINTS;
            for (color, opacity, width_points) in [(look.theme.colors().page, 0.6, 5.0), (color, 1.0, 2.5)] {
                let stroke = Stroke { color, opacity, width_points, hidden: 0.0 };
                self.push(clip(AXES_CENTER_POINTS), clip(end), stroke);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_are_round() {
        for (at_most_m, length_m) in [(10.24, 10.0), (2.56, 2.0), (16.0, 10.0), (0.9, 0.5), (1.0, 1.0)] {
            assert!((round_length_m(at_most_m) - length_m).abs() < 1e-6, "{at_most_m}");
        }
    }
}
