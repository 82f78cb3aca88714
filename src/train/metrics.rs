//! Intersection over union from confusion counts, as DynamicCity counts it, and how codes are used.

use serde::{Deserialize, Serialize};

use crate::models::{LatentKind, LatentSpec};

/// How often each class was predicted as each other, over observed voxels. Class 0 is free space.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Confusion {
    classes: usize,
    /// `[K, K]`: row truth, column prediction.
    counts: Vec<u64>,
}

impl Confusion {
    /// Nothing counted yet, for `classes` classes.
    pub fn new(classes: usize) -> Self {
        Confusion { classes, counts: vec![0; classes * classes] }
    }

    /// K, the number of classes.
    pub fn classes(&self) -> usize {
        self.classes
    }

    /// `[K, K]`, row truth, column prediction.
    pub fn counts(&self) -> &[u64] {
        &self.counts
    }

    /// Voxels of class `truth` that were predicted as `prediction`.
    pub fn count(&self, truth: usize, prediction: usize) -> u64 {
        self.counts[truth * self.classes + prediction]
    }

    /// Counts one voxel; a class that is none counts nowhere.
    pub fn count_one(&mut self, truth: u8, prediction: u8) {
        let (truth, prediction) = (usize::from(truth), usize::from(prediction));
        if truth < self.classes && prediction < self.classes {
            self.counts[truth * self.classes + prediction] += 1;
        }
    }

    /// Adds counts `[K, K]`, row truth, column prediction.
    pub fn add(&mut self, counts: &[u64]) {
        self.counts.iter_mut().zip(counts).for_each(|(sum, count)| *sum += count);
    }

    /// Voxels of class `class` in the ground truth.
    pub fn truth(&self, class: usize) -> u64 {
        (0..self.classes).map(|p| self.count(class, p)).sum()
    }

    /// IoU of one class, `tp / (tp + fp + fn)`; `None` if the ground truth has no voxel of it.
    pub fn class_iou(&self, class: usize) -> Option<f64> {
        let truth = self.truth(class);
        let predicted: u64 = (0..self.classes).map(|t| self.count(t, class)).sum();
        let hit = self.count(class, class);
        (truth > 0).then(|| hit as f64 / (truth + predicted - hit) as f64)
    }

    /// IoU of occupied (class 1 and above) against free; `None` if nothing is or was thought to be occupied.
    pub fn iou(&self) -> Option<f64> {
        let occupied = 1..self.classes;
        let hit: u64 = occupied.clone().map(|t| (1..self.classes).map(|p| self.count(t, p)).sum::<u64>()).sum();
        let missed: u64 = occupied.clone().map(|t| self.count(t, 0)).sum();
        let invented: u64 = occupied.map(|p| self.count(0, p)).sum();
        let union = hit + missed + invented;
        (union > 0).then(|| hit as f64 / union as f64)
    }

    /// Mean IoU over the classes 1.. that occur in the ground truth; `None` if there are none.
    pub fn miou(&self) -> Option<f64> {
        let ious: Vec<f64> = (1..self.classes).filter_map(|class| self.class_iou(class)).collect();
        (!ious.is_empty()).then(|| ious.iter().sum::<f64>() / ious.len() as f64)
    }

    /// All of it as one record.
    pub fn scores(&self) -> Scores {
        Scores {
            iou: self.iou(),
            miou: self.miou(),
            per_class: (0..self.classes).map(|class| self.class_iou(class)).collect(),
        }
    }
}

/// What a confusion matrix amounts to; fractions of 1, `None` where there was nothing to score.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Scores {
    /// Occupied against free.
    pub iou: Option<f64>,
    /// Mean over the classes 1.. that occur in the ground truth.
    pub miou: Option<f64>,
    /// IoU of every class, `[K]`, free space included.
    pub per_class: Vec<Option<f64>>,
}

/// Scores of a set of clips, and of each place in a clip.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Evaluation {
    /// Clips that were scored.
    pub clips: usize,
    /// Over all frames.
    pub total: Scores,
    /// Over the t-th frames of all clips, `[T]`.
    pub per_frame: Vec<Scores>,
    /// How the codes of each latent are used that consists of codes.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub codes: Vec<CodeUse>,
}

impl Evaluation {
    /// The columns of [`Evaluation::csv`].
    pub const COLUMNS: &str = "miou,iou,codes_used,perplexity";

