//! How a camera moves: by the pointer, by keys, and from one place to another.

use std::f32::consts::{PI, TAU};

use glam::Vec2;

use super::camera::Camera;

impl Camera {
    /// Turns the camera around its target; the pitch stops short of straight up and down.
    pub fn orbit(&mut self, yaw_rad: f32, pitch_rad: f32) {
        let limit = 89.5f32.to_radians();
        self.yaw_rad = (self.yaw_rad + yaw_rad).rem_euclid(TAU);
        self.pitch_rad = (self.pitch_rad + pitch_rad).clamp(-limit, limit);
    }

    /// Moves the view by a fraction of its height: the scene follows the pointer to the right and up.
    pub fn pan(&mut self, right_fraction: f32, up_fraction: f32) {
        let [_, right, up] = self.forward_right_up();
        self.target_m -= (right * right_fraction + up * up_fraction) * self.view_height_m();
    }

    /// Multiplies the distance: below 1 comes closer. Stays within a thousandth and fifty times the scene.
    pub fn zoom(&mut self, factor: f32) {
        self.distance_m = (self.distance_m * factor).clamp(self.scene_radius_m * 1e-3, self.scene_radius_m * 50.0);
    }

    /// Zooms as [`Camera::zoom`], while what lies under `ndc` at the target's depth stays there.
    pub fn zoom_at(&mut self, ndc: Vec2, aspect: f32, factor: f32) {
        let before_m = self.view_height_m();
        self.zoom(factor);
        let [_, right, up] = self.forward_right_up();
        self.target_m += (right * (ndc.x * aspect) + up * ndc.y) * 0.5 * (before_m - self.view_height_m());
    }

    /// The camera a part `t` of the way from `from` (0) to `to` (1): the short way round, zooming evenly, and
    /// in the projection of `to` from the beginning.
    pub fn lerp(from: &Camera, to: &Camera, t: f32) -> Camera {
        let mix = |a: f32, b: f32| a + (b - a) * t;
        let turn = (to.yaw_rad - from.yaw_rad + PI).rem_euclid(TAU) - PI;
        if t <= 0.0 || t >= 1.0 {
            return if t <= 0.0 { *from } else { *to };
        }
        Camera {
            target_m: from.target_m.lerp(to.target_m, t),
            yaw_rad: from.yaw_rad + turn * t,
            pitch_rad: mix(from.pitch_rad, to.pitch_rad),
            // Even steps of the logarithm look even.
            distance_m: mix(from.distance_m.ln(), to.distance_m.ln()).exp(),
            fov_y_rad: mix(from.fov_y_rad, to.fov_y_rad),
            projection: to.projection,
            scene_center_m: from.scene_center_m.lerp(to.scene_center_m, t),
            scene_radius_m: mix(from.scene_radius_m, to.scene_radius_m),
        }
    }
}

/// A camera on its way: slow at both ends, a function of nothing but time.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Transition {
    /// Where it begins.
    pub from: Camera,
    /// Where it ends.
    pub to: Camera,
    /// How long it takes, seconds.
    pub duration_s: f32,
}

impl Transition {
    /// The camera `elapsed_s` seconds after the beginning.
    pub fn at(&self, elapsed_s: f32) -> Camera {
        let t = if self.is_over(elapsed_s) { 1.0 } else { (elapsed_s / self.duration_s).max(0.0) };
        Camera::lerp(&self.from, &self.to, t * t * (3.0 - 2.0 * t))
    }

    /// Whether the camera has arrived.
    pub fn is_over(&self, elapsed_s: f32) -> bool {
        elapsed_s >= self.duration_s
    }
}

#[cfg(test)]
mod tests {
    use glam::Vec3;

    use super::*;
    use crate::view::Projection;

    const EXTENT_M: Vec3 = Vec3::new(51.2, 51.2, 3.0);

    #[test]
    fn the_pointer_moves_orbit_pan_and_zoom() {
        let mut camera = Camera::three_quarter(EXTENT_M, 1.0, Projection::Perspective);
        let before = camera.clip_from_world(1.0).project_point3(camera.target_m);
        let target = camera.target_m;
        camera.pan(0.25, 0.0);
        let after = camera.clip_from_world(1.0).project_point3(target);
        assert!((after.x - before.x - 0.5).abs() < 1e-3, "a quarter of the view is half of the clip range");
        camera.orbit(0.0, 9.0);
        assert!(camera.pitch_rad < std::f32::consts::FRAC_PI_2);
        let distance_m = camera.distance_m;
        camera.zoom(0.5);
        assert!((camera.distance_m - distance_m * 0.5).abs() < 1e-3);
    }

    #[test]
    fn zooming_keeps_what_is_under_the_pointer() {
        for projection in [Projection::Perspective, Projection::Orthographic] {
            let mut camera = Camera::three_quarter(EXTENT_M, 1.3, projection);
            let ndc = Vec2::new(0.4, -0.7);
            let (origin, direction) = camera.world_ray_from_ndc(ndc, 1.3);
            let forward = camera.forward_right_up()[0];
            let point = origin + direction * ((camera.target_m - origin).dot(forward) / direction.dot(forward));
            camera.zoom_at(ndc, 1.3, 0.3);
            let after = camera.clip_from_world(1.3).project_point3(point).truncate();
            assert!((after - ndc).length() < 1e-3, "{projection:?}: {after}");
            let target_m = camera.target_m;
            (0..99).for_each(|_| camera.zoom_at(ndc, 1.3, 0.5));
            assert!(
                (camera.target_m - target_m).length() < EXTENT_M.length(),
                "the limits of the zoom hold the target"
            );
        }
    }

    #[test]
    fn a_transition_turns_the_short_way_and_arrives() {
        let mut from = Camera::three_quarter(EXTENT_M, 1.0, Projection::Perspective);
        let mut to = Camera::top(EXTENT_M, 1.0, Projection::Orthographic);
        (from.yaw_rad, to.yaw_rad) = (0.2, TAU - 0.2);
        let transition = Transition { from, to, duration_s: 0.5 };
        assert_eq!(transition.at(-1.0), from);
        assert_eq!((transition.at(0.5), transition.at(7.0)), (to, to));
        assert!(transition.is_over(0.5) && !transition.is_over(0.49));
        let middle = transition.at(0.25);
        assert!(middle.yaw_rad.abs() < 1e-5, "{}", middle.yaw_rad);
        let steps: Vec<f32> = (0..=50).map(|i| transition.at(i as f32 * 0.01).pitch_rad).collect();
        assert!(steps.is_sorted(), "it never turns back");
        let [first, mid] = [1, 26].map(|i| steps[i] - steps[i - 1]);
        assert!(first < 0.2 * mid, "it starts slowly");
        assert_eq!(Transition { duration_s: 0.0, ..transition }.at(0.0), to);
    }
}
