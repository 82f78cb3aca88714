//! Poses: rigid motions between sensor frames.

use glam::{DAffine3, DMat3, DVec3};

/// A rigid motion: three axes and a shift, metres. `a * b` is first `b`, then `a`.
pub type Pose = DAffine3;

/// The motion of a 3x4 matrix, row major: `[r00 r01 r02 tx, r10 r11 r12 ty, r20 r21 r22 tz]`.
pub fn pose_of_rows(rows: &[f64; 12]) -> Pose {
    let column = |c: usize| DVec3::new(rows[c], rows[4 + c], rows[8 + c]);
    DAffine3 { matrix3: DMat3::from_cols(column(0), column(1), column(2)), translation: column(3) }
}

/// The same matrix of a motion.
pub fn rows_of_pose(pose: &Pose) -> [f64; 12] {
    let columns = [pose.matrix3.x_axis, pose.matrix3.y_axis, pose.matrix3.z_axis, pose.translation];
    std::array::from_fn(|i| columns[i % 4][i / 4])
}

/// The inverse motion, or `None` if there is none.
pub fn invert(pose: &Pose) -> Option<Pose> {
    let determinant = pose.matrix3.determinant();
    (determinant.is_finite() && determinant.abs() >= 1e-9).then(|| pose.inverse())
}

/// The motions that take every frame of a clip into its middle frame, from poses in a common frame.
pub(crate) fn relative_to_middle(poses: &[Pose]) -> Option<Vec<Pose>> {
    let inverse = invert(poses.get(poses.len() / 2)?)?;
    Some(poses.iter().map(|pose| inverse * *pose).collect())
}

/// How far a rotation may be from an orthonormal one, in each product of two of its columns.
const RIGID: f64 = 1e-2;

/// Whether a pose turns and shifts only: no scaling, shearing or mirroring.
pub(crate) fn is_rigid(pose: &Pose) -> bool {
    let product = pose.matrix3.transpose() * pose.matrix3;
    product.abs_diff_eq(DMat3::IDENTITY, RIGID) && pose.matrix3.determinant() > 0.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pose_times_its_inverse_is_the_identity() {
        let (s, c) = 0.7f64.sin_cos();
        let pose = [c, -s, 0.0, 3.0, s, c, 0.0, -2.0, 0.0, 0.0, 1.0, 0.5];
        assert_eq!(rows_of_pose(&pose_of_rows(&pose)), pose);
        let pose = pose_of_rows(&pose);
        assert_eq!(pose.transform_point3(DVec3::X), DVec3::new(c + 3.0, s - 2.0, 0.5));
        assert!((pose * invert(&pose).unwrap()).abs_diff_eq(Pose::IDENTITY, 1e-12));
        assert!(invert(&pose_of_rows(&[0.0; 12])).is_none());
    }

    #[test]
    fn turns_are_rigid_and_mirrors_scales_and_shears_are_not() {
        let (s, c) = 0.7f64.sin_cos();
        let turn = [c, -s, 0.0, 3.0, s, c, 0.0, -2.0, 0.0, 0.0, 1.0, 0.5];
        assert!(is_rigid(&pose_of_rows(&turn)));
        let changed = |i: usize, value: f64| {
            let mut pose = turn;
            pose[i] = value;
            pose
        };
        for pose in [changed(10, -1.0), changed(10, 1.1), changed(2, 0.3), changed(0, f64::NAN), [0.0; 12]] {
            assert!(!is_rigid(&pose_of_rows(&pose)), "{pose:?}");
        }
    }
}
