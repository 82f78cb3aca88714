//! An orbit camera: perspective, or orthographic (isometric) at the same scale.

use std::f32::consts::{FRAC_PI_2, PI};

use glam::{Mat4, Vec2, Vec3, Vec4};
use serde::{Deserialize, Serialize};

use super::geometry::Handedness;

/// How depth changes size.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Projection {
    /// Near things are larger.
    Perspective,
    /// Parallel lines stay parallel; the scale is that of the perspective view at the target.
    Orthographic,
}

/// How far the front and the side view look down: enough to tell what stands before what.
const LOW_PITCH_RAD: f32 = 0.26;

/// A camera that looks at `target_m` from `distance_m` away.
///
/// World space is right-handed with z up. Clip space is wgpu's: x right, y up, depth 0 (near) to 1 (far).
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Camera {
    /// The point in the middle of the view and the centre of orbiting, metres.
    pub target_m: Vec3,
    /// Direction of view around z, radians; 0 looks along +x, a quarter turn along +y.
    pub yaw_rad: f32,
    /// How far the view looks down, radians; 0 is level, a quarter turn is a map.
    pub pitch_rad: f32,
    /// Distance from eye to target, metres. Also the zoom of the orthographic view.
    pub distance_m: f32,
    /// Full vertical opening angle, radians.
    pub fov_y_rad: f32,
    /// Perspective or orthographic.
    pub projection: Projection,
    /// Centre of the sphere that holds the scene, metres; it bounds the depth range.
    pub scene_center_m: Vec3,
    /// Radius of that sphere, metres.
    pub scene_radius_m: f32,
}

impl Camera {
    /// The view of the pictures: from behind and above, turned a little so that three sides of every voxel show,
    /// fitted to the box from the origin to `extent_m` in a view of `aspect = width / height`.
    pub fn three_quarter(extent_m: Vec3, aspect: f32, projection: Projection) -> Camera {
        Camera::fitted(24f32.to_radians(), 50f32.to_radians(), extent_m, aspect, projection)
    }

    /// A map with x upwards, fitted as [`Camera::three_quarter`].
    pub fn top(extent_m: Vec3, aspect: f32, projection: Projection) -> Camera {
        Camera::fitted(0.0, FRAC_PI_2, extent_m, aspect, projection)
    }

    /// From ahead, looking back along -x and a little down, fitted as [`Camera::three_quarter`].
    pub fn front(extent_m: Vec3, aspect: f32, projection: Projection) -> Camera {
        Camera::fitted(PI, LOW_PITCH_RAD, extent_m, aspect, projection)
    }

    /// From the right, with x to the right and looking a little down, fitted as [`Camera::three_quarter`].
    pub fn side(extent_m: Vec3, aspect: f32, projection: Projection) -> Camera {
        Camera::fitted(FRAC_PI_2, LOW_PITCH_RAD, extent_m, aspect, projection)
    }

    /// Behind and above a vehicle that stands at `ego_m` and heads `heading_rad` (0 along +x, a quarter turn along +y),
    /// looking over it down the road, in a scene from the origin to `extent_m`.
    pub fn follow(ego_m: Vec3, heading_rad: f32, extent_m: Vec3) -> Camera {
        let ahead = Vec3::new(heading_rad.cos(), heading_rad.sin(), 0.0);
        Camera {
            target_m: ego_m + ahead * 5.0,
            yaw_rad: heading_rad,
            pitch_rad: 24f32.to_radians(),
            distance_m: 17.0,
            fov_y_rad: 50f32.to_radians(),
            projection: Projection::Perspective,
            scene_center_m: extent_m * 0.5,
            scene_radius_m: (extent_m.length() * 0.5).max(1e-3),
        }
    }

    fn fitted(yaw_rad: f32, pitch_rad: f32, extent_m: Vec3, aspect: f32, projection: Projection) -> Camera {
        let mut camera = Camera {
            target_m: extent_m * 0.5,
            yaw_rad,
            pitch_rad,
            distance_m: extent_m.length().max(1e-3),
            fov_y_rad: 24f32.to_radians(),
            projection,
            scene_center_m: extent_m * 0.5,
            scene_radius_m: (extent_m.length() * 0.5).max(1e-3),
        };
        camera.fit(Vec3::ZERO, extent_m, aspect, 0.04);
        camera
    }

