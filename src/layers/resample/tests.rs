//! The twins against what is known of them, and what is refused.

use super::*;
use crate::rng::Rng;

#[test]
fn the_gradient_is_the_transpose() {
    let setting = Setting {
        batch: 2,
        channels: 2,
        canonical: [7, 6, 4],
        frame: [5, 6, 3],
        edges: [1.0, 1.0, 0.5],
        poses: &TILTED,
    };
    let motion: Vec<f64> =
        setting.poses.iter().flat_map(|pose| pose.motion(setting.canonical, setting.frame, setting.edges)).collect();
    let motion = CpuTensor { shape: &[2, 3, MOTION], data: &motion.repeat(2) };
    let mut rng = Rng::new(3, 0);
    for (direction, from, to) in [
        (Direction::ToCanonical, setting.frame, setting.canonical),
        (Direction::ToFrames, setting.canonical, setting.frame),
    ] {
        for volumes in [1, 3] {
            let [x_spec, y_spec] =
                [(volumes, from), (3, to)].map(|(volumes, size)| TensorSpec::f32(&setting.shape(volumes, size)));
            let [x, y] =
                [&x_spec, &y_spec].map(|spec| -> Vec<f64> { (0..spec.elements()).map(|_| rng.normal()).collect() });
            let forward = Resample { direction, extents: to };
            let backward = ResampleBackward { direction, shape: x_spec.shape.clone() };
            let of = |spec: &TensorSpec, data: &Vec<f64>, op: &dyn Op, result: &TensorSpec| {
                op.cpu(&[CpuTensor { shape: &spec.shape, data }, motion], std::slice::from_ref(result)).remove(0)
            };
            let dot = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
            let there = dot(&of(&x_spec, &x, &forward, &y_spec), &y);
            let back = dot(&x, &of(&y_spec, &y, &backward, &x_spec));
            assert!((there - back).abs() < 1e-12 * there.abs().max(1.0), "{direction:?} {volumes}: {there} {back}");
            assert!(there.abs() > 1e-3, "{direction:?} {volumes}: {there} says nothing");
        }
    }
}

#[test]
fn a_turn_by_half_a_circle_reverses_and_what_is_outside_is_zero() {
    // u = 2 - p along x, so that one cell of five lies before and one behind the three that there are.
    let map = |shift: f64| [-1.0, 0.0, 0.0, shift, 0.0, 1.0, 0.0, 0.0, 0.0, 0.0, 1.0, 0.0];
    let motion = [map(2.5), map(2.5)].concat();
    let inputs = [
        CpuTensor { shape: &[1, 1, 3, 1, 1, 1], data: &[1.0, 2.0, 4.0] },
        CpuTensor { shape: &[1, 1, MOTION], data: &motion },
    ];
    let op = Resample { direction: Direction::ToCanonical, extents: [5, 1, 1] };
    let y = op.cpu(&inputs, &[TensorSpec::f32(&[1, 1, 5, 1, 1, 1])]);
    assert_eq!(y, [[2.0, 3.0, 1.5, 0.5, 0.0]]);
    let scores = [CpuTensor { shape: &[1, 1, 5, 1, 1, 1], data: &[1.0; 5] }, inputs[1]];
    let seen = OnlySeen { source_extents: [3, 1, 1] }.cpu(&scores, &[]);
    assert_eq!(seen, [[-7.0, 1.0, 1.0, -7.0, -15.0]]);
}

#[test]
fn misfits_are_named() {
    let mut graph = Graph::new();
    let x = graph.input("x", TensorSpec::f32(&[2, 3, 4, 4, 2, 8]));
    let motion = graph.input("motion", TensorSpec::f32(&[2, 5, 24]));
    let maps = graph.input("motion", TensorSpec::f32(&[2, 3, 12]));
    let mut message =
        |motion, extents| resample(&mut graph, x, motion, Direction::ToFrames, extents).unwrap_err().to_string();
    assert!(message(motion, [4; 3]).contains("x has 3 volumes a sequence; for 5 frames it must have as many, or 1"));
    assert!(message(maps, [4; 3]).contains("motion is [2, 3, 12] but must be [2, 3, 24]"));
    assert!(message(maps, [4, 0, 4]).contains("none may be 0"));
    let message = only_seen(&mut graph, x, motion, [4; 3]).unwrap_err().to_string();
    assert!(message.contains("motion is [2, 5, 24] but must be [2, 3, 24]"), "{message}");
}
