//! Single layers against PyTorch's figures in `tests/golden`: the f64 twin and the device, forward and backward.

use crate::fixture::{Array, Check, figures};
use sep4d::graph::{Graph, Storage};
use sep4d::layers::adam::{Adam, GradientNorm};
use sep4d::layers::axis_pool::{Axes, axis_pool};
use sep4d::layers::concat::{concat, slice};
use sep4d::layers::conv3d::conv3d;
use sep4d::layers::instance_norm::instance_norm;
use sep4d::layers::label_table::label_table;
use sep4d::layers::linear::linear;
use sep4d::layers::permute::{permute, tile};
use sep4d::layers::pointwise::Pointwise;
use sep4d::layers::reparameterise::reparameterise;
use sep4d::layers::segmentation_loss::{lovasz_softmax_exact, segmentation_loss};
use sep4d::models::sep4d::SEP4D;
use sep4d::models::{BatchShape, Mode, ModelConfig};
use sep4d::rng;
use sep4d::selftest::relative_error;

fn golden(name: &str) -> Array {
    figures("layers", name)
}

/// The convolution `name` of the fixture, whose activations `layout` brings to `[N, X, Y, Z, C]`.
fn convolution(name: &str, kernel: [usize; 3], layout: fn(&Array) -> Array) {
    let of = |part: &str| golden(&format!("{name}.{part}"));
    let mut check = Check::default();
    let [x, weight, bias] = [layout(&of("x")), of("weight"), of("bias")].map(|value| check.input(&value));
    let y = conv3d(&mut check.graph, x, weight, bias, kernel).unwrap();
    check.expect_seeded(y, &layout(&of("y")), &layout(&of("d_y")));
    check.expect_gradients(&[(x, layout(&of("d_x"))), (weight, of("d_weight")), (bias, of("d_bias"))]);
    check.run(name);
}

#[test]
fn conv3d_agrees() {
    convolution("conv3d", [3, 3, 3], Array::channels_last);
}

#[test]
fn conv2d_agrees() {
    convolution("conv2d", [1, 3, 3], |plane| plane.channels_last().into_volume());
}

/// The strided convolution takes labels, not activations: give each voxel of a frame a class of its own, embedded as what the
/// voxel holds, and it is the convolution of the fixture.
#[test]
fn conv3d_down_agrees_as_a_label_table() {
    let of = |part: &str| golden(&format!("conv3d_down.{part}"));
    let x = of("x").channels_last().blocked();
    let (y, d_y, d_x) = (of("y").channels_last(), of("d_y").channels_last(), of("d_x").channels_last().blocked());
    let voxels: usize = x.shape[1..5].iter().product();
    let frame = |array: &Array, n: usize| {
        let elements = array.values.len() / array.shape[0];
        let shape = [&[1], &array.shape[1..]].concat();
        Array { shape, values: array.values[n * elements..(n + 1) * elements].to_vec() }
    };
    let mut check = Check::default();
    let (weight, bias) = (check.input(&of("weight")), check.input(&of("bias")));
    let rows = permute(&mut check.graph, weight, &[2, 3, 4, 0, 1]).unwrap();
    let rows = check.graph.reshape(rows, &[8 * 5, 3]).unwrap();
    let mut gradients = vec![(weight, of("d_weight")), (bias, of("d_bias"))];
    for n in 0..x.shape[0] {
        let embedding = check.values(&[voxels, 3], frame(&x, n).values);
        let labels = check.words(&[1, x.shape[1], x.shape[2], x.shape[3], 8], 0..voxels as u32);
        let table = linear(&mut check.graph, embedding, rows, None, false).unwrap();
        let table = check.graph.reshape(table, &[voxels, 8, 5]).unwrap();
        let output = label_table(&mut check.graph, labels, table, bias).unwrap();
        check.expect_seeded(output, &frame(&y, n), &frame(&d_y, n));
        gradients.push((embedding, frame(&d_x, n)));
    }
    check.expect_gradients(&gradients);
    check.run("conv3d_down");
}