    /// Direction of view, of the picture's right and of its up, as unit vectors of the world.
    pub fn forward_right_up(&self) -> [Vec3; 3] {
        let (sin_yaw, cos_yaw) = self.yaw_rad.sin_cos();
        let (sin_pitch, cos_pitch) = self.pitch_rad.sin_cos();
        let forward = Vec3::new(cos_pitch * cos_yaw, cos_pitch * sin_yaw, -sin_pitch);
        let right = Vec3::new(sin_yaw, -cos_yaw, 0.0);
        [forward, right, right.cross(forward)]
    }

    /// Where the eye is, metres.
    pub fn eye_m(&self) -> Vec3 {
        self.target_m - self.forward_right_up()[0] * self.distance_m
    }

    /// Rigid transform from world to view space (x right, y up, looking along -z).
    pub fn view_from_world(&self) -> Mat4 {
        let [forward, right, up] = self.forward_right_up();
        let eye = self.eye_m();
        Mat4::from_cols(
            Vec4::new(right.x, up.x, -forward.x, 0.0),
            Vec4::new(right.y, up.y, -forward.y, 0.0),
            Vec4::new(right.z, up.z, -forward.z, 0.0),
            Vec4::new(-right.dot(eye), -up.dot(eye), forward.dot(eye), 1.0),
        )
    }

    /// Projection from view to clip space for a view of `aspect = width / height`.
    pub fn clip_from_view(&self, aspect: f32) -> Mat4 {
        let [near, far] = self.depth_range_m();
        let tan_y = (self.fov_y_rad * 0.5).tan();
        let depth = far - near;
        match self.projection {
            Projection::Perspective => Mat4::from_cols(
                Vec4::new(1.0 / (tan_y * aspect), 0.0, 0.0, 0.0),
                Vec4::new(0.0, 1.0 / tan_y, 0.0, 0.0),
                Vec4::new(0.0, 0.0, -far / depth, -1.0),
                Vec4::new(0.0, 0.0, -far * near / depth, 0.0),
            ),
            Projection::Orthographic => {
                let half_height_m = tan_y * self.distance_m;
                Mat4::from_cols(
                    Vec4::new(1.0 / (half_height_m * aspect), 0.0, 0.0, 0.0),
                    Vec4::new(0.0, 1.0 / half_height_m, 0.0, 0.0),
                    Vec4::new(0.0, 0.0, -1.0 / depth, 0.0),
                    Vec4::new(0.0, 0.0, -near / depth, 1.0),
                )
            }
        }
    }

    /// From world metres to clip space for a view of `aspect = width / height`.
    pub fn clip_from_world(&self, aspect: f32) -> Mat4 {
        self.clip_from_view(aspect) * self.view_from_world()
    }

    /// The ray under a point of the view: origin in metres, on the near plane, and unit direction.
    ///
    /// `ndc` runs from -1 (left, bottom) to 1 (right, top).
    pub fn world_ray_from_ndc(&self, ndc: Vec2, aspect: f32) -> (Vec3, Vec3) {
        let [forward, right, up] = self.forward_right_up();
        let near_m = self.depth_range_m()[0];
        let tan_y = (self.fov_y_rad * 0.5).tan();
        let slope = right * (ndc.x * tan_y * aspect) + up * (ndc.y * tan_y);
        match self.projection {
            Projection::Perspective => {
                let ray = forward + slope;
                (self.eye_m() + ray * near_m, ray.normalize())
            }
            Projection::Orthographic => (self.eye_m() + slope * self.distance_m + forward * near_m, forward),
        }
    }

    /// Metres that one pixel covers at the target, in a view `height_px` high: what a scale bar needs.
    pub fn metres_per_pixel(&self, height_px: f32) -> f32 {
        self.view_height_m() / height_px.max(1.0)
    }

