//! Every kernel against its f64 CPU twin on one adapter, and every twin against central differences.
//!
//! A layer contributes [`Case`]s; `sep4d selftest` runs them on the user's adapter and the tests run the same ones.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;

use half::f16;
use rayon::prelude::*;

use crate::Result;
use crate::gpu::{BuildProgress, Context};
use crate::graph::execute::{Executor, Memory};
use crate::graph::interpret::{self, Values};
use crate::graph::plan::Plan;
use crate::graph::{DType, Graph, Grouping, KernelLimits, Policy, TensorId, TensorSpec};
use crate::kernel::BoundKernel;
use crate::layers::case::{Built, Case, Operands, build, build_half};
use crate::layers::segmentation_loss::{lovasz_softmax_exact, segmentation_loss};
use crate::rng::Rng;

/// How well the kernels of one case agree with their twins.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Agreement {
    /// All tensors in f32.
    pub single: Errors,
    /// Those that may be in f16, if there are any and the adapter has 16-bit floats. The twins round what they store too.
    pub half: Option<Errors>,
}

impl Agreement {
    /// What every op must reach: 1e-5 forward and 1e-4 backward; in f16 [`HALF_TOLERANCE`].
    pub fn acceptable(&self) -> bool {
        self.single.within(1e-5, 1e-4) && self.half.is_none_or(|errors| errors.within(HALF_TOLERANCE, HALF_TOLERANCE))
    }
}

impl fmt::Display for Agreement {
    /// Forward and backward in f32, then in f16.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:>9.1e}  {:>9.1e}", self.single.forward, self.single.backward)?;
        match self.half {
            Some(half) => write!(f, "  {:>9.1e}  {:>9.1e}", half.forward, half.backward),
            None => write!(f, "  {:>9}  {:>9}", "-", "-"),
        }
    }
}

/// Half of the distance between neighbouring f16 numbers, relatively; kernels may round their operands to f16.
pub const HALF_TOLERANCE: f64 = 1.0 / 2048.0;

/// Relative errors (norm of the difference over the norm) of one case.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Errors {
    /// Worst over the outputs.
    pub forward: f64,
    /// Worst over the gradients of the differentiable inputs.
    pub backward: f64,
}

impl Errors {
    fn within(&self, forward: f64, backward: f64) -> bool {
        self.forward <= forward && self.backward <= backward
    }

    fn worst(self, other: Errors) -> Errors {
        Errors { forward: self.forward.max(other.forward), backward: self.backward.max(other.backward) }
    }
}

/// `|a - b| / |b|` over all elements; infinite if anything is not finite.
pub fn relative_error(a: &[f64], b: &[f64]) -> f64 {
    let difference: f64 = a.iter().zip(b).map(|(a, b)| (a - b).powi(2)).sum();
    let norm: f64 = b.iter().map(|b| b * b).sum();
    if !difference.is_finite() || !norm.is_finite() || a.len() != b.len() {
        return f64::INFINITY;
    }
    if norm == 0.0 { difference.sqrt() } else { (difference / norm).sqrt() }
}

fn interpret(built: &Built, inputs: &[(TensorId, Vec<f64>)]) -> Result<Values> {
    let mut values = Values::default();
    for (id, data) in inputs {
        values.set(&built.graph, *id, data.clone());
    }
    interpret::run(&built.graph, &mut values)?;
    Ok(values)
}

/// Which kernels are compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    /// All that the adapter may run: in windows, with every launch as one of those that share a dispatch, overwriting its
    /// operands where it may, with every variant that its tuner may choose, and in f16.
    Adapter,
    /// Also those that only other adapters run: the other kernel family with its variants, and kernels without subgroup
    /// operations.
    Any,
}

