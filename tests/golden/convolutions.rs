//! Convolutions with strides and padding, and transposed ones, against PyTorch's figures: the f64 twin and the device, forward
//! and backward.

use crate::fixture::{Array, Check, figures};
use sep4d::Result;
use sep4d::graph::{Graph, TensorId};
use sep4d::layers::conv3d::{ConvGeometry, conv_transpose3d, conv3d_with};

type Build = fn(&mut Graph, TensorId, TensorId, Option<TensorId>, ConvGeometry) -> Result<TensorId>;

/// The convolution `name` of the fixture, whose activations `layout` brings to `[N, X, Y, Z, C]`.
fn agrees(name: &str, build: Build, has_bias: bool, geometry: ConvGeometry, layout: fn(&Array) -> Array) {
    let of = |part: &str| figures("convolutions", &format!("{name}.{part}"));
    let mut check = Check::default();
    let [x, weight] = [layout(&of("x")), of("weight")].map(|value| check.input(&value));
    let bias = has_bias.then(|| check.input(&of("bias")));
    let y = build(&mut check.graph, x, weight, bias, geometry).unwrap();
    assert_eq!(check.graph.shape(y), layout(&of("y")).shape, "{name}");
    check.expect_seeded(y, &layout(&of("y")), &layout(&of("d_y")));
    let mut gradients = vec![(x, layout(&of("d_x"))), (weight, of("d_weight"))];
    gradients.extend(bias.map(|bias| (bias, of("d_bias"))));
    check.expect_gradients(&gradients);
    check.run(name);
}

fn cubic(kernel: usize, stride: usize, padding: usize) -> ConvGeometry {
    ConvGeometry::new([kernel; 3], [stride; 3], [padding; 3])
}

const ALONG_X: [usize; 3] = [2, 1, 1];

#[test]
fn convolutions_agree() {
    let pairs = ConvGeometry::new(ALONG_X, ALONG_X, [0; 3]);
    for (name, has_bias, geometry) in [
        ("k3_p0", true, cubic(3, 1, 0)),
        ("k2_p1", false, cubic(2, 1, 1)),
        ("k4_s2_p1", true, cubic(4, 2, 1)),
        ("k3_s2_p1", false, cubic(3, 2, 1)),
        ("k2_s2", true, cubic(2, 2, 0)),
        ("k211_s211", true, pairs),
    ] {
        agrees(name, conv3d_with, has_bias, geometry, Array::channels_last);
    }
}

#[test]
fn convolutions_of_planes_agree() {
    let geometry = ConvGeometry::new([1, 3, 3], [1, 2, 2], [0, 1, 1]);
    agrees("plane_k3_s2_p1", conv3d_with, true, geometry, |plane| plane.channels_last().into_volume());
}

#[test]
fn transposed_convolutions_agree() {
    let pairs = ConvGeometry::new(ALONG_X, ALONG_X, [0; 3]);
    for (name, has_bias, geometry) in [
        ("transposed_k4_s2_p1", true, cubic(4, 2, 1)),
        ("transposed_k2_s2", false, cubic(2, 2, 0)),
        ("transposed_k211_s211", true, pairs),
        ("transposed_k3_s1_p1", true, cubic(3, 1, 1)),
        ("transposed_k3_s2_p1", true, cubic(3, 2, 1)),
    ] {
        agrees(name, conv_transpose3d, has_bias, geometry, Array::channels_last);
    }
}