    /// Where the data's axes x, y and z point on the screen, as unit vectors: x right, y up, z towards the viewer.
    pub fn axes_on_screen(&self, handedness: Handedness) -> [Vec3; 3] {
        let [forward, right, up] = self.forward_right_up();
        let y = if handedness == Handedness::Left { Vec3::NEG_Y } else { Vec3::Y };
        [Vec3::X, y, Vec3::Z].map(|axis| Vec3::new(axis.dot(right), axis.dot(up), -axis.dot(forward)))
    }

    /// Centres the box `min_m..max_m` and comes as close as all its corners allow, from the current direction.
    ///
    /// `margin` is the fraction of the half width and half height left free on each side.
    pub fn fit(&mut self, min_m: Vec3, max_m: Vec3, aspect: f32, margin: f32) {
        let center = (min_m + max_m) * 0.5;
        self.scene_center_m = center;
        self.scene_radius_m = ((max_m - min_m).length() * 0.5).max(1e-3);
        let [forward, right, up] = self.forward_right_up();
        let tan_y = (self.fov_y_rad * 0.5).tan() * (1.0 - margin);
        let depth_scale = if self.projection == Projection::Perspective { 1.0 } else { 0.0 };
        // Every corner with view coordinates (s, f) must satisfy |s - s0| <= (f + d) * tan: two lines a side,
        // so the closest distance and the offset that centres the view follow from the two extreme corners.
        let solve = |axis: Vec3, tan: f32| {
            let (mut high, mut low) = (f32::MIN, f32::MIN);
            for corner in box_corners(min_m - center, max_m - center) {
                let (side, depth) = (corner.dot(axis), corner.dot(forward) * depth_scale);
                high = high.max(side - tan * depth);
                low = low.max(-side - tan * depth);
            }
            ((high + low) / (2.0 * tan), (high - low) * 0.5)
        };
        let (distance_x, offset_x) = solve(right, tan_y * aspect);
        let (distance_y, offset_y) = solve(up, tan_y);
        self.distance_m = distance_x.max(distance_y).max(1e-3);
        self.target_m = center + right * offset_x + up * offset_y;
    }

    /// Height of the view at the target, metres.
    pub(super) fn view_height_m(&self) -> f32 {
        2.0 * (self.fov_y_rad * 0.5).tan() * self.distance_m
    }

    fn depth_range_m(&self) -> [f32; 2] {
        let to_center = (self.scene_center_m - self.eye_m()).dot(self.forward_right_up()[0]);
        let reach = self.scene_radius_m * 1.5;
        match self.projection {
            Projection::Perspective => {
                let near = (to_center - reach).max(self.scene_radius_m * 1e-3);
                [near, (to_center + reach).max(near * 2.0)]
            }
            Projection::Orthographic => [to_center - reach, to_center + reach],
        }
    }
}