/// Compares each of `cases` on `context` with its twin.
///
/// The kernels of all are built first, on all cores, and `building` is told how far that is; then `compared` gets each case in
/// order. A kernel that cannot be built fails the cases that need it.
///
/// # Errors
/// What `compared` returns; and [`crate::Error::Device`] if a case cannot be planned.
pub fn compare_all(
    context: &Arc<Context>,
    cases: &[Case],
    scope: Scope,
    mut building: impl FnMut(BuildProgress),
    mut compared: impl FnMut(&Case, Result<Agreement>) -> Result<()>,
) -> Result<()> {
    let comparisons = cases.par_iter().map(|case| comparisons(context, case, scope)).collect::<Result<Vec<_>>>()?;
    let kernels = comparisons.par_iter().flatten().map(Comparison::kernels).collect::<Result<Vec<_>>>()?;
    let kernels: BTreeSet<BoundKernel> = kernels.into_iter().flatten().collect();
    // Whatever fails here fails again in its case, which can then be named.
    let _ = context.build(&kernels.into_iter().collect::<Vec<_>>(), |progress| {
        building(progress);
        true
    });
    for (case, comparisons) in cases.iter().zip(&comparisons) {
        compared(case, agreement(context, comparisons))?;
    }
    Ok(())
}

/// A case's graph, what its twin makes of it, and the limits under which it runs.
struct Comparison {
    built: Built,
    expected: Values,
    is_half: bool,
    limits: Vec<KernelLimits>,
}

impl Comparison {
    fn new(built: Built, is_half: bool, limits: Vec<KernelLimits>) -> Result<Self> {
        let expected = interpret(&built, &built.values)?;
        Ok(Comparison { built, expected, is_half, limits })
    }

    fn kernels(&self) -> Result<Vec<BoundKernel>> {
        let plans = self.limits.iter().map(|limits| Plan::new(&self.built.graph, limits));
        plans.map(|plan| Ok(plan?.kernels().collect::<Vec<_>>())).collect::<Result<Vec<_>>>().map(|all| all.concat())
    }
}

fn comparisons(context: &Context, case: &Case, scope: Scope) -> Result<Vec<Comparison>> {
    let own = context.limits().clone();
    let mut families = vec![own.clone()];
    if scope == Scope::Any {
        families.push(own.for_cpu(!own.policy.for_cpu));
    }
    let in_windows =
        |limits: &KernelLimits| Some(KernelLimits { max_storage_binding_bytes: case.window_bytes?, ..limits.clone() });
    let in_place: Vec<_> = [own.clone()].into_iter().chain(in_windows(&own)).collect();
    let mut variants = families.clone();
    variants.extend(families.iter().filter_map(in_windows));
    variants.extend(families.iter().map(|limits| limits.grouped(Grouping::Every)));
    if scope == Scope::Any {
        variants.push(KernelLimits { min_subgroup_lanes: 0, ..own.for_cpu(true) });
    }
    let with_forced = |built: &Built| {
        let mut limits = variants.clone();
        if families.iter().any(|family| !family.policy.for_cpu) {
            limits.extend(forced(context, &built.graph, case.window_bytes));
        }
        limits
    };
    let mut comparisons = Vec::new();
    let stay = build(case, Operands::Stay)?;
    let limits = with_forced(&stay);
    comparisons.push(Comparison::new(stay, false, limits)?);
    for with_backward in [true, false] {
        let die = build(case, Operands::Die { with_backward })?;
        comparisons.push(Comparison::new(die, false, in_place.clone())?);
    }
    if context.limits().has_f16
        && let Some(half) = build_half(case)?
    {
        let limits = with_forced(&half);
        comparisons.push(Comparison::new(half, true, limits)?);
    }
    Ok(comparisons)
}

fn agreement(context: &Arc<Context>, comparisons: &[Comparison]) -> Result<Agreement> {
    let mut agreement = Agreement { single: Errors::default(), half: None };
    for Comparison { built, expected, is_half, limits } in comparisons {
        for limits in limits {
            let errors = compare_under(context, built, expected, limits)?;
            if *is_half {
                agreement.half = Some(errors.worst(agreement.half.unwrap_or_default()));
            } else {
                agreement.single = errors.worst(agreement.single);
            }
        }
    }
    Ok(agreement)
}

