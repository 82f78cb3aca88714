//! What models of tokens are made of, against PyTorch's figures in `tests/golden`.

use crate::fixture::{Array, Check, figures};
use sep4d::graph::{Graph, TensorId};
use sep4d::layers::activation::{Activation, activate};
use sep4d::layers::attention::{Dropout, attention};
use sep4d::layers::broadcast_mul::{broadcast_mul, broadcast_to};
use sep4d::layers::commitment_loss::{commitment_loss, straight_through};
use sep4d::layers::dropout::dropout;
use sep4d::layers::gather::{gather, take_token};
use sep4d::layers::nearest_code::nearest_code;
use sep4d::layers::pad3d::{PadMode, Padding, pad3d};
use sep4d::layers::segmentation_loss::segmentation_loss;

fn golden(name: &str) -> Array {
    figures("tokens", name)
}

fn words(name: &str) -> impl Iterator<Item = u32> {
    golden(name).values.into_iter().map(|value| value as u32)
}

/// The op `name` of the fixture with these operands, each in the order of axes that `layout` brings it to.
fn agrees(
    name: &str,
    operands: &[&str],
    layout: fn(&Array) -> Array,
    op: impl Fn(&mut Graph, &[TensorId]) -> sep4d::Result<TensorId>,
) {
    let of = |part: &str| layout(&golden(&format!("{name}.{part}")));
    let mut check = Check::default();
    let inputs: Vec<TensorId> = operands.iter().map(|operand| check.input(&of(operand))).collect();
    let y = op(&mut check.graph, &inputs).unwrap();
    assert_eq!(check.graph.shape(y), of("y").shape);
    check.expect_seeded(y, &of("y"), &of("d_y"));
    let gradients: Vec<_> =
        inputs.iter().zip(operands).map(|(&id, operand)| (id, of(&format!("d_{operand}")))).collect();
    check.expect_gradients(&gradients);
    check.run(name);
}

#[test]
fn activations_agree() {
    for activation in [Activation::Relu, Activation::Silu, Activation::Gelu, Activation::Tanh] {
        let name = format!("{activation:?}").to_lowercase();
        agrees(&name, &["x"], Array::clone, |graph, x| activate(graph, x[0], activation));
    }
}

#[test]
fn products_and_copies_that_repeat_agree() {
    for name in ["mul_gate", "mul_plane", "mul_cells"] {
        agrees(name, &["a", "b"], Array::clone, |graph, x| broadcast_mul(graph, x[0], x[1]));
    }
    agrees("expand", &["x"], Array::clone, |graph, x| broadcast_to(graph, x[0], &[2, 5, 3, 2, 4]));
}

#[test]
fn entries_of_a_table_agree() {
    let of = |part: &str| golden(&format!("gather.{part}"));
    let mut check = Check::default();
    let table = check.input(&of("table"));
    let index = check.words(&of("index").shape, words("gather.index"));
    let y = gather(&mut check.graph, table, index).unwrap();
    check.expect_seeded(y, &of("y"), &of("d_y"));
    check.expect_gradients(&[(table, of("d_table"))]);
    check.run("gather");
    agrees("take_token", &["x"], Array::clone, |graph, x| take_token(graph, x[0], 2));
}

#[test]
fn vector_quantisation_agrees() {
    // All of the straight-through estimate, then the loss.
    let parts = |name: &str| {
        let Array { mut values, .. } = golden(&format!("quantise.{name}"));
        let loss = values.split_off(4 * 9 * 6);
        [Array { shape: vec![4, 9, 6], values }, Array { shape: vec![1], values: loss }]
    };
    let of = |part: &str| golden(&format!("quantise.{part}"));
    let mut check = Check::default();
    let (z, codebook) = (check.input(&of("z")), check.input(&of("codebook")));
    let index = nearest_code(&mut check.graph, z, codebook).unwrap();
    let codes = gather(&mut check.graph, codebook, index).unwrap();
    let through = straight_through(&mut check.graph, z, codes).unwrap();
    let loss = commitment_loss(&mut check.graph, z, codes, 0.25).unwrap();
    for ((id, y), d_y) in [through, loss].into_iter().zip(parts("y")).zip(parts("d_y")) {
        check.expect_seeded(id, &y, &d_y);
    }
    check.expect_gradients(&[(z, of("d_z")), (codebook, of("d_codebook"))]);
    check.run("quantise");
}

/// The seed and the step of everything that is dropped.
fn random_words(check: &mut Check) -> TensorId {
    let seed = (1u64 << 40) + 12345;
    check.words(&[3], [seed as u32, (seed >> 32) as u32, 9])
}

#[test]
fn dropout_agrees() {
    let of = |part: &str| golden(&format!("dropout.{part}"));
    let mut check = Check::default();
    let x = check.input(&of("x"));
    let rng = random_words(&mut check);
    let y = dropout(&mut check.graph, x, rng, 5, 0.3).unwrap();
    check.expect_seeded(y, &of("y"), &of("d_y"));
    check.expect_gradients(&[(x, of("d_x"))]);
    check.run("dropout");
}

#[test]
fn attention_agrees() {
    for name in ["attention", "attention_one", "attention_wide"] {
        agrees(name, &["q", "k", "v"], Array::clone, |graph, x| attention(graph, x[0], x[1], x[2], 2, None));
    }
    for name in ["attention_dropped", "attention_wide_dropped"] {
        let of = |part: &str| golden(&format!("{name}.{part}"));
        let mut check = Check::default();
        let [q, k, v] = ["q", "k", "v"].map(|operand| check.input(&of(operand)));
        let dropout = Some(Dropout { rng: random_words(&mut check), stream: 5, probability: 0.3 });
        let y = attention(&mut check.graph, q, k, v, 2, dropout).unwrap();
        check.expect_seeded(y, &of("y"), &of("d_y"));
        check.expect_gradients(&[(q, of("d_q")), (k, of("d_k")), (v, of("d_v"))]);
        check.run(name);
    }
}

#[test]
fn padding_agrees() {
    for (name, mode) in [("pad_constant", PadMode::Zero), ("pad_replicate", PadMode::Replicate)] {
        let padding = Padding { before: [1, 2, -1], after: [0, -1, 2], mode };
        agrees(name, &["x"], Array::channels_last, |graph, x| pad3d(graph, x[0], padding));
    }
}

/// Ones for class weights make the weighted mean one over the voxels that count, as without weights.
#[test]
fn cross_entropy_without_class_weights_agrees() {
    let of = |part: &str| golden(&format!("cross_entropy.{part}"));
    let mut check = Check::default();
    let logits = check.input(&of("logits"));
    let labels = check.words(&[60], words("cross_entropy.labels"));
    let weights = check.values(&[5], vec![1.0; 5]);
    let (loss, _) = segmentation_loss(&mut check.graph, logits, labels, weights).unwrap();
    check.expect_seeded(loss, &of("y"), &of("d_y"));
    check.expect_gradients(&[(logits, of("d_logits"))]);
    check.run("cross_entropy");
}
