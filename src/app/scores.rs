//! What is scored, over which frames, and where it is worst.

use super::state::State;
use crate::train::metrics::Confusion;

/// What figures are over.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Scope {
    /// The frame in view.
    Frame,
    /// All frames of the clip in view.
    #[default]
    Clip,
    /// The last validation.
    Validation,
}

impl Scope {
    /// All of them, from narrow to wide.
    pub const ALL: [Scope; 3] = [Scope::Frame, Scope::Clip, Scope::Validation];

    /// What switches call it.
    pub fn name(self) -> &'static str {
        match self {
            Scope::Frame => "Frame",
            Scope::Clip => "Clip",
            Scope::Validation => "Validation",
        }
    }

    /// What sentences call it.
    pub fn phrase(self) -> &'static str {
        match self {
            Scope::Frame => "the frame in view",
            Scope::Clip => "the clip in view",
            Scope::Validation => "the last validation",
        }
    }

    /// What was taken for what, if anything was scored.
    pub fn confusion(self, state: &State) -> Option<Confusion> {
        let frames = &state.shown.as_ref()?.model.as_ref().map(|model| model.confusion.as_slice());
        match self {
            Scope::Frame => frames.and_then(|frames| frames.get(state.frame()).cloned()),
            Scope::Clip => frames.and_then(sum),
            Scope::Validation => state.validation.as_ref().map(|validation| validation.confusion.clone()),
        }
        .filter(|confusion| confusion.classes() > 0)
    }
}

/// All of `parts` together; `None` if there are none.
pub fn sum(parts: &[Confusion]) -> Option<Confusion> {
    let mut total = parts.first()?.clone();
    parts[1..].iter().for_each(|part| total.add(part.counts()));
    Some(total)
}

/// A frame of a clip of the watched split.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    /// Number of the clip.
    pub clip: usize,
    /// Number of the frame within it.
    pub frame: usize,
}

/// The frame at which `badness` is highest: of the validated clips in the scope of a validation that told them, else of the
/// clip in view. Frames without a badness are left out; the first of equals wins.
pub fn worst(state: &State, scope: Scope, badness: impl Fn(&Confusion) -> Option<f64>) -> Option<Place> {
    let validated =
        state.validation.as_ref().filter(|validation| scope == Scope::Validation && !validation.clips.is_empty());
    let clips: Vec<(usize, &[Confusion])> = match (validated, &state.shown) {
        (Some(validation), _) => validation.clips.iter().map(|clip| (clip.clip, clip.confusion.as_slice())).collect(),
        (None, Some(shown)) => shown.model.iter().map(|model| (shown.clip, model.confusion.as_slice())).collect(),
        (None, None) => Vec::new(),
    };
    let frames = clips.iter().flat_map(|(clip, frames)| {
        frames.iter().enumerate().map(|(frame, confusion)| (Place { clip: *clip, frame }, confusion))
    });
    let mut worst: Option<(Place, f64)> = None;
    for (place, confusion) in frames {
        if let Some(badness) = badness(confusion)
            && worst.is_none_or(|(_, most)| badness > most)
        {
            worst = Some((place, badness));
        }
    }
    worst.map(|(place, _)| place)
}

/// How far a frame is from a perfect mIoU.
pub fn lack_of_miou(confusion: &Confusion) -> Option<f64> {
    confusion.miou().map(|miou| 1.0 - miou)
}

#[cfg(test)]
mod tests {
    use super::super::panels::sample;
    use super::*;

    #[test]
    fn the_sum_of_frames_is_the_clip() {
        let state = sample::state();
        let frames = &state.shown.as_ref().unwrap().model.as_ref().unwrap().confusion;
        let clip = Scope::Clip.confusion(&state).unwrap();
        for class in 0..clip.classes() {
            assert_eq!(clip.truth(class), frames.iter().map(|frame| frame.truth(class)).sum::<u64>());
        }
        assert!(sum(&[]).is_none());
    }

    #[test]
    fn scopes_without_scores_have_none() {
        let mut state = sample::state();
        state.validation = None;
        assert!(Scope::Validation.confusion(&state).is_none() && Scope::Frame.confusion(&state).is_some());
        state.shown.as_mut().unwrap().model = None;
        assert!(Scope::Frame.confusion(&state).is_none() && Scope::Clip.confusion(&state).is_none());
        assert_eq!(worst(&state, Scope::Clip, lack_of_miou), None);
    }

    #[test]
    fn the_worst_frame_is_looked_for_where_the_scope_says() {
        let mut state = sample::state();
        let model = state.shown.as_ref().unwrap().model.as_ref().unwrap();
        let lowest = |frames: &[Confusion]| {
            let score = |t: usize| frames[t].miou().unwrap();
            (0..frames.len()).min_by(|&a, &b| score(a).total_cmp(&score(b))).unwrap()
        };
        let frame = lowest(&model.confusion);
        assert_eq!(worst(&state, Scope::Clip, lack_of_miou), Some(Place { clip: 2, frame }));
        let clips = &state.validation.as_ref().unwrap().clips;
        let found = worst(&state, Scope::Validation, lack_of_miou).unwrap();
        let score = |place: Place| {
            clips.iter().find(|clip| clip.clip == place.clip).unwrap().confusion[place.frame].miou().unwrap()
        };
        for clip in clips {
            for frame in 0..clip.confusion.len() {
                assert!(score(found) <= score(Place { clip: clip.clip, frame }));
            }
        }
        // A validation read from a file tells no clips: the clip in view is all there is.
        state.validation.as_mut().unwrap().clips.clear();
        assert_eq!(worst(&state, Scope::Validation, lack_of_miou), Some(Place { clip: 2, frame }));
    }

    #[test]
    fn frames_with_nothing_to_score_are_never_the_worst() {
        let mut state = sample::state();
        let model = state.shown.as_mut().unwrap().model.as_mut().unwrap();
        let classes = model.confusion[0].classes();
        for (t, confusion) in model.confusion.iter_mut().enumerate() {
            *confusion = Confusion::new(classes);
            if t == 3 {
                confusion.count_one(1, 2);
            }
        }
        assert_eq!(worst(&state, Scope::Clip, lack_of_miou), Some(Place { clip: 2, frame: 3 }));
        assert_eq!(worst(&state, Scope::Clip, |c| c.class_iou(5)), None);
    }
}