/// As the decoder does it: a linear layer to eight sub-voxels, in blocked order.
#[test]
fn conv_transpose3d_agrees() {
    let of = |part: &str| golden(&format!("conv_transpose3d.{part}"));
    let mut check = Check::default();
    let [x, weight, bias] = [of("x").channels_last(), of("weight"), of("bias")].map(|value| check.input(&value));
    let rows = permute(&mut check.graph, weight, &[2, 3, 4, 1, 0]).unwrap();
    let rows = check.graph.reshape(rows, &[8 * 5, 3]).unwrap();
    let biases = tile(&mut check.graph, bias, 8).unwrap();
    let y = linear(&mut check.graph, x, rows, Some(biases), false).unwrap();
    check.expect_seeded(y, &of("y").channels_last().blocked(), &of("d_y").channels_last().blocked());
    check.expect_gradients(&[(x, of("d_x").channels_last()), (weight, of("d_weight")), (bias, of("d_bias"))]);
    check.run("conv_transpose3d");
}

#[test]
fn linear_agrees() {
    let of = |part: &str| golden(&format!("linear.{part}"));
    let mut check = Check::default();
    let [x, weight, bias] = ["x", "weight", "bias"].map(|part| check.input(&of(part)));
    let y = linear(&mut check.graph, x, weight, Some(bias), false).unwrap();
    check.expect_seeded(y, &of("y"), &of("d_y"));
    check.expect_gradients(&[(x, of("d_x")), (weight, of("d_weight")), (bias, of("d_bias"))]);
    check.run("linear");
}

#[test]
fn instance_norm_and_lrelu_agree() {
    for name in ["instance_norm", "lrelu"] {
        let of = |part: &str| golden(&format!("{name}.{part}")).channels_last();
        let mut check = Check::default();
        let x = check.input(&of("x"));
        let y = match name {
            "lrelu" => check.graph.push_one(Pointwise::Lrelu, &[x]).unwrap(),
            _ => instance_norm(&mut check.graph, x, None, false, false).unwrap(),
        };
        check.expect_seeded(y, &of("y"), &of("d_y"));
        check.expect_gradients(&[(x, of("d_x"))]);
        check.run(name);
    }
}

#[test]
fn attention_pools_agree() {
    let pools: [(&str, Axes); 2] = [("pool_x", [false, true, false, false]), ("pool_yz", [false, false, true, true])];
    for (name, axes) in pools {
        let of = |part: &str| golden(&format!("{name}.{part}")).channels_last();
        let mut check = Check::default();
        let (values, scores) = (check.input(&of("values")), check.input(&of("scores")));
        let cells: usize = (1..4).filter(|&axis| axes[axis]).map(|axis| of("values").shape[axis]).product();
        // The fixture's scores have their bias already.
        let bias = check.values(&[cells, 3], vec![0.0; cells * 3]);
        let y = axis_pool(&mut check.graph, values, scores, &[(axes, bias)]).unwrap()[0];
        check.expect_seeded(y, &of("y"), &of("d_y"));
        check.expect_gradients(&[(values, of("d_values")), (scores, of("d_scores"))]);
        check.run(name);
    }
}

#[test]
fn kl_agrees() {
    let of = |part: &str| golden(&format!("kl.{part}"));
    let mut check = Check::default();
    let [mu, logvar] = ["mu", "logvar"].map(|part| check.input(&of(part).channels_last()));
    let rng = check.words(&[3], [1, 2, 3]);
    let m = concat(&mut check.graph, &[mu, logvar]).unwrap();
    let elements = of("mu").values.len();
    let (_, kl) = reparameterise(&mut check.graph, m, rng, 0, elements).unwrap();
    check.expect_seeded(kl, &of("y"), &of("d_y"));
    check.expect_gradients(&[(mu, of("d_mu").channels_last()), (logvar, of("d_logvar").channels_last())]);
    check.run("kl");
}

/// `d_logits` from the gradient of the probabilities.
fn through_softmax(p: &Array, d_p: &Array) -> Array {
    let classes = p.shape[1];
    let rows = p.values.chunks(classes).zip(d_p.values.chunks(classes));
    let values = rows.flat_map(|(p, d_p)| {
        let mean: f64 = p.iter().zip(d_p).map(|(p, d)| p * d).sum();
        p.iter().zip(d_p).map(|(p, d)| p * (d - mean)).collect::<Vec<_>>()
    });
    Array { shape: p.shape.clone(), values: values.collect() }
}

