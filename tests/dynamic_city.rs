//! DynamicCity as a whole: whether it learns.

#![allow(clippy::unwrap_used)]

use sep4d::data::batch::Batch;
use sep4d::data::synth;
use sep4d::gpu::{Context, DeviceChoice};
use sep4d::models::dynamic_city::DYNAMIC_CITY;
use sep4d::models::{BatchShape, ModelConfig, Terms};
use sep4d::train::metrics::Confusion;
use sep4d::train::session::{LossWeights, Session, StepConfig};

#[test]
fn a_clip_is_learnt_by_heart() {
    let shape = BatchShape { batch: 1, frames: 8, size: [16, 16, 4] };
    let grid = synth::grid(shape.size, [1.6, 1.6, 0.75]).unwrap();
    let batch = Batch::from_clips(&[synth::clip(&grid, 3, shape.frames)], shape.size).unwrap();
    let narrow = [("model.query_channels", 16), ("model.hidden", 16), ("model.dropout", 0)];
    let config = ModelConfig::of(&DYNAMIC_CITY, 1).with(&narrow).unwrap();
    let weights = LossWeights { cross_entropy: 1.0, lovasz: 1.0, terms: Terms::of([("kl", 0.0015)]) };
    let step = StepConfig { weights, ..StepConfig::default() };
    let context = Context::open(&DeviceChoice::Best).unwrap();
    let mut session = Session::new(&context, &config, &shape, &step, &[1.0; 11], 0).unwrap();
    let mut scores = Vec::new();
    for steps in 1..=400 {
        session.train_step(std::slice::from_ref(&batch), if steps < 250 { 3e-3 } else { 1e-3 }).unwrap();
        if steps % 50 == 0 {
            let confusion = session.inference().evaluate(&batch).unwrap().confusion;
            let mut all = Confusion::new(11);
            confusion.chunks(11 * 11).for_each(|frame| all.add(frame));
            let miou = all.miou().unwrap();
            println!("step {steps}: loss {}, mIoU {miou}", session.report().unwrap().loss);
            if miou >= 0.99 {
                return;
            }
            scores.push(miou);
        }
    }
    panic!("{scores:?}");
}