/// The limits under which a GPU would run each of `graph`'s variants, the last one also in windows and shared.
fn forced(context: &Context, graph: &Graph, window_bytes: Option<usize>) -> Vec<KernelLimits> {
    let own = context.limits();
    let gpu = own.under(Policy { for_cpu: false, emulates_matrix_units: own.is_software, ..own.policy.clone() });
    let tunings = graph.forced_tunings(&gpu).into_iter();
    let mut forced: Vec<_> = tunings.map(|tuning| gpu.tuned(tuning)).collect();
    // Those that come last by name multiply matrices, or use Winograd's algorithm.
    if let Some(last) = forced.last().cloned() {
        forced.extend(window_bytes.map(|bytes| KernelLimits { max_storage_binding_bytes: bytes, ..last.clone() }));
        forced.push(last.grouped(Grouping::Every));
    }
    forced
}

fn compare_under(context: &Arc<Context>, built: &Built, expected: &Values, limits: &KernelLimits) -> Result<Errors> {
    let plan = Plan::new(&built.graph, limits)?;
    let memory = Memory::new(context, &[&plan])?;
    let executor = Executor::new(context, built.graph.clone(), plan, &memory)?;
    for (id, data) in &built.values {
        match built.graph.tensor(*id).spec.dtype {
            _ if !executor.uses(*id) => {}
            // No input is in f16.
            DType::F32 | DType::F16 => executor.write(*id, &data.iter().map(|&v| v as f32).collect::<Vec<_>>())?,
            DType::U32 => executor.write(*id, &data.iter().map(|&v| v as u32).collect::<Vec<_>>())?,
        }
    }
    executor.run()?;
    let error = |id: TensorId| -> Result<f64> {
        let actual: Vec<f64> = match built.graph.tensor(id).spec.dtype {
            DType::F32 => executor.read::<f32>(id)?.into_iter().map(f64::from).collect(),
            DType::F16 => executor.read::<u16>(id)?.into_iter().map(|bits| f16::from_bits(bits).to_f64()).collect(),
            DType::U32 => executor.read::<u32>(id)?.into_iter().map(f64::from).collect(),
        };
        Ok(relative_error(&actual, expected.get(&built.graph, id).unwrap_or_default()))
    };
    let mut errors = Errors::default();
    for &output in &built.outputs {
        errors.forward = errors.forward.max(error(output)?);
    }
    for &gradient in &built.gradients {
        errors.backward = errors.backward.max(error(gradient)?);
    }
    Ok(errors)
}

/// Relative deviation of the twin's gradient from a central difference along a random direction of all its inputs.
/// `None` for a case without differentiable inputs or one that opted out.
///
/// # Errors
/// [`crate::Error::Shape`] if the graph does not build.
pub fn check_twin(case: &Case, step: f64) -> Result<Option<f64>> {
    let built = build(case, Operands::Stay)?;
    if built.inputs.is_empty() || case.no_central_difference.is_some() {
        return Ok(None);
    }
    let mut rng = Rng::new(2, 0);
    let value_of = |id: TensorId| built.values.iter().position(|(other, _)| *other == id);
    let directions: Vec<Vec<f64>> = built
        .inputs
        .iter()
        .map(|&id| (0..built.graph.tensor(id).spec.elements()).map(|_| rng.normal()).collect())
        .collect();
    let loss = |shift: f64| -> Result<f64> {
        let mut inputs = built.values.clone();
        for (&id, direction) in built.inputs.iter().zip(&directions) {
            if let Some(position) = value_of(id) {
                inputs[position].1.iter_mut().zip(direction).for_each(|(v, d)| *v += shift * d);
            }
        }
        let values = interpret(&built, &inputs)?;
        let dot = |a: TensorId, b: TensorId| -> f64 {
            let (a, b) = (values.get(&built.graph, a), values.get(&built.graph, b));
            a.unwrap_or_default().iter().zip(b.unwrap_or_default()).map(|(a, b)| a * b).sum()
        };
        Ok(built.seeds.iter().map(|&(output, seed)| dot(output, seed)).sum())
    };
    let difference = (loss(step)? - loss(-step)?) / (2.0 * step);
    let values = interpret(&built, &built.values)?;
    let mut derivative = 0.0;
    let mut scale: f64 = 0.0;
    for (&gradient, direction) in built.gradients.iter().zip(&directions) {
        let d = values.get(&built.graph, gradient).unwrap_or_default();
        derivative += d.iter().zip(direction).map(|(a, b)| a * b).sum::<f64>();
        scale += d.iter().map(|v| v * v).sum::<f64>();
    }
    Ok(Some((derivative - difference).abs() / scale.sqrt().max(1e-12)))
}

