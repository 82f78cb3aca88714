//! Poses: rigid motions between sensor frames.

/// A rigid motion as a 3x4 matrix, row major: `[r00 r01 r02 tx, r10 r11 r12 ty, r20 r21 r22 tz]`, metres.
pub type Pose = [f64; 12];

/// `a * b`: first `b`, then `a`.
pub fn compose(a: &Pose, b: &Pose) -> Pose {
    std::array::from_fn(|i| {
        let (row, column) = (i / 4, i % 4);
        let product: f64 = (0..3).map(|k| a[4 * row + k] * b[4 * k + column]).sum();
        if column == 3 { product + a[4 * row + 3] } else { product }
    })
}

/// The inverse motion, or `None` if the matrix has none.
pub fn invert(p: &Pose) -> Option<Pose> {
    let determinant = determinant(p);
    if !determinant.is_finite() || determinant.abs() < 1e-9 {
        return None;
    }
    let rotation = |r: usize, c: usize| cofactor(p, c, r) / determinant;
    Some(std::array::from_fn(|i| {
        let (row, column) = (i / 4, i % 4);
        if column < 3 { rotation(row, column) } else { -(0..3).map(|k| rotation(row, k) * p[4 * k + 3]).sum::<f64>() }
    }))
}

fn cofactor(p: &Pose, r: usize, c: usize) -> f64 {
    let m = |r: usize, c: usize| p[4 * (r % 3) + c % 3];
    m(r + 1, c + 1) * m(r + 2, c + 2) - m(r + 1, c + 2) * m(r + 2, c + 1)
}

fn determinant(p: &Pose) -> f64 {
    (0..3).map(|c| p[c] * cofactor(p, 0, c)).sum()
}

/// The motions that take every frame of a clip into its middle frame, from poses in a common frame.
pub(crate) fn relative_to_middle(poses: &[Pose]) -> Option<Vec<Pose>> {
    let inverse = invert(poses.get(poses.len() / 2)?)?;
    Some(poses.iter().map(|pose| compose(&inverse, pose)).collect())
}

/// How far a rotation may be from an orthonormal one, in each product of two of its columns.
const RIGID: f64 = 1e-2;

/// Whether a pose turns and shifts only: no scaling, shearing or mirroring.
pub(crate) fn is_rigid(p: &Pose) -> bool {
    let dot = |a: usize, b: usize| (0..3).map(|row| p[4 * row + a] * p[4 * row + b]).sum::<f64>();
    let orthonormal = (0..3).all(|a| (0..3).all(|b| (dot(a, b) - if a == b { 1.0 } else { 0.0 }).abs() <= RIGID));
    orthonormal && determinant(p) > 0.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pose_times_its_inverse_is_the_identity() {
        let (s, c) = 0.7f64.sin_cos();
        let pose = [c, -s, 0.0, 3.0, s, c, 0.0, -2.0, 0.0, 0.0, 1.0, 0.5];
        let product = compose(&pose, &invert(&pose).unwrap());
        let identity = [1.0, 0.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 0.0, 1.0, 0.0];
        for (have, want) in product.iter().zip(identity) {
            assert!((have - want).abs() < 1e-12, "{product:?}");
        }
        assert!(invert(&[0.0; 12]).is_none());
    }

    #[test]
    fn turns_are_rigid_and_mirrors_scales_and_shears_are_not() {
        let (s, c) = 0.7f64.sin_cos();
        let turn = [c, -s, 0.0, 3.0, s, c, 0.0, -2.0, 0.0, 0.0, 1.0, 0.5];
        assert!(is_rigid(&turn));
        let changed = |i: usize, value: f64| {
            let mut pose = turn;
            pose[i] = value;
            pose
        };
        for pose in [changed(10, -1.0), changed(10, 1.1), changed(2, 0.3), changed(0, f64::NAN), [0.0; 12]] {
            assert!(!is_rigid(&pose), "{pose:?}");
        }
    }
}
