//! OccSora's tokenizer: against the independent PyTorch implementation in `tests/golden`, and as a whole.

#![allow(clippy::unwrap_used)]

use sep4d::data::batch::{Batch, from_blocked};
use sep4d::data::synth;
use sep4d::gpu::{Context, DeviceChoice};
use sep4d::models::occ_sora::OCC_SORA;
use sep4d::models::{BatchShape, LatentKind, ModelConfig, Terms};
use sep4d::train::metrics::Confusion;
use sep4d::train::session::{LossWeights, Session, StepConfig};

/// A clip of a small town, and a model of the preset's widths that starts from a seed.
fn begun(preset: usize, frames: usize, weights: LossWeights) -> (Batch, Session) {
    let size = [16, 16, 4];
    let grid = synth::grid(size, [1.6, 1.6, 0.75]).unwrap();
    let batch = Batch::from_clips(&[synth::clip(&grid, 3, frames)], size).unwrap();
    let context = Context::open(&DeviceChoice::Best).unwrap();
    let step = StepConfig { weights, weight_decay: 0.01, clip_norm: Some(35.0), ..StepConfig::default() };
    let shape = BatchShape { batch: 1, frames, size };
    let session = Session::new(&context, &ModelConfig::of(&OCC_SORA, preset), &shape, &step, &[1.0; 11], 3);
    (batch, session.unwrap())
}

fn as_released() -> LossWeights {
    LossWeights { cross_entropy: 10.0, lovasz: 1.0, terms: Terms::of([("embedding", 1.0)]) }
}

#[test]
fn one_clip_is_learnt_by_heart() {
    let (batch, mut session) = begun(1, 8, as_released());
    let learnt = (0..8).any(|_| {
        (0..25).for_each(|_| session.train_step(std::slice::from_ref(&batch), 2e-3).unwrap());
        let (report, scores) = (session.report().unwrap(), session.inference().evaluate(&batch).unwrap());
        let mut confusion = Confusion::new(11);
        scores.confusion.chunks(121).for_each(|frame| confusion.add(frame));
        let miou = confusion.miou().unwrap();
        println!("step {}: loss {}, mIoU {miou}", session.steps(), report.loss);
        miou >= 0.99
    });
    assert!(learnt);
}

#[test]
fn codes_are_numbers_that_decode_to_what_was_reconstructed() {
    // A clip whose last frame is repeated.
    let (mut batch, mut session) = begun(0, 12, as_released());
    batch.observed.fill(1);
    for _ in 0..5 {
        session.train_step(std::slice::from_ref(&batch), 1e-3).unwrap();
    }
    let latents = session.inference().encode(&batch).unwrap();
    let [codes] = &latents[..] else { panic!("{latents:?}") };
    let LatentKind::Code { codes: all, .. } = codes.spec.kind else { panic!("{codes:?}") };
    assert_eq!((codes.shape.as_slice(), codes.logvar.len()), (&[1, 2, 2, 2, 1][..], 0));
    assert!(codes.mu.iter().all(|code| code.fract() == 0.0 && (0.0..all as f32).contains(code)), "{:?}", codes.mu);

    let scores = session.inference().evaluate(&batch).unwrap();
    let numbers: Vec<f32> = scores.codes[0].1.iter().map(|&code| code as f32).collect();
    assert_eq!((scores.codes[0].0, &numbers), (codes.spec, &codes.mu));

    let likely = session.inference().decode(&[&codes.mu]).unwrap();
    let mut confusion = vec![0; 12 * 121];
    let truth = batch.labels.chunks(16 * 16 * 4).flat_map(|frame| from_blocked(frame, batch.size));
    for (i, (truth, likely)) in truth.zip(&likely).enumerate() {
        confusion[(i / 1024 * 11 + usize::from(truth)) * 11 + usize::from(likely.classes()[0])] += 1;
    }
    assert_eq!(scores.confusion, confusion);
    let other: Vec<f32> = codes.mu.iter().map(|code| (code + 1.0) % all as f32).collect();
    assert_ne!(session.inference().decode(&[&other]).unwrap(), likely);
}
