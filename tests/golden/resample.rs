//! Volumes read along affine maps of their cells against PyTorch's figures in `tests/golden`: the f64 twin and the device, forward
//! and backward.

use crate::fixture::{Array, Check, figures};
use sep4d::layers::resample::{Direction, only_seen, resample};

const CANONICAL: [usize; 3] = [8, 7, 4];
const FRAME: [usize; 3] = [6, 5, 4];

/// `[B, T, C, X, Y, Z]` of the fixture as our `[B, T, X, Y, Z, C]`.
fn golden(name: &str) -> Array {
    figures("resample", name).permuted(&[0, 1, 3, 4, 5, 2])
}

#[test]
fn frames_and_one_volume_are_resampled_alike() {
    for (name, direction, extents) in
        [("to_canonical", Direction::ToCanonical, CANONICAL), ("to_frames", Direction::ToFrames, FRAME)]
    {
        let of = |part: &str| golden(&format!("{name}.{part}"));
        let mut check = Check::default();
        let (x, motion) = (check.input(&of("x")), check.input(&figures("resample", "motion")));
        let y = resample(&mut check.graph, x, motion, direction, extents).unwrap();
        check.expect_seeded(y, &of("y"), &of("d_y"));
        check.expect_gradients(&[(x, of("d_x"))]);
        check.run(name);
    }
}

#[test]
fn what_a_frame_saw_is_known_alike() {
    let mut check = Check::default();
    let (scores, motion) = (check.input(&golden("only_seen.scores")), check.input(&figures("resample", "motion")));
    let y = only_seen(&mut check.graph, scores, motion, FRAME).unwrap();
    check.expect(y, &golden("only_seen.y"));
    check.run("only_seen");
}