/// How far the binned Lovasz-softmax on a device is from the exact, sorted form in f64.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct LovaszAgreement {
    /// Difference of the losses.
    pub loss_difference: f64,
    /// Cosine of the angle between the gradients by the logits.
    pub gradient_cosine: f64,
}

impl LovaszAgreement {
    /// Loss within 1e-3, gradient cosine at least 0.999.
    pub fn acceptable(&self) -> bool {
        self.loss_difference <= 1e-3 && self.gradient_cosine >= 0.999
    }
}

/// Compares the binned Lovasz-softmax of random voxels on `context` with [`lovasz_softmax_exact`].
///
/// # Errors
/// [`crate::Error::Device`] if a kernel does not compile or run.
pub fn compare_lovasz(context: &Arc<Context>) -> Result<LovaszAgreement> {
    let (voxels, classes) = (6000, 11);
    let mut rng = Rng::new(5, 0);
    let labels: Vec<u32> = (0..voxels).map(|_| rng.below(classes) as u32).collect();
    let logits: Vec<f32> = (0..voxels * classes).map(|_| 2.0 * rng.normal() as f32).collect();

    let mut graph = Graph::new();
    let logits_id = graph.input("logits", TensorSpec::f32(&[voxels, classes]));
    let labels_id = graph.input("labels", TensorSpec::u32(&[voxels]));
    let weights = graph.constant("class_weights", &[classes], vec![1.0; classes])?;
    let (_, lovasz) = segmentation_loss(&mut graph, logits_id, labels_id, weights)?;
    let seed = graph.constant("d_lovasz", &[1], vec![1.0])?;
    let gradients = graph.backward(&[(lovasz, seed)], &[logits_id])?;
    let d_logits = gradients.of(&graph, logits_id).unwrap_or(logits_id);
    graph.keep(lovasz);
    graph.keep(d_logits);
    let plan = Plan::new(&graph, context.limits())?;
    let memory = Memory::new(context, &[&plan])?;
    let executor = Executor::new(context, graph, plan, &memory)?;
    executor.write(logits_id, &logits)?;
    executor.write(labels_id, &labels)?;
    executor.run()?;

    let exact_labels: Vec<usize> = labels.iter().map(|&label| label as usize).collect();
    let exact_logits: Vec<f64> = logits.iter().map(|&x| f64::from(x)).collect();
    let (exact, d_exact) = lovasz_softmax_exact(&exact_logits, &exact_labels, classes);
    let d_binned: Vec<f64> = executor.read::<f32>(d_logits)?.into_iter().map(f64::from).collect();
    let dot = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
    Ok(LovaszAgreement {
        loss_difference: (f64::from(executor.read::<f32>(lovasz)?[0]) - exact).abs(),
        gradient_cosine: dot(&d_binned, &d_exact) / (dot(&d_binned, &d_binned) * dot(&d_exact, &d_exact)).sqrt(),
    })
}
