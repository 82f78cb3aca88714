//! Planar motions with a shift in height: what registration estimates.

use glam::{DMat3, DVec3, DVec4};

use crate::data::Pose;

/// A turn about the vertical axis, then a shift: takes a point of a later frame into an earlier one. `a.after(b)` is first `b`,
/// then `a`.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Motion {
    /// The shift along x, y and z of the earlier frame, metres.
    pub shift_m: [f64; 3],
    /// The turn from x towards y, radians.
    pub yaw: f64,
}

impl Motion {
    /// The motion as four numbers: shift along x, y, z (metres), yaw (radians).
    pub(super) fn to_vector(self) -> DVec4 {
        let [x, y, z] = self.shift_m;
        DVec4::new(x, y, z, self.yaw)
    }

    /// The reverse of [`Motion::to_vector`].
    pub(super) fn from_vector(v: DVec4) -> Motion {
        Motion { shift_m: [v.x, v.y, v.z], yaw: v.w }
    }

    /// First `other`, then this.
    #[must_use]
    pub fn after(self, other: Motion) -> Motion {
        Motion { shift_m: self.apply(other.shift_m), yaw: wrapped(self.yaw + other.yaw) }
    }

    /// The motion back.
    #[must_use]
    pub fn inverse(self) -> Motion {
        let (s, c) = self.yaw.sin_cos();
        let [x, y, z] = self.shift_m;
        Motion { shift_m: [-c * x - s * y, s * x - c * y, -z], yaw: -self.yaw }
    }

    /// Where it takes a point, metres.
    pub fn apply(self, p: [f64; 3]) -> [f64; 3] {
        let (s, c) = self.yaw.sin_cos();
        [self.shift_m[0] + c * p[0] - s * p[1], self.shift_m[1] + s * p[0] + c * p[1], self.shift_m[2] + p[2]]
    }

    /// How far it shifts in the plane, metres.
    pub fn length_m(self) -> f64 {
        self.shift_m[0].hypot(self.shift_m[1])
    }

    /// The motion as a pose.
    pub fn pose(self) -> Pose {
        Pose { matrix3: DMat3::from_rotation_z(self.yaw), translation: DVec3::from_array(self.shift_m) }
    }
}

/// An angle as one from -pi to pi.
pub(super) fn wrapped(angle: f64) -> f64 {
    let turn = std::f64::consts::TAU;
    angle - turn * (angle / turn).round()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_motion_and_its_inverse_cancel_and_agree_with_poses() {
        let a = Motion { shift_m: [1.0, -2.0, 0.1], yaw: 0.4 };
        let b = Motion { shift_m: [0.3, 0.7, -0.2], yaw: -3.0 };
        let there = a.after(a.inverse());
        assert!(there.to_vector().abs_diff_eq(DVec4::ZERO, 1e-12));
        assert!(a.after(b).pose().abs_diff_eq(a.pose() * b.pose(), 1e-12));
    }
}