fn box_corners(min: Vec3, max: Vec3) -> [Vec3; 8] {
    std::array::from_fn(|i| {
        let pick = |bit: usize, low: f32, high: f32| if i >> bit & 1 == 1 { high } else { low };
        Vec3::new(pick(0, min.x, max.x), pick(1, min.y, max.y), pick(2, min.z, max.z))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const EXTENT_M: Vec3 = Vec3::new(51.2, 51.2, 3.0);

    #[test]
    fn projecting_a_point_and_following_its_ray_returns_to_it() {
        for projection in [Projection::Perspective, Projection::Orthographic] {
            let camera = Camera::three_quarter(EXTENT_M, 1.3, projection);
            for point in [Vec3::ZERO, EXTENT_M, Vec3::new(12.0, 40.0, 1.0)] {
                let ndc = camera.clip_from_world(1.3).project_point3(point);
                assert!((0.0..=1.0).contains(&ndc.z), "{projection:?}: depth {}", ndc.z);
                let (origin, direction) = camera.world_ray_from_ndc(ndc.truncate(), 1.3);
                let off_ray = (point - origin).cross(direction).length();
                assert!(off_ray < 0.02, "{projection:?}: {off_ray} m off the ray");
            }
        }
    }

    #[test]
    fn fit_touches_the_margin_and_centres() {
        for projection in [Projection::Perspective, Projection::Orthographic] {
            for aspect in [0.5, 1.2, 3.0] {
                let camera = Camera::three_quarter(EXTENT_M, aspect, projection);
                let clip_from_world = camera.clip_from_world(aspect);
                let corners = box_corners(Vec3::ZERO, EXTENT_M).map(|c| clip_from_world.project_point3(c));
                let high = corners.iter().fold(Vec3::MIN, |a, c| a.max(*c));
                let low = corners.iter().fold(Vec3::MAX, |a, c| a.min(*c));
                let reach = high.x.max(high.y);
                assert!((reach - 0.96).abs() < 1e-3, "{projection:?} {aspect}: reaches {reach}");
                assert!(
                    (high.x + low.x).abs() < 0.02 || reach > high.x + 1e-3,
                    "{projection:?} {aspect}: {low} {high}"
                );
                assert!(high.x < 0.9601 && high.y < 0.9601 && low.x > -0.9601 && low.y > -0.9601);
            }
        }
    }

    #[test]
    fn orthographic_keeps_the_scale_of_the_perspective_target() {
        let mut camera = Camera::three_quarter(EXTENT_M, 1.0, Projection::Perspective);
        let [_, right, _] = camera.forward_right_up();
        let at_side = camera.target_m + right * 5.0;
        let perspective = camera.clip_from_world(1.0).project_point3(at_side);
        camera.projection = Projection::Orthographic;
        let orthographic = camera.clip_from_world(1.0).project_point3(at_side);
        assert!((perspective.x - orthographic.x).abs() < 1e-4);
    }

    #[test]
    fn presets_hold_the_whole_scene() {
        for projection in [Projection::Perspective, Projection::Orthographic] {
            for preset in [Camera::three_quarter, Camera::top, Camera::front, Camera::side] {
                let camera = preset(EXTENT_M, 1.1, projection);
                let clip_from_world = camera.clip_from_world(1.1);
                let corners = box_corners(Vec3::ZERO, EXTENT_M).map(|c| clip_from_world.project_point3(c));
                let reach = corners.iter().fold(0f32, |most, c| most.max(c.x.abs()).max(c.y.abs()));
                assert!((0.9..0.9601).contains(&reach), "{projection:?}: reaches {reach}");
                assert!(corners.iter().all(|c| (0.0..=1.0).contains(&c.z)));
            }
        }
    }

    #[test]
    fn the_axes_point_where_the_data_does() {
        let top = Camera::top(EXTENT_M, 1.0, Projection::Orthographic);
        let rounded = |handedness| top.axes_on_screen(handedness).map(|axis| axis.round());
        assert_eq!(rounded(Handedness::Right), [Vec3::Y, Vec3::NEG_X, Vec3::Z], "x is up, y to the left");
        assert_eq!(rounded(Handedness::Left)[1], Vec3::X, "y is to the right");
    }

    #[test]
    fn following_looks_down_the_road_from_behind() {
        let ego_m = Vec3::new(25.6, 25.6, 0.4);
        for heading_rad in [0.0, 2.0] {
            let camera = Camera::follow(ego_m, heading_rad, EXTENT_M);
            let ahead = Vec3::new(heading_rad.cos(), heading_rad.sin(), 0.0);
            assert!((ego_m - camera.eye_m()).dot(ahead) > 5.0 && camera.eye_m().z > 3.0);
            let near = camera.clip_from_world(1.2).project_point3(ego_m);
            let far = camera.clip_from_world(1.2).project_point3(ego_m + ahead * 10.0);
            assert!(near.x.abs() < 1e-3 && near.y < 0.0 && far.y > near.y, "{near} {far}");
        }
    }

    #[test]
    fn a_scale_bar_has_the_length_it_says() {
        let camera = Camera::top(EXTENT_M, 1.5, Projection::Orthographic);
        let [_, right, _] = camera.forward_right_up();
        let ten_metres = camera.clip_from_world(1.5).transform_vector3(right * 10.0).x * 0.5 * 600.0;
        assert!((ten_metres * camera.metres_per_pixel(400.0) - 10.0).abs() < 1e-3);
    }

    #[test]
    fn a_camera_survives_being_written_down() {
        let camera = Camera::follow(Vec3::ONE, 0.3, EXTENT_M);
        let text = serde_json::to_string(&camera).unwrap();
        assert_eq!(serde_json::from_str::<Camera>(&text).unwrap(), camera);
    }
}
