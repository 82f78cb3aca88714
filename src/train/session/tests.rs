use super::*;
use crate::data::synth;
use crate::gpu::DeviceChoice;
use crate::graph::plan::Plan;
use crate::graph::tune::tune;
use crate::graph::{Grouping, KernelLimits};
use crate::models::{ARCHITECTURES, by_name};

/// That of the preset `demo`.
fn model() -> ModelConfig {
    ModelConfig::of(ARCHITECTURES[0], 1)
}

fn plan(shape: (usize, usize, [usize; 3]), limits: &KernelLimits) -> Result<Preflight> {
    plan_in(Precision::F32, shape, limits)
}

fn plan_in(
    precision: Precision,
    (batch, frames, size): (usize, usize, [usize; 3]),
    limits: &KernelLimits,
) -> Result<Preflight> {
    preflight(&model(), &BatchShape { batch, frames, size }, &step_in(precision), limits)
}

fn step_in(precision: Precision) -> StepConfig {
    let weights = LossWeights { cross_entropy: 1.0, lovasz: 1.0, terms: Terms::of([("kl", 0.005)]) };
    StepConfig { precision, weights, clip_norm: Some(1.0), ..StepConfig::default() }
}

#[test]
fn an_adapter_with_too_small_limits_is_told_before_anything_is_allocated() {
    let street = (1, 4, [128, 128, 8]);
    let sentence = |limits: &KernelLimits, code: i32| {
        let why = plan(street, limits).unwrap_err();
        assert_eq!(why.exit_code(), code, "{why}");
        let why = why.to_string();
        assert!(why.contains("data.crop") && !why.contains("mistake"), "{why}");
        why
    };
    plan(street, &KernelLimits::portable()).unwrap();
    for binding in [16 << 10, 256 << 10, 1 << 20] {
        let limits = KernelLimits { max_storage_binding_bytes: binding, ..KernelLimits::portable() };
        assert!(sentence(&limits, 4).contains("--device"), "{binding}");
    }
    let limits = KernelLimits { max_buffer_bytes: 1 << 20, ..KernelLimits::portable() };
    assert!(sentence(&limits, 5).contains("largest buffer"));
}

#[test]
fn activations_in_f16_take_half_and_need_an_adapter_that_has_them() {
    let street = (1, 16, [128, 128, 8]);
    let limits = KernelLimits { has_f16: true, max_buffer_bytes: 1 << 34, ..KernelLimits::portable() };
    let [single, half] =
        [Precision::F32, Precision::F16].map(|precision| plan_in(precision, street, &limits).unwrap().peak_bytes);
    assert!((0.45..0.65).contains(&(half as f64 / single as f64)), "{half} bytes instead of {single}");

    let why = plan_in(Precision::F16, street, &KernelLimits::portable()).unwrap_err();
    assert_eq!(why.exit_code(), 4, "{why}");
    assert!(why.to_string().contains("train.precision") && why.to_string().contains("--device"), "{why}");
}

#[test]
fn launches_share_dispatches_and_large_tensors_live_no_longer() {
    let gpu = KernelLimits {
        max_storage_binding_bytes: (1 << 31) - 4,
        max_buffer_bytes: 1 << 32,
        min_subgroup_lanes: 32,
        ..KernelLimits::portable()
    };
    // Bindings that hold a window of the frames only, too.
    let cpu = KernelLimits { max_buffer_bytes: 1 << 31, ..KernelLimits::portable().for_cpu(true) };
    for (limits, most) in [(gpu, 0.5), (cpu, 0.9)] {
        let shape = BatchShape { batch: 1, frames: 64, size: [128, 128, 8] };
        let [training, ..] = graphs(&model(), &shape, &step_in(Precision::F32)).unwrap();
        let [apart, together] =
            [Grouping::Off, Grouping::Small].map(|grouping| Plan::new(&training, &limits.grouped(grouping)).unwrap());
        let (few, many) = (together.steps.len(), apart.steps.len());
        assert!((few as f64) < most * many as f64, "{few} dispatches instead of {many}");
        let (more, less) = (together.arenas.iter().sum::<usize>(), apart.arenas.iter().sum::<usize>());
        assert!(more as f64 <= 1.01 * less as f64, "{more} bytes instead of {less}");
    }
}

