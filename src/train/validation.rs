//! Scores and reconstructions of held-out clips.

use super::events::ReconstructedClip;
use super::metrics::{Confusion, Tally};
use super::session::Session;
use crate::data::{Batch, Clip, Dataset};
use crate::{Error, Result};

/// At most `count` of `0..len`, evenly spaced and always the same.
pub fn evenly_spaced(len: usize, count: usize) -> Vec<usize> {
    let count = count.min(len);
    (0..count).map(|i| i * len / count).collect()
}

/// Puts `clips` through the model in batches of `batch` and adds up what it confuses.
///
/// Asks `proceed(done)` before each batch; `None` if it says no.
///
/// # Errors
/// [`Error::Data`] if a clip cannot be read, [`Error::Device`] if the device fails.
pub fn evaluate(
    session: &mut Session,
    dataset: &Dataset,
    clips: &[usize],
    batch: usize,
    mut proceed: impl FnMut(usize) -> bool,
) -> Result<Option<Tally>> {
    let classes = dataset.classes().len();
    let per_clip = dataset.frames_per_clip() * classes * classes;
    let mut tally = Tally::new(classes, dataset.frames_per_clip());
    for (i, part) in clips.chunks(batch).enumerate() {
        if !proceed(i * batch) {
            return Ok(None);
        }
        let read = part.iter().map(|&clip| dataset.clip(clip)).collect::<Result<Vec<Clip>>>()?;
        let confusion = session.reconstruct(&filled_batch(&read, batch, dataset)?)?.confusion;
        confusion.chunks(per_clip).take(part.len()).for_each(|counts| tally.add_clip(counts));
    }
    Ok(Some(tally))
}

/// A batch of exactly `batch` clips, the last of `clips` repeated as often as needed.
///
/// # Errors
/// [`Error::Shape`] if `clips` is empty.
pub fn filled_batch(clips: &[Clip], batch: usize, dataset: &Dataset) -> Result<Batch> {
    let mut clips = clips.to_vec();
    if let Some(last) = clips.last().cloned() {
        clips.resize(batch.max(clips.len()), last);
    }
    Batch::from_clips(&clips, dataset.grid().size)
}

/// Reconstructs clip `index` of `dataset`.
///
/// # Errors
/// [`Error::Usage`] if there is no such clip, else as for [`evaluate`].
pub fn reconstruct(session: &mut Session, dataset: &Dataset, index: usize, batch: usize) -> Result<ReconstructedClip> {
    if index >= dataset.len() {
        return Err(Error::Usage(format!("there is no clip {index}; the split has {}", dataset.len())));
    }
    let clip = dataset.clip(index)?;
    let result = session.reconstruct(&filled_batch(std::slice::from_ref(&clip), batch, dataset)?)?;
    let classes = dataset.classes().len();
    let scores = result.confusion.chunks(classes * classes).take(clip.frames.len()).map(|counts| {
        let mut confusion = Confusion::new(classes);
        confusion.add(counts);
        confusion.scores()
    });
    Ok(ReconstructedClip {
        step: session.steps(),
        clip: index,
        sequence: clip.sequence,
        first_frame: clip.first_frame,
        frames: clip.frames.len(),
        size: dataset.grid().size,
        truth: clip.frames.iter().flat_map(|frame| frame.labels.iter().copied()).collect(),
        observed: clip.frames.iter().flat_map(|frame| frame.observed.iter().copied()).collect(),
        labels: result.labels.into_iter().take(clip.frames.len() * dataset.grid().voxels()).collect(),
        scores: scores.collect(),
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
