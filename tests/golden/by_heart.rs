//! Whether a model learns one clip by heart.

use sep4d::data::batch::Batch;
use sep4d::data::synth;
use sep4d::train::metrics::Confusion;
use sep4d::train::session::Session;

/// Trains on `batch`, of generated clips, alone until its mIoU is 99 %; false if it is not after 300 steps.
pub fn learns_by_heart(session: &mut Session, batch: &Batch, learning_rate: f32) -> bool {
    (0..12).any(|_| {
        (0..25).for_each(|_| session.train_step(std::slice::from_ref(batch), learning_rate).unwrap());
        let (report, scores) = (session.report().unwrap(), session.inference().evaluate(batch).unwrap());
        let classes = synth::CLASSES.len();
        let mut confusion = Confusion::new(classes);
        scores.confusion.chunks(classes * classes).for_each(|frame| confusion.add(frame));
        let miou = confusion.miou().unwrap();
        println!("step {}: loss {}, mIoU {miou}", session.steps(), report.loss);
        miou >= 0.99
    })
}
