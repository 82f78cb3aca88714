//! Training with activations in f16: it learns what f32 learns, and the scale of the loss keeps its gradients finite.

use std::sync::Arc;

use sep4d::data::batch::Batch;
use sep4d::data::synth;
use sep4d::gpu::{Context, DeviceChoice};
use sep4d::models::BatchShape;
use sep4d::train::config::{Preset, RunConfig};
use sep4d::train::session::{LossScale, Precision, Session, StepConfig, TrainingState};

const SHAPE: BatchShape = BatchShape { batch: 1, frames: 4, size: [16, 16, 8] };

/// `None` where the adapter has no 16-bit floats.
fn context() -> Option<Arc<Context>> {
    Some(Context::open(&DeviceChoice::Best).unwrap()).filter(|context| context.limits().has_f16)
}

fn session(context: &Arc<Context>, precision: Precision) -> Session {
    let config = RunConfig::preset(Preset::Demo, Some(SHAPE.frames));
    let step = StepConfig { precision, ..config.step() };
    let (model, weights) = (config.model.for_data(true).unwrap(), vec![1.0; 11]);
    Session::new(context, &model, &SHAPE, &step, &weights, 5).unwrap()
}

fn batch() -> Batch {
    let grid = synth::grid(SHAPE.size, [0.8, 0.8, 0.375]).unwrap();
    Batch::from_clips(&[synth::clip(&grid, 3, SHAPE.frames)], &grid).unwrap()
}

#[test]
fn the_first_steps_are_those_of_f32() {
    let Some(context) = context() else { return };
    let batch = batch();
    let [mut single, mut half] = [Precision::F32, Precision::F16].map(|precision| session(&context, precision));
    let (planned, whole) = (half.preflight().peak_bytes, single.preflight().peak_bytes);
    // What a CPU adapter keeps in images is in f32 either way.
    assert!(planned < whole * 5 / 6, "{planned} of {whole} bytes");
    for step in 0..5 {
        let [a, b] = [&mut single, &mut half].map(|session| {
            session.train_step(std::slice::from_ref(&batch), 1e-3).unwrap();
            session.report().unwrap()
        });
        println!("{a:?}\n{b:?}");
        assert!(b.finite && b.skipped == 0 && a.loss_scale == 1.0 && b.loss_scale > 1.0);
        let close = |what: &str, a: f32, b: f32| assert!((a - b).abs() <= 1e-2 * a, "step {step}: {what} {b}, not {a}");
        close("loss", a.loss, b.loss);
        close("gradient norm", a.gradient_norm, b.gradient_norm);
    }
}

#[test]
fn a_scale_that_is_too_large_halves_until_the_gradients_are_finite() {
    let Some(context) = context() else { return };
    let batch = batch();
    let mut session = session(&context, Precision::F16);
    let start = session.export().unwrap();
    let too_large = 1.0e9_f32.log2().ceil().exp2();
    let loss_scale = Some(LossScale { scale: too_large, good_steps: 7 });
    session.import(&TrainingState { loss_scale, ..start.clone() }).unwrap();

    session.train_step(std::slice::from_ref(&batch), 1e-3).unwrap();
    let report = session.report().unwrap();
    assert!(!report.finite && report.skipped == 0 && report.loss_scale == too_large, "{report:?}");
    let state = session.export().unwrap();
    assert_eq!(state.loss_scale, Some(LossScale { scale: too_large / 2.0, good_steps: 0 }));
    assert!(state.parameters == start.parameters && state.first_moments == start.first_moments);

    let mut steps = 1;
    while !session.report().unwrap().finite {
        session.train_step(std::slice::from_ref(&batch), 1e-3).unwrap();
        steps += 1;
        assert!(steps < 30, "{:?}", session.report());
    }
    let state = session.export().unwrap();
    println!("finite in step {steps}: {:?}", state.loss_scale);
    assert_eq!((state.skipped, state.loss_scale.unwrap().good_steps), (0, 1));
    assert!(state.parameters != start.parameters);
}

#[test]
fn what_no_scale_can_cure_counts_as_skipped() {
    let Some(context) = context() else { return };
    let batch = batch();
    let mut session = session(&context, Precision::F16);
    let mut state = session.export().unwrap();
    state.parameters[0].values[0] = f32::NAN;
    state.loss_scale = Some(LossScale { scale: 2.0, good_steps: 0 });
    session.import(&state).unwrap();
    let skipped = [0, 1, 2].map(|_| {
        session.train_step(std::slice::from_ref(&batch), 1e-3).unwrap();
        session.report().unwrap().skipped
    });
    assert_eq!(skipped, [0, 1, 2]);
}

#[test]
fn a_run_may_change_its_precision() {
    let Some(context) = context() else { return };
    let [mut single, mut half] = [Precision::F32, Precision::F16].map(|precision| session(&context, precision));
    let start = half.export().unwrap().loss_scale;
    assert!(start.is_some());
    single.import(&half.export().unwrap()).unwrap();
    assert_eq!(single.export().unwrap().loss_scale, None);
    half.import(&single.export().unwrap()).unwrap();
    assert_eq!(half.export().unwrap().loss_scale, start);
}
