//! The Lovasz-softmax loss as it is defined, without bins.

use super::{softmax, softmax_backward};

/// Lovasz-softmax in its exact, sorted form over classes present, and its gradient by the logits
/// (`lovasz_softmax` of github.com/bermanmaxim/LovaszSoftmax).
///
/// # Shapes
/// - `logits`: `[R, K]` with `K = classes`; `labels`: `[R]`, where a label of `K` or more counts nowhere
/// - returns the loss and `d_logits` `[R, K]`
pub fn lovasz_softmax_exact(logits: &[f64], labels: &[usize], classes: usize) -> (f64, Vec<f64>) {
    let counted: Vec<usize> = (0..labels.len()).filter(|&v| labels[v] < classes).collect();
    let p: Vec<Vec<f64>> = logits.chunks_exact(classes).map(softmax).collect();
    let mut d_p = vec![vec![0.0; classes]; p.len()];
    let (mut loss, mut present) = (0.0, 0.0);
    for c in 0..classes {
        let all = counted.iter().filter(|&&v| labels[v] == c).count() as f64;
        if all == 0.0 {
            continue;
        }
        present += 1.0;
        let error = |v: usize| if labels[v] == c { 1.0 - p[v][c] } else { p[v][c] };
        let mut order = counted.clone();
        order.sort_by(|&a, &b| error(b).total_cmp(&error(a)));
        let (mut foreground, mut background, mut jaccard) = (0.0, 0.0, 0.0);
        for v in order {
            if labels[v] == c {
                foreground += 1.0;
            } else {
                background += 1.0;
            }
            let next = 1.0 - (all - foreground) / (all + background);
            loss += error(v) * (next - jaccard);
            d_p[v][c] = if labels[v] == c { jaccard - next } else { next - jaccard };
            jaccard = next;
        }
    }
    let present = f64::max(present, 1.0);
    let d_logits = p.iter().zip(&d_p).flat_map(|(p, d_p)| softmax_backward(p, d_p)).map(|d| d / present).collect();
    (loss / present, d_logits)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::graph::{CpuTensor, Op};
    use crate::layers::segmentation_loss::{SegmentationLoss, SegmentationLossBackward};
    use crate::rng::Rng;

    fn cosine(a: &[f64], b: &[f64]) -> f64 {
        let dot = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
        dot(a, b) / (dot(a, a) * dot(b, b)).sqrt()
    }

    fn binned(logits: &[f64], labels: &[usize], classes: usize) -> (f64, Vec<f64>) {
        let voxels = labels.len();
        let labels: Vec<f64> = labels.iter().map(|&l| l as f64).collect();
        let (weights, zero, one) = (vec![1.0; classes], [0.0], [1.0]);
        let (rows, flat) = ([voxels, classes], [voxels]);
        let mut inputs = vec![
            CpuTensor { shape: &rows, data: logits },
            CpuTensor { shape: &flat, data: &labels },
            CpuTensor { shape: &rows[1..], data: &weights },
        ];
        let forward = SegmentationLoss.cpu(&inputs, &[]);
        inputs.extend([&forward[2][..], &forward[3], &zero, &one].map(|data| CpuTensor { shape: &[], data }));
        (forward[1][0], SegmentationLossBackward.cpu(&inputs, &[]).remove(0))
    }

    fn assert_close(name: &str, logits: &[f64], labels: &[usize], classes: usize) {
        let (exact, d_exact) = lovasz_softmax_exact(logits, labels, classes);
        let (value, d_value) = binned(logits, labels, classes);
        let cosine = cosine(&d_value, &d_exact);
        println!("{name}: binned {value:.6}, exact {exact:.6}, gradient cosine {cosine:.6}");
        assert!((value - exact).abs() < 1e-3, "{name}: loss {value} against {exact}");
        assert!(cosine >= 0.999, "{name}: gradient cosine {cosine}");
    }

    #[test]
    fn binned_lovasz_is_close_to_the_exact_one_on_random_data() {
        for (classes, spread) in [(3, 1.0), (11, 2.0), (11, 0.1)] {
            let mut rng = Rng::new(5, classes as u64);
            let labels: Vec<usize> = (0..6000).map(|_| rng.below(classes)).collect();
            let logits: Vec<f64> = (0..labels.len() * classes).map(|_| spread * rng.normal()).collect();
            assert_close(&format!("random k{classes} spread {spread}"), &logits, &labels, classes);
        }
    }

    #[test]
    fn binned_lovasz_is_close_to_the_exact_one_on_scenes() {
        // Mostly empty space above a ground, some boxes, a class with six voxels, one absent; logits that know most of it.
        let classes = 11;
        for bias in [1.0, 4.0, 9.0] {
            let mut rng = Rng::new(6, 0);
            let labels: Vec<usize> = (0..24 * 24 * 12)
                .map(|v| match (v % 12, (v / 12) % 24 / 6) {
                    (0, _) => 1,
                    (1..=3, 2) => 2 + (v / 12 / 24) % 8,
                    (5, 0) if v < 150 => 9,
                    _ => 0,
                })
                .collect();
            let mut logits = Vec::new();
            for &label in &labels {
                let guess = if rng.chance(0.05) { rng.below(classes) } else { label };
                logits.extend((0..classes).map(|c| rng.normal() + if c == guess { bias } else { 0.0 }));
            }
            assert_close(&format!("scene bias {bias}"), &logits, &labels, classes);
        }
    }

    #[test]
    fn the_exact_gradient_is_that_of_the_exact_loss() {
        let (classes, step) = (4, 1e-7);
        let mut rng = Rng::new(7, 0);
        // Class 3 is absent and one voxel is not counted.
        let mut labels: Vec<usize> = (0..50).map(|_| rng.below(3)).collect();
        labels[7] = 255;
        let logits: Vec<f64> = (0..labels.len() * classes).map(|_| rng.normal()).collect();
        let (_, d_logits) = lovasz_softmax_exact(&logits, &labels, classes);
        for i in 0..logits.len() {
            let shifted = |shift: f64| {
                let mut logits = logits.clone();
                logits[i] += shift;
                lovasz_softmax_exact(&logits, &labels, classes).0
            };
            let difference = (shifted(step) - shifted(-step)) / (2.0 * step);
            assert!((difference - d_logits[i]).abs() < 1e-7, "{i}: {difference} against {}", d_logits[i]);
        }
    }

    #[test]
    fn a_perfect_prediction_costs_nothing() {
        let labels = [0, 1, 2, 1];
        let logits: Vec<f64> = labels.iter().flat_map(|&l| (0..3).map(move |c| f64::from(c == l) * 60.0)).collect();
        let (exact, _) = lovasz_softmax_exact(&logits, &labels, 3);
        assert!(exact.abs() < 1e-12, "{exact}");
    }
}