#[test]
fn a_gpu_shares_the_dispatches_of_kernels_that_then_give_the_same() {
    let context = Context::open(&DeviceChoice::Best).unwrap();
    let shape = BatchShape { batch: 1, frames: 4, size: [16, 16, 4] };
    for precision in [Precision::F32, Precision::F16] {
        let graphs = graphs(&model(), &shape, &step_in(precision)).unwrap();
        let untried = context.limits().for_cpu(false).grouped(Grouping::Tried);
        let tuning = tune(&context, &graphs, &untried, |_, _| false).unwrap();
        let tried = untried.tuned(tuning);
        let dispatches = |grouping, limits: &KernelLimits| -> Vec<usize> {
            let limits = limits.grouped(grouping);
            graphs.iter().map(|graph| Plan::new(graph, &limits).unwrap().steps.len()).collect()
        };
        assert_eq!(dispatches(Grouping::Tried, &untried), dispatches(Grouping::Off, &tried));
        assert_eq!(dispatches(Grouping::Tried, &tried), dispatches(Grouping::Small, &tried));
    }
}

#[test]
fn extents_that_no_adapter_has_room_for_are_wrong_usage() {
    for shape in [(1 << 40, 64, [4096; 3]), (1, 2, [usize::MAX - 1; 3]), (1, 64, [4096; 3])] {
        let why = plan(shape, &KernelLimits::portable()).unwrap_err();
        assert!(why.exit_code() == 2 && why.to_string().contains("too large"), "{why}");
    }
    for shape in [(0, 4, [4; 3]), (1, 1, [4; 3]), (1, 65, [4; 3]), (1, 4, [4, 3, 4])] {
        assert_eq!(plan(shape, &KernelLimits::portable()).unwrap_err().exit_code(), 2);
    }
}

#[test]
fn what_exceeds_the_budget_is_told_in_fitting_units() {
    let preflight = plan((1, 2, [16, 16, 4]), &KernelLimits::portable()).unwrap();
    let why = preflight.check(1 << 20).unwrap_err();
    assert!(why.exit_code() == 5 && why.to_string().contains("train.memory_budget is 1.00 MiB"), "{why}");
    preflight.check(preflight.peak_bytes).unwrap();
    assert_eq!(amount(3 << 29), "1.50 GiB");
}

const SHAPE: BatchShape = BatchShape { batch: 1, frames: 2, size: [8, 8, 4] };

fn batches() -> [Batch; 2] {
    let grid = synth::grid(SHAPE.size, [0.4; 3]).unwrap();
    [1, 2].map(|seed| Batch::from_clips(&[synth::clip(&grid, seed, SHAPE.frames)], &grid).unwrap())
}

/// A model without noise, so that its gradients depend on nothing but the batch.
fn toy(step: &StepConfig) -> Session {
    let context = Context::open(&DeviceChoice::Best).unwrap();
    let model = ModelConfig::of(by_name("toy").unwrap(), 0);
    Session::new(&context, &model, &SHAPE, step, &[1.0; 11], 3).unwrap()
}

#[test]
fn several_batches_make_the_step_of_their_mean_gradient() {
    let twice = StepConfig { accumulate: 2, ..StepConfig::default() };
    let [first, second] = batches();
    let steps = |step: &StepConfig, batches: &[Batch]| {
        let mut session = toy(step);
        for _ in 0..3 {
            session.train_step(batches, 1e-2).unwrap();
        }
        // A buffer changes with every batch.
        let mut state = session.export().unwrap();
        state.parameters.retain(|tensor| tensor.name != "seen");
        (session.report().unwrap(), state)
    };
    // The mean of two equal numbers is that number, to the bit.
    let (alone, alone_state) = steps(&StepConfig::default(), std::slice::from_ref(&first));
    let (same, same_state) = steps(&twice, &[first.clone(), first.clone()]);
    assert_eq!(alone, same);
    assert!(alone_state == same_state);

    let first_step = |step: &StepConfig, batches: &[Batch]| {
        let mut session = toy(step);
        session.train_step(batches, 1e-2).unwrap();
        (session.report().unwrap().loss, session.export().unwrap().first_moments)
    };
    let (loss_1, of_1) = first_step(&StepConfig::default(), std::slice::from_ref(&first));
    let (loss_2, of_2) = first_step(&StepConfig::default(), std::slice::from_ref(&second));
    let (loss, of_both) = first_step(&twice, &[first.clone(), second]);
    assert!((loss - (loss_1 + loss_2) / 2.0).abs() < 1e-6, "{loss} of {loss_1} and {loss_2}");
    for ((a, b), both) in of_1.iter().zip(&of_2).zip(&of_both) {
        for ((a, b), both) in a.values.iter().zip(&b.values).zip(&both.values) {
            assert!((both - (a + b) / 2.0).abs() < 1e-6, "{}: {both} of {a} and {b}", of_both[0].name);
        }
    }
    assert_eq!(toy(&twice).train_step(&[first], 1e-2).unwrap_err().exit_code(), 2);
}

