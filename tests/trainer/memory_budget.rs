//! Training under a memory budget: it fits, and it learns the same.

use sep4d::data::batch::Batch;
use sep4d::data::synth;
use sep4d::gpu::{Context, DeviceChoice};
use sep4d::models::{BatchShape, ModelConfig, by_name};
use sep4d::train::config::{Preset, RunConfig};
use sep4d::train::session::{Session, StepConfig, preflight};

#[test]
fn a_budgeted_run_fits_and_takes_the_same_steps() {
    let config = RunConfig::preset(Preset::Demo, Some(4));
    takes_the_same_steps(&config, &BatchShape { batch: 1, frames: 4, size: [16, 16, 8] }, 0.75, 0.75);
}

#[test]
fn running_averages_move_once_a_step_however_often_what_they_average_is_computed() {
    let mut config = RunConfig::preset(Preset::Tiny, Some(16));
    config.model = ModelConfig::of(by_name("occ_sora").unwrap(), 0);
    // The shortest clips of which convolutions are computed anew.
    takes_the_same_steps(&config, &BatchShape { batch: 1, frames: 16, size: [32, 16, 8] }, 0.0, 0.9);
}

/// Under a budget of the part `budget` of the memory that it takes unhindered, of which it then needs the part `most`.
fn takes_the_same_steps(config: &RunConfig, shape: &BatchShape, budget: f64, most: f64) {
    let context = Context::open(&DeviceChoice::Best).unwrap();
    let grid = synth::grid(shape.size, [0.8, 0.8, 0.375]).unwrap();
    let batch = Batch::from_clips(&[synth::clip(&grid, 3, shape.frames)], &grid).unwrap();
    let weights = vec![1.0; config.model.classes];

    let free = config.step();
    let whole = preflight(&config.model, shape, &free, context.limits()).unwrap();
    let tight = StepConfig { memory_budget: Some((budget * whole.peak_bytes as f64) as usize), ..free.clone() };
    let trained = [&free, &tight].map(|step| {
        let mut session = Session::new(&context, &config.model, shape, step, &weights, 5).unwrap();
        let reports = [0, 1, 2].map(|_| {
            session.train_step(std::slice::from_ref(&batch), 1e-3).unwrap();
            session.report().unwrap()
        });
        (session.preflight().clone(), reports, session.export().unwrap())
    });
    let [(_, reports, state), (small, small_reports, small_state)] = trained;
    let taken = small.peak_bytes as f64 / whole.peak_bytes as f64;
    assert!(taken <= most, "{taken} of {} bytes", whole.peak_bytes);
    assert!(small.flops_per_step > whole.flops_per_step, "something must have been recomputed");
    assert!(small.flops_per_step < whole.flops_per_step * 3 / 2, "no more than a forward pass");
    assert_eq!(reports, small_reports);
    assert!(state == small_state, "gradients differ");
}

#[test]
fn what_cannot_fit_is_told_with_the_least_it_takes() {
    let config = RunConfig::preset(Preset::Tiny, None);
    let shape = BatchShape { batch: 1, frames: 2, size: [16, 16, 8] };
    let limits = sep4d::graph::KernelLimits::portable();
    let step = StepConfig { memory_budget: Some(64 << 10), ..config.step() };
    let least = preflight(&config.model, &shape, &step, &limits).unwrap();
    let whole = preflight(&config.model, &shape, &config.step(), &limits).unwrap();
    assert!(least.peak_bytes < whole.peak_bytes);
    let why = least.check(64 << 10).unwrap_err();
    assert!(why.exit_code() == 5 && why.to_string().contains("train.memory_budget is 0.06 MiB"), "{why}");
}