#[test]
fn cross_entropy_and_lovasz_agree() {
    for name in ["cross_entropy", "lovasz"] {
        let of = |part: &str| golden(&format!("{name}.{part}"));
        let mut check = Check::default();
        let logits = check.input(&golden("cross_entropy.logits"));
        let labels = check.words(&[600], golden("loss.labels").values.iter().map(|&label| label as u32));
        let weights = check.input(&golden("loss.class_weights"));
        let (ce, lovasz) = segmentation_loss(&mut check.graph, logits, labels, weights).unwrap();
        let (y, d_logits) = match name {
            "lovasz" => (lovasz, through_softmax(&of("probabilities"), &of("d_probabilities"))),
            _ => (ce, of("d_logits")),
        };
        check.expect_seeded(y, &of("y"), &of("d_y"));
        check.expect_gradients(&[(logits, d_logits)]);
        check.run(name);
    }
}

#[test]
fn the_exact_lovasz_loss_agrees() {
    let of = |part: &str| golden(&format!("lovasz_exact.{part}"));
    let labels: Vec<usize> = golden("loss.labels").values.iter().map(|&label| label as usize).collect();
    let (loss, d_logits) = lovasz_softmax_exact(&golden("cross_entropy.logits").values, &labels, 5);
    assert!((loss - of("y").values[0]).abs() < 1e-6 * loss, "{loss} instead of {}", of("y").values[0]);
    let expected = through_softmax(&of("probabilities"), &of("d_probabilities"));
    let error = relative_error(&d_logits, &expected.values);
    assert!(error < 1e-6, "the gradient deviates by {error}");
}

#[test]
fn five_adam_steps_agree() {
    let (gradients, weights) = (golden("adam.gradients"), golden("adam.weights"));
    // A flat block has a multiple of 64 values.
    let padded = |values: &[f64]| [values, &[0.0; 58]].concat();
    let adam = Adam::default();
    let mut check = Check::default();
    let mut parameters = check.values(&[64], padded(&weights.values[..6]));
    let mut moments = check.values(&[2, 64], vec![0.0; 128]);
    let scale = check.values(&[1], vec![1.0]);
    for (step, gradient) in gradients.values.chunks(6).enumerate() {
        let gradient = check.values(&[64], padded(gradient));
        let hyper = check.values(&[4], adam.hyper(0.01, step as u64).map(f64::from).to_vec());
        let state = check.graph.push_one(GradientNorm, &[gradient, scale]).unwrap();
        let outputs = check.graph.push(adam.clone(), &[parameters, gradient, moments, state, hyper]).unwrap();
        [parameters, moments] = [outputs[0], outputs[1]];
        let used = slice(&mut check.graph, parameters, 0, 6).unwrap();
        let expected = weights.values[6 * (step + 1)..6 * (step + 2)].to_vec();
        check.expect(used, &Array { shape: vec![6], values: expected });
    }
    check.run("adam");
}

#[test]
fn positional_codes_agree() {
    // The code of x in a model whose volume has five cells along x.
    let config = ModelConfig::of(&SEP4D, 0);
    let shape = BatchShape { batch: 1, frames: 2, size: [10, 4, 6] };
    let mut graph = Graph::new();
    config.build(&mut graph, &shape, Mode::Look).unwrap();
    let mut inputs = graph.nodes().iter().flat_map(|node| &node.inputs).map(|&id| graph.tensor(id));
    let code = inputs.find(|tensor| tensor.name == "planes.bias.x.code").unwrap();
    let Storage::Constant(values) = &code.storage else { panic!("{:?}", code.storage) };
    let expected = golden("positional_code.5");
    assert_eq!(code.spec.shape, expected.shape);
    for (&found, expected) in values.iter().zip(&expected.values) {
        assert!((f64::from(found) - expected).abs() < 1e-7, "{found} instead of {expected}");
    }
}

#[test]
fn random_numbers_agree() {
    for (name, seed, step, stream) in [("normal.a", 7u64, 0, 0), ("normal.b", (1 << 40) + 12345, 9, 5)] {
        let expected = golden(name);
        let twin: Vec<f64> = (0..64).map(|i| rng::normal(seed, step, stream, i)).collect();
        let error = relative_error(&twin, &expected.values);
        assert!(error < 1e-7, "{name}: {error}");
        // With mean 0 and log-variance 0 a sample is the noise.
        let mut check = Check::default();
        let m = check.values(&[16, 8], vec![0.0; 128]);
        let key = check.words(&[3], [seed as u32, (seed >> 32) as u32, step]);
        let (sample, _) = reparameterise(&mut check.graph, m, key, stream, 64).unwrap();
        check.expect(sample, &expected);
        check.run(name);
    }
}