#[test]
fn what_no_gradient_reaches_is_kept_as_training_leaves_it() {
    let seen = |state: &TrainingState| {
        let tensor = state.parameters.iter().find(|tensor| tensor.name == "seen").unwrap();
        tensor.values.clone()
    };
    let [batch, _] = batches();
    let mut session = toy(&StepConfig::default());
    assert_eq!(seen(&session.export().unwrap()), [1.0; 4]);
    session.train_step(std::slice::from_ref(&batch), 1e-2).unwrap();
    // The mean of 1 and of the bias, which was 0 before the step.
    let state = session.export().unwrap();
    assert_eq!(seen(&state), [0.5; 4]);
    assert!(state.first_moments.iter().all(|tensor| tensor.name != "seen"));

    let mut resumed = toy(&StepConfig::default());
    resumed.import(&state).unwrap();
    for session in [&mut session, &mut resumed] {
        session.train_step(std::slice::from_ref(&batch), 1e-2).unwrap();
    }
    assert_eq!(session.export().unwrap(), resumed.export().unwrap());
    let lacking = state.parameters.iter().filter(|tensor| tensor.name != "seen").cloned().collect();
    let why = resumed.import(&TrainingState { parameters: lacking, ..state }).unwrap_err();
    assert!(why.to_string().contains("no tensor seen"), "{why}");
}

#[test]
fn a_step_that_is_skipped_leaves_what_no_gradient_reaches_as_it_was() {
    let [batch, _] = batches();
    let mut session = toy(&StepConfig::default());
    let mut state = session.export().unwrap();
    let bias = state.parameters.iter_mut().find(|tensor| tensor.name == "bias").unwrap();
    bias.values[..2].copy_from_slice(&[f32::NAN, f32::INFINITY]);
    session.import(&state).unwrap();
    session.train_step(&[batch], 1e-2).unwrap();
    assert!(!session.report().unwrap().finite);
    let after = session.export().unwrap();
    let seen = after.parameters.iter().find(|tensor| tensor.name == "seen").unwrap();
    // The mean of 1 and of what is finite of the bias.
    assert_eq!(seen.values, [1.0, 1.0, 0.5, 0.5]);
}

#[test]
fn what_is_looked_at_is_the_moving_average() {
    let averaged = StepConfig { ema: 0.5, ..StepConfig::default() };
    let [batch, _] = batches();
    let mut session = toy(&averaged);
    for _ in 0..4 {
        session.train_step(std::slice::from_ref(&batch), 1e-2).unwrap();
    }
    let state = session.export().unwrap();
    let averages = state.averages.clone().unwrap();
    assert_ne!(averages, state.parameters);
    assert_eq!(session.inference().export().unwrap(), averages);

    // The same as a model that has these parameters, and another than that of those that are trained.
    let scored_with = |parameters: &[NamedTensor]| {
        let context = Context::open(&DeviceChoice::Best).unwrap();
        let mut model = Inference::new(&context, &ModelConfig::of(by_name("toy").unwrap(), 0), &SHAPE).unwrap();
        model.import(parameters, 4).unwrap();
        model.evaluate(&batch).unwrap().cross_entropy
    };
    let score = session.inference().evaluate(&batch).unwrap().cross_entropy;
    assert_eq!(score, scored_with(&averages));
    assert_ne!(score, scored_with(&state.parameters));

    // Goes on to the same bits, and from a run without an average with one of what there is.
    let mut resumed = toy(&averaged);
    resumed.import(&state).unwrap();
    assert_eq!(resumed.export().unwrap(), state);
    for session in [&mut session, &mut resumed] {
        session.train_step(std::slice::from_ref(&batch), 1e-2).unwrap();
    }
    assert_eq!(session.export().unwrap(), resumed.export().unwrap());
    resumed.import(&TrainingState { averages: None, ..state.clone() }).unwrap();
    assert_eq!(resumed.export().unwrap().averages, Some(state.parameters));
}