    /// Its numbers, separated by commas, the last two of the first latent that has codes; empty where there is none.
    pub fn csv(&self) -> String {
        let codes = self.codes.first();
        let of_codes = [codes.map(|codes| codes.used as f64), codes.map(|codes| codes.perplexity)];
        csv([self.total.miou, self.total.iou].into_iter().chain(of_codes))
    }
}

/// Numbers separated by commas, empty where there is none.
pub fn csv(numbers: impl IntoIterator<Item = Option<f64>>) -> String {
    let texts = numbers.into_iter().map(|number| number.map_or_else(String::new, |number| number.to_string()));
    texts.collect::<Vec<_>>().join(",")
}

/// How the codes of a latent are used over a set of clips.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct CodeUse {
    /// What the latent is called.
    pub latent: String,
    /// How many codes there are.
    pub codes: usize,
    /// How many of them occur.
    pub used: usize,
    /// `exp(-sum p ln p)` of the frequencies p: how many codes there would be if all occurred equally often.
    pub perplexity: f64,
}

impl CodeUse {
    fn of(latent: &str, counts: &[u64]) -> CodeUse {
        let all: u64 = counts.iter().sum();
        let frequencies = counts.iter().filter(|&&count| count > 0).map(|&count| count as f64 / all as f64);
        CodeUse {
            latent: latent.to_owned(),
            codes: counts.len(),
            used: frequencies.clone().count(),
            perplexity: (-frequencies.map(|p| p * p.ln()).sum::<f64>()).exp(),
        }
    }

    /// The share of the codes that occur.
    pub fn used_share(&self) -> f64 {
        self.used as f64 / self.codes as f64
    }

    /// The perplexity as a share of the codes.
    pub fn perplexity_share(&self) -> f64 {
        self.perplexity / self.codes as f64
    }
}

/// Scores of one clip of a set.
#[derive(Debug, Clone, PartialEq)]
pub struct ClipScores {
    /// Number of the clip in its split.
    pub clip: usize,
    /// Scores of its frames, `[T]`.
    pub per_frame: Vec<Scores>,
    /// What its frames are scored from, `[T]`.
    pub confusion: Vec<Confusion>,
}

/// Sums confusion counts over clips, frame by frame.
#[derive(Debug, Clone)]
pub struct Tally {
    clips: Vec<ClipScores>,
    total: Confusion,
    per_frame: Vec<Confusion>,
    /// How often each code of a latent occurs.
    codes: Vec<(&'static str, Vec<u64>)>,
}

impl Tally {
    /// Nothing counted yet, for clips of `frames` frames.
    pub fn new(classes: usize, frames: usize) -> Self {
        let (total, per_frame) = (Confusion::new(classes), vec![Confusion::new(classes); frames]);
        Tally { clips: Vec::new(), total, per_frame, codes: Vec::new() }
    }

    /// Adds the counts of clip number `clip`, `[T, K, K]`.
    pub fn add_clip(&mut self, clip: usize, counts: &[u64]) {
        let classes = self.total.classes;
        let mut confusion = Vec::with_capacity(self.per_frame.len());
        for (frame, counts) in self.per_frame.iter_mut().zip(counts.chunks(classes * classes)) {
            frame.add(counts);
            self.total.add(counts);
            confusion.push(Confusion { classes, counts: counts.to_vec() });
        }
        self.clips.push(ClipScores { clip, per_frame: confusion.iter().map(Confusion::scores).collect(), confusion });
    }

    /// Adds the codes of some clips in a latent; of one that does not consist of codes nothing.
    pub fn add_codes(&mut self, latent: &LatentSpec, codes: &[u32]) {
        let LatentKind::Code { codes: all, .. } = latent.kind else { return };
        let place = self.codes.iter().position(|(name, _)| *name == latent.name).unwrap_or_else(|| {
            self.codes.push((latent.name, vec![0; all]));
            self.codes.len() - 1
        });
        for &code in codes {
            if let Some(count) = self.codes[place].1.get_mut(code as usize) {
                *count += 1;
            }
        }
    }

    /// Scores of each clip by itself, in the order in which they were added.
    pub fn clips(&self) -> &[ClipScores] {
        &self.clips
    }

    /// The sum over all frames.
    pub fn total(&self) -> &Confusion {
        &self.total
    }

