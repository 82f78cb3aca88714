//! Scores and reconstructions of held-out clips.

use std::time::Instant;

use super::events::{DecodeRequest, DecodedClip, ReconstructedClip};
use super::inference::{BatchScores, Inference};
use super::metrics::{Confusion, Tally};
use crate::Result;
use crate::data::{Batch, Clip, Dataset};

/// At most `count` of `0..len`, evenly spaced and always the same.
pub fn evenly_spaced(len: usize, count: usize) -> Vec<usize> {
    let count = count.min(len);
    (0..count).map(|i| i * len / count).collect()
}

/// Puts `clips` through the model and adds up what it confuses.
///
/// Asks `proceed(done)` before each batch; `None` if it says no.
///
/// # Errors
/// [`Data`](crate::Error::Data) if a clip cannot be read, [`Device`](crate::Error::Device) if the device fails.
pub fn evaluate(
    model: &mut Inference,
    dataset: &Dataset,
    clips: &[usize],
    mut proceed: impl FnMut(usize) -> bool,
) -> Result<Option<Tally>> {
    let (batch, classes) = (model.shape().batch, dataset.classes().len());
    let per_clip = dataset.frames_per_clip() * classes * classes;
    let mut tally = Tally::new(classes, dataset.frames_per_clip());
    for (i, part) in clips.chunks(batch).enumerate() {
        if !proceed(i * batch) {
            return Ok(None);
        }
        let read = part.iter().map(|&clip| dataset.clip(clip)).collect::<Result<Vec<Clip>>>()?;
        let BatchScores { confusion, codes, .. } = model.evaluate(&filled_batch(&read, batch, dataset)?)?;
        part.iter().zip(confusion.chunks(per_clip)).for_each(|(&clip, counts)| tally.add_clip(clip, counts));
        // Without those of the clips that fill up the batch.
        codes.iter().for_each(|(latent, codes)| tally.add_codes(latent, &codes[..codes.len() / batch * part.len()]));
    }
    Ok(Some(tally))
}

/// A batch of exactly `batch` clips, the last of `clips` repeated as often as needed.
fn filled_batch(clips: &[Clip], batch: usize, dataset: &Dataset) -> Result<Batch> {
    let mut clips = clips.to_vec();
    if let Some(last) = clips.last().cloned() {
        clips.resize(batch.max(clips.len()), last);
    }
    dataset.batch(&clips)
}

/// Reconstructs clip `index` of `dataset` from its latents as they are expected to be.
///
/// # Errors
/// [`Usage`](crate::Error::Usage) if there is no such clip, else as for [`evaluate`].
pub fn reconstruct(model: &mut Inference, dataset: &Dataset, index: usize) -> Result<ReconstructedClip> {
    let start = Instant::now();
    let clip = dataset.clip(index)?;
    let size = dataset.grid().size;
    let latents = model.encode(&dataset.batch(std::slice::from_ref(&clip))?)?;
    let likely = model.decode(&latents.iter().map(|latent| &latent.mu).collect::<Vec<_>>())?;
    let labels: Vec<u8> = likely.iter().map(|likely| likely.classes()[0]).collect();
    let confusion = confusions(&clip, &labels, dataset.classes().len());
    Ok(ReconstructedClip {
        step: model.steps(),
        clip: index,
        sequence: clip.sequence,
        first_frame: clip.first_frame,
        frame_step: clip.frame_step,
        frames: clip.frames.len(),
        size,
        truth: clip.frames.iter().flat_map(|frame| frame.labels.iter().copied()).collect(),
        observed: clip.frames.iter().flat_map(|frame| frame.observed.iter().copied()).collect(),
        labels,
        likely,
        scores: confusion.iter().map(Confusion::scores).collect(),
        confusion,
        latents,
        times_secs: clip.times_secs,
        poses: clip.poses,
        seconds: start.elapsed().as_secs_f64(),
    })
}

/// What `labels` (`[T, X, Y, Z]`) confuse in the observed voxels of each frame of `clip`, among `classes`.
pub fn confusions(clip: &Clip, labels: &[u8], classes: usize) -> Vec<Confusion> {
    let voxels = clip.frames.first().map_or(1, |frame| frame.labels.len().max(1));
    let frames = clip.frames.iter().zip(labels.chunks(voxels));
    frames
        .map(|(frame, guesses)| {
            let mut confusion = Confusion::new(classes);
            let voxels = frame.labels.iter().zip(guesses).zip(&frame.observed);
            voxels
                .filter(|(_, observed)| **observed)
                .for_each(|((&truth, &guess), _)| confusion.count_one(truth, guess));
            confusion
        })
        .collect()
}

/// Decodes latents.
///
/// # Errors
/// As for [`Inference::decode`].
pub fn decode(model: &mut Inference, request: &DecodeRequest) -> Result<DecodedClip> {
    let start = Instant::now();
    let likely = model.decode(&request.latents)?;
    Ok(DecodedClip {
        id: request.id,
        frames: model.shape().frames,
        size: model.shape().size,
        labels: likely.iter().map(|likely| likely.classes()[0]).collect(),
        likely,
        seconds: start.elapsed().as_secs_f64(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clips_are_spaced_evenly() {
        assert_eq!(evenly_spaced(10, 4), [0, 2, 5, 7]);
        assert_eq!(evenly_spaced(3, 8), [0, 1, 2]);
        assert_eq!(evenly_spaced(0, 8), [0; 0]);
    }
}
