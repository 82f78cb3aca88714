//! Norms, softmax and matrix products against PyTorch's figures in `tests/golden`: the f64 twin and the device, forward and
//! backward.

use crate::fixture::{Array, Check, figures};
use sep4d::graph::{Graph, TensorId};
use sep4d::layers::batch_norm::{RunningAverage, batch_norm, batch_norm_inference};
use sep4d::layers::group_norm::group_norm;
use sep4d::layers::layer_norm::layer_norm;
use sep4d::layers::matmul::Matmul;
use sep4d::layers::softmax::softmax;

fn golden(name: &str) -> Array {
    figures("norms", name)
}

/// Appends the op `name` of the fixture with operands `parts` to a check, activations brought to our layout by `layout`.
fn append(
    check: &mut Check,
    name: &str,
    parts: &[&str],
    layout: fn(&Array) -> Array,
    build: impl FnOnce(&mut Graph, &[TensorId]) -> TensorId,
) -> Vec<(TensorId, Array)> {
    let of = |part: &str| golden(&format!("{name}.{part}"));
    let arranged = |part: &str, value: Array| if part == "x" { layout(&value) } else { value };
    let inputs: Vec<TensorId> = parts.iter().map(|part| check.input(&arranged(part, of(part)))).collect();
    let y = build(&mut check.graph, &inputs);
    check.expect_seeded(y, &layout(&of("y")), &layout(&of("d_y")));
    let gradients = parts.iter().map(|part| arranged(part, of(&format!("d_{part}"))));
    inputs.into_iter().zip(gradients).collect()
}

/// Compares the op `name` of the fixture by itself.
fn agrees(
    name: &str,
    parts: &[&str],
    layout: fn(&Array) -> Array,
    build: impl FnOnce(&mut Graph, &[TensorId]) -> TensorId,
) {
    let mut check = Check::default();
    let gradients = append(&mut check, name, parts, layout, build);
    check.expect_gradients(&gradients);
    check.run(name);
}

const AFFINE: [&str; 3] = ["x", "weight", "bias"];

#[test]
fn layer_norm_agrees() {
    agrees("layer_norm", &AFFINE, Array::clone, |graph, i| layer_norm(graph, i[0], i[1], i[2], 1e-5).unwrap());
}

#[test]
fn softmax_agrees() {
    agrees("softmax", &["x"], Array::clone, |graph, i| softmax(graph, i[0]).unwrap());
}

#[test]
fn matrix_products_agree() {
    for (name, transposed, scale) in [("matmul", false, 0.25), ("matmul_transposed", true, 1.0)] {
        let op = Matmul { transpose_a: transposed, transpose_b: transposed, scale, ..Matmul::default() };
        agrees(name, &["a", "b"], Array::clone, |graph, inputs| graph.push_one(op, inputs).unwrap());
    }
}

#[test]
fn group_norm_and_instance_norm_with_weights_agree() {
    for (name, groups, eps) in [("group_norm", 3, 1e-6), ("instance_norm_affine", 6, 1e-5)] {
        agrees(name, &AFFINE, Array::channels_last, |graph, i| {
            group_norm(graph, i[0], i[1], i[2], groups, eps).unwrap()
        });
    }
}

#[test]
fn two_steps_of_batch_norm_and_their_running_statistics_agree() {
    let mut check = Check::default();
    let running = [0.0, 1.0].map(|start| check.values(&[6], vec![start; 6]));
    let mut gradients = Vec::new();
    for step in 0..2 {
        gradients.extend(append(
            &mut check,
            &format!("batch_norm.{step}"),
            &AFFINE,
            Array::channels_last,
            |graph, i| {
                let norm = batch_norm(graph, i[0], i[1], i[2], 1e-5).unwrap();
                for (running, batch) in running.into_iter().zip([norm.mean, norm.variance]) {
                    let average = RunningAverage { momentum: 0.3 };
                    graph.push_into(average, &[running, batch], &[running]).unwrap();
                }
                norm.y
            },
        ));
    }
    for (running, name) in running.into_iter().zip(["mean", "var"]) {
        check.expect(running, &golden(&format!("batch_norm.1.running_{name}")));
    }
    check.expect_gradients(&gradients);
    check.run("batch_norm");
}

#[test]
fn batch_norm_in_evaluation_agrees() {
    let mut check = Check::default();
    let running = ["mean", "var"].map(|name| check.input(&golden(&format!("batch_norm.1.running_{name}"))));
    let gradients = append(&mut check, "batch_norm_inference", &AFFINE, Array::channels_last, |graph, i| {
        batch_norm_inference(graph, i[0], i[1], i[2], running, 1e-5).unwrap()
    });
    check.expect_gradients(&gradients);
    check.run("batch_norm_inference");
}
