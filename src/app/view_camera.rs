//! The camera that a [`View`] stands for in a view of some shape.

use glam::Vec3;

use super::view::View;
use crate::view::{Camera, Geometry, Projection};

/// The camera of `view` for a grid in a view of `aspect = width / height`; `sensor_m` is where the vehicle stands in the world.
pub fn camera(view: &View, geometry: &Geometry, sensor_m: Vec3, aspect: f32) -> Camera {
    let extent = geometry.extent_m();
    let projection = if view.orthographic { Projection::Orthographic } else { Projection::Perspective };
    let fresh = View::default();
    let mut camera = if view.follow_ego {
        let mut chase = Camera::follow(sensor_m, 0.0, extent);
        chase.orbit(view.yaw_rad - fresh.yaw_rad, view.pitch_rad - fresh.pitch_rad);
        chase.projection = projection;
        chase
    } else {
        // Fitted as seen from the usual side: the distance does not pulse while the camera goes round.
        let mut fitted = Camera::three_quarter(extent, aspect, projection);
        fitted.pitch_rad = view.pitch_rad.abs();
        fitted.fit(Vec3::ZERO, extent, aspect, 0.04);
        let [_, _, up] = fitted.forward_right_up();
        let raised = (fitted.target_m - extent * 0.5).dot(up);
        fitted.yaw_rad = view.yaw_rad;
        fitted.pitch_rad = view.pitch_rad;
        let [_, _, up] = fitted.forward_right_up();
        fitted.target_m = extent * 0.5 + up * raised;
        fitted
    };
    camera.distance_m *= view.zoom;
    camera.target_m += (view.target - fresh.target) * extent;
    camera
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::f32::consts::TAU;

    #[test]
    fn turning_keeps_the_distance_and_the_grid_in_view() {
        let geometry = Geometry::new([128, 128, 8], [0.4, 0.4, 0.375]);
        let mut view = View::default();
        let first = camera(&view, &geometry, Vec3::ZERO, 1.2);
        for step in 0..8 {
            view.yaw_rad = step as f32 * TAU / 8.0;
            let turned = camera(&view, &geometry, Vec3::ZERO, 1.2);
            assert!((turned.distance_m - first.distance_m).abs() < 1e-3);
            let centre = turned.clip_from_world(1.2).project_point3(geometry.extent_m() * 0.5);
            assert!(centre.truncate().length() < 0.3, "{centre}");
        }
        view.look_from_top();
        let top = camera(&view, &geometry, Vec3::ZERO, 1.2);
        let corner = top.clip_from_world(1.2).project_point3(Vec3::ZERO);
        assert!(corner.x.abs() <= 1.0 && corner.y.abs() <= 1.0, "{corner}");
    }
}