    /// Scores of what was added.
    pub fn evaluation(&self) -> Evaluation {
        Evaluation {
            clips: self.clips.len(),
            total: self.total.scores(),
            per_frame: self.per_frame.iter().map(Confusion::scores).collect(),
            codes: self.codes.iter().map(|(latent, counts)| CodeUse::of(latent, counts)).collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn confusion(counts: &[u64]) -> Confusion {
        let mut confusion = Confusion::new(counts.len().isqrt());
        confusion.add(counts);
        confusion
    }

    #[test]
    fn hand_made_matrix() {
        // Truth: 10 free, 6 of class 1, 4 of class 2; class 3 never occurs but is predicted once.
        let matrix = confusion(&[8, 1, 0, 1, 2, 3, 1, 0, 0, 1, 3, 0, 0, 0, 0, 0]);
        assert_eq!(matrix.class_iou(0), Some(8.0 / 12.0));
        assert_eq!(matrix.class_iou(1), Some(3.0 / 8.0));
        assert_eq!(matrix.class_iou(2), Some(3.0 / 5.0));
        assert_eq!(matrix.class_iou(3), None);
        assert_eq!(matrix.miou(), Some((3.0 / 8.0 + 3.0 / 5.0) / 2.0));
        // Occupied in both: 3 + 1 + 1 + 3 = 8; missed 2; invented 2.
        assert_eq!(matrix.iou(), Some(8.0 / 12.0));
    }

    #[test]
    fn perfect_and_empty() {
        let perfect = confusion(&[5, 0, 0, 2]).scores();
        assert_eq!((perfect.iou, perfect.miou), (Some(1.0), Some(1.0)));
        let free = confusion(&[5, 0, 0, 0]).scores();
        assert_eq!((free.iou, free.miou, free.per_class), (None, None, vec![Some(1.0), None]));
        assert_eq!(Confusion::new(3).scores().per_class, vec![None; 3]);
    }

    #[test]
    fn frames_are_scored_apart_and_together() {
        let mut tally = Tally::new(2, 2);
        tally.add_clip(7, &[0, 0, 0, 4, 0, 0, 4, 0]);
        tally.add_clip(9, &[0, 0, 0, 4, 0, 0, 2, 2]);
        let evaluation = tally.evaluation();
        assert_eq!(evaluation.clips, 2);
        assert_eq!(evaluation.per_frame[0].miou, Some(1.0));
        assert_eq!(evaluation.per_frame[1].miou, Some(0.25));
        assert_eq!(evaluation.total.miou, Some(10.0 / 16.0));
        assert_eq!(tally.total().truth(1), 16);
        let clips: Vec<(usize, Option<f64>)> = tally.clips().iter().map(|c| (c.clip, c.per_frame[1].miou)).collect();
        assert_eq!(clips, [(7, Some(0.0)), (9, Some(0.5))]);
    }

    #[test]
    fn codes_are_counted_over_all_clips() {
        let latent = LatentSpec { name: "codes", axes: "txy", kind: LatentKind::Code { codes: 8, channels: 3 } };
        let mut tally = Tally::new(2, 1);
        assert_eq!(tally.evaluation().codes, []);
        tally.add_codes(&LatentSpec { kind: LatentKind::Plain, ..latent }, &[1, 2]);
        // One that is none counts nowhere.
        tally.add_codes(&latent, &[3, 0, 8]);
        tally.add_codes(&latent, &[3, 5]);
        let [codes] = &tally.evaluation().codes[..] else { panic!("{:?}", tally.evaluation()) };
        assert_eq!((codes.latent.as_str(), codes.codes, codes.used), ("codes", 8, 3));
        // Half of them are one, the others two: 1/2 ln 2 + 2/4 ln 4.
        assert!((codes.perplexity - 8f64.sqrt()).abs() < 1e-12, "{}", codes.perplexity);
        assert_eq!((codes.used_share(), codes.perplexity_share()), (0.375, codes.perplexity / 8.0));
        assert_eq!(CodeUse::of("codes", &[0, 4]).perplexity, 1.0);
    }

    #[test]
    fn scores_survive_json() {
        let scores = confusion(&[8, 1, 2, 3]).scores();
        let text = serde_json::to_string(&scores).unwrap();
        assert_eq!(serde_json::from_str::<Scores>(&text).unwrap(), scores);
    }
}
